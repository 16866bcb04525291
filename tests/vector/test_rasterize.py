"""Polygons on a grid: as rasterio paints them, the same for any window, reprojected and mended."""

from __future__ import annotations

import json
import sqlite3
import struct
import zipfile
from contextlib import closing
from dataclasses import replace
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
from ctrs.raster.names import archive_member
from ctrs.raster.windows import PixelWindow, sliding_windows
from ctrs.vector.rasterize import GridPolygons, PolygonLayer, is_vector, place_polygons, read_polygons

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


@settings(max_examples=10)
@given(st.integers(0, 2**32 - 1), st.integers(7, 70))
def test_long_outlines_are_painted_window_by_window_as_in_one(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    angles = np.linspace(0, 2 * np.pi, 900, endpoint=False)
    shapes = []
    for inner, outer in ((10, 39), (2, 30), (0, 12)):
        ring = [
            TRANSFORM @ (80 + r * np.cos(a), 60 + r * np.sin(a))
            for a, r in zip(angles, rng.uniform(inner, outer, 900), strict=True)
        ]
        hole = shapely.box(*(TRANSFORM @ (70, 66)), *(TRANSFORM @ (83, 58)))
        shapes.append(shapely.make_valid(shapely.Polygon(ring)).difference(hole))
    values = np.array([1, 2, 3], np.uint8)
    expected = rasterize(zip(shapes, values.tolist(), strict=True), GRID.shape, transform=TRANSFORM, dtype="uint8")
    polygons = place_polygons(layer_of(shapes), GRID, values)
    assert np.array_equal(whole(polygons, GRID), expected)
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


def test_one_of_several_layers(tmp_path: Path) -> None:
    path = tmp_path / "town.gpkg"
    for number, name in enumerate(("roads", "houses v1.2"), start=1):
        geopandas.GeoDataFrame(geometry=[shapely.box(0, 0, number, 1)], crs=UTM.to_wkt()).to_file(path, layer=name)
    chosen = Path(f"{path}|layername=houses v1.2")
    assert is_vector(chosen)
    layer = read_polygons(chosen)
    assert layer.path == chosen
    assert layer.frame.area.tolist() == [2.0]
    with pytest.raises(
        LabelError, match=r"2 layers .*\(roads, houses v1\.2\), expected one; name one as town\.gpkg\|l"
    ):
        read_polygons(path)
    with pytest.raises(LabelError, match=r"town\.gpkg: no layer 'trees' found, expected one of: roads, houses v1\.2"):
        read_polygons(Path(f"{path}|layername=trees"))


def test_members_of_archives_are_read(tmp_path: Path) -> None:
    geopandas.GeoDataFrame(geometry=[shapely.box(0, 0, 2, 1)], crs=UTM.to_wkt()).to_file(tmp_path / "a.geojson")
    with zipfile.ZipFile(tmp_path / "labels.zip", "w") as archive:
        archive.write(tmp_path / "a.geojson", "deep/a.geojson")
    layer = read_polygons(archive_member(tmp_path / "labels.zip", "deep/a.geojson"))
    assert layer.frame.area.tolist() == [2.0]


def test_collections_holes_heights_and_parts(tmp_path: Path) -> None:
    hole = shapely.box(0, 0, 10, 10).difference(shapely.box(3, 3, 6, 6))
    tall = shapely.Polygon([(20, 0, 5), (30, 0, 6), (30, 10, 7), (20, 10, 8)])
    parts = shapely.MultiPolygon([shapely.box(40, 0, 50, 10), shapely.box(60, 0, 70, 10)])
    bow = shapely.Polygon([(80, 0), (90, 10), (90, 0), (80, 10)])
    mixed = shapely.GeometryCollection([shapely.box(0, 20, 10, 30), bow, shapely.LineString([(0, 40), (90, 40)])])
    no_area = shapely.GeometryCollection([shapely.Point(1, 1)])
    frame = geopandas.GeoDataFrame(geometry=[hole, tall, parts, mixed, no_area], crs=UTM.to_wkt())
    frame.to_file(tmp_path / "a.gpkg")
    layer = read_polygons(tmp_path / "a.gpkg")
    assert (len(layer.frame), layer.num_repaired, layer.num_dropped, layer.num_thin) == (4, 1, 1, 1)
    assert layer.frame.area.tolist() == [91.0, 100.0, 200.0, 150.0]
    grid = Grid(crs=UTM, transform=Affine(1, 0, 0, 0, 1, 0), width=100, height=50)
    mask = whole(place_polygons(layer, grid, np.array([1, 2, 3, 4], np.uint8)), grid)
    assert np.bincount(mask.ravel())[1:4].tolist() == [91, 100, 200]
    assert (mask[4, 4], mask[25, 5], mask[40].max()) == (0, 4, 0)
    thin = read_polygons(tmp_path / "a.gpkg", thin=True)
    assert (len(thin.frame), thin.num_dropped) == (5, 0)
    widths = np.array([0, 0, 0, 2.0, 3.0])
    values = np.arange(1, 6, dtype=np.uint8)
    mask = whole(place_polygons(thin, replace(grid, transform=Affine(1, 0, 0, 0, 1, 0)), values, widths_m=widths), grid)
    assert mask[40, 50] == 4
    assert 3 <= (mask[:, 50] == 4).sum() <= 5
    assert mask[0, 0] == 5


def test_curves_become_fine_polygons(tmp_path: Path) -> None:
    """A circle of arcs, as a GeoPackage may hold it."""
    path = tmp_path / "curve.gpkg"
    geopandas.GeoDataFrame(geometry=[shapely.box(-5, -5, 5, 5)], crs=UTM.to_wkt()).to_file(path, layer="curve")
    points = struct.pack("<6d", -5, 0, 5, 0, -5, 0)
    wkb = struct.pack("<BII", 1, 10, 1) + struct.pack("<BII", 1, 8, 3) + points
    with closing(sqlite3.connect(path)) as database, database:
        for (name,) in database.execute("select name from sqlite_master where type = 'trigger'").fetchall():
            database.execute(f'drop trigger "{name}"')
        (header,) = database.execute("select substr(geom, 1, 40) from curve").fetchone()
        database.execute("update curve set geom = ?", (header + wkb,))
    assert read_polygons(path).frame.area.tolist() == pytest.approx([25 * np.pi], rel=0.01)


def test_files_without_features(tmp_path: Path) -> None:
    (tmp_path / "a.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    layer = read_polygons(tmp_path / "a.geojson", class_field="kind", fields=("level",))
    assert (len(layer.frame), layer.num_dropped) == (0, 0)
    polygons = place_polygons(layer, GRID, np.zeros(0, np.uint8))
    assert not whole(polygons, GRID).any()


def test_geojson_without_crs_is_in_degrees(tmp_path: Path) -> None:
    shapes = random_shapes(3, 5)
    in_degrees = geopandas.GeoSeries(shapes, crs="EPSG:32633").to_crs(4326)
    features = [
        {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(shape)} for shape in in_degrees
    ]
    (tmp_path / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    values = np.arange(1, 6, dtype=np.uint8)
    found = whole(place_polygons(read_polygons(tmp_path / "a.geojson"), GRID, values), GRID)
    expected = whole(place_polygons(layer_of(shapes), GRID, values), GRID)
    assert (found != expected).sum() <= 2
    assert expected.any()


def test_lines_beyond_the_edge_reach_in() -> None:
    line = shapely.LineString([TRANSFORM @ (-30, -30), TRANSFORM @ (-30, 150)])
    for crs in (32633, 3857):
        frame = geopandas.GeoDataFrame(geometry=[line], crs=32633).to_crs(crs)
        layer = PolygonLayer(path=Path("a"), frame=frame)
        mask = whole(place_polygons(layer, GRID, np.array([1], np.uint8), widths_m=np.array([20.0])), GRID)
        assert mask.sum() == pytest.approx(10 * 120, abs=3)
        assert mask[:, :9].all()


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
