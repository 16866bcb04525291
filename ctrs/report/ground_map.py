"""Maps inside a page: areas of several kinds, outlines with names, a scale bar."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ctrs.report.html import Html, css_color, element, join

Ring = npt.NDArray[np.float64]
"""Corners (n, 2) of a closed line, x and y; the first is not repeated."""

_MARGIN_PX = 6.0
_FOOT_PX = 24.0
_MAX_OUTLINES = 500
"""Outlines from which on they are drawn as one, without names that are shown on hovering."""

_FINE = 10
"""Coordinates are whole tenths of a pixel."""


@dataclass(frozen=True, kw_only=True)
class MapLayer:
    """Areas of one kind.

    Args:
        name: What they are.
        rings: Their outlines.
        color: Fill and line; None hatches in grey.
        is_outlined: Whether each ring gets a line.
    """

    name: str
    rings: Sequence[Ring]
    color: tuple[int, int, int] | None
    is_outlined: bool = True


@dataclass(frozen=True, kw_only=True)
class MapOutline:
    """A named outline over the areas."""

    name: str
    ring: Ring


def ground_map(
    layers: Sequence[MapLayer],
    outlines: Sequence[MapOutline],
    *,
    key: str,
    alt: str,
    unit: str = "m",
    y_down: bool = False,
    width_px: float = 640.0,
) -> Html:
    """Draw areas and outlines on one ground.

    Args:
        layers: From bottom to top.
        outlines: Their names are written where there is room, and shown on hovering.
        key: Anchor that no other picture of the page has.
        alt: What the map shows.
        unit: Unit of x and y, for the scale bar; ``m`` becomes ``km`` where that is shorter.
        y_down: y counts downwards, as rows of a raster do.
        width_px: Width; the height follows, up to the same.
    """
    corners = np.concatenate(
        [ring for layer in layers for ring in layer.rings] + [outline.ring for outline in outlines]
    )
    low, high = corners.min(axis=0), corners.max(axis=0)
    inner = width_px - 2 * _MARGIN_PX
    span = np.maximum(high - low, 1e-12)
    scale = float(inner / span.max())
    size = span * scale
    shift = np.array([(inner - size[0]) / 2 + _MARGIN_PX, _MARGIN_PX])

    def placed(ring: Ring) -> npt.NDArray[np.int64]:
        xy = ring - low
        if not y_down:
            xy = np.column_stack([xy[:, 0], span[1] - xy[:, 1]])
        fine: npt.NDArray[np.int64] = np.rint((xy * scale + shift) * _FINE).astype(np.int64)
        return fine

    height_px = float(size[1]) + 2 * _MARGIN_PX
    parts: list[Html] = [element("title", alt), element("defs", hatching(f"{key}-hatching", scale=_FINE))]
    parts.append(element("rect", x=0.5, y=0.5, width=width_px - 1, height=height_px - 1, class_="frame"))
    parts += [_draw_layer(layer, [placed(ring) for ring in layer.rings], key) for layer in layers if layer.rings]
    lines = [(outline.name, placed(outline.ring)) for outline in outlines]
    if len(lines) <= _MAX_OUTLINES:
        parts += [_draw_outline([ring], name) for name, ring in lines]
    else:
        parts.append(_draw_outline([ring for _, ring in lines], f"{len(lines):,} outlines"))
    parts += _names(lines)
    parts.append(_scale_bar(scale, unit, width_px, height_px))
    return element(
        "svg", join(parts), viewBox=f"0 0 {width_px:.0f} {height_px + _FOOT_PX:.0f}", role="img", aria_label=alt
    )


_TENTH = f"scale({1 / _FINE})"
_THIN = {"vector_effect": "non-scaling-stroke"}


def _draw_outline(rings: Sequence[npt.NDArray[np.int64]], name: str) -> Html:
    return element("path", element("title", name), d=path_of(rings), transform=_TENTH, **_THIN, class_="outline")


def _draw_layer(layer: MapLayer, rings: Sequence[npt.NDArray[np.int64]], key: str) -> Html:
    edges = np.array([float(np.ptp(ring, axis=0).min()) for ring in rings]) / _FINE
    is_tiny = float(np.median(edges)) < 3  # lines around tiny areas would hide what they enclose
    has_lines = layer.is_outlined and not is_tiny
    color = "#8a9299" if layer.color is None else css_color(layer.color)
    return element(
        "path",
        element("title", layer.name),
        d=path_of(rings),
        transform=_TENTH,
        **_THIN,
        fill=f"url(#{key}-hatching)" if layer.color is None else color,
        fill_opacity=None if layer.color is None else 0.75 if is_tiny else 0.42,
        stroke=color if has_lines else "none",
        stroke_width=0.8 if has_lines else None,
    )


def hatching(key: str, *, scale: int = 1) -> Html:
    """Return a pattern of grey lines, for areas of which nothing is known.

    Args:
        key: Its anchor.
        scale: Units of what is filled in a pixel.
    """
    edge = 6 * scale
    lines = f"M-{scale} {scale}L{scale} -{scale}M0 {edge}L{edge} 0M{5 * scale} {7 * scale}L{7 * scale} {5 * scale}"
    stroke = element("path", d=lines, stroke="#8a9299", stroke_width=float(1.2 * scale))
    return element("pattern", stroke, id=key, patternUnits="userSpaceOnUse", width=edge, height=edge)


def path_of(rings: Iterable[npt.NDArray[np.int64]]) -> str:
    """Return closed rings of whole coordinates as a short SVG path, in relative steps.

    >>> path_of([np.array([[1, 1], [5, 1], [5, 3], [1, 3]])])
    'M1 1h4v2h-4z'
    """
    parts: list[str] = []
    for ring in rings:
        x, y = int(ring[0, 0]), int(ring[0, 1])
        parts.append(f"M{x} {y}")
        for dx, dy in np.diff(ring, axis=0).tolist():
            if dx and dy:
                parts.append(f"l{dx} {dy}")
            elif dx:
                parts.append(f"h{dx}")
            elif dy:
                parts.append(f"v{dy}")
        parts.append("z")
    return "".join(parts)


def _names(lines: Sequence[tuple[str, npt.NDArray[np.int64]]]) -> list[Html]:
    """Write names into the upper left corners of outlines that are wide enough, unless one stands there already."""
    parts: list[Html] = []
    taken: list[tuple[float, float, float, float]] = []
    for name, ring in lines:
        left, top = (ring.min(axis=0) / _FINE).tolist()
        right, bottom = (ring.max(axis=0) / _FINE).tolist()
        width = 6.8 * len(name)
        if width > right - left - 4 or bottom - top < 14:
            continue
        box = (left + 4, top + 2, left + 4 + width, top + 15)
        if any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken):
            continue
        taken.append(box)
        parts.append(element("text", name, x=float(box[0]), y=float(top + 13), class_="halo"))
    return parts


def round_length(length: float) -> float:
    """Return the greatest of 1, 2 and 5 times a power of ten that is not above a length.

    >>> round_length(87.0), round_length(0.23), round_length(5000.0)
    (50.0, 0.2, 5000.0)
    """
    power = 10.0 ** math.floor(math.log10(length) + 1e-9)
    return max(step * power for step in (1.0, 2.0, 5.0) if step * power <= length * (1 + 1e-9))


def _scale_bar(scale: float, unit: str, width_px: float, height_px: float) -> Html:
    length = round_length(width_px / 4 / scale)
    end = _MARGIN_PX + length * scale
    y = height_px + 10
    shown, name = (length / 1000, "km") if unit == "m" and length >= 1000 else (length, unit)
    return join(
        [
            element("path", d=f"M{_MARGIN_PX:.1f} {y - 4:.1f}v4H{end:.1f}v-4", class_="axis"),
            element("text", f"{shown:,.10g} {name}", x=end + 6, y=y + 2, class_="soft"),
        ]
    )
