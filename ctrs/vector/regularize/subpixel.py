"""Outlines between pixels: each edge of an exact outline moves to where two classes are equally probable.

An edge of an exact outline separates a pixel inside from one outside. On the line between their centres the margin
``p_class - p_other`` falls from above 0 to below: its zero, by linear interpolation, is a vertex of the margin's zero
level (marching squares, Lorensen and Cline 1987). ``p_other`` is the probability of the neighbour where that is drawn
too, so that both find the same point, and else of the strongest rival. There is one point for each edge, in the order
of the edges, so the rings, their regions and their holes are those of the exact outlines.

Where the margin does not change its sign (specks and pinholes that were cleaned away, parted buildings, the raster's
edge, no probabilities) the exact outline stays. Points keep off pixel centres, so that between four centres the rings
run as chords with ends of their own: no ring meets another or itself where the exact ones do not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

from ctrs.vector.regions.outlines import NO_REGION, Outlines
from ctrs.vector.regions.runs import IntArray, RegionIds, Runs

FloatArray = npt.NDArray[np.float64]
Probabilities = npt.NDArray[np.float32]

NO_BAND = -1
"""Of a region whose probability is not known, and of none."""

_OUTSIDE_RASTER = NO_REGION - 1

_OFF_CENTRE = 0.02
"""Pixels that a point keeps away from the centres of the two pixels that it lies between."""

_STEPS = 2.0**24
"""Steps of a pixel that points lie on: adding the rows above a block rounds nothing, so that blocks leave no trace."""

# Steps along an edge in the image (x is the column, y the row, downwards), the region on the right: east, west, south,
# north. For each: from the edge's first corner to the pixel inside, and to the one outside, as (column, row).
_INSIDE = np.array([(0, 0), (-1, -1), (-1, 0), (0, -1)])
_OUTSIDE = np.array([(0, -1), (-1, 0), (0, 0), (-1, -1)])
_EAST, _WEST, _SOUTH, _NORTH = range(4)


@dataclass(frozen=True, kw_only=True)
class SubpixelOutlines:
    """Outlines between pixels, as ragged arrays.

    Args:
        points: Column and row of each point, where pixel corners are whole numbers; rings are closed; shape (V, 2).
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

    def polygons(self, scale: tuple[float, float] = (1.0, 1.0), *, row_off: int = 0) -> npt.NDArray[np.object_]:
        """Return polygons with disjoint interiors; columns and rows, these from ``row_off`` on, times ``scale``."""
        coordinates = (self.points + np.array([0, row_off])) * np.array(scale, float)
        geometries: npt.NDArray[np.object_] = shapely.from_ragged_array(
            shapely.GeometryType.POLYGON,
            coordinates,
            (self.ring_offsets, self.polygon_offsets),
        )
        return geometries


def refine_outlines(
    outlines: Outlines,
    regions: Runs,
    bands: IntArray,
    blocks: Iterable[tuple[int, Probabilities]] = (),
    *,
    complete: bool = True,
    row_off: int = 0,
    num_rows: int | None = None,
) -> SubpixelOutlines:
    """Move the edges of exact outlines to where classes are equally probable.

    Args:
        outlines: Of regions.
        regions: Runs of region ids, ``NO_REGION`` where none is drawn: what the outlines were traced from.
        bands: Band of the probabilities for the class of each region id, ``NO_BAND`` where it has none.
        blocks: Blocks of rows with their first row, from top to bottom, each (K, rows, columns), NaN where they are
            not known; each holds the first row of the next one too. None: the outlines stay as they are.
        complete: The K classes are all there are; else what they lack to 1 counts as band K.
        row_off: Row of the raster that is the first of the runs; outlines and results count from there, blocks count
            from the raster's first row.
        num_rows: Rows of the raster; None: it ends with the runs. In rows that the runs leave out nothing is drawn.
    """
    above, below = row_off, 0 if num_rows is None else num_rows - row_off - regions.height
    if not len(outlines.regions):
        return SubpixelOutlines(
            points=np.empty((0, 2)),
            ring_offsets=outlines.ring_offsets,
            polygon_offsets=outlines.polygon_offsets,
            regions=outlines.regions,
            located=np.empty(0, bool),
        )
    corner, direction, ring_offsets = _edges(outlines)
    inside, outside = corner + _INSIDE[direction], corner + _OUTSIDE[direction]
    own_region = np.repeat(outlines.regions, np.diff(ring_offsets[outlines.polygon_offsets]))
    neighbour = _region_at(regions, outside, above, below)
    known = np.append(bands, [NO_BAND, NO_BAND])  # the last two: outside the raster, and NO_REGION
    moved = ((first - row_off, values) for first, values in blocks)
    share, located = _crossings(inside, outside, known[own_region], known[neighbour], moved, complete=complete)
    points = np.minimum(inside, outside) + 0.5 + share[:, None] * np.abs(outside - inside)
    # Where two exact edges meet, their corner stays. Where three regions meet, or two and the raster's edge, all go
    # through the corner between their pixels: no gap and no overlap is left there.
    before = np.arange(-1, len(points) - 1)
    before[ring_offsets[:-1]] = ring_offsets[1:] - 1
    turns = (direction != direction[before]) & ~located & ~located[before]
    kept = turns | (neighbour != neighbour[before])
    return _assemble(outlines, points, located, corner, kept, ring_offsets)


def _edges(outlines: Outlines) -> tuple[IntArray, npt.NDArray[np.int64], IntArray]:
    """Cut rings into unit edges: first corner (column, row), direction, and the first edge of each ring."""
    corners = outlines.corners
    closing = np.zeros(len(corners), bool)
    closing[outlines.ring_offsets[1:] - 1] = True
    begins = np.flatnonzero(~closing)
    step = corners[begins + 1] - corners[begins]
    lengths = np.abs(step).sum(axis=1)
    direction = np.select([step[:, 0] > 0, step[:, 0] < 0, step[:, 1] > 0], [_EAST, _WEST, _SOUTH], _NORTH)
    first_edge = np.concatenate([[0], np.cumsum(lengths)])
    side = np.repeat(np.arange(len(begins)), lengths)
    place = np.arange(len(side)) - first_edge[side]
    corner = corners[begins][side] + np.sign(step)[side] * place[:, None]
    first_side = outlines.ring_offsets - np.arange(len(outlines.ring_offsets))
    return corner, direction[side], first_edge[first_side]


def _region_at(regions: Runs, pixels: IntArray, above: int, below: int) -> RegionIds:
    """Return the region of pixels (column, row) of a raster with more rows above and below the runs."""
    column, row = pixels.T
    within = (column >= 0) & (column < regions.width) & (row >= -above) & (row < regions.height + below)
    found = np.where(within, np.int32(NO_REGION), np.int32(_OUTSIDE_RASTER))
    within &= (row >= 0) & (row < regions.height)
    found[within] = regions.values[regions.run_at(row[within] * regions.width + column[within])]
    return found


def _crossings(
    inside: IntArray,
    outside: IntArray,
    band: IntArray,
    rival: IntArray,
    blocks: Iterable[tuple[int, Probabilities]],
    *,
    complete: bool,
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Return where between two centres the margin is 0, and whether it is anywhere.

    As a share of the way from the left or upper centre to the other: both polygons compute the same number.
    """
    share = np.full(len(inside), 0.5)
    located = np.zeros(len(inside), bool)
    upper = np.minimum(inside[:, 1], outside[:, 1])
    by_row = np.argsort(upper, kind="stable")
    rows = upper[by_row]
    for first, values in blocks:
        count, width = values.shape[1:]
        chosen = by_row[np.searchsorted(rows, first) : np.searchsorted(rows, first + count)]
        ends = np.stack([inside[chosen], outside[chosen]])
        known = ((ends >= [0, first]) & (ends < [width, first + count])).all(axis=(0, 2)) & (band[chosen] != NO_BAND)
        chosen, ends = chosen[known], ends[:, known]
        at_inside, at_outside = (
            _margin(values[:, row - first, column], band[chosen], rival[chosen], complete=complete)
            for column, row in (ends[0].T, ends[1].T)
        )
        crossing = (at_inside >= 0) & (at_outside <= 0) & (at_inside > at_outside)
        found = chosen[crossing]
        forward = (inside[found] <= outside[found]).all(axis=1)
        near, far = np.abs(at_inside[crossing]), np.abs(at_outside[crossing])
        share[found] = np.where(forward, near, far) / (near + far)
        located[found] = True
    return np.round(np.clip(share, _OFF_CENTRE, 1 - _OFF_CENTRE) * _STEPS) / _STEPS, located


def _margin(values: Probabilities, band: IntArray, rival: IntArray, *, complete: bool) -> FloatArray:
    """Probability of each point's class less that of its rival, or of the strongest one; values (K, N)."""
    if not complete:
        values = np.concatenate([values, 1 - values.sum(axis=0, keepdims=True)])
    points = np.arange(values.shape[1])
    own = values[band, points]
    others = values.copy()
    others[band, points] = -1.0
    strongest = np.where(rival == NO_BAND, others.max(axis=0), values[rival, points])
    return np.asarray(own - strongest, np.float64)


def _assemble(
    outlines: Outlines,
    points: FloatArray,
    located: npt.NDArray[np.bool_],
    corner: IntArray,
    kept: npt.NDArray[np.bool_],
    ring_offsets: IntArray,
) -> SubpixelOutlines:
    """Put kept corners before the points of their edges, and close the rings."""
    ring = np.repeat(np.arange(len(ring_offsets) - 1), np.diff(ring_offsets))
    place = np.arange(len(points)) + np.cumsum(kept) + ring
    sizes = np.diff(ring_offsets) + np.add.reduceat(kept.astype(np.int64), ring_offsets[:-1]) + 1
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    result = np.empty((offsets[-1], 2))
    found = np.zeros(len(result), bool)
    result[place], found[place] = points, located
    result[place[kept] - 1] = corner[kept]
    result[offsets[1:] - 1], found[offsets[1:] - 1] = result[offsets[:-1]], found[offsets[:-1]]
    return SubpixelOutlines(
        points=result,
        ring_offsets=offsets,
        polygon_offsets=outlines.polygon_offsets,
        regions=outlines.regions,
        located=found,
    )
