"""Where prepared data and runs stand by default, and which is the newest."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from ctrs.config import read_toml
from ctrs.errors import InputNotFoundError
from ctrs.jobs import partial_dir, recover, recover_in

PREPARED = "prepared"
RUNS = "runs"
ABLATIONS = "ablations"


def newest_prepared(root: Path = Path()) -> Path:
    """Return the newest finished data set under ``prepared/``.

    Raises:
        InputNotFoundError: There is none.
    """
    recover_in(root / PREPARED)
    found = [path.parent for path in (root / PREPARED).glob("*/prepared.json") if not path.parent.name.startswith(".")]
    if not found:
        raise InputNotFoundError(
            f"no prepared data in {(root / PREPARED).absolute()}; "
            "run `ctrs prepare SOURCE` first, or name a folder that it wrote"
        )
    return max(found, key=lambda path: (_changed(path / "prepared.json"), path.name))


def newest_run(root: Path = Path(), *, unfinished: bool = False) -> Path:
    """Return the newest run under ``runs/`` that holds a checkpoint.

    Args:
        root: Folder that holds ``runs/``.
        unfinished: Also take runs that were stopped before their first checkpoint.

    Raises:
        InputNotFoundError: There is none.
    """
    patterns = ("*/best/model.json", "*/last/model.json") + (("*/config.toml",) if unfinished else ())
    for folder in (root / RUNS).glob("*/"):
        recover_in(folder)
    newest: dict[Path, int] = {}
    for pattern in patterns:
        for mark in (root / RUNS).glob(pattern):
            run = root / RUNS / mark.relative_to(root / RUNS).parts[0]
            if not run.name.startswith("."):
                newest[run] = max(newest.get(run, 0), _changed(mark))
    if not newest:
        raise InputNotFoundError(
            f"no run{'' if unfinished else ' with a checkpoint'} in {(root / RUNS).absolute()}; "
            "run `ctrs train` first, or name a run folder"
        )
    return max(newest, key=lambda run: (newest[run], run.name))


def mark_as_newest(mark: Path) -> None:
    """Set a file's time of change to now: a result that is asked for again is the newest, though nothing was made.

    Where the file may not be touched, all stays as it is.

    Args:
        mark: ``prepared.json`` of prepared data, ``model.json`` of a run's checkpoint.
    """
    with suppress(OSError):
        os.utime(mark)


def run_data_dir(checkpoint: Path) -> Path | None:
    """Return the prepared data that a run was trained on, None where that is not known or not there any more.

    Args:
        checkpoint: A run folder, or a checkpoint folder or file in it.
    """
    for folder in (checkpoint, *checkpoint.parents[:2]):
        record = folder / "config.toml"
        if record.is_file():
            path = read_toml(record).get("data", {}).get("path")
            if not isinstance(path, str):
                return None
            recover(Path(path))
            return Path(path) if (Path(path) / "prepared.json").is_file() else None
    return None


def free_run_dir(name: str, root: Path = Path()) -> Path:
    """Return ``runs/NAME``, or ``runs/NAME-2`` and so on where that is taken."""
    candidate = root / RUNS / name
    number = 2
    while candidate.exists() or partial_dir(candidate).exists():
        candidate = root / RUNS / f"{name}-{number}"
        number += 1
    return candidate


def _changed(path: Path) -> int:
    """Return the time of change; 0 for a file that a running command is just replacing."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
