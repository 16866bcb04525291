"""How far matched outlines and corners lie apart, in metres."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import shapely
from scipy.spatial import cKDTree

from ctrs.vector.quality.matching import pair_off
from ctrs.vector.quality.outlines import Outlines

Polygons = npt.NDArray[np.object_]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

SPACING_M = 0.25
"""Longest piece of the outlines on which Hausdorff distances and shares of outlines are measured."""


def polis(predicted: Outlines, truth: Outlines) -> FloatArray:
    """Return the PoLiS distance of each pair of polygons.

    Avbelj, Mueller, Bamler 2015, "A metric for polygon comparison and building extraction evaluation", equation 1: the
    mean distance from the corners of the one to the outline of the other, averaged over both directions. Corners of all
    rings count, closing corners do not.

    Args:
        predicted: Of the pairs; polygon k belongs to polygon k of the truth.
        truth: Of the pairs.
    """
    there = truth.distances(predicted.corners, predicted.owners)
    back = predicted.distances(truth.corners, truth.owners)
    return (_means(there, predicted) + _means(back, truth)) / 2


def outline_distances(one: Outlines, other: Outlines, *, spacing: float = SPACING_M) -> tuple[FloatArray, FloatArray]:
    """Return the largest distance from each outline to its counterpart.

    The larger of both directions is the Hausdorff distance, on outlines with points no further apart than ``spacing``.

    Returns:
        For each polygon; and for each piece of ``one.pieces(spacing)``, from where it begins.
    """
    wall, place, _ = one.pieces(spacing)
    distances = other.distances(one.corners[wall] + place[:, None] * one.walls[wall], one.owners[wall])
    largest = np.zeros(one.count)
    np.maximum.at(largest, one.owners[wall], distances)
    return largest, distances


def near_length(outlines: Outlines, distances: FloatArray, tolerance: float, *, spacing: float = SPACING_M) -> float:
    """Return the length of the pieces that begin within ``tolerance`` of the counterpart."""
    wall, _, share = outlines.pieces(spacing)
    return float((share * outlines.wall_lengths[wall])[distances <= tolerance].sum())


def matched_corners(predicted: Outlines, truth: Outlines, tolerance: float) -> int:
    """Return the number of corners matched one to one within matched pairs, nearest first, within ``tolerance``."""
    apart = 4.0 * tolerance  # pairs are layers of a stack, so that one tree serves all
    trees = [cKDTree(np.column_stack([outlines.corners, outlines.owners * apart])) for outlines in (predicted, truth)]
    found = trees[0].sparse_distance_matrix(trees[1], tolerance, output_type="ndarray")
    return len(pair_off(found["v"], found["i"].astype(np.int64), found["j"].astype(np.int64)))


def boundary_iou(predicted: Polygons, truth: Polygons, width: float) -> FloatArray:
    """Return the boundary IoU of each pair of valid polygons.

    Cheng et al. 2021, "Boundary IoU: improving object-centric image segmentation evaluation", equation 2: the IoU of
    the parts of both that lie within ``width`` of their own outline.
    """
    ours, theirs = (shapely.difference(shapes, shapely.buffer(shapes, -width)) for shapes in (predicted, truth))
    common = shapely.area(shapely.intersection(ours, theirs))
    whole = shapely.area(ours) + shapely.area(theirs) - common
    return np.asarray(common / whole, np.float64)


def _means(values: FloatArray, outlines: Outlines) -> FloatArray:
    sums = np.bincount(outlines.owners, values, minlength=outlines.count)
    return np.asarray(sums / np.maximum(outlines.corner_counts, 1), np.float64)
