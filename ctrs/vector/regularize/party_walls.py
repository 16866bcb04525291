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
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from scipy.ndimage import gaussian_filter1d

from ctrs.vector.regions.runs import join

Polygons = npt.NDArray[np.object_]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

ALIGNED_M = 0.7
"""Parallel walls on both sides of a junction that are offset by less are one."""

REACH_M = 2.0
"""Walls of the outline this near to the end of a border may go on in it."""

SNAP_M = 0.3
"""Borders that meet the outline so near to a corner end there."""

_SMOOTHING_M = 0.3
_OFFSET_STEP_M = 0.1
_CORNER_M3, _ODD_ANGLE_M3, _TRUNCATION_M = 1.75, 2.0, 1.0
_SAME_DIRECTION = np.radians(3.0)
_PARALLEL = 0.02
_MIN_TURN_SIN = 0.2
_MAX_DIRECTIONS = 4
_HUBER_M, _HUBER_ROUNDS = 0.15, 5
_CORNER_FREE_M, _CORNER_FREE_SHARE = 1.0, 0.3


@dataclass
class Line:
    """A wall: direction in radians, offset along its left normal, how many metres of it have been seen, and where."""

    angle: float
    offset: float
    length: float
    middle: FloatArray

    @property
    def along(self) -> FloatArray:
        """Unit vector of the direction."""
        return np.array([np.cos(self.angle), np.sin(self.angle)])

    @property
    def normal(self) -> FloatArray:
        """Unit vector to the left."""
        return np.array([-np.sin(self.angle), np.cos(self.angle)])

    @property
    def on_it(self) -> FloatArray:
        """The point of the line nearest to the middle of what has been seen."""
        return np.asarray(self.middle - self.away(self.middle) * self.normal)

    def away(self, points: FloatArray) -> Any:
        """Return the signed distance of points."""
        return points @ self.normal - self.offset

    def meets(self, other: Line) -> FloatArray | None:
        """Return where it meets another, None where the two are nearly parallel."""
        if abs(np.sin(self.angle - other.angle)) < _MIN_TURN_SIN:
            return None
        return np.linalg.solve(np.stack([self.normal, other.normal]), np.array([self.offset, other.offset]))


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


def fit_walls(points: FloatArray, directions: FloatArray, pixel_m: float) -> list[Line]:
    """Choose and fit the walls of a border."""
    samples, step = _samples(points, pixel_m)
    middle = samples.mean(axis=0)
    samples = samples - middle
    angles, prices = directions, np.zeros(len(directions))
    own = _own_direction(samples)
    if np.abs(np.sin(angles - own)).min() > np.sin(_SAME_DIRECTION):
        angles, prices = np.append(angles, own), np.append(prices, _ODD_ANGLE_M3)
    chosen, begins = _choose(samples, step, angles, prices)
    walls: list[Line] = []
    for (angle, offset), first, last in zip(chosen, begins, [*begins[1:], len(samples)], strict=True):
        line = Line(angle, offset, (last - first) * step, samples[first:last].mean(axis=0) + middle)
        free = int(min(_CORNER_FREE_M / step, _CORNER_FREE_SHARE * (last - first)))
        away = line.away(samples[first + free : last - free])
        shift = float(np.median(away))
        for _ in range(_HUBER_ROUNDS):
            weights = np.minimum(1.0, _HUBER_M / np.maximum(np.abs(away - shift), 1e-9))
            shift = float((weights * away).sum() / weights.sum())
        line.offset += shift + float(middle @ line.normal)
        walls.append(line)
    return walls


def _samples(points: FloatArray, pixel_m: float) -> tuple[FloatArray, float]:
    """Return points along a border, a pixel apart at most, the staircase smoothed away, and their mean distance."""
    sides = np.diff(points, axis=0)
    pieces = np.maximum(1, np.ceil(np.hypot(*sides.T) / pixel_m - 1e-6).astype(np.int64))
    side = np.repeat(np.arange(len(sides)), pieces)
    within = np.arange(len(side)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    middles = points[side] + ((within + 0.5) / pieces[side])[:, None] * sides[side]
    step = float(np.hypot(*sides.T).sum()) / len(middles)
    smooth = gaussian_filter1d(middles, _SMOOTHING_M / step, axis=0, mode="nearest")
    if len(smooth) > 1:
        step = max(float(np.hypot(*np.diff(smooth, axis=0).T).mean()), 1e-6)
    return smooth, step


def _own_direction(samples: FloatArray) -> float:
    scatter = samples.T @ samples
    return 0.5 * float(np.arctan2(2 * scatter[0, 1], scatter[0, 0] - scatter[1, 1]))


def _choose(
    samples: FloatArray, step: float, angles: FloatArray, prices: FloatArray
) -> tuple[list[tuple[float, float]], list[int]]:
    """Choose the cheapest walls along an open chain; returns (angle, offset) of each, and its first sample."""
    normals = np.column_stack([-np.sin(angles), np.cos(angles)])
    across = samples @ normals.T
    offsets: list[FloatArray] = []
    for family in range(len(angles)):
        low, high = across[:, family].min(), across[:, family].max()
        offsets.append(np.linspace(low, high, int((high - low) / _OFFSET_STEP_M) + 2))
    families = np.repeat(np.arange(len(angles)), [len(values) for values in offsets])
    offset = np.concatenate(offsets)
    begins = np.concatenate([[0], np.cumsum([len(values) for values in offsets])[:-1]])
    misfit = np.minimum((across[:, families] - offset) ** 2, _TRUNCATION_M**2) * step
    turns = np.abs(np.sin(angles[:, None] - angles[None, :])) > _MIN_TURN_SIN
    cost = misfit[0] + prices[families]
    came = np.full((len(samples), len(offset)), -1, np.int64)
    for sample in range(1, len(samples)):
        best = np.minimum.reduceat(cost, begins)
        entry = np.where(turns, best[:, None], np.inf)
        source = entry.argmin(axis=0)
        switched = (entry[source, np.arange(len(angles))] + _CORNER_M3 + prices)[families]
        changes = switched < cost
        if changes.any():
            lines = np.array([begins[family] + int(cost[families == family].argmin()) for family in range(len(angles))])
            came[sample, changes] = lines[source[families[changes]]]
        cost = np.where(changes, switched, cost) + misfit[sample]
    line = int(cost.argmin())
    walls, firsts = [line], []
    for sample in range(len(samples) - 1, 0, -1):
        if came[sample, line] >= 0:
            firsts.append(sample)
            line = int(came[sample, line])
            walls.append(line)
    chosen = [(float(angles[families[line]]), float(offset[line])) for line in reversed(walls)]
    return chosen, [0, *reversed(firsts)]


class _Outline:
    """The straight outline as lines that can be moved; corners are where consecutive ones meet."""

    def __init__(self, rings: list[FloatArray]) -> None:
        self.rings = rings
        self.walls = [
            [_through(start, end) for start, end in zip(ring, np.roll(ring, -1, axis=0), strict=True)] for ring in rings
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
            near = np.abs(np.sin(angles[:, None] - angles[None, :])) < np.sin(_SAME_DIRECTION)
            support = near @ left
            best = int(np.argmax(support))
            if support[best] <= 0:
                break
            members = near[best] & (left > 0)
            longest = int(np.flatnonzero(members)[np.argmax(left[members])])
            found.append(float(angles[longest]))
            left[members] = 0
        if np.abs(np.cos(np.array(found) - found[0])).min() > np.sin(_SAME_DIRECTION):
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


def _through(start: FloatArray, end: FloatArray) -> Line:
    angle = float(np.arctan2(*(end - start)[::-1]))
    line = Line(angle, 0.0, float(np.hypot(*(end - start))), (start + end) / 2)
    line.offset = float(start @ line.normal)
    return line


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


def align(lines: list[Line], joins: list[tuple[int, int]]) -> None:
    """Make one line of lines that are joined, directly or by others.

    Args:
        lines: Lines, moved in place.
        joins: Pairs of places in ``lines``: nearly parallel ones.
    """
    if not joins:
        return
    first, second = np.array(joins).T
    groups = join(len(lines), first, second)
    for group in np.unique(groups[first]).tolist():
        members = [lines[place] for place in np.flatnonzero(groups == group)]
        longest = max(members, key=lambda line: line.length)
        total = sum(line.length for line in members)
        # Turned about its middle: about the origin a line far from it would leave its place.
        offset = sum(line.length * float(line.on_it @ longest.normal) for line in members) / total
        for line in members:
            sign = 1.0 if np.cos(line.angle - longest.angle) > 0 else -1.0
            line.angle = longest.angle if sign > 0 else longest.angle + np.pi
            line.offset = sign * offset


def goes_on(wall: Line, other: Line, point: FloatArray) -> bool:
    """Tell whether two walls that end near a point are one."""
    if abs(np.sin(wall.angle - other.angle)) > _PARALLEL:
        return False
    sense = 1.0 if np.cos(wall.angle - other.angle) > 0 else -1.0
    return abs(float(wall.away(point)) - sense * float(other.away(point))) < ALIGNED_M


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


def common_point(walls: list[Line], near: FloatArray) -> FloatArray:
    """Return the point nearest to all lines, and by a little to a point."""
    normals = np.array([wall.normal for wall in walls])
    offsets = np.array([wall.away(near) for wall in walls])
    system = normals.T @ normals + 1e-6 * np.eye(2)
    return np.asarray(near - np.linalg.solve(system, normals.T @ offsets))


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
