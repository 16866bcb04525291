"""Which walls an outline follows: the choice of lines around a closed ring that costs least, by dynamic programming.

A wall is a line: a family (direction) and an offset. Each sample of the outline pays the squared distance to its line,
truncated so that trees and pinholes cost alike however deep they bite, and for a tangent that runs elsewhere; each
change of line pays the price of a corner, and changing to diagonals or free angles more. The best path through the
table of (sample, line) is found exactly (Viterbi 1967), along the ring twice over, so that its seam leaves no trace.

Only lines that enough of the outline supports are in the table.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ctrs.vector.regularize.compiling import compiled

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

OFFSET_STEP_M = 0.1
"""Step of the offsets of lines."""

_SUPPORT_REACH = 3
"""Steps to each side in which samples support a line."""

_SUPPORT_M = 0.75
"""Length of outline that must support a line."""

_PARALLEL_SIN2 = 0.15
"""Squared sine of the angle between tangent and line up to which a sample supports a line."""

_MIN_TURN_SIN = 0.2
"""Sine of the smallest angle between consecutive walls."""

_TANGENT_REACH_M = 0.5
"""To each side: the chord that counts as tangent."""


@compiled
def choose_walls(
    points: FloatArray,
    spacing: float,
    angles: FloatArray,
    penalties: FloatArray,
    trunc: float,
    corner: float,
    tangent: float,
) -> tuple[IntArray, FloatArray, IntArray]:
    """Choose the walls of one ring.

    Args:
        points: Even samples of the ring around an origin nearby; shape (N, 2), metres.
        spacing: Metres between them.
        angles: Direction of each family, radians; shape (F,).
        penalties: Price of a corner into each family on top of ``corner``; shape (F,).
        trunc: Distance beyond which it costs no more, metres.
        corner: Price of a corner: square metres times metres of outline.
        tangent: Weight of the squared sine between tangent and line.

    Returns:
        For each wall: family, offset along the family's normal (metres), first sample. Fewer than three: no ring.
    """
    count, num_families = len(points), len(angles)
    offsets, families, misfit = _lines(points, spacing, angles)
    num_lines = len(offsets)
    none = (np.empty(0, np.int64), np.empty(0), np.empty(0, np.int64))
    if num_lines < 3:
        return none
    price, worst = corner / spacing, trunc * trunc
    may_follow = np.empty((num_families, num_families), np.bool_)
    for one in range(num_families):
        for other in range(num_families):
            may_follow[one, other] = abs(np.sin(angles[one] - angles[other])) > _MIN_TURN_SIN
    cos, sin = np.cos(angles), np.sin(angles)
    cost = np.zeros(num_lines)
    stays = np.ones((2 * count, num_lines), np.bool_)
    came = np.full((2 * count, num_families), -1, np.int64)
    best, best_line = np.empty(num_families), np.empty(num_families, np.int64)
    across = np.empty(num_families)
    switch = np.full(num_families, np.inf)
    for step in range(2 * count):
        sample = step % count
        for family in range(num_families):
            across[family] = -sin[family] * points[sample, 0] + cos[family] * points[sample, 1]
        if step:
            best[:] = np.inf
            for line in range(num_lines):
                if cost[line] < best[families[line]]:
                    best[families[line]] = cost[line]
                    best_line[families[line]] = line
            for family in range(num_families):
                switch[family] = np.inf
                for other in range(num_families):
                    if may_follow[family, other] and best[other] < switch[family]:
                        switch[family] = best[other]
                        came[step, family] = best_line[other]
                switch[family] += price + penalties[family] / spacing
        for line in range(num_lines):
            family = families[line]
            away = across[family] - offsets[line]
            local = away * away
            if local > worst:
                local = worst
            local += tangent * misfit[family, sample]
            before = cost[line]
            if switch[family] < before:
                before = switch[family]
                stays[step, line] = False
            cost[line] = before + local
    line = int(np.argmin(cost))
    path = np.empty(2 * count, np.int64)
    for step in range(2 * count - 1, -1, -1):
        path[step] = line
        if step and not stays[step, line]:
            line = came[step, families[line]]
    # The middle of the two rounds does not feel their ends.
    begin = count // 2
    wall_lines, firsts = np.empty(count, np.int64), np.empty(count, np.int64)
    num_walls = 0
    for step in range(begin, begin + count):
        before = path[step - 1] if step > begin else path[begin + count - 1]
        if path[step] != before:
            wall_lines[num_walls] = path[step]
            firsts[num_walls] = step % count
            num_walls += 1
    # Where the two rounds chose parallel lines, the wall across the seam is one: the first part joins the last.
    seam = 1 if num_walls and families[wall_lines[0]] == families[wall_lines[num_walls - 1]] else 0
    if num_walls - seam < 3:
        return none
    wall_lines = wall_lines[seam:num_walls]
    return families[wall_lines], offsets[wall_lines], firsts[seam:num_walls]


@compiled
def _lines(points: FloatArray, spacing: float, angles: FloatArray) -> tuple[FloatArray, IntArray, FloatArray]:
    """Return offset and family of the lines that the outline supports, and how far tangents are off each family."""
    count, num_families = len(points), len(angles)
    reach = max(1, int(np.rint(_TANGENT_REACH_M / spacing)))
    misfit = np.empty((num_families, count))
    found_offsets = np.empty(0)
    found_families = np.empty(0, np.int64)
    for family in range(num_families):
        cos, sin = np.cos(angles[family]), np.sin(angles[family])
        across = points[:, 1] * cos - points[:, 0] * sin
        low = across.min() - OFFSET_STEP_M
        bins = int((across.max() - low) / OFFSET_STEP_M) + 2
        votes = np.zeros(bins)
        for sample in range(count):
            ahead, behind = (sample + reach) % count, (sample - reach) % count
            dx, dy = points[ahead, 0] - points[behind, 0], points[ahead, 1] - points[behind, 1]
            length = max(np.hypot(dx, dy), 1e-9)
            off = ((dy * cos - dx * sin) / length) ** 2
            misfit[family, sample] = off
            if off < _PARALLEL_SIN2:
                votes[int((across[sample] - low) / OFFSET_STEP_M + 0.5)] += spacing
        kept = np.zeros(bins, np.bool_)
        for place in range(bins):
            support = 0.0
            for near in range(max(0, place - _SUPPORT_REACH), min(bins, place + _SUPPORT_REACH + 1)):
                support += votes[near]
            kept[place] = support >= _SUPPORT_M
        places = np.flatnonzero(kept)
        found_offsets = np.concatenate((found_offsets, low + places * OFFSET_STEP_M))
        found_families = np.concatenate((found_families, np.full(len(places), family, np.int64)))
    return found_offsets, found_families, misfit
