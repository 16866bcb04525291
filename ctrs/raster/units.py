"""Ground metres for any CRS.

A unit of a projected CRS is not a metre on the ground everywhere: EPSG:3857 stretches by 1 / cos(latitude). Every
``_m`` and ``_m2`` of ctrs is measured on the ground:

- geographic CRSs: on the ellipsoid;
- Mercator CRSs (EPSG:3857 among them), and others whose local scale is off by more than 1 %: units times local scale;
- other projected CRSs (UTM, national grids): units as they are, in metres, so that a 5 cm pixel is 0.05 m;
- no CRS, or one that is not tied to the Earth: units of the raster.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyproj
import shapely
from rasterio.crs import CRS

from ctrs.raster.geotiff import Grid

if TYPE_CHECKING:
    import geopandas

_NOMINAL_TOLERANCE = 0.01
"""Largest departure of the local scale from 1 at which projected units count as they are."""


def ground_pixel_size_m(grid: Grid) -> tuple[float, float]:
    """Return the width and height of a pixel on the ground, in metres, at the raster's centre.

    Without CRS a pixel is the unit: ``(1.0, 1.0)``.

    >>> from affine import Affine
    >>> web = Grid(crs=CRS.from_epsg(3857), transform=Affine(0.3, 0, 9.5e6, 0, -0.3, 3.2e6), width=100, height=100)
    >>> [round(size, 3) for size in ground_pixel_size_m(web)]
    [0.266, 0.265]
    """
    if grid.crs is None:
        return 1.0, 1.0
    transform = grid.transform
    x, y = transform @ (grid.width / 2, grid.height / 2)
    scale_x, scale_y = ground_scale(grid.crs, x, y)
    width = float(np.hypot(transform.a * scale_x, transform.d * scale_y))
    height = float(np.hypot(transform.b * scale_x, transform.e * scale_y))
    return width, height


def ground_scale(crs: CRS | pyproj.CRS | None, x: float, y: float) -> tuple[float, float]:
    """Return the ground metres of one CRS unit at a place, along the CRS's x and y axes.

    Args:
        crs: None counts as metres.
        x: Easting or longitude, in CRS units.
        y: Northing or latitude, in CRS units.
    """
    known = _pyproj_crs(crs)
    if known is None:
        return 1.0, 1.0
    factor = _unit_factor(known)
    if not _is_geodetic(known):
        return factor, factor
    local = _local_scale(known, x, y)
    if local is None:
        return factor, factor
    if known.is_geographic or _is_mercator(known) or not _is_nominal(local, factor):
        return local
    return factor, factor


@dataclass(frozen=True)
class Ruler:
    """Measures geometries on the ground (see the module for what that means).

    Args:
        crs: Horizontal CRS of the coordinates; None counts as metres.
        unit_m: Metres of its unit, as far as that is known.
        on_ellipsoid: Units are not ground metres.
    """

    crs: pyproj.CRS | None
    unit_m: float
    on_ellipsoid: bool

    @classmethod
    def at(cls, crs: CRS | pyproj.CRS | None, x: float, y: float) -> Ruler:
        """Return the ruler for a CRS around a place in it; a place that is not finite is none."""
        known = _pyproj_crs(crs)
        if known is None:
            return cls(None, 1.0, on_ellipsoid=False)
        factor = _unit_factor(known)
        if not _is_geodetic(known):
            return cls(known, factor, on_ellipsoid=False)
        if known.is_geographic or _is_mercator(known):
            return cls(known, factor, on_ellipsoid=True)
        local = _local_scale(known, x, y) if np.isfinite(x) and np.isfinite(y) else None
        return cls(known, factor, on_ellipsoid=local is not None and not _is_nominal(local, factor))

    @classmethod
    def of(cls, grid: Grid) -> Ruler:
        """Return the ruler for all that lies on a grid, whichever part of it."""
        x, y = grid.transform @ (grid.width / 2, grid.height / 2)
        return cls.at(grid.crs, float(x), float(y))

    def areas_m2(self, shapes: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Return the ground area of each geometry in square metres.

        Where units are not ground metres, polygons are measured in an equal-area cylindrical projection of the CRS's
        ellipsoid, which is exact for areas.
        """
        if self.crs is None or not self.on_ellipsoid:
            return np.asarray(shapely.area(shapes) * self.unit_m**2, np.float64)
        to_equal_area = pyproj.Transformer.from_crs(self.crs, _equal_area_crs(self.crs.to_wkt()), always_xy=True)
        shapes = shapely.transform(shapes, lambda xy: np.column_stack(to_equal_area.transform(xy[:, 0], xy[:, 1])))
        return np.asarray(shapely.area(shapes), np.float64)

    def lengths_m(self, shapes: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Return the ground length of each geometry in metres: of lines, and of all rings of polygons."""
        if self.crs is None or not self.on_ellipsoid:
            return np.asarray(shapely.length(shapes) * self.unit_m, np.float64)
        polygonal = np.isin(shapely.get_type_id(shapes), (3, 6))
        lines = np.where(polygonal, shapely.boundary(shapes), shapes)
        parts, owner = shapely.get_parts(lines, return_index=True)
        xy, part = shapely.get_coordinates(parts, return_index=True)
        lengths = np.zeros(len(shapes))
        if len(xy) < 2:
            return lengths
        to_geodetic = pyproj.Transformer.from_crs(self.crs, self.crs.geodetic_crs, always_xy=True)
        lon, lat = to_geodetic.transform(xy[:, 0], xy[:, 1])
        inner = part[1:] == part[:-1]
        ends = (lon[:-1][inner], lat[:-1][inner], lon[1:][inner], lat[1:][inner])
        steps = _geod(self.crs).inv(*ends)[2]
        np.add.at(lengths, owner[part[1:][inner]], steps)
        return lengths


def geometry_area_m2(geometries: geopandas.GeoSeries) -> npt.NDArray[np.float64]:
    """Return the ground area of each geometry in square metres, as ``Ruler`` measures it around their middle."""
    return _ruler_of(geometries).areas_m2(geometries.to_numpy())


def geometry_length_m(geometries: geopandas.GeoSeries) -> npt.NDArray[np.float64]:
    """Return the ground length of each geometry in metres: of lines, and of all rings of polygons."""
    return _ruler_of(geometries).lengths_m(geometries.to_numpy())


def _ruler_of(geometries: geopandas.GeoSeries) -> Ruler:
    bounds = shapely.total_bounds(geometries.to_numpy()).tolist() if len(geometries) else [np.nan] * 4
    left, bottom, right, top = bounds
    return Ruler.at(geometries.crs, (left + right) / 2, (bottom + top) / 2)


def _pyproj_crs(crs: CRS | pyproj.CRS | None) -> pyproj.CRS | None:
    if crs is None:
        return None
    if isinstance(crs, pyproj.CRS):
        return _horizontal(crs)
    return _from_wkt(crs.to_wkt(version="WKT2_2019"))


@lru_cache(maxsize=64)
def _from_wkt(wkt: str) -> pyproj.CRS:
    return _horizontal(pyproj.CRS.from_wkt(wkt))


def _horizontal(crs: pyproj.CRS) -> pyproj.CRS:
    """Return the horizontal part of compound and bound CRSs."""
    if crs.is_compound:
        return _horizontal(crs.sub_crs_list[0])
    if crs.is_bound and crs.source_crs is not None:
        return _horizontal(crs.source_crs)
    return crs


def _is_geodetic(crs: pyproj.CRS) -> bool:
    """Tell whether a CRS is tied to the Earth (engineering and local CRSs are not)."""
    return (crs.is_geographic or crs.is_projected) and crs.geodetic_crs is not None


def _unit_factor(crs: pyproj.CRS) -> float:
    """Return the metres of a unit of the first axis; 1 where the unit is an angle or unknown."""
    axis = crs.axis_info[0] if crs.axis_info else None
    if axis is None or not axis.unit_conversion_factor or not (crs.is_projected or crs.is_engineering):
        return 1.0
    return float(axis.unit_conversion_factor)


def _is_mercator(crs: pyproj.CRS) -> bool:
    operation = crs.coordinate_operation
    name = operation.method_name.lower() if operation is not None else ""
    return "mercator" in name and "transverse" not in name and "oblique" not in name


def _is_nominal(local: tuple[float, float], factor: float) -> bool:
    return all(abs(scale / factor - 1) <= _NOMINAL_TOLERANCE for scale in local)


def _local_scale(crs: pyproj.CRS, x: float, y: float) -> tuple[float, float] | None:
    """Measure short steps along both axes on the ellipsoid; None outside the CRS's domain."""
    step = 1e-4 if crs.is_geographic else 10.0 / _unit_factor(crs)
    xs = np.array([x - step, x + step, x, x])
    ys = np.array([y, y, y - step, y + step])
    if crs.is_geographic:
        ys = np.clip(ys, -90.0 / _degrees(crs), 90.0 / _degrees(crs))
    to_geodetic = _to_geodetic(crs.to_wkt())
    lon, lat = to_geodetic.transform(xs, ys)
    if not np.isfinite(lon).all() or not np.isfinite(lat).all():
        return None
    along = _geod(crs).inv(lon[[0, 2]], lat[[0, 2]], lon[[1, 3]], lat[[1, 3]])[2]
    span = ys[3] - ys[2]
    return float(along[0] / (2 * step)), float(along[1] / span) if span else float(along[0] / (2 * step))


def _degrees(crs: pyproj.CRS) -> float:
    """Return the degrees of a unit of a geographic CRS."""
    return float(np.degrees(crs.axis_info[0].unit_conversion_factor))


@lru_cache(maxsize=64)
def _to_geodetic(wkt: str) -> pyproj.Transformer:
    crs = pyproj.CRS.from_wkt(wkt)
    return pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)


@lru_cache(maxsize=64)
def _equal_area_crs(wkt: str) -> pyproj.CRS:
    """Return the equal-area cylindrical CRS on the ellipsoid (and meridian) of another CRS."""
    ellipsoid = pyproj.CRS.from_wkt(wkt).ellipsoid
    if ellipsoid is None:
        raise ValueError(f"no ellipsoid in {wkt}")
    shape = f"+a={ellipsoid.semi_major_metre} +b={ellipsoid.semi_minor_metre}"
    return pyproj.CRS.from_proj4(f"+proj=cea {shape} +units=m +no_defs +type=crs")


def _geod(crs: pyproj.CRS) -> pyproj.Geod:
    geod = crs.get_geod()
    if geod is None:
        raise ValueError(f"no ellipsoid in {crs.name}")
    return geod
