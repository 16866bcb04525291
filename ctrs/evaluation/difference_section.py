"""The section of the report on scores that says how models differ."""

from __future__ import annotations

import math

from ctrs.evaluation.comparison import Comparison, ScoreDifference, score_label
from ctrs.evaluation.score_numbers import DASH, number, signed
from ctrs.report.html import Column, Content, Html, element, join, paragraph, table

_FEW_SCENES = 15
"""Below it, nominal 95 % intervals hold in 90 % of cases or less (simulated in the tests of the bootstrap)."""


def difference_section(comparison: Comparison) -> Html:
    """Return how the models differ from the first, paired by scene."""
    known = comparison.reason is None
    columns = [Column(title="score"), Column(title=comparison.names[0], numeric=True)]
    parts: list[Html] = []
    for name in comparison.names[1:]:
        shown = [*columns, Column(title=name, numeric=True), Column(title="difference", numeric=True)]
        if known:
            shown += [
                Column(title=f"{100 * comparison.confidence:g} % interval", numeric=True),
                Column(title="two-sided", numeric=True),
            ]
        shown.append(Column(title="scenes better : worse", numeric=True))
        rows: list[list[Content]] = []
        for entry in comparison.of(name).values():
            row: list[Content] = [score_label(entry.name), number(entry.reference), number(entry.value)]
            row.append(_judged(entry))
            if known:
                ends = DASH if math.isnan(entry.low) else f"{signed(entry.low)} to {signed(entry.high)}"
                row += [ends, number(entry.two_sided)]
            rows.append([*row, f"{entry.scenes_better:,} : {entry.scenes_worse:,}"])
        parts.append(table(shown, rows, caption=f"{name} against {comparison.names[0]}"))
    if known:
        note = (
            f"Differences over {comparison.samples:,} samples of the scenes, drawn alike for both models; green or red "
            "where the interval holds only gains or only losses. Two-sided: twice the smaller share of samples on the "
            "wrong side of 0. None of this says how the scores would vary with the seed of training."
        )
        num_scenes = len(comparison.reference.scenes)
        if num_scenes < _FEW_SCENES:
            note += f" From {num_scenes} scenes intervals come out too narrow: take no difference as settled."
    else:
        note = f"No intervals: {comparison.reason}."
    return join([*parts, paragraph(note, class_="soft")])


def _judged(entry: ScoreDifference) -> Content:
    """Return a difference, marked where its interval does not hold 0 and it is more than rounding."""
    text = signed(entry.difference)
    if abs(entry.difference) < 0.0005:
        return text
    if entry.low > 0:
        return element("span", text, class_="level good")
    return element("span", text, class_="level fault") if entry.high < 0 else text
