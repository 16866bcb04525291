"""The sections of the report on scores beyond pixels: outlines, objects, areas, calibration."""

from __future__ import annotations

import math

import numpy as np

from ctrs.evaluation.object_score import ObjectScore
from ctrs.evaluation.score_numbers import DASH, area_text, number, signed
from ctrs.evaluation.score_report import EvaluationReport
from ctrs.evaluation.score_sections import Runs, of_each, run_colors, run_legend
from ctrs.metrics import AreaCounts, BoundaryCounts
from ctrs.report.charts import SERIES_COLORS
from ctrs.report.html import Column, Content, Html, element, figure, join, legend, paragraph, swatch, table
from ctrs.report.score_charts import Curve, curve_chart, reliability_chart
from ctrs.tiles.audit_tables import class_label


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
    parts += of_each(
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
    return join([run_legend(runs), element("div", figure(chart, None), beside, class_="charts-row")])
