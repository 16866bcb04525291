"""A table of all colours: which class of a legend each stands for, exactly, nearly or as the nearest."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from ctrs.classes import IGNORE_INDEX, ClassMap
from ctrs.errors import ConfigError

_CHUNK_PX = 65536
"""Pixels looked up at a time: their eight bytes each stay in the cache (2.3 against 4.3 ns a pixel)."""

_CELL = 16
"""Edge of the cells of the colour cube in which the legend colours that can be nearest are found."""


@dataclass(frozen=True, kw_only=True)
class ColorTable:
    """What each of the 16.8 million colours stands for.

    A code is the class index, or the class index plus the number of classes where the colour is near the legend's
    and not equal. Ignored legend colours, colours near them and unknown colours have codes of their own.

    Args:
        codes: Code by ``red << 16 | green << 8 | blue``.
        masks: Mask value by code.
        num_classes: Classes that are learnt.
    """

    codes: npt.NDArray[Any]
    masks: npt.NDArray[np.uint8]
    num_classes: int

    @property
    def ignored(self) -> int:
        """Code of ignored colours."""
        return len(self.masks) - 1

    @property
    def unknown(self) -> int:
        """Code of colours that the legend does not hold."""
        return len(self.masks) - 2

    def is_near(self, codes: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Return which codes are of colours near the legend's."""
        near: npt.NDArray[np.bool_] = (codes - codes.dtype.type(self.num_classes)) <= self.num_classes  # wraps round
        return near

    def look_up(self, rgb: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """Return the codes (h, w) of an image (3, h, w)."""
        red, green, blue = rgb.reshape(3, -1)
        found = np.empty(red.size, self.codes.dtype)
        octets = np.zeros((min(_CHUNK_PX, red.size), 8), np.uint8)
        places = octets.view("<i8")[:, 0]
        for start in range(0, red.size, _CHUNK_PX):
            stop = min(start + _CHUNK_PX, red.size)
            for position, band in enumerate((blue, green, red)):
                octets[: stop - start, position] = band[start:stop]
            self.codes.take(places[: stop - start], out=found[start:stop], mode="clip")
        return found.reshape(rgb.shape[1:])


_building = threading.Lock()


def color_table(classes: ClassMap, *, tolerance: int = 0, nearest: bool = False) -> ColorTable:
    """Return the table of a legend; the last two are kept, 17 MB each.

    Args:
        classes: Class table.
        tolerance: Largest difference in each channel at which a colour still counts as its legend colour (Potsdam
            holds 252 for 255). Legend colours must lie further apart than twice that.
        nearest: Let every colour count as the nearest legend colour (Euclidean; the first in the table of several),
            whatever the tolerance.

    Raises:
        ConfigError: Legend colours lie too close together for the tolerance.
    """
    with _building:
        return _color_table(classes, 0 if nearest else tolerance, nearest)


@lru_cache(maxsize=2)
def _color_table(classes: ClassMap, tolerance: int, nearest: bool) -> ColorTable:
    num = classes.num_classes
    dtype = np.uint8 if 2 * num < 254 else np.uint16
    top = int(np.iinfo(dtype).max)
    masks = np.full(top + 1, IGNORE_INDEX, np.uint8)
    masks[:num] = masks[num : 2 * num] = np.arange(num)
    indices = np.array(classes.row_indices)
    exact = np.where(indices == IGNORE_INDEX, top, indices)
    near = np.where(indices == IGNORE_INDEX, 2 * num, indices + num)
    colors = np.array([entry.color for entry in classes.classes])
    codes = near.astype(dtype)[nearest_rows(colors)] if nearest else np.full((256, 256, 256), top - 1, dtype)
    if tolerance:
        _check_tolerance(classes, tolerance)
        for color, code in zip(colors.tolist(), near.tolist(), strict=True):
            codes[tuple(slice(max(0, level - tolerance), level + tolerance + 1) for level in color)] = code
    codes[tuple(colors.T)] = exact
    return ColorTable(codes=codes.ravel(), masks=masks, num_classes=num)


def _check_tolerance(classes: ClassMap, tolerance: int) -> None:
    for number, first in enumerate(classes.classes):
        for second in classes.classes[number + 1 :]:
            if max(abs(a - b) for a, b in zip(first.color, second.color, strict=True)) <= 2 * tolerance:
                raise ConfigError(
                    f"colour tolerance {tolerance}: {first.name!r} {first.color} and "
                    f"{second.name!r} {second.color} lie too close together; choose a smaller tolerance"
                )


def nearest_rows(colors: npt.NDArray[np.int64]) -> npt.NDArray[np.uint16]:
    """Return the number of the nearest of some colours (R, 3) for each colour, (256, 256, 256); ties go to the first.

    The cube is done in cells: only colours whose least distance to a cell is no more than the least of all greatest
    distances can be nearest in it, so that many colours cost little more than few.
    """
    squares = (np.arange(256) - colors[:, :, None]) ** 2  # (R, 3, 256)
    cells = squares.reshape(len(colors), 3, 256 // _CELL, _CELL)
    low = np.arange(0, 256, _CELL)
    gaps = np.maximum(np.maximum(low - colors[:, :, None], colors[:, :, None] - (low + _CELL - 1)), 0) ** 2
    most = cells.max(axis=-1)
    rows = np.empty((256, 256, 256), np.uint16)
    for cell in product(range(256 // _CELL), repeat=3):
        least = sum(gaps[:, channel, place] for channel, place in enumerate(cell))
        bound = sum(most[:, channel, place] for channel, place in enumerate(cell))
        candidates = np.flatnonzero(least <= np.min(bound))
        red, green, blue = (cells[candidates, channel, place] for channel, place in enumerate(cell))
        distances = red[:, :, None, None] + green[:, None, :, None] + blue[:, None, None, :]
        inside = tuple(slice(place * _CELL, (place + 1) * _CELL) for place in cell)
        rows[inside] = candidates[distances.argmin(axis=0)]
    return rows
