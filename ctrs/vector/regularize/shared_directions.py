"""Neighbours often stand alike: a building whose direction is uncertain leans on those of its neighbours.

Along a street and around a yard directions differ by some degrees, seldom by none. So what a building's neighbours
say is a first guess, right to ``ALIKE_DEG``, and its own outline is the evidence: a large or clean building hardly
moves, a small or noisy one does. A neighbour counts by the odds that the two stand alike at all, which the difference
of their directions and the standard errors of both tell: one that stands askew has no say. (An empirical Bayes estimate
in the manner of Efron and Morris 1975, for a mixture of neighbours that stand alike and such that do not.)

What a building leans on are its neighbours' own estimates, never improved ones: nothing travels farther than
``REACH_M``, so that the result does not depend on how a mask is cut into blocks.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import shapely

Polygons = npt.NDArray[np.object_]
FloatArray = npt.NDArray[np.float64]

REACH_M = 2.5
"""Outlines nearer than this are those of neighbours. Wider reaches gain little, and make larger blocks."""

ALIKE_DEG = 2.5
"""Standard deviation of directions of neighbours that stand alike about the one that they have in common."""

ALIKE_SHARE = 0.7
"""Share of neighbours that stand alike: more in towns, few among buildings placed at random."""

_SURENESS = 0.9
"""Own estimates are that much better than told: the fit of walls improves on them."""


def share_directions(polygons: Polygons, found: FloatArray) -> FloatArray:
    """Let buildings lean on the directions of their neighbours.

    Args:
        polygons: Outlines, metres; shape (P,).
        found: Main and second direction, and standard error of the main one, degrees, as ``directions_of`` finds them;
            shape (P, 3).

    Returns:
        Main and second direction of each, degrees; shape (P, 2).
    """
    main, error = found[:, 0], _SURENESS * found[:, 2]
    one, other = shapely.STRtree(polygons).query(polygons, predicate="dwithin", distance=REACH_M)
    apart = one != other
    one, other = one[apart], other[apart]
    # Sums of the same figures in the same order are the same to the last bit, whatever else the block holds.
    order = np.lexsort((other, one))
    one, other = one[order], other[order]
    off = (main[other] - main[one] + 45) % 90 - 45
    variance = error[one] ** 2 + error[other] ** 2 + 2 * ALIKE_DEG**2
    alike = ALIKE_SHARE * np.exp(-0.5 * off**2 / variance) / np.sqrt(2 * np.pi * variance)
    weight = alike / (alike + (1 - ALIKE_SHARE) / 90) / (error[other] ** 2 + ALIKE_DEG**2)
    total = np.maximum(np.bincount(one, weight, len(polygons)), 1e-12)
    lean = np.bincount(one, weight * off, len(polygons)) / total
    guess_variance = ALIKE_DEG**2 + 1 / total
    directions = found[:, :2].copy()
    directions[:, 0] = (main + lean * error**2 / (error**2 + guess_variance)) % 90
    return directions
