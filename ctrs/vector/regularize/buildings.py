"""``regularize_buildings``: exact outlines of buildings become polygons with straight walls and right angles."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import shapely

from ctrs.progress import Progress, no_progress
from ctrs.vector.coverage.simplify import simplify_coverage
from ctrs.vector.regularize.areas import compare_areas
from ctrs.vector.regularize.circles import find_circles, round_polygons
from ctrs.vector.regularize.gaps import find_gaps, split_at_gaps
from ctrs.vector.regularize.overlaps import part_overlaps
from ctrs.vector.regularize.pixels import PixelRuns
from ctrs.vector.regularize.shared_directions import share_directions
from ctrs.vector.regularize.straightening import find_directions_of, find_straying_of, straighten

logger = logging.getLogger(__name__)

Polygons = npt.NDArray[np.object_]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Method = Literal["walls", "circle", "outline"]

MIN_IOU = 0.75
"""Straight walls that agree less with the outline that they were drawn from give way to it, simplified."""

MAX_AREA_CHANGE = 0.2
"""Largest relative change of the area of a ring, and of a building."""

SMOOTHING_M = 0.3
"""Standard deviation of the Gaussian that evens out the staircase along outlines."""

TRUNCATION_M, CORNER_M3, ODD_ANGLE_M3, TANGENT_M2 = 1.0, 1.75, 1.0, 0.2
"""Prices of walls (``walls.choose_walls``). A step of a metre over two metres of wall pays for its two corners; what is
bitten out costs no more than a metre's depth."""

_NONE = np.inf
_ANY_ANGLES = np.array(
    [
        [TRUNCATION_M, CORNER_M3, ODD_ANGLE_M3, ODD_ANGLE_M3, TANGENT_M2],
        [TRUNCATION_M, CORNER_M3, _NONE, _NONE, TANGENT_M2],
        [TRUNCATION_M, 2 * CORNER_M3, ODD_ANGLE_M3, ODD_ANGLE_M3, TANGENT_M2],
        [TRUNCATION_M, CORNER_M3 / 2, _NONE, _NONE, TANGENT_M2],
    ]
)
_RIGHT_ANGLES = np.array([[TRUNCATION_M, share * CORNER_M3, _NONE, _NONE, TANGENT_M2] for share in (1.0, 2.0, 0.5)])
"""What is tried one after the other, until all rings of a building are simple and keep their area."""

_BY_NOISE = np.array([0.08, 0.1, 0.17, 4.0, 6.0, 10.0, 1.5])
"""What changes with how far an outline strays from its walls, some 0.06 m at best, 0.14 m usually, 0.2 m at worst
(``straightening.straighten``): below 0.08 m corners are cheaper, above 0.17 m diagonals and free angles are dearer, and
the more it strays the wider must a court be, up to 3 m."""

_STRAYING_M, _DEARER = (0.145, 0.17), np.array([1.0, 1.2, 3.0, 3.0, 1.0])
"""What changes with how far the outlines of a whole mask stray: between these metres prices grow by up to these
factors, on top of what the straying of an outline, which is more uncertain, changes for it alone."""

_BLOCK = 128
"""Polygons that a thread takes at a time."""

_SCAN_M = 0.05
"""Largest distance of the lines along which areas are compared."""

_PHASE = "straightening"


@dataclass(frozen=True, kw_only=True)
class RegularizedBuildings:
    """Buildings with straight walls.

    Args:
        polygons: Valid polygons with disjoint interiors; shape (N,).
        sources: Which of the given polygons each comes from, rising; shape (N,).
        methods: How each was drawn, a ``Method``; shape (N,).
        iou: Intersection over union of each with the outline that it was drawn from; shape (N,).
    """

    polygons: Polygons
    sources: IntArray
    methods: npt.NDArray[np.object_]
    iou: FloatArray


def regularize_buildings(
    polygons: Polygons,
    *,
    pixel_m: tuple[float, float],
    tolerance_m: float,
    right_angles_only: bool = False,
    pixels: PixelRuns | None = None,
    directions: FloatArray | None = None,
    straying_m: float = 0.0,
    min_area_m2: float = 0.0,
    jobs: int | None = None,
    progress: Progress = no_progress,
) -> RegularizedBuildings:
    """Give buildings straight walls, and part neighbours that a mask has fused.

    Args:
        polygons: Exact outlines with disjoint interiors, in ground metres along the pixel axes; shape (P,).
        pixel_m: Width and height of a pixel, ground metres.
        tolerance_m: Tolerance of the simplified outline of a building that no straight walls fit.
        right_angles_only: No diagonals, no free angles, no circles.
        pixels: Foreground of each polygon before cleaning, on the same axes; without it nothing is parted.
        directions: Of each polygon as ``directions`` finds them, shape (P, 3); None: found here.
        straying_m: How far the outlines of the whole mask stray from straight walls, as ``straying_of`` measures it; 0:
            not known.
        min_area_m2: No building is parted into smaller ones.
        jobs: Threads; None: as many as there are cores.
        progress: Told after each block of buildings.
    """
    threads = jobs or os.cpu_count() or 1
    rings = _Rings.of(polygons)
    if directions is None:
        directions = _directions(rings, pixel_m, threads)
    sources = np.arange(len(polygons))
    if pixels is not None:
        gaps = _gaps(pixels, directions, pixel_m, threads)
        polygons, sources = split_at_gaps(polygons, gaps, min_area_m2=min_area_m2)
        parted = np.flatnonzero(np.bincount(sources)[sources] > 1)
        if len(parted):
            rings, directions = _Rings.of(polygons), directions[sources]
            directions[parted] = _directions(_Rings.of(polygons[parted]), pixel_m, threads)
            logger.info("%d outlines parted at gaps into %d buildings", len(np.unique(sources[parted])), len(parted))
    directions = share_directions(polygons, directions)
    costs = _priced(_RIGHT_ANGLES if right_angles_only else _ANY_ANGLES, straying_m)
    straight = _straight(polygons, rings, directions, costs, pixel_m, threads, progress)
    is_round = np.zeros(len(polygons), bool)
    if not right_angles_only:
        rounded = _round(polygons, rings, straight, pixel_m, threads)
        is_round = np.array([shape is not None for shape in rounded], bool)
        straight[is_round] = rounded[is_round]
    result = _checked(straight, polygons, rings, sources, tolerance_m, pixel_m, threads)
    result.methods[is_round & (result.methods == "walls")] = "circle"
    return result


def straying_of(polygons: Polygons, *, pixel_m: tuple[float, float]) -> FloatArray:
    """Return how far outlines stray from straight walls (standard deviation that goes with the median, metres).

    Args:
        polygons: Exact outlines in ground metres along the pixel axes, without holes; shape (P,).
        pixel_m: Width and height of a pixel, ground metres.

    Returns:
        Of those that straight walls fit.
    """
    rings = _Rings.of(polygons)
    found = np.full(rings.count, np.nan)
    offsets = (rings.ring_offsets, rings.polygon_offsets)
    find_straying_of(rings.corners, *offsets, 0, rings.count, _piece(pixel_m), SMOOTHING_M, _ANY_ANGLES[0], found)
    return np.asarray(found[~np.isnan(found)])


def _priced(costs: FloatArray, straying_m: float) -> FloatArray:
    """Return the prices of walls in a mask whose outlines stray so far."""
    low, high = _STRAYING_M
    share = min(1.0, max(0.0, (straying_m - low) / (high - low)))
    return costs * (1 + share * (_DEARER - 1))


@dataclass(frozen=True)
class _Rings:
    """Polygons as ragged arrays: closed rings, the shell of each polygon first."""

    corners: FloatArray
    ring_offsets: IntArray
    polygon_offsets: IntArray

    @classmethod
    def of(cls, polygons: Polygons) -> _Rings:
        if not len(polygons):
            return cls(np.empty((0, 2)), np.zeros(1, np.int64), np.zeros(1, np.int64))
        _, corners, (ring_offsets, polygon_offsets) = shapely.to_ragged_array(polygons, include_z=False)
        return cls(
            np.ascontiguousarray(corners, np.float64), ring_offsets.astype(np.int64), polygon_offsets.astype(np.int64)
        )

    @property
    def count(self) -> int:
        return len(self.polygon_offsets) - 1


def _in_threads(
    work: Callable[[int, int], Any], count: int, threads: int, progress: Progress = no_progress
) -> list[Any]:
    """Call ``work(first, last)`` on blocks of ``count`` things; results in order."""
    firsts = range(0, count, _BLOCK)
    results: list[Any] = []
    with ThreadPoolExecutor(threads) as pool:
        for result in pool.map(lambda first: work(first, min(first + _BLOCK, count)), firsts):
            results.append(result)
            progress(min(len(results) * _BLOCK, count), count, _PHASE)
    return results


def _directions(rings: _Rings, pixel_m: tuple[float, float], threads: int) -> FloatArray:
    """Return what ``directions_of`` finds of each polygon."""
    found = np.empty((rings.count, 3))

    def work(first: int, last: int) -> None:
        find_directions_of(
            rings.corners, rings.ring_offsets, rings.polygon_offsets, first, last, _piece(pixel_m), SMOOTHING_M, found
        )

    _in_threads(work, rings.count, threads)
    return found


def _gaps(pixels: PixelRuns, directions: FloatArray, pixel_m: tuple[float, float], threads: int) -> FloatArray:
    main = np.ascontiguousarray(directions[:, 0])

    def work(first: int, last: int) -> FloatArray:
        runs = (pixels.rows, pixels.begins, pixels.ends, pixels.offsets)
        return np.asarray(find_gaps(*runs, first, last, pixel_m[0], pixel_m[1], main))

    return np.concatenate([np.empty((0, 4)), *_in_threads(work, len(main), threads)])


def _straight(
    polygons: Polygons,
    rings: _Rings,
    directions: FloatArray,
    costs: FloatArray,
    pixel_m: tuple[float, float],
    threads: int,
    progress: Progress,
) -> Polygons:
    """Return straight polygons, None where there is none."""
    corners = np.empty_like(rings.corners)
    counts = np.zeros(len(rings.ring_offsets) - 1, np.int64)

    def work(first: int, last: int) -> None:
        straighten(
            rings.corners,
            rings.ring_offsets,
            rings.polygon_offsets,
            first,
            last,
            _piece(pixel_m),
            SMOOTHING_M,
            directions,
            costs,
            _BY_NOISE,
            MAX_AREA_CHANGE,
            corners,
            counts,
        )

    _in_threads(work, len(polygons), threads, progress)
    result = np.full(len(polygons), None, object)
    if not len(polygons):
        return result
    is_court = counts >= 0
    done = np.minimum.reduceat(np.where(is_court, counts, 3), rings.polygon_offsets[:-1]) >= 3
    kept = np.repeat(done, np.diff(rings.polygon_offsets)) & is_court
    sizes = counts[kept] + 1
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    ring = np.repeat(np.arange(len(sizes)), sizes)
    place = (np.arange(offsets[-1]) - offsets[ring]) % (sizes - 1)[ring]
    source = rings.ring_offsets[:-1][kept][ring] + place
    polygon_offsets = np.concatenate([[0], np.cumsum(np.add.reduceat(kept, rings.polygon_offsets[:-1])[done])])
    result[done] = shapely.from_ragged_array(shapely.GeometryType.POLYGON, corners[source], (offsets, polygon_offsets))
    return result


def _round(
    polygons: Polygons, rings: _Rings, straight: Polygons, pixel_m: tuple[float, float], threads: int
) -> Polygons:
    """Return round polygons, None where there is none."""
    circles = np.full((len(rings.ring_offsets) - 1, 4), np.nan)

    def work(first: int, last: int) -> None:
        offsets = (rings.ring_offsets, rings.polygon_offsets)
        find_circles(
            rings.corners, *offsets, first, last, _piece(pixel_m), SMOOTHING_M, _BY_NOISE[5], _BY_NOISE[6], circles
        )

    _in_threads(work, len(polygons), threads)
    found = round_polygons(circles, rings.polygon_offsets, polygons, straight, CORNER_M3, _piece(pixel_m), SMOOTHING_M)
    areas = shapely.area(polygons)
    found[np.abs(shapely.area(found) - areas) > MAX_AREA_CHANGE * areas] = None
    return found


def _piece(pixel_m: tuple[float, float]) -> float:
    return min(pixel_m)


def _checked(
    straight: Polygons,
    polygons: Polygons,
    rings: _Rings,
    sources: IntArray,
    tolerance_m: float,
    pixel_m: tuple[float, float],
    threads: int,
) -> RegularizedBuildings:
    """Put simplified outlines where straight walls are missing, invalid or too far off, and part what overlaps."""
    usable = straight.copy()
    usable[~shapely.is_valid(straight)] = shapely.Polygon()
    ours = _Rings.of(usable)
    iou = np.zeros(len(polygons))

    def compare(first: int, last: int) -> None:
        compare_areas(
            (ours.corners, ours.ring_offsets, ours.polygon_offsets),
            (rings.corners, rings.ring_offsets, rings.polygon_offsets),
            first,
            last,
            pixel_m[1] / np.ceil(pixel_m[1] / _SCAN_M),
            iou,
        )

    _in_threads(compare, len(polygons), threads)
    areas = shapely.area(polygons)

    def is_off(shapes: Polygons) -> npt.NDArray[np.bool_]:
        return np.asarray((iou < MIN_IOU) | (np.abs(shapely.area(shapes) - areas) > MAX_AREA_CHANGE * areas))

    failed = is_off(usable)
    methods = np.full(len(polygons), "walls", object)
    while True:
        result = straight.copy()
        result[failed] = simplify_coverage(polygons[failed], tolerance_m)
        result, cut = part_overlaps(result)
        again = np.union1d(np.flatnonzero(failed), cut)
        iou[again] = _iou(result[again], polygons[again])
        # Walls that a neighbour cut short are judged as they are now.
        cut_off = is_off(result) & ~failed
        if not cut_off.any():
            break
        failed |= cut_off
    methods[failed] = "outline"
    if failed.any():
        logger.info("%d of %d buildings keep their simplified outline", failed.sum(), len(polygons))
    return RegularizedBuildings(polygons=result, sources=sources, methods=methods, iou=iou)


def _iou(shapes: Polygons, others: Polygons) -> FloatArray:
    common = shapely.area(shapely.intersection(shapes, others))
    return np.asarray(common / (shapely.area(shapes) + shapely.area(others) - common), np.float64)
