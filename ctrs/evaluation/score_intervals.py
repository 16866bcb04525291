"""How far scores would move if other scenes had been scored: intervals by bootstrap over scenes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ctrs.classes import ClassMap
from ctrs.metrics import ConfusionMatrix, accuracy_of, bootstrap_interval, iou_of

ShareTable = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ScoreIntervals:
    """Confidence intervals of headline scores.

    Args:
        bounds: Lower and upper end by name: ``mean_iou``, ``overall_accuracy``, and each class for its IoU.
        samples: Bootstrap samples.
        confidence: Probability that they are meant to cover.
        num_scenes: Scenes that were drawn from.
        reason: Why there are none; None where there are.
    """

    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    samples: int = 0
    confidence: float = 0.95
    num_scenes: int = 0
    reason: str | None = "scenes were not resampled"

    def describe(self) -> str:
        """Say in a few words what the intervals are, or why there are none."""
        if self.reason is not None:
            return f"no confidence intervals: {self.reason}"
        return f"{self.confidence:.0%} intervals over {self.num_scenes} scenes, {self.samples} bootstrap samples"

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; an end that is not defined becomes None."""
        return {
            "samples": self.samples,
            "confidence": self.confidence,
            "num_scenes": self.num_scenes,
            "reason": self.reason,
            "bounds": {name: [None if np.isnan(end) else end for end in ends] for name, ends in self.bounds.items()},
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> ScoreIntervals:
        """Build from ``to_json`` output."""
        bounds = {
            name: (float("nan") if low is None else low, float("nan") if high is None else high)
            for name, (low, high) in row["bounds"].items()
        }
        return cls(**{**row, "bounds": bounds})


def score_intervals(
    matrices: Sequence[ConfusionMatrix], classes: ClassMap, *, samples: int, confidence: float, seed: int
) -> ScoreIntervals:
    """Return the intervals of the headline's scores.

    Args:
        matrices: Of each scene, with full labels.
        classes: Class table of the matrices.
        samples: Bootstrap samples; 0: no intervals.
        confidence: Probability to cover.
        seed: Of the draws.
    """
    interval = bootstrap_interval(
        headline_counts(matrices, classes),
        headline_statistic(classes),
        samples=samples,
        confidence=confidence,
        seed=seed,
    )
    bounds: dict[str, tuple[float, float]] = {}
    if interval.low is not None and interval.high is not None:
        ends = zip(interval.low.tolist(), interval.high.tolist(), strict=True)
        bounds = dict(zip(headline_names(classes), ends, strict=True))
    return ScoreIntervals(
        bounds=bounds,
        samples=samples,
        confidence=confidence,
        num_scenes=len(matrices),
        reason=interval.reason,
    )


def headline_indices(classes: ClassMap) -> tuple[int, ...]:
    """Return the classes over which the headline's means go: those that are scored, or all where none is."""
    return classes.scored_indices or tuple(range(classes.num_classes))


def headline_names(classes: ClassMap) -> tuple[str, ...]:
    """Return the names of what ``headline_statistic`` returns."""
    return ("mean_iou", "overall_accuracy", *(classes.names[index] for index in headline_indices(classes)))


def headline_counts(matrices: Sequence[ConfusionMatrix], classes: ClassMap) -> npt.NDArray[np.int64]:
    """Return the headline's counts of each scene, (S, K, K + 1): only pixels whose true class is scored."""
    indices = headline_indices(classes)
    return np.stack([matrix.with_truth(indices).counts for matrix in matrices])


def headline_statistic(classes: ClassMap) -> Callable[[npt.NDArray[Any]], ShareTable]:
    """Return what makes mean IoU, overall accuracy and the IoU of each class, (B, 2 + K), of counts (B, K, K + 1)."""
    indices = list(headline_indices(classes))

    def statistic(counts: npt.NDArray[Any]) -> ShareTable:
        iou = iou_of(counts)[:, indices]
        return np.column_stack([mean_of_known(iou), accuracy_of(counts), iou])

    return statistic


def mean_of_known(scores: npt.NDArray[Any]) -> ShareTable:
    """Return the mean over the last axis of what is not NaN, NaN where nothing is left.

    >>> mean_of_known(np.array([[0.5, np.nan], [np.nan, np.nan]])).tolist()
    [0.5, nan]
    """
    known = ~np.isnan(scores)
    counts = known.sum(axis=-1)
    means: ShareTable = np.divide(
        np.where(known, scores, 0).sum(axis=-1), counts, out=np.full(counts.shape, np.nan), where=counts > 0
    )
    return means
