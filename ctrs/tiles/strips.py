"""Rasters are read block by block, forward only, each block once, whatever the size and step of the tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ctrs.raster.windows import PixelWindow
from ctrs.tiles.tile_grid import Span

Arrays = tuple[npt.NDArray[Any], ...]
"""Arrays of one window: the last two axes are its rows and columns."""

ReadArrays = Callable[[PixelWindow, bool], Arrays]
"""Reads a window; the flag says that its pixels are read for the first time, not read again by resumed work."""


def round_down(pixel: int, block: int) -> int:
    """Return the beginning of the block that a pixel lies in.

    >>> round_down(511, 256), round_down(512, 256)
    (256, 512)
    """
    return pixel // block * block


def round_up(pixel: int, block: int, length: int) -> int:
    """Return the end of the block that lies before a pixel, or the end of the axis.

    >>> round_up(500, 256, 2000), round_up(500, 512, 505)
    (512, 505)
    """
    return min(-(-pixel // block) * block, length)


class StripReader:
    """Gives the pixels of rows of tiles, column by column, from windows that end at the raster's blocks.

    Pixels that a block holds beyond the tiles it was read for are kept until the tiles that need them come.

    Args:
        read: Reads a window of the raster.
        shape: Height and width of the raster.
        block_px: Height and width of its blocks.
        rows: Rows of pixels of each row of tiles.
        chunks: Columns of pixels that are asked for at a time, from left to right.
        keep: False: what the next row of tiles needs is not kept but read again.
    """

    def __init__(
        self,
        read: ReadArrays,
        *,
        shape: tuple[int, int],
        block_px: tuple[int, int],
        rows: Sequence[Span],
        chunks: Sequence[Span],
        keep: bool = True,
    ) -> None:
        self._read = read
        self._rows, self._chunks, self._keeps = rows, chunks, keep
        self._height, self._width = shape
        self._block_rows, self._block_cols = block_px
        self._kept: dict[tuple[int, int], Arrays] = {}
        self._left: tuple[int, Arrays] = (0, ())

    def strip(self, row: int, chunk: int) -> Arrays:
        """Return the pixels of a chunk of a row of tiles.

        Rows must come from top to bottom and, in each, all chunks from left to right. A row may be left out; what it
        shares with the next one is then read again.
        """
        (top, bottom), (left, right) = self._rows[row], self._chunks[chunk]
        if chunk == 0:
            self._kept = {place: arrays for place, arrays in self._kept.items() if place[0] == row}
        seen_rows, seen_cols = self._rows_before(row), self._cols_before(chunk)
        new_cols = round_up(right, self._block_cols, self._width)
        parts: list[Arrays] = []
        if new_cols > seen_cols:
            parts = self._column(row, chunk, (seen_rows, seen_cols, new_cols))
        begin, before = self._left if chunk else (left, ())
        whole = _lay(
            [array[..., left - begin :] for array in before] if seen_cols > left else [],
            parts,
        )
        self._left = left, whole
        self._keep(row, chunk, whole, seen_cols - left if new_cols > seen_cols else None)
        return tuple(array[..., : bottom - top, : right - left] for array in whole)

    def _column(self, row: int, chunk: int, place: tuple[int, int, int]) -> list[Arrays]:
        """Return the parts, one below the other, of the columns that no chunk before has read."""
        seen_rows, left, right = place
        top, bottom = self._rows[row]
        parts: list[Arrays] = []
        if top < seen_rows:
            kept = self._kept.pop((row, chunk), None)
            if kept is None:
                first = round_down(top, self._block_rows)
                again = self._read(_window(first, seen_rows, left, right), False)
                kept = tuple(array[..., top - first :, :] for array in again)
            parts.append(kept)
        new_rows = round_up(bottom, self._block_rows, self._height)
        if new_rows > seen_rows:
            first = max(seen_rows, round_down(top, self._block_rows))
            fresh = self._read(_window(first, new_rows, left, right), True)
            parts.append(tuple(array[..., max(0, top - first) :, :] for array in fresh))
        return parts

    def _keep(self, row: int, chunk: int, whole: Arrays, first_col: int | None) -> None:
        """Keep what the next row of tiles needs."""
        if not self._keeps or row + 1 >= len(self._rows) or first_col is None:
            return
        skip = self._rows[row + 1][0] - self._rows[row][0]
        if skip >= whole[0].shape[-2]:
            return
        # Copies: a view would keep the whole chunk in memory, twice as much over the width of a scene.
        self._kept[row + 1, chunk] = tuple(array[..., skip:, first_col:].copy() for array in whole)

    def _rows_before(self, row: int) -> int:
        return round_up(self._rows[row - 1][1], self._block_rows, self._height) if row else 0

    def _cols_before(self, chunk: int) -> int:
        return round_up(self._chunks[chunk - 1][1], self._block_cols, self._width) if chunk else self._chunks[0][0]


def _window(top: int, bottom: int, left: int, right: int) -> PixelWindow:
    return PixelWindow(col_off=left, row_off=top, width=right - left, height=bottom - top)


def _lay(left: Sequence[npt.NDArray[Any]], parts: Sequence[Arrays]) -> Arrays:
    """Lay parts below each other, and those right of what is there; nothing is copied where there is one part."""
    if not parts:
        return tuple(left)
    if not left and len(parts) == 1:
        return parts[0]
    whole: list[npt.NDArray[Any]] = []
    for number, first in enumerate(parts[0]):
        height = sum(part[number].shape[-2] for part in parts)
        begin = left[number].shape[-1] if left else 0
        array = np.empty((*first.shape[:-2], height, begin + first.shape[-1]), first.dtype)
        if left:
            array[..., :begin] = left[number]
        row = 0
        for part in parts:
            array[..., row : row + part[number].shape[-2], begin:] = part[number]
            row += part[number].shape[-2]
        whole.append(array)
    return tuple(whole)
