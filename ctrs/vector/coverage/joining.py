"""Straight buildings among other classes: what their walls give up goes to the neighbours, what they take is cut off.

All is drawn from one set of lines: the walls, the borders between other polygons, and where such a border once ended at
a building that has drawn back, a short line on to the new wall. Noded once on a fine grid, these lines bound faces that
neither overlap nor gape and have all vertices of common borders in common; each face then finds its owner.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely

from ctrs.vector.coverage.arcs import NO_POLYGON, Arcs, Flags, FloatArray, Geometries, IntArray
from ctrs.vector.regions.runs import join

_GRID_PX = 2.0**-10
"""Grid of the nodes in pixels: far below what can be seen, and pixel corners lie on it exactly."""

_NOBODY = -1

_STRIP = 0.25
"""Share of its outline that a strip along the edge of the coverage has there."""

_CUT = 0.5
"""What is left of a polygon is a crumb only where walls took more than this share of it."""


@dataclass(frozen=True, kw_only=True)
class JoinedCoverage:
    """Buildings and other polygons without gaps and overlaps.

    Args:
        polygons: A valid coverage; shape (N,).
        sources: Which of the given polygons each comes from, rising; shape (N,).
        walls: Which of the straight buildings each is, -1 for other polygons; shape (N,).
    """

    polygons: Geometries
    sources: IntArray
    walls: IntArray


def join_coverage(
    polygons: Geometries,
    is_building: Flags,
    straight: Geometries,
    straight_sources: IntArray,
    *,
    pixel_m: tuple[float, float],
    frame_px: tuple[int, int],
    min_area_m2: float = 0.0,
    whole: bool = False,
) -> JoinedCoverage:
    """Put straight buildings in the places of their outlines, and fit all other polygons to them.

    What a building gives up goes to the polygon whose part of the surroundings it borders on, or to none where none
    lay there. What borders on no other polygon stays with the building. Buildings end at the raster's edge. Crumbs that
    walls cut off from other polygons go to another of those with the longest common border; those that have none beside
    them go to the building, or to nothing, with the longest.

    Args:
        polygons: A coverage in ground metres along the pixel axes, buildings among it; shape (P,).
        is_building: Which of them are buildings; shape (P,).
        straight: Valid polygons with disjoint interiors that replace them; shape (K,).
        straight_sources: Which polygon each replaces; shape (K,).
        pixel_m: Width and height of a pixel.
        frame_px: Width and height of the raster in pixels.
        min_area_m2: What walls cut off from other polygons is a crumb if it is smaller than this.
        whole: What the polygons leave free (nodata) is to stay free, and nothing else: buildings end there as they do
            at the raster's edge, and all that they give up finds an owner.
    """
    if not is_building.any():
        sources = np.arange(len(polygons))
        return JoinedCoverage(polygons=polygons, sources=sources, walls=np.full(len(polygons), _NOBODY))
    frame = (0.0, 0.0, float(frame_px[0]), float(frame_px[1]))
    before = _scaled(polygons, (1 / pixel_m[0], 1 / pixel_m[1]))
    before = _on_pixels(before)
    walls = _within(_scaled(straight, (1 / pixel_m[0], 1 / pixel_m[1])), frame)
    lines = _linework(before, is_building, walls, frame, whole)
    noded = shapely.union_all(lines, grid_size=_GRID_PX)
    faces: Geometries = shapely.get_parts(shapely.polygonize(shapely.get_parts(noded)))
    owner = _owners(faces, before, is_building, walls, frame, min_area_m2 / (pixel_m[0] * pixel_m[1]), whole)
    joined, owner = _dissolved(faces[owner != _NOBODY], owner[owner != _NOBODY])
    num = len(polygons)
    is_wall = owner >= num
    wall = np.where(is_wall, owner - num, _NOBODY)
    sources = owner.copy()
    sources[is_wall] = straight_sources[wall[is_wall]]
    order = np.lexsort((np.arange(len(owner)), wall, sources))
    return JoinedCoverage(polygons=_scaled(joined[order], pixel_m), sources=sources[order], walls=wall[order])


def _scaled(polygons: Geometries, factor: tuple[float, float]) -> Geometries:
    scaled: Geometries = shapely.transform(polygons, lambda xy: xy * np.array(factor))
    return scaled


def _on_pixels(polygons: Geometries) -> Geometries:
    """Pixel corners are whole numbers again after scaling there and back."""

    def rounded(xy: FloatArray) -> FloatArray:
        whole = np.round(xy)
        return np.asarray(np.where(np.abs(xy - whole) < _GRID_PX / 4, whole, xy))

    result: Geometries = shapely.transform(polygons, rounded)
    return result


def _within(walls: Geometries, frame: tuple[float, float, float, float]) -> Geometries:
    bounds = shapely.bounds(walls)
    out = (bounds[:, :2] < frame[:2]).any(axis=1) | (bounds[:, 2:] > frame[2:]).any(axis=1)
    cut = walls.copy()
    cut[out] = shapely.intersection(walls[out], shapely.box(*frame))
    return cut


def _linework(
    polygons: Geometries, is_building: Flags, walls: Geometries, frame: tuple[float, float, float, float], whole: bool
) -> Geometries:
    arcs = Arcs.of(polygons, frame)
    lines = arcs.lines()
    kept = ~arcs.of_polygons(is_building) | arcs.on_frame
    if whole:
        kept |= (arcs.sides == NO_POLYGON).any(axis=1)
    ends = np.concatenate([arcs.offsets[:-1], arcs.offsets[1:] - 1])
    points = arcs.xy[ends] @ np.array([1, 1j])
    kept_end = np.tile(kept, 2)
    # Nodes where a border that stays ends at one that goes.
    loose = np.intersect1d(points[kept_end], points[~kept_end])
    places: Geometries = np.asarray(shapely.points(loose.real, loose.imag), object)
    places = places[~_is_covered(places, walls)]
    links = np.empty(0, object)
    if len(places) and len(walls):
        nearest = shapely.STRtree(walls).query_nearest(places, all_matches=False)
        links = shapely.shortest_line(places[nearest[0]], walls[nearest[1]])
    return np.concatenate([lines[kept], shapely.boundary(walls), links])


def _is_covered(points: Geometries, polygons: Geometries) -> Flags:
    covered = np.zeros(len(points), bool)
    covered[shapely.STRtree(polygons).query(points, predicate="covered_by")[0]] = True
    return covered


def _owners(
    faces: Geometries,
    polygons: Geometries,
    is_building: Flags,
    walls: Geometries,
    frame: tuple[float, float, float, float],
    min_area_px: float,
    whole: bool,
) -> IntArray:
    """Return the owner of each face: a polygon's number, that of a building's walls (P + k), or nobody."""
    num = len(polygons)
    owner = np.full(len(faces), _NOBODY)
    points = shapely.point_on_surface(faces)
    others = np.flatnonzero(~is_building)
    for shapes, numbers in ((polygons[others], others), (walls, num + np.arange(len(walls)))):
        point, shape = shapely.STRtree(shapes).query(points, predicate="within")
        owner[point] = numbers[shape]
    free = np.zeros(len(faces), bool)
    if whole:
        free = ~_is_covered(points, polygons) & (shapely.area(faces) > _noise(faces))
        owner[free] = _NOBODY
    unclear = np.flatnonzero((owner == _NOBODY) & ~free)
    best, is_ceded = _overlaps(faces[unclear], polygons, is_building)
    owner[unclear] = best
    ceded = np.zeros(len(faces), bool)
    ceded[unclear] = is_ceded | (whole & (best == _NOBODY))
    if len(faces):
        borders = _Borders.of(faces, frame, free)
        owner = _ceded_passed_on(owner, ceded, borders, num)
        if whole:
            # With nothing beside it, it stays what it was.
            left = np.flatnonzero(ceded & (owner == _NOBODY))
            face, polygon = shapely.STRtree(polygons).query(points[left], predicate="within")
            owner[left[face]] = polygon
        areas = np.append(shapely.area(polygons), np.inf)
        owner = _crumbs_passed_on(shapely.area(faces), owner, borders, areas, min_area_px, whole)
    return owner


def _noise(faces: Geometries) -> FloatArray:
    """Areas that say nothing: nodes lie on a grid, a strip of its width along an outline comes from rounding."""
    return np.asarray(2 * _GRID_PX * shapely.length(faces))


def _overlaps(faces: Geometries, polygons: Geometries, is_building: Flags) -> tuple[IntArray, Flags]:
    """The other polygon that each face overlaps most, or nobody; and whether all of a face was a building's."""
    face, polygon = shapely.STRtree(polygons).query(faces, predicate="intersects")
    area = shapely.area(shapely.intersection(faces[face], polygons[polygon]))
    noise = _noise(faces)
    empty = shapely.area(faces) - np.bincount(face, area, len(faces))
    other = ~is_building[polygon] & (area > noise[face])
    face, polygon, area = face[other], polygon[other], area[other]
    order = np.lexsort((polygon, area, face))
    best = np.full(len(faces), _NOBODY)
    most = np.zeros(len(faces))
    best[face[order]] = polygon[order]
    most[face[order]] = area[order]
    best[empty > np.maximum(most, noise)] = _NOBODY
    return best, (most == 0) & (empty <= noise)


@dataclass(frozen=True)
class _Borders:
    """Which faces border on which.

    Args:
        faces: The two faces of each common border, ``NO_POLYGON`` for what is outside all; shape (B, 2).
        lengths: Of each; shape (B,).
        strips: True for faces that lie along the edge of the coverage; shape (F,).
    """

    faces: IntArray
    lengths: FloatArray
    strips: Flags

    @classmethod
    def of(cls, faces: Geometries, frame: tuple[float, float, float, float], free: Flags) -> _Borders:
        arcs = Arcs.of(faces, frame)
        lengths = np.asarray(shapely.length(arcs.lines()))
        at_edge = arcs.on_frame | arcs.of_polygons(free)
        both = np.repeat(at_edge, 2) & (arcs.sides.reshape(-1) != NO_POLYGON)
        along = np.bincount(arcs.sides.reshape(-1)[both], np.repeat(lengths, 2)[both], len(faces))
        inner = ~arcs.on_frame
        return cls(arcs.sides[inner], lengths[inner], along > _STRIP * shapely.length(faces))

    def both_ways(self) -> tuple[IntArray, IntArray, FloatArray]:
        face = np.concatenate([self.faces[:, 0], self.faces[:, 1]])
        other = np.concatenate([self.faces[:, 1], self.faces[:, 0]])
        lengths = np.concatenate([self.lengths, self.lengths])
        inside = face != NO_POLYGON
        return face[inside], other[inside], lengths[inside]


def _ceded_passed_on(owner: IntArray, ceded: Flags, borders: _Borders, num: int) -> IntArray:
    """Give what was a building's alone to the neighbour with the longest common border, others first."""
    result, waiting = owner.copy(), ceded.copy()
    face, neighbor, lengths = borders.both_ways()
    between = neighbor != NO_POLYGON
    face, neighbor, lengths = face[between], neighbor[between], lengths[between]
    while waiting.any():
        good = waiting[face] & ~waiting[neighbor] & (result[neighbor] != _NOBODY)
        if not good.any():
            break
        pairs, weight = _sums(face[good], result[neighbor[good]], lengths[good])
        # A strip along the edge lies before a building that the edge cuts.
        to_other = (pairs[:, 1] < num) & ~borders.strips[pairs[:, 0]]
        order = np.lexsort((-pairs[:, 1], weight, to_other, pairs[:, 0]))
        result[pairs[order, 0]] = pairs[order, 1]
        waiting[pairs[:, 0]] = False
    return result


def _crumbs_passed_on(
    areas: FloatArray, owner: IntArray, borders: _Borders, areas_before: FloatArray, min_area: float, whole: bool
) -> IntArray:
    """Give crumbs of other polygons to the neighbour with the longest common border, others first."""
    num = len(areas_before) - 1
    face, neighbor, lengths = borders.both_ways()
    between = neighbor != NO_POLYGON
    same = between & (owner[face] == owner[neighbor])
    part = join(len(owner), face[same], neighbor[same]).astype(np.int64)
    first = np.unique(part, return_index=True)[1]
    area, part_owner = np.bincount(part, areas), owner[first]
    is_other = (part_owner != _NOBODY) & (part_owner < num)
    polygon = np.where(is_other, part_owner, num)
    largest = np.zeros(num + 1)
    np.maximum.at(largest, polygon, area)
    limit = np.where(area == largest[polygon], _CUT * areas_before[polygon], np.inf)
    waiting = is_other & (area < np.minimum(min_area, limit))
    # Outside is a part of its own, that of nobody.
    waiting, part_owner = np.append(waiting, False), np.append(part_owner, _NOBODY)
    part = np.append(part, len(part_owner) - 1)
    face, neighbor = part[face], part[neighbor]
    while waiting.any():
        good = waiting[face] & ~waiting[neighbor]
        if whole:
            good &= part_owner[neighbor] != _NOBODY
        if not good.any():
            break
        pairs, weight = _sums(face[good], part_owner[neighbor[good]], lengths[good])
        to_other = (pairs[:, 1] != _NOBODY) & (pairs[:, 1] < num)
        order = np.lexsort((-pairs[:, 1], weight, to_other, pairs[:, 0]))
        part_owner[pairs[order, 0]] = pairs[order, 1]
        waiting[pairs[:, 0]] = False
    return part_owner[part[:-1]]


def _sums(face: IntArray, target: IntArray, lengths: FloatArray) -> tuple[IntArray, FloatArray]:
    """Return the pairs of face and target, each once, and the length of border between them."""
    pairs, where = np.unique(np.column_stack([face, target]), axis=0, return_inverse=True)
    return pairs, np.asarray(np.bincount(where.ravel(), lengths, len(pairs)), np.float64)


def _dissolved(faces: Geometries, owner: IntArray) -> tuple[Geometries, IntArray]:
    """Join the faces of each owner; parts that do not touch stay polygons of their own."""
    order = np.argsort(owner, kind="stable")
    faces, owner = faces[order], owner[order]
    numbers, first, count = np.unique(owner, return_index=True, return_counts=True)
    single = first[count == 1]
    shapes, owners = [faces[single]], [owner[single]]
    for place in np.flatnonzero(count > 1).tolist():
        group = faces[first[place] : first[place] + count[place]]
        parts = shapely.get_parts(shapely.coverage_union_all(group))
        shapes.append(parts)
        owners.append(np.full(len(parts), numbers[place]))
    return np.concatenate(shapes), np.concatenate(owners)
