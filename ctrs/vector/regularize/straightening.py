"""From rings to straight rings, building by building, without the interpreter: what threads run side by side."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ctrs.vector.regularize.compiling import compiled
from ctrs.vector.regularize.directions import directions_of
from ctrs.vector.regularize.fitting import fit_walls, is_simple, meet, ring_area
from ctrs.vector.regularize.sampling import sample_ring
from ctrs.vector.regularize.walls import choose_walls

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

SPACING_M = 0.25

_TURNED = 0.005
"""Radians: walls are chosen anew where the fit turned them by more."""

_SHARP_COS, _MISSED = np.cos(np.radians(60.0)), 0.12
"""Corners sharper than this angle are drawn only where no more than this share of a ring's area lies between it and the
outline: diagonals across the steps of a small building make triangles of it."""


@compiled
def sample_building(
    corners: FloatArray, ring_offsets: IntArray, first_ring: int, last_ring: int, piece: float, sigma: float
) -> tuple[FloatArray, IntArray]:
    """Return the samples of a building's rings, and where each ring begins among them; closing corners left out."""
    num_rings = last_ring - first_ring
    begins = np.zeros(num_rings + 1, np.int64)
    result = np.empty((0, 2))
    for ring in range(num_rings):
        part = corners[ring_offsets[first_ring + ring] : ring_offsets[first_ring + ring + 1] - 1]
        samples = sample_ring(part, piece, sigma, SPACING_M)
        begins[ring + 1] = begins[ring] + len(samples)
        result = np.concatenate((result, samples))
    return result, begins


@compiled
def find_directions_of(
    corners: FloatArray,
    ring_offsets: IntArray,
    polygon_offsets: IntArray,
    first: int,
    last: int,
    piece: float,
    sigma: float,
    directions: FloatArray,
) -> None:
    """Write what ``directions_of`` finds of the polygons from ``first`` up to ``last``; shape (P, 3)."""
    for polygon in range(first, last):
        points, begins = sample_building(
            corners, ring_offsets, polygon_offsets[polygon], polygon_offsets[polygon + 1], piece, sigma
        )
        directions[polygon] = directions_of(points, begins, SPACING_M)


@compiled
def find_straying_of(
    corners: FloatArray,
    ring_offsets: IntArray,
    polygon_offsets: IntArray,
    first: int,
    last: int,
    piece: float,
    sigma: float,
    costs: FloatArray,
    straying: FloatArray,
) -> None:
    """Write how far the polygons from ``first`` up to ``last`` stray from straight walls (metres), NaN without; (P,).

    ``costs`` are those of one attempt, as ``straighten`` takes them.
    """
    for polygon in range(first, last):
        points, begins = sample_building(
            corners, ring_offsets, polygon_offsets[polygon], polygon_offsets[polygon + 1], piece, sigma
        )
        points -= np.array([points[:, 0].mean(), points[:, 1].mean()])
        directions = np.array(directions_of(points, begins, SPACING_M))
        _, sizes, _, strays = _attempt(points, begins, directions, costs, np.inf)
        straying[polygon] = strays if len(sizes) else np.nan


@compiled
def straighten(
    corners: FloatArray,
    ring_offsets: IntArray,
    polygon_offsets: IntArray,
    first: int,
    last: int,
    piece: float,
    sigma: float,
    directions: FloatArray,
    costs: FloatArray,
    by_noise: FloatArray,
    max_area_change: float,
    result: FloatArray,
    counts: IntArray,
) -> None:
    """Straighten the polygons from ``first`` up to ``last``.

    Args:
        corners: Of closed rings; shape (V, 2), metres.
        ring_offsets: First corner of each ring, and V; shape (R + 1,).
        polygon_offsets: First ring of each polygon, and R; shape (P + 1,).
        first: First polygon.
        last: The polygon after the last.
        piece: Length of a pixel's side, metres.
        sigma: Of the smoothing along rings, metres.
        directions: Main and second direction of each polygon, degrees; shape (P, 2).
        costs: Attempts, each with truncation, price of a corner, what a diagonal and what a free angle cost on top
            (infinite: there are none), weight of the tangent; shape (A, 5).
        by_noise: How far an outline strays from its walls (metres) decides more: below the first corners are cheaper,
            in proportion, but no less than the second, a share; above the third diagonals and free angles are dearer,
            by the fourth, a power, up to the fifth, a factor; a hole is a court if it holds a disc whose radius is the
            sixth times that, or the seventh, metres.
        max_area_change: Largest relative change of a polygon's area.
        result: Corners are written here, open rings from ``ring_offsets`` on; shape (V, 2).
        counts: Number of corners of each ring, 0 where it has no straight form, -1 for holes that are no courts;
            shape (R,).
    """
    for polygon in range(first, last):
        first_ring, last_ring = polygon_offsets[polygon], polygon_offsets[polygon + 1]
        points, begins = sample_building(corners, ring_offsets, first_ring, last_ring, piece, sigma)
        origin = np.array([points[:, 0].mean(), points[:, 1].mean()])
        points -= origin
        shell = begins[:2]
        for attempt in range(len(costs)):
            straight, sizes, turned, strays = _attempt(
                points, shell, directions[polygon], costs[attempt], max_area_change
            )
            if len(sizes):
                break
        if not len(sizes):
            continue
        radius = min(by_noise[5] * strays, by_noise[6])
        courts = np.ones(len(begins) - 1, np.bool_)
        for ring in range(1, len(courts)):
            courts[ring] = holds_disc(points[begins[ring] : begins[ring + 1]], radius)
        cheaper = min(1.0, max(by_noise[1], strays / by_noise[0]))
        dearer = min(by_noise[4], max(1.0, strays / by_noise[2]) ** by_noise[3])
        num_courts = courts.sum() - 1
        if num_courts or np.abs(turned).max() > _TURNED or cheaper < 1 or dearer > 1:
            better = directions[polygon] + np.degrees(turned)
            kept, kept_begins = _taken(points, begins, courts)
            for again in range(attempt, len(costs)):
                prices = costs[again].copy()
                prices[1:4] *= cheaper
                prices[2:4] *= dearer
                better_straight, better_sizes, _, _ = _attempt(kept, kept_begins, better, prices, max_area_change)
                if len(better_sizes):
                    break
            if len(better_sizes) or num_courts:
                straight, sizes = better_straight, better_sizes
        if not len(sizes):
            continue
        counts[first_ring:last_ring] = -1
        places = np.flatnonzero(courts)
        place = 0
        for ring in range(len(sizes)):
            size, number = sizes[ring], first_ring + places[ring]
            target = ring_offsets[number]
            if size > ring_offsets[number + 1] - target:
                counts[first_ring] = 0
                break
            result[target : target + size] = straight[place : place + size] + origin
            counts[number] = size
            place += size


@compiled
def _is_sharp(ring: FloatArray) -> bool:
    """Tell whether a ring has a corner below the least angle, inward or outward."""
    for index in range(len(ring)):
        back, ahead = ring[index - 2] - ring[index - 1], ring[index] - ring[index - 1]
        if (back * ahead).sum() > _SHARP_COS * np.sqrt((back**2).sum() * (ahead**2).sum()):
            return True
    return False


@compiled
def _area_between(samples: FloatArray, ring: FloatArray) -> float:
    """Return about how much area lies between even samples of a ring and the ring drawn for it, square metres."""
    total = 0.0
    for sample in samples:
        least = np.inf
        for index in range(len(ring)):
            along = ring[index] - ring[index - 1]
            off = sample - ring[index - 1]
            place = min(1.0, max(0.0, (off * along).sum() / max((along**2).sum(), 1e-12)))
            least = min(least, ((off - place * along) ** 2).sum())
        total += np.sqrt(least)
    return float(total * SPACING_M)


@compiled
def _taken(points: FloatArray, begins: IntArray, rings: npt.NDArray[np.bool_]) -> tuple[FloatArray, IntArray]:
    """Return the samples of chosen rings, and where each begins."""
    result = np.empty((0, 2))
    result_begins = np.zeros(1, np.int64)
    for ring in np.flatnonzero(rings):
        result = np.concatenate((result, points[begins[ring] : begins[ring + 1]]))
        result_begins = np.append(result_begins, len(result))
    return result, result_begins


@compiled
def holds_disc(ring: FloatArray, radius: float) -> bool:
    """Tell whether a disc fits into a ring, to within half a step of samples."""
    step = SPACING_M / 2
    columns = int((np.ptp(ring[:, 0]) - 2 * radius) / step) + 2
    rows = int((np.ptp(ring[:, 1]) - 2 * radius) / step) + 2
    left, low = ring[:, 0].min() + radius, ring[:, 1].min() + radius
    for row in range(rows):
        for column in range(columns):
            x, y = left + column * step, low + row * step
            inside, free = False, True
            for index in range(len(ring)):
                x0, y0 = ring[index - 1]
                x1, y1 = ring[index]
                if (x1 - x) ** 2 + (y1 - y) ** 2 < radius * radius:
                    free = False
                    break
                if (y0 > y) != (y1 > y) and x < x0 + (y - y0) / (y1 - y0) * (x1 - x0):
                    inside = not inside
            if inside and free:
                return True
    return False


@compiled
def _attempt(
    points: FloatArray,
    begins: IntArray,
    directions: FloatArray,
    costs: FloatArray,
    max_area_change: float,
) -> tuple[FloatArray, IntArray, FloatArray, float]:
    """Choose and fit walls.

    Returns:
        Corners of all rings and their numbers, none where there is no straight form; how far main and second
        direction were turned, radians; how far the outline strays from its walls, metres.
    """
    num_rings = len(begins) - 1
    none = (np.empty((0, 2)), np.empty(0, np.int64), np.zeros(2), 0.0)
    main = np.radians(directions[0])
    num_families = 2
    diagonals = np.isfinite(costs[2])
    free = np.isfinite(costs[3]) and not np.isnan(directions[1])
    num_families = 2 + 2 * diagonals + free
    angles, penalties = np.empty(num_families), np.zeros(num_families)
    sets = np.zeros(num_families, np.int64)
    angles[0], angles[1] = main, main + np.pi / 2
    if diagonals:
        angles[2], angles[3] = main + np.pi / 4, main - np.pi / 4
        penalties[2], penalties[3] = costs[2], costs[2]
    if free:
        angles[-1], penalties[-1], sets[-1] = np.radians(directions[1]), costs[3], 1
    rings, families = np.empty(0, np.int64), np.empty(0, np.int64)
    offsets = np.empty(0)
    firsts, lasts = np.empty(0, np.int64), np.empty(0, np.int64)
    for ring in range(num_rings):
        part = points[begins[ring] : begins[ring + 1]]
        found, where, begin = choose_walls(part, SPACING_M, angles, penalties, costs[0], costs[1], costs[4])
        if len(found) < 3:
            return none
        end = np.roll(begin, -1)
        end = np.where(end <= begin, end + len(part), end)
        rings = np.concatenate((rings, np.full(len(found), ring, np.int64)))
        families = np.concatenate((families, found))
        offsets = np.concatenate((offsets, where))
        firsts = np.concatenate((firsts, begin))
        lasts = np.concatenate((lasts, end))
    fitted_angles, fitted_offsets, turned, strays = fit_walls(
        points, SPACING_M, begins, rings, families, offsets, firsts, lasts, angles, sets
    )
    corners = np.empty((len(rings), 2))
    sizes = np.zeros(num_rings, np.int64)
    for ring in range(num_rings):
        walls = np.flatnonzero(rings == ring)
        straight, fair = meet(fitted_angles[walls], fitted_offsets[walls])
        if not fair or not is_simple(straight):
            return none
        part = points[begins[ring] : begins[ring + 1]]
        area = ring_area(part)
        change = abs(ring_area(straight) - area)
        if change > max_area_change * abs(area):
            return none
        if _is_sharp(straight) and _area_between(part, straight) > _MISSED * abs(area):
            return none
        corners[walls] = straight
        sizes[ring] = len(walls)
    both = np.zeros(2)
    both[: len(turned)] = turned
    return corners, sizes, both, strays
