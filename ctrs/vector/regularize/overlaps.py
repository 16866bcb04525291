"""Overlaps that straight walls made are cut away: the smaller building keeps its walls, the larger one yields."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

Polygons = npt.NDArray[np.object_]
IntArray = npt.NDArray[np.int64]

GAP_M = 1e-3
"""Ground left between the two: rounding of coordinates must not make them overlap again."""

_INTERIORS_MEET = "T********"
_ROUNDS = 16
"""A cut can only take away, so that few are ever needed."""


def part_overlaps(polygons: Polygons) -> tuple[Polygons, IntArray]:
    """Return valid polygons without common interiors, and the places of those that were cut.

    Of what a cut leaves in several parts the largest stays. A larger building that would vanish cuts the smaller one.
    """
    result: npt.NDArray[Any] = polygons.copy()
    changed = np.zeros(len(result), bool)
    for _ in range(_ROUNDS):
        pairs = overlapping_pairs(result)
        if not len(pairs):
            break
        for pair in pairs.tolist():
            small, large = pair if result[pair[0]].area <= result[pair[1]].area else pair[::-1]
            if not shapely.relate_pattern(result[small], result[large], _INTERIORS_MEET):
                continue
            for keeps, yields in ((small, large), (large, small)):
                left = _cut(result[yields], result[keeps])
                if left is not None:
                    result[yields] = left
                    changed[yields] = True
                    break
    return result, np.flatnonzero(changed)


def overlapping_pairs(polygons: Polygons) -> IntArray:
    """Return the pairs of polygons whose interiors meet, each once; shape (N, 2)."""
    first, second = shapely.STRtree(polygons).query(polygons, predicate="intersects")
    once = first < second
    first, second = first[once], second[once]
    meet = shapely.relate_pattern(polygons[first], polygons[second], _INTERIORS_MEET)
    return np.column_stack([first[meet], second[meet]]).astype(np.int64)


def _cut(shape: shapely.Polygon, other: shapely.Polygon) -> shapely.Polygon | None:
    """Return the largest part of a polygon outside another, or None where there is none."""
    left = shapely.difference(shape, shapely.buffer(other, GAP_M, join_style="mitre"))
    parts = shapely.get_parts(left)
    parts = parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON]
    if not len(parts):
        return None
    largest: shapely.Polygon = parts[np.argmax(shapely.area(parts))]
    return largest if largest.is_valid and not largest.is_empty else None
