"""Where on a scene a rectangle or an area of interest lies, and how large its pixels are on the ground."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from ctrs.errors import DataError, RasterError, UsageError
from ctrs.raster.geotiff import Grid, crs_name
from ctrs.raster.names import shown
from ctrs.raster.rectangles import overlap
from ctrs.raster.units import ground_pixel_size_m
from ctrs.raster.windows import PixelWindow
from ctrs.vector.area import area_on, read_area
from ctrs.vector.rasterize import GridPolygons

MAX_GSD_FACTOR = 16.0
"""Most that a scene is enlarged or reduced for the network, along each edge."""

_SAME_GSD = 1e-3
"""Ground pixels whose sizes differ by a smaller share are the same: nothing is resampled for that."""

_TOUCH_PX = 1e-3
"""A rectangle touches a pixel that it covers by more than this; less is rounding."""


def window_of_bounds(grid: Grid, bounds: tuple[float, float, float, float], path: Path) -> PixelWindow:
    """Return the smallest window of a scene that holds its part of a rectangle.

    Args:
        grid: Grid of the scene.
        bounds: West, south, east, north in its CRS; of a scene without georeference, columns and rows.
        path: The scene, for messages.

    Raises:
        RasterError: The rectangle lies beside the scene, or the scene has ground control points only.
    """
    if grid.ground_control is not None:
        raise RasterError(
            f"{shown(path)}: ground control points and no transform found, so that --bounds have no place on it; "
            "bring it to a grid first (gdalwarp)"
        )
    west, south, east, north = bounds
    inverse = ~grid.transform
    corners = [inverse @ (x, y) for x in (west, east) for y in (south, north)]
    cols, rows = [col for col, _ in corners], [row for _, row in corners]
    whole = PixelWindow(col_off=0, row_off=0, width=grid.width, height=grid.height)
    window = overlap(whole_pixels((min(cols), min(rows), max(cols), max(rows))), whole)
    if window is None:
        ends = [grid.transform @ (float(c), float(r)) for c in (0, grid.width) for r in (0, grid.height)]
        xs, ys = [x for x, _ in ends], [y for _, y in ends]
        covered = (min(xs), min(ys), max(xs), max(ys))
        place = f"in {crs_name(grid.crs)}" if grid.crs is not None else "without CRS"
        raise RasterError(
            f"{shown(path)}: --bounds {_listed(bounds)} lie beside the scene, which covers {_listed(covered)} {place}; "
            "give west, south, east, north in the scene's CRS"
        )
    return window


def gsd_factor(grid: Grid, gsd: float | Literal["model"], model_gsd: float | None, path: Path) -> float:
    """Return how many pixels the network sees for one of a scene, along each edge, at a ground pixel.

    Args:
        grid: Grid of the scene.
        gsd: Ground metres, or ``"model"`` for those of the training.
        model_gsd: Ground metres of the training; None where they are unknown.
        path: The scene, for messages.

    Raises:
        RasterError: The scene has no CRS, so that its ground pixel is unknown.
        UsageError: The network's ground pixel is unknown, or the scene would be resized beyond all sense.
    """
    if gsd == "model":
        if model_gsd is None:
            raise UsageError(
                "--gsd model: the checkpoint does not say what ground its pixels showed (its training data had no "
                "CRS); give the metres of a pixel instead, such as --gsd 0.1"
            )
        gsd = model_gsd
    own = pixel_size_m(grid)
    if own is None:
        raise RasterError(
            f"{shown(path)}: no CRS found, so that the ground size of its pixels is unknown; set one (gdal_edit "
            "-a_srs), or go without --gsd"
        )
    factor = own / gsd
    if not 1 / MAX_GSD_FACTOR <= factor <= MAX_GSD_FACTOR:
        raise UsageError(
            f"--gsd {gsd:g}: {shown(path)} has pixels of {own:.3g} m, which would be resized by {factor:.3g}, expected "
            f"1/{MAX_GSD_FACTOR:g} to {MAX_GSD_FACTOR:g}; check the unit (metres)"
        )
    return 1.0 if abs(factor - 1) < _SAME_GSD else factor


def area_of(aoi: Path, grid: Grid, path: Path) -> GridPolygons:
    """Return an area of interest in the pixels of a scene, or of the part of it that is mapped.

    Args:
        aoi: Vector file, in any CRS.
        grid: Grid of what is mapped.
        path: The scene, for messages.

    Raises:
        InputNotFoundError: There is no such vector file.
        RasterError: The scene has no CRS.
        DataError: The vector file is not readable, or its polygons lie elsewhere.
    """
    layer = read_area(aoi)
    if grid.crs is None:
        raise RasterError(
            f"{shown(path)}: no CRS found, so that the area of interest has no place on it; set one (gdal_edit -a_srs; "
            "gdalwarp for ground control points), or go without --aoi"
        )
    area = area_on(layer, grid)
    if area is None:
        raise DataError(
            f"--aoi: {aoi}: its {len(layer.frame)} polygons lie beside the part of {shown(path)} that is mapped; check "
            "the CRS and the place of both"
        )
    return area


def pixel_size_m(grid: Grid) -> float | None:
    """Return the edge of a pixel on the ground, the mean of width and height; None without CRS."""
    return None if grid.crs is None else float(np.mean(ground_pixel_size_m(grid)))


def whole_pixels(corners: tuple[float, float, float, float]) -> PixelWindow:
    """Return the pixels that a rectangle (left, top, right, bottom) in pixels touches; at least one."""
    left, top = (math.floor(value + _TOUCH_PX) for value in corners[:2])
    right, bottom = (math.ceil(value - _TOUCH_PX) for value in corners[2:])
    return PixelWindow(col_off=left, row_off=top, width=max(right - left, 1), height=max(bottom - top, 1))


def _listed(values: Sequence[float]) -> str:
    return ",".join(f"{value:.10g}" for value in values)
