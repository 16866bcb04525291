"""Scores that must be reached, for use in CI: ``--fail-under building=0.8``."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from pathlib import Path

from ctrs.classes import ClassMap
from ctrs.config import EvalConfig
from ctrs.errors import ConfigError
from ctrs.evaluation.score_report import EvaluationReport
from ctrs.evaluation.score_rows import headline_rows
from ctrs.evaluation.scoring import empty_score

Requirements = Sequence[tuple[str, float]]


def check_requirements(requirements: Requirements, classes: ClassMap, options: EvalConfig) -> None:
    """Refuse names that no score of the headline has, before time is spent.

    Args:
        requirements: Names and least values.
        classes: Class table of what will be scored.
        options: What will be counted.

    Raises:
        ConfigError: With the names there are.
    """
    if not requirements:
        return
    nothing = empty_score("", ("strict",), classes, options, mask="", confident=True)
    rows = headline_rows(EvaluationReport(scenes=(nothing,), classes=classes, data=Path()))
    known = [name for name, row in rows.items() if row.is_share]
    for name, _ in requirements:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
            some = near or [one for one in known if "." not in one]
            why = " as a share of which more is better" if name in rows else ""
            raise ConfigError(
                f"--fail-under: score {name!r} is unknown{why}; expected a class for its IoU, CLASS.METRIC or METRIC: "
                f"{', '.join(some)}{'' if near else ', ...'}"
            )


def unmet(report: EvaluationReport, requirements: Requirements) -> list[str]:
    """Return a line for each score that is below what is required, or has no value."""
    rows = headline_rows(report)
    lines: list[str] = []
    for name, least in requirements:
        row = rows.get(name)
        if row is None or math.isnan(row.value):
            lines.append(f"{report.name}: {name} has no value here, required {least:g}")
            continue
        of = f"{report.name}: {f'{row.class_name} {row.metric}'.strip()} ({row.protocol})"
        if row.value < least:
            lines.append(f"{of} is {row.value:.6g}, below the required {least:g}")
    return lines
