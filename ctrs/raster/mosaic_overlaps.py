"""Where parts of a mosaic overlap and their pixels differ: looked at in a few places of each overlap."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio

from ctrs.raster.geotiff import open_raster, read_window
from ctrs.raster.mosaic import MosaicSource
from ctrs.raster.names import is_remote
from ctrs.raster.windows import PixelWindow

MAX_OVERLAPS = 100
"""Overlaps that are looked at, spread evenly over all."""

MAX_REMOTE_OVERLAPS = 8
"""The same where parts are on other machines, so that each takes its time."""

SAMPLE_PX = 128
"""Longest edge of a place in an overlap; there are up to three in each."""


@dataclass(frozen=True, kw_only=True)
class Contradiction:
    """Two parts whose pixels differ where both are valid.

    Args:
        below: The part whose pixels are hidden.
        above: The part whose pixels are shown.
        share: Share of the pixels looked at that differ.
    """

    below: Path
    above: Path
    share: float


def contradictions(sources: Sequence[MosaicSource]) -> list[Contradiction]:
    """Return the overlapping parts whose valid pixels differ, the most different first.

    Args:
        sources: Parts and their places in the mosaic; later ones lie above earlier ones.

    Raises:
        RasterError: A part cannot be read.
    """
    pairs = list(_overlaps(sources))
    most = MAX_REMOTE_OVERLAPS if any(is_remote(source.path) for source in sources) else MAX_OVERLAPS
    step = max(1, -(-len(pairs) // most))
    found: list[Contradiction] = []
    for below, above in pairs[::step]:
        compared = differing = 0
        with open_raster(below.path) as lower, open_raster(above.path) as upper:
            for place in _places(below, above):
                hidden, hidden_valid = _read(lower, below, place)
                shown, shown_valid = _read(upper, above, place)
                both = hidden_valid & shown_valid
                compared += int(both.sum())
                differing += int((hidden != shown).any(axis=0)[both].sum())
        if differing:
            found.append(Contradiction(below=below.path, above=above.path, share=differing / compared))
    return sorted(found, key=lambda pair: -pair.share)


def _overlaps(sources: Sequence[MosaicSource]) -> Iterator[tuple[MosaicSource, MosaicSource]]:
    """Yield pairs of parts that overlap, the lower first."""
    order = sorted(range(len(sources)), key=lambda number: sources[number].col_off)
    reached: list[int] = []
    for number in order:
        source = sources[number]
        reached = [other for other in reached if sources[other].col_off + sources[other].width > source.col_off]
        for other in reached:
            near = sources[other]
            if near.row_off < source.row_off + source.height and source.row_off < near.row_off + near.height:
                low, high = sorted((number, other))
                yield sources[low], sources[high]
        reached.append(number)


def _places(one: MosaicSource, other: MosaicSource) -> Iterable[PixelWindow]:
    """Return windows along the diagonal of an overlap, in pixels of the mosaic."""
    left, top = max(one.col_off, other.col_off), max(one.row_off, other.row_off)
    width = min(one.col_off + one.width, other.col_off + other.width) - left
    height = min(one.row_off + one.height, other.row_off + other.height) - top
    size = min(width, SAMPLE_PX), min(height, SAMPLE_PX)
    free = width - size[0], height - size[1]
    corners = dict.fromkeys((left + free[0] * part // 2, top + free[1] * part // 2) for part in range(3))
    return [PixelWindow(col_off=col, row_off=row, width=size[0], height=size[1]) for col, row in corners]


def _read(
    dataset: rasterio.DatasetReader, source: MosaicSource, place: PixelWindow
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Return pixels and validity of a part at a place of the mosaic."""
    window = replace(place, col_off=place.col_off - source.col_off, row_off=place.row_off - source.row_off)
    return read_window(dataset, window)
