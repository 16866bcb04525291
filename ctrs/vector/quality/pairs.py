"""Figures of each matched pair, by which a layer is summed up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ctrs.vector.quality.angles import direction_errors, parallel_share, tangent_angle_errors
from ctrs.vector.quality.distances import boundary_iou, matched_corners, near_length, outline_distances, polis
from ctrs.vector.quality.matching import Matching
from ctrs.vector.quality.outlines import Outlines

Polygons = npt.NDArray[np.object_]
FloatArray = npt.NDArray[np.float64]

CORNER_M = 0.5
BOUNDARY_F_M = 0.5
BOUNDARY_IOU_M = 1.0


@dataclass(frozen=True, kw_only=True)
class PairScores:
    """Figures of matched pairs, as arrays over pairs by falling IoU, or as sums. Metres and degrees.

    Args:
        complexity: 1 - |N - N'| / (N + N'), N corners of all rings; shape (M,).
        corners: Corners of the predicted polygon; shape (M,).
        true_corners: Corners of the true polygon; shape (M,).
        polis_m: PoLiS distance; shape (M,).
        hausdorff_m: Symmetric Hausdorff distance; shape (M,).
        tangent_angle_error_deg: Max tangent angle error; shape (M,).
        wall_angle_error_deg: The same without corners; shape (M,).
        direction_error_deg: Of the pairs whose true polygon has a main direction.
        boundary_iou: Boundary IoU; shape (M,).
        parallel_share: Share of the predicted outlines parallel to the nearest true wall; None without pairs.
        num_near_corners: Corners matched one to one.
        near_length: Length of the predicted outlines near the true one.
        true_near_length: Length of the true outlines near the predicted one.
    """

    complexity: FloatArray
    corners: FloatArray
    true_corners: FloatArray
    polis_m: FloatArray
    hausdorff_m: FloatArray
    tangent_angle_error_deg: FloatArray
    wall_angle_error_deg: FloatArray
    direction_error_deg: FloatArray
    boundary_iou: FloatArray
    parallel_share: float | None
    num_near_corners: int
    near_length: float
    true_near_length: float

    @classmethod
    def of(cls, shapes: Polygons, areas: Polygons, reference: Polygons, matching: Matching) -> PairScores:
        """Measure the pairs of a matching.

        Args:
            shapes: Predicted polygons as they are, which gives their outlines.
            areas: The same, made valid.
            reference: True polygons.
            matching: Of the two.
        """
        ours, theirs = Outlines.of(shapes[matching.predicted]), Outlines.of(reference[matching.truth])
        count, true_count = ours.corner_counts.astype(np.float64), theirs.corner_counts.astype(np.float64)
        there, our_distances = outline_distances(ours, theirs)
        back, their_distances = outline_distances(theirs, ours)
        errors, wall_errors = tangent_angle_errors(ours, theirs)
        return cls(
            complexity=1 - np.abs(count - true_count) / (count + true_count),
            corners=count,
            true_corners=true_count,
            polis_m=polis(ours, theirs),
            hausdorff_m=np.maximum(there, back),
            tangent_angle_error_deg=errors,
            wall_angle_error_deg=wall_errors,
            direction_error_deg=direction_errors(ours, theirs),
            boundary_iou=boundary_iou(areas[matching.predicted], reference[matching.truth], BOUNDARY_IOU_M),
            parallel_share=parallel_share(ours, theirs) if len(matching.iou) else None,
            num_near_corners=matched_corners(ours, theirs, CORNER_M),
            near_length=near_length(ours, our_distances, BOUNDARY_F_M),
            true_near_length=near_length(theirs, their_distances, BOUNDARY_F_M),
        )
