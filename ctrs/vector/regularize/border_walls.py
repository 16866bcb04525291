"""Walls along a border: an open chain of points follows straight walls, and walls that go on in each other are one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d

from ctrs.vector.regions.runs import join

FloatArray = npt.NDArray[np.float64]

ALIGNED_M = 0.7
"""Parallel walls on both sides of a junction that are offset by less are one."""

SAME_DIRECTION = np.radians(3.0)
"""Directions that differ by less are one."""

_SMOOTHING_M = 0.3
_OFFSET_STEP_M = 0.1
_CORNER_M3, _ODD_ANGLE_M3, _TRUNCATION_M = 1.75, 2.0, 1.0
_PARALLEL = 0.02
_MIN_TURN_SIN = 0.2
_HUBER_M, _HUBER_ROUNDS = 0.15, 5
_CORNER_FREE_M, _CORNER_FREE_SHARE = 1.0, 0.3


@dataclass
class Line:
    """A wall: direction in radians, offset along its left normal, how many metres of it have been seen, and where."""

    angle: float
    offset: float
    length: float
    middle: FloatArray

    @property
    def along(self) -> FloatArray:
        """Unit vector of the direction."""
        return np.array([np.cos(self.angle), np.sin(self.angle)])

    @property
    def normal(self) -> FloatArray:
        """Unit vector to the left."""
        return np.array([-np.sin(self.angle), np.cos(self.angle)])

    @property
    def on_it(self) -> FloatArray:
        """The point of the line nearest to the middle of what has been seen."""
        return np.asarray(self.middle - self.away(self.middle) * self.normal)

    def away(self, points: FloatArray) -> Any:
        """Return the signed distance of points."""
        return points @ self.normal - self.offset

    def meets(self, other: Line) -> FloatArray | None:
        """Return where it meets another, None where the two are nearly parallel."""
        if abs(np.sin(self.angle - other.angle)) < _MIN_TURN_SIN:
            return None
        return np.linalg.solve(np.stack([self.normal, other.normal]), np.array([self.offset, other.offset]))


def fit_walls(
    points: FloatArray, directions: FloatArray, pixel_m: float, *, corner_m3: float = _CORNER_M3
) -> list[Line]:
    """Choose and fit the walls of a border.

    Args:
        points: Of the border, metres.
        directions: Of walls that cost nothing on top, radians.
        pixel_m: Length of a pixel's side.
        corner_m3: Price of a corner.
    """
    samples, step = _samples(points, pixel_m)
    middle = samples.mean(axis=0)
    samples = samples - middle
    angles, prices = directions, np.zeros(len(directions))
    own = _own_direction(samples)
    if np.abs(np.sin(angles - own)).min() > np.sin(SAME_DIRECTION):
        angles, prices = np.append(angles, own), np.append(prices, _ODD_ANGLE_M3)
    chosen, begins = _choose(samples, step, angles, prices, corner_m3)
    walls: list[Line] = []
    for (angle, offset), first, last in zip(chosen, begins, [*begins[1:], len(samples)], strict=True):
        line = Line(angle, offset, (last - first) * step, samples[first:last].mean(axis=0) + middle)
        free = int(min(_CORNER_FREE_M / step, _CORNER_FREE_SHARE * (last - first)))
        away = line.away(samples[first + free : last - free])
        shift = float(np.median(away))
        for _ in range(_HUBER_ROUNDS):
            weights = np.minimum(1.0, _HUBER_M / np.maximum(np.abs(away - shift), 1e-9))
            shift = float((weights * away).sum() / weights.sum())
        line.offset += shift + float(middle @ line.normal)
        walls.append(line)
    return walls


def _samples(points: FloatArray, pixel_m: float) -> tuple[FloatArray, float]:
    """Return points along a border, a pixel apart at most, the staircase smoothed away, and their mean distance."""
    sides = np.diff(points, axis=0)
    pieces = np.maximum(1, np.ceil(np.hypot(*sides.T) / pixel_m - 1e-6).astype(np.int64))
    side = np.repeat(np.arange(len(sides)), pieces)
    within = np.arange(len(side)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    middles = points[side] + ((within + 0.5) / pieces[side])[:, None] * sides[side]
    step = float(np.hypot(*sides.T).sum()) / len(middles)
    smooth = gaussian_filter1d(middles, _SMOOTHING_M / step, axis=0, mode="nearest")
    if len(smooth) > 1:
        step = max(float(np.hypot(*np.diff(smooth, axis=0).T).mean()), 1e-6)
    return smooth, step


def _own_direction(samples: FloatArray) -> float:
    scatter = samples.T @ samples
    return 0.5 * float(np.arctan2(2 * scatter[0, 1], scatter[0, 0] - scatter[1, 1]))


def _choose(
    samples: FloatArray, step: float, angles: FloatArray, prices: FloatArray, corner: float
) -> tuple[list[tuple[float, float]], list[int]]:
    """Choose the cheapest walls along an open chain; returns (angle, offset) of each, and its first sample."""
    normals = np.column_stack([-np.sin(angles), np.cos(angles)])
    across = samples @ normals.T
    offsets: list[FloatArray] = []
    for family in range(len(angles)):
        low, high = across[:, family].min(), across[:, family].max()
        offsets.append(np.linspace(low, high, int((high - low) / _OFFSET_STEP_M) + 2))
    families = np.repeat(np.arange(len(angles)), [len(values) for values in offsets])
    offset = np.concatenate(offsets)
    begins = np.concatenate([[0], np.cumsum([len(values) for values in offsets])[:-1]])
    misfit = np.minimum((across[:, families] - offset) ** 2, _TRUNCATION_M**2) * step
    turns = np.abs(np.sin(angles[:, None] - angles[None, :])) > _MIN_TURN_SIN
    cost = misfit[0] + prices[families]
    came = np.full((len(samples), len(offset)), -1, np.int64)
    for sample in range(1, len(samples)):
        best = np.minimum.reduceat(cost, begins)
        entry = np.where(turns, best[:, None], np.inf)
        source = entry.argmin(axis=0)
        switched = (entry[source, np.arange(len(angles))] + corner + prices)[families]
        changes = switched < cost
        if changes.any():
            lines = np.array([begins[family] + int(cost[families == family].argmin()) for family in range(len(angles))])
            came[sample, changes] = lines[source[families[changes]]]
        cost = np.where(changes, switched, cost) + misfit[sample]
    line = int(cost.argmin())
    walls, firsts = [line], []
    for sample in range(len(samples) - 1, 0, -1):
        if came[sample, line] >= 0:
            firsts.append(sample)
            line = int(came[sample, line])
            walls.append(line)
    chosen = [(float(angles[families[line]]), float(offset[line])) for line in reversed(walls)]
    return chosen, [0, *reversed(firsts)]


def align(lines: list[Line], joins: list[tuple[int, int]]) -> None:
    """Make one line of lines that are joined, directly or by others.

    Args:
        lines: Lines, moved in place.
        joins: Pairs of places in ``lines``: nearly parallel ones.
    """
    if not joins:
        return
    first, second = np.array(joins).T
    groups = join(len(lines), first, second)
    for group in np.unique(groups[first]).tolist():
        members = [lines[place] for place in np.flatnonzero(groups == group)]
        longest = max(members, key=lambda line: line.length)
        total = sum(line.length for line in members)
        # Turned about its middle: about the origin a line far from it would leave its place.
        offset = sum(line.length * float(line.on_it @ longest.normal) for line in members) / total
        for line in members:
            sign = 1.0 if np.cos(line.angle - longest.angle) > 0 else -1.0
            line.angle = longest.angle if sign > 0 else longest.angle + np.pi
            line.offset = sign * offset


def goes_on(wall: Line, other: Line, point: FloatArray, aligned_m: float = ALIGNED_M) -> bool:
    """Tell whether two walls that end near a point are one: nearly parallel, and offset by less than ``aligned_m``."""
    if abs(np.sin(wall.angle - other.angle)) > _PARALLEL:
        return False
    sense = 1.0 if np.cos(wall.angle - other.angle) > 0 else -1.0
    return abs(float(wall.away(point)) - sense * float(other.away(point))) < aligned_m


def common_point(walls: list[Line], near: FloatArray) -> FloatArray:
    """Return the point nearest to all lines, and by a little to a point."""
    normals = np.array([wall.normal for wall in walls])
    offsets = np.array([wall.away(near) for wall in walls])
    system = normals.T @ normals + 1e-6 * np.eye(2)
    return np.asarray(near - np.linalg.solve(system, normals.T @ offsets))


def line_through(start: FloatArray, end: FloatArray) -> Line:
    """Return the wall from one point to another."""
    angle = float(np.arctan2(*(end - start)[::-1]))
    line = Line(angle, 0.0, float(np.hypot(*(end - start))), (start + end) / 2)
    line.offset = float(start @ line.normal)
    return line
