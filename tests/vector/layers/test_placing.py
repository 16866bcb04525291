"""What is valid in pixels is valid in coordinates of the CRS, whatever rounding does."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS

from ctrs.raster.geotiff import Grid
from ctrs.vector.layers.placing import place_valid
from ctrs.vector.polygonize import place_on_grid

GRID = Grid(
    crs=CRS.from_epsg(32633), transform=Affine(0.2, 0, 400_000, 0, -0.2, 5_000_000), width=10_000, height=10_000
)


def courts(count: int) -> np.ndarray:
    """Buildings whose courtyard is open by less than coordinates in metres can say."""
    rng = np.random.default_rng(5)
    shapes = []
    for column, row in rng.integers(0, 9_000, (count, 2)).tolist():
        court = [(0, 4), (3, 7), (6, 4), (3, 2), (1, 5 - 1e-11), (0, 2)]
        ring = np.array([(0, 0), (9, 0), (9, 9), (0, 9), *court]) + np.array([column, row])
        shapes.append(shapely.Polygon(ring))
    return np.array(shapes, object)


def test_polygons_stay_valid_where_rounding_makes_them_cross() -> None:
    shapes = courts(400)
    shapes = shapes[shapely.is_valid(shapes)]
    rounded = place_on_grid(shapes, GRID)
    assert (~shapely.is_valid(rounded)).sum() > 10, "rounding does no harm here"
    placed = place_valid(shapes, GRID)
    assert shapely.is_valid(placed).all()
    assert (shapely.get_type_id(placed) == shapely.GeometryType.POLYGON).all()
    np.testing.assert_allclose(shapely.area(placed), shapely.area(shapes) * 0.04, atol=1e-5)
    assert shapely.is_ccw(shapely.get_exterior_ring(placed)).all()


def test_what_is_valid_is_left_as_it_is() -> None:
    shapes = shapely.box(np.arange(5), 0, np.arange(5) + 1, 1)
    assert shapely.equals_exact(place_valid(shapes, GRID), place_on_grid(shapes, GRID), 0).all()


def test_what_falls_apart_is_told(caplog: pytest.LogCaptureFixture) -> None:
    neck = shapely.Polygon([(0, 0), (5, 4.5 - 1e-12), (9, 0), (9, 9), (5, 4.5 + 1e-12), (0, 9)])
    placed = np.array([])
    with caplog.at_level(logging.WARNING):
        for column in range(40):
            placed = place_valid(
                np.array([shapely.transform(neck, lambda xy, c=column: xy + np.array((c * 217.3, 3e3)))]), GRID
            )
            assert shapely.is_valid(placed).all()
    assert "falls apart where it is narrower than coordinates are exact" in caplog.text
