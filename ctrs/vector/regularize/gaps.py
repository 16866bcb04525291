"""Neighbours that a mask has fused are parted where the gap between them still shows.

Masks blur the metre or two between houses, and slits, notches and pinholes are what is left of it. Seen along a
building's own direction, the length of foreground across it drops there by more than half on less than 2.5 m, with a
building on both sides. Trees bite less deep, and wings narrower than half of their body are longer than that. Pixels
count as they were before cleaning, which closes slits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from ctrs.vector.regularize.compiling import compiled

Polygons = npt.NDArray[np.object_]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

STEP_M = 0.25
"""Step of the profile of lengths across."""

_NEAR, _FAR = 3, 10
"""Steps from a gap's middle between which its sides are looked at: 0.75 to 2.5 m."""

MAX_SHARE = 0.5
"""Foreground left in a gap, of the less wide side's. Gaps of fused pairs of the synthetic footprints keep up to 0.42;
bites and notches of single buildings leave 0.55 and more."""

_EDGE_SHARE = 0.7
"""A gap reaches to where this share of the side's width is foreground."""

_MAX_GAP_STEPS = 13
"""Gaps wider than 3.25 m are courts of a building, or would not have been fused."""

_MIN_SIDE_M2 = 20.0
"""Smallest building on either side."""

_MIN_WIDTH_M = 3.0
"""Least width of a building on either side."""

_MIN_PART_M2 = 10.0
"""What is smaller falls away with the cut."""


def split_at_gaps(polygons: Polygons, gaps: FloatArray, *, min_area_m2: float = 0.0) -> tuple[Polygons, IntArray]:
    """Cut polygons in two or more.

    Args:
        polygons: Ground metres along the pixel axes.
        gaps: Polygon, direction across the gap (radians), from and to where along it; shape (G, 4), polygons rising.
        min_area_m2: A polygon of which a part would be smaller stays whole.

    Returns:
        Polygons, and the place among ``polygons`` that each comes from; those without gaps are the same objects.
    """
    if not len(gaps):
        return polygons, np.arange(len(polygons))
    parts: list[Polygons] = []
    sources: list[IntArray] = []
    done = 0
    owners = gaps[:, 0].astype(np.int64)
    for owner in np.unique(owners).tolist():
        parts.append(polygons[done:owner])
        sources.append(np.arange(done, owner))
        cut: Any = polygons[owner]
        reach = 2 * float(np.ptp(np.reshape(cut.bounds, (2, 2)), axis=0).sum())
        for _, angle, start, end in gaps[owners == owner].tolist():
            cut = shapely.difference(cut, _slab(cut, angle, start, end, reach))
        found = shapely.get_parts(cut)
        found = found[shapely.area(found) >= _MIN_PART_M2]
        if len(found) < 2 or shapely.area(found).min() < min_area_m2:
            found = polygons[owner : owner + 1]
        parts.append(found)
        sources.append(np.full(len(found), owner))
        done = owner + 1
    parts.append(polygons[done:])
    sources.append(np.arange(done, len(polygons)))
    return np.concatenate(parts), np.concatenate(sources)


def _slab(shape: shapely.Polygon, angle: float, start: float, end: float, reach: float) -> shapely.Polygon:
    along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    middle = float(across @ np.array([shape.centroid.x, shape.centroid.y]))
    low, high = across * (middle - reach), across * (middle + reach)
    return shapely.Polygon([along * start + low, along * end + low, along * end + high, along * start + high])


@compiled
def find_gaps(
    rows: IntArray,
    begins: IntArray,
    ends: IntArray,
    offsets: IntArray,
    first: int,
    last: int,
    width: float,
    height: float,
    main_deg: FloatArray,
) -> FloatArray:
    """Find the gaps of the polygons from ``first`` up to ``last``.

    Args:
        rows: See ``pixels.PixelRuns``, like the next three.
        begins: First column of each run.
        ends: Column after the last.
        offsets: First run of each polygon.
        first: First polygon.
        last: The polygon after the last.
        width: Of a pixel, metres.
        height: Of a pixel, metres.
        main_deg: Main direction of each polygon, degrees.

    Returns:
        As ``split_at_gaps`` takes them.
    """
    gaps = np.empty((0, 4))
    for polygon in range(first, last):
        part = slice(offsets[polygon], offsets[polygon + 1])
        for turn in (0.0, np.pi / 2):
            angle = np.radians(main_deg[polygon]) + turn
            values, low = _profile(rows[part], begins[part], ends[part], width, height, angle)
            for start, end in _gaps_of(values):
                gap = np.array([[float(polygon), angle, low + start * STEP_M, low + end * STEP_M]])
                gaps = np.concatenate((gaps, gap))
    return gaps


@compiled
def _profile(
    rows: IntArray, begins: IntArray, ends: IntArray, width: float, height: float, angle: float
) -> tuple[FloatArray, float]:
    """Return the metres of foreground across a direction, at steps along it, and where the steps begin."""
    cos, sin = np.cos(angle), np.sin(angle)
    low, high = np.inf, -np.inf
    for run in range(len(rows)):
        up = (rows[run] + 0.5) * height * sin
        one, other = begins[run] * width * cos + up, ends[run] * width * cos + up
        low, high = min(low, one, other), max(high, one, other)
    # Pixels larger than a step count as several points, or gaps would show between them.
    fine = int(np.ceil(max(width, height) / STEP_M))
    beside = (fine - 1) / (2 * fine) * height * abs(sin)
    low, high = low - beside - STEP_M, high + beside
    values = np.zeros(int((high - low) / STEP_M) + 3) if len(rows) else np.zeros(1)
    share = width * height / STEP_M / fine**2
    for run in range(len(rows)):
        for line in range(fine):
            up = (rows[run] + (line + 0.5) / fine) * height * sin
            place = ((begins[run] + 0.5 / fine) * width * cos + up - low) / STEP_M
            for _ in range(fine * (ends[run] - begins[run])):
                before = int(place)
                values[before] += (1 - place + before) * share
                values[before + 1] += (place - before) * share
                place += width * cos / STEP_M / fine
    return values, low


@compiled
def _gaps_of(values: FloatArray) -> list[tuple[float, float]]:
    """Return begin and end of each gap, in steps, deepest first."""
    found = [(0.0, 0.0) for _ in range(0)]
    count = len(values)
    area = np.cumsum(values) * STEP_M
    whole = area[-1]
    # What a gap takes away counts for the area of neither side.
    free = np.ones(count, np.bool_)
    while True:
        best, deepest, deepest_left, deepest_right = -1, MAX_SHARE, 0.0, 0.0
        for place in range(_NEAR, count - _NEAR):
            if not free[place] or area[place] < _MIN_SIDE_M2 or whole - area[place] < _MIN_SIDE_M2:
                continue
            left = values[max(0, place - _FAR) : place - _NEAR + 1].max()
            right = values[place + _NEAR : place + _FAR + 1].max()
            less = min(left, right)
            if less >= _MIN_WIDTH_M and values[place] < deepest * less:
                best, deepest, deepest_left, deepest_right = place, values[place] / less, left, right
        if best < 0:
            return found
        start, end = best, best
        while start > 0 and values[start - 1] < _EDGE_SHARE * deepest_left:
            start -= 1
        while end + 1 < count and values[end + 1] < _EDGE_SHARE * deepest_right:
            end += 1
        if end - start > _MAX_GAP_STEPS:
            free[start : end + 1] = False
            continue
        found.append((float(start), float(end)))
        for place in range(count):
            near = abs(place - best) <= 2 * _FAR
            if near or (area[best] - area[place] if place < best else area[place] - area[best]) < _MIN_SIDE_M2:
                free[place] = False
