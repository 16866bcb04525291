"""Reference buildings from a file, and the part of them that a mask can show."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path

import geopandas
import numpy as np
import numpy.typing as npt
import pyproj
import shapely
from pyproj.exceptions import ProjError

from ctrs.errors import LabelError, LabelWarning
from ctrs.raster.geotiff import Grid
from ctrs.vector.polygonize import Geometries, crs_text
from ctrs.vector.rasterize import read_polygons


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Reference buildings as a file holds them, in its CRS.

    Args:
        path: The file.
        polygons: Valid polygons, multipolygons taken apart.
        num_repaired: Invalid ones that were made valid.
        num_dropped: Features without area that were left out.
    """

    path: Path
    polygons: geopandas.GeoSeries
    num_repaired: int
    num_dropped: int

    def hash_content(self) -> str:
        """Return a hash of what was read: a file's own time says nothing of folders, logs and files beside it."""
        crs = self.polygons.crs
        found = hashlib.sha256(repr((crs and crs.to_wkt(), self.num_repaired, self.num_dropped)).encode())
        for polygon in shapely.to_wkb(self.polygons.to_numpy()):
            found.update(polygon)
        return found.hexdigest()[:32]


@dataclass(frozen=True, kw_only=True)
class ReferencePart:
    """The part of a reference that a mask can show.

    Args:
        polygons: In the mask's CRS, cut to its valid area.
        sources: Number of each in the reference, from 1; shape (N,).
        cut: True where a piece was cut off; shape (N,).
        num_outside: Reference polygons of which nothing is left.
        num_small: Of these, how many were cut down to less than the smallest area.
        small: The parts below the smallest area, which do not count; nor does what is drawn there.
    """

    polygons: geopandas.GeoSeries
    sources: npt.NDArray[np.int64]
    cut: npt.NDArray[np.bool_]
    num_outside: int
    num_small: int
    small: Geometries


def read_reference(path: Path) -> Reference:
    """Read reference buildings: the polygons of a vector file.

    Invalid polygons are made valid and features without area left out, both with a warning; polygons that lie mostly
    in another one stay, with a warning too.

    Args:
        path: GeoPackage, GeoParquet, FlatGeobuf, GeoJSON, Shapefile or the folder of a FileGDB;
            ``a.gpkg|layername=houses`` names one of several layers.

    Raises:
        InputNotFoundError: There is no such file.
        LabelError: It is not readable or holds no polygon.
    """
    layer = read_polygons(path)
    if not len(layer.frame):
        raise LabelError(
            f"{path}: no polygons found ({layer.num_dropped} features of other kinds), expected the true buildings; "
            "check the file"
        )
    if layer.num_repaired:
        warnings.warn(
            f"{path}: {layer.num_repaired} of {len(layer.frame)} polygons were invalid and have been made valid",
            LabelWarning,
            stacklevel=2,
        )
    if layer.num_dropped:
        warnings.warn(f"{path}: {layer.num_dropped} features without area left out", LabelWarning, stacklevel=2)
    polygons = layer.frame.geometry.force_2d().explode(ignore_index=True)
    polygons = polygons[shapely.area(polygons.to_numpy()) > 0].reset_index(drop=True)
    num_twice = _count_twice(polygons.to_numpy())
    if num_twice:
        warnings.warn(
            f"{path}: {num_twice} of {len(polygons)} polygons lie mostly in another one; at most one of two such can "
            "be matched, so leave out those that stand twice",
            LabelWarning,
            stacklevel=2,
        )
    return Reference(
        path=path,
        polygons=polygons,
        num_repaired=layer.num_repaired,
        num_dropped=layer.num_dropped,
    )


def _count_twice(shapes: Geometries) -> int:
    """Return how many polygons lie mostly in another one; of two that are the same, one."""
    first, second = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    once = first < second
    first, second = first[once], second[once]
    areas = shapely.area(shapes)
    common = shapely.area(shapely.intersection(shapes[first], shapes[second]))
    smaller = np.where(areas[first] < areas[second], first, second)
    return len(np.unique(smaller[2 * common > areas[smaller]]))


def on_grid(reference: Reference, grid: Grid, mask: Path) -> geopandas.GeoSeries:
    """Return reference polygons in the CRS of a mask.

    Args:
        reference: Of the file.
        grid: Grid of the mask.
        mask: File of the mask, for messages.

    Raises:
        LabelError: One of the two has no CRS, or they lie in different places.
    """
    crs, polygons = crs_text(grid), reference.polygons
    if polygons.crs is None and crs is not None:
        raise LabelError(
            f"{reference.path}: no CRS found, so nobody knows where the buildings lie (the mask is in {crs[:40]}); "
            "save it with its CRS"
        )
    if polygons.crs is not None and crs is None:
        raise LabelError(
            f"{reference.path}: in {polygons.crs.name}, but {mask} has no CRS to put it in; set the mask's with "
            "gdal_edit -a_srs, or give a truth without CRS in the mask's coordinates"
        )
    if crs is not None:
        try:
            polygons = polygons.to_crs(crs)
        except ProjError as error:
            raise LabelError(
                f"{reference.path}: in {reference.polygons.crs.name}, from which nothing leads to the CRS of {mask} "
                f"({pyproj.CRS(crs).name}); give both the same CRS"
            ) from error
        polygons = _sound(polygons)
    corners = [grid.transform @ (col, row) for col in (0, grid.width) for row in (0, grid.height)]
    extent = shapely.box(*np.min(corners, axis=0), *np.max(corners, axis=0))
    # What has no place in the mask's CRS lies far from it.
    polygons = polygons[np.isfinite(polygons.bounds.to_numpy()).all(axis=1)]
    bounds = polygons.total_bounds
    if not (np.isfinite(bounds).all() and shapely.intersects(shapely.box(*bounds), extent)):
        found = ", ".join(f"{value:.8g}" for value in bounds)
        expected = ", ".join(f"{value:.8g}" for value in extent.bounds)
        raise LabelError(
            f"{reference.path}: no overlap with {mask}: it covers {found} in the mask's CRS, the mask {expected}; "
            "check that they show the same place and name the right CRS"
        )
    return polygons


def _sound(polygons: geopandas.GeoSeries) -> geopandas.GeoSeries:
    """Return polygons that another CRS may have broken by a hair, made valid; those far outside it stay as they are."""
    shapes = polygons.to_numpy().copy()
    broken = np.isfinite(shapely.bounds(shapes)).all(axis=1) & ~shapely.is_valid(shapes)
    shapes[broken] = shapely.make_valid(shapes[broken], method="structure", keep_collapsed=False)
    return geopandas.GeoSeries(shapes, crs=polygons.crs)


def cut_to(polygons: geopandas.GeoSeries, area: Geometries, *, smallest: float) -> ReferencePart:
    """Cut reference polygons to a valid area.

    A building across the border of the area is cut there, as it is in the mask; its parts are buildings of their own.
    Parts below the smallest area leave, whole buildings do not.

    Args:
        polygons: Valid polygons.
        area: Disjoint polygons in the same CRS.
        smallest: Smallest part of a cut building, in square units of the CRS.
    """
    shapes = polygons.to_numpy()
    tree = shapely.STRtree(area)
    whole = np.zeros(len(shapes), bool)
    whole[tree.query(shapes, predicate="covered_by")[0]] = True
    touched, pieces = tree.query(shapes, predicate="intersects")
    crossing = ~whole[touched]
    touched, pieces = touched[crossing], pieces[crossing]
    cut, owner = shapely.get_parts(shapely.intersection(shapes[touched], area[pieces]), return_index=True)
    polygonal = (shapely.get_type_id(cut) == 3) & (shapely.area(cut) > 0)
    cut, owner = cut[polygonal], touched[owner[polygonal]]
    large = shapely.area(cut) >= smallest
    kept_whole = np.flatnonzero(whole)
    sources = np.concatenate([kept_whole, owner[large]])
    order = np.argsort(sources, kind="stable")
    left = np.zeros(len(shapes), bool)
    left[sources] = True
    within = np.zeros(len(shapes), bool)
    within[owner] = True
    return ReferencePart(
        polygons=geopandas.GeoSeries(np.concatenate([shapes[kept_whole], cut[large]])[order], crs=polygons.crs),
        sources=sources[order].astype(np.int64) + 1,
        cut=np.repeat([False, True], [len(kept_whole), int(large.sum())])[order],
        num_outside=int((~left).sum()),
        num_small=int((within & ~left).sum()),
        small=cut[~large],
    )
