"""Widths in metres of real ground, against pyproj's geodesics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyproj
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS

from ctrs.errors import LabelError
from ctrs.raster.geotiff import Grid
from ctrs.vector.ground_buffers import flat_parts, ground_steps, margin_px, widen

GRIDS = {
    "utm": Grid(crs=CRS.from_epsg(32633), transform=Affine(0.5, 0, 400000, 0, -0.5, 5800000), width=400, height=300),
    "web": Grid(crs=CRS.from_epsg(3857), transform=Affine(0.6, 0, 1.5e6, 0, -0.6, 8.4e6), width=400, height=300),
    "degrees": Grid(crs=CRS.from_epsg(4326), transform=Affine(8e-6, 0, 13.4, 0, -5e-6, 60.2), width=400, height=300),
    "feet": Grid(crs=CRS.from_epsg(2263), transform=Affine(2, 0, 985000, 0, -2, 200000), width=400, height=300),
    "turned": Grid(
        crs=CRS.from_epsg(32633),
        transform=Affine(0.5, 0, 400000, 0, -0.5, 5800000) @ Affine.rotation(30) @ Affine.scale(1, 3),
        width=400,
        height=300,
    ),
    "south": Grid(crs=CRS.from_epsg(4326), transform=Affine(1e-5, 0, 179.999, 0, -1e-5, -45), width=400, height=300),
}


def geodesic_m(grid: Grid, first: Any, second: Any) -> np.ndarray:
    """Distances on the ground of places in pixels (N, 2) from others."""
    assert grid.crs is not None
    to_deg = pyproj.Transformer.from_crs(grid.crs.to_wkt(), 4326, always_xy=True)
    first, second = np.broadcast_arrays(np.atleast_2d(first), np.atleast_2d(second))
    places = [to_deg.transform(*(grid.transform @ tuple(pixels.T))) for pixels in (first, second)]
    return np.asarray(pyproj.Geod(ellps="WGS84").inv(*places[0], *places[1])[2])


@pytest.mark.parametrize("name", GRIDS)
def test_steps_are_those_of_geodesics(name: str) -> None:
    grid = GRIDS[name]
    matrix = ground_steps(grid, np.array([(200.0, 150.0)]))[0]
    for step in ((1, 0), (0, 1), (3, -4)):
        expected = geodesic_m(grid, (200, 150), (200 + step[0], 150 + step[1]))[0]
        assert np.linalg.norm(matrix @ step) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", GRIDS)
def test_points_become_discs_and_lines_bands_of_their_width(name: str) -> None:
    grid = GRIDS[name]
    line = shapely.LineString([(100, 100), (300, 200)])
    disc, band = widen(np.array([shapely.Point(200, 150), line], object), np.array([9.0, 4.0]), grid)
    radii = geodesic_m(grid, (200, 150), shapely.get_coordinates(disc))
    assert radii == pytest.approx(np.full(len(radii), 9.0), rel=1e-3)
    middle = shapely.get_coordinates(shapely.segmentize(line, 0.3))
    widths = np.array([geodesic_m(grid, corner, middle).min() for corner in shapely.get_coordinates(band)])
    assert widths == pytest.approx(np.full(len(widths), 4.0), rel=0.01)


def test_collections_keep_their_polygons() -> None:
    grid = GRIDS["utm"]
    square = shapely.box(10, 10, 20, 20)
    shape = shapely.GeometryCollection([square, shapely.MultiPoint([(50, 50), (15, 15)])])
    area = widen(np.array([shape], object), np.array([1.0]), grid)[0]
    assert area.area == pytest.approx(100 + np.pi * 4, rel=0.005)  # the point on the square adds nothing
    assert area.contains(square)


def test_what_is_out_of_reach_is_empty() -> None:
    shapes: Any = np.array([shapely.Point(-500, 10), shapely.Point(-15, 10)], object)
    assert [bool(shape.is_empty) for shape in widen(shapes, np.array([10.0, 10.0]), GRIDS["utm"])] == [True, False]
    assert len(widen(shapes[:0], np.zeros(0), GRIDS["utm"])) == 0
    assert margin_px(GRIDS["utm"], 10) == pytest.approx(24, abs=0.1)


def test_grids_without_a_place_on_earth() -> None:
    grid = Grid(crs=None, transform=Affine.identity(), width=9, height=9)
    with pytest.raises(
        LabelError, match=r"a width in metres cannot be drawn on a grid in .*; name the CRS of the image"
    ):
        margin_px(grid, 1.0)


def test_parts_of_nested_collections() -> None:
    nested = shapely.GeometryCollection(
        [
            shapely.MultiLineString([[(0, 0), (1, 1)], [(2, 2), (3, 3)]]),
            shapely.GeometryCollection([shapely.Point(1, 2)]),
        ]
    )
    assert [part.geom_type for part in flat_parts(nested)] == ["LineString", "LineString", "Point"]
    assert flat_parts(shapely.GeometryCollection()) == []
