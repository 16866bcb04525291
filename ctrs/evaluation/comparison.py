"""Models against each other on the same ground: differences of their scores, paired by scene."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ctrs.errors import DataError, UsageError
from ctrs.evaluation.protocols import plain_number
from ctrs.evaluation.score_intervals import headline_counts, headline_names, headline_statistic, mean_of_known
from ctrs.evaluation.score_report import EvaluationReport
from ctrs.evaluation.score_tables import ScoreTable, score_text
from ctrs.metrics import boundary_iou_of, paired_bootstrap

KIND = "ctrs comparison"
FORMAT_VERSION = 1

Statistic = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class ScoreDifference:
    """How much higher a model scores than the reference.

    Args:
        model: The model.
        name: The score: ``mean_iou``, ``overall_accuracy``, ``boundary_iou``, or a class for its IoU.
        reference: Score of the reference.
        value: Score of the model.
        low: Lower end of the interval of ``difference``; NaN where there is none.
        high: Upper end, likewise.
        two_sided: Share of samples that speak against a difference, as in ``ctrs.metrics.PairedDifference``; NaN where
            there is none.
        scenes_better: Scenes in which the model scores higher.
        scenes_worse: Scenes in which it scores lower.
    """

    model: str
    name: str
    reference: float
    value: float
    low: float
    high: float
    two_sided: float
    scenes_better: int
    scenes_worse: int

    @property
    def difference(self) -> float:
        """Score of the model less that of the reference."""
        return self.value - self.reference

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; NaN becomes None."""
        return {
            "model": self.model,
            "score": self.name,
            "reference": plain_number(self.reference),
            "value": plain_number(self.value),
            "difference": plain_number(self.difference),
            "low": plain_number(self.low),
            "high": plain_number(self.high),
            "two_sided": plain_number(self.two_sided),
            "scenes_better": self.scenes_better,
            "scenes_worse": self.scenes_worse,
        }


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Scores of several models on the same scenes.

    Args:
        names: Names of the models, the reference first.
        reports: Their reports, likewise.
        differences: Of each model but the reference.
        samples: Bootstrap samples.
        confidence: Probability that the intervals are meant to cover.
        reason: Why there are no intervals; None where there are.
        path: Where it stands on disk; None where it was not written.
        fingerprint: Of the reports and options that it was made from.
    """

    names: tuple[str, ...]
    reports: tuple[EvaluationReport, ...]
    differences: tuple[ScoreDifference, ...]
    samples: int
    confidence: float
    reason: str | None
    path: Path | None = None
    fingerprint: str = ""

    @property
    def reference(self) -> EvaluationReport:
        """What the others are compared with."""
        return self.reports[0]

    def of(self, model: str) -> dict[str, ScoreDifference]:
        """Return the differences of a model by score."""
        return {entry.name: entry for entry in self.differences if entry.model == model}

    def summary(self) -> str:
        """Say the differences in mean IoU in one line."""
        parts = []
        for name in self.names[1:]:
            entry = self.of(name)["mean_iou"]
            between = "" if math.isnan(entry.low) else f" [{entry.low:+.3f} to {entry.high:+.3f}]"
            parts.append(f"{name} {entry.difference:+.3f}{between}")
        head = self.reference.headline
        text = f"mean IoU ({head.name}) against {self.names[0]} ({score_text(head.mean_iou)}): {', '.join(parts)}"
        return text if self.reason is None else f"{text}; no intervals: {self.reason}"

    def tables(self) -> tuple[ScoreTable, ...]:
        """Return the scores of all models, and the differences to the reference."""
        tables = [self._score_table()]
        tables += [self._difference_table(name) for name in self.names[1:]]
        openings = self._openings_table()
        return (*tables, *openings)

    def _score_table(self) -> ScoreTable:
        names = list(dict.fromkeys(entry.name for entry in self.differences))
        rows = []
        for place, name in enumerate(self.names):
            if place:
                values = [entry.value for entry in self.of(name).values()]
            else:
                values = [entry.reference for entry in self.of(self.names[1]).values()]
            rows.append((name, *map(score_text, values)))
        reference = self.reference
        what = f"{reference.split} split, {reference.headline.name}"
        return ScoreTable(title=what, header=("model", *map(score_label, names)), rows=tuple(rows))

    def _difference_table(self, name: str) -> ScoreTable:
        with_intervals = self.reason is None
        header: tuple[str, ...] = ("score", self.names[0], name, "difference")
        header += (f"{self.confidence:.0%} interval", "two-sided") if with_intervals else ()
        rows: list[tuple[str, ...]] = []
        for entry in self.of(name).values():
            row: tuple[str, ...] = (score_label(entry.name), score_text(entry.reference), score_text(entry.value))
            row += (_signed(entry.difference),)
            if with_intervals:
                ends = "–" if math.isnan(entry.low) else f"{entry.low:+.3f} to {entry.high:+.3f}"
                row += (ends, score_text(entry.two_sided))
            rows.append((*row, f"{entry.scenes_better} : {entry.scenes_worse}"))
        why = f"no intervals: {self.reason}" if self.reason is not None else f"{self.samples} paired bootstrap samples"
        num_scenes = len(self.reference.scenes)
        return ScoreTable(
            title=f"{name} against {self.names[0]}, {num_scenes} scenes, {why}",
            header=(*header, "scenes better : worse"),
            rows=tuple(rows),
        )

    def _openings_table(self) -> Iterator[ScoreTable]:
        if self.reference.test_openings is not None:
            yield ScoreTable(
                title="openings of the test split, this one included",
                header=("model", "openings"),
                rows=tuple(
                    (name, str(report.test_openings)) for name, report in zip(self.names, self.reports, strict=True)
                ),
            )

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        reference = self.reference
        return {
            "kind": KIND,
            "format_version": FORMAT_VERSION,
            "ctrs_version": reference.version,
            "fingerprint": self.fingerprint,
            "path": None if self.path is None else str(self.path),
            "data": str(reference.data),
            "split": reference.split,
            "split_hash": reference.split_hash,
            "protocol": reference.headline.name,
            "scenes": [scene.name for scene in reference.scenes],
            "models": [
                {
                    "name": name,
                    "checkpoint": None if report.checkpoint is None else str(report.checkpoint),
                    "report": None if report.path is None else str(report.path),
                    "test_openings": report.test_openings,
                    "mean_iou": plain_number(report.mean_iou),
                }
                for name, report in zip(self.names, self.reports, strict=True)
            ],
            "intervals": {"samples": self.samples, "confidence": self.confidence, "reason": self.reason},
            "differences": [entry.to_json() for entry in self.differences],
        }


def compare(
    reports: Sequence[EvaluationReport],
    *,
    samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    names: Sequence[str] | None = None,
) -> Comparison:
    """Compare reports on the same scenes with the first of them.

    Args:
        reports: Two or more.
        samples: Bootstrap samples; 0: no intervals.
        confidence: Probability to cover.
        seed: Of the draws; the same scenes are drawn for all models.
        names: What the models are called; None: by their runs.

    Raises:
        UsageError: There are fewer than two.
        DataError: They were made of other data, classes, splits or scenes.
    """
    if len(reports) < 2:
        raise UsageError(f"{len(reports)} report found, expected two or more to compare")
    called = tuple(names or model_names(reports))
    for name, report in zip(called[1:], reports[1:], strict=True):
        _check_same_ground(called[0], reports[0], name, report)
    differences: list[ScoreDifference] = []
    reason: str | None = None
    for name, report in zip(called[1:], reports[1:], strict=True):
        for scores, counts, statistic in _statistics(reports[0], report):
            paired = paired_bootstrap(
                counts[1], counts[0], statistic, samples=samples, confidence=confidence, seed=seed
            )
            reason = paired.difference.reason
            of_scenes = np.asarray(statistic(counts[1])) - np.asarray(statistic(counts[0]))
            totals = [statistic(each.sum(axis=0, keepdims=True))[0] for each in counts]
            for place, score in enumerate(scores):
                differences.append(
                    ScoreDifference(
                        model=name,
                        name=score,
                        reference=float(totals[0][place]),
                        value=float(totals[1][place]),
                        low=_at(paired.difference.low, place),
                        high=_at(paired.difference.high, place),
                        two_sided=_at(paired.two_sided, place),
                        scenes_better=int((of_scenes[:, place] > 0).sum()),
                        scenes_worse=int((of_scenes[:, place] < 0).sum()),
                    )
                )
    return Comparison(
        names=called,
        reports=tuple(reports),
        differences=tuple(differences),
        samples=samples,
        confidence=confidence,
        reason=reason,
    )


def model_names(reports: Sequence[EvaluationReport]) -> tuple[str, ...]:
    """Return a name for each model; those of the same name have their number in the row added."""
    names = [report.name for report in reports]
    return tuple(f"{name} ({place})" if names.count(name) > 1 else name for place, name in enumerate(names, 1))


def _check_same_ground(first_name: str, first: EvaluationReport, name: str, report: EvaluationReport) -> None:
    if report.classes != first.classes:
        raise DataError(
            f"{name}: classes {', '.join(report.classes.names)} found, but {first_name} has "
            f"{', '.join(first.classes.names)}, or scores others of them; compare models of one class table"
        )
    if report.split != first.split:
        raise DataError(
            f"{name}: scored on split {report.split!r}, but {first_name} on {first.split!r}; score both alike"
        )
    scenes, expected = ([scene.name for scene in entry.scenes] for entry in (report, first))
    if scenes != expected:
        raise DataError(
            f"{name}: scenes {', '.join(scenes)} found, but {first_name} was scored on {', '.join(expected)}; compare "
            "models on the same scenes"
        )
    for scene, other in zip(report.scenes, first.scenes, strict=True):
        if not np.array_equal(scene.confusions["strict"].support, other.confusions["strict"].support):
            raise DataError(
                f"{name}: scene {scene.name} has other labels, or other ground of it was scored, than with "
                f"{first_name}; score both on the same data"
            )


def _statistics(
    first: EvaluationReport, second: EvaluationReport
) -> Iterator[tuple[tuple[str, ...], tuple[npt.NDArray[Any], npt.NDArray[Any]], Statistic]]:
    """Yield names, counts by scene of both, and what makes scores of counts."""
    classes = first.classes
    counts = [
        headline_counts([scene.confusions["strict"] for scene in entry.scenes], classes) for entry in (first, second)
    ]
    yield headline_names(classes), (counts[0], counts[1]), headline_statistic(classes)
    outlines = [[scene.outlines.band_counts for scene in entry.scenes if scene.outlines] for entry in (first, second)]
    if all(len(of_scenes) == len(first.scenes) for of_scenes in outlines):
        indices = list(first.scored_indices)

        def mean_boundary_iou(counts: npt.NDArray[Any]) -> npt.NDArray[Any]:
            return mean_of_known(boundary_iou_of(counts)[:, indices])[:, None]

        yield ("boundary_iou",), (np.stack(outlines[0]), np.stack(outlines[1])), mean_boundary_iou


def _at(values: npt.NDArray[Any] | None, place: int) -> float:
    return math.nan if values is None else float(values[place])


def score_label(name: str) -> str:
    """Return what people call a score.

    >>> score_label("mean_iou"), score_label("building")
    ('mean IoU', 'IoU building')
    """
    labels = {"mean_iou": "mean IoU", "overall_accuracy": "overall accuracy", "boundary_iou": "mean boundary IoU"}
    return labels.get(name, f"IoU {name}")


def _signed(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:+.3f}"
