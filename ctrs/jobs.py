"""How output comes to stand under its final name: whole or not at all, and never twice.

A job is what determines a result: the inputs (path, size, time) and the options. Its fingerprint is kept beside the
unfinished work in ``.NAME.partial/`` and inside the finished output, so that the same command goes on with interrupted
work, skips finished work, and refuses to replace a different result.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

from ctrs.errors import OutputError, OutputExistsError

JOB_FILE = "job.json"
_LOCK_FILE = "lock"


def partial_dir(final: Path) -> Path:
    """Return the place beside ``final`` where unfinished work is kept.

    >>> partial_dir(Path("maps/scene_mask.tif")).as_posix()
    'maps/.scene_mask.tif.partial'
    """
    return final.parent / f".{final.name}.partial"


def describe_file(path: Path | str) -> dict[str, Any]:
    """Identify an input by absolute path, size and time of change; a path that is no local file by its text alone."""
    local = Path(path)
    try:
        stat = local.stat()
    except OSError:
        return {"path": str(path)}
    return {"path": str(local.absolute()), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def fingerprint(job: Mapping[str, Any]) -> str:
    """Return a short hash of everything that determines a result.

    Args:
        job: JSON values, paths and dataclasses, nested as needed.

    >>> fingerprint({"window": 512}) == fingerprint({"window": 512}), fingerprint({"window": 512}) == fingerprint({})
    (True, False)
    """
    text = json.dumps(job, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} cannot be part of a job")


@dataclass(frozen=True, kw_only=True)
class PartialWork:
    """Unfinished work on one output: a folder to write in, and whether an earlier attempt left something there."""

    final: Path
    folder: Path
    resumed: bool

    def publish(self, staged: Path) -> None:
        """Move a finished file or folder of this work to the final name, then remove what is left of the work.

        What stood under the final name (the caller has decided that it may go) is replaced: a file in one rename, a
        folder by setting the old one aside first.
        """
        _sync(staged)
        if staged.is_dir() or self.final.is_dir():
            aside = self.folder / "replaced"
            if self.final.exists():
                self.final.replace(aside)
            staged.replace(self.final)
        else:
            staged.replace(self.final)
        _sync_entry(self.final.parent)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def partial_work(final: Path, job_fingerprint: str, *, overwrite: bool = False) -> Iterator[PartialWork]:
    """Open ``.NAME.partial/`` for a job, going on with what the same job left there.

    On success the caller has called ``publish``. On an error the folder stays for the next attempt, unless nothing
    was written to it.

    Args:
        final: Path of the finished output; its parent is created.
        job_fingerprint: From ``fingerprint``.
        overwrite: Discard unfinished work instead of going on with it.

    Raises:
        OutputError: The folder cannot be written, or another process works there.
        OutputExistsError: Unfinished work of a different job stands there and ``overwrite`` is False.
    """
    folder = partial_dir(final)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _lock(folder, final)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(
            f"{final.parent.absolute()}: not writable ({error.strerror or error}); choose another place with -o"
        ) from error
    try:
        yield _open_work(final, folder, job_fingerprint, overwrite=overwrite)
    finally:
        os.close(lock)
        _discard_if_empty(folder)


def _open_work(final: Path, folder: Path, job_fingerprint: str, *, overwrite: bool) -> PartialWork:
    mark = folder / JOB_FILE
    resumed = False
    if mark.exists():
        earlier = _read_fingerprint(mark)
        if overwrite:
            _empty(folder)
        elif earlier != job_fingerprint:
            raise OutputExistsError(
                f"{folder}: holds unfinished work of a job with other inputs or options; "
                "run that command again to go on with it, or pass --overwrite to discard it"
            )
        else:
            resumed = any(entry.name not in {JOB_FILE, _LOCK_FILE} for entry in folder.iterdir())
    else:
        _empty(folder)
    if not mark.exists():
        write_text(mark, json.dumps({"format_version": 1, "fingerprint": job_fingerprint}))
    return PartialWork(final=final, folder=folder, resumed=resumed)


def check_existing(final: Path, found: str | None, job_fingerprint: str, *, overwrite: bool) -> bool:
    """Decide what an existing output means.

    Args:
        final: The output's path.
        found: Fingerprint stored in the existing output, None where it holds none.
        job_fingerprint: Fingerprint of the job at hand.
        overwrite: The user allows replacement.

    Returns:
        True if the output exists and is the result of the same job: nothing is to be done.

    Raises:
        OutputExistsError: A different result stands there and ``overwrite`` is False.
    """
    if not final.exists() or overwrite:
        return False
    if found == job_fingerprint:
        return True
    raise OutputExistsError(
        f"{final}: exists and is the result of other inputs or options; "
        "pass --overwrite to replace it, or another name with -o"
    )


def write_text(path: Path, text: str) -> None:
    """Write a small text file so that it is either whole or absent."""
    staged = path.with_name(f".{path.name}.new")
    with staged.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    staged.replace(path)


def _read_fingerprint(mark: Path) -> str | None:
    try:
        value = json.loads(mark.read_text(encoding="utf-8")).get("fingerprint")
    except (ValueError, AttributeError):
        return None
    return value if isinstance(value, str) else None


def _lock(folder: Path, final: Path) -> int:
    """Take the folder's lock, which the kernel releases when the process ends, however it ends."""
    descriptor = os.open(folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        import fcntl
    except ImportError:  # Windows has no flock; a second process is then not noticed
        return descriptor
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise OutputError(
            f"{final}: another process is writing it now; wait for it to end, or choose another name"
        ) from error
    return descriptor


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.name == _LOCK_FILE:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _discard_if_empty(folder: Path) -> None:
    if folder.is_dir() and all(entry.name in {JOB_FILE, _LOCK_FILE} for entry in folder.iterdir()):
        shutil.rmtree(folder, ignore_errors=True)


def _sync(path: Path) -> None:
    files = [entry for entry in path.rglob("*") if entry.is_file()] if path.is_dir() else [path]
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _sync_entry(folder: Path) -> None:
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
