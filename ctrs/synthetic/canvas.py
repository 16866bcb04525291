"""The canvas: reflectance, class and height of a pixel window of the town, and the light that falls on it.

Every value depends on the seed and the place on the ground only, never on where the window was cut.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ctrs.synthetic.inventory import TownClass
from ctrs.synthetic.streets import TownPlan

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
Box2d = tuple[slice, slice]

_AMBIENT = np.array([0.36, 0.385, 0.43], dtype=np.float32)  # the sky's share is bluish
_DIRECT = np.array([0.66, 0.635, 0.585], dtype=np.float32)
_SHADOW_BIAS_M = 0.25  # keeps lit slopes from shading themselves where steps are rounded to pixels


def _hash(seed: int, ix: NDArray[np.int64], iy: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return well-mixed bits for each lattice point (murmur3's finalizer on a linear key)."""
    key = ix.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + iy.astype(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F)
    key = key + np.uint64((seed * 0x165667B19E3779F9 + 0x27D4EB2F165667C5) & 0xFFFFFFFFFFFFFFFF)
    key ^= key >> np.uint64(33)
    key *= np.uint64(0xFF51AFD7ED558CCD)
    key ^= key >> np.uint64(33)
    key *= np.uint64(0xC4CEB9FE1A85EC53)
    key ^= key >> np.uint64(33)
    return key


def white_noise(seed: int, columns: NDArray[np.int64], rows: NDArray[np.int64]) -> FloatArray:
    """Return near-normal noise of mean 0 and deviation 1 for each pixel, shape (rows, columns)."""
    bits = _hash(seed, columns[None, :], rows[:, None])
    total = np.zeros(bits.shape, dtype=np.float32)
    for shift in (0, 16, 32, 48):
        total += ((bits >> np.uint64(shift)) & np.uint64(0xFFFF)).astype(np.float32)
    return (total / np.float32(65535.0) - np.float32(2.0)) * np.float32(math.sqrt(3.0))


def value_noise(seed: int, x: NDArray[np.float64], y: NDArray[np.float64], scale_m: float) -> FloatArray:
    """Return smooth noise in [-1, 1] that varies over ``scale_m``, shape (len(y), len(x))."""

    def axis(values: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.intp], FloatArray]:
        cell = np.floor(values / scale_m).astype(np.int64)
        part = (values / scale_m - cell).astype(np.float32)
        lattice = np.arange(cell.min(), cell.max() + 2, dtype=np.int64)
        return lattice, (cell - cell.min()).astype(np.intp), part * part * (np.float32(3.0) - np.float32(2.0) * part)

    lattice_x, at_x, weight_x = axis(x)
    lattice_y, at_y, weight_y = axis(y)
    knots = (_hash(seed, lattice_x[None, :], lattice_y[:, None]) >> np.uint64(40)).astype(np.float32)
    knots = knots / np.float32((1 << 23) - 0.5) - np.float32(1.0)
    rows = knots[at_y] + (knots[at_y + 1] - knots[at_y]) * weight_y[:, None]
    low = rows[:, at_x]
    result: FloatArray = low + (rows[:, at_x + 1] - low) * weight_x[None, :]
    return result


class Canvas:
    """A window of the town being painted.

    Attributes:
        x, y: Ground coordinates of the pixel centres, metres, (W,) and (H,).
        u, v: Plan coordinates, metres, (H, W).
        color: Reflectance 0..1, (H, W, 3).
        label: Class, (H, W) uint8.
        height: Metres above ground, (H, W).
        slope_light: Direct light on the surface relative to level ground, (H, W).
        grain, fine, mid, coarse, broad: Noise fields over one pixel, 0.5, 2, 9 and 47 metres, (H, W).
    """

    def __init__(
        self, plan: TownPlan, col_off: int, row_off: int, width: int, height: int, pixel_size_m: float
    ) -> None:
        self.plan = plan
        self.pixel_size_m = pixel_size_m
        columns = np.arange(col_off, col_off + width, dtype=np.int64)
        rows = np.arange(row_off, row_off + height, dtype=np.int64)
        self.x = (columns.astype(np.float64) + 0.5) * pixel_size_m
        self.y = (rows.astype(np.float64) + 0.5) * pixel_size_m
        u, v = plan.to_plan(self.x[None, :], self.y[:, None])
        self.u, self.v = u.astype(np.float32), v.astype(np.float32)
        shape = (height, width)
        self.color = np.zeros((*shape, 3), dtype=np.float32)
        self.label = np.full(shape, TownClass.LOW_VEGETATION, dtype=np.uint8)
        self.height = np.zeros(shape, dtype=np.float32)
        self.slope_light = np.ones(shape, dtype=np.float32)
        self.grain = white_noise(plan.seed, columns, rows)
        self.fine = value_noise(plan.seed + 1, self.x, self.y, 0.5)
        self.mid = value_noise(plan.seed + 2, self.x, self.y, 2.1)
        self.coarse = value_noise(plan.seed + 3, self.x, self.y, 9.3)
        self.broad = value_noise(plan.seed + 4, self.x, self.y, 47.0)
        cos_e = math.cos(plan.sun_elevation_rad)
        # Towards the sun: east, south, up.
        self.sun = (
            cos_e * math.sin(plan.sun_azimuth_rad),
            -cos_e * math.cos(plan.sun_azimuth_rad),
            math.sin(plan.sun_elevation_rad),
        )

    def box(self, x0: float, y0: float, x1: float, y1: float) -> Box2d | None:
        """Return the slices (rows, columns) of the pixels in a ground rectangle, None where it lies outside."""
        c0, c1 = np.searchsorted(self.x, (x0, x1))
        r0, r1 = np.searchsorted(self.y, (y0, y1))
        return None if c0 == c1 or r0 == r1 else (slice(int(r0), int(r1)), slice(int(c0), int(c1)))

    def around(self, x: float, y: float, reach_m: float) -> Box2d | None:
        """Return the slices of the pixels within ``reach_m`` of a ground point."""
        return self.box(x - reach_m, y - reach_m, x + reach_m, y + reach_m)

    def plan_box(self, u0: float, v0: float, u1: float, v1: float, pad_m: float) -> Box2d | None:
        """Return the slices of the pixels that may lie in a plan rectangle."""
        u0, v0, u1, v1 = u0 - pad_m, v0 - pad_m, u1 + pad_m, v1 + pad_m
        us, vs = np.linspace(u0, u1, 4), np.linspace(v0, v1, 4)
        edge = [(u, v) for u in us for v in (v0, v1)] + [(u, v) for u in (u0, u1) for v in vs]
        points = np.array([self.plan.to_ground(float(u), float(v)) for u, v in edge])
        (x0, y0), (x1, y1) = points.min(axis=0) - 2.0, points.max(axis=0) + 2.0
        return self.box(float(x0), float(y0), float(x1), float(y1))

    def local(self, box: Box2d, x: float, y: float, angle_rad: float) -> tuple[FloatArray, FloatArray]:
        """Return coordinates along and across a direction from a ground point, for each pixel of a box."""
        dx = (self.x[box[1]] - x)[None, :].astype(np.float32)
        dy = (self.y[box[0]] - y)[:, None].astype(np.float32)
        cos, sin = np.float32(math.cos(angle_rad)), np.float32(math.sin(angle_rad))
        return dx * cos + dy * sin, dy * cos - dx * sin

    def cast_shadows(self) -> FloatArray:
        """Return the share of direct light that shadows take, 0..1, (H, W).

        The highest ray over each pixel, max over k of height(p + k s) - k s tan(elevation), by doubling k.
        """
        flat = math.hypot(self.sun[0], self.sun[1])
        step_col, step_row = self.sun[0] / flat, self.sun[1] / flat
        drop = math.tan(self.plan.sun_elevation_rad) * self.pixel_size_m
        reach = float(self.height.max()) / drop
        ray = self.height.copy()
        rows, cols = ray.shape
        length = 1
        while length <= reach:
            dr, dc = round(step_row * length), round(step_col * length)
            if abs(dr) >= rows or abs(dc) >= cols:
                break
            to = (slice(max(0, -dr), rows - max(0, dr)), slice(max(0, -dc), cols - max(0, dc)))
            source = (slice(max(0, dr), rows - max(0, -dr)), slice(max(0, dc), cols - max(0, -dc)))
            shifted = ray[source] - np.float32(drop * length)
            np.maximum(ray[to], shifted, out=ray[to])
            length *= 2
        shadow = (ray > self.height + np.float32(_SHADOW_BIAS_M)).astype(np.float32)
        softness_px = 0.18 / self.pixel_size_m
        result: FloatArray = ndimage.gaussian_filter(shadow, softness_px, truncate=3.0)
        return result

    def light(self, blur_px: float) -> FloatArray:
        """Return what the camera sees through a slightly soft lens, 0..1, (H, W, 3)."""
        sunlight = self.slope_light * (np.float32(1.0) - self.cast_shadows())
        # Walls and crowns nearby hide part of the sky: darker at the feet of buildings.
        above = ndimage.gaussian_filter(self.height, 1.6 / self.pixel_size_m, truncate=2.0) - self.height
        sky = np.float32(1.0) - np.clip(above * np.float32(0.08), 0.0, 0.4)
        seen = np.empty_like(self.color)
        for band in range(3):
            lit = self.color[..., band] * (_AMBIENT[band] * sky + _DIRECT[band] * sunlight)
            ndimage.gaussian_filter(lit, blur_px, output=seen[..., band], truncate=3.0)
        return seen
