"""The scores that ``ctrs eval`` left beside a model, as far as a card shows them."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ctrs.jobs import hash_file
from ctrs.model_files import CheckpointFiles

logger = logging.getLogger(__name__)

KIND = "ctrs evaluation"


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """Scores of a class; None where a ratio has no denominator."""

    name: str
    iou: float | None
    f1: float | None
    precision: float | None
    recall: float | None


@dataclass(frozen=True, kw_only=True)
class ProtocolRow:
    """Scores under a protocol; None where a ratio has no denominator."""

    name: str
    mean_iou: float | None
    mean_f1: float | None
    mean_precision: float | None
    mean_recall: float | None
    overall_accuracy: float | None
    classes: tuple[ClassRow, ...]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores on whole scenes.

    Args:
        path: The report.
        split: Split that was scored, None where there is none.
        data: Name of the data.
        test_openings: How often the run opened the test split by then.
        protocols: The headline first.
    """

    path: Path
    split: str | None
    data: str
    test_openings: int | None
    protocols: tuple[ProtocolRow, ...]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**asdict(self), "path": str(self.path)}


def read_evaluations(home: Path, files: CheckpointFiles) -> tuple[Evaluation, ...]:
    """Return the evaluations of a model's very weights that lie in its run's folder; ``test`` first.

    A report says which weights it scored; one that does not is taken if it is younger than the weights. Others, and
    what is no report, are passed over, and named.

    Args:
        home: The run's folder.
        files: The model.
    """
    found = []
    for path in sorted((home / "eval").glob("*/report.json"), key=lambda path: (path.parent.name != "test", path)):
        try:
            row = json.loads(path.read_text(encoding="utf-8"))
            if row["kind"] != KIND:
                raise ValueError(f"kind {row['kind']!r}")
            entry = _from_json(row, path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s: passed over, not readable as a report (%s)", path, error)
            continue
        scored = row.get("weights")
        if scored:
            is_of_these = hash_file(files.weights).startswith(str(scored))
        else:
            is_of_these = path.stat().st_mtime >= files.weights.stat().st_mtime
        if not is_of_these:
            logger.warning("%s: passed over, it scored other weights than %s", path, files.weights)
        elif entry.protocols:
            found.append(entry)
    return tuple(found)


def _from_json(row: Mapping[str, Any], path: Path) -> Evaluation:
    return Evaluation(
        path=path,
        split=row["split"],
        data=Path(row["data"]).name,
        test_openings=row.get("test_openings"),
        protocols=tuple(
            ProtocolRow(
                **{key: entry[key] for key in ("name", "mean_iou", "mean_f1", "overall_accuracy")},
                **{key: entry.get(key) for key in ("mean_precision", "mean_recall")},
                classes=tuple(
                    ClassRow(**{key: line[key] for key in ("name", "iou", "f1", "precision", "recall")})
                    for line in entry["classes"]
                ),
            )
            for entry in row["protocols"]
        ),
    )
