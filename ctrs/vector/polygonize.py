"""Class mask to polygons, exactly along the pixel borders: ``rasterize(polygonize(mask)) == mask``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine

from ctrs.classes import IGNORE_INDEX
from ctrs.config import Connectivity
from ctrs.progress import Progress, no_progress
from ctrs.raster.geotiff import Grid
from ctrs.vector.regions.class_mask import read_class_mask
from ctrs.vector.regions.outlines import NO_REGION, trace
from ctrs.vector.regions.runs import Runs

if TYPE_CHECKING:
    import geopandas

Geometries = npt.NDArray[np.object_]


def polygonize(
    mask: Path,
    *,
    connectivity: Connectivity = 4,
    band_rows: int | None = None,
    progress: Progress = no_progress,
) -> geopandas.GeoDataFrame:
    """Return the connected regions of a class mask as polygons in the mask's CRS, holes kept, nodata left out.

    The mask is read in bands of rows, and memory grows with the length of the outlines. The result does not depend on
    the bands, down to the order of polygons (by first pixel, row by row) and vertices.

    Args:
        mask: Raster with one band of class values.
        connectivity: 4: pixels that share a side are connected; 8: also those that share only a corner, which makes
            multipolygons.
        band_rows: Rows to read at a time.
        progress: Told after each band.

    Returns:
        Columns ``value`` and ``geometry``.

    Raises:
        LabelError: It is no class mask.
        RasterError: It cannot be read.
    """
    import geopandas

    source = read_class_mask(mask, band_rows=band_rows, progress=progress)
    values, geometries = polygonize_runs(source.runs, connectivity=connectivity)
    placed = place_on_grid(geometries, source.grid)
    return geopandas.GeoDataFrame({"value": values}, geometry=placed, crs=crs_text(source.grid))


def polygonize_runs(
    runs: Runs, *, connectivity: Connectivity = 4, nodata: int = IGNORE_INDEX
) -> tuple[npt.NDArray[np.int64], Geometries]:
    """Return value and polygon, in pixel corners (column, row), of each region whose value is not ``nodata``.

    >>> values, shapes = polygonize_runs(Runs.from_array(np.array([[7, 7, 255], [7, 9, 9]])))
    >>> [(value, shape.wkt) for value, shape in zip(values.tolist(), shapes)][1]
    (9, 'POLYGON ((1 1, 3 1, 3 2, 1 2, 1 1))')
    """
    regions = np.where(runs.values == nodata, np.int32(NO_REGION), runs.regions())
    outlines = trace(runs, regions)
    first_run = first_members(regions)[outlines.regions]
    values, geometries = runs.values[first_run].astype(np.int64), outlines.polygons()
    if connectivity == 8 and len(geometries):
        groups, first, group = np.unique(runs.regions(8)[first_run], return_index=True, return_inverse=True)
        parts = np.bincount(group, minlength=len(groups))
        order = np.argsort(group, kind="stable")
        joined = np.asarray(shapely.multipolygons(geometries[order], indices=group[order]), object)
        geometries, values = np.where(parts == 1, geometries[first], joined), values[first]
    return values, geometries


def first_members(regions: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return the first run of each region, by region id; -1 for ids that do not occur."""
    ids = np.where(regions == NO_REGION, -1, regions)
    first = np.full(int(ids.max(initial=-1)) + 2, -1, np.int64)
    first[ids[::-1]] = np.arange(len(ids) - 1, -1, -1)
    return first[:-1]


def place_on_grid(geometries: Geometries, grid: Grid, scale: tuple[float, float] = (1.0, 1.0)) -> Geometries:
    """Move polygons from pixel corners (multiplied by ``scale``) to CRS coordinates, shells counter-clockwise."""
    transform = grid.transform @ Affine.scale(1 / scale[0], 1 / scale[1])

    def place(xy: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        x = transform.a * xy[:, 0] + transform.b * xy[:, 1] + transform.c
        y = transform.d * xy[:, 0] + transform.e * xy[:, 1] + transform.f
        return np.column_stack([x, y])

    placed: Geometries = shapely.orient_polygons(shapely.transform(geometries, place))
    return placed


def crs_text(grid: Grid) -> str | None:
    """Return a grid's CRS in a form that pyproj takes."""
    if grid.crs is None:
        return None
    authority = grid.crs.to_authority(confidence_threshold=100)
    text: str = ":".join(authority) if authority else grid.crs.to_wkt(version="WKT2_2019")
    return text
