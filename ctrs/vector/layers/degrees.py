"""Coordinates in degrees as GeoJSON keeps them: 10 decimals, valid after rounding too."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

Geometries = npt.NDArray[np.object_]

DECIMALS = 10
"""A hundredth of a millimetre on the ground: gaps of a millimetre stay open, also where GDAL drops the last digit."""

_STEPS = 10**DECIMALS
_GRIDS = (0.0, 1.0 / _STEPS, 20.0 / _STEPS)
"""What broken polygons are snapped to, one after the other; on the last no decimals end in 99999x or 00000x."""


def round_degrees(geometries: Geometries) -> Geometries:
    """Round polygons or multipolygons to what GDAL writes, and keep them valid.

    Where rings cross or collapse by rounding, corners are added or dropped where they are too close to tell apart.
    Of a polygon that falls apart the largest part stays.

    >>> narrow = [(0, 0), (4, 0), (4, 4), (2.04, 4), (2.02, 1), (1.98, 1), (1.96, 4), (0, 4)]
    >>> narrow = shapely.Polygon(0.1234567 + 1e-10 * np.array(narrow))
    >>> plain = shapely.transform(narrow, lambda xy: np.round(xy, 10))
    >>> (kept,) = round_degrees(np.array([narrow], object))
    >>> plain.is_valid, kept.is_valid
    (False, True)
    """
    rounded: Geometries = np.asarray(shapely.transform(geometries, _written), object)
    for place in np.flatnonzero(~shapely.is_valid(rounded)).tolist():
        sound = shapely.make_valid(rounded[place], method="structure", keep_collapsed=False)
        for grid in _GRIDS:
            snapped = shapely.set_precision(shapely.set_precision(sound, grid), 0)
            parts = shapely.get_parts(shapely.transform(snapped, _written))
            parts = parts[(shapely.get_type_id(parts) == shapely.GeometryType.POLYGON) & ~shapely.is_empty(parts)]
            if len(parts) and shapely.is_valid(parts).all():
                rounded[place] = _like(geometries[place], shapely.orient_polygons(parts))
                break
    return rounded


def _like(shape: shapely.Geometry, parts: Geometries) -> Any:
    """Return the parts as one geometry of a shape's kind."""
    if shapely.get_type_id(shape) == shapely.GeometryType.POLYGON:
        return parts[np.argmax(shapely.area(parts))]
    return shapely.multipolygons(parts)


def _written(xy: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return coordinates as GDAL's GeoJSON has them: it takes 99999x, 00000x and the like at the end for errors."""
    steps = np.rint(xy * _STEPS).astype(np.int64)
    size = np.abs(steps)
    for digits, dropped in ((10**9, 100), (10**6, 10)):
        last = size % digits
        size = np.where(last < dropped, size - last, size)
        size = np.where(last >= digits - dropped, size - last + digits, size)
    return np.asarray(np.sign(steps) * size / _STEPS, np.float64)
