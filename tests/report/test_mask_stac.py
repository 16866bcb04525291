"""A mask's item: its place against pyproj corner by corner, its structure against the specification's own words."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from ctrs.raster.geotiff import Grid, GroundControl, open_raster
from ctrs.report.mask_stac import MaskOrigin, acquired_at, footprint, mask_item, write_mask_item
from tests.report.masks import UTM, grid_at, write_mask

MAPPED = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def origin(**changes: Any) -> MaskOrigin:
    return MaskOrigin(**{"scene": None, "model": None, "mapped": MAPPED, **changes})


def polygon(grid: Grid) -> Any:
    geometry = footprint(grid)
    assert geometry is not None
    return shapely.geometry.shape(geometry)


def test_the_item_says_where_what_and_from_what(tmp_path: Path) -> None:
    scene = tmp_path / "scenes/town.tif"
    scene.parent.mkdir()
    scene.write_bytes(b"")
    model = tmp_path / "run/best/model.stac.json"
    model.parent.mkdir(parents=True)
    model.write_text("{}")
    (tmp_path / "maps").mkdir()
    mask = write_mask(tmp_path / "maps/town_mask.tif")
    beside = {"style": mask.with_suffix(".qml"), "confidence": tmp_path / "maps/town_confidence.tif"}
    beside["style"].write_text("")
    path = write_mask_item(mask, origin(scene=scene, model=model, beside=beside))
    assert path == tmp_path / "maps/town_mask.stac.json"
    item = json.loads(path.read_text())
    assert (item["type"], item["stac_version"], item["id"]) == ("Feature", "1.0.0", "town_mask")
    properties = item["properties"]
    assert properties["datetime"] == properties["created"] == "2026-03-04T05:06:07Z"
    assert properties["proj:epsg"] == 32633
    assert properties["proj:shape"] == [40, 60]
    assert properties["proj:transform"] == [0.5, 0, 400000, 0, -0.5, 5800000]
    assert properties["proj:bbox"] == [400000, 5799980, 400030, 5800000]
    assert properties["gsd"] == 0.5
    assert properties["ctrs:input"] == f"sha256:{'ef' * 32}"
    assert properties["ctrs:model"] == "cd" * 32
    assert properties["ctrs:options"] == {"window_px": 512}
    asset = item["assets"]["mask"]
    assert asset["href"] == "./town_mask.tif"
    assert asset["file:checksum"] == f"1220{hashlib.sha256(mask.read_bytes()).hexdigest()}"
    assert asset["file:size"] == mask.stat().st_size
    assert asset["raster:bands"] == [
        {"data_type": "uint8", "nodata": 255, "sampling": "area", "spatial_resolution": 0.5}
    ]
    assert [(entry["value"], entry["title"], entry["color_hint"]) for entry in asset["classification:classes"]] == [
        (0, "ground", "0A141E"), (1, 'roof & <"gable">', "FF0000"), (2, "Straße", "00FF10"),
    ]  # fmt: skip
    assert [entry["name"] for entry in asset["classification:classes"]] == ["ground", "roof-gable", "Stra-e"]
    assert set(item["assets"]) == {"mask", "style"}  # no confidence stands there
    assert [(link["rel"], link["href"]) for link in item["links"]] == [
        ("derived_from", "../scenes/town.tif"), ("derived_from", "../run/best/model.stac.json"),
    ]  # fmt: skip


def test_each_extension_that_is_used_is_declared_and_the_other_way_round(tmp_path: Path) -> None:
    item = mask_item(write_mask(tmp_path / "m.tif"), origin())
    used = {key.partition(":")[0] for key in _keys(item) if ":" in key} - {"ctrs"}
    prefixes = {"projection": "proj", "raster": "raster", "classification": "classification", "file": "file"}
    declared = {url.split("/")[3] for url in item["stac_extensions"]}
    assert {prefixes.get(name, name) for name in declared} == used


def _keys(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value) | {key for item in value.values() for key in _keys(item)}
    return {key for item in value for key in _keys(item)} if isinstance(value, list) else set()


def test_a_mask_that_is_not_in_place_yet(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    staged = write_mask(tmp_path / "work/town_mask.tif")
    path = write_mask_item(staged, origin(), final=tmp_path / "town_mask.tif")
    assert path == tmp_path / "town_mask.stac.json"
    assert json.loads(path.read_text()) == mask_item(staged.replace(tmp_path / "town_mask.tif"), origin())


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        (32633, UTM),
        (32633, UTM @ Affine.rotation(30)),
        (32633, Affine(0.5, 0, 400000, 0, 0.5, 5800000)),  # south-up
        (3857, Affine(0.3, 0, 9.5e6, 0, -0.3, 3.2e6)),
        (4326, Affine(1e-6, 0, 85.5, 0, -1e-6, 27.6)),
        ("+proj=laea +lat_0=52 +lon_0=10 +ellps=GRS80", Affine(100, 0, -3000, 0, -100, 2000)),
    ],
)
def test_the_border_is_that_of_the_grid(crs: int | str, transform: Affine) -> None:
    grid = grid_at(crs, transform)
    shape = polygon(grid)
    assert shape.is_valid
    assert shape.exterior.is_ccw
    assert grid.crs is not None
    to_degrees = pyproj.Transformer.from_crs(pyproj.CRS.from_wkt(grid.crs.to_wkt()), 4326, always_xy=True)
    for place in ((0, 0), (60, 0), (60, 40), (0, 40), (17, 0), (60, 21)):
        point = shapely.Point(to_degrees.transform(*(transform @ (float(place[0]), float(place[1])))))
        assert shape.exterior.distance(point) < 2e-6
    inside = shapely.Point(to_degrees.transform(*(transform @ (30.0, 20.0))))
    assert shape.contains(inside)


def test_long_edges_are_curved() -> None:
    """A wide scene's edge bends in longitude and latitude: corners alone would be off by kilometres."""
    grid = grid_at(32633, Affine(10000, 0, 200000, 0, -10000, 7000000))
    shape = polygon(grid)
    to_degrees = pyproj.Transformer.from_crs(32633, 4326, always_xy=True)
    middle = shapely.Point(to_degrees.transform(*(grid.transform @ (30.0, 40.0))))
    corners = shapely.Polygon(
        [to_degrees.transform(*(grid.transform @ place)) for place in ((0, 0), (60, 0), (60, 40), (0, 40))]
    )
    assert shape.exterior.distance(middle) < 0.001
    assert corners.exterior.distance(middle) > 0.01


def test_a_scene_across_the_antimeridian_is_cut_there(tmp_path: Path) -> None:
    grid = grid_at(32660, Affine(1000, 0, 800000, 0, -1000, 2000000), width=60)
    shape = polygon(grid)
    assert shape.geom_type == "MultiPolygon"
    assert shape.is_valid
    west, south, east, north = shape.bounds
    assert (west, east) == (-180, 180)
    item = mask_item(write_mask(tmp_path / "m.tif", grid), origin())
    box = item["bbox"]
    assert box[0] > 179
    assert box[2] < -179
    assert box[1:4:2] == [south, north]


@given(lon=st.floats(-180, 180), lat=st.floats(-80, 80), size=st.floats(1e-4, 2), angle=st.floats(0, 360))
@settings(max_examples=60)
def test_the_area_is_kept_wherever_a_scene_lies(lon: float, lat: float, size: float, angle: float) -> None:
    """Also where degrees go on beyond 180: the pieces have the area of the whole."""
    step = size / 60
    transform = Affine.translation(lon, lat) @ Affine.rotation(angle) @ Affine.scale(step, -step)
    shape = polygon(grid_at(4326, transform))
    assert shape.is_valid
    assert shape.area == pytest.approx(size * size * 40 / 60, rel=1e-2, abs=1e-6)
    west, _, east, _ = shape.bounds
    assert west >= -180
    assert east <= 180


def test_around_a_pole_all_longitudes_are_covered() -> None:
    shape = polygon(grid_at(3031, Affine(10000, 0, -300000, 0, -10000, 200000)))
    assert shape.bounds[:2] == (-180, -90)
    assert shape.bounds[2] == 180


POINTS = tuple((float(r), float(c), 15 + c / 1e5, 52 - r / 1e5, 0.0) for r, c in ((0, 0), (0, 60), (40, 0), (40, 60)))


@pytest.mark.parametrize(
    "grid",
    [
        Grid(crs=None, transform=UTM, width=60, height=40),
        Grid(crs=CRS.from_epsg(32633), transform=Affine.identity(), width=60, height=40),
        Grid(
            crs=None, transform=Affine.identity(), width=60, height=40,
            ground_control=GroundControl(crs=CRS.from_epsg(4326), points=POINTS),
        ),
        Grid(
            crs=CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]'), transform=UTM, width=60, height=40,
        ),
    ],
)  # fmt: skip
def test_a_raster_without_place_has_none(grid: Grid, tmp_path: Path) -> None:
    item = mask_item(write_mask(tmp_path / "m.tif", grid), origin())
    assert item["geometry"] is None
    assert "bbox" not in item  # the specification forbids it beside a null geometry
    assert "proj:transform" not in item["properties"] or grid.crs is not None
    assert json.loads(json.dumps(item, allow_nan=False)) == item


def test_a_crs_without_code_is_given_as_wkt2(tmp_path: Path) -> None:
    grid = grid_at("+proj=laea +lat_0=52 +lon_0=10 +ellps=GRS80", Affine(100, 0, -3000, 0, -100, 2000))
    properties = mask_item(write_mask(tmp_path / "m.tif", grid), origin())["properties"]
    assert properties["proj:epsg"] is None
    operation = pyproj.CRS.from_wkt(properties["proj:wkt2"]).coordinate_operation
    assert operation is not None
    assert operation.method_name == "Lambert Azimuthal Equal Area"


@pytest.mark.parametrize(
    ("namespace", "tags", "expected"),
    [
        (None, {"TIFFTAG_DATETIME": "2021:06:30 10:11:12"}, datetime(2021, 6, 30, 10, 11, 12, tzinfo=UTC)),
        ("IMAGERY", {"ACQUISITIONDATETIME": "2020-05-04 03:02:01"}, datetime(2020, 5, 4, 3, 2, 1, tzinfo=UTC)),
        (
            None,
            {"ACQUISITIONDATETIME": "2020-05-04T03:02:01+02:00", "TIFFTAG_DATETIME": "2021:06:30 10:11:12"},
            datetime(2020, 5, 4, 3, 2, 1, tzinfo=timezone(timedelta(hours=2))),
        ),
        (None, {"TIFFTAG_DATETIME": "unknown"}, None),
        (None, {}, None),
    ],
)
def test_the_time_of_the_scene(
    tmp_path: Path, namespace: str | None, tags: dict[str, str], expected: datetime | None
) -> None:
    path = tmp_path / "a.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=8, height=8, count=1, dtype="uint8", crs="EPSG:32633", transform=UTM
    ) as dataset:
        dataset.write(np.zeros((1, 8, 8), np.uint8))
        dataset.update_tags(**({} if namespace is None else {"ns": namespace}), **tags)
    with open_raster(path) as scene:
        assert acquired_at(scene) == expected


def test_the_time_of_the_scene_is_the_items(tmp_path: Path) -> None:
    taken = datetime(2020, 5, 4, 3, 2, 1, tzinfo=timezone(timedelta(hours=2)))
    properties = mask_item(write_mask(tmp_path / "m.tif"), origin(acquired=taken))["properties"]
    assert properties["datetime"] == "2020-05-04T01:02:01Z"
    assert properties["created"] == "2026-03-04T05:06:07Z"
    assert "time is that of the scene" in properties["description"]


def test_signatures_of_urls_are_not_published(tmp_path: Path) -> None:
    mask = write_mask(tmp_path / "m.tif")
    for scene in ("https://me:secret@host/town.tif?sig=secret", "/vsicurl/https:/host/town.tif?sig=secret"):
        item = mask_item(mask, origin(scene=scene))
        assert item["links"][0]["href"] == "https://host/town.tif"
        assert "secret" not in json.dumps(item)
        assert item["properties"]["title"] == "Class mask of town.tif"
