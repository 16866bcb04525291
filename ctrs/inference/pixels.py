"""From a scene to batches of network input: which windows, in which batches, and what stands in them.

B windows of a batch, C bands, h x w a window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from ctrs.raster.bands import Bands, FloatArray
from ctrs.raster.windows import PixelWindow, spread_starts, stride_for_overlap

ReadWindow = Callable[[PixelWindow], tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]]
"""Returns the raw pixels (C, h, w) and the valid mask (h, w), True = valid, of a window of a scene."""

_BATCHES_IN_GROUP = 4


@dataclass(frozen=True, kw_only=True)
class WindowPlan:
    """Which windows of a scene the network sees, and in which batches.

    Windows are spread evenly over the scene. Batches run across rows of windows within a group of rows and never cross
    its end. A run that goes on after a stop begins at a group, so it forms the same batches, and a batch's rounding is
    the same, as if it had never stopped.

    A wide scene may be mapped in blocks of columns (``in_blocks``), each over the whole height. A block sees again
    the windows left of it that reach into it, so that its sums have the same terms as those of the whole.

    Args:
        height: Scene rows.
        width: Scene columns.
        window_px: Window edge in scene pixels.
        overlap: Share of the window that neighbours have in common, at least.
        batch_size: Windows in a batch.
        network_px: Edge that windows are resized to for the network; None: as they are.
        block: First column of windows of a block of columns, and the one after its last; None: the whole width.
    """

    height: int
    width: int
    window_px: int
    overlap: float
    batch_size: int
    network_px: int | None = None
    block: tuple[int, int] | None = None

    @property
    def stride_px(self) -> int:
        """Largest step between windows."""
        return stride_for_overlap(self.window_px, self.overlap)

    @cached_property
    def row_starts(self) -> list[int]:
        """First scene row of each row of windows."""
        return spread_starts(self.height, self.window_px, self.stride_px)

    @cached_property
    def scene_col_starts(self) -> list[int]:
        """First scene column of each column of windows of the whole scene."""
        return spread_starts(self.width, self.window_px, self.stride_px)

    @cached_property
    def num_repeated(self) -> int:
        """Columns of windows left of a block that reach into it."""
        starts, (first, _) = self.scene_col_starts, self._columns
        return sum(start + self.window_px > starts[first] for start in starts[:first])

    @cached_property
    def col_starts(self) -> list[int]:
        """First scene column of each column of windows of this block, repeated ones included."""
        first, end = self._columns
        return self.scene_col_starts[first - self.num_repeated : end]

    @cached_property
    def row_edges(self) -> list[int]:
        """Scene rows where the part that is finished by a row of windows begins, and the scene's height."""
        return [*self.row_starts, self.height]

    @cached_property
    def col_edges(self) -> list[int]:
        """Scene columns where the part that is finished by a column of windows begins, and where the block ends."""
        end = self._columns[1]
        return [*self.col_starts, *self.scene_col_starts[end : end + 1]] + (
            [self.width] if end == len(self.scene_col_starts) else []
        )

    @property
    def columns(self) -> slice:
        """Scene columns that this block writes."""
        return slice(self.col_starts[self.num_repeated], self.col_edges[-1])

    @property
    def columns_read(self) -> slice:
        """Scene columns that the windows of this block see."""
        return slice(self.col_starts[0], min(self.col_starts[-1] + self.window_px, self.width))

    @property
    def rows_in_group(self) -> int:
        """Rows of windows in a group: enough for some batches, so that few are not full."""
        return math.ceil(_BATCHES_IN_GROUP * self.batch_size / len(self.col_starts))

    @property
    def num_windows(self) -> int:
        """Windows of this block."""
        return len(self.row_starts) * len(self.col_starts)

    def first_row_for(self, scene_row: int) -> int:
        """Return the row of windows to begin with so that all scene rows from ``scene_row`` on come out complete."""
        touching = next(i for i, start in enumerate(self.row_starts) if start + self.window_px > scene_row)
        return touching // self.rows_in_group * self.rows_in_group

    def in_blocks(self, count: int) -> tuple[WindowPlan, ...]:
        """Return the plans of ``count`` blocks of columns, of about as many windows each; fewer if there are fewer."""
        columns = len(self.scene_col_starts)
        count = max(1, min(count, columns))
        if count == 1:
            return (self,)
        edges = [columns * number // count for number in range(count + 1)]
        return tuple(replace(self, block=pair) for pair in pairwise(edges))

    @property
    def _columns(self) -> tuple[int, int]:
        return self.block or (0, len(self.scene_col_starts))


@dataclass(frozen=True, kw_only=True)
class ValidRows:
    """The valid mask (n, m), True = valid, of the scene rows that a row of windows finishes, in the plan's columns."""

    row: int
    valid: npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class WindowBatch:
    """Network input float32 (B, h, w, C) of windows, and the row and column of each in the plan."""

    pixels: FloatArray
    places: tuple[tuple[int, int], ...]


class PixelStandardizer:
    """Turns raw pixels into network input, exactly as ``Bands.scale`` and ``Bands.standardize`` do.

    For integers of up to 16 bits the results of all values are looked up, which is several times as fast.
    """

    def __init__(self, bands: Bands) -> None:
        self.bands = bands
        self._table: FloatArray | None = None
        kind = np.dtype(bands.dtype)
        if kind.kind in "iu" and kind.itemsize <= 2:
            self._index = np.dtype(f"u{kind.itemsize}")
            values = np.arange(2 ** (8 * kind.itemsize), dtype=self._index).view(kind)
            every_band = np.broadcast_to(values, (bands.count, 1, len(values)))
            self._table = bands.standardize(bands.scale(every_band))[:, 0]

    def __call__(self, pixels: npt.NDArray[Any], valid: npt.NDArray[np.bool_], out: FloatArray) -> None:
        """Write network input to ``out`` (h, w, C); invalid pixels become 0, the mean of each band.

        Args:
            pixels: Raw values (C, h, w).
            valid: Valid mask (h, w), True = valid.
            out: Where to write.
        """
        if self._table is not None:
            for band, table in enumerate(self._table):
                out[..., band] = np.take(table, pixels[band].view(self._index), mode="clip")
        else:
            out[:] = np.moveaxis(self.bands.standardize(self.bands.scale(pixels)), 0, -1)
        if not valid.all():
            out[~valid] = 0.0


def read_windows(
    read: ReadWindow, plan: WindowPlan, bands: Bands, *, first_row: int = 0
) -> Iterator[ValidRows | WindowBatch]:
    """Read a scene from the top down; windows without a valid pixel are left out.

    The ``ValidRows`` of a row of windows come before its windows, which may share a batch with the next row's.

    Args:
        read: Gives the scene's pixels.
        plan: The windows.
        bands: What the network expects.
        first_row: Row of windows to begin with, the first of a group.
    """
    standardize = PixelStandardizer(bands)
    size = plan.window_px
    batch: FloatArray | None = None
    places: list[tuple[int, int]] = []
    for row, pixels, valid in _window_rows(read, plan, first_row):
        if batch is not None and row % plan.rows_in_group == 0:
            yield WindowBatch(pixels=batch[: len(places)], places=tuple(places))
            batch, places = None, []
        num_rows = plan.row_edges[row + 1] - plan.row_starts[row]
        left = plan.columns_read.start
        yield ValidRows(row=row, valid=valid[:num_rows, plan.columns.start - left : plan.columns.stop - left].copy())
        for col, scene_col in enumerate(plan.col_starts):
            col_off = scene_col - left
            window_valid = valid[:, col_off : col_off + size]
            if not window_valid.any():
                continue
            if batch is None:
                batch = np.zeros((plan.batch_size, size, size, bands.count), np.float32)
            target = batch[len(places), : window_valid.shape[0], : window_valid.shape[1]]
            standardize(pixels[:, :, col_off : col_off + size], window_valid, target)
            places.append((row, col))
            if len(places) == plan.batch_size:
                yield WindowBatch(pixels=batch, places=tuple(places))
                batch, places = None, []
    if batch is not None:
        yield WindowBatch(pixels=batch[: len(places)], places=tuple(places))


def _window_rows(
    read: ReadWindow, plan: WindowPlan, first_row: int
) -> Iterator[tuple[int, npt.NDArray[Any], npt.NDArray[np.bool_]]]:
    """Yield the pixels (C, h, W) and valid mask (h, W) of each row of windows; each scene row is read once."""
    starts = plan.row_starts
    height = min(plan.window_px, plan.height)
    left, right = plan.columns_read.start, plan.columns_read.stop
    pixels: npt.NDArray[Any] | None = None
    valid = np.empty((0, right - left), bool)
    for row in range(first_row, len(starts)):
        kept = 0 if row == first_row else height - (starts[row] - starts[row - 1])
        window = PixelWindow(col_off=left, row_off=starts[row] + kept, width=right - left, height=height - kept)
        new_pixels, new_valid = read(window)
        if pixels is None:
            pixels, valid = new_pixels, new_valid
        else:
            # Rows move up in place; numpy copies overlapping slices safely.
            pixels[:, :kept], valid[:kept] = pixels[:, height - kept :], valid[height - kept :]
            pixels[:, kept:], valid[kept:] = new_pixels, new_valid
        yield row, pixels, valid
