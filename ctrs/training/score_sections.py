"""The tables and charts of the report on scores, of one run or of several side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from ctrs.metrics import AreaCounts, BoundaryCounts, ConfusionMatrix
from ctrs.metrics.confusion import Counts
from ctrs.report.charts import SERIES_COLORS
from ctrs.report.html import Column, Content, Html, details, element, figure, join, legend, paragraph, swatch, table
from ctrs.report.score_charts import Curve, Dot, confusion_table, curve_chart, dot_chart, reliability_chart
from ctrs.tiles.audit_tables import class_label, more
from ctrs.training.comparison import Comparison, ScoreDifference, score_label
from ctrs.training.object_score import ObjectScore
from ctrs.training.protocols import ClassScore
from ctrs.training.score_report import EvaluationReport

Runs = Mapping[str, EvaluationReport]
"""Reports by the names under which they are shown, of the same scenes and classes."""

MAX_ROWS = 500
"""Most rows of a table; ``report.json`` holds all."""

DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"


def number(value: float | None) -> str:
    """Write a score.

    >>> number(0.81249), number(float("nan")), number(None)
    ('0.812', '–', '–')
    """
    return DASH if value is None or math.isnan(value) else f"{value:.3f}"


def area_text(square_metres: float) -> str:
    """Write an area in m² with as many digits as tell something.

    >>> area_text(123456.7), area_text(-3.21), area_text(float("nan"))
    ('123,457', '−3.2', '–')
    """
    if math.isnan(square_metres):
        return DASH
    shown = f"{square_metres:,.0f}" if abs(square_metres) >= 100 else f"{square_metres:,.1f}"
    return shown.replace("-", MINUS)


def signed(value: float, digits: str = ".3f") -> str:
    """Write a difference with its sign.

    >>> signed(0.0123), signed(-0.5), signed(-0.0001), signed(float("nan"))
    ('+0.012', '−0.500', '0.000', '–')
    """
    if math.isnan(value):
        return DASH
    text = f"{value:+{digits}}"
    return text.replace("-", MINUS) if text.strip("+-0.") else text[1:]


def bounds_text(ends: tuple[float, float] | None) -> str:
    """Write an interval, nothing where there is none.

    >>> bounds_text((0.71, 0.8)), bounds_text(None)
    ('0.710 to 0.800', '')
    """
    if ends is None or math.isnan(ends[0]) or math.isnan(ends[1]):
        return ""
    return f"{number(ends[0])} to {number(ends[1])}"


def only(runs: Runs) -> EvaluationReport | None:
    """Return the run, None where there are several."""
    return next(iter(runs.values())) if len(runs) == 1 else None


def run_colors(runs: Runs) -> dict[str, tuple[int, int, int]]:
    """Return the colour of each run."""
    return {name: SERIES_COLORS[place % len(SERIES_COLORS)] for place, name in enumerate(runs)}


def _run_legend(runs: Runs) -> Html:
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
    parts = [_run_legend(runs), element("div", chart, class_="wide")]
    parts += _of_each({name: _class_table(report) for name, report in runs.items()}, "all scores of each class")
    return join(parts)


def _of_each(tables: Mapping[str, Html], what: str) -> list[Html]:
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


def boundary_section(runs: Runs) -> Html:
    """Return boundary F1 by distance and Boundary IoU."""
    known = {name: report.outlines for name, report in runs.items() if report.outlines is not None}
    if not known:
        return paragraph("Outlines were not scored.")
    distances = next(iter(known.values())).distances_px
    parts: list[Html] = []
    if len(distances) > 1:
        curves = _boundary_curves(runs)
        order = sorted(distances)
        ticks = [0.0, *order]
        shown = curve_chart(
            curves, x_ticks=ticks, x_title="distance in pixels", y_title="boundary F1",
            alt="Boundary F1 by distance; the numbers stand in the table below",
        )  # fmt: skip
        marks = legend((swatch(curve.color), curve.name) for curve in curves)
        parts += [marks, element("div", shown, class_="wide")]
    parts += _of_each(
        {name: _boundary_table(runs[name], counts) for name, counts in known.items()}, "outlines of each class"
    )
    parts.append(
        paragraph(
            "Boundary F1: an outline pixel counts as found if one of the other mask lies within the distance. Boundary "
            "IoU (Cheng et al. 2021) compares the pixels of each class that lie close to its outlines.",
            class_="soft",
        )
    )
    return join(parts)


def _boundary_curves(runs: Runs) -> list[Curve]:
    """Return a curve for each class of one run, or for each run the mean over the classes."""
    curves: list[Curve] = []
    colors = run_colors(runs)
    for name, report in runs.items():
        counts = report.outlines
        if counts is None:
            continue
        xs = np.array(counts.distances_px)
        if len(runs) > 1:
            lines = {name: (np.array(counts.mean_boundary_f1(report.scored_indices)), colors[name])}
        else:
            lines = {
                report.classes.names[index]: (counts.boundary_f1[:, index], SERIES_COLORS[place % len(SERIES_COLORS)])
                for place, index in enumerate(report.scored_indices)
            }
        for title, (values, color) in lines.items():
            points = np.column_stack([xs, values])
            curves.append(Curve(name=title, points=points[np.argsort(xs)], color=color))
    return curves


def _boundary_table(report: EvaluationReport, counts: BoundaryCounts) -> Html:
    columns = [Column(title="class"), Column(title="Boundary IoU", numeric=True)]
    columns += [Column(title=f"F1 at {distance:g} px", numeric=True) for distance in counts.distances_px]
    rows: list[list[Content]] = [
        [
            class_label(report.classes.learnt[index]),
            number(float(counts.boundary_iou[index])),
            *(number(float(scores[index])) for scores in counts.boundary_f1),
        ]
        for index in report.scored_indices
    ]
    foot: list[Content] = [
        "mean",
        number(counts.mean_boundary_iou(report.scored_indices)),
        *(number(mean) for mean in counts.mean_boundary_f1(report.scored_indices)),
    ]
    caption = f"Boundary IoU in a band of {counts.boundary_px} px, boundary F1 by distance; strict labels"
    return table(columns, rows, caption=caption, foot=foot)


def object_section(runs: Runs) -> Html:
    """Return the scores of connected areas matched as objects."""
    rows: list[list[Content]] = []
    for name, report in runs.items():
        for class_name, score in report.object_scores.items():
            rows.append([*([name] if len(runs) > 1 else []), *_object_row(report, class_name, score)])
    if not rows:
        return paragraph("No class was matched as objects.")
    iou = next(score.iou for report in runs.values() for score in report.object_scores.values())
    titles = ["true", "predicted", "matched", "precision", "recall", "F1", "AP", "AP50"]
    columns = [*([Column(title="run")] if len(runs) > 1 else []), Column(title="class")]
    columns += [Column(title=title, numeric=True) for title in titles]
    meaning = paragraph(
        f"Objects are connected areas of a class; a predicted one matches a true one from an IoU of {iou:g}. AP: mean "
        "over the IoUs 0.50, 0.55, ... 0.95 as COCO has it, objects ranked by their mean confidence; without "
        "confidences there is none.",
        class_="soft",
    )
    return join([table(columns, rows, caption=f"Objects, matched from IoU {iou:g}; strict labels"), meaning])


def _object_row(report: EvaluationReport, name: str, score: ObjectScore) -> list[Content]:
    label = class_label(report.classes.learnt[report.classes.index(name)])
    counts = (f"{value:,}" for value in (score.num_true, score.num_predicted, score.num_matched))
    shares = (score.precision, score.recall, score.f1, score.average_precision, score.average_precision_50)
    return [label, *counts, *map(number, shares)]


def area_section(runs: Runs) -> Html:
    """Return the ground area of each class, true and predicted."""
    parts = [
        _area_table(report, report.area, "" if len(runs) == 1 else f"{name}: ")
        for name, report in runs.items()
        if report.area is not None
    ]
    if not parts:
        return paragraph("Areas in square metres need scenes with a CRS.")
    meaning = paragraph(
        "Area of the pixels that have a true class. Misses and false alarms cancel: this is the error of an "
        "inventory, not of a map.",
        class_="soft",
    )
    return join([*parts, meaning])


def _area_table(report: EvaluationReport, area: AreaCounts, prefix: str) -> Html:
    rows: list[list[Content]] = []
    values = zip(
        report.classes.learnt,
        area.true_m2.tolist(),
        area.pred_m2.tolist(),
        area.error_m2.tolist(),
        area.relative_error.tolist(),
        strict=True,
    )
    for entry, true, pred, error, relative in values:
        error_text = f"{'+' if error > 0 else ''}{area_text(error)}"
        share = DASH if math.isnan(relative) else f"{signed(100 * relative, '.1f')} %"
        rows.append([class_label(entry), area_text(true), area_text(pred), error_text, share])
    titles = ("true, m²", "predicted, m²", "error, m²", "relative error")
    columns = [Column(title="class"), *(Column(title=title, numeric=True) for title in titles)]
    return table(columns, rows, caption=f"{prefix}ground area by class; strict labels")


def calibration_section(runs: Runs) -> Html:
    """Return how honest the confidences are."""
    known = {name: report.calibration for name, report in runs.items() if report.calibration is not None}
    if not known:
        return paragraph("The masks came without confidences.")
    colors = run_colors(runs)
    curves = [
        Curve(
            name=name if len(runs) > 1 else "accuracy",
            points=np.array([(row.confidence, row.accuracy) for row in counts.table]),
            color=colors[name],
        )
        for name, counts in known.items()
    ]
    shares = None
    if len(known) == 1:
        (counts,) = known.values()
        pixels = [row.pixels for row in counts.table]
        shares = [px / max(1, sum(pixels)) for px in pixels]
    chart = reliability_chart(curves, shares, alt="Accuracy of the pixels by confidence; the diagonal is honest")
    rows = [[name, number(counts.ece), f"{int(counts.pixels.sum()):,}"] for name, counts in known.items()]
    columns = [Column(title="run"), Column(title="ECE", numeric=True), Column(title="pixels", numeric=True)]
    note = (
        "Below the diagonal a network is surer than it is right. Expected calibration error (Guo et al. 2017): mean "
        "distance from the diagonal, each bin weighted by its pixels"
        + ("; grey: share of the pixels in each bin." if shares else ".")
    )
    beside = element("div", table(columns, rows, caption="Expected calibration error"), paragraph(note, class_="soft"))
    return join([_run_legend(runs), element("div", figure(chart, None), beside, class_="charts-row")])


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
            "where the interval holds only gains or only losses. Two-sided: what share of the samples speaks against a "
            "difference. None of this says how the scores would vary with the seed of training."
        )
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
