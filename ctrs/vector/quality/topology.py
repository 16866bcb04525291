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


def party_wall_lengths(predicted: Polygons, truth: Polygons, matching: Matching) -> tuple[float, float]:
    """Return the length of true party walls, and how much of it the matched polygons share exactly.

    A party wall is the common border of two true polygons. What is shared is the common border of the two polygons
    matched with them, up to the length of the true wall; a gap or an overlap of any width makes it zero.

    Args:
        predicted: Valid polygons.
        truth: Valid polygons.
        matching: Of the two.

    Returns:
        Metres of true walls, metres shared.
    """
    first, second = shapely.STRtree(truth).query(truth, predicate="touches")
    once = first < second
    first, second = first[once], second[once]
    wanted = _common_borders(truth[first], truth[second])
    counterpart = np.full(len(truth), -1, np.int64)
    counterpart[matching.truth] = matching.predicted
    a, b = counterpart[first], counterpart[second]
    both = (a >= 0) & (b >= 0)
    shared = np.zeros(len(first))
    shared[both] = _common_borders(predicted[a[both]], predicted[b[both]])
    return float(wanted.sum()), float(np.minimum(shared, wanted).sum())


def _holes(polygons: Polygons) -> Polygons:
    parts = shapely.get_parts(polygons)
    rings = shapely.get_rings(parts)
    firsts = np.cumsum(shapely.get_num_interior_rings(parts) + 1) - shapely.get_num_interior_rings(parts) - 1
    inner = np.ones(len(rings), bool)
    inner[firsts] = False
    return np.asarray(shapely.polygons(rings[inner]), object)


def _common_borders(first: Polygons, second: Polygons) -> npt.NDArray[np.float64]:
    common = shapely.intersection(shapely.boundary(first), shapely.boundary(second))
    return np.asarray(shapely.length(common), np.float64)
