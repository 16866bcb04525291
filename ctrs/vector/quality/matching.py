"""Which predicted polygon stands for which true building: one to one, by falling intersection over union."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

Polygons = npt.NDArray[np.object_]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

MATCH_IOU = 0.5
"""Smallest IoU of two polygons that stand for the same building."""

_MOSTLY = 0.5
"""Share of its area above which a polygon lies in another."""


@dataclass(frozen=True, kw_only=True)
class Matching:
    """Pairs of predicted and true polygons.

    Args:
        predicted: Index of the predicted polygon of each pair, by falling IoU; shape (M,).
        truth: Index of the true polygon of each pair; shape (M,).
        iou: Intersection over union of each pair; shape (M,).
        split: True for each true polygon in which two predicted ones or more lie with more than half of their area;
            shape (T,).
        merging: True for each predicted polygon in which two true ones or more lie with more than half of their area;
            shape (P,).
    """

    predicted: IntArray
    truth: IntArray
    iou: FloatArray
    split: BoolArray
    merging: BoolArray

    def above(self, iou: float) -> Matching:
        """Return the pairs with at least this IoU."""
        kept = self.iou >= iou
        return Matching(
            predicted=self.predicted[kept],
            truth=self.truth[kept],
            iou=self.iou[kept],
            split=self.split,
            merging=self.merging,
        )


@dataclass(frozen=True, kw_only=True)
class Overlaps:
    """All pairs of a predicted and a true polygon that have area in common.

    Args:
        predicted: Index of the predicted polygon of each pair; shape (C,).
        truth: Index of the true polygon of each pair; shape (C,).
        common: Common area of each pair; shape (C,).
        iou: Intersection over union of each pair; shape (C,).
        in_truth: True where the predicted polygon lies in the true one with more than half of its area; shape (C,).
        in_predicted: True where the true polygon lies in the predicted one with more than half of its area; shape (C,).
        parts: Predicted polygons that lie in each true one with more than half of their area; shape (T,).
        members: True polygons that lie in each predicted one with more than half of their area; shape (P,).
    """

    predicted: IntArray
    truth: IntArray
    common: FloatArray
    iou: FloatArray
    in_truth: BoolArray
    in_predicted: BoolArray
    parts: IntArray
    members: IntArray

    @classmethod
    def of(cls, predicted: Polygons, truth: Polygons) -> Overlaps:
        """Find the overlaps of two sets of valid polygons, shapes (P,) and (T,)."""
        first, second = (
            index.astype(np.int64) for index in shapely.STRtree(truth).query(predicted, predicate="intersects")
        )
        common = np.asarray(shapely.area(shapely.intersection(predicted[first], truth[second])), np.float64)
        overlapping = common > 0
        first, second, common = first[overlapping], second[overlapping], common[overlapping]
        area, true_area = shapely.area(predicted)[first], shapely.area(truth)[second]
        in_truth, in_predicted = common > _MOSTLY * area, common > _MOSTLY * true_area
        return cls(
            predicted=first,
            truth=second,
            common=common,
            iou=common / (area + true_area - common),
            in_truth=in_truth,
            in_predicted=in_predicted,
            parts=np.bincount(second[in_truth], minlength=len(truth)).astype(np.int64),
            members=np.bincount(first[in_predicted], minlength=len(predicted)).astype(np.int64),
        )

    def matching(self) -> Matching:
        """Pair off by falling IoU, one to one."""
        chosen = pair_off(-self.iou, self.predicted, self.truth)
        return Matching(
            predicted=self.predicted[chosen],
            truth=self.truth[chosen],
            iou=self.iou[chosen],
            split=self.parts > 1,
            merging=self.members > 1,
        )


def match_polygons(predicted: Polygons, truth: Polygons) -> Matching:
    """Match two sets of valid polygons one to one.

    Of all pairs that overlap, the one with the highest IoU is taken, then the highest of those whose polygons are both
    free, and so on. Where predicted polygons are disjoint, and true ones are, pairs above 0.5 are the same whatever the
    order.

    Args:
        predicted: Valid polygons; shape (P,).
        truth: Valid polygons; shape (T,).
    """
    return Overlaps.of(predicted, truth).matching()


def pair_off(cost: FloatArray, first: IntArray, second: IntArray) -> IntArray:
    """Choose pairs one to one by rising cost; of equals the lower indices.

    Args:
        cost: Of each candidate; shape (C,).
        first: Index in the one set of each candidate; shape (C,).
        second: Index in the other set; shape (C,).

    Returns:
        Candidates that were chosen, by rising cost.
    """
    order = np.lexsort((second, first, cost))
    taken_first: set[int] = set()
    taken_second: set[int] = set()
    chosen: list[int] = []
    for candidate, a, b in zip(order.tolist(), first[order].tolist(), second[order].tolist(), strict=True):
        if a not in taken_first and b not in taken_second:
            taken_first.add(a)
            taken_second.add(b)
            chosen.append(candidate)
    return np.array(chosen, np.int64)
