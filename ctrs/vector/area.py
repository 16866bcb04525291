"""Areas of interest: polygons that say which pixels of a grid are wanted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import shapely

from ctrs.errors import DataError, LabelError
from ctrs.raster.geotiff import Grid
from ctrs.vector.rasterize import GridPolygons, PolygonLayer, place_polygons, read_polygons

INSIDE = 1
"""Value that polygons of an area of interest paint."""


def read_area(path: Path) -> PolygonLayer:
    """Read the polygons of an area of interest.

    Args:
        path: Vector file, in any CRS.

    Raises:
        InputNotFoundError: There is no such file.
        DataError: It is not readable, holds no polygon, or names no CRS.
    """
    try:
        layer = read_polygons(path)
    except LabelError as error:
        raise DataError(f"--aoi: {error}") from error
    if not len(layer.frame):
        raise DataError(f"--aoi: {path}: no polygon found, expected those of the area of interest")
    if layer.frame.crs is None:
        raise DataError(f"--aoi: {path}: no CRS found, so nobody knows where it lies; save it with its CRS")
    return layer


def area_on(layer: PolygonLayer, grid: Grid) -> GridPolygons | None:
    """Return an area of interest in the pixels of a grid that has a CRS, None where it does not touch it.

    Raises:
        DataError: The CRS of the two do not go together.
    """
    try:
        placed = place_polygons(layer, grid, np.full(len(layer.frame), INSIDE, np.uint8))
    except LabelError as error:
        raise DataError(f"--aoi: {error}") from error
    scene = shapely.box(0, 0, grid.width, grid.height)
    touched = shapely.area(shapely.intersection(placed.shapes, scene)).sum() if len(placed.shapes) else 0.0
    return placed if touched > 0 else None
