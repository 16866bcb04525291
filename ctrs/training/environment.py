"""``environment.json`` of a run: the machine and the software of each start, without the names of host and user."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import ctrs
from ctrs.jobs import write_text
from ctrs.training.settings import usable_cores

ENVIRONMENT_FILE = "environment.json"
FORMAT_VERSION = 1

_TRACKERS = ("wandb", "mlflow")
_GIT_SECONDS = 10.0


def record_start(
    run_dir: Path, *, first_epoch: int, device: torch.device, command: Sequence[str] | None = None
) -> None:
    """Add what a run is started or gone on with to the starts in its ``environment.json``.

    Args:
        run_dir: Folder of the run.
        first_epoch: Epoch that this process begins with, from 1.
        device: Where the network is.
        command: Command line; None: that of this process.
    """
    path = run_dir / ENVIRONMENT_FILE
    starts = _earlier_starts(path)
    starts.append({"first_epoch": first_epoch, **describe_environment(device, command=command)})
    write_text(path, json.dumps({"format_version": FORMAT_VERSION, "starts": starts}, indent=1) + "\n")


def describe_environment(device: torch.device, *, command: Sequence[str] | None = None) -> dict[str, Any]:
    """Return what ran where and when, as JSON values.

    Args:
        device: Where the network is.
        command: Command line; None: that of this process.
    """
    words = [Path(sys.argv[0]).name, *sys.argv[1:]] if command is None else list(command)
    return {
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": [_without_home(word) for word in words],
        "ctrs": ctrs.__version__,
        "ctrs_commit": source_commit(),
        "python": platform.python_version(),
        "packages": package_versions(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "memory_bytes": _installed_memory(),
        "device": str(device),
        "gpus": _gpus() if device.type == "cuda" else [],
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "cudnn": torch.backends.cudnn.version() if device.type == "cuda" else None,  # type: ignore[no-untyped-call]
        "nvidia_driver": _nvidia_driver() if device.type == "cuda" else None,
    }


def package_versions() -> dict[str, str]:
    """Return the versions of what ctrs depends on, and of the trackers that are installed."""
    try:
        required = metadata.requires("ctrs") or []
    except metadata.PackageNotFoundError:
        required = ["torch", "timm", "lightning", "segmentation-models-pytorch", "numpy", "rasterio", "albumentations"]
    names = [re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0] for line in required if "extra ==" not in line]
    versions: dict[str, str] = {}
    for name in sorted({*names, *_TRACKERS}):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def source_commit() -> str | None:
    """Return the commit of ctrs, ``-dirty`` where it was changed since; None where it is no git checkout."""
    root = Path(ctrs.__file__).parent.parent
    if not (root / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True, text=True, timeout=_GIT_SECONDS, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None


def _earlier_starts(path: Path) -> list[Any]:
    """Return the starts that are written down; a broken file is begun anew, since nothing needs it."""
    try:
        starts = json.loads(path.read_text(encoding="utf-8"))["starts"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return list(starts) if isinstance(starts, list) else []


def _without_home(word: str) -> str:
    home = os.path.expanduser("~")  # noqa: PTH111  (may stand within the word, as in KEY=~/data)
    return word.replace(home, "~") if len(home) > 1 else word


def cpu_model() -> str:
    """Return the name of the processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:  # not Linux
        pass
    return platform.processor() or platform.machine()


def _installed_memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _gpus() -> list[dict[str, Any]]:
    found = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return [{"name": gpu.name, "memory_bytes": gpu.total_memory} for gpu in found]


def _nvidia_driver() -> str | None:
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    match = re.search(r"Kernel Module(?: for \S+)?\s+([0-9.]+)", text)
    return match.group(1) if match else None
