"""The scores of a report as tables for people."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ctrs.evaluation.protocols import ProtocolScore
    from ctrs.evaluation.score_report import EvaluationReport

MOST_CLASS_COLUMNS = 8
"""Most classes whose IoU have a column beside every protocol; the files hold those of more."""


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """A table for people: the first column holds names, the others numbers as text."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def report_tables(report: EvaluationReport) -> tuple[ScoreTable, ...]:
    """Return the classes' scores under the headline, every protocol, and what else was counted."""
    tables = [_class_table(report), _protocol_table(report), *_other_tables(report)]
    if len(report.scenes) > 1:
        tables.append(_scene_table(report))
    return tuple(tables)


def _class_table(report: EvaluationReport) -> ScoreTable:
    """Scores of the headline by class, with intervals where there are any."""
    head, bounds = report.headline, report.intervals.bounds
    rows: list[tuple[str, ...]] = []
    for entry in head.classes:
        scores = (entry.f1, entry.precision, entry.recall)
        interval = (interval_text(bounds.get(entry.name)),) if bounds else ()
        rows.append((entry.name, score_text(entry.iou), *interval, *map(score_text, scores), f"{entry.truth_px:,}"))
    means = (head.mean_f1, head.mean_precision, head.mean_recall)
    interval = (interval_text(bounds.get("mean_iou")),) if bounds else ()
    rows.append(("mean", score_text(head.mean_iou), *interval, *map(score_text, means), f"{head.num_pixels:,}"))
    what = f"{report.split} split, " if report.split else ""
    accuracy = score_text(head.overall_accuracy)
    if "overall_accuracy" in bounds:
        accuracy += f" [{interval_text(bounds['overall_accuracy'])}]"
    return ScoreTable(
        title=f"{what}{head.name}, overall accuracy {accuracy}; {report.intervals.describe()}",
        header=(
            "class",
            "IoU",
            *((f"{report.intervals.confidence:.0%} interval",) if bounds else ()),
            "F1",
            "precision",
            "recall",
            "true pixels",
        ),
        rows=tuple(rows),
    )


def _protocol_table(report: EvaluationReport) -> ScoreTable:
    names = report.classes.names if report.classes.num_classes <= MOST_CLASS_COLUMNS else ()
    return ScoreTable(
        title="every protocol",
        header=(
            "protocol", "mean IoU", "mean F1", "overall accuracy", *(f"IoU {name}" for name in names), "pixels",
        ),
        rows=tuple((entry.name, *_protocol_cells(entry, names), f"{entry.num_pixels:,}") for entry in report.protocols),
    )  # fmt: skip


def _protocol_cells(entry: ProtocolScore, names: tuple[str, ...]) -> Iterator[str]:
    yield from map(score_text, (entry.mean_iou, entry.mean_f1, entry.overall_accuracy))
    ious = {score.name: score.iou for score in entry.classes}
    yield from (score_text(ious.get(name, math.nan)) for name in names)


def _other_tables(report: EvaluationReport) -> Iterator[ScoreTable]:
    if report.outlines is not None:
        yield _outline_table(report)
    if report.objects:
        yield _object_table(report)
    if report.area is not None:
        yield _area_table(report)
    if report.calibration is not None:
        yield _calibration_table(report)


def _outline_table(report: EvaluationReport) -> ScoreTable:
    counts = report.outlines
    if counts is None:
        raise ValueError("no outlines were counted")
    columns = [counts.boundary_iou, *counts.boundary_f1]
    means = [counts.mean_boundary_iou(report.scored_indices), *counts.mean_boundary_f1(report.scored_indices)]
    names = report.classes.names
    rows = [
        (names[index], *(score_text(float(column[index])) for column in columns)) for index in report.scored_indices
    ]
    return ScoreTable(
        title="outlines, strict labels",
        header=(
            "class",
            f"boundary IoU ({counts.boundary_px} px)",
            *(f"boundary F1 ({distance:g} px)" for distance in counts.distances_px),
        ),
        rows=(*rows, ("mean", *map(score_text, means))),
    )


def _object_table(report: EvaluationReport) -> ScoreTable:
    scores = report.object_scores
    least = next(iter(scores.values())).iou
    return ScoreTable(
        title=f"objects, matched from IoU {least:g}",
        header=("class", "true", "predicted", "matched", "precision", "recall", "F1", "AP 0.50", "AP 0.50 to 0.95"),
        rows=tuple(
            (
                name,
                *(f"{number:,}" for number in (score.num_true, score.num_predicted, score.num_matched)),
                *map(score_text, (score.precision, score.recall, score.f1)),
                *map(_maybe_text, (score.average_precision_50, score.average_precision)),
            )
            for name, score in scores.items()
        ),
    )


def _area_table(report: EvaluationReport) -> ScoreTable:
    area = report.area
    if area is None:
        raise ValueError("no areas were counted")
    columns = zip(area.true_m2, area.pred_m2, area.error_m2, area.relative_error, strict=True)
    return ScoreTable(
        title="area of each class, m² on the ground",
        header=("class", "true", "predicted", "error", "error %"),
        rows=tuple(
            (
                name,
                *(f"{value:,.1f}" for value in (true, pred)),
                f"{error:+,.1f}",
                "–" if math.isnan(share) else f"{share:+.1%}",
            )
            for name, (true, pred, error, share) in zip(report.classes.names, columns, strict=True)
        ),
    )


def _calibration_table(report: EvaluationReport) -> ScoreTable:
    counts = report.calibration
    if counts is None:
        raise ValueError("no confidences were counted")
    rows = tuple(
        (f"{row.low:.2f} to {row.high:.2f}", f"{row.pixels:,}", score_text(row.confidence), score_text(row.accuracy))
        for row in counts.table
        if row.pixels
    )
    return ScoreTable(
        title=f"confidence, expected calibration error {score_text(counts.ece)}",
        header=("confidence", "pixels", "mean confidence", "accuracy"),
        rows=rows,
    )


def _scene_table(report: EvaluationReport) -> ScoreTable:
    heads = [(scene.name, report.scene_protocols(scene)[0]) for scene in report.scenes]
    return ScoreTable(
        title=f"scenes, {report.headline.name}",
        header=("scene", "mean IoU", "mean F1", "overall accuracy", "pixels"),
        rows=tuple(
            (name, *map(score_text, (head.mean_iou, head.mean_f1, head.overall_accuracy)), f"{head.num_pixels:,}")
            for name, head in heads
        ),
    )


def score_text(value: float) -> str:
    """Return a score as text.

    >>> score_text(0.81264), score_text(float("nan"))
    ('0.813', '–')
    """
    return "–" if math.isnan(value) else f"{value:.3f}"


def interval_text(ends: tuple[float, float] | None) -> str:
    """Return an interval as text.

    >>> interval_text((0.7, 0.8)), interval_text(None)
    ('0.700 to 0.800', '–')
    """
    if ends is None or math.isnan(ends[0]):
        return "–"
    return f"{score_text(ends[0])} to {score_text(ends[1])}"


def _maybe_text(value: float | None) -> str:
    return "–" if value is None else score_text(value)
