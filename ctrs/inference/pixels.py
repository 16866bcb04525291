"""From a scene to batches of network input: a reader that goes down the scene once.

B windows of a batch, C bands, h x w a window.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ctrs.inference.standardize import PixelStandardizer
from ctrs.inference.window_plan import WindowPlan as WindowPlan
from ctrs.raster.bands import Bands
from ctrs.raster.windows import PixelWindow

ReadWindow = Callable[[PixelWindow], tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]]
"""Returns the raw pixels (C, h, w) and the valid mask (h, w), True = valid, of a window of a scene."""

FindWanted = Callable[[PixelWindow], npt.NDArray[np.bool_]]
"""Returns which pixels (h, w) of a window of a scene are to be mapped; the network may see the others beside them."""


@dataclass(frozen=True, kw_only=True)
class BlockRows:
    """How the blocks of a file divide its rows, so that each block is read once.

    Args:
        height: Rows of a block.
        offset: First row of the blocks, counted from the scene's first row (0 or less: the scene may be a part of a
            file).
    """

    height: int = 1
    offset: int = 0

    def end_after(self, row: int, *, most: int) -> int:
        """Return where the block that holds the row before ``row`` ends; ``row`` where blocks exceed ``most`` rows.

        >>> BlockRows(height=256, offset=-10).end_after(300, most=512)
        502
        """
        if self.height > most:
            return row
        return row + (self.offset - row) % self.height


@dataclass(frozen=True, kw_only=True)
class ValidRows:
    """Which pixels (n, m) are valid and wanted, in the plan's columns and the rows that a row of windows finishes."""

    row: int
    valid: npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class WindowBatch:
    """Windows for the network, and the row and column of each in the plan.

    Args:
        pixels: Network input float32 (B, h, w, C); or raw values (B, C, h, w), in page-locked memory, for
            ``PixelStandardizer.on_device``.
        raw: Which of the two.
        valid: Of raw values: the valid mask (B, h, w), True = valid; None where all are.
        places: Row and column of each window in the plan.
        done: To be called when the batch and all that shares its memory has been used: the reader fills it anew.
    """

    pixels: Tensor
    raw: bool = False
    valid: Tensor | None = None
    places: tuple[tuple[int, int], ...]
    done: Callable[[], None] = lambda: None

    def to_input(self, standardize: PixelStandardizer, device: torch.device) -> Tensor:
        """Return network input float32 (B, C, h, w), channels last, on the device."""
        if not self.raw:
            return self.pixels.permute(0, 3, 1, 2).to(device, non_blocking=True)
        valid = None if self.valid is None else self.valid.to(device, non_blocking=True)
        return standardize.on_device(self.pixels.to(device, non_blocking=True), valid)


def read_windows(
    read: ReadWindow,
    plan: WindowPlan,
    standardize: PixelStandardizer,
    *,
    first_row: int = 0,
    wanted: FindWanted | None = None,
    blocks: BlockRows | None = None,
    raw: bool = False,
) -> Iterator[ValidRows | WindowBatch]:
    """Read a scene from the top down; windows without a valid pixel that is wanted are left out.

    Windows that hold one are shown all their valid pixels, so that what is mapped does not depend on what is wanted.
    The ``ValidRows`` of a row of windows come before its windows, which may share a batch with the next row's.

    Args:
        read: Gives the scene's pixels.
        plan: The windows.
        standardize: Makes network input.
        first_row: Row of windows to begin with, the first of a group.
        wanted: Which pixels are to be mapped; None: all.
        blocks: Of the file, each of which is read once where they are no higher than a window.
        raw: Leave the making of network input to the device, where the dtype allows it.
    """
    size = plan.window_px
    filling = _BatchBeingFilled(plan, standardize, raw=raw and standardize.raw_dtype is not None)
    left = plan.columns_read.start
    height = min(size, plan.height)
    needed = _NeededRows(read, plan, standardize.bands, wanted)
    for row, pixels, valid in _window_rows(needed.read, plan, first_row, blocks or BlockRows()):
        if row % plan.rows_in_group == 0 and filling.places:
            yield filling.take()
        num_rows = plan.row_edges[row + 1] - plan.row_starts[row]
        mapped = valid if wanted is None else valid & wanted(_row_window(plan, plan.row_starts[row], height))
        yield ValidRows(row=row, valid=mapped[:num_rows, plan.columns.start - left : plan.columns.stop - left].copy())
        for col, scene_col in enumerate(plan.col_starts):
            columns = slice(scene_col - left, scene_col - left + size)
            if mapped[:, columns].any():
                filling.add(pixels[:, :, columns], valid[:, columns], (row, col))
                if len(filling.places) == plan.batch_size:
                    yield filling.take()
        del mapped  # before the next rows are read
    if filling.places:
        yield filling.take()


class _NeededRows:
    """Reads scene rows that windows with wanted pixels see; all others are not valid and never read."""

    def __init__(self, read: ReadWindow, plan: WindowPlan, bands: Bands, wanted: FindWanted | None) -> None:
        self._read = read
        self._plan = plan
        self._bands = bands
        self._wanted = wanted
        self._known: dict[int, bool] = {}

    def read(self, window: PixelWindow) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Return the pixels (C, h, w) and valid mask (h, w) of rows in the plan's columns."""
        starts, height = self._plan.row_starts, min(self._plan.window_px, self._plan.height)
        end = window.row_off + window.height
        rows = (row for row, top in enumerate(starts) if top < end and window.row_off < top + height)
        if any(self._holds_wanted(row, height) for row in rows):
            return self._read(window)
        shape = window.height, window.width
        return np.zeros((self._bands.count, *shape), self._bands.dtype), np.zeros(shape, bool)

    def _holds_wanted(self, row: int, height: int) -> bool:
        if self._wanted is None:
            return True
        if row not in self._known:
            window = _row_window(self._plan, self._plan.row_starts[row], height)
            self._known[row] = bool(self._wanted(window).any())
        return self._known[row]


def _row_window(plan: WindowPlan, top: int, height: int) -> PixelWindow:
    left, right = plan.columns_read.start, plan.columns_read.stop
    return PixelWindow(col_off=left, row_off=top, width=right - left, height=height)


class _BatchBeingFilled:
    """The next batch, window by window; memory is taken when the first one comes."""

    def __init__(self, plan: WindowPlan, standardize: PixelStandardizer, *, raw: bool) -> None:
        self._plan = plan
        self._standardize = standardize
        self._raw = raw
        # Windows larger than a small scene are filled up with 0, the mean.
        self._padded = plan.window_px > min(plan.height, plan.width)
        self._pixels = torch.empty(0)
        self._valid = torch.empty(0)
        # Fresh memory costs as much time as filling it.
        self._used: deque[Tensor] = deque()
        self.places: list[tuple[int, int]] = []

    def add(self, pixels: npt.NDArray[Any], valid: npt.NDArray[np.bool_], place: tuple[int, int]) -> None:
        """Put in a window: raw values (C, h, w) and valid mask (h, w), True = valid."""
        if not self.places:
            self._begin()
        number, (height, width) = len(self.places), valid.shape
        if self._raw:
            target = self._pixels.numpy()
            target[number, :, :height, :width] = pixels.view(target.dtype)
            self._valid.numpy()[number, :height, :width] = valid
        else:
            self._standardize(pixels, valid, self._pixels.numpy()[number, :height, :width])
        self.places.append(place)

    def take(self) -> WindowBatch:
        """Return the batch and begin a new one."""
        count = len(self.places)
        valid = self._valid[:count] if self._raw else None
        batch = WindowBatch(
            pixels=self._pixels[:count],
            raw=self._raw,
            valid=None if valid is None or bool(valid.all()) else valid,
            places=tuple(self.places),
            done=partial(self._used.append, self._pixels) if not self._raw else lambda: None,
        )
        self.places = []
        return batch

    def _begin(self) -> None:
        plan = self._plan
        size, count, bands = plan.window_px, plan.batch_size, self._standardize.bands.count
        if self._raw:
            pinned = torch.cuda.is_available()
            dtype = self._standardize.raw_dtype
            self._pixels = torch.zeros((count, bands, size, size), dtype=dtype, pin_memory=pinned)
            self._valid = torch.zeros((count, size, size), dtype=torch.bool, pin_memory=pinned)
        elif self._used:
            self._pixels = self._used.popleft()
            if self._padded:
                self._pixels.zero_()
        else:
            self._pixels = (torch.zeros if self._padded else torch.empty)((count, size, size, bands))


def _window_rows(
    read: ReadWindow, plan: WindowPlan, first_row: int, blocks: BlockRows
) -> Iterator[tuple[int, npt.NDArray[Any], npt.NDArray[np.bool_]]]:
    """Yield the pixels (C, h, W) and valid mask (h, W) of each row of windows; each scene row is read once."""
    height = min(plan.window_px, plan.height)
    left, right = plan.columns_read.start, plan.columns_read.stop
    pixels: npt.NDArray[Any] | None = None
    valid = np.empty((0, right - left), bool)
    begin = end = plan.row_starts[first_row]  # scene rows that are held
    for row in range(first_row, len(plan.row_starts)):
        top = plan.row_starts[row]
        following = min(blocks.end_after(top + height, most=height), plan.height)
        if following > end:
            new_pixels, new_valid = read(_row_window(plan, end, following - end))
            if pixels is None:
                held = min(height + (blocks.height if blocks.height <= height else 1) - 1, plan.height - top)
                pixels = np.empty((len(new_pixels), held, right - left), new_pixels.dtype)
                valid = np.empty((held, right - left), bool)
            # Rows move up in place; numpy copies overlapping slices safely.
            kept = end - top
            pixels[:, :kept], valid[:kept] = pixels[:, top - begin : end - begin], valid[top - begin : end - begin]
            pixels[:, kept : following - top], valid[kept : following - top] = new_pixels, new_valid
            begin, end = top, following
            del new_pixels, new_valid
        if pixels is not None:
            rows = slice(top - begin, top - begin + height)
            yield row, pixels[:, rows], valid[rows]
