"""What evaluation returns and keeps: the counts of each scene, and all that is derived from them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import ctrs
from ctrs.classes import ClassMap
from ctrs.errors import CtrsError, DataError
from ctrs.evaluation.object_score import ObjectScore
from ctrs.evaluation.protocols import LABELS, Labels, ProtocolScore, plain_number, score_protocols
from ctrs.evaluation.scene_score import SceneScore
from ctrs.evaluation.score_intervals import ScoreIntervals, headline_indices
from ctrs.evaluation.score_tables import ScoreTable, report_tables, score_text
from ctrs.metrics import AreaCounts, BoundaryCounts, CalibrationCounts, ConfusionMatrix, ObjectCounts

KIND = "ctrs evaluation"
FORMAT_VERSION = 2
READABLE_VERSIONS = (1, 2)
"""Format 1 held scores of pixels only."""

REPORT_FILE = "report.json"


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """Scores of a network or a mask over whole scenes, under every protocol (``ctrs.evaluation.protocols``).

    Args:
        scenes: Each scene's counts.
        classes: Class table of the truth.
        split: Split that was scored; None where masks were scored that others made.
        reason: Why this split, in a few words.
        split_hash: Of the data as the checkpoint saw them: which ground is in which split.
        checkpoint: Checkpoint folder, None where masks were scored.
        weights: Hash of its weights, empty where masks were scored.
        data: Prepared data, or the truth that masks were compared with.
        intervals: Confidence intervals over scenes, or why there are none.
        seconds: Duration, mapping included.
        test_openings: How often the test split of these data was opened by this run, this time included; None where
            another split was scored.
        path: The report's file, None where none was written.
        fingerprint: Of the job.
        version: Of ctrs.
    """

    scenes: tuple[SceneScore, ...]
    classes: ClassMap
    split: str | None = None
    reason: str = ""
    split_hash: str = ""
    checkpoint: Path | None = None
    weights: str = ""
    data: Path
    intervals: ScoreIntervals = field(default_factory=ScoreIntervals)
    seconds: float = 0.0
    test_openings: int | None = None
    path: Path | None = None
    fingerprint: str = ""
    version: str = field(default=ctrs.__version__)

    @property
    def name(self) -> str:
        """What was scored, in a word or two: the run, the checkpoint, or the mask."""
        if self.checkpoint is None:
            return self.scenes[0].name if len(self.scenes) == 1 else f"{len(self.scenes)} masks"
        folder = self.checkpoint.absolute()
        return folder.parent.name if folder.name == "best" else f"{folder.parent.name}/{folder.name}"

    @property
    def labels(self) -> tuple[Labels, ...]:
        """Kinds of labels that all scenes have, ``strict`` first."""
        return tuple(kind for kind in LABELS if all(kind in scene.confusions for scene in self.scenes))

    @property
    def scored_indices(self) -> tuple[int, ...]:
        """Classes over which the headline's means go."""
        return headline_indices(self.classes)

    @cached_property
    def confusions(self) -> Mapping[Labels, ConfusionMatrix]:
        """Confusion matrix over the pixels of all scenes, for each kind of labels."""
        totals: dict[Labels, ConfusionMatrix] = {}
        for kind in self.labels:
            totals[kind] = ConfusionMatrix(self.classes.num_classes)
            for scene in self.scenes:
                totals[kind].merge(scene.confusions[kind])
        return totals

    @cached_property
    def outlines(self) -> BoundaryCounts | None:
        """Counts along the outlines of all scenes; None where only pixels were scored."""
        total: BoundaryCounts | None = None
        for scene in self.scenes:
            if scene.outlines is None:
                return None
            total = scene.outlines if total is None else total + scene.outlines
        return total

    @cached_property
    def objects(self) -> Mapping[str, ObjectCounts]:
        """Counts of the objects of all scenes, by class."""
        totals: dict[str, ObjectCounts] = {}
        for scene in self.scenes:
            for name, counts in scene.objects.items():
                totals[name] = totals[name] + counts if name in totals else counts
        return totals

    @cached_property
    def object_scores(self) -> Mapping[str, ObjectScore]:
        """Scores of the objects of all scenes, by class."""
        return {name: ObjectScore.of(counts) for name, counts in self.objects.items()}

    @cached_property
    def area(self) -> AreaCounts | None:
        """Ground area by class over all scenes; None where a scene's pixels have no size in metres."""
        total: AreaCounts | None = None
        for scene in self.scenes:
            if scene.area is None:
                return None
            total = scene.area if total is None else total + scene.area
        return total

    @cached_property
    def calibration(self) -> CalibrationCounts | None:
        """Confidence against correctness over all scenes; None where a scene has no confidence."""
        total: CalibrationCounts | None = None
        for scene in self.scenes:
            if scene.calibration is None:
                return None
            total = scene.calibration if total is None else total + scene.calibration
        return total

    @cached_property
    def protocols(self) -> tuple[ProtocolScore, ...]:
        """Scores under every protocol, the headline first."""
        return score_protocols(self.confusions, self.classes)

    @property
    def headline(self) -> ProtocolScore:
        """Scores with full labels, without unscored classes."""
        return self.protocols[0]

    @property
    def mean_iou(self) -> float:
        """Mean IoU of the headline."""
        return self.headline.mean_iou

    def protocol(self, name: str) -> ProtocolScore:
        """Return the scores under a protocol by name.

        Raises:
            KeyError: These data do not allow it.
        """
        for entry in self.protocols:
            if entry.name == name:
                return entry
        raise KeyError(name)

    def scene_protocols(self, scene: SceneScore) -> tuple[ProtocolScore, ...]:
        """Return the scores of one scene under every protocol."""
        return score_protocols({kind: scene.confusions[kind] for kind in self.labels}, self.classes)

    def summary(self) -> str:
        """Say the headline in one line."""
        what = f"{self.split} split of {self.data.name} ({self.reason})" if self.split else f"against {self.data.name}"
        low, high = self.intervals.bounds.get("mean_iou", (None, None))
        between = "" if low is None or high is None else f" [{score_text(low)} to {score_text(high)}]"
        text = f"{what}: mean IoU {score_text(self.mean_iou)}{between} ({self.headline.name})"
        if self.test_openings is not None:
            text += f"; opening {self.test_openings} of the test split by this run"
        return text

    def tables(self) -> tuple[ScoreTable, ...]:
        """Return all scores as tables for people."""
        return report_tables(self)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values: scores under every protocol and of every kind, and the counts of each scene."""
        return {
            "kind": KIND,
            "format_version": FORMAT_VERSION,
            "ctrs_version": self.version,
            "fingerprint": self.fingerprint,
            "path": None if self.path is None else str(self.path),
            "checkpoint": None if self.checkpoint is None else str(self.checkpoint),
            "weights": self.weights,
            "data": str(self.data),
            "split": self.split,
            "reason": self.reason,
            "split_hash": self.split_hash,
            "test_openings": self.test_openings,
            "seconds": round(self.seconds, 3),
            "headline": {"protocol": self.headline.name, "mean_iou": plain_number(self.mean_iou)},
            "intervals": self.intervals.to_json(),
            "protocols": [entry.to_json() for entry in self.protocols],
            "outlines": self._outlines_to_json(),
            "objects": self._objects_to_json(),
            "area": self._area_to_json(),
            "calibration": self._calibration_to_json(),
            "confusion": {kind: matrix.counts.tolist() for kind, matrix in self.confusions.items()},
            "scenes": [self._scene_to_json(scene) for scene in self.scenes],
            "classes": self.classes.to_json(),
        }

    def _by_class(self, values: Any) -> dict[str, float | None]:
        return {name: plain_number(value) for name, value in zip(self.classes.names, values.tolist(), strict=True)}

    def _outlines_to_json(self) -> dict[str, Any] | None:
        counts = self.outlines
        if counts is None:
            return None
        return {
            "boundary_px": counts.boundary_px,
            "mean_boundary_iou": plain_number(counts.mean_boundary_iou(self.scored_indices)),
            "boundary_iou": self._by_class(counts.boundary_iou),
            "boundary_f1": [
                {"distance_px": distance, "mean": plain_number(mean), "classes": self._by_class(scores)}
                for distance, mean, scores in zip(
                    counts.distances_px,
                    counts.mean_boundary_f1(self.scored_indices),
                    counts.boundary_f1,
                    strict=True,
                )
            ],
        }

    def _objects_to_json(self) -> dict[str, Any]:
        return {name: score.to_json() for name, score in self.object_scores.items()}

    def _area_to_json(self) -> dict[str, Any] | None:
        if self.area is None:
            return None
        return {
            "true_m2": self._by_class(self.area.true_m2),
            "predicted_m2": self._by_class(self.area.pred_m2),
            "error_m2": self._by_class(self.area.error_m2),
            "relative_error": self._by_class(self.area.relative_error),
        }

    def _calibration_to_json(self) -> dict[str, Any] | None:
        if self.calibration is None:
            return None
        return {
            "ece": plain_number(self.calibration.ece),
            "bins": [
                {
                    "low": row.low,
                    "high": row.high,
                    "pixels": row.pixels,
                    "accuracy": plain_number(row.accuracy),
                    "confidence": plain_number(row.confidence),
                }
                for row in self.calibration.table
            ],
        }

    def _scene_to_json(self, scene: SceneScore) -> dict[str, Any]:
        heads = self.scene_protocols(scene)
        scores = [
            {
                "name": head.name,
                "mean_iou": plain_number(head.mean_iou),
                "mean_f1": plain_number(head.mean_f1),
                "overall_accuracy": plain_number(head.overall_accuracy),
                "iou": {entry.name: plain_number(entry.iou) for entry in head.classes},
            }
            for head in heads
        ]
        return {"name": scene.name, "mask": scene.mask, "protocols": scores, **scene.to_json()}

    @classmethod
    def from_json(cls, row: Mapping[str, Any], *, where: str = "report") -> EvaluationReport:
        """Build from ``to_json`` output; scores are computed again from the counts.

        Raises:
            DataError: It is no report, or one of a newer format.
        """
        if row.get("kind") != KIND or row.get("format_version") not in READABLE_VERSIONS:
            raise DataError(
                f"{where}: kind {row.get('kind')!r}, format_version {row.get('format_version')!r} found, "
                f"expected {KIND!r}, {FORMAT_VERSION}; evaluate again with --overwrite"
            )
        try:
            return cls(
                scenes=tuple(SceneScore.from_json(scene) for scene in row["scenes"]),
                classes=ClassMap.from_json(row["classes"], where=where),
                split=row["split"],
                reason=row["reason"],
                split_hash=row.get("split_hash", ""),
                checkpoint=None if row["checkpoint"] is None else Path(row["checkpoint"]),
                weights=row.get("weights", ""),
                data=Path(row["data"]),
                intervals=ScoreIntervals.from_json(row["intervals"]) if "intervals" in row else ScoreIntervals(),
                seconds=row["seconds"],
                test_openings=row["test_openings"],
                path=None if row["path"] is None else Path(row["path"]),
                fingerprint=row["fingerprint"],
                version=row["ctrs_version"],
            )
        except (KeyError, TypeError, ValueError, AttributeError, CtrsError) as error:
            raise DataError(f"{where}: {error} is missing or wrong; evaluate again with --overwrite") from error


def read_report(path: Path) -> EvaluationReport:
    """Read a ``report.json``.

    Raises:
        DataError: It is not readable as a report.
    """
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable as a report ({error}); evaluate again with --overwrite") from error
    if not isinstance(row, Mapping):
        raise DataError(f"{path}: no report found; evaluate again with --overwrite")
    return EvaluationReport.from_json(row, where=str(path))
