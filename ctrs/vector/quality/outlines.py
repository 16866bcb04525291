"""Outlines of many polygons as arrays: corners, walls, and the short pieces on which outlines are compared."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import shapely

Polygons = npt.NDArray[np.object_]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_AT_A_TIME = 2**18
"""Points turned into geometries together: a shapely point costs some 150 bytes."""


@dataclass(frozen=True, kw_only=True)
class Outlines:
    """All rings of polygons, the closing corner left out.

    Args:
        lines: The boundary of each polygon; shape (P,).
        corners: Corners of all rings, one after the other; shape (N, 2).
        following: The corner after each, around its ring; shape (N,).
        rings: Ring of each corner; shape (N,).
        owners: Polygon of each corner, rising; shape (N,).
        count: Number of polygons, P.
    """

    lines: Polygons
    corners: FloatArray
    following: IntArray
    rings: IntArray
    owners: IntArray
    count: int

    @classmethod
    def of(cls, polygons: Polygons) -> Outlines:
        """Take polygons and multipolygons apart."""
        parts, part_owner = shapely.get_parts(polygons, return_index=True)
        rings, ring_part = shapely.get_rings(parts, return_index=True)
        xy, ring = shapely.get_coordinates(rings, return_index=True)
        last = np.append(ring[1:] != ring[:-1], True)[: len(ring)]
        ring = ring[~last].astype(np.int64)
        following = np.arange(1, len(ring) + 1, dtype=np.int64)
        ends = np.flatnonzero(np.append(ring[1:] != ring[:-1], True)[: len(ring)])
        following[ends] = np.concatenate([[0], ends[:-1] + 1])[: len(ends)]
        return cls(
            lines=shapely.boundary(polygons),
            corners=xy[~last],
            following=following,
            rings=ring,
            owners=part_owner[ring_part[ring]].astype(np.int64),
            count=len(polygons),
        )

    @cached_property
    def corner_counts(self) -> IntArray:
        """Corners of each polygon; shape (P,)."""
        return np.bincount(self.owners, minlength=self.count)

    @cached_property
    def walls(self) -> FloatArray:
        """From each corner to the one after it; shape (N, 2)."""
        return self.corners[self.following] - self.corners

    @cached_property
    def preceding(self) -> IntArray:
        """The corner before each, around its ring; shape (N,)."""
        result = np.empty(len(self.following), np.int64)
        result[self.following] = np.arange(len(self.following))
        return result

    @cached_property
    def wall_lengths(self) -> FloatArray:
        """Length of each wall; shape (N,)."""
        return np.asarray(np.hypot(self.walls[:, 0], self.walls[:, 1]))

    def pieces(self, spacing: float) -> tuple[IntArray, FloatArray, FloatArray]:
        """Cut each wall into equal pieces no longer than ``spacing``.

        Returns:
            Wall of each piece, where on it the piece begins and its length as shares of the wall.
        """
        numbers = np.maximum(1, np.ceil(self.wall_lengths / spacing - 1e-9)).astype(np.int64)
        wall = np.repeat(np.arange(len(numbers)), numbers)
        place = np.arange(len(wall)) - np.repeat(np.cumsum(numbers) - numbers, numbers)
        return wall, place / numbers[wall], 1.0 / numbers[wall]

    def along_rings(self, spacing: float) -> tuple[FloatArray, IntArray, IntArray]:
        """Walk each ring in equal steps of about ``spacing``, at least three, from its first corner.

        Returns:
            Points, shape (S, 2); the point after each around its ring; the polygon of each.
        """
        lengths = np.bincount(self.rings, self.wall_lengths)
        numbers = np.maximum(3, np.rint(lengths / spacing)).astype(np.int64)
        ring = np.repeat(np.arange(len(numbers)), numbers)
        first = np.cumsum(numbers) - numbers
        place = np.arange(len(ring)) - first[ring]
        following = np.where(place + 1 == numbers[ring], first[ring], np.arange(len(ring)) + 1)
        reached = np.cumsum(self.wall_lengths)
        begins = np.cumsum(lengths) - lengths
        where = begins[ring] + place * (lengths / numbers)[ring]
        ring_ends = np.flatnonzero(np.append(np.diff(self.rings) > 0, True)[: len(self.rings)])
        ring_begins = np.concatenate([[0], ring_ends[:-1] + 1])[: len(ring_ends)]
        wall = np.clip(np.searchsorted(reached, where, side="right"), ring_begins[ring], ring_ends[ring])
        share = 1 - (reached[wall] - where) / np.where(self.wall_lengths[wall] > 0, self.wall_lengths[wall], 1.0)
        points = self.corners[wall] + np.clip(share, 0, 1)[:, None] * self.walls[wall]
        return points, following, self.owners[wall]

    def distances(self, points: FloatArray, owners: IntArray) -> FloatArray:
        """Return the distance from each point to the outline of polygon ``owners``."""
        result = np.empty(len(points))
        for start in range(0, len(points), _AT_A_TIME):
            part = slice(start, start + _AT_A_TIME)
            result[part] = shapely.distance(shapely.points(points[part]), self.lines[owners[part]])
        return result

    def nearest(self, points: FloatArray, owners: IntArray) -> tuple[FloatArray, IntArray]:
        """Return the nearest place on the outline of polygon ``owners``, and the wall on which it lies."""
        where = np.empty(len(points))
        for start in range(0, len(points), _AT_A_TIME):
            part = slice(start, start + _AT_A_TIME)
            where[part] = shapely.line_locate_point(self.lines[owners[part]], shapely.points(points[part]))
        reached = np.cumsum(self.wall_lengths)
        last = np.cumsum(self.corner_counts) - 1
        first = last - self.corner_counts + 1
        before = np.concatenate([[0.0], reached])[first]
        found = np.searchsorted(reached, before[owners] + where, side="right")
        # Where one ring ends the next begins: rounding may name the wall before or after, which may lie elsewhere.
        walls = [np.clip(found + step, first[owners], last[owners]) for step in (0, -1, 1)]
        places = [self._projected(points, wall) for wall in walls]
        away = np.stack([np.hypot(*(place - points).T) for place in places])
        chosen = np.argmin(np.round(away, 9), axis=0)
        return np.choose(chosen[:, None], places), np.choose(chosen, walls)

    def _projected(self, points: FloatArray, wall: IntArray) -> FloatArray:
        start, along = self.corners[wall], self.walls[wall]
        share = ((points - start) * along).sum(axis=1) / np.maximum((along**2).sum(axis=1), 1e-30)
        return np.asarray(start + np.clip(share, 0, 1)[:, None] * along, np.float64)
