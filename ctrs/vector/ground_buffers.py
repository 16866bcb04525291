"""Lines and points become areas with a width in metres of real ground, whatever the CRS of the grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.warp import transform as transform_points

from ctrs.errors import LabelError
from ctrs.raster.geotiff import Grid, crs_name

_EQUATOR_M, _FLATTENING = 6378137.0, 1 / 298.257223563
"""WGS 84."""

_QUAD_SEGS = 16
"""Corners of a quarter circle: its area is right to 0.2 %."""

_FEW_QUAD_SEGS = 4
"""The same where areas are only compared: right to 3 %."""


def ground_steps(grid: Grid, pixels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return how far one step along columns and rows leads on the ground, at some places.

    Args:
        grid: Grid with a CRS.
        pixels: Places (N, 2), as (col, row).

    Returns:
        Metres east and north (first axis) for a step in columns and rows (second axis), (N, 2, 2).

    Raises:
        LabelError: The CRS does not say where on the earth the grid lies.
    """
    steps = np.array([(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)])
    cols, rows = (pixels[:, None] + steps).reshape(-1, 2).T
    a, b, c, d, e, f = tuple(grid.transform)[:6]
    try:
        if grid.crs is None:
            raise ValueError("no CRS")
        lon, lat = transform_points(grid.crs, CRS.from_epsg(4326), a * cols + b * rows + c, d * cols + e * rows + f)
    except (RasterioError, CPLE_BaseError, ValueError) as error:
        raise LabelError(
            f"a width in metres cannot be drawn on a grid in {crs_name(grid.crs)} ({error}); name the CRS of the "
            "images with --src-crs"
        ) from error
    lon, lat = np.reshape(lon, (-1, 3)), np.reshape(lat, (-1, 3))
    if not np.isfinite(lon).all():
        raise LabelError(
            f"a width in metres cannot be drawn: the grid in {crs_name(grid.crs)} leaves the earth; check its CRS"
        )
    squeeze = _FLATTENING * (2 - _FLATTENING)
    bend = 1 - squeeze * np.sin(np.radians(lat[:, :1])) ** 2
    north = np.radians(lat[:, 1:] - lat[:, :1]) * _EQUATOR_M * (1 - squeeze) / bend**1.5
    turn = (lon[:, 1:] - lon[:, :1] + 180) % 360 - 180
    east = np.radians(turn) * _EQUATOR_M / np.sqrt(bend) * np.cos(np.radians(lat[:, :1]))
    return np.stack([east, north], axis=1)


def widen(shapes: npt.NDArray[np.object_], widths_m: npt.NDArray[np.float64], grid: Grid) -> npt.NDArray[np.object_]:
    """Give lines and points an area; the scale of the ground is taken at the middle of what lies on the grid.

    Args:
        shapes: In pixel coordinates of the grid (N,); polygons in collections stay as they are.
        widths_m: Half width of lines and radius of points, in ground metres (N,).
        grid: Grid of the scene.

    Returns:
        Areas in pixel coordinates (N,); empty where a shape is too far from the grid to reach it.
    """
    if not len(shapes):
        return shapes
    reach = margin_px(grid, float(widths_m.max()))
    near = shapely.clip_by_rect(shapes, -reach, -reach, grid.width + reach, grid.height + reach)
    areas = np.full(len(shapes), shapely.Polygon(), object)
    kept = np.flatnonzero(~shapely.is_empty(near))
    bounds = shapely.bounds(near[kept])
    middles = (bounds[:, :2] + bounds[:, 2:]) / 2
    for place, matrix in zip(kept.tolist(), ground_steps(grid, middles), strict=True):
        areas[place] = _widen_one(near[place], float(widths_m[place]), matrix)
    return areas


def widen_in_crs(
    shapes: npt.NDArray[np.object_], widths_m: npt.NDArray[np.float64], crs: CRS
) -> npt.NDArray[np.object_]:
    """Give lines and points an area in their own CRS, all at once: good enough to see what they lie on.

    Args:
        shapes: Lines and points in coordinates of the CRS (N,).
        widths_m: Half width of lines and radius of points, in ground metres (N,).
        crs: CRS of the shapes.

    Raises:
        LabelError: The CRS does not say where on the earth they lie.
    """
    bounds = shapely.bounds(shapes)
    plane = Grid(crs=crs, transform=Affine.identity(), width=1, height=1)
    matrices = ground_steps(plane, (bounds[:, :2] + bounds[:, 2:]) / 2)
    if not (np.abs(np.linalg.det(matrices)) > 0).all():
        raise LabelError(f"a width in metres cannot be drawn at a pole of {crs_name(crs)}; choose another CRS")
    areas = shapely.buffer(_turned(shapes, matrices), widths_m, quad_segs=_FEW_QUAD_SEGS)
    return _turned(areas, np.asarray(np.linalg.inv(matrices), np.float64))


def _turned(shapes: npt.NDArray[np.object_], matrices: npt.NDArray[np.float64]) -> npt.NDArray[np.object_]:
    """Multiply the coordinates of each shape with its matrix."""
    places, owners = shapely.get_coordinates(shapes, return_index=True)
    turned = np.einsum("nij,nj->ni", matrices[owners], places)
    return np.asarray(shapely.set_coordinates(shapes.copy(), turned), object)


def margin_px(grid: Grid, width_m: float) -> float:
    """Return how many pixels a width on the ground is at most, over the corners and the middle of a grid."""
    cols, rows = np.meshgrid([0.0, grid.width / 2, grid.width], [0.0, grid.height / 2, grid.height])
    matrices = ground_steps(grid, np.column_stack([cols.ravel(), rows.ravel()]))
    least = np.linalg.svd(matrices, compute_uv=False)[:, -1].min()
    return 1.1 * width_m / float(least) + 2


def _widen_one(shape: Any, width_m: float, matrix: npt.NDArray[np.float64]) -> Any:
    parts = flat_parts(shape)
    areas = [part for part in parts if part.geom_type == "Polygon"]
    thin = shapely.GeometryCollection([part for part in parts if part.geom_type != "Polygon"])
    on_ground = shapely.transform(thin, lambda xy: xy @ matrix.T)
    widened = shapely.buffer(shapely.union_all(shapely.get_parts(on_ground)), width_m, quad_segs=_QUAD_SEGS)
    inverse = np.linalg.inv(matrix)
    return shapely.union_all([*areas, shapely.transform(widened, lambda xy: xy @ inverse.T)])


def flat_parts(shape: Any) -> list[Any]:
    """Return the points, lines and polygons of a geometry, out of all collections."""
    parts = shapely.get_parts(shape)
    if len(parts) == 1 and not hasattr(parts[0], "geoms"):
        return list(parts)
    return [inner for part in parts for inner in flat_parts(part)]
