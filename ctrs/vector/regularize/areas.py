"""Intersection over union of polygons, along lines: what exact geometry takes most of the time for is cheap here.

Lines run along the rows of pixels, through the middles of rows or closer. Outlines that follow pixels are measured
exactly; slanted walls almost so, since each line stands for its surroundings on both sides.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ctrs.vector.regularize.compiling import compiled

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Ragged = tuple[FloatArray, IntArray, IntArray]


@compiled
def compare_areas(ours: Ragged, others: Ragged, first: int, last: int, step: float, iou: FloatArray) -> None:
    """Compare the polygons from ``first`` up to ``last`` one by one with others.

    Args:
        ours: Corners of closed rings; first corner of each ring, and their number; first ring of each polygon, and
            their number.
        others: As many.
        first: First polygon.
        last: The polygon after the last.
        step: Between lines, metres; the lines lie at odd multiples of its half.
        iou: Written here; shape (P,).
    """
    for polygon in range(first, last):
        lines, places = _crossings(ours, polygon, step)
        other_lines, other_places = _crossings(others, polygon, step)
        common = either = 0.0
        one = other = 0
        while one < len(lines) or other < len(other_lines):
            line = min(
                lines[one] if one < len(lines) else np.iinfo(np.int64).max,
                other_lines[other] if other < len(other_lines) else np.iinfo(np.int64).max,
            )
            inside = other_inside = False
            before = 0.0
            while True:
                mine = one < len(lines) and lines[one] == line
                theirs = other < len(other_lines) and other_lines[other] == line
                if not mine and not theirs:
                    break
                takes_mine = mine and (not theirs or places[one] <= other_places[other])
                here = places[one] if takes_mine else other_places[other]
                if inside and other_inside:
                    common += here - before
                if inside or other_inside:
                    either += here - before
                before = here
                if takes_mine:
                    inside = not inside
                    one += 1
                else:
                    other_inside = not other_inside
                    other += 1
        iou[polygon] = common / either if either > 0 else 0.0


@compiled
def _crossings(shapes: Ragged, polygon: int, step: float) -> tuple[IntArray, FloatArray]:
    """Return where the outline of a polygon crosses lines: numbers of lines, rising, and places on them, rising."""
    corners, ring_offsets, polygon_offsets = shapes
    begin = ring_offsets[polygon_offsets[polygon]]
    end = ring_offsets[polygon_offsets[polygon + 1]]
    if begin == end:
        return np.empty(0, np.int64), np.empty(0)
    top = int(np.floor(corners[begin:end, 1].min() / step)) - 1
    num_lines = int(np.ceil(corners[begin:end, 1].max() / step)) - top + 2
    ends = np.zeros(num_lines + 1, np.int64)
    for ring in range(polygon_offsets[polygon], polygon_offsets[polygon + 1]):
        for corner in range(ring_offsets[ring], ring_offsets[ring + 1] - 1):
            first, last = _lines_between(corners[corner, 1], corners[corner + 1, 1], step)
            for line in range(first, last):
                ends[line - top + 1] += 1
    ends = np.cumsum(ends)
    count = ends[num_lines]
    filled = ends.copy()
    lines, places = np.empty(count, np.int64), np.empty(count)
    for ring in range(polygon_offsets[polygon], polygon_offsets[polygon + 1]):
        for corner in range(ring_offsets[ring], ring_offsets[ring + 1] - 1):
            x0, y0 = corners[corner]
            x1, y1 = corners[corner + 1]
            first, last = _lines_between(y0, y1, step)
            for line in range(first, last):
                here = x0 + ((line + 0.5) * step - y0) / (y1 - y0) * (x1 - x0)
                slot = filled[line - top]
                while slot > ends[line - top] and places[slot - 1] > here:
                    places[slot] = places[slot - 1]
                    slot -= 1
                places[slot] = here
                lines[filled[line - top]] = line
                filled[line - top] += 1
    return lines, places


@compiled
def _lines_between(one: float, other: float, step: float) -> tuple[int, int]:
    """Return the first line between two heights, and the one after the last."""
    low, high = (one, other) if one <= other else (other, one)
    return int(np.ceil(low / step - 0.5)), int(np.ceil(high / step - 0.5))
