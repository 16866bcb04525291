"""Party walls: buildings that touch are divided by straight walls that both neighbours share vertex for vertex.

The neighbours have been straightened as one building: its outline is given. What remains are their common borders,
chains of pixel edges between junctions:

1. Each border follows walls along the directions of the outline (or one of its own, where that pays), chosen by least
   cost as the outline's walls are, each then fitted robustly.
2. Walls that go on behind a junction are one wall: the step between two row houses and the party wall behind it share
   one line, as do two party walls that a third one meets. The outline's corners move with it.
3. A border ends where it meets the outline, or where all borders of its junction meet.

Outline and borders then are one plane graph, whose faces are the buildings. If they are not, one to one and each nearly
as large as it was, nothing is returned.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import shapely

from ctrs.vector.regions.runs import join
from ctrs.vector.regularize.border_walls import (
    SAME_DIRECTION,
    Line,
    align,
    common_point,
    fit_walls,
    goes_on,
    line_through,
)

Polygons = npt.NDArray[np.object_]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

REACH_M = 2.0
"""Walls of the outline this near to the end of a border may go on in it."""

SNAP_M = 0.3
"""Borders that meet the outline so near to a corner end there."""

_MAX_DIRECTIONS = 4


@dataclass
class _Border:
    """The common border of two buildings: points between two junctions, and its walls."""

    points: FloatArray
    ends: tuple[int, int]
    walls: list[Line] = field(default_factory=list)


def touching_groups(polygons: Polygons) -> IntArray:
    """Return which polygons hang together by common borders, numbered from 0 in the order of first members.

    Args:
        polygons: A coverage: neighbours have all vertices of their common border in common.
    """
    _, _, owners, shared = cut_segments(polygons)
    first, second = owners[shared], owners[shared + 1]
    return np.asarray(join(len(polygons), first, second), np.int64)


def divide(whole: shapely.Polygon, members: Polygons, *, pixel_m: float, max_area_change: float) -> Polygons | None:
    """Divide a straight building among its members.

    Args:
        whole: Straight outline of their union.
        members: Exact outlines, a coverage that hangs together by common borders; metres.
        pixel_m: Length of a pixel's side.
        max_area_change: Largest relative change of the area of a member.

    Returns:
        Straight polygons in the order of the members that tile ``whole``, up to walls that were aligned; neighbours
        share the vertices of their party wall. None where there is no such division.
    """
    junctions, at_outline, borders = _borders(members)
    if any(border.ends[0] < 0 for border in borders):
        return None  # a building within a building
    outline = _Outline.of(whole)
    directions = outline.directions()
    for border in borders:
        border.walls = fit_walls(border.points, directions, pixel_m)
    _align(borders, junctions, at_outline, outline)
    if not outline.rebuild():
        return None
    ends = _end_points(borders, junctions, at_outline, outline)
    if ends is None:
        return None
    lines = [*outline.sides()]
    for border in borders:
        corners = [one.meets(other) for one, other in pairwise(border.walls)]
        if any(corner is None for corner in corners):
            return None
        lines.append(np.array([ends[border.ends[0]], *corners, ends[border.ends[1]]]))
    return _faces([line for line in lines if np.ptp(line, axis=0).max() > 0], members, max_area_change)


def cut_segments(polygons: Polygons) -> tuple[FloatArray, IntArray, IntArray, IntArray]:
    """Cut outlines into segments.

    Returns:
        Points; both ends of each segment, sorted so that equal ones are neighbours; polygon of each; places of those
        that equal the one after them.
    """
    rings, ring_owner = shapely.get_rings(polygons, return_index=True)
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    points, ids = np.unique(xy[:, 0] + 1j * xy[:, 1], return_inverse=True)
    inner = np.flatnonzero(ring[1:] == ring[:-1])
    ends = np.sort(np.column_stack([ids[inner], ids[inner + 1]]), axis=1)
    owners = ring_owner[ring[inner]]
    order = np.lexsort((owners, ends[:, 1], ends[:, 0]))
    ends, owners = ends[order], owners[order].astype(np.int64)
    shared = np.flatnonzero((ends[1:] == ends[:-1]).all(axis=1))
    return np.column_stack([points.real, points.imag]), ends, owners, shared


def _borders(members: Polygons) -> tuple[FloatArray, npt.NDArray[np.bool_], list[_Border]]:
    """Return the points, which of them lie on the outline, and the common borders between junctions."""
    points, ends, owners, shared = cut_segments(members)
    count = len(members)
    alone = np.ones(len(ends), bool)
    alone[shared] = alone[shared + 1] = False
    at_outline = np.zeros(len(points), bool)
    at_outline[ends[alone]] = True
    pairs = owners[shared] * count + owners[shared + 1]
    neighbors: dict[int, list[tuple[int, int]]] = {}
    for (one, other), pair in zip(ends[shared].tolist(), pairs.tolist(), strict=True):
        neighbors.setdefault(one, []).append((other, pair))
        neighbors.setdefault(other, []).append((one, pair))

    def is_junction(point: int) -> bool:
        around = neighbors[point]
        return bool(at_outline[point]) or len(around) != 2 or around[0][1] != around[1][1]

    borders: list[_Border] = []
    walked: set[tuple[int, int]] = set()
    junctions = sorted(point for point in neighbors if is_junction(point))
    # What no junction leads to is a ring.
    for closed, starts in ((False, junctions), (True, sorted(neighbors))):
        for start in starts:
            for following, _ in neighbors[start]:
                if (start, following) in walked:
                    continue
                chain = [start, following]
                while not is_junction(chain[-1]) and chain[-1] != start:
                    around = [other for other, _ in neighbors[chain[-1]]]
                    chain.append(around[1] if around[0] == chain[-2] else around[0])
                walked.update(pairwise(chain))
                walked.update(pairwise(chain[::-1]))
                borders.append(_Border(points[chain], (-1, -1) if closed else (chain[0], chain[-1])))
    return points, at_outline, borders


class _Outline:
    """The straight outline as lines that can be moved; corners are where consecutive ones meet."""

    def __init__(self, rings: list[FloatArray]) -> None:
        self.rings = rings
        self.walls = [
            [line_through(start, end) for start, end in zip(ring, np.roll(ring, -1, axis=0), strict=True)]
            for ring in rings
        ]
        self._extra: dict[tuple[int, int], list[FloatArray]] = {}

    @classmethod
    def of(cls, polygon: shapely.Polygon) -> _Outline:
        return cls([shapely.get_coordinates(ring)[:-1] for ring in shapely.get_rings(polygon)])

    def places(self) -> Iterator[tuple[int, int]]:
        """Yield ring and number of each side."""
        for ring, walls in enumerate(self.walls):
            for side in range(len(walls)):
                yield ring, side

    def ends_of(self, ring: int, side: int) -> tuple[FloatArray, FloatArray]:
        """Return both corners of a side."""
        corners = self.rings[ring]
        return corners[side], corners[(side + 1) % len(corners)]

    def directions(self) -> FloatArray:
        """Return the directions of most of the outline, and across the foremost; radians."""
        walls = [wall for ring in self.walls for wall in ring]
        angles = np.array([wall.angle for wall in walls])
        left = np.array([wall.length for wall in walls])
        found: list[float] = []
        for _ in range(_MAX_DIRECTIONS):
            near = np.abs(np.sin(angles[:, None] - angles[None, :])) < np.sin(SAME_DIRECTION)
            support = near @ left
            best = int(np.argmax(support))
            if support[best] <= 0:
                break
            members = near[best] & (left > 0)
            longest = int(np.flatnonzero(members)[np.argmax(left[members])])
            found.append(float(angles[longest]))
            left[members] = 0
        if np.abs(np.cos(np.array(found) - found[0])).min() > np.sin(SAME_DIRECTION):
            found.append(found[0] + np.pi / 2)
        return np.array(found)

    def rebuild(self) -> bool:
        """Let corners follow walls that were moved; tell whether the outline is still sound."""
        for ring, walls in enumerate(self.walls):
            corners = self.rings[ring].copy()
            for side, wall in enumerate(walls):
                corner = walls[side - 1].meets(wall)
                moved = abs(wall.away(corners[side])) + abs(walls[side - 1].away(corners[side]))
                if moved < 1e-9:
                    continue
                if corner is None:
                    return False
                corners[side] = corner
            self.rings[ring] = corners
        return bool(shapely.is_valid(shapely.Polygon(self.rings[0], self.rings[1:])))

    def end_on(self, wall: Line, near: FloatArray) -> FloatArray | None:
        """Return where a wall that ends near a point meets the outline, and make it a corner there."""
        best: tuple[float, tuple[int, int], FloatArray] | None = None
        for ring, side in self.places():
            start, end = self.ends_of(ring, side)
            one, other = float(wall.away(start)), float(wall.away(end))
            if one * other > 0 or abs(one - other) < 1e-9:
                continue
            point = start + one / (one - other) * (end - start)
            away = float(np.hypot(*(point - near)))
            if best is None or away < best[0]:
                best = (away, (ring, side), point)
        # A wall that runs along a side misses its ends by rounding, or by what alignment left.
        corners = np.concatenate(self.rings)
        distance = np.hypot(*(corners - near).T)
        distance[np.abs(wall.away(corners)) > SNAP_M] = np.inf
        nearest = int(distance.argmin())
        if min(float(distance[nearest]), np.inf if best is None else best[0]) > 2 * REACH_M:
            return None
        if best is None or distance[nearest] < best[0]:
            return np.asarray(corners[nearest])
        snapped = np.hypot(*(corners - best[2]).T)
        if snapped.min() < SNAP_M:
            return np.asarray(corners[snapped.argmin()])
        self._extra.setdefault(best[1], []).append(best[2])
        return best[2]

    def sides(self) -> Iterator[FloatArray]:
        """Yield the sides, cut where walls end on them."""
        for ring, side in self.places():
            start, end = self.ends_of(ring, side)
            extra = sorted(self._extra.get((ring, side), []), key=lambda point: float((point - start) @ (end - start)))
            points = [start, *extra, end]
            for one, other in pairwise(points):
                yield np.array([one, other])


def _align(borders: list[_Border], junctions: FloatArray, at_outline: npt.NDArray[np.bool_], outline: _Outline) -> None:
    """Give walls that go on behind a junction one line."""
    lines: list[Line] = [wall for border in borders for wall in border.walls]
    number = {id(line): place for place, line in enumerate(lines)}
    ending: dict[int, list[Line]] = {}
    for border in borders:
        for end, wall in zip(border.ends, (border.walls[0], border.walls[-1]), strict=True):
            ending.setdefault(end, []).append(wall)
    joins: list[tuple[int, int]] = []
    for end, walls in ending.items():
        point = junctions[end]
        others = list(walls)
        if at_outline[end]:
            for ring, side in outline.places():
                if _distance(point, *outline.ends_of(ring, side)) < REACH_M:
                    others.append(outline.walls[ring][side])
        for wall in walls:
            for other in others:
                if other is not wall and goes_on(wall, other, point):
                    if id(other) not in number:
                        number[id(other)] = len(lines)
                        lines.append(other)
                    joins.append((number[id(wall)], number[id(other)]))
    align(lines, joins)


def _distance(point: FloatArray, start: FloatArray, end: FloatArray) -> float:
    side = end - start
    share = min(1.0, max(0.0, float((point - start) @ side) / max(float(side @ side), 1e-12)))
    return float(np.hypot(*(point - start - share * side)))


def _end_points(
    borders: list[_Border], junctions: FloatArray, at_outline: npt.NDArray[np.bool_], outline: _Outline
) -> dict[int, FloatArray] | None:
    """Return where the borders of each junction end."""
    ending: dict[int, list[Line]] = {}
    for border in borders:
        for end, wall in zip(border.ends, (border.walls[0], border.walls[-1]), strict=True):
            ending.setdefault(end, []).append(wall)
    result: dict[int, FloatArray] = {}
    for end, walls in ending.items():
        if at_outline[end]:
            longest = max(walls, key=lambda line: line.length)
            point = outline.end_on(longest, junctions[end])
            if point is None:
                return None
        else:
            point = common_point(walls, junctions[end])
            if np.hypot(*(point - junctions[end])) > 2 * REACH_M:
                return None
        result[end] = point
    return result


def _faces(lines: list[FloatArray], members: Polygons, max_area_change: float) -> Polygons | None:
    """Return the faces of a plane graph in the order of the members they stand for, or None."""
    faces = shapely.get_parts(shapely.polygonize([shapely.LineString(line) for line in lines]))
    # Courts are faces too: what no member covers.
    count = len(members)
    common = np.array([shapely.area(shapely.intersection(face, members)) for face in faces]).reshape(-1, count)
    owner = common.argmax(axis=1) if len(faces) else np.empty(0, np.int64)
    built = common.sum(axis=1) > 0.5 * shapely.area(faces)
    faces, owner = faces[built], owner[built]
    if len(faces) != count or len(np.unique(owner)) != count:
        return None
    result = np.empty(count, object)
    result[owner] = faces
    before = shapely.area(members)
    if (np.abs(shapely.area(result) - before) > max_area_change * before).any():
        return None
    if not shapely.is_valid(result).all() or not shapely.coverage_is_valid(result):
        return None
    return result
