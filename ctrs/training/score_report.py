"""What evaluation returns and keeps: confusion matrices of each scene, and all that is derived from them."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np

import ctrs
from ctrs.classes import ClassMap
from ctrs.errors import CtrsError, DataError
from ctrs.jobs import write_text
from ctrs.metrics import ConfusionMatrix
from ctrs.report.pictures import confusion_picture
from ctrs.training.protocols import Labels, ProtocolScore, plain_number, score_protocols

KIND = "ctrs evaluation"
FORMAT_VERSION = 1
REPORT_FILE = "report.json"


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """A table for people: the first column holds names, the others numbers as text."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class SceneScore:
    """One scene's pixels.

    Args:
        name: Name of the scene.
        confusions: Confusion matrix over all pixels, for each kind of labels.
        mask: The predicted mask, relative to the report where it lies beside it.
    """

    name: str
    confusions: Mapping[Labels, ConfusionMatrix]
    mask: str


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """Scores of a network or a mask over whole scenes, under every protocol (``ctrs.training.protocols``).

    Args:
        scenes: Each scene's pixels.
        classes: Class table of the truth.
        split: Split that was scored; None where masks were scored that others made.
        reason: Why this split, in a few words.
        checkpoint: Checkpoint folder, None where masks were scored.
        data: Prepared data, or the truth that masks were compared with.
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
    checkpoint: Path | None = None
    data: Path
    seconds: float = 0.0
    test_openings: int | None = None
    path: Path | None = None
    fingerprint: str = ""
    version: str = field(default=ctrs.__version__)

    @property
    def labels(self) -> tuple[Labels, ...]:
        """Kinds of labels that all scenes have, ``strict`` first."""
        kinds: tuple[Labels, ...] = ("strict", "isprs")
        return tuple(kind for kind in kinds if all(kind in scene.confusions for scene in self.scenes))

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
        text = f"{what}: mean IoU {_score_text(self.mean_iou)} ({self.headline.name})"
        if self.test_openings is not None:
            text += f"; opening {self.test_openings} of the test split by this run"
        return text

    def tables(self) -> tuple[ScoreTable, ...]:
        """Return the classes' scores under the headline, all protocols, and, if there are several, the scenes."""
        what = f"{self.split} split, " if self.split else ""
        tables = [self._class_table(what), self._protocol_table()]
        if len(self.scenes) > 1:
            tables.append(self._scene_table())
        return tuple(tables)

    def _class_table(self, what: str) -> ScoreTable:
        head = self.headline
        rows = [
            (entry.name, *map(_score_text, (entry.iou, entry.f1, entry.precision, entry.recall)), f"{entry.truth_px:,}")
            for entry in head.classes
        ]
        means = map(_score_text, (head.mean_iou, head.mean_f1, head.mean_precision, head.mean_recall))
        return ScoreTable(
            title=f"{what}{head.name}, overall accuracy {_score_text(head.overall_accuracy)}",
            header=("class", "IoU", "F1", "precision", "recall", "true pixels"),
            rows=(*rows, ("mean", *means, f"{head.num_pixels:,}")),
        )

    def _protocol_table(self) -> ScoreTable:
        return ScoreTable(
            title="every protocol",
            header=("protocol", "mean IoU", "mean F1", "overall accuracy", "pixels"),
            rows=tuple(
                (
                    entry.name,
                    *map(_score_text, (entry.mean_iou, entry.mean_f1, entry.overall_accuracy)),
                    f"{entry.num_pixels:,}",
                )
                for entry in self.protocols
            ),
        )

    def _scene_table(self) -> ScoreTable:
        heads = [(scene.name, self.scene_protocols(scene)[0]) for scene in self.scenes]
        return ScoreTable(
            title=f"scenes, {self.headline.name}",
            header=("scene", "mean IoU", "mean F1", "overall accuracy", "pixels"),
            rows=tuple(
                (
                    name,
                    *map(_score_text, (head.mean_iou, head.mean_f1, head.overall_accuracy)),
                    f"{head.num_pixels:,}",
                )
                for name, head in heads
            ),
        )

    def to_json(self) -> dict[str, Any]:
        """Return JSON values: scores under every protocol, confusion matrices, and the same for each scene."""
        return {
            "kind": KIND,
            "format_version": FORMAT_VERSION,
            "ctrs_version": self.version,
            "fingerprint": self.fingerprint,
            "path": None if self.path is None else str(self.path),
            "checkpoint": None if self.checkpoint is None else str(self.checkpoint),
            "data": str(self.data),
            "split": self.split,
            "reason": self.reason,
            "test_openings": self.test_openings,
            "seconds": round(self.seconds, 3),
            "headline": {"protocol": self.headline.name, "mean_iou": plain_number(self.mean_iou)},
            "protocols": [entry.to_json() for entry in self.protocols],
            "confusion": {kind: matrix.counts.tolist() for kind, matrix in self.confusions.items()},
            "scenes": [self._scene_to_json(scene) for scene in self.scenes],
            "classes": self.classes.to_json(),
        }

    def _scene_to_json(self, scene: SceneScore) -> dict[str, Any]:
        heads = self.scene_protocols(scene)
        return {
            "name": scene.name,
            "mask": scene.mask,
            "protocols": [
                {
                    "name": head.name,
                    "mean_iou": plain_number(head.mean_iou),
                    "mean_f1": plain_number(head.mean_f1),
                    "overall_accuracy": plain_number(head.overall_accuracy),
                    "iou": {entry.name: plain_number(entry.iou) for entry in head.classes},
                }
                for head in heads
            ],
            "confusion": {kind: matrix.counts.tolist() for kind, matrix in scene.confusions.items()},
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any], *, where: str = "report") -> EvaluationReport:
        """Build from ``to_json`` output; scores are computed again from the confusion matrices.

        Raises:
            DataError: It is no report, or one of a newer format.
        """
        if row.get("kind") != KIND or row.get("format_version") != FORMAT_VERSION:
            raise DataError(
                f"{where}: kind {row.get('kind')!r}, format_version {row.get('format_version')!r} found, "
                f"expected {KIND!r}, {FORMAT_VERSION}; evaluate again with --overwrite"
            )
        try:
            return cls(
                scenes=tuple(
                    SceneScore(
                        name=scene["name"],
                        mask=scene["mask"],
                        confusions={
                            cast(Labels, kind): ConfusionMatrix.from_counts(np.array(counts, np.int64))
                            for kind, counts in scene["confusion"].items()
                        },
                    )
                    for scene in row["scenes"]
                ),
                classes=ClassMap.from_json(row["classes"], where=where),
                split=row["split"],
                reason=row["reason"],
                checkpoint=None if row["checkpoint"] is None else Path(row["checkpoint"]),
                data=Path(row["data"]),
                seconds=row["seconds"],
                test_openings=row["test_openings"],
                path=None if row["path"] is None else Path(row["path"]),
                fingerprint=row["fingerprint"],
                version=row["ctrs_version"],
            )
        except (KeyError, TypeError, ValueError, CtrsError) as error:
            raise DataError(f"{where}: {error} is missing or wrong; evaluate again with --overwrite") from error

    def save(self, folder: Path, *, final: Path) -> None:
        """Write ``report.json``, the confusion matrices as CSV, and a picture of the headline's labels.

        Args:
            folder: Existing folder to write to.
            final: Folder in which the report will stand, which ``path`` names.
        """
        stored = replace(self, path=final / REPORT_FILE)
        text = json.dumps(stored.to_json(), indent=1, allow_nan=False)
        for kind, matrix in self.confusions.items():
            write_text(folder / confusion_file(kind), _confusion_csv(matrix, self.classes))
        title = f"{self.split or 'masks'}, {self.headline.labels} labels, all classes"
        confusion_picture(folder / "confusion.png", self.confusions["strict"].counts, self.classes.names, title)
        write_text(folder / REPORT_FILE, text + "\n")


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


def confusion_file(kind: Labels) -> str:
    """Return the name of the table with a confusion matrix.

    >>> confusion_file("strict"), confusion_file("isprs")
    ('confusion.csv', 'confusion_isprs.csv')
    """
    return "confusion.csv" if kind == "strict" else f"confusion_{kind}.csv"


def _confusion_csv(matrix: ConfusionMatrix, classes: ClassMap) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["truth \\ prediction", *classes.names, "not predicted"])
    for name, counts in zip(classes.names, matrix.counts.tolist(), strict=True):
        writer.writerow([name, *counts])
    return stream.getvalue()


def _score_text(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"
