"""Renders one scene of the town: image and classes, piece by piece so that memory stays small."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ctrs.synthetic.blocks import furnish_quarter
from ctrs.synthetic.buildings import paint_boxes, paint_cars, paint_roofs, paint_trees
from ctrs.synthetic.canvas import Canvas, FloatArray
from ctrs.synthetic.ground import paint_patches, paint_streets
from ctrs.synthetic.inventory import Inventory
from ctrs.synthetic.streets import Quarter, TownPlan

_PIECE_PX = 1024
_MARGIN_M = 21.0  # a roof of 19 m, the highest, throws a shadow of 20 m at the lowest sun, 43 degrees
_BLUR_PX = 0.62
_SENSOR_NOISE = 0.012


class Town:
    """A plan with its furnished quarters, which are kept for the neighbouring scenes."""

    def __init__(self, seed: int) -> None:
        self.plan = TownPlan(seed)
        self._inventories: dict[tuple[int, int], Inventory] = {}

    def inventory(self, quarter: Quarter) -> Inventory:
        """Return what stands in a quarter."""
        key = (quarter.row, quarter.column)
        if key not in self._inventories:
            self._inventories[key] = furnish_quarter(self.plan, quarter)
        return self._inventories[key]

    def render(
        self, col_off: int, row_off: int, width: int, height: int, pixel_size_m: float
    ) -> tuple[FloatArray, NDArray[np.uint8]]:
        """Return what the camera sees (H, W, 3), 0..1, and the classes (H, W) of a pixel window of the town."""
        image = np.empty((height, width, 3), dtype=np.float32)
        label = np.empty((height, width), dtype=np.uint8)
        for row in range(0, height, _PIECE_PX):
            for col in range(0, width, _PIECE_PX):
                rows, cols = min(_PIECE_PX, height - row), min(_PIECE_PX, width - col)
                piece = (slice(row, row + rows), slice(col, col + cols))
                image[piece], label[piece] = self._render_piece(col_off + col, row_off + row, cols, rows, pixel_size_m)
        return image, label

    def _render_piece(
        self, col_off: int, row_off: int, width: int, height: int, pixel_size_m: float
    ) -> tuple[FloatArray, NDArray[np.uint8]]:
        margin = math.ceil(_MARGIN_M / pixel_size_m)
        canvas = Canvas(
            self.plan, col_off - margin, row_off - margin, width + 2 * margin, height + 2 * margin, pixel_size_m
        )
        quarters = self.plan.quarters(
            float(canvas.x[0]) - 10.0, float(canvas.y[0]) - 10.0, float(canvas.x[-1]) + 10.0, float(canvas.y[-1]) + 10.0
        )
        inventories = [self.inventory(quarter) for quarter in quarters]
        paint_patches(canvas, [patch for inventory in inventories for patch in inventory.patches])
        streets = self.plan.main_streets(quarters) + [street for q in quarters for street in q.side_streets]
        paint_streets(canvas, streets)
        for inventory in inventories:
            paint_roofs(canvas, inventory.roofs)
            paint_boxes(canvas, inventory.roof_boxes)
        for inventory in inventories:
            paint_boxes(canvas, inventory.ground_boxes)
            paint_cars(canvas, inventory.cars)
        for inventory in inventories:
            paint_trees(canvas, inventory.trees)
        inner = (slice(margin, margin + height), slice(margin, margin + width))
        return canvas.light(_BLUR_PX)[inner], canvas.label[inner]


def develop(image: FloatArray, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the camera's image (H, W, 3) as bytes, with one flight's exposure, haze and colour cast, and noise."""
    gain = rng.normal(1.0, 0.045) * (1.0 + rng.normal(0.0, 0.01, 3))
    gamma = float(rng.uniform(0.92, 1.10))
    haze = float(rng.uniform(0.0, 0.03))
    # A slow brightness trend across the scene, as a mosaic's balancing leaves it.
    tilt_row, tilt_col = rng.normal(0.0, 0.02, 2)
    rows = np.linspace(-0.5, 0.5, image.shape[0], dtype=np.float32)[:, None] * np.float32(tilt_row)
    cols = np.linspace(-0.5, 0.5, image.shape[1], dtype=np.float32)[None, :] * np.float32(tilt_col)
    trend = 1.0 + rows + cols
    developed = np.empty(image.shape, dtype=np.uint8)
    for band in range(3):
        value = np.clip(image[..., band] * np.float32(gain[band]) * trend, 0.0, 1.0) ** np.float32(gamma)
        noise = rng.standard_normal(value.shape, dtype=np.float32)
        noise = np.float32(_SENSOR_NOISE) * (np.float32(0.7) * noise + ndimage.gaussian_filter(noise, 0.7))
        value = np.float32(haze) + value * np.float32(1.0 - haze) + noise
        developed[..., band] = np.clip(np.rint(value * 255.0), 0.0, 255.0).astype(np.uint8)
    return developed


def render_scene(
    town: Town, row: int, column: int, size_px: int, pixel_size_m: float
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return image (H, W, 3) and classes (H, W) of scene ``row_column``; neighbours join at their edges."""
    image, label = town.render(column * size_px, row * size_px, size_px, size_px, pixel_size_m)
    return develop(image, town.plan.rng("scene", row, column)), label
