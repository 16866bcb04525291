"""Where prepared data and runs stand by default, and which is the newest."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ctrs.config import read_toml
from ctrs.errors import InputNotFoundError
from ctrs.jobs import partial_dir, recover, recover_in

logger = logging.getLogger(__name__)

PREPARED = "prepared"
RUNS = "runs"
ABLATIONS = "ablations"

_DESCRIPTION = "prepared.json"


def newest_prepared(root: Path = Path()) -> Path:
    """Return the newest finished data set under ``prepared/``.

    Raises:
        InputNotFoundError: There is none.
    """
    recover_in(root / PREPARED)
    found = [
        path.parent for path in (root / PREPARED).glob(f"*/{_DESCRIPTION}") if not path.parent.name.startswith(".")
    ]
    if not found:
        raise InputNotFoundError(
            f"no prepared data in {(root / PREPARED).absolute()}; "
            "run `ctrs prepare SOURCE` first, or name a folder that it wrote"
        )
    return max(found, key=lambda path: (_changed(path / _DESCRIPTION), path.name))


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

    The same data beside the run come first: those at the place that they had from it, as far as they are the same by
    their fingerprint. So a project that was copied as a whole does not reach into the one that it was copied from.

    Args:
        checkpoint: A run folder, or a checkpoint folder or file in it.
    """
    for run in (checkpoint, *checkpoint.parents[:2]):
        record = run / "config.toml"
        if record.is_file():
            data = read_toml(record).get("data", {})
            path = data.get("path")
            if not isinstance(path, str):
                return None
            recover(Path(path))
            known = Path(path) if (Path(path) / _DESCRIPTION).is_file() else None
            beside = _data_beside(run, data, known)
            if beside is not None and known is not None and not beside.samefile(known):
                logger.info("%s: taken instead of %s, which are the same data but not beside the run", beside, known)
            return known if beside is None or (known is not None and beside.samefile(known)) else beside
    return None


def place_of_data(run: Path, data_dir: Path) -> str | None:
    """Return where prepared data lie from a run's folder; None where no relative path leads there."""
    try:
        return Path(os.path.relpath(data_dir.resolve(), run.resolve())).as_posix()
    except ValueError:  # another drive
        return None


def _data_beside(run: Path, data: Mapping[str, Any], known: Path | None) -> Path | None:
    """Return the data at the recorded place beside a run, if they are the recorded ones."""
    fingerprint, place = data.get("fingerprint"), data.get("place")
    if not isinstance(fingerprint, str):  # runs that are older than these records: where data stand by default
        fingerprint = None if known is None else _fingerprint(known)
        place = f"../../{PREPARED}/{Path(str(data['path'])).name}"
    if fingerprint is None or not isinstance(place, str):
        return None
    found = (run.resolve() / place).resolve()
    recover(found)
    return found if _fingerprint(found) == fingerprint else None


def _fingerprint(data_dir: Path) -> str | None:
    """Return the fingerprint of prepared data, None where there are none or they are not readable."""
    try:
        found = json.loads((data_dir / _DESCRIPTION).read_text(encoding="utf-8"))["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None


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
