"""Round buildings: the circle that an outline follows, where it follows one.

A circle is fitted by least squares (Kasa 1976), then by robust ones (Gauss-Newton on distances, Tukey's biweight), so
that bites drop out. It stands if the outline runs along it all around, and does not swing around it as a polygon does:
a regular polygon of n sides and mean radius r swings by ``2 r / n^2`` around its circle, n times (the first term of its
Fourier series), an ellipse twice. A swing counts if it is half of a polygon's and stands out of the noise. Then circle
and walls are compared at one price: truncated squared distance along the outline, and so much for each corner. Holes of
a round building are courts if they are wide enough, as those of straight ones must be; they are circles where they
follow one, else they keep their walls.

Smoothing along the ring makes a circle smaller by ``sigma^2 / (2 r)``, which is put back. What the blur of the mask
itself took of a radius nobody can tell.

Circles are drawn as regular polygons of the same area that stay within ``CHORD_M`` of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from ctrs.vector.regularize.compiling import compiled
from ctrs.vector.regularize.sampling import sample_ring
from ctrs.vector.regularize.straightening import holds_disc

Polygons = npt.NDArray[np.object_]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

CHORD_M = 0.02
"""Largest distance between a circle and the polygon that is drawn for it."""

CIRCLE_CORNERS = 4.0
"""A circle costs as much as so many corners."""

MIN_RADIUS_M, MIN_RADIUS_PX = 2.0, 4.0
"""Smaller outlines are round whatever they are of."""

_NO_COURT = -1.0
"""Cost of a hole that is too narrow for a court."""

_OF_MEDIAN = 1.4826
"""Standard deviation of what is normally distributed, of the median of its absolute value."""

_SPACING_M = 0.25
_MOST_SPREAD = 0.16
"""Standard deviation of the distances from the centre, of their mean, up to which a ring is looked at: squares have
0.11, circles with a bite less."""

_TUKEY_M, _ROUNDS = 0.8, 8
_SECTORS, _MOST_EMPTY = 16, 4
_NEAR_M, _NEAR_SHARE = 0.6, 0.85
_SWINGS = 12
_HALF = 0.5
_LEAST_SWING_PX = 0.25
"""Pixels that lie in step with a circle make it swing by less."""

_ELLIPSE_SWING = 0.06
"""Swing of an ellipse, of its radius, from which it is none of a circle: axes that differ by an eighth."""

_CORRELATED_M, _DEVIATIONS = 1.0, 2.0
"""Noise along an outline hangs together over this length; a swing of so many standard deviations stands out of it."""


@compiled
def find_circles(
    corners: FloatArray,
    ring_offsets: IntArray,
    polygon_offsets: IntArray,
    first: int,
    last: int,
    piece: float,
    sigma: float,
    court_share: float,
    court_most: float,
    circles: FloatArray,
) -> None:
    """Write the circle that each ring of the polygons from ``first`` up to ``last`` follows.

    Args:
        corners: Of closed rings; shape (V, 2), metres.
        ring_offsets: First corner of each ring, and V; shape (R + 1,).
        polygon_offsets: First ring of each polygon, and R; shape (P + 1,).
        first: First polygon.
        last: The polygon after the last.
        piece: Length of a pixel's side, metres.
        sigma: Of the smoothing along rings, metres.
        court_share: A hole is a court if it holds a disc whose radius is this times how far the outline strays from its
            circle (standard deviation that goes with the median).
        court_most: The largest radius that this may ask for, metres.
        circles: Centre (x, y), radius and cost are written here, NaN where a ring, or the shell around it, is not
            round; shape (R, 4). Cost: truncated squared distance along the outline, square metres times metres; -1 for
            holes of round shells that are no courts.
    """
    for polygon in range(first, last):
        radius = 0.0
        for ring in range(polygon_offsets[polygon], polygon_offsets[polygon + 1]):
            circles[ring] = np.nan
            part = corners[ring_offsets[ring] : ring_offsets[ring + 1] - 1]
            is_shell = ring == polygon_offsets[polygon]
            if is_shell and _spread(part) > _MOST_SPREAD:
                circles[ring : polygon_offsets[polygon + 1]] = np.nan
                break
            points = sample_ring(part, piece, sigma, _SPACING_M)
            if not is_shell and not holds_disc(points, radius):
                circles[ring, 3] = _NO_COURT
                continue
            if is_shell or _spread(part) <= _MOST_SPREAD:
                circles[ring] = fit_circle(points, _SPACING_M, piece)
            if is_shell and np.isnan(circles[ring, 0]):
                circles[ring : polygon_offsets[polygon + 1]] = np.nan
                break
            if is_shell:
                away = np.hypot(points[:, 0] - circles[ring, 0], points[:, 1] - circles[ring, 1]) - circles[ring, 2]
                radius = min(court_share * _OF_MEDIAN * np.median(np.abs(away)), court_most)
            circles[ring, 2] += sigma * sigma / (2 * circles[ring, 2])


@compiled
def _spread(corners: FloatArray) -> float:
    """Standard deviation of the distances of a ring from its centre of gravity, by length, of their mean."""
    count = len(corners)
    total, x, y = 0.0, 0.0, 0.0
    for index in range(count):
        following = index + 1 if index + 1 < count else 0
        length = np.hypot(corners[following, 0] - corners[index, 0], corners[following, 1] - corners[index, 1])
        total += length
        x += length * (corners[following, 0] + corners[index, 0]) / 2
        y += length * (corners[following, 1] + corners[index, 1]) / 2
    x, y = x / total, y / total
    mean, square = 0.0, 0.0
    for index in range(count):
        following = index + 1 if index + 1 < count else 0
        length = np.hypot(corners[following, 0] - corners[index, 0], corners[following, 1] - corners[index, 1])
        # Three places of each side: sides of buildings are long.
        for share in (1 / 6, 0.5, 5 / 6):
            away = np.hypot(
                corners[index, 0] + share * (corners[following, 0] - corners[index, 0]) - x,
                corners[index, 1] + share * (corners[following, 1] - corners[index, 1]) - y,
            )
            mean += length * away / 3
            square += length * away * away / 3
    mean, square = mean / total, square / total
    return float(np.sqrt(max(0.0, square - mean * mean)) / max(mean, 1e-9))


@compiled
def fit_circle(points: FloatArray, spacing: float, piece: float) -> FloatArray:
    """Return centre, radius and cost of the circle that even samples of a ring follow, NaN where they follow none."""
    none = np.full(4, np.nan)
    x, y, radius = _kasa(points)
    weights = np.ones(len(points))
    for _ in range(_ROUNDS):
        for index in range(len(points)):
            left = np.hypot(points[index, 0] - x, points[index, 1] - y) - radius
            weights[index] = (1 - min(1.0, (left / _TUKEY_M) ** 2)) ** 2
        if weights.sum() < _HALF * len(points):
            return none
        x, y, radius = _step(points, weights, x, y, radius)
    if not (np.isfinite(radius) and radius >= max(MIN_RADIUS_M, MIN_RADIUS_PX * piece)):
        return none
    residuals, angles = np.empty(len(points)), np.empty(len(points))
    covered = np.zeros(_SECTORS, np.bool_)
    near, cost = 0, 0.0
    for index in range(len(points)):
        dx, dy = points[index, 0] - x, points[index, 1] - y
        residuals[index], angles[index] = np.hypot(dx, dy) - radius, np.arctan2(dy, dx)
        cost += spacing * min(1.0, residuals[index] ** 2)
        if abs(residuals[index]) <= _NEAR_M:
            near += 1
            covered[int((angles[index] / (2 * np.pi) + 0.5) * _SECTORS) % _SECTORS] = True
    if (
        near < _NEAR_SHARE * len(points)
        or _longest_gap(covered) >= _MOST_EMPTY
        or _swings(residuals, angles, radius, piece)
    ):
        return none
    return np.array([x, y, radius, cost])


@compiled
def _kasa(points: FloatArray) -> tuple[float, float, float]:
    """Return centre and radius of the circle of least squares in ``x^2 + y^2``."""
    middle_x, middle_y = points[:, 0].mean(), points[:, 1].mean()
    u, v = points[:, 0] - middle_x, points[:, 1] - middle_y
    square = u * u + v * v
    uu, uv, vv = (u * u).sum(), (u * v).sum(), (v * v).sum()
    right_u, right_v = (u * square).sum() / 2, (v * square).sum() / 2
    determinant = max(uu * vv - uv * uv, 1e-12)
    x, y = (right_u * vv - right_v * uv) / determinant, (right_v * uu - right_u * uv) / determinant
    return middle_x + x, middle_y + y, np.sqrt(x * x + y * y + (uu + vv) / len(points))


@compiled
def _step(points: FloatArray, weights: FloatArray, x: float, y: float, radius: float) -> tuple[float, float, float]:
    """One step of Gauss-Newton: weighted least squares of the distances from the circle."""
    normal, right = np.zeros((3, 3)), np.zeros(3)
    for index in range(len(points)):
        dx, dy = points[index, 0] - x, points[index, 1] - y
        away = max(np.hypot(dx, dy), 1e-9)
        row = (dx / away, dy / away, 1.0)
        for one in range(3):
            right[one] += weights[index] * row[one] * (away - radius)
            for other in range(3):
                normal[one, other] += weights[index] * row[one] * row[other]
    for one in range(3):
        normal[one, one] += 1e-9
    moved = np.linalg.solve(normal, right)
    return x + moved[0], y + moved[1], radius + moved[2]


@compiled
def _longest_gap(covered: npt.NDArray[np.bool_]) -> int:
    """Return the most sectors in a row that are not covered, around the circle."""
    longest, current = 0, 0
    for place in range(2 * len(covered)):
        current = 0 if covered[place % len(covered)] else current + 1
        longest = max(longest, current)
    return min(longest, len(covered))


@compiled
def _swings(residuals: FloatArray, angles: FloatArray, radius: float, piece: float) -> bool:
    """Tell whether an outline swings around its circle as an ellipse or a regular polygon does."""
    weights = np.where(np.abs(residuals) < _TUKEY_M, 1.0, 0.0)
    total = weights.sum()
    swings = np.zeros(_SWINGS + 1)
    square = (weights * residuals * residuals).sum() / total
    for number in range(2, _SWINGS + 1):
        even = 2 * (weights * residuals * np.cos(number * angles)).sum() / total
        odd = 2 * (weights * residuals * np.sin(number * angles)).sum() / total
        swings[number] = np.hypot(even, odd)
    for number in range(2, _SWINGS + 1):
        wanted = _ELLIPSE_SWING * radius if number == 2 else _HALF * 2 * radius / number**2
        left = np.sqrt(max(0.0, square - swings[number] ** 2 / 2))
        noise = left * np.sqrt(2 * _CORRELATED_M / (2 * np.pi * radius))
        if swings[number] > max(wanted, _DEVIATIONS * noise, _LEAST_SWING_PX * piece):
            return True
    return False


def round_polygons(
    circles: FloatArray,
    ring_begins: IntArray,
    outlines: Polygons,
    straight: Polygons,
    corner_m3: float,
    piece: float,
    sigma: float,
) -> Polygons:
    """Return round polygons where circles cost less than walls, None elsewhere.

    Args:
        circles: From ``find_circles``; shape (R, 4).
        ring_begins: First ring of each polygon, and R; shape (P + 1,).
        outlines: What they were found from; shape (P,).
        straight: Polygons with straight walls, None where there are none; shape (P,).
        corner_m3: Price of a corner.
        piece: As for ``find_circles``, like the next.
        sigma: Of the smoothing along rings, metres.
    """
    result = np.full(len(outlines), None, object)
    for polygon in np.flatnonzero(np.isfinite(circles[ring_begins[:-1], 0])).tolist():
        rings = circles[ring_begins[polygon] : ring_begins[polygon + 1]]
        walls: Any = straight[polygon]
        if walls is not None and walls.is_valid:
            corners = len(walls.exterior.coords) - 1
            points = sample_ring(shapely.get_coordinates(outlines[polygon].exterior)[:-1], piece, sigma, _SPACING_M)
            cost = _walls_cost(points, walls.exterior) + corner_m3 * corners
            if cost <= rings[0, 3] + corner_m3 * CIRCLE_CORNERS:
                continue
        shell: Any = circle_polygon(*rings[0, :3])
        inner = outlines[polygon].interiors
        for place in np.flatnonzero(rings[1:, 3] != _NO_COURT).tolist():
            ring = rings[1 + place]
            hole = circle_polygon(*ring[:3]) if np.isfinite(ring[0]) else _court(shapely.Polygon(inner[place]), walls)
            if not shell.contains_properly(hole):
                shell = None
                break
            shell = shapely.difference(shell, hole)
        if shell is not None and shell.geom_type == "Polygon" and shell.is_valid:
            result[polygon] = shell
    return result


def circle_polygon(x: float, y: float, radius: float) -> shapely.Polygon:
    """Return the regular polygon with the area of a circle that stays within ``CHORD_M`` of it.

    >>> shape = circle_polygon(0, 0, 10)
    >>> round(shape.area / (100 * np.pi), 12), len(shape.exterior.coords) - 1
    (1.0, 52)
    """
    # Sides stay inside by up to the chord's height, corners outside by half of that: less than CHORD_M each.
    count = 4 * int(np.ceil(np.pi / np.arccos(max(-1.0, 1 - CHORD_M / radius)) / 4))
    angles = 2 * np.pi * np.arange(count) / count
    outer = radius * np.sqrt(2 * np.pi / (count * np.sin(2 * np.pi / count)))
    return shapely.Polygon(np.column_stack([x + outer * np.cos(angles), y + outer * np.sin(angles)]))


def _court(hole: shapely.Polygon, walls: shapely.Polygon | None) -> shapely.Polygon:
    """Return the form with straight walls of a hole of an outline, or the hole where there is none."""
    if walls is None or not walls.is_valid:
        return hole
    courts = [shapely.Polygon(ring) for ring in walls.interiors]
    shared = [hole.intersection(court).area for court in courts]
    return courts[int(np.argmax(shared))] if shared and max(shared) > 0 else hole


def _walls_cost(points: FloatArray, walls: shapely.LinearRing) -> float:
    """Truncated squared distance of the samples of an outline from walls, square metres times metres."""
    return _SPACING_M * float(np.minimum(1.0, shapely.distance(shapely.points(points), walls) ** 2).sum())
