"""Overviews of class masks: of four pixels, the class that most of them have.

GDAL makes them too (resampling ``MODE``), in several times the time.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.windows import Window

from ctrs.classes import IGNORE_INDEX, Mask
from ctrs.raster.row_bands import BLOCK_PX, scratch_compression

_CACHED_ROWS = 16


def halve(mask: Mask) -> Mask:
    """Return a mask of half the size, the far row and column alone where the size is odd.

    Each pixel has the class of most of the four it stands for, the first of equals; nodata does not vote.

    Args:
        mask: (h, w), ``IGNORE_INDEX`` is nodata.

    >>> halve(np.array([[1, 2, 255, 255], [0, 2, 255, 3]], np.uint8)).tolist()
    [[2, 3]]
    """
    height, width = mask.shape
    if height % 2 or width % 2:
        mask = np.pad(mask, ((0, height % 2), (0, width % 2)), constant_values=IGNORE_INDEX)
    # Copies, not views: each is read several times, and in order.
    a, b, c, d = (np.ascontiguousarray(mask[row::2, col::2]) for row in (0, 1) for col in (0, 1))
    a_is_twice = (a == b) | (a == c) | (a == d)
    b_is_twice = (b == c) | (b == d)
    c_is_twice = c == d
    out = a.copy()
    if mask.max(initial=0) == IGNORE_INDEX:
        a_is_twice &= a != IGNORE_INDEX
        b_is_twice &= b != IGNORE_INDEX
        c_is_twice &= c != IGNORE_INDEX
        # No class is there twice: any one will do, and nodata is the largest value.
        np.copyto(out, np.minimum(np.minimum(b, c), d), where=a == IGNORE_INDEX)
    np.copyto(out, c, where=c_is_twice)
    np.copyto(out, b, where=b_is_twice)
    np.copyto(out, a, where=a_is_twice)
    return out


def write_overviews(rows: Iterable[Mask], height: int, width: int, folder: Path, *, stop_px: int) -> list[Path]:
    """Write the overviews of a mask, each of half the size of the one before, as files for soon to be read again.

    All are made in one pass; memory does not grow with the mask's height.

    Args:
        rows: Rows of the mask (h, W) from the top down, any number at a time.
        height: Rows of the mask.
        width: Columns of the mask.
        folder: Where they go; made when needed.
        stop_px: Edge of the size at which there are no further overviews.

    Returns:
        The files, the largest first.
    """
    paths: list[Path] = []
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as files:
        levels: list[_Level] = []
        while max(height, width) > stop_px:
            height, width = -(-height // 2), -(-width // 2)
            paths.append(folder / f"overview_{len(paths)}.tif")
            levels.append(_Level(files.enter_context(_open(paths[-1], height, width))))
        if levels:
            for above, below in pairwise(levels):
                above.next = below
            for part in rows:
                levels[0].take(part)
            levels[0].finish()
    return paths


class _Level:
    """One overview: takes rows of twice its size, writes rows of blocks, and hands what it made to the next."""

    def __init__(self, file: rasterio.io.DatasetWriter) -> None:
        self._file = file
        self._odd: Mask | None = None
        self._rows = np.empty((BLOCK_PX, file.width), np.uint8)
        self._num_waiting = 0
        self._num_written = 0
        self.next: _Level | None = None

    def take(self, rows: Mask) -> None:
        """Take the next rows."""
        if self._odd is not None:
            rows = np.concatenate([self._odd, rows])
            self._odd = None
        if len(rows) % 2:
            self._odd = rows[-1:].copy()
            rows = rows[:-1]
        for top in range(0, len(rows), 2 * _CACHED_ROWS):  # what stays in the CPU's caches takes less time
            self._put(halve(rows[top : top + 2 * _CACHED_ROWS]))

    def finish(self) -> None:
        """Write what waits, as there are no more rows."""
        if self._odd is not None:
            self._put(halve(self._odd))
        self._write()
        if self.next is not None:
            self.next.finish()

    def _put(self, rows: Mask) -> None:
        while len(rows):
            fitting = rows[: BLOCK_PX - self._num_waiting]
            self._rows[self._num_waiting : self._num_waiting + len(fitting)] = fitting
            self._num_waiting += len(fitting)
            rows = rows[len(fitting) :]
            if self._num_waiting == BLOCK_PX:
                self._write()

    def _write(self) -> None:
        if not self._num_waiting:
            return
        rows = self._rows[: self._num_waiting]
        self._file.write(rows, 1, window=Window(0, self._num_written, self._file.width, len(rows)))
        self._num_written += len(rows)
        self._num_waiting = 0
        if self.next is not None:
            self.next.take(rows)


def _open(path: Path, height: int, width: int) -> rasterio.io.DatasetWriter:
    profile: dict[str, Any] = {"driver": "GTiff", "width": width, "height": height, "count": 1, "dtype": "uint8"}
    profile |= {"tiled": True, "blockxsize": BLOCK_PX, "blockysize": BLOCK_PX, **scratch_compression()}
    # The transform is a stand-in, since GDAL warns of files that have none.
    return rasterio.open(path, "w", **profile, bigtiff="if_safer", transform=Affine(1, 0, 0, 0, -1, 1))
