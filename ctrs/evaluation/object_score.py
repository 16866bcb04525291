"""Scores of the objects of a class, computed once from their counts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ctrs.evaluation.protocols import plain_number
from ctrs.metrics import ObjectCounts


@dataclass(frozen=True, kw_only=True)
class ObjectScore:
    """How well the objects of a class are found; NaN where a ratio has no denominator.

    Args:
        iou: IoU from which a predicted object matches a true one.
        num_true: True objects.
        num_predicted: Predicted objects.
        num_matched: Pairs of both.
        precision: Matched share of the predicted ones.
        recall: Matched share of the true ones.
        f1: F1.
        average_precision: COCO's, the mean over IoU 0.50 to 0.95; None where confidences are not known.
        average_precision_50: At IoU 0.50, likewise.
    """

    iou: float
    num_true: int
    num_predicted: int
    num_matched: int
    precision: float
    recall: float
    f1: float
    average_precision: float | None
    average_precision_50: float | None

    @classmethod
    def of(cls, counts: ObjectCounts) -> ObjectScore:
        """Match the objects and score them."""
        matched, predicted, true = counts.counts.tolist()
        each = counts.average_precisions
        return cls(
            iou=counts.iou,
            num_true=true,
            num_predicted=predicted,
            num_matched=matched,
            precision=matched / predicted if predicted else math.nan,
            recall=matched / true if true else math.nan,
            f1=2 * matched / (predicted + true) if predicted + true else math.nan,
            average_precision=None if each is None else float(each.mean()),
            average_precision_50=None if each is None else float(each[0]),
        )

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; NaN becomes None."""
        return {
            "iou": self.iou,
            "num_true": self.num_true,
            "num_predicted": self.num_predicted,
            "num_matched": self.num_matched,
            "precision": plain_number(self.precision),
            "recall": plain_number(self.recall),
            "f1": plain_number(self.f1),
            "average_precision": None if self.average_precision is None else plain_number(self.average_precision),
            "average_precision_50": (
                None if self.average_precision_50 is None else plain_number(self.average_precision_50)
            ),
        }
