"""Where a place given on one grid, or in one CRS, lies on another."""

from __future__ import annotations

import threading
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyproj
from pyproj.exceptions import CRSError, ProjError
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.transform import GCPTransformer

from ctrs.errors import RasterError
from ctrs.raster.geotiff import Grid, crs_name

Positions = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""First and second coordinates."""


def locate(source: Grid, target: Grid, cols: npt.NDArray[np.float64], rows: npt.NDArray[np.float64]) -> Positions:
    """Return source pixel coordinates (col, row) of places given in those of the target; infinite where there are none.

    Args:
        source: Grid with a transform or ground control points.
        target: Grid with a transform.
        cols: Columns on the target, any shape.
        rows: Rows on it.
    """
    a, b, c, d, e, f = tuple(target.transform)[:6]
    xs, ys = project(target.crs, known_crs(source), a * cols + b * rows + c, d * cols + e * rows + f)
    if source.ground_control is not None:
        with GCPTransformer(control_points(source)) as transformer:
            found_rows, found_cols = transformer.rowcol(xs.reshape(-1), ys.reshape(-1), op=np.positive)
        return np.asarray(found_cols).reshape(cols.shape), np.asarray(found_rows).reshape(cols.shape)
    a, b, c, d, e, f = tuple(~source.transform)[:6]
    with np.errstate(invalid="ignore"):
        return a * xs + b * ys + c, d * xs + e * ys + f


def project(
    source: CRS | None, target: CRS | None, xs: npt.NDArray[np.float64], ys: npt.NDArray[np.float64]
) -> Positions:
    """Return coordinates in another CRS; as they are where one is not known, infinite where there are none.

    Raises:
        RasterError: There is no way from one CRS to the other.
    """
    if source is None or target is None or source == target:
        return xs, ys
    try:
        transformer = _transformer(_wkt(source), _wkt(target), threading.get_ident())
        found_xs, found_ys = transformer.transform(xs, ys)
    except (ProjError, CRSError) as error:
        raise RasterError(
            f"no way from {crs_name(source)} to {crs_name(target)} ({error}); choose another CRS"
        ) from error
    return np.asarray(found_xs), np.asarray(found_ys)


def control_points(grid: Grid) -> list[GroundControlPoint]:
    """Return the ground control points of a grid as rasterio wants them."""
    control = grid.ground_control
    points = control.points if control is not None else ()
    return [GroundControlPoint(row=row, col=col, x=x, y=y, z=z) for row, col, x, y, z in points]


def known_crs(grid: Grid) -> CRS | None:
    """Return the CRS of a grid, or of its ground control points where it stands on such."""
    return grid.ground_control.crs if grid.ground_control is not None else grid.crs


@lru_cache(maxsize=256)
def _wkt(crs: CRS) -> str:
    text: str = crs.to_wkt(version="WKT2_2019")
    return text


@lru_cache(maxsize=64)
def _transformer(source: str, target: str, thread: int) -> pyproj.Transformer:
    """Return a transformer; each thread has its own, for PROJ's are not safe to share."""
    del thread
    return pyproj.Transformer.from_crs(pyproj.CRS.from_wkt(source), pyproj.CRS.from_wkt(target), always_xy=True)
