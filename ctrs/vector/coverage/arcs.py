"""The borders of a coverage as arcs: what is done to an arc is done to the polygons on both of its sides.

An arc is a stretch of border between two nodes, or a whole ring without a node. Nodes are vertices where other than two
stretches meet, the corners of a frame (the raster's edge), and where a border leaves that frame. Rebuilding from arcs
whose ends stayed in place gives rings that have all vertices of common borders in common, bit by bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

Geometries = npt.NDArray[np.object_]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

NO_POLYGON = -1
"""The side of an arc on which there is none."""


@dataclass(frozen=True, kw_only=True)
class Arcs:
    """The arcs of a coverage, and how its rings are made of them.

    Args:
        xy: Vertices of all arcs, one arc after the other; shape (V, 2).
        offsets: First vertex of each arc, and V; shape (A + 1,).
        closed: True for arcs that are a whole ring; shape (A,).
        sides: Polygons on either side of each arc, the higher number first, ``NO_POLYGON`` for none; shape (A, 2).
        on_frame: True for arcs that run along the frame; shape (A,).
        pieces: Arc of each piece of the rings; shape (Q,).
        forward: True for pieces that run along their arc, False against it; shape (Q,).
        ring_pieces: First piece of each ring, and Q; shape (R + 1,).
        polygon_rings: First ring (the shell) of each polygon, and R; shape (P + 1,).
    """

    xy: FloatArray
    offsets: IntArray
    closed: Flags
    sides: IntArray
    on_frame: Flags
    pieces: IntArray
    forward: Flags
    ring_pieces: IntArray
    polygon_rings: IntArray

    @classmethod
    def of(cls, polygons: Geometries, frame: tuple[float, float, float, float] | None = None) -> Arcs:
        """Cut the borders of a coverage into arcs.

        Args:
            polygons: Polygons whose common borders have all vertices in common; shape (P,), P > 0.
            frame: Least x, least y, greatest x, greatest y of the raster; None: it has no part.
        """
        _, xy, (ring_offsets, polygon_rings) = shapely.to_ragged_array(polygons, include_z=False)
        ring_offsets = ring_offsets.astype(np.int64)
        ring_polygon = np.repeat(np.arange(len(polygons)), np.diff(polygon_rings))
        sizes = np.diff(ring_offsets) - 1
        firsts = np.concatenate([[0], np.cumsum(sizes)])
        points = xy[np.repeat(ring_offsets[:-1] - firsts[:-1], sizes) + np.arange(firsts[-1])]
        places, vertex = np.unique(points[:, 0] + 1j * points[:, 1], return_inverse=True)
        breaks = _nodes(places, vertex, _onward(firsts), frame)[vertex]
        # Rings begin at a node, so that no piece goes across the seam.
        ring = np.repeat(np.arange(len(sizes)), sizes)
        first_break = np.minimum.reduceat(np.where(breaks, np.arange(len(vertex)), len(vertex)), firsts[:-1])
        has_break = first_break < firsts[1:]
        shift = np.where(has_break, first_break - firsts[:-1], 0)
        turned = firsts[ring] + (np.arange(len(vertex)) - firsts[ring] + shift[ring]) % sizes[ring]
        points, vertex, breaks = points[turned], vertex[turned], breaks[turned]
        begins = breaks.copy()
        begins[firsts[:-1]] = True
        starts = np.flatnonzero(begins)
        onward = _onward(firsts)
        edge = _edges(vertex, vertex[onward], len(places))
        # Each edge lies on one arc: the least edge of a piece names its arc, and which way it runs there the direction.
        _, pieces = np.unique(np.minimum.reduceat(edge, starts), return_inverse=True)
        piece = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(vertex))))
        least = np.lexsort((edge, piece))[starts]
        forward = vertex[least] < vertex[onward[least]]
        _, given_by = np.unique(pieces, return_index=True)
        arc_xy, offsets = _arc_vertices(points, onward, starts, given_by)
        forward = forward == forward[given_by][pieces]
        middle = (arc_xy[offsets[:-1]] + arc_xy[offsets[:-1] + 1]) / 2
        return cls(
            xy=arc_xy,
            offsets=offsets,
            closed=~has_break[ring[starts[given_by]]],
            sides=_sides(pieces, ring_polygon[ring[starts]]),
            on_frame=np.zeros(len(middle), bool) if frame is None else _is_on_frame(middle, frame),
            pieces=pieces,
            forward=forward,
            ring_pieces=np.append(np.flatnonzero(np.isin(starts, firsts[:-1])), len(starts)),
            polygon_rings=polygon_rings.astype(np.int64),
        )

    @property
    def count(self) -> int:
        """Number of arcs."""
        return len(self.offsets) - 1

    @property
    def is_outer(self) -> Flags:
        """True for the arcs with a polygon on one side alone; shape (A,)."""
        return np.asarray((self.sides == NO_POLYGON).any(axis=1))

    def lines(self) -> Geometries:
        """Return the arcs as linestrings."""
        return lines_of(self.xy, self.offsets)

    def polygons(self, lines: Geometries) -> Geometries:
        """Return the polygons of arcs whose inner vertices are others.

        Args:
            lines: Linestrings that take the places of the arcs, with the same ends; shape (A,).
        """
        xy = shapely.get_coordinates(lines)
        counts = shapely.get_num_coordinates(lines)
        first = np.concatenate([[0], np.cumsum(counts)[:-1]])
        # Of each piece all vertices but the last, which is the first of the next.
        sizes = counts[self.pieces] - 1
        ends = np.cumsum(sizes)
        place = np.arange(ends[-1]) - np.repeat(ends - sizes, sizes)
        begin = np.where(self.forward, first[self.pieces], first[self.pieces] + sizes)
        open_rings = np.repeat(begin, sizes) + np.where(np.repeat(self.forward, sizes), place, -place)
        bounds = np.concatenate([[0], ends])[self.ring_pieces]
        closed_sizes = np.diff(bounds) + 1
        ring_offsets = np.concatenate([[0], np.cumsum(closed_sizes)])
        within = np.arange(ring_offsets[-1]) - np.repeat(ring_offsets[:-1], closed_sizes)
        within %= np.repeat(closed_sizes - 1, closed_sizes)
        source = open_rings[np.repeat(bounds[:-1], closed_sizes) + within]
        result: Geometries = shapely.from_ragged_array(
            shapely.GeometryType.POLYGON, xy[source], (ring_offsets, self.polygon_rings)
        )
        return result

    def of_polygons(self, chosen: Flags) -> Flags:
        """Return True for the arcs that border on a chosen polygon; ``chosen`` has shape (P,)."""
        return np.asarray(np.append(chosen, False)[self.sides].any(axis=1))


def lines_of(xy: FloatArray, offsets: IntArray) -> Geometries:
    """Return linestrings of ragged vertices."""
    indices = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    return np.asarray(shapely.linestrings(xy, indices=indices), object)


def _onward(firsts: IntArray) -> IntArray:
    """The place of the next vertex of each place of open rings."""
    onward = np.arange(1, firsts[-1] + 1)
    onward[firsts[1:] - 1] = firsts[:-1]
    return onward


def _edges(start: npt.NDArray[Any], end: npt.NDArray[Any], count: int) -> IntArray:
    keys: IntArray = np.minimum(start, end).astype(np.int64) * count + np.maximum(start, end)
    return keys


def _nodes(
    places: npt.NDArray[np.complex128],
    vertex: npt.NDArray[Any],
    onward: IntArray,
    frame: tuple[float, float, float, float] | None,
) -> Flags:
    """Return which vertices are nodes."""
    start, end = np.divmod(np.unique(_edges(vertex, vertex[onward], len(places))), len(places))
    degree = np.bincount(start, minlength=len(places)) + np.bincount(end, minlength=len(places))
    nodes: Flags = degree != 2
    if frame is None:
        return nodes
    middle = (places[start] + places[end]) / 2
    along = _is_on_frame(np.column_stack([middle.real, middle.imag]), frame)
    on_frame = np.bincount(start, along, len(places)) + np.bincount(end, along, len(places))
    corner = np.isin(places.real, frame[::2]) & np.isin(places.imag, frame[1::2])
    nodes |= (on_frame == 1) | corner
    return nodes


def _is_on_frame(points: FloatArray, frame: tuple[float, float, float, float]) -> Flags:
    """True for middles of straight pieces between vertices of a raster that lie on its edge."""
    return np.asarray(np.isin(points[:, 0], frame[::2]) | np.isin(points[:, 1], frame[1::2]))


def _arc_vertices(
    points: FloatArray, onward: IntArray, starts: IntArray, given_by: IntArray
) -> tuple[FloatArray, IntArray]:
    """Vertices of arcs, both ends included, from the pieces that give them."""
    sizes = np.diff(np.append(starts, len(points)))[given_by] + 1
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    place = np.repeat(starts[given_by] - offsets[:-1], sizes) + np.arange(offsets[-1])
    place[offsets[1:] - 1] = onward[place[offsets[1:] - 2]]
    return points[place], offsets


def _sides(pieces: IntArray, polygon: IntArray) -> IntArray:
    count = int(pieces.max()) + 1
    sides = np.full((count, 2), NO_POLYGON)
    np.maximum.at(sides[:, 0], pieces, polygon)
    lowest = np.full(count, len(polygon))
    np.minimum.at(lowest, pieces, polygon)
    twice = np.bincount(pieces, minlength=count) == 2
    sides[twice, 1] = lowest[twice]
    return sides
