"""Charts of scores inside a page: values with their intervals, curves, reliability, and the confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ctrs.report.html import Content, Html, css_color, element, join

_LEFT_PX, _TOP_PX, _FOOT_PX = 46.0, 10.0, 40.0
_DOT_ROW_PX = 17.0
_GROUP_GAP_PX = 10.0
_DOT_PLOT_PX = 620.0


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A value between 0 and 1 with the interval that covers it.

    Args:
        value: NaN where there is none.
        low: Lower end of the interval, None without one.
        high: Upper end.
    """

    value: float
    low: float | None = None
    high: float | None = None


def dot_chart(
    names: Sequence[str],
    series: Sequence[tuple[str, tuple[int, int, int], Sequence[Dot]]],
    *,
    alt: str,
    unit: str,
) -> Html:
    """Draw values with their intervals, a group of lines for each name, on one axis from 0 to 1.

    Args:
        names: Of the groups, from top to bottom.
        series: Name, colour, and a value for each group.
        alt: What the chart shows.
        unit: What the axis counts.
    """
    left = 14 + 7.8 * max((len(name) for name in names), default=0)
    group = _DOT_ROW_PX * len(series) + _GROUP_GAP_PX
    height = group * len(names)
    right = left + _DOT_PLOT_PX

    def at(value: float) -> float:
        return left + _DOT_PLOT_PX * min(1.0, max(0.0, value))

    parts: list[Html] = [element("title", alt)]
    parts.append(element("rect", x=left, y=0.0, width=_DOT_PLOT_PX, height=height, class_="frame"))
    for tenth in range(0, 11, 2):
        x = at(tenth / 10)
        if 0 < tenth < 10:
            parts.append(element("path", d=f"M{x:.1f} 0V{height:.1f}", class_="grid"))
        parts.append(element("text", f"{tenth / 10:g}", x=x, y=height + 15, text_anchor="middle", class_="soft"))
    parts.append(element("text", unit, x=right, y=height + 31, text_anchor="end", class_="soft"))
    for number, name in enumerate(names):
        top = number * group + _GROUP_GAP_PX / 2
        middle = top + _DOT_ROW_PX * len(series) / 2
        parts.append(element("text", name, x=left - 8, y=middle + 4, text_anchor="end", font_size=13))
        for place, (run, color, dots) in enumerate(series):
            dot = dots[number]
            if math.isnan(dot.value):
                continue
            y = top + _DOT_ROW_PX * (place + 0.5)
            shown = f"{run}, {name}: {dot.value:.3f}" if run else f"{name}: {dot.value:.3f}"
            ink = css_color(color)
            drawn = []
            if dot.low is not None and dot.high is not None:
                shown += f", {dot.low:.3f} to {dot.high:.3f}"
                bar = f"M{at(dot.low):.1f} {y:.1f}H{at(dot.high):.1f}M{at(dot.low):.1f} {y - 4:.1f}v8"
                drawn.append(
                    element(
                        "path", d=f"{bar}M{at(dot.high):.1f} {y - 4:.1f}v8", stroke=ink, stroke_width=2, fill="none"
                    )
                )
            drawn.append(element("circle", cx=at(dot.value), cy=y, r=4.5, fill=ink))
            # The figure stands where neither the dot nor its interval is.
            ends = at(dot.value if dot.high is None else max(dot.high, dot.value))
            begins = at(dot.value if dot.low is None else min(dot.low, dot.value))
            fits = ends + 44 < right
            drawn.append(
                element(
                    "text",
                    f"{dot.value:.3f}",
                    x=ends + 9 if fits else begins - 9,
                    y=y + 4,
                    text_anchor="start" if fits else "end",
                    font_size=12,
                )
            )
            parts.append(element("g", element("title", shown), *drawn))
    width = right + 12
    return element(
        "svg",
        join(parts),
        viewBox=f"0 0 {width:.0f} {height + 36:.0f}",
        width=round(width),
        role="img",
        aria_label=alt,
    )


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A line with marks: its points (n, 2), x and y, and its colour; points that are NaN are left out."""

    name: str
    points: npt.NDArray[np.float64]
    color: tuple[int, int, int]


def curve_chart(
    curves: Sequence[Curve],
    *,
    x_ticks: Sequence[float],
    x_title: str,
    y_title: str,
    alt: str,
    size: tuple[float, float] = (420.0, 280.0),
) -> Html:
    """Draw curves with values from 0 to 1.

    Args:
        curves: Each with points in the order of x.
        x_ticks: Places named on the axis, at least two; the first and last are its ends.
        x_title: What x is.
        y_title: What y is.
        alt: What the chart shows.
        size: Width and height of the plot in pixels.
    """
    plot = _Plot(low=x_ticks[0], high=x_ticks[-1], size=size)
    parts = [element("title", alt), *plot.frame(x_ticks, x_title, y_title)]
    for curve in curves:
        parts += plot.curve(curve)
    return plot.finish(parts, alt)


def reliability_chart(
    curves: Sequence[Curve], shares: Sequence[float] | None, *, alt: str, size: tuple[float, float] = (330.0, 330.0)
) -> Html:
    """Draw how often predictions are right (y) against how sure they were (x); on the diagonal both agree.

    Args:
        curves: Mean confidence and accuracy of the bins, from 0 to 1.
        shares: Share of the pixels in equal bins from 0 to 1, drawn below; None leaves them out.
        alt: What the chart shows.
        size: Width and height of the plot in pixels.
    """
    plot = _Plot(low=0.0, high=1.0, size=size)
    ticks = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    parts = [element("title", alt), *plot.frame(ticks, "confidence", "accuracy")]
    if shares is not None and len(shares) and max(shares) > 0:
        width = size[0] / len(shares)
        for number, share in enumerate(shares):
            high = size[1] * 0.3 * share / max(shares)
            text = (
                f"{100 * share:.2f} % of the pixels have {number / len(shares):.2f} to {(number + 1) / len(shares):.2f}"
            )
            left, top = _LEFT_PX + number * width, _TOP_PX + size[1] - high
            parts.append(
                element(
                    "rect", element("title", text), x=left + 0.5, y=top, width=width - 1, height=high, class_="behind"
                )
            )
    (x0, y0), (x1, y1) = plot.at(0, 0), plot.at(1, 1)
    parts.append(element("path", d=f"M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}", class_="ideal"))
    for curve in curves:
        parts += plot.curve(curve)
    return plot.finish(parts, alt)


@dataclass(frozen=True, kw_only=True)
class _Plot:
    """A plot with y from 0 to 1."""

    low: float
    high: float
    size: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point is drawn."""
        share = (x - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return _LEFT_PX + self.size[0] * share, _TOP_PX + self.size[1] * (1 - y)

    def frame(self, x_ticks: Sequence[float], x_title: str, y_title: str) -> list[Html]:
        """Return ground, grid and axes."""
        width, height = self.size
        bottom = _TOP_PX + height
        parts = [element("rect", x=_LEFT_PX, y=_TOP_PX, width=width, height=height, class_="frame")]
        for tenth in range(0, 11, 2):
            y = self.at(self.low, tenth / 10)[1]
            if 0 < tenth < 10:
                parts.append(element("path", d=f"M{_LEFT_PX:.1f} {y:.1f}h{width:.1f}", class_="grid"))
            parts.append(element("text", f"{tenth / 10:g}", x=_LEFT_PX - 6, y=y + 4, text_anchor="end", class_="soft"))
        for tick in x_ticks:
            x = self.at(tick, 0)[0]
            parts.append(element("path", d=f"M{x:.1f} {bottom:.1f}v4", class_="axis"))
            parts.append(element("text", f"{tick:g}", x=x, y=bottom + 16, text_anchor="middle", class_="soft"))
        parts.append(
            element("text", x_title, x=_LEFT_PX + width / 2, y=bottom + 33, text_anchor="middle", font_size=12)
        )
        turned = f"rotate(-90 12 {_TOP_PX + height / 2:.1f})"
        parts.append(
            element(
                "text", y_title, x=12.0, y=_TOP_PX + height / 2, text_anchor="middle", font_size=12, transform=turned
            )
        )
        return parts

    def curve(self, curve: Curve) -> list[Html]:
        """Return a line with a mark at each of its points."""
        held = [(float(x), float(y)) for x, y in curve.points if not (math.isnan(x) or math.isnan(y))]
        if not held:
            return []
        places = [self.at(x, y) for x, y in held]
        line = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        ink = css_color(curve.color)
        parts = [element("path", element("title", curve.name), d=f"M{line}", fill="none", stroke=ink, stroke_width=2)]
        for (x, y), (px, py) in zip(held, places, strict=True):
            shown = f"{curve.name}: {y:.3f} at {x:.3g}"
            parts.append(element("circle", element("title", shown), cx=px, cy=py, r=3.5, fill=ink))
        return parts

    def finish(self, parts: Sequence[Html], alt: str) -> Html:
        """Return the chart."""
        width, height = _LEFT_PX + self.size[0] + 14, _TOP_PX + self.size[1] + _FOOT_PX
        return element(
            "svg",
            join(parts),
            viewBox=f"0 0 {width:.0f} {height:.0f}",
            width=round(width),
            role="img",
            aria_label=alt,
        )


def confusion_table(
    counts: npt.NDArray[np.int64], names: Sequence[Content], columns: Sequence[Content], *, caption: str
) -> Html:
    """Return a confusion matrix in per cent of each row; cells are tinted, and tell their pixels on hovering.

    Args:
        counts: Pixels (rows, columns): rows true classes, columns predicted ones.
        names: Of the rows.
        columns: Of the columns.
        caption: What it shows.
    """
    head = [element("th", "truth \N{DOWNWARDS ARROW} prediction \N{RIGHTWARDS ARROW}", scope="col")]
    head += [element("th", name, scope="col", class_="num") for name in columns]
    head.append(element("th", "true pixels", scope="col", class_="num"))
    rows = []
    for number, (name, of_row) in enumerate(zip(names, counts.tolist(), strict=True)):
        total = sum(of_row)
        cells = [element("th", name, scope="row")]
        for place, pixels in enumerate(of_row):
            share = pixels / total if total else 0.0
            kind = "num heat right" if place == number else "num heat"
            shown = f"{100 * share:.1f}" if total else "\N{EN DASH}"
            cells.append(
                element("td", shown, class_=kind, title=f"{pixels:,} of {total:,} px", style=f"--share:{share:.4f}")
            )
        cells.append(element("td", f"{total:,}", class_="num"))
        rows.append(element("tr", *cells))
    shown_table = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *head)),
        element("tbody", join(rows, "\n")),
        class_="confusion",
    )
    return element("div", shown_table, class_="wide", role="region", aria_label=caption, tabindex=0)
