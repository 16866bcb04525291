"""Where on the earth a data set's training tiles lie, in a few polygons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import shapely
from rasterio.crs import CRS

from ctrs.raster.geotiff import Grid
from ctrs.tiles.footprints import tile_footprints
from ctrs.tiles.tile_table import Tile

MAX_POLYGONS = 100
"""More are too many for a description: then the cells of a grid in which they lie are named instead."""

_CELLS_DEG = (0.01, 0.1, 1.0, 10.0)
_TOLERANCE_DEG = 1e-6  # a decimetre: corners of tiles along a straight edge say nothing
_DIGITS = 7  # of degrees: a centimetre


def training_ground(tiles: Iterable[Tile], grids: Mapping[str, Grid]) -> dict[str, Any] | None:
    """Return the ground of the training tiles as a GeoJSON geometry in longitude and latitude.

    It is the convex hull of each scene's training tiles. Where these are more than ``MAX_POLYGONS``, it is the cells of
    a grid of degrees that they touch, of 0.01 or as coarse as is needed.

    Args:
        tiles: Of all splits.
        grids: Grid of each scene.

    Returns:
        A Polygon or MultiPolygon; None without training tiles, or where one of them has no CRS.
    """
    by_scene: dict[str, list[Tile]] = {}
    for tile in tiles:
        if tile.split == "train":
            by_scene.setdefault(tile.scene, []).append(tile)
    if not by_scene or any(grids[name].crs is None for name in by_scene):
        return None
    hulls: list[Any] = []
    for name, found in by_scene.items():
        shapes = tile_footprints([(grids[name], tile.window) for tile in found], CRS.from_epsg(4326))
        hulls.append(shapely.convex_hull(shapely.geometrycollections(shapes)))
    ground = shapely.union_all(hulls)
    if not np.isfinite(ground.bounds).all():
        return None
    for edge in _CELLS_DEG:
        if shapely.get_num_geometries(ground) <= MAX_POLYGONS:
            break
        ground = _cells(hulls, edge)
    ground = shapely.simplify(ground, _TOLERANCE_DEG)
    rounded = shapely.transform(shapely.orient_polygons(ground), lambda corners: corners.round(_DIGITS))
    geometry: dict[str, Any] = shapely.geometry.mapping(rounded)
    return {"type": geometry["type"], "coordinates": _lists(geometry["coordinates"])}


def _cells(hulls: list[Any], edge: float) -> Any:
    """Return the union of the cells that the bounds of any hull touch."""
    touched: set[tuple[int, int]] = set()
    for west, south, east, north in (hull.bounds for hull in hulls):
        touched |= {
            (col, row)
            for col in range(int(np.floor(west / edge)), int(np.floor(east / edge)) + 1)
            for row in range(int(np.floor(south / edge)), int(np.floor(north / edge)) + 1)
        }
    return shapely.union_all([shapely.box(c * edge, r * edge, (c + 1) * edge, (r + 1) * edge) for c, r in touched])


def _lists(value: Any) -> Any:
    return [_lists(item) for item in value] if isinstance(value, list | tuple) else value
