"""Scores, areas and differences as text for people."""

from __future__ import annotations

import math

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
