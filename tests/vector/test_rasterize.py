"""Polygons on a grid: as rasterio paints them, the same for any window, reprojected and mended."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.features import rasterize

from ctrs.errors import InputNotFoundError, LabelError
from ctrs.raster.geotiff import Grid, open_raster
from ctrs.raster.windows import PixelWindow, sliding_windows
from ctrs.vector.rasterize import GridPolygons, PolygonLayer, place_polygons, read_polygons

UTM = CRS.from_epsg(32633)
TRANSFORM = Affine(0.5, 0, 400000, 0, -0.5, 5800000)
GRID = Grid(crs=UTM, transform=TRANSFORM, width=160, height=120)


def whole(polygons: GridPolygons, grid: Grid, size: int = 10**6) -> np.ndarray:
    mask = np.full(grid.shape, 99, np.uint8)
    for window in sliding_windows(grid.height, grid.width, size, size):
        mask[window.slices] = polygons.rasterize(window, background=0)
    return mask


def layer_of(shapes: list[shapely.Geometry], crs: object = "EPSG:32633") -> PolygonLayer:
    return PolygonLayer(path=Path("a.gpkg"), frame=geopandas.GeoDataFrame(geometry=shapes, crs=crs))


def random_shapes(seed: int, num: int) -> list[shapely.Geometry]:
    rng = np.random.default_rng(seed)
    shapes = []
    for _ in range(num):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 7))
        radius = rng.uniform(2, 15, 7)
        center = TRANSFORM @ (rng.uniform(-10, 170), rng.uniform(-10, 130))
        shapes.append(shapely.Polygon(np.c_[center[0] + radius * np.cos(angles), center[1] + radius * np.sin(angles)]))
    return shapes


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(7, 70))
def test_as_rasterio_paints_and_the_same_for_any_window(seed: int, num: int, size: int) -> None:
    shapes = random_shapes(seed, num)
    values = np.arange(1, num + 1, dtype=np.uint8)
    polygons = place_polygons(layer_of(shapes), GRID, values)
    mask = whole(polygons, GRID)
    expected = rasterize(zip(shapes, values.tolist(), strict=True), GRID.shape, transform=TRANSFORM, dtype="uint8")
    assert np.array_equal(mask, expected)
    assert np.array_equal(whole(polygons, GRID, size), expected)


def test_other_crs_and_rotated_grids() -> None:
    shapes = random_shapes(1, 12)
    values = np.arange(1, 13, dtype=np.uint8)
    expected = whole(place_polygons(layer_of(shapes), GRID, values), GRID)
    frame = layer_of(shapes).frame.to_crs(4326)
    found = whole(place_polygons(PolygonLayer(path=Path("a"), frame=frame), GRID, values), GRID)
    assert (found != expected).sum() <= 2
    transform = TRANSFORM @ Affine.rotation(33)
    rotated = Grid(crs=UTM, transform=transform, width=160, height=120)
    expected = rasterize(zip(shapes, values.tolist(), strict=True), GRID.shape, transform=transform, dtype="uint8")
    assert (whole(place_polygons(layer_of(shapes), rotated, values), rotated) != expected).sum() <= 2
    assert expected.any()


def test_polygons_beside_the_grid_are_left_out() -> None:
    shapes = [shapely.box(0, 0, 1, 1), shapely.box(*(TRANSFORM @ (5, 9)), *(TRANSFORM @ (9, 5)))]
    polygons = place_polygons(layer_of(shapes), GRID, np.array([3, 4], np.uint8))
    assert polygons.values.tolist() == [4]
    empty = place_polygons(layer_of(shapes[:1]), GRID, np.array([3], np.uint8))
    window = PixelWindow(col_off=0, row_off=0, width=5, height=4)
    assert (empty.rasterize(window, background=7) == 7).all()


def test_later_polygons_lie_on_top() -> None:
    box = shapely.box(*(TRANSFORM @ (5, 9)), *(TRANSFORM @ (9, 5)))
    for order in ([1, 2], [2, 1]):
        mask = whole(place_polygons(layer_of([box, box]), GRID, np.array(order, np.uint8)), GRID)
        assert mask.max() == order[1]
        assert (mask == order[1]).sum() == 16


def test_reading_mends_and_counts(tmp_path: Path) -> None:
    bow = shapely.Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])
    shapes = [bow, shapely.box(5, 5, 6, 6), None, shapely.Point(1, 1), shapely.Polygon()]
    geopandas.GeoDataFrame({"kind": list("abcde")}, geometry=shapes, crs=UTM.to_wkt()).to_parquet(
        tmp_path / "a.parquet"
    )
    layer = read_polygons(tmp_path / "a.parquet", class_field="kind")
    assert (len(layer.frame), layer.num_repaired, layer.num_dropped) == (2, 1, 3)
    assert layer.frame["kind"].tolist() == ["a", "b"]
    assert layer.frame.geometry.area.tolist() == [2.0, 1.0]
    assert layer.frame.geometry.is_valid.all()


def test_files_that_do_not_serve(tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError, match=r"none\.gpkg: not found"):
        read_polygons(tmp_path / "none.gpkg")
    (tmp_path / "a.gpkg").write_text("nothing")
    with pytest.raises(LabelError, match=r"a\.gpkg: not readable as polygons"):
        read_polygons(tmp_path / "a.gpkg")
    (tmp_path / "a.parquet").write_text("nothing")
    with pytest.raises(LabelError, match=r"a\.parquet: not readable as polygons"):
        read_polygons(tmp_path / "a.parquet")


@pytest.mark.parametrize("scene", ["zanzibar_a", "kampala_a", "kampala_b", "catanduanes_b"])
def test_real_buildings_match_the_masks_made_elsewhere(real_data: Path, scene: str) -> None:
    folder = real_data / "oam_fair_buildings"
    layer = read_polygons(folder / f"labels/{scene}.geojson")
    assert layer.num_repaired == (scene == "kampala_a")
    with open_raster(folder / f"masks/{scene}_z20_mask.tif") as dataset:
        grid, expected = Grid.of(dataset), dataset.read(1)
    polygons = place_polygons(layer, grid, np.ones(len(layer.frame), np.uint8))
    different = (whole(polygons, grid, 500) != expected).sum()
    assert different <= 2e-4 * expected.sum()
