"""How long work tells its caller how far it is; the command line draws it, a library user may pass any callable.

Durations and sizes are put into words here, the same ones everywhere.
"""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called by long-running functions whenever a unit of work is finished."""

    def __call__(self, done: int, total: int, what: str) -> None:
        """Take note of progress.

        Args:
            done: Finished units, 0 to ``total``.
            total: Number of units in this phase.
            what: The phase in a few words, e.g. ``"tiling top_potsdam_2_10"``; a new text opens a new phase.
        """


def no_progress(done: int, total: int, what: str) -> None:
    """Ignore progress: the default of every library function."""


def format_duration(seconds: float) -> str:
    """Return a duration in the two largest units that it needs, below ten seconds with one decimal.

    >>> format_duration(3.21), format_duration(42.4), format_duration(600), format_duration(7322), format_duration(2e5)
    ('3.2 s', '42 s', '10 min 0 s', '2 h 2 min', '2 d 7 h')
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    for unit, size, below, below_size in (("d", 86400, "h", 3600), ("h", 3600, "min", 60)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // below_size} {below}"
    return f"{whole // 60} min {whole % 60} s"


def format_bytes(count: float) -> str:
    """Return a number of bytes in the unit that it needs, by powers of 1000 as disks are sold.

    >>> format_bytes(0), format_bytes(12_345), format_bytes(84_600_000), format_bytes(1.26e9), format_bytes(3e13)
    ('0 B', '12 kB', '85 MB', '1.3 GB', '30.0 TB')
    """
    for unit, size, digits in (("TB", 1e12, 1), ("GB", 1e9, 1), ("MB", 1e6, 0), ("kB", 1e3, 0)):
        if count >= size:
            return f"{count / size:.{digits}f} {unit}"
    return f"{count:.0f} B"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun in the singular or plural.

    >>> counted(1, "epoch"), counted(12, "epoch"), counted(0, "process")
    ('1 epoch', '12 epochs', '0 processes')
    """
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{ending}"
