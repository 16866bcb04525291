"""From a scene to batches of network input: a reader that goes down the scene once.

B windows of a batch, C bands, h x w a window.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ctrs.errors import RasterError
from ctrs.inference.standardize import PixelStandardizer
from ctrs.inference.window_plan import WindowPlan as WindowPlan
from ctrs.raster.bands import Bands
from ctrs.raster.windows import PixelWindow

ReadWindow = Callable[[PixelWindow], tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]]
"""Returns the raw pixels (C, h, w) and the valid mask (h, w), True = valid, of a window of a scene."""

FindWanted = Callable[[PixelWindow], npt.NDArray[np.bool_]]
"""Returns which pixels (h, w) of a window of a scene are to be mapped; the network may see the others beside them."""


@dataclass(frozen=True, kw_only=True)
class FileBlocks:
    """How the blocks of a file divide the scene, so that each block is read once.

    Args:
        height: Rows of a block.
        width: Columns of a block; None where they are not known, or blocks are as wide as the file.
        row_offset: First row of the blocks, counted from the scene's first row (0 or less: the scene may be a part of a
            file).
        col_offset: First column of the blocks, likewise.
    """

    height: int = 1
    width: int | None = None
    row_offset: int = 0
    col_offset: int = 0

    def end_after(self, row: int, *, most: int) -> int:
        """Return where the block that holds the row before ``row`` ends; ``row`` where blocks exceed ``most`` rows.

        >>> FileBlocks(height=256, row_offset=-10).end_after(300, most=512)
        502
        """
        if self.height > most:
            return row
        return row + (self.row_offset - row) % self.height

    def parts(self, window: PixelWindow, least: int) -> list[PixelWindow]:
        """Divide a window into parts beside each other, of whole blocks and at least so many columns.

        >>> blocks = FileBlocks(height=256, width=256, col_offset=-6)
        >>> window = PixelWindow(col_off=0, row_off=0, width=1000, height=256)
        >>> [(part.col_off, part.width) for part in blocks.parts(window, 300)]
        [(0, 506), (506, 494)]
        """
        end = window.col_off + window.width
        edges = [window.col_off]
        while self.width is not None:
            edge = edges[-1] + least
            edge += (self.col_offset - edge) % self.width
            if edge + least > end:
                break
            edges.append(edge)
        edges.append(end)
        return [replace(window, col_off=left, width=right - left) for left, right in pairwise(edges)]


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
    blocks: FileBlocks | None = None,
    raw: bool = False,
    pause: Callable[[], None] = lambda: None,
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
        pause: Called between pieces of the work, some milliseconds each.
    """
    size = plan.window_px
    filling = _BatchBeingFilled(plan, standardize, raw=raw and standardize.raw_dtype is not None)
    left = plan.columns_read.start
    height = min(size, plan.height)
    needed = _NeededPixels(read, plan, standardize.bands, wanted)
    rows = _SceneRows(needed.read, plan, first_row, blocks or FileBlocks(), pause)
    for row, pixels, valid in rows:
        if row % plan.rows_in_group == 0 and filling.places:
            yield filling.take()
        num_rows = plan.row_edges[row + 1] - plan.row_starts[row]
        mapped = valid if wanted is None else valid & wanted(_row_window(plan, plan.row_starts[row], height))
        yield ValidRows(row=row, valid=mapped[:num_rows, plan.columns.start - left : plan.columns.stop - left].copy())
        for col, scene_col in enumerate(plan.col_starts):
            columns = slice(scene_col - left, scene_col - left + size)
            if mapped[:, columns].any():
                pause()
                filling.add(pixels[:, :, columns], valid[:, columns], (row, col))
                if len(filling.places) == plan.batch_size:
                    yield filling.take()
            rows.read_ahead((col + 1) / len(plan.col_starts))
        del mapped  # before the next rows are read
    if filling.places:
        yield filling.take()


class _NeededPixels:
    """Reads what windows with wanted pixels see, from the first such column to the last; no others are valid."""

    def __init__(self, read: ReadWindow, plan: WindowPlan, bands: Bands, wanted: FindWanted | None) -> None:
        self._read = read
        self._plan = plan
        self._bands = bands
        self._wanted = wanted
        self._known: dict[int, tuple[int, int] | None] = {}

    def read(self, window: PixelWindow) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Return the pixels (C, h, w) and valid mask (h, w) of rows in the plan's columns."""
        if self._wanted is None:
            return self._read(window)
        starts, height = self._plan.row_starts, min(self._plan.window_px, self._plan.height)
        end = window.row_off + window.height
        rows = (row for row, top in enumerate(starts) if top < end and window.row_off < top + height)
        seen = [columns for row in rows if (columns := self._columns(row, height, self._wanted))]
        left = max(min((first for first, _ in seen), default=0), window.col_off)
        right = min(max((last for _, last in seen), default=0), window.col_off + window.width)
        if right - left == window.width:
            return self._read(window)
        pixels = np.zeros((self._bands.count, window.height, window.width), self._bands.dtype)
        valid = np.zeros((window.height, window.width), bool)
        if left < right:
            inner = slice(left - window.col_off, right - window.col_off)
            pixels[..., inner], valid[:, inner] = self._read(replace(window, col_off=left, width=right - left))
        return pixels, valid

    def _columns(self, row: int, height: int, wanted: FindWanted) -> tuple[int, int] | None:
        """Return the columns that a row of windows sees, of those that hold a wanted pixel; None where none does."""
        if row not in self._known:
            plan, found = self._plan, wanted(_row_window(self._plan, self._plan.row_starts[row], height))
            left, right = plan.columns_read.start, plan.columns_read.stop
            ends = [(col, min(col + plan.window_px, right)) for col in plan.col_starts]
            seen = [(col, end) for col, end in ends if found[:, col - left : end - left].any()]
            self._known[row] = (seen[0][0], seen[-1][1]) if seen else None
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


class _SceneRows:
    """Each scene row is read once: those that the next row of windows adds, part by part, while windows are made."""

    def __init__(
        self, read: ReadWindow, plan: WindowPlan, first_row: int, blocks: FileBlocks, pause: Callable[[], None]
    ) -> None:
        self._read, self._plan, self._first_row, self._blocks, self._pause = read, plan, first_row, blocks, pause
        self._height = min(plan.window_px, plan.height)
        self._end = plan.row_starts[first_row]
        """Where the rows end that are held."""
        self._parts: list[PixelWindow] = []
        self._found: list[tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]] = []

    def __iter__(self) -> Iterator[tuple[int, npt.NDArray[Any], npt.NDArray[np.bool_]]]:
        """Yield the pixels (C, h, W) and valid mask (h, W) of each row of windows."""
        plan, height, blocks = self._plan, self._height, self._blocks
        width = plan.columns_read.stop - plan.columns_read.start
        pixels: npt.NDArray[Any] | None = None
        valid = np.empty((0, width), bool)
        begin = self._end
        self._look_for(self._first_row)
        for row in range(self._first_row, len(plan.row_starts)):
            top = plan.row_starts[row]
            while len(self._found) < len(self._parts):
                self._read_part()
            if self._parts:
                following = self._end + self._parts[0].height
                if pixels is None:
                    held = min(height + (blocks.height if blocks.height <= height else 1) - 1, plan.height - top)
                    pixels = np.empty((len(self._found[0][0]), held, width), self._found[0][0].dtype)
                    valid = np.empty((held, width), bool)
                # Rows move up in place; numpy copies overlapping slices safely.
                kept = self._end - top
                pixels[:, :kept] = pixels[:, top - begin : self._end - begin]
                valid[:kept] = valid[top - begin : self._end - begin]
                for part, (new_pixels, new_valid) in zip(self._parts, self._found, strict=True):
                    left = part.col_off - plan.columns_read.start
                    columns = slice(left, left + part.width)
                    pixels[:, kept : following - top, columns] = new_pixels
                    valid[kept : following - top, columns] = new_valid
                begin, self._end = top, following
                self._found.clear()
                del new_pixels, new_valid
            self._look_for(row + 1)
            if pixels is not None:
                rows = slice(top - begin, top - begin + height)
                yield row, pixels[:, rows], valid[rows]

    def read_ahead(self, share: float) -> None:
        """Read what the next row of windows adds, as far as a share of it."""
        with suppress(RasterError):  # raised when the rows are needed: what comes before is still to be mapped
            while len(self._found) < math.floor(share * len(self._parts)):
                self._read_part()

    def _look_for(self, row: int) -> None:
        """Find the parts that a row of windows adds."""
        plan, self._parts = self._plan, []
        if row == len(plan.row_starts):
            return
        following = self._blocks.end_after(plan.row_starts[row] + self._height, most=self._height)
        following = min(following, plan.height)
        if following > self._end:
            window = _row_window(plan, self._end, following - self._end)
            self._parts = self._blocks.parts(window, plan.window_px)

    def _read_part(self) -> None:
        self._pause()
        self._found.append(self._read(self._parts[len(self._found)]))
