"""Even samples along outlines: the staircase of pixels is smoothed along the ring, then walked in equal steps.

The middles of pixel edges scatter evenly around a straight wall at any angle, so they are unbiased; a Gaussian along
the ring takes their scatter away.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ctrs.vector.regularize.compiling import compiled

FloatArray = npt.NDArray[np.float64]

_REACH = 3.0
"""Standard deviations after which the Gaussian ends."""


@compiled
def sample_ring(corners: FloatArray, piece_m: float, sigma_m: float, spacing_m: float) -> FloatArray:
    """Return points along a ring, about ``spacing_m`` apart, at least twelve; shape (N, 2).

    Args:
        corners: Of the open ring; shape (V, 2), metres.
        piece_m: Sides are cut into pieces of at most this length, whose middles are smoothed: a pixel.
        sigma_m: Standard deviation of the Gaussian along the ring; 0: none.
        spacing_m: Step of the samples.
    """
    num_corners = len(corners)
    count = 0
    for index in range(num_corners):
        following = (index + 1) % num_corners
        dx = corners[following, 0] - corners[index, 0]
        dy = corners[following, 1] - corners[index, 1]
        count += max(1, int(np.ceil(np.hypot(dx, dy) / piece_m - 1e-6)))
    middles = np.empty((count, 2))
    place = 0
    for index in range(num_corners):
        following = (index + 1) % num_corners
        dx = corners[following, 0] - corners[index, 0]
        dy = corners[following, 1] - corners[index, 1]
        pieces = max(1, int(np.ceil(np.hypot(dx, dy) / piece_m - 1e-6)))
        for piece in range(pieces):
            share = (piece + 0.5) / pieces
            middles[place, 0] = corners[index, 0] + share * dx
            middles[place, 1] = corners[index, 1] + share * dy
            place += 1
    smooth = _smoothed(middles, sigma_m) if sigma_m > 0 else middles
    return _evenly(smooth, spacing_m)


@compiled
def _smoothed(points: FloatArray, sigma: float) -> FloatArray:
    count = len(points)
    steps = np.empty(count)
    for index in range(count):
        following = index + 1 if index + 1 < count else 0
        steps[index] = np.hypot(points[following, 0] - points[index, 0], points[following, 1] - points[index, 1])
    result = np.empty_like(points)
    limit = (count - 1) // 2
    for index in range(count):
        total, x, y = 1.0, points[index, 0], points[index, 1]
        for direction in (1, -1):
            away = 0.0
            other = index
            for _ in range(limit):
                if direction == 1:
                    away += steps[other]
                    other = other + 1 if other + 1 < count else 0
                else:
                    other = other - 1 if other > 0 else count - 1
                    away += steps[other]
                if away > _REACH * sigma:
                    break
                weight = np.exp(-0.5 * (away / sigma) ** 2)
                total += weight
                x += weight * points[other, 0]
                y += weight * points[other, 1]
        result[index, 0] = x / total
        result[index, 1] = y / total
    return result


@compiled
def _evenly(points: FloatArray, spacing: float) -> FloatArray:
    count = len(points)
    length = 0.0
    for index in range(count):
        following = index + 1 if index + 1 < count else 0
        length += np.hypot(points[following, 0] - points[index, 0], points[following, 1] - points[index, 1])
    num_samples = max(12, int(np.rint(length / spacing)))
    result = np.empty((num_samples, 2))
    index, begin = 0, 0.0
    step = np.hypot(points[1 % count, 0] - points[0, 0], points[1 % count, 1] - points[0, 1])
    for sample in range(num_samples):
        wanted = sample * length / num_samples
        while begin + step < wanted and index + 1 < count:
            begin += step
            index += 1
            following = index + 1 if index + 1 < count else 0
            step = np.hypot(points[following, 0] - points[index, 0], points[following, 1] - points[index, 1])
        following = index + 1 if index + 1 < count else 0
        share = min(1.0, (wanted - begin) / step) if step > 0 else 0.0
        result[sample, 0] = points[index, 0] + share * (points[following, 0] - points[index, 0])
        result[sample, 1] = points[index, 1] + share * (points[following, 1] - points[index, 1])
    return result
