"""The town's plan: curved main roads, side streets between them, and the blocks that they enclose.

The plan is endless. It is drawn on a straight grid in plan metres (u, v) and bent onto the ground, in ground metres
(x east, y south), by a smooth shear, so that streets curve. Main roads lie on jittered grid lines; the cell between
four of them is a quarter, cut into blocks by side streets with a generator seeded by (seed, row, column). Whatever
window of the ground is asked for, the same streets come out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

MAIN_SPACING_M = 168.0
MAIN_JITTER_M = 18.0
MAIN_HALF_WIDTH_M = 4.9
SIDE_HALF_WIDTH_M = 2.9
PAVEMENT_M = 2.0
_FAR_M = 1e6
_INDEX_OFFSET = 1 << 20  # SeedSequence takes no negative numbers

FloatGrid = NDArray[np.float64]
Axis = Literal["u", "v"]


@dataclass(frozen=True, kw_only=True)
class Street:
    """A straight street in plan metres; ``axis`` is the direction in which it runs."""

    axis: Axis
    at_m: float  # the other coordinate of its centre line
    start_m: float
    end_m: float
    half_width_m: float
    main: bool


@dataclass(frozen=True, kw_only=True)
class Block:
    """Ground between streets, from the back of one pavement to the back of the next, in plan metres."""

    u0: float
    v0: float
    u1: float
    v1: float


@dataclass(frozen=True, kw_only=True)
class Quarter:
    """What lies between four main roads."""

    row: int
    column: int
    u0: float  # centre lines of the bounding main roads
    v0: float
    u1: float
    v1: float
    side_streets: tuple[Street, ...]
    blocks: tuple[Block, ...]


class TownPlan:
    """Streets and blocks of the town that belongs to ``seed``."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        rng = self.rng("plan")
        self.rotation_rad = float(rng.uniform(0.08, 0.42) * rng.choice([-1.0, 1.0]))
        # Amplitude over wavelength is kept below 0.05, so that no street bends by more than about 15 degrees.
        self._bends = [
            (amplitude * float(rng.uniform(0.7, 1.0)), math.tau / (length * float(rng.uniform(0.9, 1.1))), float(phase))
            for amplitude, length, phase in zip(
                (11.0, 2.5, 11.0, 2.5), (430.0, 170.0, 470.0, 190.0), rng.uniform(0.0, 2.0 * math.pi, 4), strict=True
            )
        ]
        self.sun_azimuth_rad = math.radians(float(rng.uniform(138.0, 205.0)))
        self.sun_elevation_rad = math.radians(float(rng.uniform(43.0, 53.0)))
        self.quarter = lru_cache(maxsize=None)(self._quarter)

    def rng(self, purpose: str, *keys: int) -> np.random.Generator:
        """Return the generator for one purpose and place; it depends on nothing else."""
        return np.random.default_rng([self.seed, *purpose.encode(), *(key + _INDEX_OFFSET for key in keys)])

    def to_plan(self, x: FloatGrid, y: FloatGrid) -> tuple[FloatGrid, FloatGrid]:
        """Return plan coordinates (u, v) of ground coordinates; arrays are broadcast."""
        cos, sin = math.cos(self.rotation_rad), math.sin(self.rotation_rad)
        p, q = x * cos + y * sin, y * cos - x * sin
        (a0, k0, f0), (a1, k1, f1), (a2, k2, f2), (a3, k3, f3) = self._bends
        u = p + a0 * np.sin(k0 * q + f0) + a1 * np.sin(k1 * q + f1)
        v = q + a2 * np.sin(k2 * p + f2) + a3 * np.sin(k3 * p + f3)
        return u, v

    def to_ground(self, u: float, v: float) -> tuple[float, float]:
        """Return the ground point (x, y) of a plan point: the inverse of `to_plan`, by iteration."""
        (a0, k0, f0), (a1, k1, f1), (a2, k2, f2), (a3, k3, f3) = self._bends
        p, q = u, v
        for _ in range(8):  # a contraction: the slopes of both bends are below 0.3, so each round gains a digit
            p = u - a0 * math.sin(k0 * q + f0) - a1 * math.sin(k1 * q + f1)
            q = v - a2 * math.sin(k2 * p + f2) - a3 * math.sin(k3 * p + f3)
        cos, sin = math.cos(self.rotation_rad), math.sin(self.rotation_rad)
        return p * cos - q * sin, p * sin + q * cos

    def direction_rad(self, u: float, v: float, axis: Axis) -> float:
        """Return the ground direction (from east towards south) of a street running along ``axis`` at a plan point."""
        du, dv = (1.0, 0.0) if axis == "u" else (0.0, 1.0)
        x0, y0 = self.to_ground(u - du, v - dv)
        x1, y1 = self.to_ground(u + du, v + dv)
        return math.atan2(y1 - y0, x1 - x0)

    def main_line_m(self, axis: Axis, index: int) -> float:
        """Return where main road ``index`` that runs along ``axis`` crosses the other axis."""
        jitter = self.rng(f"main {axis}", index).uniform(-MAIN_JITTER_M, MAIN_JITTER_M)
        return index * MAIN_SPACING_M + float(jitter)

    def quarters(self, x0: float, y0: float, x1: float, y1: float) -> list[Quarter]:
        """Return all quarters that may touch a ground rectangle, in an order that is the same for every window."""
        u0, v0, u1, v1 = self._plan_bounds(x0, y0, x1, y1)
        columns = range(math.floor(u0 / MAIN_SPACING_M) - 1, math.floor(u1 / MAIN_SPACING_M) + 2)
        rows = range(math.floor(v0 / MAIN_SPACING_M) - 1, math.floor(v1 / MAIN_SPACING_M) + 2)
        found = [self.quarter(row, column) for row in rows for column in columns]
        return [q for q in found if q.u0 <= u1 and q.u1 >= u0 and q.v0 <= v1 and q.v1 >= v0]

    def main_streets(self, quarters: list[Quarter]) -> list[Street]:
        """Return the main roads around the given quarters, without ends."""
        columns = sorted({c for q in quarters for c in (q.column, q.column + 1)})
        rows = sorted({r for q in quarters for r in (q.row, q.row + 1)})
        return [self._main("v", index) for index in columns] + [self._main("u", index) for index in rows]

    def _main(self, axis: Axis, index: int) -> Street:
        return Street(
            axis=axis,
            at_m=self.main_line_m(axis, index),
            start_m=-_FAR_M,
            end_m=_FAR_M,
            half_width_m=MAIN_HALF_WIDTH_M,
            main=True,
        )

    def _plan_bounds(self, x0: float, y0: float, x1: float, y1: float) -> tuple[float, float, float, float]:
        x = np.array([x0, x1, x0, x1])
        y = np.array([y0, y0, y1, y1])
        u, v = self.to_plan(x, y)
        slack = 2.0 * sum(abs(amplitude) for amplitude, _, _ in self._bends)
        return float(u.min() - slack), float(v.min() - slack), float(u.max() + slack), float(v.max() + slack)

    def _quarter(self, row: int, column: int) -> Quarter:
        u0, u1 = self.main_line_m("v", column), self.main_line_m("v", column + 1)
        v0, v1 = self.main_line_m("u", row), self.main_line_m("u", row + 1)
        streets: list[Street] = []
        blocks: list[Block] = []
        main = (True, True, True, True)
        _split(self.rng("quarter", row, column), (u0, v0, u1, v1), main, streets, blocks)
        return Quarter(
            row=row, column=column, u0=u0, v0=v0, u1=u1, v1=v1, side_streets=tuple(streets), blocks=tuple(blocks)
        )


def _split(
    rng: np.random.Generator,
    rect: tuple[float, float, float, float],
    main: tuple[bool, bool, bool, bool],
    streets: list[Street],
    blocks: list[Block],
) -> None:
    """Cut a rectangle between street centre lines in two until it is a block; ``main``: left, top, right, bottom."""
    u0, v0, u1, v1 = rect
    width, height = u1 - u0, v1 - v0
    long_side = max(width, height)
    if long_side < 82.0 or (long_side < 102.0 and rng.random() < 0.55):
        insets = [PAVEMENT_M + (MAIN_HALF_WIDTH_M if is_main else SIDE_HALF_WIDTH_M) for is_main in main]
        blocks.append(Block(u0=u0 + insets[0], v0=v0 + insets[1], u1=u1 - insets[2], v1=v1 - insets[3]))
        return
    fraction = float(rng.uniform(0.4, 0.6))
    if width >= height:
        cut = u0 + fraction * width
        streets.append(Street(axis="v", at_m=cut, start_m=v0, end_m=v1, half_width_m=SIDE_HALF_WIDTH_M, main=False))
        _split(rng, (u0, v0, cut, v1), (main[0], main[1], False, main[3]), streets, blocks)
        _split(rng, (cut, v0, u1, v1), (False, main[1], main[2], main[3]), streets, blocks)
    else:
        cut = v0 + fraction * height
        streets.append(Street(axis="u", at_m=cut, start_m=u0, end_m=u1, half_width_m=SIDE_HALF_WIDTH_M, main=False))
        _split(rng, (u0, v0, u1, cut), (main[0], main[1], main[2], False), streets, blocks)
        _split(rng, (u0, cut, u1, v1), (main[0], False, main[2], main[3]), streets, blocks)
