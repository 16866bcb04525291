"""Exact outlines of regions: from runs to rings of pixel corners to polygons, with whole-array operations.

Directions are those of the image: x is the column, y the row, downwards. A ring keeps its region on the right as seen
when walking along it in the image (east along an upper border), so shells have a positive shoelace sum, holes a
negative one.

At each pixel corner the four pixels around are looked at: a ring turns there, passes straight, or is not concerned. Two
pixels that meet only diagonally are joined across the corner if they belong to one region, so that a shell and a hole
touch in a point (valid) where else one ring would meet itself, and are kept apart if they belong to two. Hence each
region has exactly one shell, and the result depends on the raster alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components, depth_first_order

from ctrs.vector.regions.runs import IntArray, RegionIds, Runs

NO_REGION = -1
"""Region id of pixels that belong to no polygon; the surroundings of the raster have it too."""

# Quadrants around a corner, counter-clockwise in the image from the upper left: 0 NW, 1 SW, 2 SE, 3 NE.
# A ring reaches a corner along the border of one quadrant (NW southwards, SW eastwards, SE northwards, NE westwards)
# and leaves it along the border of the same or another (NW westwards, SW southwards, SE eastwards, NE northwards).
Quadrants = npt.NDArray[np.int8]
_LEAVE_ARRIVE_IN_ROW = ((2, 1), (0, 3))
_LEAVE_ARRIVE_IN_COLUMN = ((1, 0), (3, 2))


@dataclass(frozen=True, kw_only=True)
class Outlines:
    """Polygons of regions in pixel corner coordinates, as ragged arrays.

    Args:
        corners: Columns and rows of ring vertices, rings closed; shape (V, 2), integers.
        ring_offsets: First vertex of each ring, and V; shape (R + 1,).
        polygon_offsets: First ring (the shell) of each polygon, and R; shape (P + 1,).
        regions: Region id of each polygon, rising; shape (P,).
    """

    corners: IntArray
    ring_offsets: IntArray
    polygon_offsets: IntArray
    regions: RegionIds

    def polygons(self, scale: tuple[float, float] = (1.0, 1.0), *, row_off: int = 0) -> npt.NDArray[np.object_]:
        """Return shapely polygons; columns and rows, these from ``row_off`` on, are multiplied by ``scale``."""
        coordinates = (self.corners + np.array([0, row_off])) * np.array(scale, float)
        geometries: npt.NDArray[np.object_] = shapely.from_ragged_array(
            shapely.GeometryType.POLYGON, coordinates, (self.ring_offsets, self.polygon_offsets)
        )
        return geometries


def trace(runs: Runs, regions: RegionIds, *, junctions: bool = False) -> Outlines:
    """Trace the outlines of all regions.

    Args:
        runs: Runs of a raster.
        regions: 4-connected region of each run, or ``NO_REGION``.
        junctions: Keep a vertex on straight borders where a third region begins, so that neighbours have all
            vertices of their common border in common (what shapely's coverage functions expect).
    """
    corners = _corners(runs, regions)
    around = _pixels_around(runs, regions, corners)
    visits, leaving = _visits(around, junctions=junctions)
    place, arriving = visits // 4, visits % 4
    region = around[place, arriving]
    column = corners[place] % (runs.width + 1)
    row = corners[place] // (runs.width + 1)
    order, ring_offsets = _walk(_successors(column, arriving, leaving))
    return _assemble(column[order], row[order], region[order], ring_offsets)


def _corners(runs: Runs, regions: RegionIds) -> IntArray:
    """Corners at the ends of vertical borders, as ``row * (width + 1) + column``, rising; all turns are among them."""
    left = np.empty_like(regions)
    left[0] = NO_REGION
    left[1:] = regions[:-1]
    column = runs.firsts - runs.rows * runs.width
    left[column == 0] = NO_REGION
    border = regions != left
    upper_ends = runs.firsts[border] + runs.rows[border]
    last = np.append(column[1:] == 0, True) & (regions != NO_REGION)
    right_ends = (runs.rows[last] + 1) * (runs.width + 1) - 1
    upper_ends = np.concatenate([upper_ends, right_ends])
    ends = np.sort(np.concatenate([upper_ends, upper_ends + runs.width + 1]), kind="stable")
    return ends[np.diff(ends, prepend=-1) > 0]


def _pixels_around(runs: Runs, regions: RegionIds, corners: IntArray) -> RegionIds:
    """Region of the four pixels around each corner, (N, 4), in the order NW, SW, SE, NE."""
    row, column = np.divmod(corners, runs.width + 1)
    around = np.full((len(corners), 4), NO_REGION, np.int32)
    for pixel_row, west, east in ((row - 1, 0, 3), (row, 1, 2)):
        inside = (pixel_row >= 0) & (pixel_row < runs.height)
        pixel = pixel_row[inside] * runs.width + column[inside]
        run = runs.run_at(pixel)
        pad = np.append(regions, NO_REGION)
        beginning = runs.firsts[run] == pixel
        before = np.where(beginning, run - 1, run)
        before[pixel == runs.height * runs.width] = runs.count - 1
        around[inside, east] = np.where(column[inside] < runs.width, pad[run], NO_REGION)
        around[inside, west] = np.where(column[inside] > 0, pad[before], NO_REGION)
    return around


def _visits(around: RegionIds, *, junctions: bool) -> tuple[IntArray, Quadrants]:
    """Find where rings pass corners: ``4 * corner + arriving quadrant``, rising, and the leaving quadrant."""
    following = np.roll(around, -1, axis=1)
    opposite = np.roll(around, -2, axis=1)
    preceding = np.roll(around, 1, axis=1)
    quadrant = np.arange(4, dtype=np.int8)
    arrives = (around != NO_REGION) & (around != preceding)
    convex = around != following
    straight = ~convex & (around != opposite)
    leaving = np.where(straight, quadrant + 1, quadrant + 2)
    leaving = np.where(convex & (around != opposite), quadrant, leaving) % 4
    if junctions:
        arrives &= ~straight | (preceding != opposite)
    else:
        arrives &= ~straight
    visits = np.flatnonzero(arrives)
    return visits, leaving.reshape(-1)[visits]


def _successors(column: IntArray, arriving: IntArray, leaving: Quadrants) -> IntArray:
    """Return the visit that follows each visit in its ring.

    Borders walked in one direction along one grid line are disjoint stretches, so the k-th that begins is the k-th that
    ends: sorting takes the place of searching.
    """
    following = np.empty(len(column), np.int64)
    for leave, arrive in _LEAVE_ARRIVE_IN_ROW:
        following[np.flatnonzero(leaving == leave)] = np.flatnonzero(arriving == arrive)
    by_column = np.argsort(column, kind="stable")
    for leave, arrive in _LEAVE_ARRIVE_IN_COLUMN:
        following[by_column[leaving[by_column] == leave]] = by_column[arriving[by_column] == arrive]
    return following


def _walk(following: IntArray) -> tuple[IntArray, IntArray]:
    """Order visits ring by ring, each from its first one; returns the order and the ring offsets (R + 1,)."""
    count = len(following)
    if count == 0:
        return np.empty(0, np.int64), np.zeros(1, np.int64)
    graph = csr_matrix((np.ones(count, np.int8), following, np.arange(count + 1)), shape=(count, count))
    num_rings, ring = connected_components(graph, directed=True, connection="strong")
    first = np.empty(num_rings, np.int64)
    first[ring[::-1]] = np.arange(count - 1, -1, -1)
    sizes = np.bincount(ring, minlength=num_rings)
    by_first = np.argsort(first)
    # One list of all rings: the last visit of each ring leads on to the next ring, and a compiled walk reads it off.
    last = np.flatnonzero(following == first[ring])
    onward = np.empty(num_rings, np.int64)
    onward[by_first] = first[np.roll(by_first, -1)]
    chain = following.copy()
    chain[last] = onward[ring[last]]
    graph = csr_matrix((np.ones(count, np.int8), chain, np.arange(count + 1)), shape=(count, count))
    order = depth_first_order(graph, int(first[by_first[0]]), return_predecessors=False)
    return order.astype(np.int64), np.concatenate([[0], np.cumsum(sizes[by_first])])


def _assemble(column: IntArray, row: IntArray, region: RegionIds, ring_offsets: IntArray) -> Outlines:
    """Group open rings into polygons, the shell first, and close them."""
    num_rings = len(ring_offsets) - 1
    if num_rings == 0:
        empty = np.zeros(1, np.int64)
        return Outlines(
            corners=np.empty((0, 2), np.int64), ring_offsets=empty, polygon_offsets=empty, regions=np.empty(0, np.int32)
        )
    starts, sizes = ring_offsets[:-1], np.diff(ring_offsets)
    onward = np.arange(1, len(column) + 1)
    onward[ring_offsets[1:] - 1] = starts
    twice_area = np.add.reduceat(column * row[onward] - column[onward] * row, starts)
    ring_region = region[starts]
    by_polygon = np.lexsort((np.arange(num_rings), twice_area < 0, ring_region))
    closed = sizes[by_polygon] + 1
    offsets = np.concatenate([[0], np.cumsum(closed)])
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], closed)
    within %= np.repeat(sizes[by_polygon], closed)
    source = np.repeat(starts[by_polygon], closed) + within
    ids, counts = np.unique(ring_region, return_counts=True)
    return Outlines(
        corners=np.column_stack([column[source], row[source]]),
        ring_offsets=offsets,
        polygon_offsets=np.concatenate([[0], np.cumsum(counts)]),
        regions=ids.astype(np.int32),
    )
