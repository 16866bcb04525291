"""Verdicts of axis-parallel boxes of whole metres, told one by one in exact numbers."""

from __future__ import annotations

from fractions import Fraction

Box = tuple[float, float, float, float]


def area(box: Box) -> int:
    return int((box[2] - box[0]) * (box[3] - box[1]))


def common(a: Box, b: Box) -> int:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return int(max(width, 0) * max(height, 0))


def iou(a: Box, b: Box) -> Fraction:
    return Fraction(common(a, b), area(a) + area(b) - common(a, b))


def pairs(drawn: list[Box], truth: list[Box]) -> list[tuple[int, int, Fraction]]:
    found: list[tuple[int, int, Fraction]] = []
    free, true_free = set(range(len(drawn))), set(range(len(truth)))
    while True:
        left = [(iou(drawn[i], truth[j]), -i, -j) for i in free for j in true_free if common(drawn[i], truth[j])]
        if not left:
            return found
        best, i, j = max(left)
        found.append((-i, -j, best))
        free.remove(-i)
        true_free.remove(-j)


def verdicts(drawn: list[Box], truth: list[Box]) -> tuple[list[str], list[str]]:
    matched = [(i, j) for i, j, value in pairs(drawn, truth) if value >= Fraction(1, 2)]
    inside = {j: [i for i, box in enumerate(drawn) if 2 * common(box, t) > area(box)] for j, t in enumerate(truth)}
    members = {i: [j for j, t in enumerate(truth) if 2 * common(box, t) > area(t)] for i, box in enumerate(drawn)}

    def of_drawn(i: int) -> str:
        if any(i == pair[0] for pair in matched):
            return "matched"
        if len(members[i]) > 1:
            return "merged"
        return "split" if any(i in parts and len(parts) > 1 for parts in inside.values()) else "spurious"

    def of_truth(j: int) -> str:
        if any(j == pair[1] for pair in matched):
            return "matched"
        if len(inside[j]) > 1:
            return "split"
        return "merged" if any(j in found and len(found) > 1 for found in members.values()) else "missed"

    return [of_drawn(i) for i in range(len(drawn))], [of_truth(j) for j in range(len(truth))]


def detection(drawn: list[Box], truth: list[Box], level: float) -> tuple[float | None, float | None, float | None]:
    count = sum(value >= Fraction(str(level)) for _, _, value in pairs(drawn, truth))
    both = len(drawn) + len(truth)
    return (
        count / len(drawn) if drawn else None,
        count / len(truth) if truth else None,
        2 * count / both if both else None,
    )
