"""Polygons come to stand in coordinates of the CRS, and are valid there too."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from ctrs.raster.geotiff import Grid
from ctrs.vector.polygonize import Geometries, place_on_grid

logger = logging.getLogger(__name__)

MAX_AREA_CHANGE_PX = 1e-3
"""Area, in pixels, by which a polygon may change where rounding made its rings cross."""


def place_valid(geometries: Geometries, grid: Grid, scale: tuple[float, float] = (1.0, 1.0)) -> Geometries:
    """Move valid polygons to CRS coordinates as ``place_on_grid`` does, and keep them valid.

    CRS coordinates have fewer digits left for fractions of a metre, so that a corner may come to lie beyond an edge of
    the same polygon that it touched: there a corner is added where the two cross.

    Args:
        geometries: Valid polygons, in pixel corners multiplied by ``scale``.
        grid: Of the mask.
        scale: Width and height of a pixel in the units of the polygons.
    """
    placed = place_on_grid(geometries, grid, scale)
    pixel_area = abs(grid.transform.determinant)
    for place in np.flatnonzero(~shapely.is_valid(placed)).tolist():
        mended = mend_polygon(placed[place])
        lost = abs(shapely.area(placed[place]) - shapely.area(mended)) / pixel_area
        if lost > MAX_AREA_CHANGE_PX:
            logger.warning(
                "a polygon at %s falls apart where it is narrower than coordinates are exact: %.3f pixels of %.1f fall "
                "away",
                shapely.get_coordinates(mended)[0].tolist(),
                lost,
                shapely.area(placed[place]) / pixel_area,
            )
        placed[place] = mended
    return placed


def mend_polygon(shape: shapely.Polygon) -> shapely.Polygon:
    """Return the valid polygon, shell counter-clockwise, nearest to one whose rings cross by a trifle.

    >>> court = [(0, 4), (3, 7), (6, 4), (3, 2), (1, 5 + 1e-9), (0, 2)]
    >>> crossed = shapely.Polygon([(0, 0), (9, 0), (9, 9), (0, 9), *court])
    >>> mended = mend_polygon(crossed)
    >>> crossed.is_valid, mended.is_valid, len(mended.interiors), abs(mended.area - crossed.area) < 1e-6
    (False, True, 1, True)
    """
    parts: npt.NDArray[Any] = shapely.get_parts(shapely.make_valid(shape, method="structure", keep_collapsed=False))
    parts = parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON]
    largest: shapely.Polygon = shapely.orient_polygons(parts[np.argmax(shapely.area(parts))])
    return largest
