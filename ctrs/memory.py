"""What this process holds, as far as the system tells it."""

from __future__ import annotations

from pathlib import Path


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
