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


def window_footprint(grid: Grid, window: PixelWindow, *, shrink_px: float = 0.0) -> npt.NDArray[np.float64]:
    """Return the corners (4, 2) of a window in the grid's coordinates, rotated grids included.

    Args:
        grid: Grid of the scene.
        window: Part of it.
        shrink_px: Pixels to take off each side, at most a quarter of the window.
    """
    margin_x, margin_y = min(shrink_px, window.width / 4), min(shrink_px, window.height / 4)
    left, right = window.col_off + margin_x, window.col_off + window.width - margin_x
    top, bottom = window.row_off + margin_y, window.row_off + window.height - margin_y
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    return np.array([grid.transform @ corner for corner in corners], np.float64)


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


def tile_footprints(
    places: Sequence[tuple[Grid, PixelWindow]], crs: CRS | None, *, shrink_px: float = 0.0
) -> npt.NDArray[np.object_]:
    """Return the polygon of each window in one CRS; None leaves each in its own grid's coordinates."""
    rings = np.array([window_footprint(grid, window, shrink_px=shrink_px) for grid, window in places])
    if crs is not None:
        sources: dict[str, tuple[CRS, list[int]]] = {}
        for number, (grid, _) in enumerate(places):
            if grid.crs is not None and grid.crs != crs:
                sources.setdefault(grid.crs.to_wkt(), (grid.crs, []))[1].append(number)
        for source, numbers in sources.values():
            xy = rings[numbers].reshape(-1, 2)
            xs, ys = transform(source, crs, xy[:, 0].tolist(), xy[:, 1].tolist())
            rings[numbers] = np.column_stack([xs, ys]).reshape(-1, 4, 2)
    return np.array([shapely.Polygon(ring) for ring in rings], dtype=object)
