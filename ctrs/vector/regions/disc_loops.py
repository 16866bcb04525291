"""Euclidean distances on a raster as far as a disc reaches: compiled loops, for which the disc is a stack of rows.

A pixel is within reach of another class if, in one of the rows that the disc covers, the nearest pixel of that class is
no farther along the row than the disc is wide there. Distances along rows take two passes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ctrs.vector.regularize.compiling import compiled

Flags = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
Steps = npt.NDArray[np.uint16]

_FAR = 65535


@compiled
def row_steps(away_from: Flags) -> Steps:
    """Return how many columns each pixel is from the nearest True in its row, 65535 where there is none."""
    height, width = away_from.shape
    steps = np.empty((height, width), np.uint16)
    for row in range(height):
        away = _FAR
        for column in range(width):
            away = 0 if away_from[row, column] else min(away + 1, _FAR)
            steps[row, column] = away
        away = _FAR
        for column in range(width - 1, -1, -1):
            away = 0 if away_from[row, column] else min(away + 1, _FAR)
            if away < steps[row, column]:
                steps[row, column] = away
    return steps


@compiled
def within(away_from: Flags, radius: float, row_m: float, column_m: float) -> Flags:
    """Return which pixels have a True no farther away than a radius.

    Args:
        away_from: Shape (H, W).
        radius: From pixel centre to pixel centre, below 65535 columns.
        row_m: Height of a pixel.
        column_m: Width of a pixel.
    """
    height, width = away_from.shape
    steps = row_steps(away_from)
    result = np.zeros((height, width), np.bool_)
    reach = min(int(radius / row_m) + 1, height - 1)
    for off in range(-reach, reach + 1):
        widest = -1
        while np.sqrt((off * row_m) ** 2 + ((widest + 1) * column_m) ** 2) <= radius and widest < _FAR - 2:
            widest += 1
        if widest < 0:
            continue
        limit = np.uint16(widest)
        for row in range(max(0, -off), min(height, height - off)):
            source, target = steps[row + off], result[row]
            for column in range(width):
                target[column] |= source[column] <= limit
    return result


@compiled
def distances_at(
    places: npt.NDArray[np.int64], away_from: Flags, reach: float, row_m: float, column_m: float
) -> FloatArray:
    """Return how far pixels (row * width + column) are from the nearest True; infinite beyond the reach."""
    height, width = away_from.shape
    steps = row_steps(away_from)
    result = np.full(len(places), np.inf)
    rows = int(reach / row_m) + 1
    for number in range(len(places)):
        row, column = places[number] // width, places[number] % width
        for other in range(max(0, row - rows), min(height, row + rows + 1)):
            if steps[other, column] < _FAR:
                away = np.sqrt(((other - row) * row_m) ** 2 + (steps[other, column] * column_m) ** 2)
                if away <= reach and away < result[number]:
                    result[number] = away
    return result
