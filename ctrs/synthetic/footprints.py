"""Building footprints whose true walls are known: what polygons drawn from masks are judged against.

Eleven shapes in fixed shares, at random angles, placed without touching; row houses and pairs come as separate units.
``mask_noise`` makes the masks that a network might have drawn of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import shapely

from ctrs.errors import UsageError

FootprintKind = Literal[
    "rectangle", "l", "t", "u", "z", "plus", "courtyard", "row_houses", "pair", "chamfered", "oblique"
]
Polygons = npt.NDArray[np.object_]
Corners = npt.NDArray[np.float64]

SHARES: dict[FootprintKind, int] = {
    "rectangle": 34,
    "l": 20,
    "t": 8,
    "u": 8,
    "z": 5,
    "plus": 3,
    "courtyard": 5,
    "row_houses": 7,
    "pair": 5,
    "chamfered": 3,
    "oblique": 2,
}
"""Percent of the drawn objects; a row or a pair counts once."""

MIN_GAP_M = 2.0
"""Ground between one object and the next; the two buildings of a pair stand closer."""

_TRIES = 400
_CELL_M = 50.0


@dataclass(frozen=True, kw_only=True)
class Footprints:
    """Buildings with true walls, in metres.

    Args:
        polygons: One for each unit; units of a row share their party walls vertex for vertex; shape (N,).
        kinds: What each unit belongs to, a ``FootprintKind``; shape (N,).
        objects: Number of the row, pair or single building that each unit belongs to; shape (N,).
    """

    polygons: Polygons
    kinds: npt.NDArray[np.object_]
    objects: npt.NDArray[np.int64]

    def merged(self) -> Footprints:
        """Return the footprints with the units of each row merged: what a mask without instances can show at best."""
        rows = np.flatnonzero(self.kinds == "row_houses")
        others = np.flatnonzero(self.kinds != "row_houses")
        numbers, first = np.unique(self.objects[rows], return_index=True)
        merged = [_without_straight_corners(self.polygons[rows[self.objects[rows] == number]]) for number in numbers]
        order = np.argsort(np.concatenate([others, rows[first]]))
        chosen = np.concatenate([others, rows[first]])[order]
        polygons = np.concatenate([self.polygons[others], np.array(merged, object)])[order]
        return Footprints(polygons=polygons, kinds=self.kinds[chosen], objects=self.objects[chosen])


def draw_footprints(count: int, width_m: float, height_m: float, *, seed: int = 0) -> Footprints:
    """Place buildings at random on a piece of ground.

    Args:
        count: Objects; a row of houses and a pair are one each.
        width_m: Width of the ground; x runs from 0 to it.
        height_m: Height of the ground; y runs from 0 to it.
        seed: The same seed gives the same footprints.

    Raises:
        UsageError: The ground is too small for so many.
    """
    rng = np.random.default_rng([seed, 1])
    kinds = _kinds(count, rng)
    shapes = [_DRAW[kind](rng) for kind in kinds]
    extents = np.array([max(float(np.hypot(*ring.T).max()) for rings in units for ring in rings) for units in shapes])
    ground = _Ground(width_m, height_m)
    placed: dict[int, list[Any]] = {}
    for index in np.argsort(-extents, kind="stable").tolist():
        placed[index] = ground.place(shapes[index], float(extents[index]), rng)
    order = range(count)
    return Footprints(
        polygons=np.array([polygon for index in order for polygon in placed[index]], object),
        kinds=np.array([kinds[index] for index in order for _ in placed[index]], object),
        objects=np.array([index for index in order for _ in placed[index]], np.int64),
    )


def _kinds(count: int, rng: np.random.Generator) -> list[FootprintKind]:
    """Exact shares (largest remainders) in random order."""
    names = list(SHARES)
    exact = np.array([SHARES[name] for name in names]) * count / 100
    numbers = np.floor(exact).astype(int)
    numbers[np.argsort(numbers - exact, kind="stable")[: count - int(numbers.sum())]] += 1
    drawn = np.repeat(np.arange(len(names)), numbers)
    return [names[number] for number in rng.permutation(drawn)]


class _Ground:
    """What stands already, in cells, so that each try looks at near neighbours only."""

    def __init__(self, width_m: float, height_m: float) -> None:
        self._size = (width_m, height_m)
        self._cells: dict[tuple[int, int], list[Any]] = {}

    def place(self, units: list[list[Corners]], extent: float, rng: np.random.Generator) -> list[Any]:
        margin = extent + MIN_GAP_M
        if 2 * margin >= min(self._size):
            raise self._full()
        for _ in range(_TRIES):
            angle = rng.uniform(0.0, 2 * math.pi)
            center = np.array([rng.uniform(margin, side - margin) for side in self._size])
            turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
            polygons = [
                shapely.Polygon(rings[0] @ turn + center, [hole @ turn + center for hole in rings[1:]])
                for rings in units
            ]
            whole = shapely.MultiPolygon(polygons) if len(polygons) > 1 else polygons[0]
            cells = list(self._around(whole))
            near = [other for cell in cells for other in self._cells.get(cell, ())]
            if not near or not shapely.dwithin(np.array(near, object), whole, MIN_GAP_M).any():
                for cell in cells:
                    self._cells.setdefault(cell, []).append(whole)
                return polygons
        raise self._full()

    def _around(self, shape: Any) -> Iterator[tuple[int, int]]:
        left, bottom, right, top = shape.bounds
        for column in range(int((left - MIN_GAP_M) // _CELL_M), int((right + MIN_GAP_M) // _CELL_M) + 1):
            for row in range(int((bottom - MIN_GAP_M) // _CELL_M), int((top + MIN_GAP_M) // _CELL_M) + 1):
                yield column, row

    def _full(self) -> UsageError:
        width, height = self._size
        return UsageError(
            f"no room left for another building on {width:g} x {height:g} m; ask for fewer, or for more ground"
        )


def _without_straight_corners(units: Polygons) -> Any:
    """Union of the units of a row, without vertices on which the outline goes straight on."""
    whole = shapely.get_exterior_ring(shapely.union_all(units))
    ring = shapely.get_coordinates(whole)[:-1]
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    turn = np.abs(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0])
    return shapely.Polygon(ring[turn > 1e-6 * np.hypot(*before.T) * np.hypot(*after.T)])


# Each of these draws one object around the origin, in metres: its units, each a list of rings, the shell first.


def _box(left: float, bottom: float, right: float, top: float) -> Corners:
    return np.array([[left, bottom], [right, bottom], [right, top], [left, top]])


def _centered(rings: list[Corners]) -> list[Corners]:
    middle = (rings[0].min(axis=0) + rings[0].max(axis=0)) / 2
    return [ring - middle for ring in rings]


def _sides(rng: np.random.Generator, low: float, high: float, longest: float) -> tuple[float, float]:
    """Width and length of a body: the length up to ``longest`` times the width."""
    width = rng.uniform(low, high)
    return float(width), float(width * rng.uniform(1.0, longest))


def _single(corners: list[tuple[float, float]]) -> list[list[Corners]]:
    return [_centered([np.array(corners, np.float64)])]


def _rectangle(rng: np.random.Generator) -> list[list[Corners]]:
    width, length = _sides(rng, 8.5, 15.0, 1.9)
    return _single([(0, 0), (length, 0), (length, width), (0, width)])


def _l(rng: np.random.Generator) -> list[list[Corners]]:
    width, length = _sides(rng, 11.0, 17.0, 1.7)
    a, b = length * rng.uniform(0.35, 0.65), width * rng.uniform(0.35, 0.65)
    return _single([(0, 0), (length, 0), (length, b), (a, b), (a, width), (0, width)])


def _t(rng: np.random.Generator) -> list[list[Corners]]:
    width, length = _sides(rng, 13.0, 17.0, 1.6)
    bar = width * rng.uniform(0.4, 0.65)
    left = length * rng.uniform(0.26, 0.38)
    right = length * rng.uniform(0.62, 0.74)
    return _single(
        [(0, 0), (length, 0), (length, bar), (right, bar), (right, width), (left, width), (left, bar), (0, bar)]
    )


def _u(rng: np.random.Generator) -> list[list[Corners]]:
    width, length = _sides(rng, 13.0, 18.0, 1.6)
    left, right = length * rng.uniform(0.26, 0.36), length * rng.uniform(0.64, 0.74)
    floor = width * rng.uniform(0.35, 0.6)
    return _single(
        [(0, 0), (length, 0), (length, width), (right, width), (right, floor), (left, floor), (left, width), (0, width)]
    )


def _z(rng: np.random.Generator) -> list[list[Corners]]:
    width, length = _sides(rng, 13.0, 17.0, 1.6)
    a, b = length * rng.uniform(0.25, 0.4), length * rng.uniform(0.6, 0.75)
    low, high = width * rng.uniform(0.26, 0.36), width * rng.uniform(0.64, 0.74)
    return _single([(0, 0), (b, 0), (b, low), (length, low), (length, width), (a, width), (a, high), (0, high)])


def _plus(rng: np.random.Generator) -> list[list[Corners]]:
    width, length = _sides(rng, 14.0, 18.0, 1.4)
    a, b = length * rng.uniform(0.24, 0.34), length * rng.uniform(0.66, 0.76)
    c, d = width * rng.uniform(0.24, 0.34), width * rng.uniform(0.66, 0.76)
    corners = [(a, 0), (b, 0), (b, c), (length, c), (length, d), (b, d), (b, width), (a, width), (a, d), (0, d)]
    return _single([*corners, (0, c), (a, c)])


def _courtyard(rng: np.random.Generator) -> list[list[Corners]]:
    width, length = _sides(rng, 16.0, 22.0, 1.5)
    wing = rng.uniform(4.5, min(7.0, (width - 4.5) / 2))
    return [_centered([_box(0, 0, length, width), _box(wing, wing, length - wing, width - wing)])]


def _row_houses(rng: np.random.Generator) -> list[list[Corners]]:
    """Houses of one width and depth, each set back or forward against the one before, or not."""
    count = int(rng.integers(3, 7))
    unit, depth = rng.uniform(5.5, 7.5), rng.uniform(9.0, 12.0)
    steps = np.where(rng.random(count) < 0.5, 0.0, rng.uniform(2.0, 3.0, count) * rng.choice([-1.0, 1.0], count))
    steps[0] = 0.0
    front = np.cumsum(steps)
    front -= (front.min() + front.max()) / 2
    shells: list[Corners] = []
    for number in range(count):
        left, right = number * unit, (number + 1) * unit
        low, high = front[number], front[number] + depth
        corners = [(left, low), (right, low), (right, high), (left, high)]
        # A neighbour's corners on this house's side walls are vertices here too, so that walls are shared exactly.
        for other, side, after in ((number - 1, left, 3), (number + 1, right, 1)):
            if 0 <= other < count:
                marks = sorted(float(y) for y in (front[other], front[other] + depth) if low < y < high)
                place = corners.index((right, low)) + 1 if after == 1 else len(corners)
                corners[place:place] = [(side, y) for y in (marks if after == 1 else marks[::-1])]
        shells.append(np.array(corners, np.float64))
    middle = np.array([count * unit / 2, depth / 2])
    return [[shell - middle] for shell in shells]


def _pair(rng: np.random.Generator) -> list[list[Corners]]:
    """Two buildings side by side with a gap that a mask may well close."""
    gap, units, left = rng.uniform(1.0, 2.4), [], 0.0
    for _ in range(2):
        length, width = rng.uniform(8.5, 14.0), rng.uniform(8.5, 14.0)
        low = rng.uniform(-2.0, 2.0)
        units.append(_box(left, low, left + length, low + width))
        left += length + gap
    middle = (np.min(units, axis=(0, 1)) + np.max(units, axis=(0, 1))) / 2
    return [[shell - middle] for shell in units]


def _chamfered(rng: np.random.Generator) -> list[list[Corners]]:
    width, length = _sides(rng, 11.0, 16.0, 1.6)
    cut = rng.uniform(3.0, 0.4 * width)
    return _single([(0, 0), (length, 0), (length, width - cut), (length - cut, width), (0, width)])


def _oblique(rng: np.random.Generator) -> list[list[Corners]]:
    """Three walls at right angles, the fourth askew along the lot's border."""
    width, length = _sides(rng, 10.0, 15.0, 1.6)
    lean = width * math.tan(math.radians(rng.uniform(12.0, 33.0)))
    return _single([(0, 0), (length, 0), (length + lean, width), (0, width)])


_DRAW: dict[FootprintKind, Callable[[np.random.Generator], list[list[Corners]]]] = {
    "rectangle": _rectangle,
    "l": _l,
    "t": _t,
    "u": _u,
    "z": _z,
    "plus": _plus,
    "courtyard": _courtyard,
    "row_houses": _row_houses,
    "pair": _pair,
    "chamfered": _chamfered,
    "oblique": _oblique,
}
