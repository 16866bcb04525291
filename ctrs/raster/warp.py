"""Pixels of one grid brought to another: where they come from, and how they are sampled.

GDAL's warper works in chunks, approximates the transformation anew in each and lets its own rules say what is valid.
Here each pixel is found from its own row and column, so that it is the same in whatever windows a raster is read, and
validity is what ``read_window`` says of the source:

- ``nearest``: the source pixel below the centre; valid where that is.
- ``bilinear``: the four source pixels around the centre, those that are not valid left out; valid where ``nearest`` is.
- ``average``: the valid source pixels of a regular lattice of samples in the pixel (two for each source pixel along an
  edge, at most 16); valid where at least half of the samples are.

So nothing of an invalid pixel ever enters a valid one, and nothing outside the source is valid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from affine import Affine

from ctrs.errors import RasterError
from ctrs.raster.geotiff import Grid, crs_name
from ctrs.raster.locate import Positions, known_crs, locate
from ctrs.raster.windows import PixelWindow

Resampling = Literal["nearest", "bilinear", "average"]
"""How the pixels of a grid are made from those of another."""

AVERAGE_FROM = 1.5
"""Source pixels along the edge of a pixel from which imagery is averaged; below it is interpolated."""

LATTICE_STEPS_PX = (64, 32, 16, 8, 4, 2, 1)
"""Steps at which places in another CRS are computed; between them they are interpolated."""

LATTICE_TOLERANCE_PX = 0.05
"""Largest error of that interpolation, in source pixels."""

CHUNK_BYTES = 16 * 2**20
"""Most source bytes that are read at a time."""

CHUNK_PX = 2**18
"""Most pixels that are made at a time: what is computed on the way stays in the processor's cache."""

_TIE = 1e-6
"""Places nearer than this to the border of two source pixels, or to a centre, count as on it."""

_MAX_SAMPLES = 16
_NOWHERE = -1e12

ReadPixels = Callable[[PixelWindow], tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]]


@dataclass(frozen=True, kw_only=True)
class GridWarp:
    """Where the pixels of a target grid lie on a source grid. Build with ``grid_warp``.

    Args:
        source: Grid of the pixels that there are.
        target: Grid of the pixels that are wanted.
        affine: From target to source pixel coordinates (col, row) where both are in one CRS, else None.
        step_px: Step of the lattice of target pixels at which places are computed where there is no ``affine``.
        scale: Source pixels along the edge of a target pixel.
    """

    source: Grid
    target: Grid
    affine: Affine | None
    step_px: int
    scale: float

    @property
    def is_aligned(self) -> bool:
        """Whether rows stay rows and columns columns."""
        return self.affine is not None and self.affine.b == 0 and self.affine.d == 0

    @property
    def is_exact(self) -> bool:
        """Whether each target pixel is one source pixel: flipped, turned by right angles or moved by whole ones."""
        if self.affine is None:
            return False
        a, b, c, d, e, f = tuple(self.affine)[:6]
        whole = all(abs(value - round(value)) < _TIE for value in (a, b, c, d, e, f))
        return whole and sorted((abs(round(a)), abs(round(b)))) == [0, 1] and abs(round(a * e - b * d)) == 1

    @property
    def method(self) -> Resampling:
        """How imagery is sampled."""
        if self.is_exact:
            return "nearest"
        return "average" if self.scale >= AVERAGE_FROM else "bilinear"

    def positions(self, window: PixelWindow, *, dx: float = 0.5, dy: float = 0.5) -> Positions:
        """Return source columns and rows of the points ``(col + dx, row + dy)`` of a window's pixels.

        The arrays broadcast to (h, w). What lies nowhere on the source is far outside it.
        """
        cols = np.arange(window.col_off, window.col_off + window.width, dtype=np.float64)[None] + dx
        rows = np.arange(window.row_off, window.row_off + window.height, dtype=np.float64)[:, None] + dy
        if self.affine is None:
            return self._interpolated(cols, rows)
        a, b, c, d, e, f = tuple(self.affine)[:6]
        if self.is_aligned:
            return a * cols + c, e * rows + f
        return a * cols + b * rows + c, d * cols + e * rows + f

    def _interpolated(self, cols: npt.NDArray[np.float64], rows: npt.NDArray[np.float64]) -> Positions:
        """Interpolate between the nodes of a lattice that is the same for each window."""
        step = self.step_px
        left, top = math.floor(cols[0, 0] / step), math.floor(rows[0, 0] / step)
        right, bottom = math.floor(cols[0, -1] / step) + 1, math.floor(rows[-1, 0] / step) + 1
        node_cols, node_rows = np.meshgrid(
            np.arange(left, right + 1) * float(step), np.arange(top, bottom + 1) * float(step)
        )
        nodes = locate(self.source, self.target, node_cols, node_rows)
        i, j = np.floor(cols / step).astype(np.intp), np.floor(rows / step).astype(np.intp)
        tx, ty = cols / step - i, rows / step - j
        i, j = i - left, j - top
        with np.errstate(invalid="ignore"):
            found = [
                (node[j, i] * (1 - tx) + node[j, i + 1] * tx) * (1 - ty)
                + (node[j + 1, i] * (1 - tx) + node[j + 1, i + 1] * tx) * ty
                for node in nodes
            ]
            lost = ~(np.isfinite(found[0]) & np.isfinite(found[1]))
        for values in found:
            values[lost] = _NOWHERE
        return found[0], found[1]

    def read(
        self, window: PixelWindow, read: ReadPixels, *, method: Resampling, count: int, dtype: np.dtype[Any]
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Return the pixels (C, h, w) of a window of the target and their valid mask (h, w), True = valid.

        Args:
            window: Part of the target grid.
            read: Reads windows of the source.
            method: How to sample.
            count: Number of bands that ``read`` returns.
            dtype: Their dtype.

        Returns:
            Pixels of the same dtype, rounded where it is one of integers, 0 where they are not valid; valid mask.
        """
        out = np.zeros((count, window.height, window.width), dtype)
        valid = np.zeros((window.height, window.width), bool)
        for part in self._parts(window, count * dtype.itemsize):
            rows = slice(part.row_off - window.row_off, part.row_off - window.row_off + part.height)
            cols = slice(part.col_off - window.col_off, part.col_off - window.col_off + part.width)
            centres = self.positions(part)
            box = self._source_window(centres)
            if box is None:
                continue
            pixels, usable = read(box)
            if usable.any():
                sampled = self._sample(part, box, centres, pixels, usable, method)
                out[:, rows, cols], valid[rows, cols] = sampled
        return out, valid

    def _parts(self, window: PixelWindow, item_bytes: int) -> Iterator[PixelWindow]:
        """Cut a window so that the source pixels below each part take no more than ``CHUNK_BYTES``."""
        budget = min(CHUNK_PX, CHUNK_BYTES / item_bytes / max(1.0, self.scale) ** 2)
        if self.is_aligned and budget >= 16 * window.width:
            # Whole rows: the source is read from top to bottom, each row once.
            height, width = int(budget // window.width), window.width
        else:
            height = width = max(16, int(math.sqrt(budget)))
        for row_off in range(window.row_off, window.row_off + window.height, height):
            for col_off in range(window.col_off, window.col_off + window.width, width):
                yield PixelWindow(
                    col_off=col_off,
                    row_off=row_off,
                    width=min(width, window.col_off + window.width - col_off),
                    height=min(height, window.row_off + window.height - row_off),
                )

    def _source_window(self, centres: Positions) -> PixelWindow | None:
        """Return the source pixels that the samples of a part may touch; None where it lies outside."""
        cols, rows = centres
        margin = math.ceil(self.scale) + 2
        near_cols = (cols > -margin) & (cols < self.source.width + margin)
        near_rows = (rows > -margin) & (rows < self.source.height + margin)
        if not self.is_aligned:
            near_cols = near_rows = near_cols & near_rows
        if not near_cols.any() or not near_rows.any():
            return None
        left, top = (
            max(0, math.floor(cols[near_cols].min()) - margin),
            max(0, math.floor(rows[near_rows].min()) - margin),
        )
        right = min(self.source.width, math.ceil(cols[near_cols].max()) + margin)
        bottom = min(self.source.height, math.ceil(rows[near_rows].max()) + margin)
        if right <= left or bottom <= top:
            return None
        return PixelWindow(col_off=left, row_off=top, width=right - left, height=bottom - top)

    def _sample(
        self,
        part: PixelWindow,
        box: PixelWindow,
        centres: Positions,
        pixels: npt.NDArray[Any],
        usable: npt.NDArray[np.bool_],
        method: Resampling,
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        # A border of pixels that are not valid stands for everything outside.
        framed = np.pad(np.where(usable, pixels, pixels.dtype.type(0)), ((0, 0), (1, 1), (1, 1)))
        flat, flags = framed.reshape(len(framed), -1), np.pad(usable, 1).reshape(-1)
        frame = _Frame(box.col_off, box.row_off, box.width, box.height)
        centre = frame.index(*centres)
        if method == "nearest":
            return flat[:, centre], flags[centre]
        # float32 holds 16-bit values exactly, not 32-bit ones
        number = np.float32 if pixels.dtype.itemsize <= 2 or pixels.dtype == np.float32 else np.float64
        total = np.zeros((len(flat), part.height, part.width), number)
        weight = np.zeros((part.height, part.width), number)
        if method == "bilinear":
            valid = flags[centre]
            for index, share in frame.neighbours(*centres):
                own = np.where(flags[index], share, 0.0).astype(number)
                weight += own
                for band, source in zip(total, flat, strict=True):
                    band += own * source[index]
        else:
            samples = min(_MAX_SAMPLES, 2 * math.ceil(self.scale))
            places = [(place + 0.5) / samples for place in range(samples)]
            for dy in places:
                for dx in places:
                    index = frame.index(*self.positions(part, dx=dx, dy=dy))
                    weight += flags[index]
                    for band, source in zip(total, flat, strict=True):
                        band += source[index]
            valid = 2 * weight >= samples**2
        mean = total / np.where(valid, weight, 1)
        mean[:, ~valid] = 0
        if pixels.dtype.kind in "iu":
            np.rint(mean, out=mean)
        return mean.astype(pixels.dtype), valid


@dataclass(frozen=True)
class _Frame:
    """A window of the source with a border of one pixel, as one flat array."""

    col_off: int
    row_off: int
    width: int
    height: int

    def index(self, cols: npt.NDArray[np.float64], rows: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
        """Return the flat index of the pixel at each place."""
        return self._rows(np.floor(rows + _TIE)) + self._cols(np.floor(cols + _TIE))

    def neighbours(
        self, cols: npt.NDArray[np.float64], rows: npt.NDArray[np.float64]
    ) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]]:
        """Yield the flat index of the four pixels around each place, and their weights."""
        left, top = np.floor(cols - 0.5), np.floor(rows - 0.5)
        # A place that is a centre but for rounding errors takes nothing from its neighbours.
        tx, ty = np.round(cols - 0.5 - left, 6), np.round(rows - 0.5 - top, 6)
        across = ((self._cols(left), 1 - tx), (self._cols(left + 1), tx))
        down = ((self._rows(top), 1 - ty), (self._rows(top + 1), ty))
        for rows_index, rows_share in down:
            for cols_index, cols_share in across:
                yield rows_index + cols_index, rows_share * cols_share

    def _cols(self, cols: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
        return np.clip(cols - (self.col_off - 1), 0, self.width + 1).astype(np.intp)

    def _rows(self, rows: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
        return np.clip(rows - (self.row_off - 1), 0, self.height + 1).astype(np.intp) * (self.width + 2)


def grid_warp(source: Grid, target: Grid) -> GridWarp:
    """Find out how the pixels of a grid are found on another one.

    Args:
        source: Grid of the pixels that there are; by ground control points where it has some.
        target: Grid of the pixels that are wanted, with a transform.

    Raises:
        RasterError: There is no way from one CRS to the other.
    """
    affine = None
    if source.ground_control is None and source.crs == target.crs:
        affine = _tidy(~source.transform @ target.transform)
        a, b, _, d, e, _ = tuple(affine)[:6]
        return GridWarp(source=source, target=target, affine=affine, step_px=1, scale=math.sqrt(abs(a * e - b * d)))
    points = np.linspace(0.05, 0.95, 7)
    cols, rows = np.meshgrid(points * target.width, points * target.height)
    here = np.array(locate(source, target, cols, rows))
    right = np.array(locate(source, target, cols + 1, rows))
    below = np.array(locate(source, target, cols, rows + 1))
    along, down = right - here, below - here
    with np.errstate(invalid="ignore"):
        areas = np.abs(along[0] * down[1] - along[1] * down[0])
    areas = areas[np.isfinite(areas)]
    if not areas.size:
        raise RasterError(
            f"no way from {crs_name(known_crs(source))} to {crs_name(target.crs)} found there; choose another CRS"
        )
    return GridWarp(
        source=source,
        target=target,
        affine=None,
        step_px=_lattice_step(source, target, cols, rows),
        scale=math.sqrt(float(np.median(areas))),
    )


def _tidy(affine: Affine) -> Affine:
    """Take rounding errors for the round numbers that they are."""
    values = [float(round(value)) if abs(value - round(value)) < 1e-9 else value for value in tuple(affine)[:6]]
    return Affine(*values)


def _lattice_step(source: Grid, target: Grid, cols: npt.NDArray[np.float64], rows: npt.NDArray[np.float64]) -> int:
    """Return the largest step between whose nodes interpolation is good enough at some places."""
    for step in LATTICE_STEPS_PX:
        middle = np.array(locate(source, target, cols, rows))
        corners = [
            np.array(locate(source, target, cols + dx * step / 2, rows + dy * step / 2))
            for dx, dy in ((-1, -1), (1, -1), (-1, 1), (1, 1))
        ]
        with np.errstate(invalid="ignore"):
            errors = np.abs(sum(corners) / 4 - middle)
        errors = errors[np.isfinite(errors)]
        if not errors.size or errors.max() <= LATTICE_TOLERANCE_PX:
            return step
    return LATTICE_STEPS_PX[-1]
