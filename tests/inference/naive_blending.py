"""Weights of overlapping windows by a loop over pixels."""

import math

import numpy as np


def flank(t, blend):
    if blend == "hann":
        return math.sin(math.pi / 2 * t) ** 2
    return math.exp(-0.5 * (3 * (1 - t)) ** 2) if blend == "gaussian" else 1.0


def naive_weights(starts, size, length, blend):
    """Weights of each window along an axis, not divided, by a loop over pixels."""
    size = min(size, length)
    found = []
    for number, start in enumerate(starts):
        weights = np.ones(size)
        for pixel in range(start, start + size):
            if number > 0 and pixel < starts[number - 1] + size:
                shared = starts[number - 1] + size - start
                weights[pixel - start] = min(weights[pixel - start], flank((pixel - start + 0.5) / shared, blend))
            if number + 1 < len(starts) and pixel >= starts[number + 1]:
                shared = start + size - starts[number + 1]
                t = (start + size - pixel - 0.5) / shared
                weights[pixel - start] = min(weights[pixel - start], flank(t, blend))
        found.append(weights)
    return found
