"""Least and greatest values around each pixel, within a square or a disc, for arrays of bytes.

Both work on whole arrays with few ``ufunc`` calls, so that a pixel costs a few nanoseconds, whatever the array holds.
The result is smaller than the input by the radius on each side: callers pad, with whatever lies outside for them.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]


def reduce_square(array: Bytes, radius: int, ufunc: np.ufunc) -> Bytes:
    """Return ``ufunc`` over the (2 radius + 1)² pixels around each pixel.

    Args:
        array: uint8 (h + 2 radius, w + 2 radius).
        radius: In pixels, 0 or more.
        ufunc: Idempotent and associative: ``np.minimum``, ``np.maximum``, ``np.bitwise_or``.

    Returns:
        uint8 (h, w).

    >>> reduce_square(np.arange(25, dtype=np.uint8).reshape(5, 5), 1, np.maximum).tolist()
    [[12, 13, 14], [17, 18, 19], [22, 23, 24]]
    """
    size = 2 * radius + 1
    covered = 1
    while covered < size:
        step = min(covered, size - covered)
        array = ufunc(array[:, :-step], array[:, step:])
        array = ufunc(array[:-step], array[step:])
        covered += step
    return array


def reduce_disc(array: Bytes, radius: float, ufunc: np.ufunc) -> Bytes:
    """Return ``ufunc`` over the pixels whose centres lie within ``radius`` of each pixel's centre.

    Args:
        array: uint8 (h + 2 r, w + 2 r) with r = ``floor(radius)``.
        radius: In pixels, 0 or more.
        ufunc: As for ``reduce_square``.

    Returns:
        uint8 (h, w).

    >>> reduce_disc(np.arange(25, dtype=np.uint8).reshape(5, 5), 1, np.maximum).tolist()
    [[11, 12, 13], [16, 17, 18], [21, 22, 23]]
    """
    reach = math.floor(radius)
    h, w = array.shape[0] - 2 * reach, array.shape[1] - 2 * reach
    widths = disc_half_widths(radius)
    result: Bytes = np.empty((0, 0), np.uint8)
    half = 0  # each pixel of ``array`` holds the values up to this far left and right; its column 0 is column ``half``
    for row in range(reach, -1, -1):
        while half < widths[row]:
            missing = widths[row] - half
            step = min(missing, max(half, 1))
            sides = ufunc(array[:, : -2 * step], array[:, 2 * step :])
            array = ufunc(sides, array[:, step:-step], out=sides) if step > half else sides
            half += step
        columns = slice(reach - half, reach - half + w)
        for top in {reach - row, reach + row}:
            piece = array[top : top + h, columns]
            result = piece.copy() if row == reach and not result.size else ufunc(result, piece, out=result)
    return result


def disc_half_widths(radius: float) -> list[int]:
    """Return, for each row from the centre outwards, how far the disc reaches left and right.

    A pixel belongs to it if the square root of its integer squared distance, a float64, is at most ``radius``.

    >>> disc_half_widths(3), disc_half_widths(2**0.5)
    ([3, 2, 2, 0], [1, 1])
    """
    squared = int(radius * radius) + 1
    while math.sqrt(squared) > radius:
        squared -= 1
    return [math.isqrt(squared - row * row) for row in range(math.floor(radius) + 1)]
