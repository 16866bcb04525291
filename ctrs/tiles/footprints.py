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

Floats = npt.NDArray[np.float64]


def window_footprint(grid: Grid, window: PixelWindow, *, shrink_px: float = 0.0) -> Floats:
    """Return the corners (4, 2) of a window in the grid's coordinates, rotated grids included.

    Args:
        grid: Grid of the scene.
        window: Part of it.
        shrink_px: Pixels to take off each side, at most a quarter of the window.
    """
    corners: Floats = _corners_in(grid, [window], shrink_px)[0]
    return corners


def common_crs(crses: Iterable[CRS | None]) -> CRS | None:
    """Return the CRS in which footprints can stand together: EPSG:4326 for several, None where one is missing."""
    distinct: list[CRS] = []
    seen: set[int] = set()
    for crs in crses:
        if crs is None:
            return None
        if id(crs) in seen:
            continue
        seen.add(id(crs))
        if crs not in distinct:
            distinct.append(crs)
    if not distinct:
        return None
    return distinct[0] if len(distinct) == 1 else CRS.from_epsg(4326)


def tile_footprints(
    places: Sequence[tuple[Grid, PixelWindow]], crs: CRS | None, *, shrink_px: float = 0.0
) -> npt.NDArray[np.object_]:
    """Return the polygon of each window in one CRS; None leaves each in its own grid's coordinates."""
    return polygons(tile_corners(places, crs, shrink_px=shrink_px))


def polygons(corners: Floats) -> npt.NDArray[np.object_]:
    """Return the polygon of each set of corners (n, 4, 2)."""
    shapes: npt.NDArray[np.object_] = np.asarray(shapely.polygons(corners), object)
    return shapes


def tile_corners(places: Sequence[tuple[Grid, PixelWindow]], crs: CRS | None, *, shrink_px: float = 0.0) -> Floats:
    """Return the corners (n, 4, 2) of each window in one CRS; None leaves each in its own grid's coordinates."""
    corners = np.empty((len(places), 4, 2))
    grids: dict[int, tuple[Grid, list[int]]] = {}
    for number, (grid, _) in enumerate(places):
        grids.setdefault(id(grid), (grid, []))[1].append(number)
    for grid, numbers in grids.values():
        rings = _corners_in(grid, [places[number][1] for number in numbers], shrink_px)
        if crs is not None and grid.crs is not None and grid.crs != crs:
            xs, ys = transform(grid.crs, crs, *rings.reshape(-1, 2).T.tolist())
            rings = np.column_stack([xs, ys]).reshape(-1, 4, 2)
        corners[numbers] = rings
    return corners


def _corners_in(grid: Grid, windows: Sequence[PixelWindow], shrink_px: float) -> Floats:
    """Return the corners (n, 4, 2) of windows in the grid's coordinates."""
    off = np.array([(window.col_off, window.row_off) for window in windows], np.float64)
    size = np.array([(window.width, window.height) for window in windows], np.float64)
    margin = np.minimum(shrink_px, size / 4)
    low, high = off + margin, off + size - margin
    cols = np.stack([low[:, 0], high[:, 0], high[:, 0], low[:, 0]], axis=1)
    rows = np.stack([low[:, 1], low[:, 1], high[:, 1], high[:, 1]], axis=1)
    a, b, c, d, e, f = tuple(grid.transform)[:6]
    return np.stack([a * cols + b * rows + c, d * cols + e * rows + f], axis=2)
