"""Rectangles of pixels: where two overlap, and the same one counted from another corner."""

from __future__ import annotations

from ctrs.raster.windows import PixelWindow


def overlap(one: PixelWindow, other: PixelWindow) -> PixelWindow | None:
    """Return what two windows have in common, None where that is nothing.

    >>> left, right = (PixelWindow(col_off=col, row_off=0, width=6, height=4) for col in (0, 5))
    >>> overlap(left, right)
    PixelWindow(col_off=5, row_off=0, width=1, height=4)
    """
    left, top = max(one.col_off, other.col_off), max(one.row_off, other.row_off)
    right = min(one.col_off + one.width, other.col_off + other.width)
    bottom = min(one.row_off + one.height, other.row_off + other.height)
    if right <= left or bottom <= top:
        return None
    return PixelWindow(col_off=left, row_off=top, width=right - left, height=bottom - top)


def moved(window: PixelWindow, rows: int, cols: int) -> PixelWindow:
    """Return a window so many rows further down and columns further right."""
    return PixelWindow(
        col_off=window.col_off + cols, row_off=window.row_off + rows, width=window.width, height=window.height
    )


def counted_from(window: PixelWindow, other: PixelWindow) -> PixelWindow:
    """Return a window in the pixels of another, whose corner is then 0, 0.

    >>> counted_from(PixelWindow(col_off=7, row_off=5, width=2, height=2),
    ...              PixelWindow(col_off=4, row_off=5, width=9, height=9))
    PixelWindow(col_off=3, row_off=0, width=2, height=2)
    """
    return moved(window, -other.row_off, -other.col_off)
