"""Locks that keep other processes out of what one works on; the kernel releases them, however the process ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ctrs.errors import OutputError

LOCK_FILE = "lock"


@contextmanager
def held(folder: Path, what: Path) -> Iterator[None]:
    """Keep other processes out of something that grows under its final name, such as a run.

    Args:
        folder: Where the lock stands; it is made if need be.
        what: What is held, for messages.

    Raises:
        OutputError: It cannot be written, or another process works there.
    """
    try:
        lock = take_lock(folder, what)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(
            f"{what.absolute()}: not writable ({error.strerror or error}); choose another place"
        ) from error
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


def take_lock(folder: Path, what: Path) -> int | None:
    """Make the folder and take its lock.

    Args:
        folder: Where the lock stands.
        what: What is locked, for messages.

    Returns:
        Descriptor of the lock, which closing releases; None where the system has no such locks.

    Raises:
        OutputError: Another process holds it.
        OSError: The folder cannot be made or written.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no flock; a second process is then not noticed
        folder.mkdir(parents=True, exist_ok=True)
        return None
    attempts = 0
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
        except (FileExistsError, FileNotFoundError):
            # Another process may have finished, and removed the folder, while this one looked; a file or a broken
            # link in the way stays.
            attempts += 1
            if attempts == 100:
                raise
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise OutputError(
                f"{what}: another process is writing it now; wait for it to end, or choose another name"
            ) from error
        if is_lock_of(descriptor, folder):
            return descriptor
        os.close(descriptor)


def is_lock_of(descriptor: int | None, folder: Path) -> bool:
    """Tell whether the folder still has this lock: it may have been removed, and made anew by another process."""
    if descriptor is None:
        return folder.is_dir()
    try:
        return os.path.samestat(os.fstat(descriptor), (folder / LOCK_FILE).stat())
    except FileNotFoundError:
        return False
