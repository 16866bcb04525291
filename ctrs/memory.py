"""What this process holds, as far as the system tells it, and what it keeps of what it frees."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Parameters of glibc's mallopt, from malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -3, -4, -8
_NEVER_TRIM, _NO_MAPS = -1, 0
_MOST_MAPS = 65536
"""glibc's own ``M_MMAP_MAX``."""
_LARGEST_THRESHOLD = 32 * 2**20
"""What ``M_MMAP_THRESHOLD`` grows to by itself in a process that frees large buffers, and half of what
``M_TRIM_THRESHOLD`` does; glibc adapts neither once one was set."""

_OTHERS_SETTINGS = ("MALLOC_", "GLIBC_TUNABLES")
"""Variables by which users set up glibc's ``malloc``."""

_lock = threading.Lock()
_keeping: set[object] = set()
"""One for each block that keeps memory now."""


def process_memory(key: str) -> int:
    """Return a figure of this process in bytes, 0 where the system does not tell it.

    Args:
        key: ``VmRSS`` for what is resident now, ``VmHWM`` for the most that was.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return 0


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keep what is freed in the process while the block runs, and give it back to the system at its end.

    Else each large buffer of a network is fetched from the system page by page, and given back, every time: a tenth and
    more of the time of a forward pass on the CPU. Without glibc, and where the user has set up its ``malloc`` by the
    environment, nothing changes. Blocks may be nested, and run in several threads.
    """
    libc = _tunable_libc()
    if libc is None:
        yield
        return
    block = object()
    try:  # from here on, so that an interrupt at any point finds the way back
        with _lock:
            _keeping.add(block)
            libc.mallopt(_MMAP_MAX, _NO_MAPS)
            libc.mallopt(_TRIM_THRESHOLD, _NEVER_TRIM)
        yield
    finally:
        with _lock:
            _keeping.discard(block)
            if not _keeping:
                libc.mallopt(_MMAP_MAX, _MOST_MAPS)
                libc.mallopt(_MMAP_THRESHOLD, _LARGEST_THRESHOLD)
                libc.mallopt(_TRIM_THRESHOLD, 2 * _LARGEST_THRESHOLD)
                libc.malloc_trim(0)


def share_one_arena() -> None:
    """Let all threads of this process draw memory from one place, so that what one frees serves the others.

    Else glibc gives each thread an arena of its own, and threads that read, map and write in turn keep several times
    what they need. To be called before threads begin; as ``kept_memory``, it
    does nothing without glibc, or where the user has set up its ``malloc``.
    """
    libc = _tunable_libc()
    if libc is not None:
        libc.mallopt(_ARENA_MAX, 1)


def _tunable_libc() -> ctypes.CDLL | None:
    """Return the C library if its ``malloc`` is glibc's and nobody else has set it up."""
    if not sys.platform.startswith("linux") or any(name.startswith(_OTHERS_SETTINGS) for name in os.environ):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") and hasattr(libc, "malloc_trim") else None
