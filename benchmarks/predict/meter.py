"""Time and memory of a span of work in this process, and what the machine did beside it."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from types import TracebackType


def peak_mib() -> float | None:
    """Return the most memory that this process held since `forget_peak`; None where the system does not say.

    ``ru_maxrss`` would begin with what the parent held.
    """
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return None if found is None else int(found[1]) / 1024


def forget_peak() -> None:
    """Let the peak begin with what is held now, so that what imports took for a moment does not hide later peaks."""
    refs = Path("/proc/self/clear_refs")
    if refs.exists():
        refs.write_text("5")


def busy_seconds() -> float | None:
    """Return the processor time that all the machine has spent, and what its host took away; None without /proc."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    user, nice, system, _idle, _waiting, irq, softirq, steal = map(int, stat.read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Meter:
    """Measures a ``with`` block: ``seconds``, ``cpu_seconds`` of this process, ``foreign`` share of the machine's time.

    ``foreign`` is the processor time that others spent meanwhile, as a share of what all cores could have done.
    """

    def __enter__(self) -> Meter:
        self._busy, self._cpu, self.started = busy_seconds(), time.process_time(), time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended = time.perf_counter()
        self.seconds = self.ended - self.started
        self.cpu_seconds = time.process_time() - self._cpu
        busy = busy_seconds()
        self.foreign: float | None = None
        if busy is not None and self._busy is not None:
            self.foreign = max(0.0, busy - self._busy - self.cpu_seconds) / (self.seconds * (os.cpu_count() or 1))

    def figures(self) -> dict[str, float | None]:
        return {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds, "foreign": self.foreign}
