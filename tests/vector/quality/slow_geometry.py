"""Figures of one pair of polygons, point by point and wall by wall: what the vectorized ones must equal."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

Point = tuple[float, float]
Wall = tuple[Point, Point]


def rings(polygon: Any) -> list[list[Point]]:
    return [[(x, y) for x, y in ring.coords][:-1] for ring in (polygon.exterior, *polygon.interiors)]


def corners(polygon: Any) -> list[Point]:
    return [corner for ring in rings(polygon) for corner in ring]


def walls(polygon: Any) -> list[Wall]:
    return [(ring[i], ring[(i + 1) % len(ring)]) for ring in rings(polygon) for i in range(len(ring))]


def project(point: Point, wall: Wall) -> Point:
    (x0, y0), (x1, y1) = wall
    dx, dy = x1 - x0, y1 - y0
    share = ((point[0] - x0) * dx + (point[1] - y0) * dy) / (dx * dx + dy * dy)
    share = min(1.0, max(0.0, share))
    return x0 + share * dx, y0 + share * dy


def nearest(point: Point, polygon: Any) -> tuple[Point, Wall]:
    return min(((project(point, wall), wall) for wall in walls(polygon)), key=lambda found: math.dist(found[0], point))


def distance(point: Point, polygon: Any) -> float:
    return math.dist(point, nearest(point, polygon)[0])


def polis(a: Any, b: Any) -> float:
    there = [distance(corner, b) for corner in corners(a)]
    back = [distance(corner, a) for corner in corners(b)]
    return sum(there) / (2 * len(there)) + sum(back) / (2 * len(back))


def cut(polygon: Any, spacing: float) -> Iterator[tuple[Point, Point]]:
    for (x0, y0), (x1, y1) in walls(polygon):
        count = max(1, math.ceil(math.dist((x0, y0), (x1, y1)) / spacing - 1e-9))
        marks = [(x0 + (x1 - x0) * i / count, y0 + (y1 - y0) * i / count) for i in range(count + 1)]
        yield from itertools.pairwise(marks)


def hausdorff(a: Any, b: Any, spacing: float) -> float:
    there = max(distance(start, b) for start, _ in cut(a, spacing))
    return max(there, max(distance(start, a) for start, _ in cut(b, spacing)))


def direction(start: Point, end: Point) -> float:
    return math.degrees(math.atan2(end[1] - start[1], end[0] - start[0]))


def parallel_share(predicted: Any, truth: Any, within: float, spacing: float) -> float:
    good = total = 0.0
    for start, end in cut(predicted, spacing):
        middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
        away = distance(middle, truth)
        near = [wall for wall in walls(truth) if math.dist(middle, project(middle, wall)) <= away + 1e-7]
        angles = [direction(start, end) - direction(*wall) for wall in near]
        length = math.dist(start, end)
        total += length
        good += length * any(abs((angle + 90) % 180 - 90) <= within for angle in angles)
    return good / total


def walk(ring: list[Point], spacing: float) -> list[Point]:
    steps = [(ring[i], ring[(i + 1) % len(ring)]) for i in range(len(ring))]
    length = sum(math.dist(*step) for step in steps)
    count = max(3, round(length / spacing))
    found: list[Point] = []
    for number in range(count):
        rest = number * length / count
        for start, end in steps:
            side = math.dist(start, end)
            if rest < side:
                break
            rest -= side
        found.append((start[0] + (end[0] - start[0]) * rest / side, start[1] + (end[1] - start[1]) * rest / side))
    return found


def tangent_angle_errors(predicted: Any, truth: Any, spacing: float, corner_free: float) -> tuple[float, float]:
    worst = worst_wall = 0.0
    for ring in rings(predicted):
        points = walk(ring, spacing)
        images = [nearest(point, truth)[0] for point in points]
        free = [min(math.dist(point, corner) for corner in corners(truth)) > corner_free for point in points]
        for i in range(len(points)):
            j = (i + 1) % len(points)
            length, image = math.dist(points[i], points[j]), math.dist(images[i], images[j])
            if image == 0 or not 0.5 <= image / length <= 2:
                continue
            angle = direction(points[i], points[j]) - direction(images[i], images[j])
            angle = abs((angle + 180) % 360 - 180)
            worst = max(worst, angle)
            if free[i] and free[j]:
                worst_wall = max(worst_wall, angle)
    return worst, worst_wall


def matched_corners(a: Any, b: Any, tolerance: float) -> int:
    ours, theirs, count = corners(a), corners(b), 0
    while ours and theirs:
        best, i, j = min((math.dist(p, q), i, j) for i, p in enumerate(ours) for j, q in enumerate(theirs))
        if best > tolerance:
            break
        del ours[i], theirs[j]
        count += 1
    return count
