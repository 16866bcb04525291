"""Sliding windows over a raster: integers only, no I/O."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ctrs.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class PixelWindow:
    """A rectangle of pixels, in rasterio's spelling."""

    col_off: int
    row_off: int
    width: int
    height: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns as slices of a (..., H, W) array."""
        return (
            slice(self.row_off, self.row_off + self.height),
            slice(self.col_off, self.col_off + self.width),
        )


def window_starts(length: int, size: int, stride: int) -> list[int]:
    """Return the first pixels of windows that cover ``length`` pixels; the last one is shifted inwards.

    There are ``ceil((length - size) / stride) + 1`` of them, the least that the stride allows; a line shorter than
    a window has one, at 0.

    >>> window_starts(1000, 512, 384)
    [0, 384, 488]
    >>> window_starts(300, 512, 384)
    [0]

    Raises:
        UsageError: A number is not positive, or the stride exceeds the size and would leave gaps.
    """
    if length < 1 or size < 1 or stride < 1:
        raise UsageError(f"windows: length {length}, size {size}, stride {stride} found, expected positive numbers")
    if stride > size:
        raise UsageError(f"windows: stride {stride} exceeds size {size} and would leave gaps; choose a smaller stride")
    if length <= size:
        return [0]
    return [*range(0, length - size, stride), length - size]


def spread_starts(length: int, size: int, stride: int) -> list[int]:
    """Return as many first pixels as ``window_starts``, but spread evenly: no overlap is much larger than the others.

    >>> spread_starts(1000, 512, 384)
    [0, 244, 488]
    >>> spread_starts(300, 512, 384)
    [0]

    Raises:
        UsageError: As ``window_starts``.
    """
    steps = len(window_starts(length, size, stride)) - 1
    return [0, *((2 * step * (length - size) + steps) // (2 * steps) for step in range(1, steps + 1))]


def sliding_windows(height: int, width: int, size: int, stride: int) -> Iterator[PixelWindow]:
    """Yield square windows row by row, shifted inwards at the far borders and never larger than the raster.

    Args:
        height: Raster rows.
        width: Raster columns.
        size: Window edge in pixels.
        stride: Step between windows in pixels, at most ``size``.
    """
    for row_off in window_starts(height, size, stride):
        for col_off in window_starts(width, size, stride):
            yield PixelWindow(col_off=col_off, row_off=row_off, width=min(size, width), height=min(size, height))


def stride_for_overlap(size: int, overlap: float) -> int:
    """Return the stride in pixels for an overlap given as a share of the window.

    >>> stride_for_overlap(512, 0.25)
    384

    Raises:
        UsageError: The overlap is not in [0, 0.9].
    """
    if not 0 <= overlap <= 0.9:
        raise UsageError(f"overlap {overlap} found, expected a share from 0 to 0.9 of the window")
    return max(1, round(size * (1 - overlap)))
