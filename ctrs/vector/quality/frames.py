"""Two layers in one frame whose units are ground metres."""

from __future__ import annotations

from typing import Any

import geopandas
import numpy as np
import numpy.typing as npt
import pyproj
import shapely
from pyproj.crs import ProjectedCRS
from pyproj.crs.coordinate_operation import TransverseMercatorConversion

from ctrs.errors import LabelError
from ctrs.raster.units import ground_scale

Polygons = npt.NDArray[np.object_]


def in_ground_metres(predicted: geopandas.GeoSeries, truth: geopandas.GeoSeries) -> tuple[Polygons, Polygons]:
    """Return both layers in common coordinates that are metres on the ground.

    Coordinates of projected CRSs stay as they are, but for their unit. Geographic CRSs, Web Mercator and others whose
    local scale is not nominal (``ctrs.raster.units``) go to a transverse Mercator projection on the middle of the two
    layers (scale 1 there, and within 0.01 % of it up to 90 km away). Without CRS a unit counts as a metre.

    Args:
        predicted: One layer; its CRS leads.
        truth: The other; brought to the CRS of the first.

    Raises:
        LabelError: One has a CRS and the other none.
    """
    if (predicted.crs is None) != (truth.crs is None):
        lacking = "predicted" if predicted.crs is None else "reference"
        raise LabelError(f"the {lacking} layer has no CRS and the other has one; name the CRS in its file")
    if predicted.crs is None:
        return predicted.to_numpy().copy(), truth.to_numpy().copy()
    crs = pyproj.CRS(predicted.crs)
    truth = truth.to_crs(crs)
    both = np.concatenate([predicted.to_numpy(), truth.to_numpy()])
    bounds = shapely.total_bounds(both) if len(both) else np.full(4, np.nan)
    if not np.isfinite(bounds).all():
        return predicted.to_numpy().copy(), truth.to_numpy().copy()
    middle = float(bounds[0] + bounds[2]) / 2, float(bounds[1] + bounds[3]) / 2
    unit = crs.axis_info[0].unit_conversion_factor
    if not crs.is_geographic and ground_scale(crs, *middle) == (unit, unit):
        both = both if unit == 1 else shapely.transform(both, lambda xy: xy * unit)
    else:
        both = _projected(both, crs, middle)
    return both[: len(predicted)], both[len(predicted) :]


def _projected(shapes: Polygons, crs: pyproj.CRS, middle: tuple[float, float]) -> Polygons:
    geodetic: Any = crs.geodetic_crs
    longitude, latitude = pyproj.Transformer.from_crs(crs, geodetic, always_xy=True).transform(*middle)
    conversion = TransverseMercatorConversion(
        latitude_natural_origin=latitude, longitude_natural_origin=longitude, scale_factor_natural_origin=1.0
    )
    local = ProjectedCRS(conversion, geodetic_crs=geodetic)
    to_local = pyproj.Transformer.from_crs(crs, local, always_xy=True)
    result: Polygons = shapely.transform(shapes, lambda xy: np.column_stack(to_local.transform(xy[:, 0], xy[:, 1])))
    return result
