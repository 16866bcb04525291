"""The sections of the report on scores of pixels, of one run or of several side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

from ctrs.evaluation.protocols import ClassScore
from ctrs.evaluation.score_numbers import DASH, bounds_text, number
from ctrs.evaluation.score_report import EvaluationReport
from ctrs.metrics import ConfusionMatrix
from ctrs.metrics.confusion import Counts
from ctrs.report.charts import SERIES_COLORS
from ctrs.report.html import Column, Content, Html, details, element, join, legend, paragraph, swatch, table
from ctrs.report.score_charts import Dot, confusion_table, dot_chart
from ctrs.tiles.audit_tables import class_label, more

Runs = Mapping[str, EvaluationReport]
"""Reports by the names under which they are shown, of the same scenes and classes."""

MAX_ROWS = 500
"""Most rows of a table; ``report.json`` holds all."""


def only(runs: Runs) -> EvaluationReport | None:
    """Return the run, None where there are several."""
    return next(iter(runs.values())) if len(runs) == 1 else None


def run_colors(runs: Runs) -> dict[str, tuple[int, int, int]]:
    """Return the colour of each run."""
    return {name: SERIES_COLORS[place % len(SERIES_COLORS)] for place, name in enumerate(runs)}


def run_legend(runs: Runs) -> Html:
    """Return the colours of several runs, nothing for one."""
    if len(runs) == 1:
        return Html()
    return legend((swatch(color), name) for name, color in run_colors(runs).items())


def _first(runs: Runs) -> EvaluationReport:
    return next(iter(runs.values()))


_Headline = tuple[str, Callable[[EvaluationReport], float], str | None]


def _headlines(runs: Runs) -> list[_Headline]:
    """Return name, value, and name of the interval of what stands first."""
    found: list[_Headline] = [
        ("mean IoU", lambda report: report.mean_iou, "mean_iou"),
        ("mean F1", lambda report: report.headline.mean_f1, None),
        ("overall accuracy", lambda report: report.headline.overall_accuracy, "overall_accuracy"),
    ]
    if any(report.outlines is not None for report in runs.values()):
        found.append(("mean Boundary IoU", _mean_boundary_iou, None))
    first = _first(runs)
    found += [(f"{name}: object F1", partial(_object_f1, name), None) for name in first.object_scores]
    if any(report.calibration is not None for report in runs.values()):
        found.append(("ECE", _ece, None))
    return found


def _mean_boundary_iou(report: EvaluationReport) -> float:
    return math.nan if report.outlines is None else report.outlines.mean_boundary_iou(report.scored_indices)


def _object_f1(name: str, report: EvaluationReport) -> float:
    return report.object_scores[name].f1 if name in report.object_scores else math.nan


def _ece(report: EvaluationReport) -> float:
    return math.nan if report.calibration is None else report.calibration.ece


def headline_figures(runs: Runs) -> Html:
    """Return the figures that stand first: as cards, or as a table of several runs."""
    headlines = _headlines(runs)
    report = only(runs)
    if report is not None:
        cards = [_card(report, headline) for headline in headlines]
        return join([element("ul", *cards, class_="cards"), paragraph(_about_intervals(report), class_="soft")])
    columns = [Column(title="run"), *(Column(title=name, numeric=True) for name, _, _ in headlines)]
    colors = run_colors(runs)
    rows = [
        [
            join([swatch(colors[name]), "\N{NO-BREAK SPACE}", name]),
            *(_with_bounds(entry, read(entry), key) for _, read, key in headlines),
        ]
        for name, entry in runs.items()
    ]
    caption = f"{_first(runs).headline.name}; in brackets the intervals"
    return join([table(columns, rows, caption=caption), paragraph(_about_intervals(_first(runs)), class_="soft")])


def _card(report: EvaluationReport, headline: _Headline) -> Html:
    name, read, key = headline
    bounds = bounds_text(report.intervals.bounds.get(key)) if key is not None else ""
    return element(
        "li",
        element("span", name, class_="name"),
        element("span", number(read(report)), class_="figure"),
        element("span", bounds, class_="interval") if bounds else None,
    )


def _with_bounds(report: EvaluationReport, value: float, key: str | None) -> Content:
    bounds = bounds_text(report.intervals.bounds.get(key)) if key is not None else ""
    return join([number(value), " ", element("span", f"[{bounds}]", class_="soft")]) if bounds else number(value)


def _about_intervals(report: EvaluationReport) -> str:
    text = report.intervals.describe()
    return f"{text[0].upper()}{text[1:]}."


def class_section(runs: Runs) -> Html:
    """Return the scores of each class under the headline, drawn and as tables."""
    first = _first(runs)
    names = [entry.name for entry in first.headline.classes]
    colors = run_colors(runs)
    series = []
    for name, report in runs.items():
        dots = []
        for entry in report.headline.classes:
            low, high = report.intervals.bounds.get(entry.name, (math.nan, math.nan))
            known = not (math.isnan(low) or math.isnan(high))
            dots.append(Dot(value=entry.iou, low=low if known else None, high=high if known else None))
        series.append(("" if len(runs) == 1 else name, colors[name], dots))
    chart = dot_chart(names, series, alt="IoU of each class; the numbers stand in the table below", unit="IoU")
    parts = [run_legend(runs), element("div", chart, class_="wide")]
    parts += of_each({name: _class_table(report) for name, report in runs.items()}, "all scores of each class")
    return join(parts)


def of_each(tables: Mapping[str, Html], what: str) -> list[Html]:
    """Return the table of one run, or those of several, folded away."""
    if len(tables) == 1:
        return list(tables.values())
    return [details(f"{name}: {what}", shown) for name, shown in tables.items()]


def _class_table(report: EvaluationReport) -> Html:
    head = report.headline
    fields: list[tuple[str, Callable[[int, ClassScore], Content]]] = [
        ("IoU", lambda _, entry: number(entry.iou)),
    ]
    if report.intervals.bounds:
        fields.append(("interval of IoU", lambda _, entry: bounds_text(report.intervals.bounds.get(entry.name))))
    fields += [
        ("F1", lambda _, entry: number(entry.f1)),
        ("precision", lambda _, entry: number(entry.precision)),
        ("recall", lambda _, entry: number(entry.recall)),
    ]
    outlines = report.outlines
    if outlines is not None:
        boundary = outlines.boundary_iou
        fields.append(("Boundary IoU", lambda index, _: number(float(boundary[index]))))
    fields += [
        ("true pixels", lambda _, entry: f"{entry.truth_px:,}"),
        ("predicted pixels", lambda _, entry: f"{entry.predicted_px:,}"),
    ]
    learnt = report.classes.learnt
    rows: list[list[Content]] = []
    for entry in head.classes:
        index = report.classes.index(entry.name)
        rows.append([class_label(learnt[index]), *(read(index, entry) for _, read in fields)])
    means: dict[str, Content] = {
        "IoU": number(head.mean_iou),
        "interval of IoU": bounds_text(report.intervals.bounds.get("mean_iou")),
        "F1": number(head.mean_f1),
        "precision": number(head.mean_precision),
        "recall": number(head.mean_recall),
        "Boundary IoU": number(_mean_boundary_iou(report)),
        "true pixels": f"{head.num_pixels:,}",
    }
    columns = [Column(title="class"), *(Column(title=name, numeric=True) for name, _ in fields)]
    caption = f"{head.name}, overall accuracy {number(head.overall_accuracy)}"
    return table(columns, rows, caption=caption, foot=["mean", *(means.get(name, "") for name, _ in fields)])


def protocol_table(runs: Runs) -> Html:
    """Return the scores under every protocol, side by side."""
    columns = [Column(title="protocol")]
    for name in runs:
        of = "" if len(runs) == 1 else f"{name}: "
        columns += [Column(title=f"{of}{title}", numeric=True) for title in ("mean IoU", "mean F1", "overall accuracy")]
    columns.append(Column(title="pixels", numeric=True))
    first = _first(runs)
    rows: list[list[Content]] = []
    for place, entry in enumerate(first.protocols):
        row: list[Content] = [join([entry.name, element("strong", " (headline)")]) if place == 0 else entry.name]
        for report in runs.values():
            same = next((found for found in report.protocols if found.name == entry.name), None)
            row += [DASH] * 3 if same is None else [
                number(same.mean_iou), number(same.mean_f1), number(same.overall_accuracy)
            ]  # fmt: skip
        rows.append([*row, f"{entry.num_pixels:,}"])
    meaning = paragraph(
        "A protocol says which labels are the truth and which pixels count: strict labels are the full ones, isprs "
        "those with eroded class borders. Figures of two protocols do not compare.",
        class_="soft",
    )
    return join([table(columns, rows, caption="The same masks under every protocol"), meaning])


def confusion_section(runs: Runs) -> Html:
    """Return the confusion matrices: full labels at once, others folded away."""
    parts: list[Html] = []
    for name, report in runs.items():
        for kind, matrix in report.confusions.items():
            drawn = _confusion(report, matrix, f"{'' if len(runs) == 1 else f'{name}: '}{kind} labels, all classes")
            parts.append(drawn if kind == "strict" else details(f"With {kind} labels", drawn))
    note = paragraph(
        "Cells: per cent of the row's true pixels; point at one for its pixels. Rows without true pixels stay empty.",
        class_="soft",
    )
    return join([*parts, note])


def _confusion(report: EvaluationReport, matrix: ConfusionMatrix, caption: str) -> Html:
    labels = [class_label(entry) for entry in report.classes.learnt]
    counts: Counts = matrix.counts
    columns: list[Content] = [*labels, "not predicted"]
    if not counts[:, -1].any():
        counts, columns = counts[:, :-1], list(labels)
    return confusion_table(counts, labels, columns, caption=caption)


def scene_section(runs: Runs) -> Html:
    """Return a row for each scene."""
    first, alone = _first(runs), only(runs)
    titles = ["mean IoU", "mean F1", "overall accuracy"] if alone is not None else ["mean IoU", "overall accuracy"]
    columns = [Column(title="scene")]
    for name in runs:
        of = "" if len(runs) == 1 else f"{name}: "
        columns += [Column(title=f"{of}{title}", numeric=True) for title in titles]
    if alone is not None:
        columns += [Column(title=f"IoU {entry.name}", numeric=True) for entry in alone.headline.classes]
    columns.append(Column(title="pixels", numeric=True))
    rows: list[list[Content]] = []
    for place, scene in enumerate(first.scenes[:MAX_ROWS]):
        row: list[Content] = [scene.name]
        for report in runs.values():
            head = report.scene_protocols(report.scenes[place])[0]
            means = {"mean IoU": head.mean_iou, "mean F1": head.mean_f1, "overall accuracy": head.overall_accuracy}
            row += [number(means[title]) for title in titles]
            if alone is not None:
                row += [number(entry.iou) for entry in head.classes]
        rows.append([*row, f"{first.scene_protocols(scene)[0].num_pixels:,}"])
    shown = table(columns, rows, caption=first.headline.name, is_dense=len(columns) > 7)
    notes = [(scene.name, note) for report in runs.values() for scene in report.scenes for note in scene.notes]
    parts = [shown, more(len(first.scenes), MAX_ROWS, "scene")]
    parts += [paragraph(f"{name}: {note}.", class_="soft") for name, note in dict.fromkeys(notes[:20])]
    return join(parts)
