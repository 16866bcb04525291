"""A report on disk: ``report.json``, tables as CSV, the confusion matrix as a picture."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ctrs.classes import ClassMap
from ctrs.evaluation.protocols import Labels
from ctrs.evaluation.score_report import REPORT_FILE, EvaluationReport
from ctrs.evaluation.score_rows import score_rows
from ctrs.jobs import write_text
from ctrs.metrics import ConfusionMatrix
from ctrs.report.confusion_picture import confusion_picture

SCORES_FILE = "scores.csv"


def save_report(report: EvaluationReport, folder: Path, *, final: Path) -> EvaluationReport:
    """Write ``report.json``, ``scores.csv``, the confusion matrices as CSV, and a picture of that of full labels.

    Args:
        report: The scores.
        folder: Existing folder to write to.
        final: Folder in which the report will stand.

    Returns:
        The report with its ``path``.
    """
    stored = replace(report, path=final / REPORT_FILE)
    for kind, matrix in stored.confusions.items():
        write_text(folder / confusion_file(kind), _confusion_csv(matrix, stored.classes))
    write_text(folder / SCORES_FILE, _scores_csv(stored))
    title = f"{stored.split or 'masks'}, {stored.headline.labels} labels, all classes"
    confusion_picture(folder / "confusion.png", stored.confusions["strict"].counts, stored.classes.names, title)
    write_text(folder / REPORT_FILE, json.dumps(stored.to_json(), indent=1, allow_nan=False) + "\n")
    return stored


def confusion_file(kind: Labels) -> str:
    """Return the name of the table with a confusion matrix.

    >>> confusion_file("strict"), confusion_file("isprs"), confusion_file("isprs (eroded here)")
    ('confusion.csv', 'confusion_isprs.csv', 'confusion_isprs_eroded_here.csv')
    """
    return "confusion.csv" if kind == "strict" else f"confusion_{re.sub(r'[^a-z]+', '_', kind).strip('_')}.csv"


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Return rows of cells as CSV."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()


def exact_text(value: float) -> str:
    """Return a number for a table on disk: all its digits, nothing for NaN.

    >>> exact_text(0.1), exact_text(float("nan"))
    ('0.1', '')
    """
    return "" if math.isnan(value) else repr(value)


def _scores_csv(report: EvaluationReport) -> str:
    header = ("protocol", "class", "metric", "value", "low", "high")
    rows = (
        (row.protocol, row.class_name, row.metric, *map(exact_text, (row.value, row.low, row.high)))
        for row in score_rows(report)
    )
    return csv_text([header, *rows])


def _confusion_csv(matrix: ConfusionMatrix, classes: ClassMap) -> str:
    header = ["truth \\ prediction", *classes.names, "not predicted"]
    counts = matrix.counts.tolist()
    return csv_text([header, *([name, *row] for name, row in zip(classes.names, counts, strict=True))])
