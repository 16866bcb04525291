"""How output comes to stand under its final name: whole or not at all, and never twice.

A job is what determines a result: the inputs (path, size, time) and the options. Its fingerprint is kept beside the
unfinished work in ``.NAME.partial/`` and inside the finished output, so that the same command goes on with interrupted
work, skips finished work, and refuses to replace a different result.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from ctrs.errors import OutputError, OutputExistsError
from ctrs.locks import LOCK_FILE, is_lock_of, take_lock
from ctrs.progress import format_bytes

logger = logging.getLogger(__name__)

JOB_FILE = "job.json"
_ASIDE = "replaced"
_EXCHANGE_SECONDS = 5.0
"""How long a process that exchanges two folders is waited for; it takes two renames."""


def not_writable(path: Path, cause: str) -> OutputError:
    """Return the error of a file or folder that could not be written, and why as far as it is known.

    It tells the room that is left, since libraries may say no more of a full disk than that a part cannot be read back.
    """
    try:
        room = f"; {format_bytes(shutil.disk_usage(path if path.is_dir() else path.parent).free)} left there"
    except OSError:
        room = ""
    return OutputError(f"{path}: not writable ({cause}{room}); free space there or choose another place with -o")


def partial_dir(final: Path) -> Path:
    """Return the place beside ``final`` where unfinished work is kept.

    >>> partial_dir(Path("maps/scene_mask.tif")).as_posix()
    'maps/.scene_mask.tif.partial'
    """
    return final.parent / f".{final.name}.partial"


def describe_file(path: Path | str) -> dict[str, Any]:
    """Identify an input by true path, size and time of change; a path that is no local file by its text alone."""
    local = Path(path)
    try:
        stat = local.stat()
    except OSError:
        return {"path": str(path)}
    return {"path": str(local.resolve()), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fingerprint(job: Mapping[str, Any]) -> str:
    """Return a short hash of everything that determines a result.

    Args:
        job: JSON values, paths and dataclasses, nested as needed. A dataclass field ``overwrite`` is left out: it
            permits, and determines nothing.

    >>> fingerprint({"window": 512}) == fingerprint({"window": 512}), fingerprint({"window": 512}) == fingerprint({})
    (True, False)
    """
    text = json.dumps(job, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return {entry.name: getattr(value, entry.name) for entry in fields(value) if entry.name != "overwrite"}
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
        sync(staged)
        try:
            if self.final.exists() and (staged.is_dir() or self.final.is_dir()):
                self._exchange(staged)
            else:
                staged.replace(self.final)
        except OSError as error:
            raise OutputError(
                f"{self.final}: cannot be put in place ({error.strerror or error}); the finished work is kept in "
                f"{self.folder}; make room or free the name, then run the same command again"
            ) from error
        _sync_entry(self.final.parent)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _exchange(self, staged: Path) -> None:
        """Set what stands under the final name aside, and put it back if the new one cannot take its place.

        A kill between the two renames leaves it aside; ``recover`` puts it back.
        """
        aside = self.folder / _ASIDE
        if aside.is_dir():  # an earlier attempt was killed right here, and the name was taken again since
            shutil.rmtree(aside)
        self.final.replace(aside)
        try:
            staged.replace(self.final)
        except OSError:
            aside.replace(self.final)
            raise


@contextmanager
def partial_work(final: Path, job_fingerprint: str, *, overwrite: bool = False) -> Iterator[PartialWork]:
    """Open ``.NAME.partial/`` for a job, going on with what the same job left there.

    What a kill left aside while it was being replaced is put back first, as by ``recover``.

    On success the caller has called ``publish``. On an error, Ctrl-C included, the folder stays for the next attempt,
    unless nothing was written to it; the exception then carries a note (``__notes__``) that names the folder.

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
        lock = take_lock(folder, final)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(
            f"{final.parent.absolute()}: not writable ({error.strerror or error}); choose another place with -o"
        ) from error
    try:
        _put_back(final)
        work = _open_work(final, folder, job_fingerprint, overwrite=overwrite)
        try:
            yield work
        except BaseException as error:
            if _holds_work(folder):
                error.add_note(f"unfinished work is kept in {folder}; the same command goes on with it")
            raise
    finally:
        # The lock goes last: until then no other process may find an empty folder that is about to vanish.
        if is_lock_of(lock, folder) and not _holds_work(folder):
            with suppress(OSError):  # the folder stays where another process has come in since the lock went
                _empty(folder)
                (folder / LOCK_FILE).unlink(missing_ok=True)
                folder.rmdir()
        if lock is not None:
            os.close(lock)


def recover(final: Path) -> bool:
    """Put a finished folder back that a kill, just while it was being replaced, left aside.

    To be called before a finished folder is looked for. Cheap where there is nothing to put back.

    Args:
        final: Path of the finished output.

    Returns:
        True if it was put back.

    Raises:
        OutputError: It cannot be put back.
    """
    folder = partial_dir(final)
    if final.exists() or not (folder / _ASIDE).exists():
        return False
    deadline = time.monotonic() + _EXCHANGE_SECONDS
    while True:
        try:
            lock = take_lock(folder, final)
        except OutputError:  # not killed, but between its two renames right now
            if final.exists():
                return False
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
            continue
        except OSError as error:
            raise _not_put_back(final, error) from error
        try:
            return _put_back(final)
        finally:
            if is_lock_of(lock, folder) and not _holds_work(folder):
                shutil.rmtree(folder, ignore_errors=True)
            if lock is not None:
                os.close(lock)


def recover_in(parent: Path) -> None:
    """Do what ``recover`` does for all finished folders of a parent folder, which need not exist.

    Raises:
        OutputError: One cannot be put back.
    """
    for aside in sorted(parent.glob(f".*.partial/{_ASIDE}")):
        recover(parent / aside.parent.name.removeprefix(".").removesuffix(".partial"))


def _put_back(final: Path) -> bool:
    """Put back what was set aside, under the lock."""
    aside = partial_dir(final) / _ASIDE
    if final.exists() or not aside.exists():
        return False
    try:
        aside.replace(final)
    except OSError as error:
        raise _not_put_back(final, error) from error
    logger.warning("%s: put back as it was; the command that was about to replace it was killed", final)
    return True


def _not_put_back(final: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{final}: was set aside by a command that was killed, and cannot be put back ({error.strerror or error}); "
        f"rename {partial_dir(final) / _ASIDE} to {final}"
    )


def _open_work(final: Path, folder: Path, job_fingerprint: str, *, overwrite: bool) -> PartialWork:
    mark = folder / JOB_FILE
    resumed = False
    if mark.exists():
        earlier = _read_fingerprint(mark)
        if overwrite or not _holds_work(folder):
            _empty(folder)
        elif earlier != job_fingerprint:
            raise OutputExistsError(
                f"{folder}: holds unfinished work of a job with other inputs (or inputs that have changed since) or "
                "options; pass --overwrite to discard it, or give that command again to go on with it"
            )
        else:
            resumed = True
    else:
        _empty(folder)
    if not mark.exists():
        write_text(mark, json.dumps({"format_version": 1, "fingerprint": job_fingerprint}))
    return PartialWork(final=final, folder=folder, resumed=resumed)


def check_existing(
    final: Path, found: str | None, job_fingerprint: str, *, overwrite: bool, made_from: str = "other inputs or options"
) -> bool:
    """Decide what an existing output means.

    Args:
        final: The output's path.
        found: Fingerprint stored in the existing output, None where it holds none.
        job_fingerprint: Fingerprint of the job at hand.
        overwrite: The user allows replacement.
        made_from: What an output of another job is the result of, for the message.

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
        f"{final}: exists and is the result of {made_from}; pass --overwrite to replace it, or another name with -o"
    )


def write_text(path: Path, text: str) -> None:
    """Write a small text file so that the new text stands there as a whole or what stood there before.

    Raises:
        OutputError: The file cannot be written.
    """
    staged = path.with_name(f".{path.name}.new")
    try:
        with staged.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        staged.replace(path)
    except OSError as error:
        with suppress(OSError):
            staged.unlink(missing_ok=True)
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or error}); check space and permissions, or write elsewhere"
        ) from error


def _read_fingerprint(mark: Path) -> str | None:
    try:
        value = json.loads(mark.read_text(encoding="utf-8")).get("fingerprint")
    except (ValueError, AttributeError):
        return None
    return value if isinstance(value, str) else None


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.name == LOCK_FILE:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _holds_work(folder: Path) -> bool:
    marks = {JOB_FILE, f".{JOB_FILE}.new", LOCK_FILE}
    return folder.is_dir() and any(entry.name not in marks for entry in folder.iterdir())


def sync(path: Path) -> None:
    """Bring a file, or a folder and all in it, from the cache to the disk."""
    if path.is_dir():
        for entry in path.rglob("*"):
            if not entry.is_symlink():
                _sync_entry(entry)
    _sync_entry(path)


def _sync_entry(path: Path) -> None:
    """Bring a file, or the names in a folder, from the cache to the disk."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
