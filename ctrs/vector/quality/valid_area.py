"""The area of a mask in which its pixels are valid, as polygons."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio.features
import shapely
from affine import Affine

from ctrs.progress import Progress, no_progress
from ctrs.raster.geotiff import Grid, open_raster, read_window
from ctrs.raster.windows import PixelWindow
from ctrs.vector.polygonize import Geometries, place_on_grid

_BLOCK = 1024


def valid_area(
    mask: Path, *, ignored: int | None = None, block: int = _BLOCK, progress: Progress = no_progress
) -> tuple[Geometries, Grid]:
    """Return the valid area of a raster with one band, exactly along its pixels.

    Args:
        mask: Raster.
        ignored: Further value that stands for nodata.
        block: Side of the windows that are read; they leave no trace in the result.
        progress: Told after each row of windows.

    Returns:
        Disjoint polygons in the raster's CRS, none where no pixel is valid; and the raster's grid.

    Raises:
        InputNotFoundError: There is no such file.
        RasterError: It cannot be read.
    """
    parts: list[shapely.Geometry] = []
    with open_raster(mask) as dataset:
        grid = Grid.of(dataset)
        for row in range(0, grid.height, block):
            height = min(block, grid.height - row)
            for col in range(0, grid.width, block):
                width = min(block, grid.width - col)
                pixels, valid = read_window(
                    dataset, PixelWindow(col_off=col, row_off=row, width=width, height=height), bidx=[1]
                )
                if ignored is not None:
                    valid = valid & (pixels[0] != ignored)
                if valid.all():
                    parts.append(shapely.box(col, row, col + width, row + height))
                elif valid.any():
                    corner = Affine.translation(col, row)
                    shapes = rasterio.features.shapes(
                        valid.astype(np.uint8), mask=valid, connectivity=4, transform=corner
                    )
                    parts += [shapely.geometry.shape(shape) for shape, _ in shapes]
            progress(row + height, grid.height, f"finding the valid area of {mask.name}")
    if not parts:
        return np.empty(0, object), grid
    # Corners that windows left on straight edges go again.
    whole = shapely.simplify(shapely.union_all(np.array(parts, object)), 0)
    return place_on_grid(shapely.get_parts(whole), grid), grid
