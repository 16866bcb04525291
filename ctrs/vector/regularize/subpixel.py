"""Outlines between pixels: each edge of an exact outline moves to where two classes are equally probable.

An edge of an exact outline separates a pixel inside from one outside. On the line between their centres the margin
``p_class - max p_other`` falls from above 0 to below: its zero, by linear interpolation, is a vertex of the margin's
zero level (marching squares, Lorensen and Cline 1987). There is one for each edge, in the order of the edges, so the
rings, their regions and their holes are those of the exact outlines. Where the margin does not change its sign (specks
and pinholes that were cleaned away, the raster's edge, no probabilities) the middle of the edge stays.

Without probabilities the middles of edges still step with the pixels; ``smooth`` evens them out along the outline.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import shapely

from ctrs.raster.geotiff import read_window
from ctrs.raster.probabilities import UINT8_STEPS
from ctrs.raster.windows import PixelWindow
from ctrs.vector.outlines import Outlines
from ctrs.vector.runs import IntArray, RegionIds

FloatArray = npt.NDArray[np.float64]
Probabilities = npt.NDArray[np.float32]

_REACH = 3.0
"""Standard deviations after which the kernel of ``smooth`` ends."""

_BAND_VALUES = 2**22

# Steps along an edge in the image (x is the column, y the row, downwards), the region on the right: east, west, south,
# north. For each: from the edge's first corner to the pixel inside, and to the one outside, as (column, row).
_INSIDE = np.array([(0, 0), (-1, -1), (-1, 0), (0, -1)])
_OUTSIDE = np.array([(0, -1), (-1, 0), (0, 0), (-1, -1)])
_EAST, _WEST, _SOUTH, _NORTH = range(4)


@dataclass(frozen=True, kw_only=True)
class SubpixelOutlines:
    """Outlines with one point for each pixel edge, as ragged arrays.

    Args:
        points: Column and row of each point, where pixel corners are whole numbers; rings are open; shape (V, 2).
        ring_offsets: First point of each ring, and V; shape (R + 1,).
        polygon_offsets: First ring (the shell) of each polygon, and R; shape (P + 1,).
        regions: Region id of each polygon, rising; shape (P,).
        located: True where the point was found between two probabilities; shape (V,).
    """

    points: FloatArray
    ring_offsets: IntArray
    polygon_offsets: IntArray
    regions: RegionIds
    located: npt.NDArray[np.bool_]

    @property
    def polygon_of_point(self) -> IntArray:
        """Polygon of each point; shape (V,)."""
        return np.repeat(np.arange(len(self.regions)), np.diff(self.ring_offsets[self.polygon_offsets]))

    def smooth(self, sigma: float, scale: tuple[float, float] = (1.0, 1.0)) -> SubpixelOutlines:
        """Average each point with those around it on its ring, weighted by a Gaussian of the way along the ring.

        Args:
            sigma: Standard deviation, in pixels times ``scale``.
            scale: Size of a pixel along columns and rows.
        """
        if sigma <= 0 or not len(self.points):
            return self
        sizes = np.diff(self.ring_offsets)
        begin, size = np.repeat(self.ring_offsets[:-1], sizes), np.repeat(sizes, sizes)
        place = np.arange(len(self.points)) - begin
        steps = self.steps(scale)
        total, weights = self.points.copy(), np.ones(len(self.points))
        # Shares of an edge between neighbouring points are at least half a pixel on average.
        reach = min(int(np.ceil(_REACH * sigma / (0.5 * min(scale)))), int((sizes.max() - 1) // 2))
        for direction in (1, -1):
            away = np.zeros(len(self.points))
            for number in range(1, reach + 1):
                index = begin + (place + direction * number) % size
                away += steps[index if direction < 0 else begin + (place + number - 1) % size]
                near = (away <= _REACH * sigma) & (2 * number < size)
                if not near.any():
                    break
                weight = np.where(near, np.exp(-0.5 * (away / sigma) ** 2), 0.0)
                total += weight[:, None] * self.points[index]
                weights += weight
        return replace(self, points=total / weights[:, None])

    @property
    def following(self) -> IntArray:
        """The point after each, around its ring; shape (V,)."""
        result = np.arange(1, len(self.points) + 1, dtype=np.int64)
        result[self.ring_offsets[1:] - 1] = self.ring_offsets[:-1]
        return result

    def steps(self, scale: tuple[float, float] = (1.0, 1.0)) -> FloatArray:
        """Return the length from each point to the one after it, in pixels times ``scale``; shape (V,)."""
        step = (self.points[self.following] - self.points) * scale
        return np.asarray(np.hypot(step[:, 0], step[:, 1]), np.float64)

    def resample(self, spacing: float, scale: tuple[float, float] = (1.0, 1.0)) -> SubpixelOutlines:
        """Walk each ring in equal steps of about ``spacing``, at least twelve, from its first point.

        Args:
            spacing: In pixels times ``scale``.
            scale: Size of a pixel along columns and rows.
        """
        if not len(self.points):
            return self
        steps = self.steps(scale)
        lengths = np.add.reduceat(steps, self.ring_offsets[:-1])
        sizes = np.maximum(12, np.rint(lengths / spacing)).astype(np.int64)
        ring = np.repeat(np.arange(len(sizes)), sizes)
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        reached = np.cumsum(steps)
        where = (np.cumsum(lengths) - lengths)[ring] + (np.arange(len(ring)) - offsets[ring]) * (lengths / sizes)[ring]
        # Rounding must not lead over to another ring.
        source = np.searchsorted(reached, where, side="right")
        source = np.clip(source, self.ring_offsets[ring], self.ring_offsets[ring + 1] - 1)
        share = np.clip(1 - (reached[source] - where) / np.maximum(steps[source], 1e-30), 0, 1)
        ahead = self.following[source]
        return SubpixelOutlines(
            points=self.points[source] + share[:, None] * (self.points[ahead] - self.points[source]),
            ring_offsets=offsets,
            polygon_offsets=self.polygon_offsets,
            regions=self.regions,
            located=self.located[source] & self.located[ahead],
        )

    def polygons(self, scale: tuple[float, float] = (1.0, 1.0)) -> npt.NDArray[np.object_]:
        """Return shapely polygons; columns and rows are multiplied by ``scale``. They may be invalid where thin."""
        sizes = np.diff(self.ring_offsets)
        closed = self.ring_offsets + np.arange(len(self.ring_offsets))
        source = np.arange(closed[-1]) - np.repeat(np.arange(len(sizes)), sizes + 1)
        source[closed[1:] - 1] = self.ring_offsets[:-1]
        coordinates = self.points[source] * np.array(scale, float)
        geometries: npt.NDArray[np.object_] = shapely.from_ragged_array(
            shapely.GeometryType.POLYGON, coordinates, (closed, self.polygon_offsets)
        )
        return geometries


def refine_outlines(
    outlines: Outlines,
    classes: npt.NDArray[Any],
    probabilities: Iterable[tuple[int, Probabilities]] = (),
    *,
    complete: bool = True,
) -> SubpixelOutlines:
    """Move the edges of exact outlines to where classes are equally probable.

    Args:
        outlines: Of a mask.
        classes: Band of ``probabilities`` that holds the class of each polygon; shape (P,).
        probabilities: Bands of rows with their first row, from top to bottom, each (K, rows, columns), NaN where they
            are not known; each begins with the last row of the one before. None: points are the middles of edges.
        complete: The K classes are all there are; else what they lack to 1 counts as one more class.
    """
    corner, direction, sizes = _edges(outlines)
    inside, outside = corner + _INSIDE[direction], corner + _OUTSIDE[direction]
    ring_offsets = np.concatenate([[0], np.cumsum(sizes)])
    polygon = np.repeat(np.arange(len(classes)), np.diff(ring_offsets[outlines.polygon_offsets]))
    share = np.full(len(corner), 0.5)
    located = np.zeros(len(corner), bool)
    upper = np.minimum(inside[:, 1], outside[:, 1])
    by_row = np.argsort(upper, kind="stable")
    rows = upper[by_row]
    for first, values in probabilities:
        count, width = values.shape[1:]
        chosen = by_row[np.searchsorted(rows, first) : np.searchsorted(rows, first + count)]
        ends = np.stack([inside[chosen], outside[chosen]])
        known = ((ends >= [0, first]) & (ends < [width, first + count])).all(axis=(0, 2))
        chosen, ends = chosen[known], ends[:, known]
        at_inside, at_outside = (
            _margin(values[:, row - first, column], classes[polygon[chosen]], complete=complete)
            for column, row in (ends[0].T, ends[1].T)
        )
        crossing = (at_inside >= 0) & (at_outside <= 0) & (at_inside > at_outside)
        found = chosen[crossing]
        share[found] = at_inside[crossing] / (at_inside[crossing] - at_outside[crossing])
        located[found] = True
    return SubpixelOutlines(
        points=inside + 0.5 + share[:, None] * (outside - inside),
        ring_offsets=ring_offsets,
        polygon_offsets=outlines.polygon_offsets,
        regions=outlines.regions,
        located=located,
    )


def read_probability_bands(
    dataset: rasterio.DatasetReader, *, band_rows: int | None = None
) -> Iterator[tuple[int, Probabilities]]:
    """Yield the bands that ``refine_outlines`` wants from an open raster of ``ctrs.raster.probabilities``.

    Args:
        dataset: The raster.
        band_rows: Rows to read at a time; None: some 4 million values.
    """
    height, width = dataset.height, dataset.width
    step = band_rows or max(1, _BAND_VALUES // (width * dataset.count))
    for row in range(0, height, step):
        # The row below the band closes the edges on its lower border.
        window = PixelWindow(col_off=0, row_off=row, width=width, height=min(step + 1, height - row))
        stored, valid = read_window(dataset, window)
        values = stored.astype(np.float32)
        if stored.dtype == np.uint8:
            values /= UINT8_STEPS
        values[:, ~valid] = np.nan
        yield row, values


def _edges(outlines: Outlines) -> tuple[IntArray, IntArray, IntArray]:
    """Cut rings into unit edges: first corner (column, row), direction, and the number of edges of each ring."""
    corners = outlines.corners
    closing = np.zeros(len(corners), bool)
    closing[outlines.ring_offsets[1:] - 1] = True
    begins = np.flatnonzero(~closing)
    step = corners[begins + 1] - corners[begins]
    lengths = np.abs(step).sum(axis=1)
    direction = np.select([step[:, 0] > 0, step[:, 0] < 0, step[:, 1] > 0], [_EAST, _WEST, _SOUTH], _NORTH)
    wall = np.repeat(np.arange(len(begins)), lengths)
    place = np.arange(len(wall)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    corner = corners[begins][wall] + np.sign(step)[wall] * place[:, None]
    ring = np.repeat(np.arange(len(outlines.ring_offsets) - 1), np.diff(outlines.ring_offsets) - 1)
    sizes = np.zeros(len(outlines.ring_offsets) - 1, np.int64)
    np.add.at(sizes, ring, lengths)
    return corner, direction[wall], sizes


def _margin(values: Probabilities, classes: npt.NDArray[Any], *, complete: bool) -> FloatArray:
    """Probability of each point's class less that of its strongest rival; values (K, N), NaN where not known."""
    if not complete:
        values = np.concatenate([values, 1 - values.sum(axis=0, keepdims=True)])
    points = np.arange(values.shape[1])
    own = values[classes, points]
    rivals = values.copy()
    rivals[classes, points] = -np.inf
    return np.asarray(own - rivals.max(axis=0), np.float64)
