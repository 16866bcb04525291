"""What happened while a scene was mapped: ``SCENE_mask.json`` beside the mask.

Times, command, threads, memory and versions stand here and not in the mask, whose bytes tell of its result alone. The
log decides nothing: a mask without it is as finished as one with it.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import rasterio

import ctrs
from ctrs.inference.guard import Difference
from ctrs.jobs import write_text
from ctrs.memory import process_memory
from ctrs.raster.names import shown, without_secrets
from ctrs.raster.windows import PixelWindow

KIND = "ctrs prediction log"
FORMAT_VERSION = 1

_PACKAGES = ("torch", "timm", "segmentation-models-pytorch", "numpy", "rasterio")


def log_path(mask: Path) -> Path:
    """Return where the log of a mask stands.

    >>> log_path(Path("city/scene_mask.tif")).as_posix()
    'city/scene_mask.json'
    """
    return mask.with_suffix(".json")


class PhaseClock:
    """When work began, and the seconds that its phases took."""

    def __init__(self) -> None:
        self.started = datetime.now(UTC)
        self._begun = time.perf_counter()
        self._seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time of a block, also where it ends with an error; phases of one name add up."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - begun)

    def add(self, name: str, seconds: float) -> None:
        """Count seconds that were measured elsewhere, such as those that another thread was at work."""
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each phase, and ``total`` since the beginning."""
        return {**self._seconds, "total": time.perf_counter() - self._begun}


@dataclass(frozen=True, kw_only=True)
class PredictionLog:
    """What happened while a scene was mapped.

    Args:
        command: The command line; None for a call from Python.
        scene: The scene, as ``open_raster`` takes it.
        model: The weight file; None for a network that was handed over.
        weights_hash: Of the network.
        input: Text of the tag ``CTRS_INPUT``.
        options: Of the tag ``CTRS_OPTIONS``.
        clock: Beginning and phases; the end is when the log is written.
        windows: Windows of the whole scene.
        windows_seen: Windows that the network saw in this process.
        windows_skipped: Windows without a valid pixel, which it did not see.
        batch_size: Windows at a time.
        threads: Threads by their work: ``network``, ``reading``, ``writing``.
        device: Where the network ran, e.g. ``cpu`` or the name of the GPU.
        precision: Number format of its arithmetic.
        memory_bound: Bytes beside network and activations that were promised before; None where none were.
        files: From ``InputHash.files``.
        unreadable: Blocks of the scene that were left out, in pixels of the mask.
        differences: What the guard found.
        resumed_from_row: First row that was mapped now, where earlier work was gone on with; None else.
    """

    command: Sequence[str] | None
    scene: Path | str
    model: Path | None
    weights_hash: str
    input: str
    options: Mapping[str, Any]
    clock: PhaseClock
    windows: int
    windows_seen: int
    windows_skipped: int
    batch_size: int
    threads: Mapping[str, int]
    device: str
    precision: str
    memory_bound: int | None = None
    files: Sequence[Mapping[str, Any]] = ()
    unreadable: Sequence[PixelWindow] = ()
    differences: Sequence[Difference] = ()
    resumed_from_row: int | None = None
    versions: Mapping[str, str] = field(default_factory=lambda: current_versions())

    def to_json(self, mask: Path) -> dict[str, Any]:
        """Return JSON values as of now."""
        return {
            "kind": KIND,
            "format_version": FORMAT_VERSION,
            "mask": mask.name,
            "scene": without_secrets(shown(self.scene)),
            "command": None if self.command is None else [without_secrets(part) for part in self.command],
            "started": self.clock.started.isoformat(timespec="seconds"),
            "ended": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": {name: round(value, 3) for name, value in self.clock.seconds().items()},
            "model": {"path": None if self.model is None else str(self.model), "weights_hash": self.weights_hash},
            "input": self.input,
            "files": [dict(file) for file in self.files],
            "options": dict(self.options),
            "windows": {"total": self.windows, "seen": self.windows_seen, "skipped": self.windows_skipped},
            "resumed_from_row": self.resumed_from_row,
            "batch_size": self.batch_size,
            "threads": dict(self.threads),
            "device": self.device,
            "precision": self.precision,
            "memory": {"bound_bytes": self.memory_bound, "peak_bytes": process_memory("VmHWM") or None},
            "unreadable": [vars(block) for block in self.unreadable],
            "differences": [difference.to_json() for difference in self.differences],
            "versions": dict(self.versions),
        }


def write_log(mask: Path, log: PredictionLog) -> Path:
    """Write the log of a mask beside it, replacing an earlier one as a whole.

    Args:
        mask: Where the mask stands, or will stand.
        log: What happened.

    Raises:
        OutputError: The file cannot be written.
    """
    path = log_path(mask)
    write_text(path, json.dumps(log.to_json(mask), indent=1, allow_nan=False) + "\n")
    return path


def copy_log(whole: Path, mask: Path, *, scene: Path | str) -> Path | None:
    """Write the log of a mask that was cut from a larger one: what happened then, under its own names.

    Args:
        whole: The larger mask, whose log stands beside it.
        mask: Where the mask that was cut will stand.
        scene: What it shows.

    Returns:
        The log; None where the larger mask has none.

    Raises:
        OutputError: The file cannot be written.
    """
    try:
        row = json.loads(log_path(whole).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    row |= {"mask": mask.name, "scene": without_secrets(shown(scene)), "cut_from": row.get("scene")}
    path = log_path(mask)
    write_text(path, json.dumps(row, indent=1, allow_nan=False) + "\n")
    return path


def mapped_at(mask: Path) -> datetime:
    """Return when a mask was made: as its log says, else when its file was written."""
    try:
        row = json.loads(log_path(mask).read_text(encoding="utf-8"))
        if row["kind"] == KIND:
            return datetime.fromisoformat(row["ended"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return datetime.fromtimestamp(mask.stat().st_mtime, UTC)


def current_versions() -> dict[str, str]:
    """Return the versions of what a mask's rounding depends on."""
    found = {"ctrs": ctrs.__version__, "python": platform.python_version(), "gdal": rasterio.__gdal_version__}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
