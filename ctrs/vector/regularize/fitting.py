"""Walls moved to where the outline is: one rotation for each set of directions, one offset for each wall, robustly.

Masks round corners: samples within a metre of a wall's ends say nothing about its offset, and those within half a metre
nothing about its direction. Between the two they do: both ends of a wall are rounded alike, which leaves its direction
as it is, and the ends have the longest lever. Within a set only the rotation couples the walls, so each round of the
reweighted least squares has a closed solution. Weights are those of Huber (1964) at first, then those of Tukey's
biweight, which lets bites and growths drop out.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ctrs.vector.regularize.compiling import compiled

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

_CORNER_FREE_M, _CORNER_FREE_SHARE = 1.0, 0.3
"""Left out of the offset at each end of a wall: a metre, or this share of a short wall."""

_CORNER_M = 0.5
"""Left out at each end altogether."""

_HUBER_M, _TUKEY_M = 0.15, 0.8
_HUBER_ROUNDS, _TUKEY_ROUNDS = 5, 3
_MAX_ROTATION = 0.12
_MIN_TURN_SIN = 0.15


@compiled
def fit_walls(
    points: FloatArray,
    spacing: float,
    ring_begins: IntArray,
    wall_rings: IntArray,
    families: IntArray,
    offsets: FloatArray,
    firsts: IntArray,
    lasts: IntArray,
    angles: FloatArray,
    family_sets: IntArray,
) -> tuple[FloatArray, FloatArray, FloatArray, float]:
    """Fit all walls of a building.

    Args:
        points: Samples of all rings around an origin nearby; shape (N, 2), metres.
        spacing: Metres between samples.
        ring_begins: First sample of each ring, and N; shape (R + 1,).
        wall_rings: Ring of each wall; shape (W,).
        families: Family of each wall; shape (W,).
        offsets: Offset of each wall along the family's normal, metres; shape (W,).
        firsts: First sample of each wall within its ring; shape (W,).
        lasts: The sample after the last of each wall, which may lie beyond the ring's end; shape (W,).
        angles: Direction of each family, radians; shape (F,).
        family_sets: Families of one set turn together; shape (F,).

    Returns:
        Direction (radians) and offset (metres) of each wall; how far each set was turned (radians); how far the outline
        strays from its walls (standard deviation that goes with the median, metres).
    """
    num_walls = len(families)
    num_sets = family_sets.max() + 1
    begins = np.empty(num_walls + 1, np.int64)
    begins[0] = 0
    for wall in range(num_walls):
        free, _ = _left_out(lasts[wall] - firsts[wall], spacing)
        begins[wall + 1] = begins[wall] + lasts[wall] - firsts[wall] - 2 * free
    along, off, steps = np.empty(begins[-1]), np.empty(begins[-1]), np.empty(begins[-1])
    inner = np.ones(begins[-1], np.bool_)
    for wall in range(num_walls):
        cos, sin = np.cos(angles[families[wall]]), np.sin(angles[families[wall]])
        ring = wall_rings[wall]
        size = ring_begins[ring + 1] - ring_begins[ring]
        free, ends = _left_out(lasts[wall] - firsts[wall], spacing)
        inner[begins[wall] : begins[wall] + ends] = False
        inner[begins[wall + 1] - ends : begins[wall + 1]] = False
        place = begins[wall]
        for sample in range(firsts[wall] + free, lasts[wall] - free):
            x, y = points[ring_begins[ring] + sample % size]
            along[place] = x * cos + y * sin
            off[place] = y * cos - x * sin - offsets[wall]
            place += 1
        _steps(along[begins[wall] : place], spacing, steps[begins[wall] : place])
    weights = steps.copy()
    shift, slope = np.zeros(num_walls), np.zeros(num_sets)
    for round_number in range(_HUBER_ROUNDS + _TUKEY_ROUNDS):
        _solve(along, off, weights, inner, begins, families, family_sets, shift, slope)
        for wall in range(num_walls):
            turned = slope[family_sets[families[wall]]]
            for place in range(begins[wall], begins[wall + 1]):
                left = abs(off[place] - shift[wall] - turned * along[place])
                if round_number < _HUBER_ROUNDS - 1:
                    weights[place] = steps[place] * min(1.0, _HUBER_M / max(left, 1e-9))
                else:
                    weights[place] = steps[place] * (1 - min(1.0, (left / _TUKEY_M) ** 2)) ** 2
    left_over = np.empty(len(along))
    for wall in range(num_walls):
        turned = slope[family_sets[families[wall]]]
        for place in range(begins[wall], begins[wall + 1]):
            left_over[place] = abs(off[place] - shift[wall] - turned * along[place])
    fitted_angles, fitted_offsets = np.empty(num_walls), np.empty(num_walls)
    for wall in range(num_walls):
        turn = np.arctan(slope[family_sets[families[wall]]])
        fitted_angles[wall] = angles[families[wall]] + turn
        fitted_offsets[wall] = (offsets[wall] + shift[wall]) * np.cos(turn)
    return fitted_angles, fitted_offsets, np.arctan(slope), 1.4826 * np.median(left_over[inner])


@compiled
def _left_out(num_samples: int, spacing: float) -> tuple[int, int]:
    """Samples left out at each end of a wall, and the next ones that have no say in its offset; two stay."""
    free = int(min(_CORNER_FREE_M, _CORNER_FREE_SHARE * num_samples * spacing) / spacing)
    if num_samples - 2 * free < 2:
        return 0, 0
    out = min(free, int(_CORNER_M / spacing))
    return out, free - out


@compiled
def _steps(along: FloatArray, spacing: float, steps: FloatArray) -> None:
    """Write how far each sample leads along its wall, in spacings: an outline that winds has more samples than wall."""
    count = len(along)
    forward = 1.0 if along[count - 1] >= along[0] else -1.0
    for place in range(count):
        before, after = max(0, place - 1), min(count - 1, place + 1)
        step = forward * (along[after] - along[before]) / (max(1, after - before) * spacing)
        steps[place] = max(0.0, step) + 1e-6


@compiled
def _solve(
    along: FloatArray,
    off: FloatArray,
    weights: FloatArray,
    inner: BoolArray,
    begins: IntArray,
    families: IntArray,
    family_sets: IntArray,
    shift: FloatArray,
    slope: FloatArray,
) -> None:
    """Weighted least squares of ``off = shift[wall] + slope[set] * along``, in place; shifts by inner samples alone."""
    num_walls = len(families)
    upper, lower = np.zeros(len(slope)), np.full(len(slope), 1e-3)
    inner_middle, inner_mean = np.zeros(num_walls), np.zeros(num_walls)
    for wall in range(num_walls):
        total, middle, mean, inner_total = 1e-9, 0.0, 0.0, 1e-9
        for place in range(begins[wall], begins[wall + 1]):
            weighted_along, weighted_off = weights[place] * along[place], weights[place] * off[place]
            total += weights[place]
            middle += weighted_along
            mean += weighted_off
            if inner[place]:
                inner_total += weights[place]
                inner_middle[wall] += weighted_along
                inner_mean[wall] += weighted_off
        middle /= total
        mean /= total
        inner_middle[wall] /= inner_total
        inner_mean[wall] /= inner_total
        number = family_sets[families[wall]]
        for place in range(begins[wall], begins[wall + 1]):
            lever = along[place] - middle
            upper[number] += weights[place] * lever * (off[place] - mean)
            lower[number] += weights[place] * lever * lever
    for number in range(len(slope)):
        slope[number] = min(max(upper[number] / lower[number], -_MAX_ROTATION), _MAX_ROTATION)
    for wall in range(num_walls):
        shift[wall] = inner_mean[wall] - slope[family_sets[families[wall]]] * inner_middle[wall]


@compiled
def meet(angles: FloatArray, offsets: FloatArray) -> tuple[FloatArray, bool]:
    """Return where each wall of a ring meets the one before it, and whether all do at a fair angle; shape (W, 2)."""
    count = len(angles)
    corners = np.empty((count, 2))
    for wall in range(count):
        before = wall - 1 if wall else count - 1
        turn = np.sin(angles[wall] - angles[before])
        if abs(turn) < _MIN_TURN_SIN:
            return corners, False
        cos0, sin0 = np.cos(angles[before]), np.sin(angles[before])
        cos1, sin1 = np.cos(angles[wall]), np.sin(angles[wall])
        corners[wall, 0] = (offsets[before] * cos1 - offsets[wall] * cos0) / turn
        corners[wall, 1] = (offsets[before] * sin1 - offsets[wall] * sin0) / turn
    return corners, True


@compiled
def is_simple(corners: FloatArray) -> bool:
    """Tell whether no two sides of a ring cross and no side is walked backwards to nothing."""
    count = len(corners)
    for one in range(count):
        ax, ay = corners[one]
        bx, by = corners[(one + 1) % count]
        for other in range(one + 1, count):
            cx, cy = corners[other]
            dx, dy = corners[(other + 1) % count]
            first = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
            second = (bx - ax) * (dy - ay) - (by - ay) * (dx - ax)
            third = (dx - cx) * (ay - cy) - (dy - cy) * (ax - cx)
            fourth = (dx - cx) * (by - cy) - (dy - cy) * (bx - cx)
            if first * second < 0 and third * fourth < 0:
                return False
    return True


@compiled
def ring_area(corners: FloatArray) -> float:
    """Return the signed area of an open ring."""
    twice = 0.0
    count = len(corners)
    for index in range(count):
        following = index + 1 if index + 1 < count else 0
        twice += corners[index, 0] * corners[following, 1] - corners[following, 0] * corners[index, 1]
    return twice / 2
