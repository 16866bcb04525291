"""Every score of a report by name, one row for each: what tables on disk, required scores and comparisons read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctrs.evaluation.protocols import ProtocolScore
from ctrs.metrics import mean_over

if TYPE_CHECKING:
    from ctrs.evaluation.score_report import EvaluationReport

OF_STRICT_LABELS = "strict"
"""Protocol of scores that need full labels: outlines, objects, areas, confidence."""

NAN = math.nan


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """One score.

    Args:
        protocol: Labels and pixels that it counts.
        class_name: Its class; empty for means and for scores of all classes.
        metric: Its name, such as ``iou`` or ``boundary_f1@3px``.
        value: NaN where it is not defined.
        low: Lower end of its confidence interval; NaN where there is none.
        high: Upper end, likewise.
        is_share: Whether it is a share of 1 of which more is better.
    """

    protocol: str
    class_name: str
    metric: str
    value: float
    low: float = NAN
    high: float = NAN
    is_share: bool = True

    @property
    def name(self) -> str:
        """Name by which a score of the headline is asked for: ``building.f1``, ``building`` for its IoU, ``mean_iou``.

        >>> ScoreRow(protocol="strict", class_name="building", metric="iou", value=0.5).name
        'building'
        >>> ScoreRow(protocol="strict", class_name="building", metric="object_f1", value=0.5).name
        'building.object_f1'
        """
        if not self.class_name:
            return self.metric
        return self.class_name if self.metric == "iou" else f"{self.class_name}.{self.metric}"


def score_rows(report: EvaluationReport) -> tuple[ScoreRow, ...]:
    """Return all scores of a report, the headline first."""
    return tuple(_all_rows(report))


def headline_rows(report: EvaluationReport) -> dict[str, ScoreRow]:
    """Return the scores of the headline, and those of outlines, objects, areas and confidence, by name."""
    protocols = {report.headline.name, OF_STRICT_LABELS}
    return {row.name: row for row in score_rows(report) if row.protocol in protocols}


def _all_rows(report: EvaluationReport) -> Iterator[ScoreRow]:
    for entry in report.protocols:
        yield from _pixel_rows(report, entry)
    yield from _outline_rows(report)
    yield from _object_rows(report)
    yield from _area_rows(report)
    if report.calibration is not None:
        yield _strict("", "ece", report.calibration.ece, is_share=False)


def _pixel_rows(report: EvaluationReport, entry: ProtocolScore) -> Iterator[ScoreRow]:
    bounds = report.intervals.bounds if entry.name == report.headline.name else {}
    means = {
        "mean_iou": entry.mean_iou,
        "mean_f1": entry.mean_f1,
        "mean_precision": entry.mean_precision,
        "mean_recall": entry.mean_recall,
        "overall_accuracy": entry.overall_accuracy,
    }
    for metric, value in means.items():
        low, high = bounds.get(metric, (NAN, NAN))
        yield ScoreRow(protocol=entry.name, class_name="", metric=metric, value=value, low=low, high=high)
    for score in entry.classes:
        shares = {"iou": score.iou, "f1": score.f1, "precision": score.precision, "recall": score.recall}
        for metric, value in shares.items():
            low, high = bounds.get(score.name, (NAN, NAN)) if metric == "iou" else (NAN, NAN)
            yield ScoreRow(protocol=entry.name, class_name=score.name, metric=metric, value=value, low=low, high=high)


def _outline_rows(report: EvaluationReport) -> Iterator[ScoreRow]:
    counts = report.outlines
    if counts is None:
        return
    tables = {"boundary_iou": counts.boundary_iou}
    for distance, scores in zip(counts.distances_px, counts.boundary_f1, strict=True):
        tables[f"boundary_f1@{distance:g}px"] = scores
    for metric, scores in tables.items():
        yield _strict("", metric, mean_over(scores, report.scored_indices))
        for index in report.scored_indices:
            yield _strict(report.classes.names[index], metric, float(scores[index]))


def _object_rows(report: EvaluationReport) -> Iterator[ScoreRow]:
    for name, score in report.object_scores.items():
        yield _strict(name, "object_precision", score.precision)
        yield _strict(name, "object_recall", score.recall)
        yield _strict(name, "object_f1", score.f1)
        if score.average_precision is not None and score.average_precision_50 is not None:
            yield _strict(name, "object_ap", score.average_precision)
            yield _strict(name, "object_ap50", score.average_precision_50)


def _area_rows(report: EvaluationReport) -> Iterator[ScoreRow]:
    if report.area is None:
        return
    table = {
        "true_area_m2": report.area.true_m2,
        "predicted_area_m2": report.area.pred_m2,
        "area_error_m2": report.area.error_m2,
        "relative_area_error": report.area.relative_error,
    }
    for metric, values in table.items():
        for name, value in zip(report.classes.names, values.tolist(), strict=True):
            yield _strict(name, metric, value, is_share=False)


def _strict(class_name: str, metric: str, value: float, *, is_share: bool = True) -> ScoreRow:
    return ScoreRow(
        protocol=OF_STRICT_LABELS, class_name=class_name, metric=metric, value=float(value), is_share=is_share
    )
