"""What is broken in a layer: overlaps, lost courtyards, false holes, party walls that came apart."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import shapely

from ctrs.vector.quality.matching import MATCH_IOU, Matching, match_polygons

Polygons = npt.NDArray[np.object_]
IntArray = npt.NDArray[np.int64]

OVERLAP_M2 = 1e-4
"""Common area from which two polygons overlap: a square centimetre, well above rounding."""


def count_overlaps(polygons: Polygons) -> int:
    """Return the number of pairs of valid polygons with common area."""
    first, second = shapely.STRtree(polygons).query(polygons, predicate="intersects")
    once = first < second
    common = shapely.area(shapely.intersection(polygons[first[once]], polygons[second[once]]))
    return int((common > OVERLAP_M2).sum())


def count_holes(predicted: Polygons, truth: Polygons) -> tuple[int, int]:
    """Return the number of true holes that no predicted hole stands for, and of predicted holes that stand for none.

    Holes are matched one to one like polygons, from an IoU of 0.5.
    """
    found, wanted = _holes(predicted), _holes(truth)
    pairs = int((match_polygons(found, wanted).iou >= MATCH_IOU).sum())
    return len(wanted) - pairs, len(found) - pairs


def party_wall_lengths(
    predicted: Polygons, truth: Polygons, matching: Matching, *, max_turn_deg: float | None = None
) -> tuple[float, float]:
    """Return the length of true party walls, and how much of it the matched polygons share exactly.

    A party wall is the common border of two true polygons. What is shared is the common border of the two polygons
    matched with them, up to the length of the true wall; a gap or an overlap of any width makes it zero.

    Args:
        predicted: Valid polygons.
        truth: Valid polygons.
        matching: Of the two.
        max_turn_deg: Count only what runs within so many degrees of a side of the true wall; None: all.

    Returns:
        Metres of true walls, metres shared.
    """
    first, second = shapely.STRtree(truth).query(truth, predicate="touches")
    once = first < second
    first, second = first[once], second[once]
    walls = _common_borders(truth[first], truth[second])
    wanted = np.asarray(shapely.length(walls), np.float64)
    counterpart = np.full(len(truth), -1, np.int64)
    counterpart[matching.truth] = matching.predicted
    a, b = counterpart[first], counterpart[second]
    both = (a >= 0) & (b >= 0)
    shared = np.zeros(len(first))
    found = _common_borders(predicted[a[both]], predicted[b[both]])
    if max_turn_deg is None:
        shared[both] = shapely.length(found)
    else:
        shared[both] = [_parallel_length(*pair, max_turn_deg) for pair in zip(found, walls[both], strict=True)]
    return float(wanted.sum()), float(np.minimum(shared, wanted).sum())


def _holes(polygons: Polygons) -> Polygons:
    parts = shapely.get_parts(polygons)
    rings = shapely.get_rings(parts)
    firsts = np.cumsum(shapely.get_num_interior_rings(parts) + 1) - shapely.get_num_interior_rings(parts) - 1
    inner = np.ones(len(rings), bool)
    inner[firsts] = False
    return np.asarray(shapely.polygons(rings[inner]), object)


def _common_borders(first: Polygons, second: Polygons) -> Polygons:
    return np.asarray(shapely.intersection(shapely.boundary(first), shapely.boundary(second)), object)


def _parallel_length(border: shapely.Geometry, wall: shapely.Geometry, max_turn_deg: float) -> float:
    """Length of the sides of a border that run as a side of the wall does."""
    sides, model = _sides(border), _sides(wall)
    if not len(sides) or not len(model):
        return 0.0
    turn = (np.angle(sides, deg=True)[:, None] - np.angle(model, deg=True) + 90) % 180 - 90
    return float(np.abs(sides)[np.abs(turn).min(axis=1) <= max_turn_deg].sum())


def _sides(lines: shapely.Geometry) -> npt.NDArray[np.complex128]:
    xy, part = shapely.get_coordinates(shapely.get_parts(lines), return_index=True)
    steps = np.diff(xy[:, 0] + 1j * xy[:, 1])[part[1:] == part[:-1]]
    return np.asarray(steps, np.complex128)
