"""Learning curves of a run as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ctrs.report.png import save_png

MAIN_SERIES = ("total", "mean IoU")
"""Series drawn thick and black."""


def draw_curves(
    path: Path,
    epochs: Sequence[int],
    *,
    losses: Mapping[str, Sequence[float]],
    scores: Mapping[str, Sequence[float]],
    best_epoch: int | None = None,
    title: str = "",
) -> None:
    """Draw losses and validation scores over epochs into a PNG, which is replaced as a whole.

    Args:
        path: The picture; its folder is made.
        epochs: Numbers of the epochs.
        losses: Values by name, one for each epoch; NaN where there is none.
        scores: Likewise, from 0 to 1; empty without validation.
        best_epoch: Marked by a line.
        title: Above the picture.

    Raises:
        OutputError: The picture cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    groups = [("loss", losses)] + ([("validation", scores)] if scores else [])
    figure = Figure(figsize=(6.4 * len(groups), 4.4), dpi=100)
    for place, (label, series) in enumerate(groups, 1):
        axes = figure.add_subplot(1, len(groups), place)
        for name, values in series.items():
            main = name in MAIN_SERIES
            axes.plot(
                epochs, values, label=name, marker="." if len(epochs) < 30 else None,
                **({"color": "black", "linewidth": 2.0, "zorder": 3} if main else {"linewidth": 1.2}),
            )  # fmt: skip
        if best_epoch is not None:
            axes.axvline(best_epoch, color="0.6", linestyle=":", linewidth=1.2, label=f"best epoch {best_epoch}")
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))  # one epoch: one tick
        axes.grid(color="0.9")
        if label == "validation":
            axes.set_ylim(0, 1)
        axes.legend(fontsize="small", framealpha=0.8)
    figure.subplots_adjust(left=0.7 / figure.get_figwidth(), right=1 - 0.2 / figure.get_figwidth(), wspace=0.2)
    if title:
        figure.suptitle(title)
    save_png(figure, path)
