"""Where prepared data and runs stand by default, and which is the newest."""

from __future__ import annotations

from pathlib import Path

from ctrs.errors import InputNotFoundError
from ctrs.jobs import partial_dir

PREPARED = "prepared"
RUNS = "runs"


def newest_prepared(root: Path = Path()) -> Path:
    """Return the newest finished data set under ``prepared/``.

    Raises:
        InputNotFoundError: There is none.
    """
    found = [path.parent for path in (root / PREPARED).glob("*/prepared.json") if not path.parent.name.startswith(".")]
    if not found:
        raise InputNotFoundError(
            f"no prepared data in {(root / PREPARED).absolute()}; "
            "run `ctrs prepare SOURCE` first, or name a folder that it wrote"
        )
    return max(found, key=lambda path: ((path / "prepared.json").stat().st_mtime_ns, path.name))


def newest_run(root: Path = Path()) -> Path:
    """Return the newest run under ``runs/`` that holds a checkpoint.

    Raises:
        InputNotFoundError: There is none.
    """
    marks = [
        mark
        for kind in ("best", "last")
        for mark in (root / RUNS).glob(f"*/{kind}/model.json")
        if not mark.parent.parent.name.startswith(".")
    ]
    if not marks:
        raise InputNotFoundError(
            f"no run with a checkpoint in {(root / RUNS).absolute()}; run `ctrs train` first, or name a run folder"
        )
    return max(marks, key=lambda path: (path.stat().st_mtime_ns, str(path))).parent.parent


def free_run_dir(name: str, root: Path = Path()) -> Path:
    """Return ``runs/NAME``, or ``runs/NAME-2`` and so on where that is taken."""
    candidate = root / RUNS / name
    number = 2
    while candidate.exists() or partial_dir(candidate).exists():
        candidate = root / RUNS / f"{name}-{number}"
        number += 1
    return candidate
