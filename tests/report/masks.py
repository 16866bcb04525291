"""Small masks as ``ctrs predict`` writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from rasterio.crs import CRS

from ctrs.classes import ClassMap, LandClass
from ctrs.raster.cog import write_class_cog
from ctrs.raster.geotiff import Grid

CLASSES = ClassMap(
    classes=(
        LandClass(value=0, name="ground", color=(10, 20, 30)),
        LandClass(value=7, name='roof & <"gable">', color=(255, 0, 0)),
        LandClass(value=9, name="Straße", color=(0, 255, 16)),
    )
)
TAGS = {
    "CTRS_JOB": "ab" * 16,
    "CTRS_MODEL": "cd" * 32,
    "CTRS_INPUT": f"sha256:{'ef' * 32}",
    "CTRS_OPTIONS": '{"window_px": 512}',
}
UTM = Affine(0.5, 0, 400000, 0, -0.5, 5800000)


def grid_at(crs: int | str | None = 32633, transform: Affine = UTM, *, width: int = 60, height: int = 40) -> Grid:
    found = None if crs is None else CRS.from_epsg(crs) if isinstance(crs, int) else CRS.from_user_input(crs)
    return Grid(crs=found, transform=transform, width=width, height=height)


def write_mask(path: Path, grid: Grid | None = None, **tags: Any) -> Path:
    """Write a mask with values 0, 1, 2 and nodata."""
    grid = grid or grid_at()
    values = np.arange(grid.width * grid.height, dtype=np.uint32).reshape(grid.shape) // 3 % 4
    mask = np.where(values == 3, 255, values).astype(np.uint8)
    return write_class_cog(path, [mask], grid, CLASSES, {**TAGS, **tags})
