"""Ground metres: against geodesic values of pyproj, and the areas of real building polygons."""

import geopandas
import numpy as np
import pyproj
import pytest
from affine import Affine
from rasterio.crs import CRS
from shapely.geometry import LineString, Polygon, box

from ctrs.raster.geotiff import Grid, open_raster
from ctrs.raster.units import geometry_area_m2, geometry_length_m, ground_pixel_size_m, ground_scale

GEOD = pyproj.Geod(ellps="WGS84")


def grid(epsg, transform, size=100):
    crs = CRS.from_epsg(epsg) if epsg else None
    return Grid(crs=crs, transform=transform, width=size, height=size)


@pytest.mark.parametrize("latitude", [-60.0, -6.05, 0.0, 27.63, 52.4, 70.0])
def test_web_mercator_and_degrees_against_geodesics(latitude):
    longitude, step = 39.2, 1e-5
    east = GEOD.inv(longitude - step, latitude, longitude + step, latitude)[2] / (2 * step)
    north = GEOD.inv(longitude, latitude - step, longitude, latitude + step)[2] / (2 * step)
    np.testing.assert_allclose(ground_scale(CRS.from_epsg(4326), longitude, latitude), (east, north), rtol=1e-6)

    to_mercator = pyproj.Transformer.from_crs(4326, 3857, always_xy=True)
    x, y = to_mercator.transform([longitude, longitude + step, longitude], [latitude, latitude, latitude + step])
    expected = (east * step / (x[1] - x[0]), north * step / (y[2] - y[0]))
    np.testing.assert_allclose(ground_scale(CRS.from_epsg(3857), x[0], y[0]), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("epsg", "x", "y", "metres"),
    [
        (32633, 5e5, 5.4e6, 1.0),  # UTM: 5 cm pixels stay 5 cm, although the scale there is 0.9996
        (2056, 2.6e6, 1.2e6, 1.0),
        (2263, 1e6, 2e5, 0.3048006096012192),  # New York, in US survey feet
        (7415, 1.5e5, 4.5e5, 1.0),  # compound with heights
    ],
)
def test_projected_units_count_as_they_are(epsg, x, y, metres):
    assert ground_scale(CRS.from_epsg(epsg), x, y) == pytest.approx((metres, metres), abs=1e-12)


def test_equidistant_cylindrical_is_measured_since_its_scale_is_far_off():
    x, y = pyproj.Transformer.from_crs(4326, 4087, always_xy=True).transform(10, 60)
    east, north = ground_scale(CRS.from_epsg(4087), x, y)
    assert east == pytest.approx(0.5, abs=0.01)
    assert north == pytest.approx(1.0, abs=0.01)


def test_pixel_size_of_rotated_and_south_up_grids():
    angle = np.deg2rad(30)
    rotated = Affine(0.5 * np.cos(angle), 0.2 * np.sin(angle), 5e5, 0.5 * np.sin(angle), -0.2 * np.cos(angle), 5e6)
    assert ground_pixel_size_m(grid(32633, rotated)) == pytest.approx((0.5, 0.2))
    assert ground_pixel_size_m(grid(32633, Affine(0.3, 0, 5e5, 0, 0.3, 5e6))) == pytest.approx((0.3, 0.3))


def test_without_crs_a_pixel_is_the_unit():
    assert ground_pixel_size_m(grid(None, Affine(0.05, 0, 0, 0, -0.05, 0))) == (1.0, 1.0)
    assert ground_scale(None, 3.0, 4.0) == (1.0, 1.0)


def test_local_crs_uses_its_unit():
    feet = CRS.from_wkt('LOCAL_CS["site",UNIT["US survey foot",0.304800609601219]]')
    assert ground_scale(feet, 0, 0) == pytest.approx((0.3048006, 0.3048006))


@pytest.mark.parametrize("epsg", [3857, 4326])
def test_areas_and_lengths_against_geodesics(epsg):
    house = Polygon(
        [(85.52, 27.63), (85.5203, 27.6301), (85.5202, 27.6304), (85.5199, 27.6302)],
        [[(85.5200, 27.6301), (85.5201, 27.6302), (85.52005, 27.63025)]],
    )
    oriented = Polygon(house.exterior.coords, [list(house.interiors[0].coords)[::-1]])
    ring_area = abs(GEOD.geometry_area_perimeter(Polygon(oriented.exterior))[0])
    hole_area = abs(GEOD.geometry_area_perimeter(Polygon(oriented.interiors[0]))[0])
    line = LineString([(85.52, 27.63), (85.53, 27.64), (85.53, 27.65)])
    series = geopandas.GeoSeries([house, line], crs=4326).to_crs(epsg)
    areas, lengths = geometry_area_m2(series), geometry_length_m(series)
    np.testing.assert_allclose(areas, [ring_area - hole_area, 0], rtol=1e-5)
    rings = GEOD.geometry_length(oriented.exterior) + GEOD.geometry_length(oriented.interiors[0])
    np.testing.assert_allclose(lengths, [rings, GEOD.geometry_length(line)], rtol=1e-6)


def test_areas_in_utm_feet_and_without_crs_are_nominal():
    square = [box(5e5, 5e6, 5e5 + 10, 5e6 + 20)]
    assert geometry_area_m2(geopandas.GeoSeries(square, crs=32633)) == pytest.approx([200.0])
    assert geometry_length_m(geopandas.GeoSeries(square, crs=32633)) == pytest.approx([60.0])
    assert geometry_area_m2(geopandas.GeoSeries(square)) == pytest.approx([200.0])
    feet = geopandas.GeoSeries([box(1e6, 2e5, 1e6 + 100, 2e5 + 100)], crs=2263)
    assert geometry_area_m2(feet) == pytest.approx([30.48006096**2])
    assert geometry_length_m(feet) == pytest.approx([4 * 30.48006096])


@pytest.mark.parametrize("crs", [None, 3857, 4326, 32633])
def test_empty_series(crs):
    empty = geopandas.GeoSeries([], crs=crs)
    assert geometry_area_m2(empty).shape == (0,)
    assert geometry_length_m(empty).shape == (0,)


def test_banepa_buildings_are_27_percent_smaller_than_their_nominal_areas(real_data):
    labels = sorted((real_data / "oam_banepa_urban" / "labels").glob("*.geojson"))
    buildings = geopandas.read_file(labels[0])
    mercator = buildings.geometry.to_crs(3857)
    expected = np.array([abs(GEOD.geometry_area_perimeter(shape)[0]) for shape in buildings.to_crs(4326).geometry])
    np.testing.assert_allclose(geometry_area_m2(mercator), expected, rtol=2e-5)
    assert 1.26 < mercator.area.sum() / geometry_area_m2(mercator).sum() < 1.29
    with open_raster(real_data / "oam_banepa_urban" / "scene" / "banepa_urban.tif") as dataset:
        width, height = ground_pixel_size_m(Grid.of(dataset))
        assert dataset.transform.a == pytest.approx(0.149, abs=0.001)
    assert (width, height) == pytest.approx((0.1324, 0.1317), abs=2e-4)
