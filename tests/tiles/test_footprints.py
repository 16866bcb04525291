"""Footprints of windows, rotated and reprojected."""

from __future__ import annotations

import numpy as np
from affine import Affine
from rasterio.crs import CRS

from ctrs.raster.geotiff import Grid
from ctrs.raster.windows import PixelWindow
from ctrs.tiles.footprints import common_crs, tile_footprints, window_footprint

UTM33, WGS84 = CRS.from_epsg(32633), CRS.from_epsg(4326)


def test_rotated_footprint() -> None:
    grid = Grid(crs=None, transform=Affine(0.0, 1.0, 5.0, 1.0, 0.0, 7.0), width=10, height=10)
    corners = window_footprint(grid, PixelWindow(col_off=2, row_off=3, width=4, height=1))
    assert np.array_equal(corners, [(8, 9), (8, 13), (9, 13), (9, 9)])


def test_common_crs() -> None:
    assert common_crs([UTM33, UTM33]) == UTM33
    assert common_crs([UTM33, CRS.from_epsg(32634)]) == WGS84
    assert common_crs([UTM33, None]) is None
    assert common_crs([]) is None


def test_footprints_are_brought_to_one_crs() -> None:
    grid = Grid(crs=UTM33, transform=Affine(1.0, 0.0, 500000.0, 0.0, -1.0, 5800000.0), width=100, height=100)
    window = PixelWindow(col_off=0, row_off=0, width=100, height=100)
    (polygon,) = tile_footprints([(grid, window)], WGS84)
    left, _, _, top = polygon.bounds
    assert abs(left - 15.0) < 1e-6
    assert 52 < top < 53
