"""A mask cut into blocks of whole objects while it is read, so that no more of it is in memory than they need.

An object is what may have a say in how it is drawn: pixels of wanted classes that lie within a distance of each other,
along rows and along columns, and whatever surrounds the same small hole. It belongs to the block that was made when its
last row had been read, and to no other. How the mask is cut depends on the rows that are read at a time; which pixels
make an object does not, and so neither does what is drawn.

Distances are looked at on a raster of coarse cells, three to the distance: objects farther apart than that may count as
one, nearer ones never as two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ctrs.classes import IGNORE_INDEX
from ctrs.raster.geotiff import Grid
from ctrs.raster.windows import PixelWindow
from ctrs.vector.regions.cleaning import ground_pixel_size, pixel_areas_m2
from ctrs.vector.regions.runs import IntArray, Runs

_CELLS_PER_REACH = 3
_SIDES_AND_CORNERS = np.ones((3, 3), bool)
_SHARE_MORE = 0.25
"""Rows that are read before looking again for whole objects, as a share of those that are waiting: an object as high as
the mask is not looked at anew with each band."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Rows of a mask with all pixels of the objects that are to be drawn from it.

    Args:
        runs: Class values; ``IGNORE_INDEX`` stands for all that is not to be drawn: nodata, classes that were not asked
            for, and objects of other blocks.
        row_off: Row of the mask that is the first of the runs.
        grid: Of the whole mask.
        frontier: Objects of later blocks begin at this pixel (``row * width + column``) or after it.
    """

    runs: Runs
    row_off: int
    grid: Grid
    frontier: int

    @property
    def window(self) -> PixelWindow:
        """Place of the block in the mask."""
        return PixelWindow(col_off=0, row_off=self.row_off, width=self.runs.width, height=self.runs.height)

    @classmethod
    def of_mask(cls, runs: Runs, grid: Grid) -> Block:
        """Return a whole mask as one block."""
        return cls(runs=runs, row_off=0, grid=grid, frontier=grid.width * grid.height)

    @classmethod
    def empty(cls, grid: Grid) -> Block:
        """Return a block in which there is nothing to draw."""
        runs = Runs.from_array(np.full((1, grid.width), IGNORE_INDEX, np.uint8))
        return cls(runs=runs, row_off=0, grid=grid, frontier=0)


def object_blocks(
    bands: Iterable[Runs],
    grid: Grid,
    wanted: npt.NDArray[np.bool_],
    *,
    reach_m: float,
    small_hole_m2: float,
) -> Iterator[Block]:
    """Cut a mask into blocks of whole objects.

    Args:
        bands: Runs of class values of consecutive row bands of the mask.
        grid: Of the mask.
        wanted: For each of the 256 values, whether it is to be drawn; a last entry more stands for all from 256 on.
        reach_m: What lies nearer than this, in ground metres along rows and columns, belongs to one object.
        small_hole_m2: What surrounds a hole smaller than this belongs to one object.

    Yields:
        Blocks that are not empty, in the order in which their objects were read to the end.
    """
    cells = _Cells.of(grid, reach_m)
    held = _Pieces.none()
    row, looked = 0, 0
    for band in bands:
        held = held.followed_by(_Pieces.of_band(band, wanted, row))
        row += band.height
        if not held.count:
            continue
        waiting = row - int(held.firsts[0]) // grid.width
        if row < grid.height and row - looked < _SHARE_MORE * waiting:
            continue
        looked = row
        whole = cells.whole_objects(held, row, small_hole_m2)
        done, held = held.take(whole), held.take(~whole)
        if done.count:
            frontier = int(held.firsts[0]) if held.count else row * grid.width
            yield _block_of(done, grid, cells.margin, frontier)


@dataclass(frozen=True)
class _Pieces:
    """Runs of wanted values alone, in row-major order, with gaps between them."""

    firsts: IntArray
    ends: IntArray
    values: npt.NDArray[Any]

    @classmethod
    def none(cls) -> _Pieces:
        return cls(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.uint8))

    @classmethod
    def of_band(cls, band: Runs, wanted: npt.NDArray[np.bool_], row: int) -> _Pieces:
        chosen = wanted[np.minimum(band.values, np.int64(len(wanted) - 1))]
        offset = row * band.width
        return cls(band.firsts[chosen] + offset, band.ends[chosen] + offset, band.values[chosen])

    @property
    def count(self) -> int:
        return len(self.firsts)

    def followed_by(self, other: _Pieces) -> _Pieces:
        if not self.count:
            return other
        return _Pieces(
            np.concatenate([self.firsts, other.firsts]),
            np.concatenate([self.ends, other.ends]),
            np.concatenate([self.values, other.values]),
        )

    def take(self, chosen: npt.NDArray[np.bool_]) -> _Pieces:
        return _Pieces(self.firsts[chosen], self.ends[chosen], self.values[chosen])


@dataclass(frozen=True)
class _Cells:
    """The coarse raster on which distances are looked at.

    Args:
        grid: Of the mask.
        width: Columns of the mask in a cell.
        height: Rows of the mask in a cell.
        area_m2: Ground area of a cell, where it is least.
    """

    grid: Grid
    width: int
    height: int
    area_m2: float

    @classmethod
    def of(cls, grid: Grid, reach_m: float) -> _Cells:
        sides = [max(1, int(np.ceil(reach_m / _CELLS_PER_REACH / side))) for side in ground_pixel_size(grid)]
        width, height = sides
        return cls(grid, width, height, width * height * float(pixel_areas_m2(grid).min()))

    @property
    def margin(self) -> int:
        """Rows of the mask above and below an object that no other object reaches."""
        return self.height

    def whole_objects(self, pieces: _Pieces, end_row: int, small_hole_m2: float) -> npt.NDArray[np.bool_]:
        """Return which pieces belong to objects of which no pixel can lie at ``end_row`` or below."""
        at_end = end_row == self.grid.height
        if at_end:
            return np.ones(pieces.count, bool)
        row = pieces.firsts // self.grid.width // self.height
        top = max(0, int(row[0]) - 2)
        row = row - top
        left = pieces.firsts % self.grid.width // self.width
        near = self._near(row, left, (pieces.ends - 1) % self.grid.width // self.width, end_row, top)
        # Rows of cells in which pixels that are not yet read may show.
        final = (end_row // self.height) - top - 1
        near |= self._in_small_holes(near, final, small_hole_m2)
        objects, count = ndimage.label(near, _SIDES_AND_CORNERS)
        is_open = np.zeros(count + 1, bool)
        is_open[objects[max(0, final - 1) :]] = True
        whole: npt.NDArray[np.bool_] = ~is_open[objects[row, left]]
        return whole

    def _near(self, row: IntArray, left: IntArray, right: IntArray, end_row: int, top: int) -> npt.NDArray[np.bool_]:
        """Return the cells with a wanted pixel, and those around them."""
        height = -(-end_row // self.height) - top
        width = -(-self.grid.width // self.width)
        stride = width + 1
        steps = np.bincount(row * stride + left, minlength=height * stride).astype(np.int32)
        steps -= np.bincount(row * stride + right + 1, minlength=height * stride).astype(np.int32)
        taken = np.cumsum(steps.reshape(height, stride)[:, :width], axis=1, dtype=np.int32) > 0
        near: npt.NDArray[np.bool_] = ndimage.binary_dilation(taken, _SIDES_AND_CORNERS)
        return near

    def _in_small_holes(
        self, near: npt.NDArray[np.bool_], final: int, small_hole_m2: float
    ) -> npt.NDArray[np.bool_] | Any:
        """Return the cells of holes that are small, or may be when all is read; ``final`` rows of cells are known."""
        if small_hole_m2 <= self.area_m2:
            return False
        holes, count = ndimage.label(~near)
        area = np.bincount(holes[: max(0, final)].reshape(-1), minlength=count + 1) * self.area_m2
        small = area < small_hole_m2
        small[holes[0]] = False
        small[holes[:, 0]] = False
        small[holes[:, -1]] = False
        small[0] = False
        return small[holes]


def _block_of(pieces: _Pieces, grid: Grid, margin: int, frontier: int) -> Block:
    """Return runs that tile the rows of some pieces: ``IGNORE_INDEX`` lies between them."""
    first = max(0, int(pieces.firsts[0]) // grid.width - margin)
    last = min(grid.height - 1, int(pieces.firsts[-1]) // grid.width + margin)
    height = last + 1 - first
    offset = first * grid.width
    starts = np.arange(height, dtype=np.int64) * grid.width
    begins = np.concatenate([pieces.firsts - offset, pieces.ends - offset, starts])
    values = np.full(len(begins), IGNORE_INDEX, pieces.values.dtype)
    values[: pieces.count] = pieces.values
    # Where several begin at one pixel the piece comes first, and counts.
    order = np.argsort(begins, kind="stable")
    begins, values = begins[order], values[order]
    kept = np.diff(begins, prepend=-1) > 0
    kept &= begins < height * grid.width
    runs = Runs(height=height, width=grid.width, firsts=begins[kept], values=values[kept])
    return Block(runs=runs, row_off=first, grid=grid, frontier=frontier)
