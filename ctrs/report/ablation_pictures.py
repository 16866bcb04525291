"""An ablation as pictures: gains with their intervals, and learning curves over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ctrs.report.png import save_png


@dataclass(frozen=True, kw_only=True)
class GainPoint:
    """A gain in mean IoU.

    Args:
        place: Where it stands: a number, or the name of a variant.
        mean: The gain.
        low: Lower end of its interval; NaN where there is none.
        high: Upper end, likewise.
    """

    place: float | str
    mean: float
    low: float
    high: float


def draw_gains(path: Path, gains: Mapping[str, Sequence[GainPoint]], *, axis: str, reference: str, title: str) -> None:
    """Draw gains in points of mean IoU over a setting, one line for each loss, into a PNG.

    Args:
        path: The picture, which is replaced as a whole.
        gains: Points by loss.
        axis: What the places are; empty where each loss has one point.
        reference: What the gains are over.
        title: Above the picture.

    Raises:
        OutputError: The picture cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.4), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(0, color="0.3", linewidth=1.0)
    places = list(dict.fromkeys(point.place for points in gains.values() for point in points))
    shared = len(places) < sum(map(len, gains.values()))  # by several losses, which stand side by side there
    numeric = all(isinstance(place, float) for place in places)
    for number, (loss, points) in enumerate(gains.items()):
        aside = (number - (len(gains) - 1) / 2) * 0.5 / len(gains) if axis or shared else 0.0
        x: list[float] = []
        points = sorted(points, key=lambda point: point.place) if numeric else points
        for point in points:
            if isinstance(point.place, float):
                x.append(point.place * (1.02 ** (number - (len(gains) - 1) / 2)))
            else:
                x.append(places.index(point.place) + aside)
        means = np.array([point.mean for point in points])
        reach = np.array([[point.mean - point.low, point.high - point.mean] for point in points]).T
        bars = None if np.isnan(reach).all() else 100 * np.nan_to_num(reach)
        axes.errorbar(
            x, 100 * means, yerr=bars, marker="o", markersize=4, capsize=3, linewidth=1.2,
            linestyle="-" if numeric else "none", label=loss,
        )  # fmt: skip
    if numeric:
        spread = [place for place in places if isinstance(place, float)]
        if min(spread) > 0 and max(spread) / min(spread) >= 8:
            axes.set_xscale("log")
        axes.set_xticks(spread, [f"{place:g}" for place in spread])
        axes.minorticks_off()
    else:
        axes.set_xticks(range(len(places)), [str(place) for place in places])
    axes.set_xlabel(axis)
    axes.set_ylabel(f"gain over {reference}, points of mean IoU")
    axes.grid(axis="y", color="0.9")
    if axis or shared:  # else each loss is named below its point
        figure.legend(fontsize="small", loc="outside right upper")
    axes.set_title(title, fontsize="medium")
    save_png(figure, path)


def draw_learning_curves(path: Path, curves: Mapping[str, Sequence[Sequence[float]]], *, title: str) -> None:
    """Draw validation scores over epochs, the mean over seeds with the band from the lowest to the highest, into a PNG.

    Args:
        path: The picture, which is replaced as a whole.
        curves: Mean IoU of each epoch of each seed, by loss; NaN where there is none.
        title: Above the picture.

    Raises:
        OutputError: The picture cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7.0, 4.4), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    for loss, seeds in curves.items():
        length = min(len(seed) for seed in seeds)  # a run that stopped early ends the mean
        values = np.array([list(seed[:length]) for seed in seeds])
        epochs = np.arange(1, length + 1)
        [line] = axes.plot(epochs, values.mean(axis=0), label=loss, linewidth=1.4)
        axes.fill_between(
            epochs, values.min(axis=0), values.max(axis=0), color=line.get_color(), alpha=0.12, linewidth=0
        )
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation mean IoU")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(color="0.9")
    figure.legend(fontsize="small", loc="outside right upper")
    axes.set_title(title, fontsize="medium")
    save_png(figure, path)
