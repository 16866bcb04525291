"""In which directions a building's walls run, read off its wobbling outline.

Chords vote for their direction modulo 90 degrees, and long ones count most: a chord that cuts a corner is shorter than
the outline between its ends. The best vote is then improved by means over longer chords, which weigh less the further
off they are, so that bites and corners drop out. A second direction is found rather too often than too seldom: whether
walls follow it is for the cost of walls to say.

How far the main direction may be off is told by how far the longer chords scatter about it, and how much outline they
span: ``shared_directions`` weighs neighbours by that.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ctrs.vector.regularize.compiling import compiled

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

CHORD_M = 1.25
"""Chords that vote. They find walls of any length, but compare only the ends of long ones."""

LONG_CHORD_M = 5.0
"""Chords that improve the best vote: those of a third to half a wall's length tell its direction best."""

MIDDLE_CHORD_M = 3.0
"""Chords that look for a second direction: no longer than its walls, and long against the wobble."""

_POWER = 4.0
"""Chords weigh by this power of their length."""

_OFF_DEG = 9.0
"""Chords further from the main direction, its diagonals and right angles may belong to a second direction."""

_STRAIGHT = 0.85
"""Share of the usual length from which a chord cuts no corner."""

_MIN_SHARE, _MIN_LENGTH_M = 0.10, 3.5
"""A second direction needs this share of the outline off the main one, and walls of this length."""

_USUAL_SCATTER_DEG, _SEEN_M, _LEAST_M = 2.5, 5.0, 0.5
"""How far long chords scatter is told by the usual figure, as if seen along so much outline, and by the chords; where
none runs along a wall the outline counts as that long."""

_SPREADS_DEG, _LONG_SPREAD_DEG, _SECOND_SPREAD_DEG = (8.0, 4.0, 4.0), 6.0, 5.0
_LONG_ROUNDS, _SECOND_ROUNDS = 4, 3


@compiled
def directions_of(points: FloatArray, ring_begins: IntArray, spacing: float) -> tuple[float, float, float]:
    """Find the directions of one building.

    Args:
        points: Even samples of all its rings; shape (N, 2), metres.
        ring_begins: First sample of each ring, and N; shape (R + 1,).
        spacing: Metres between samples.

    Returns:
        Degrees: the main direction, 0 to below 90, along which and across which walls run, and a second one, 0 to below
        180, NaN where all walls follow the main direction or its diagonals. Then the standard error of the main
        direction.
    """
    angle, length = _chords(points, ring_begins, max(1, int(np.rint(CHORD_M / spacing))))
    weight = length**_POWER
    main, _ = _peak(angle, weight, 90)
    for spread in _SPREADS_DEG:
        main = _improved(main, angle, weight, 90.0, spread)
    angle, length = _chords(points, ring_begins, max(1, int(np.rint(LONG_CHORD_M / spacing))))
    weight = np.where(length > _STRAIGHT * LONG_CHORD_M, 1.0, 0.0)
    for _ in range(_LONG_ROUNDS):
        main = _improved(main, angle, weight, 90.0, _LONG_SPREAD_DEG)
    error = _uncertainty(main, angle, weight, spacing)
    angle, length = _chords(points, ring_begins, max(1, int(np.rint(MIDDLE_CHORD_M / spacing))))
    weight = np.zeros(len(angle))
    for index in range(len(angle)):
        off = abs(_folded(angle[index] - main, 45.0))
        if off > _OFF_DEG and length[index] > _STRAIGHT * MIDDLE_CHORD_M:
            weight[index] = spacing
    if weight.sum() <= _MIN_SHARE * len(points) * spacing:
        return main, np.nan, error
    second, near = _peak(angle, weight, 180)
    if near <= _MIN_LENGTH_M:
        return main, np.nan, error
    for _ in range(_SECOND_ROUNDS):
        second = _improved(second, angle, weight, 180.0, _SECOND_SPREAD_DEG)
    return main, second, error


@compiled
def _chords(points: FloatArray, ring_begins: IntArray, reach: int) -> tuple[FloatArray, FloatArray]:
    angle, length = np.empty(len(points)), np.empty(len(points))
    for ring in range(len(ring_begins) - 1):
        begin, size = ring_begins[ring], ring_begins[ring + 1] - ring_begins[ring]
        for place in range(size):
            ahead = begin + (place + reach) % size
            dx = points[ahead, 0] - points[begin + place, 0]
            dy = points[ahead, 1] - points[begin + place, 1]
            angle[begin + place] = np.degrees(np.arctan2(dy, dx))
            length[begin + place] = np.hypot(dx, dy)
    return angle, length


@compiled
def _peak(angle: FloatArray, weight: FloatArray, period: int) -> tuple[float, float]:
    votes = np.zeros(period)
    for index in range(len(angle)):
        votes[int(np.floor(angle[index])) % period] += weight[index]
    best, most = 0, -1.0
    for degree in range(period):
        soft = 0.0
        for shift in range(-3, 4):
            soft += votes[(degree + shift) % period] * (4 - abs(shift))
        if soft > most:
            best, most = degree, soft
    near = 0.0
    for shift in range(-3, 4):
        near += votes[(best + shift) % period]
    return best + 0.5, near


@compiled
def _improved(direction: float, angle: FloatArray, weight: FloatArray, period: float, spread: float) -> float:
    total, moved = 1e-30, 0.0
    for index in range(len(angle)):
        if weight[index] > 0:
            off = _folded(angle[index] - direction, period)
            near = weight[index] * np.exp(-((off / spread) ** 2))
            total += near
            moved += near * off
    return (direction + moved / total) % period


@compiled
def _uncertainty(direction: float, angle: FloatArray, weight: FloatArray, spacing: float) -> float:
    """Return the standard error of a mean over long chords."""
    length, squares = 0.0, _SEEN_M * _USUAL_SCATTER_DEG**2
    for index in range(len(angle)):
        if weight[index] > 0:
            off = _folded(angle[index] - direction, 90.0)
            near = spacing * np.exp(-((off / _LONG_SPREAD_DEG) ** 2))
            length += near
            squares += near * off * off
    scatter = np.sqrt(squares / (length + _SEEN_M))
    # Chords that begin less than their length apart see the same wobble: each such stretch counts once.
    return float(scatter * np.sqrt(LONG_CHORD_M / max(length, _LEAST_M)))


@compiled
def _folded(angle: float, period: float) -> float:
    return (angle + period / 2) % period - period / 2
