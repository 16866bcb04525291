"""In which directions a building's walls run, read off its wobbling outline.

Chords vote for their direction modulo 90 degrees, and long ones count most: a chord that cuts a corner is shorter than
the outline between its ends. The best vote is then improved by means over longer chords, which weigh less the further
off they are, so that bites and corners drop out. A second direction is found rather too often than too seldom: whether
walls follow it is for the cost of walls to say.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ctrs.vector.regularize.subpixel import SubpixelOutlines

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

SPACING_M, CHORD_M = 0.25, 1.25
"""Chords that vote. They find walls of any length, but compare only the ends of long ones."""

LONG_CHORD_M = 5.0
"""Chords that improve the best vote: those of a third to half a wall's length tell its direction best."""

MIDDLE_CHORD_M = 3.0
"""Chords that look for a second direction: no longer than its walls, and long against the wobble."""

_POWER = 4.0
"""Chords weigh by this power of their length."""

_MAIN_SPREADS_DEG = (8.0, 4.0, 4.0)
_LONG_SPREADS_DEG = (6.0, 6.0, 6.0, 6.0)
_SECOND_SPREADS_DEG = (5.0, 5.0, 5.0)
_OFF_DEG = 9.0
"""Chords further from the main direction, its diagonals and right angles may belong to a second direction."""

_STRAIGHT = 0.85
"""Share of the usual length from which a chord cuts no corner."""

_MIN_SHARE, _MIN_LENGTH_M = 0.10, 3.5
"""A second direction needs this share of the outline off the main one, and walls of this length."""


@dataclass(frozen=True, kw_only=True)
class Directions:
    """Directions of each polygon in the frame of its outline: x along columns, y along rows, downwards.

    Args:
        main_deg: From 0 to below 90; walls run along it, across it and along its diagonals; shape (P,).
        second_deg: From 0 to below 180; NaN where all walls follow the main direction; shape (P,).
    """

    main_deg: FloatArray
    second_deg: FloatArray


def find_directions(outlines: SubpixelOutlines, scale: tuple[float, float]) -> Directions:
    """Find the directions of polygons.

    Args:
        outlines: Subpixel outlines, smoothed where no probabilities located them.
        scale: Ground metres of a pixel along columns and rows.
    """
    count = len(outlines.regions)
    even = outlines.resample(SPACING_M, scale)
    owner = even.polygon_of_point
    chord = _chords(even, scale, CHORD_M)
    length, angle = np.hypot(*chord.T), np.degrees(np.arctan2(chord[:, 1], chord[:, 0]))
    weight = length**_POWER
    main = _peak(owner, angle, weight, count, period=90)[0]
    main = _improved(main, owner, angle, weight, period=90, spreads=_MAIN_SPREADS_DEG)
    long_chord = _chords(even, scale, LONG_CHORD_M)
    on_wall = np.hypot(*long_chord.T) > _STRAIGHT * LONG_CHORD_M
    long_angle = np.degrees(np.arctan2(long_chord[:, 1], long_chord[:, 0]))
    main = _improved(main, owner, long_angle, on_wall.astype(np.float64), period=90, spreads=_LONG_SPREADS_DEG)
    middle_chord = _chords(even, scale, MIDDLE_CHORD_M)
    straight = np.hypot(*middle_chord.T) > _STRAIGHT * MIDDLE_CHORD_M
    middle_angle = np.degrees(np.arctan2(middle_chord[:, 1], middle_chord[:, 0]))
    off = (np.abs(_folded(middle_angle - main[owner], 45)) > _OFF_DEG) & straight
    steps = even.steps(scale)
    perimeter = np.bincount(owner, steps, minlength=count)
    off_length = np.bincount(owner[off], steps[off], minlength=count)
    second, second_length = _peak(owner[off], middle_angle[off], steps[off], count, period=180)
    second = _improved(second, owner[off], middle_angle[off], steps[off], period=180, spreads=_SECOND_SPREADS_DEG)
    wanted = (off_length > _MIN_SHARE * perimeter) & (second_length > _MIN_LENGTH_M)
    return Directions(main_deg=main, second_deg=np.where(wanted, second, np.nan))


def _chords(outlines: SubpixelOutlines, scale: tuple[float, float], length: float) -> FloatArray:
    """From each point to the one a chord's length further on along its ring."""
    sizes = np.diff(outlines.ring_offsets)
    begin, size = np.repeat(outlines.ring_offsets[:-1], sizes), np.repeat(sizes, sizes)
    place = np.arange(len(size)) - begin
    ahead = begin + (place + round(length / SPACING_M)) % size
    return np.asarray((outlines.points[ahead] - outlines.points) * scale, np.float64)


def _peak(
    owner: IntArray, angle: FloatArray, weight: FloatArray, count: int, *, period: int
) -> tuple[FloatArray, FloatArray]:
    """Return the middle of the best degree in a softened histogram of each polygon, and what lies within 3 degrees."""
    degree = np.floor(angle).astype(np.int64) % period
    votes = np.bincount(owner * period + degree, weight, minlength=count * period).reshape(count, period)
    soft = sum(np.roll(votes, shift, axis=1) * (4 - abs(shift)) for shift in range(-3, 4))
    near = sum(np.roll(votes, shift, axis=1) for shift in range(-3, 4))
    best = np.argmax(soft, axis=1) if count else np.empty(0, np.int64)
    return np.asarray(best + 0.5, np.float64), np.asarray(
        np.take_along_axis(np.asarray(near), best[:, None], axis=1)[:, 0], np.float64
    )


def _improved(
    direction: FloatArray,
    owner: IntArray,
    angle: FloatArray,
    weight: FloatArray,
    *,
    period: int,
    spreads: tuple[float, ...],
) -> FloatArray:
    """Move each direction to the mean of the angles around it, weighted by a Gaussian of how far off they are."""
    for spread in spreads:
        off = _folded(angle - direction[owner], period)
        nearness = weight * np.exp(-((off / spread) ** 2))
        total = np.bincount(owner, nearness, minlength=len(direction))
        direction = direction + np.bincount(owner, nearness * off, minlength=len(direction)) / np.maximum(total, 1e-30)
    direction = direction % period
    return np.where(direction < period, direction, 0.0)


def _folded(angle: FloatArray, period: float) -> FloatArray:
    return (angle + period / 2) % period - period / 2
