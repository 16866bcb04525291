"""Neighbours that cannot be straightened as one building: each stretch of outline or common border by itself.

The outlines of a group are cut into arcs, which end where borders meet. Each arc follows walls along the directions of
the buildings on both sides of it; walls that go on behind a junction are one line; a junction is where the walls of its
arcs meet. Polygons are put together from arcs, so that neighbours share them whatever they are. A building that comes
out invalid, overlaps another, or is too far from what it was gets the simplified arcs in place of the straight ones,
and its junctions where they were, until all are sound: in the end that is the simplified coverage.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import shapely

from ctrs.vector.coverage.simplify import simplify_coverage
from ctrs.vector.regularize.border_walls import Line, align, common_point, fit_walls, goes_on
from ctrs.vector.regularize.overlaps import overlapping_pairs
from ctrs.vector.regularize.party_walls import REACH_M, cut_segments

Polygons = npt.NDArray[np.object_]
FloatArray = npt.NDArray[np.float64]

STEP_M = 0.3
"""Junctions further beside a wall are joined to it by a step."""

_ALIGNED_M = 0.2
"""Walls on both sides of a junction that are offset by less are one. Between houses that no common walls fit, offsets
of some decimetres are real: making one wall of two costs more there than noise does."""

_CORNER_M3 = 0.5
"""Price of a corner: less than where a whole building pays for it. Arcs are short, and what they leave out of a house
that stands askew is missing on both sides of a border."""

_SAME_DIRECTION_DEG = 1.5
"""Directions of houses that differ by less are one: walls go on from house to house. Each leans on its neighbours'
already (``shared_directions``); what is left of a difference is mostly real."""

_NOBODY = -1


@dataclass
class _Arc:
    """A stretch of outline between two junctions, or a closed one; owners are rising, nobody first."""

    points: list[int]
    owners: tuple[int, int]
    walls: list[Line]

    @property
    def ends(self) -> tuple[int, int]:
        return self.points[0], self.points[-1]


def straighten_arcs(
    members: Polygons,
    directions: FloatArray,
    *,
    pixel_m: float,
    tolerance_m: float,
    max_area_change: float,
    min_iou: float,
) -> tuple[Polygons, npt.NDArray[np.bool_]]:
    """Give buildings straight walls, arc by arc.

    Args:
        members: Exact outlines, a coverage: neighbours have all vertices of their common border in common; metres.
        directions: Main and second direction of each, degrees; NaN for no second one.
        pixel_m: Length of a pixel's side.
        tolerance_m: Tolerance of simplified arcs.
        max_area_change: Largest relative change of the area of a member.
        min_iou: Least IoU of a member with its outline.

    Returns:
        Valid polygons with disjoint interiors in the order of the members, neighbours sharing the vertices of their
        common arcs; which of them are straight: more of their outline follows walls than not.
    """
    points, arcs = _arcs(members)
    simplified = simplify_coverage(members, tolerance_m)
    kept = np.isin(points @ [1, 1j], shapely.get_coordinates(simplified) @ [1, 1j])
    angles = _angles(members, directions)
    for arc in arcs:
        if arc.ends[0] != arc.ends[1]:
            families = np.unique(np.concatenate([angles[owner] for owner in arc.owners if owner != _NOBODY]))
            arc.walls = fit_walls(points[arc.points], families, pixel_m, corner_m3=_CORNER_M3)
    nodes = _junctions(points, arcs)
    before = shapely.area(members)
    failed = np.zeros(len(members), bool)
    while not failed.all():
        lines, bound = _lines(points, arcs, nodes, kept, failed)
        result = _polygons(members, points, arcs, lines)
        valid = shapely.is_valid(result) & ~shapely.is_empty(result)
        off = ~valid | (np.abs(shapely.area(result) - before) > max_area_change * before)
        common = np.zeros(len(members))
        common[valid] = shapely.area(shapely.intersection(result[valid], members[valid]))
        off |= common < min_iou * (shapely.area(result) + before - common)
        sound = np.flatnonzero(valid)
        off[sound[overlapping_pairs(result[sound])].ravel()] = True
        if not (off & ~failed).any():
            if off.any():
                break
            return result, _share_of_walls(arcs, lines, bound, len(members)) > 0.5
        failed |= off
    return simplified, np.zeros(len(members), bool)


def _arcs(members: Polygons) -> tuple[FloatArray, list[_Arc]]:
    """Cut outlines into arcs; returns the points that they are made of, too."""
    points, ends, owners, shared = cut_segments(members)
    sides = np.column_stack([np.full(len(owners), _NOBODY), owners])
    sides[shared, 0], sides[shared, 1] = owners[shared], owners[shared + 1]
    once = np.ones(len(owners), bool)
    once[shared + 1] = False
    around: dict[int, list[tuple[int, tuple[int, int]]]] = {}
    for (one, other), (left, right) in zip(ends[once].tolist(), sides[once].tolist(), strict=True):
        around.setdefault(one, []).append((other, (left, right)))
        around.setdefault(other, []).append((one, (left, right)))
    junctions = {point for point, near in around.items() if len(near) != 2 or near[0][1] != near[1][1]}
    walked: set[tuple[int, int]] = set()
    arcs: list[_Arc] = []
    # What no junction leads to is a ring.
    for start in [*sorted(junctions), *sorted(around)]:
        for following, pair in around[start]:
            if (start, following) in walked:
                continue
            chain = [start, following]
            while chain[-1] not in junctions and chain[-1] != start:
                (one, _), (other, _) = around[chain[-1]]
                chain.append(other if one == chain[-2] else one)
            walked.update(pairwise(chain))
            walked.update(pairwise(chain[::-1]))
            arcs.append(_Arc(chain, pair, []))
    return points, arcs


def _angles(members: Polygons, directions: FloatArray) -> list[FloatArray]:
    """Return the directions of walls of each building, radians: neighbours that nearly agree have the same."""
    common: list[float] = []
    result = [np.empty(0)] * len(members)
    for member in np.argsort(-shapely.area(members), kind="stable").tolist():
        families: list[float] = []
        for direction in directions[member][np.isfinite(directions[member])].tolist():
            off = np.array([abs((direction - other + 45) % 90 - 45) for other in common])
            if not len(off) or off.min() > _SAME_DIRECTION_DEG:
                common.append(direction % 90)
                off = np.append(off, 0.0)
            near = common[int(off.argmin())]
            families += [near, near + 90]
        result[member] = np.radians(families)
    return result


def _junctions(points: FloatArray, arcs: list[_Arc]) -> dict[int, FloatArray]:
    """Make one line of walls that go on behind a junction, and return where junctions are then."""
    lines = [wall for arc in arcs for wall in arc.walls]
    place = {id(line): number for number, line in enumerate(lines)}
    ending: dict[int, list[Line]] = {}
    for arc in arcs:
        if arc.walls:
            for end, wall in zip(arc.ends, (arc.walls[0], arc.walls[-1]), strict=True):
                ending.setdefault(end, []).append(wall)
    joins = [
        (place[id(wall)], place[id(other)])
        for end, walls in ending.items()
        for number, wall in enumerate(walls)
        for other in walls[:number]
        if other is not wall and goes_on(wall, other, points[end], _ALIGNED_M)
    ]
    align(lines, joins)
    return {end: _meeting_point(walls, points[end]) for end, walls in ending.items()}


def _meeting_point(walls: list[Line], near: FloatArray) -> FloatArray:
    """Return where walls meet: all of them, or the two that do so nearest to where the junction is in the mask."""
    found = [common_point(walls, near)]
    if max(abs(float(wall.away(found[0]))) for wall in walls) > STEP_M:
        meets = [one.meets(other) for number, one in enumerate(walls) for other in walls[:number]]
        found = [point for point in meets if point is not None]
    away = [float(np.hypot(*(point - near))) for point in found]
    return found[int(np.argmin(away))] if away and min(away) < REACH_M else near


def _lines(
    points: FloatArray,
    arcs: list[_Arc],
    nodes: dict[int, FloatArray],
    kept: npt.NDArray[np.bool_],
    failed: npt.NDArray[np.bool_],
) -> tuple[list[FloatArray], list[bool]]:
    """Return the course of each arc, and whether it follows walls: those of failed buildings are simplified."""
    courses: list[FloatArray | None] = []
    for arc in arcs:
        corners = [one.meets(other) for one, other in pairwise(arc.walls)]
        loose = not arc.walls or any(failed[owner] for owner in arc.owners if owner != _NOBODY)
        if loose or any(corner is None for corner in corners):
            courses.append(None)
        else:
            courses.append(np.array(corners, np.float64).reshape(-1, 2))
    fixed = {end for arc, course in zip(arcs, courses, strict=True) if course is None for end in arc.ends}
    lines: list[FloatArray] = []
    for arc, course in zip(arcs, courses, strict=True):
        if course is None:
            inner = [point for point in arc.points[1:-1] if kept[point]]
            lines.append(points[[arc.points[0], *inner, arc.points[-1]]])
        else:
            first, last = (points[end] if end in fixed else nodes[end] for end in arc.ends)
            lines.append(np.vstack([first, _foot(arc.walls[0], first), course, _foot(arc.walls[-1], last), last]))
    return lines, [course is not None for course in courses]


def _foot(wall: Line, end: FloatArray) -> FloatArray:
    """Return the corner of a step from a wall to a junction beside it; none where it nearly is on the wall."""
    away = float(wall.away(end))
    return np.empty((0, 2)) if abs(away) < STEP_M else np.array([end - away * wall.normal])


def _polygons(members: Polygons, points: FloatArray, arcs: list[_Arc], lines: list[FloatArray]) -> Polygons:
    """Put the rings of each member together, arc after arc; an empty polygon where a ring comes to nothing."""
    begins: dict[tuple[int, int], FloatArray] = {}
    for arc, line in zip(arcs, lines, strict=True):
        begins[arc.points[0], arc.points[1]] = line
        begins[arc.points[-1], arc.points[-2]] = line[::-1]
    numbers = points @ [1, 1j]
    result = np.empty(len(members), object)
    for member, shape in enumerate(members):
        rings: list[FloatArray] = []
        for ring in shapely.get_rings(shape):
            steps = pairwise(np.searchsorted(numbers, shapely.get_coordinates(ring) @ [1, 1j]).tolist())
            corners = np.concatenate([begins[step][:-1] for step in steps if step in begins])
            rings.append(corners[(corners != np.roll(corners, 1, axis=0)).any(axis=1)])
        sound = all(len(ring) >= 3 for ring in rings)
        result[member] = shapely.Polygon(rings[0], rings[1:]) if sound else shapely.Polygon()
    return result


def _share_of_walls(
    arcs: list[_Arc], lines: list[FloatArray], bound: list[bool], count: int
) -> npt.NDArray[np.float64]:
    """Return how much of the outline of each building follows walls."""
    whole, straight = np.zeros(count), np.zeros(count)
    for arc, line, follows in zip(arcs, lines, bound, strict=True):
        length = float(np.hypot(*np.diff(line, axis=0).T).sum())
        for owner in arc.owners:
            if owner != _NOBODY:
                whole[owner] += length
                straight[owner] += length if follows else 0.0
    return np.asarray(straight / np.maximum(whole, 1e-9))
