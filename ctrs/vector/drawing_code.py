"""Which drawing made a layer: another version of ctrs may draw other polygons from the same mask and options."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

import ctrs

_JUDGING = "quality"
"""Judges layers, draws none."""


@cache
def hash_drawing_code() -> str:
    """Return a hash of the code that draws polygons, which is part of each job: nobody has to remember a number.

    It covers this package, the meaning of its options and lengths on the ground; and the version where a program was
    packed without its sources.

    >>> len(hash_drawing_code())
    32
    """
    package = resources.files("ctrs")
    files = [*_sources(package / "vector"), package / "config" / "vectorize.py", package / "raster" / "units.py"]
    found = hashlib.sha256(ctrs.__version__.encode())
    for file in files:
        if file.is_file():
            found.update(b"\0" + file.name.encode() + b"\0" + file.read_bytes())
    return found.hexdigest()[:32]


def _sources(folder: Traversable) -> Iterator[Traversable]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir() and entry.name != _JUDGING:
            yield from _sources(entry)
        elif entry.name.endswith(".py"):
            yield entry
