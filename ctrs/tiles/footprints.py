"""Where windows lie on the ground: their corners and polygons, in one CRS."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import shapely
from rasterio.crs import CRS
from rasterio.warp import transform

from ctrs.raster.geotiff import Grid
from ctrs.raster.windows import PixelWindow


def window_footprint(grid: Grid, window: PixelWindow) -> npt.NDArray[np.float64]:
    """Return the corners (4, 2) of a window in the grid's coordinates, rotated grids included."""
    right, bottom = window.col_off + window.width, window.row_off + window.height
    corners = [
        (window.col_off, window.row_off), (right, window.row_off), (right, bottom), (window.col_off, bottom),
    ]  # fmt: skip
    return np.array([grid.transform @ (float(col), float(row)) for col, row in corners], np.float64)


def common_crs(crses: Iterable[CRS | None]) -> CRS | None:
    """Return the CRS in which footprints can stand together: EPSG:4326 for several, None where one is missing."""
    distinct: list[CRS] = []
    for crs in crses:
        if crs is None:
            return None
        if crs not in distinct:
            distinct.append(crs)
    if not distinct:
        return None
    return distinct[0] if len(distinct) == 1 else CRS.from_epsg(4326)


def tile_footprints(places: Sequence[tuple[Grid, PixelWindow]], crs: CRS | None) -> npt.NDArray[np.object_]:
    """Return the polygon of each window in one CRS; None leaves each in its own grid's coordinates."""
    rings = [window_footprint(grid, window) for grid, window in places]
    if crs is not None:
        for number, (grid, _) in enumerate(places):
            if grid.crs is not None and grid.crs != crs:
                xs, ys = transform(grid.crs, crs, rings[number][:, 0].tolist(), rings[number][:, 1].tolist())
                rings[number] = np.column_stack([xs, ys])
    return np.array([shapely.Polygon(ring) for ring in rings], dtype=object)
