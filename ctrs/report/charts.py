"""Charts inside a page: bars of shares, histograms as lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ctrs.report.html import Html, css_color, element, join

SERIES_COLORS = (
    (0x44, 0x77, 0xAA), (0xCC, 0x66, 0x11), (0x22, 0x88, 0x33), (0xAA, 0x33, 0x77), (0x00, 0x99, 0xAA),
    (0x99, 0x77, 0x00), (0x77, 0x66, 0xCC), (0x88, 0x55, 0x44),
)  # fmt: skip
"""Colours of series, one after the other, that stand out on white and on black ground."""

_BAR_PX = 24
_BAR_GAP_PX = 10
_PLOT_PX = 720


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A bar of parts: its name, its values in the order of the parts, and what stands at its end."""

    name: str
    values: tuple[float, ...]
    note: str = ""


def stacked_bars(
    bars: Sequence[Bar], names: Sequence[str], colors: Sequence[tuple[int, int, int]], *, alt: str
) -> Html:
    """Draw bars of equal length, each cut into its parts' shares.

    Args:
        bars: From top to bottom; one whose values are all 0 stays empty.
        names: Of the parts.
        colors: Of the parts.
        alt: What the chart shows.
    """
    left = 12 + 7.0 * max((len(bar.name) for bar in bars), default=0)
    right = 12 + 6.2 * max((len(bar.note) for bar in bars), default=0)
    height = len(bars) * (_BAR_PX + _BAR_GAP_PX) + 20
    parts: list[Html] = [element("title", alt)]
    for number, bar in enumerate(bars):
        top = number * (_BAR_PX + _BAR_GAP_PX)
        middle = top + _BAR_PX / 2 + 4
        parts.append(element("text", bar.name, x=left - 8, y=middle, text_anchor="end", font_size=13))
        parts.append(element("rect", x=left, y=top, width=_PLOT_PX, height=_BAR_PX, class_="frame"))
        total, done = sum(bar.values), 0.0
        for name, color, value in zip(names, colors, bar.values, strict=True):
            if not value:
                continue
            start, width = left + _PLOT_PX * done / total, _PLOT_PX * value / total
            shown = f"{bar.name}, {name}: {100 * value / total:.2f} %"
            parts.append(
                element(
                    "rect", element("title", shown), x=start, y=top, width=width, height=_BAR_PX, fill=css_color(color)
                )
            )
            if width >= 44:
                ink = "#000000" if _is_light(color) else "#ffffff"
                parts.append(
                    element(
                        "text",
                        f"{100 * value / total:.0f} %",
                        x=start + width / 2,
                        y=middle,
                        text_anchor="middle",
                        font_size=12,
                        style=f"fill:{ink}",
                    )
                )
            done += value
        parts.append(element("rect", x=left, y=top, width=_PLOT_PX, height=_BAR_PX, class_="axis"))
        parts.append(element("text", bar.note, x=left + _PLOT_PX + 8, y=middle, class_="soft", font_size=12))
    bottom = len(bars) * (_BAR_PX + _BAR_GAP_PX)
    for percent in range(0, 101, 25):
        x = left + _PLOT_PX * percent / 100
        parts.append(element("text", f"{percent} %", x=x, y=bottom + 8, text_anchor="middle", class_="soft"))
    width = left + _PLOT_PX + right
    return element(
        "svg", join(parts), viewBox=f"0 0 {width:.0f} {height:.0f}", width=round(width), role="img", aria_label=alt
    )


def _is_light(color: tuple[int, int, int]) -> bool:
    """Tell whether black is easier to read on a colour than white (relative luminance of WCAG 2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in color)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] > 0.18


@dataclass(frozen=True, kw_only=True)
class Line:
    """A series of a histogram: heights of the bins, and its colour."""

    name: str
    heights: npt.NDArray[np.float64]
    color: tuple[int, int, int]


def histogram(
    lines: Sequence[Line], low: float, high: float, *, alt: str, behind: npt.NDArray[np.float64] | None = None
) -> Html:
    """Draw histograms on one axis as lines, scaled to the highest bin.

    Args:
        lines: Each with the same number of bins.
        low: Value at which the first bin begins.
        high: Value at which the last bin ends.
        alt: What the chart shows.
        behind: Heights of a histogram to compare with, filled, scaled to its own highest bin.
    """
    width, height, foot = 216.0, 84.0, 15.0
    top = max((float(line.heights.max(initial=0)) for line in lines), default=0.0)
    parts: list[Html] = [
        element("title", alt),
        element("rect", x=0.5, y=0.5, width=width - 1, height=height - 1, class_="frame"),
    ]
    if behind is not None and behind.max(initial=0) > 0:
        outline = _steps(behind / behind.max(), width, height)
        parts.append(element("path", d=f"M0 {height:.0f}L{outline}L{width:.0f} {height:.0f}Z", class_="behind"))
    for line in lines:
        if top > 0:
            outline = _steps(line.heights / top, width, height)
            color = css_color(line.color)
            parts.append(
                element(
                    "path", element("title", line.name), d=f"M{outline}", fill="none", stroke=color, stroke_width=1.4
                )
            )
    ends = ((low, 0.0, "start"), (high, width, "end"))
    parts += [
        element("text", short_number(value), x=x, y=height + foot - 3, text_anchor=anchor, class_="soft")
        for value, x, anchor in ends
    ]
    return element("svg", join(parts), viewBox=f"0 0 {width:.0f} {height + foot:.0f}", role="img", aria_label=alt)


def _steps(heights: npt.NDArray[np.float64], width: float, height: float) -> str:
    """Return the centres of the bins' tops as points of a path."""
    xs = (np.arange(len(heights)) + 0.5) * width / len(heights)
    ys = height - heights * (height - 6)
    return " ".join(f"{x:.1f} {y:.1f}" for x, y in zip(xs.tolist(), ys.tolist(), strict=True))


def short_number(value: float) -> str:
    """Write an axis value in few signs.

    >>> short_number(255.0), short_number(0.12345), short_number(12034.0)
    ('255', '0.123', '12,034')
    """
    if float(value).is_integer() and abs(value) < 1e7:
        return f"{value:,.0f}"
    return f"{value:.3g}"
