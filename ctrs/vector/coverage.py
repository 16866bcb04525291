"""Straight buildings among other classes: what their walls give up goes to the neighbours, what they take is cut off.

All is drawn from one set of lines: the walls, the borders between other polygons, and where such a border once ended at
a building that has drawn back, a short line on to the new wall. Noded once on a fine grid, these lines bound faces that
neither overlap nor gape and have all vertices of common borders in common; each face then finds its owner.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely

from ctrs.vector.arcs import NO_POLYGON, Arcs, Flags, FloatArray, Geometries, IntArray

_GRID_PX = 2.0**-10
"""Grid of the nodes in pixels: far below what can be seen, and pixel corners lie on it exactly."""

_NOBODY = -1

_STRIP = 0.25
"""Share of its outline that a strip along the raster's edge has there."""


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
) -> JoinedCoverage:
    """Put straight buildings in the places of their outlines, and fit all other polygons to them.

    What a building gives up goes to the polygon whose part of the surroundings it borders on, or to none where none
    lay there. What borders on no other polygon stays with the building. Buildings end at the raster's edge.

    Args:
        polygons: A coverage in ground metres along the pixel axes, buildings among it; shape (P,).
        is_building: Which of them are buildings; shape (P,).
        straight: Valid polygons with disjoint interiors that replace them; shape (K,).
        straight_sources: Which polygon each replaces; shape (K,).
        pixel_m: Width and height of a pixel.
        frame_px: Width and height of the raster in pixels.
        min_area_m2: What walls cut off from other polygons goes to a neighbour if it is smaller than this.
    """
    if not len(straight):
        others = np.flatnonzero(~is_building)
        return JoinedCoverage(polygons=polygons[others], sources=others, walls=np.full(len(others), _NOBODY))
    frame = (0.0, 0.0, float(frame_px[0]), float(frame_px[1]))
    before = _scaled(polygons, (1 / pixel_m[0], 1 / pixel_m[1]))
    before = _on_pixels(before)
    walls = _within(_scaled(straight, (1 / pixel_m[0], 1 / pixel_m[1])), frame)
    lines = _linework(before, is_building, walls, frame)
    noded = shapely.union_all(lines, grid_size=_GRID_PX)
    faces: Geometries = shapely.get_parts(shapely.polygonize(shapely.get_parts(noded)))
    owner = _owners(faces, before, is_building, walls, frame, min_area_m2 / (pixel_m[0] * pixel_m[1]))
    joined, owner = _dissolved(faces[owner != _NOBODY], owner[owner != _NOBODY])
    num = len(polygons)
    is_wall = owner >= num
    wall = np.where(is_wall, owner - num, _NOBODY)
    sources = np.where(is_wall, straight_sources[wall], owner)
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
    polygons: Geometries, is_building: Flags, walls: Geometries, frame: tuple[float, float, float, float]
) -> Geometries:
    arcs = Arcs.of(polygons, frame)
    lines = arcs.lines()
    of_building = arcs.of_polygons(is_building)
    kept = ~of_building | arcs.on_frame
    ends = np.concatenate([arcs.offsets[:-1], arcs.offsets[1:] - 1])
    points = arcs.xy[ends] @ np.array([1, 1j])
    kept_end = np.tile(kept, 2)
    # Nodes where a border that stays ends at one that goes.
    loose = np.intersect1d(points[kept_end], points[~kept_end])
    places: Geometries = np.asarray(shapely.points(loose.real, loose.imag), object)
    places = places[~_is_covered(places, walls)]
    links = np.empty(0, object)
    if len(places):
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
) -> IntArray:
    """Return the owner of each face: a polygon's number, that of a building's walls (P + k), or nobody."""
    num = len(polygons)
    owner = np.full(len(faces), _NOBODY)
    points = shapely.point_on_surface(faces)
    others = np.flatnonzero(~is_building)
    for shapes, numbers in ((polygons[others], others), (walls, num + np.arange(len(walls)))):
        point, shape = shapely.STRtree(shapes).query(points, predicate="within")
        owner[point] = numbers[shape]
    unclear = np.flatnonzero(owner == _NOBODY)
    best, is_ceded = _overlaps(faces[unclear], polygons, is_building)
    owner[unclear] = best
    ceded = np.zeros(len(faces), bool)
    ceded[unclear] = is_ceded
    areas = shapely.area(faces)
    # Of what walls have cut off only crumbs are passed on: an owner's largest face is not one.
    largest = np.zeros(num + len(walls) + 1)
    np.maximum.at(largest, owner, areas)
    crumb = (owner != _NOBODY) & (owner < num) & (areas < min_area_px) & (areas < largest[owner])
    return _passed_on(faces, owner, ceded, crumb, num, frame)


def _overlaps(faces: Geometries, polygons: Geometries, is_building: Flags) -> tuple[IntArray, Flags]:
    """The other polygon that each face overlaps most, or nobody; and whether all of a face was a building's."""
    face, polygon = shapely.STRtree(polygons).query(faces, predicate="intersects")
    area = shapely.area(shapely.intersection(faces[face], polygons[polygon]))
    # Nodes lie on a grid: a strip of its width along the outline says nothing.
    noise = 2 * _GRID_PX * shapely.length(faces)
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


def _passed_on(
    faces: Geometries,
    owner: IntArray,
    ceded: Flags,
    crumb: Flags,
    num: int,
    frame: tuple[float, float, float, float],
) -> IntArray:
    """Give crumbs and what was a building's alone to the neighbour with the longest common border, others first."""
    if not (ceded.any() or crumb.any()):
        return owner
    arcs = Arcs.of(faces, frame)
    lengths = shapely.length(arcs.lines())
    # A strip along the raster's edge lies before a building that the edge cuts.
    along = np.bincount(arcs.sides[arcs.on_frame, 0], lengths[arcs.on_frame], len(faces))
    is_strip = along > _STRIP * shapely.length(faces)
    inner = (arcs.sides != NO_POLYGON).all(axis=1)
    sides, length = arcs.sides[inner], lengths[inner]
    waiting = ceded | crumb
    result = owner.copy()
    while waiting.any():
        face = np.concatenate([sides[:, 0], sides[:, 1]])
        neighbor = np.concatenate([sides[:, 1], sides[:, 0]])
        good = waiting[face] & ~waiting[neighbor] & (result[neighbor] != _NOBODY)
        # Crumbs of other polygons leave the walls of buildings as they are.
        good &= ceded[face] | (result[neighbor] < num)
        if not good.any():
            break
        face, target, weight = face[good], result[neighbor[good]], np.concatenate([length, length])[good]
        pairs, where = np.unique(np.column_stack([face, target]), axis=0, return_inverse=True)
        weight = np.bincount(where.ravel(), weight)
        order = np.lexsort((-pairs[:, 1], weight, (pairs[:, 1] < num) & ~is_strip[pairs[:, 0]], pairs[:, 0]))
        result[pairs[order, 0]] = pairs[order, 1]
        waiting[pairs[:, 0]] = False
    return result


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
