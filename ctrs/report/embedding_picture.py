"""Patch vectors on a plane, coloured by class: a panel for each run and stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ctrs.classes import ClassMap
from ctrs.report.png import save_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 100
_WIDTH_PX = 2000
_GAP_PX = 16
_HEAD_PX = 44
_TITLE_PX = 34
_FOOT_PX = 54
_LEGEND_ROW_PX = 36
_LEGEND_COLUMNS = 8
_INK = "#222222"
_GROUND = "#eeeeee"


@dataclass(frozen=True, kw_only=True)
class EmbeddingPanel:
    """One run at one stage.

    Args:
        run: Name of the run.
        loss: Its ``--loss``.
        heading: Which stage.
        points: (n, 2) on the plane; None where there are too few to lay out.
        classes: (n,) class indices.
        silhouette: From the full space, None where it can't be said.
        purity: Share of the ten nearest that are of the own class, from the full space.
        chance: What ``purity`` is where classes are strewn at random.
    """

    run: str
    loss: str
    heading: str
    points: npt.NDArray[np.float64] | None
    classes: npt.NDArray[np.int64]
    silhouette: float | None
    purity: float | None
    chance: float | None


def embedding_picture(
    path: Path,
    panels: Sequence[Sequence[EmbeddingPanel]],
    classes: ClassMap,
    *,
    title: str,
    description: dict[str, Any] | None = None,
) -> Path:
    """Draw maps of patch vectors with their numbers underneath.

    Args:
        path: PNG to write; about 2000 px wide.
        panels: By run and stage; runs stand in rows and stages in columns, runs beside each other for a single stage.
        classes: Names and colours.
        title: Heading.
        description: Kept in the file.

    Returns:
        ``path``.

    Raises:
        OutputError: The picture cannot be written.
    """
    from matplotlib.figure import Figure

    rows = [[of_run[0] for of_run in panels]] if all(len(of_run) == 1 for of_run in panels) else panels
    columns = max(2, *(len(row) for row in rows))
    panel_px = (_WIDTH_PX - _GAP_PX * (columns + 1)) / columns
    row_px = _TITLE_PX + panel_px + _FOOT_PX
    present = sorted({int(index) for row in rows for panel in row for index in panel.classes})
    legend_px = _LEGEND_ROW_PX * -(-max(1, len(present)) // _LEGEND_COLUMNS) + _GAP_PX
    total_px = _HEAD_PX + row_px * len(rows) + legend_px
    figure = Figure(figsize=(_WIDTH_PX / _DPI, total_px / _DPI), dpi=_DPI, facecolor="white")
    figure.text(_GAP_PX / _WIDTH_PX, 1 - 10 / total_px, title, va="top", fontsize=15, color=_INK, fontweight="bold")
    for number, row in enumerate(rows):
        bottom = total_px - _HEAD_PX - number * row_px - _TITLE_PX - panel_px
        for place, panel in enumerate(row):
            left = _GAP_PX + place * (panel_px + _GAP_PX)
            axes = figure.add_axes((left / _WIDTH_PX, bottom / total_px, panel_px / _WIDTH_PX, panel_px / total_px))
            _draw_panel(axes, panel, classes, large=columns == 2)
    _draw_legend(figure, classes, present)
    return save_png(figure, path, description)


def _draw_panel(axes: Axes, panel: EmbeddingPanel, classes: ClassMap, *, large: bool) -> None:
    size = 13 if large else 11
    axes.set_facecolor(_GROUND)
    axes.set_title(f"{panel.run} (loss {panel.loss}), {panel.heading}", fontsize=size, color=_INK, pad=6)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#888888")
        spine.set_linewidth(0.8)
    axes.set_xlabel(_numbers(panel), fontsize=size, color=_INK, labelpad=6)
    if panel.points is None:
        axes.text(0.5, 0.5, "too few one-class patches", ha="center", va="center", transform=axes.transAxes, color=_INK)
        return
    # In an order that has nothing to do with the class, so that none lies on top of the others.
    order = np.random.default_rng(0).permutation(len(panel.points))
    colors = np.array(classes.colors, float)[panel.classes] / 255
    x, y = panel.points[order].T
    axes.scatter(x, y, s=34 if large else 20, c=colors[order], edgecolors="#333333", linewidths=0.35)
    reach = max(float(np.ptp(x)), float(np.ptp(y)), 1e-9) * 0.54  # one scale for both directions
    axes.set_xlim((x.min() + x.max()) / 2 - reach, (x.min() + x.max()) / 2 + reach)
    axes.set_ylim((y.min() + y.max()) / 2 - reach, (y.min() + y.max()) / 2 + reach)


def _numbers(panel: EmbeddingPanel) -> str:
    text = f"{len(panel.classes)} patch{'es' * (len(panel.classes) != 1)}"
    if panel.silhouette is None or panel.purity is None or panel.chance is None:
        return text + ", no second class to compare with"
    nearest = f"10 nearest: {100 * panel.purity:.0f} % own class (chance {100 * panel.chance:.0f} %)"
    return f"silhouette {panel.silhouette:.2f}, {nearest}\n{text}"


def _draw_legend(figure: Figure, classes: ClassMap, present: Sequence[int]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [], [], linestyle="none", marker="o", markersize=11, markeredgecolor="#333333", markeredgewidth=0.6,
            markerfacecolor="#{:02x}{:02x}{:02x}".format(*classes.colors[index]), label=classes.names[index],
        )
        for index in present
    ]  # fmt: skip
    if handles:
        figure.legend(
            handles=handles,
            loc="lower center",
            ncol=min(len(handles), _LEGEND_COLUMNS),
            frameon=False,
            fontsize=13,
            labelcolor=_INK,
            handletextpad=0.4,
            columnspacing=1.8,
            borderaxespad=0.35,
        )
