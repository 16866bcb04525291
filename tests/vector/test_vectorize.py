"""The whole step: mask file to layer file, in every format, CRS and state of repair."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import geopandas
import numpy as np
import numpy.typing as npt
import pyogrio
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, FieldError
from rasterio.features import rasterize

from ctrs.config import VectorizeConfig
from ctrs.errors import (
    ConfigError,
    CtrsWarning,
    InputNotFoundError,
    LabelError,
    LabelWarning,
    MissingCrsWarning,
    OutputError,
    OutputExistsError,
    RasterError,
    UsageError,
)
from ctrs.jobs import partial_dir
from ctrs.vector import polygons_path, vectorize
from ctrs.vector.layers.columns import COLUMNS

EXTENSIONS = [".gpkg", ".parquet", ".fgb", ".geojson"]
UTM = Affine(0.5, 0, 400_000, 0, -0.5, 5_000_000)
EXACT = VectorizeConfig(min_area_m2=0, min_hole_m2=0, tolerance_m=0)


def read(path: Path) -> geopandas.GeoDataFrame:
    return geopandas.read_parquet(path) if path.suffix == ".parquet" else geopandas.read_file(path)


@pytest.fixture
def labels() -> npt.NDArray[np.uint8]:
    """Three buildings (one with a courtyard, one with nodata inside), a tree, a speck, a pinhole."""
    labels = np.zeros((80, 100), np.uint8)
    labels[5:25, 5:35] = 1
    labels[10:18, 12:20] = 0
    labels[40:70, 10:40] = 1
    labels[50:60, 20:30] = 255
    labels[10:40, 60:90] = 1
    labels[20, 70] = 0
    labels[45:60, 60:80] = 2
    labels[75, 50] = 1
    return labels


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_every_format_holds_the_same_polygons(write_mask, tmp_path: Path, labels, extension: str) -> None:
    out = tmp_path / f"buildings{extension}"
    result = vectorize(write_mask(labels), out)
    layer = read(out)
    assert result.path == out
    assert result.counts == {"building": 3}
    assert [name for name in layer.columns if name != "bbox"] == [*COLUMNS, "geometry"]
    by_id = layer.set_index("id").sort_index()
    assert by_id.index.tolist() == [1, 2, 3]
    assert set(layer["class"]) == {"building"}
    assert layer.crs.to_epsg() == (4326 if extension == ".geojson" else 32633)
    metric = by_id.to_crs(32633)
    assert metric.is_valid.all()
    # First pixels: row 5 (courtyard house), row 10 (pinhole filled), row 40 (nodata kept open).
    assert [len(shape.interiors) for shape in metric.geometry] == [1, 0, 1]
    assert by_id["area_m2"].tolist() == pytest.approx([(600 - 64) / 4, 900 / 4, (900 - 100) / 4], rel=0.02)
    assert metric.area.tolist() == pytest.approx(by_id["area_m2"].tolist(), rel=1e-4)
    assert metric.length.tolist() == pytest.approx(by_id["perimeter_m"].tolist(), rel=1e-4)
    assert result.area_m2["building"] == pytest.approx(by_id["area_m2"].sum())
    assert not partial_dir(out).exists()


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_a_finished_job_is_skipped_and_another_needs_overwrite(write_mask, tmp_path, labels, extension) -> None:
    mask, out = write_mask(labels), tmp_path / f"buildings{extension}"
    first = vectorize(mask, out)
    stamp = out.stat().st_mtime_ns
    again = vectorize(mask, out)
    assert (again.skipped, again.counts) == (True, first.counts)
    assert again.area_m2 == pytest.approx(first.area_m2)
    assert out.stat().st_mtime_ns == stamp
    with pytest.raises(OutputExistsError, match=r"buildings\.\w+: exists and is the result of other inputs or options"):
        vectorize(mask, out, VectorizeConfig(min_area_m2=100))
    replaced = vectorize(mask, out, VectorizeConfig(min_area_m2=150, overwrite=True))
    assert replaced.counts == {"building": 2}
    assert len(read(out)) == 2
    assert vectorize(mask, out, VectorizeConfig(min_area_m2=150)).skipped


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_the_same_job_makes_the_same_bytes(write_mask, tmp_path, labels, extension) -> None:
    mask, out = write_mask(labels), tmp_path / f"buildings{extension}"
    vectorize(mask, out)
    before = out.read_bytes()
    vectorize(mask, out, VectorizeConfig(overwrite=True))
    assert out.read_bytes() == before


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_a_mask_without_buildings_makes_an_empty_layer_with_a_schema(write_mask, tmp_path, extension) -> None:
    out = tmp_path / f"none{extension}"
    result = vectorize(write_mask(np.zeros((20, 30), np.uint8)), out)
    assert (result.counts, result.area_m2) == ({"building": 0}, {"building": 0.0})
    assert vectorize(tmp_path / "scene_mask.tif", out).skipped
    layer = read(out)
    assert len(layer) == 0
    if extension != ".geojson":  # GeoJSON has no schema to hold them
        assert {"id", "class", "area_m2", "perimeter_m"} <= set(layer.columns)
        assert layer.crs.to_epsg() == 32633


def test_a_foreign_file_under_the_name_is_not_replaced(write_mask, tmp_path, labels) -> None:
    out = tmp_path / "mine.gpkg"
    out.write_text("not a layer")
    with pytest.raises(OutputExistsError, match=r"mine\.gpkg: exists"):
        vectorize(write_mask(labels), out)
    assert out.read_text() == "not a layer"


def test_all_classes_tile_the_mask(write_mask, tmp_path, labels) -> None:
    labels[labels == 255] = 3
    out = tmp_path / "all.gpkg"
    result = vectorize(write_mask(labels), out, VectorizeConfig(classes=("all",)))
    layer = read(out)
    assert result.counts == {"background": 2, "building": 3, "tree": 1, "water": 1}
    assert layer["class"].value_counts().to_dict() == result.counts
    assert shapely.coverage_is_valid(layer.geometry.to_numpy())
    assert layer.union_all().equals_exact(shapely.box(400_000, 4_999_960, 400_050, 5_000_000), 1e-6, normalize=True)
    assert layer["area_m2"].sum() == pytest.approx(labels.size / 4)


@pytest.mark.parametrize("names", [("tree", "building"), ("building", "tree")])
def test_several_classes_come_in_the_order_of_the_mask(write_mask, tmp_path, labels, names) -> None:
    result = vectorize(write_mask(labels), tmp_path / "two.fgb", VectorizeConfig(classes=names))
    assert list(result.counts.items()) == [("building", 3), ("tree", 1)]


CLASS_LABELS = hnp.arrays(
    np.uint8, st.tuples(st.integers(1, 16), st.integers(1, 16)), elements=st.sampled_from([0, 1, 2, 255])
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(labels=CLASS_LABELS)
def test_exact_layers_hold_each_pixel_once(write_mask, tmp_path, labels) -> None:
    out = tmp_path / "exact.parquet"
    config = VectorizeConfig(classes=("all",), min_area_m2=0, min_hole_m2=0, tolerance_m=0, overwrite=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MissingCrsWarning)
        vectorize(write_mask(labels, crs=None, transform=Affine.identity()), out, config)
    layer = read(out)
    back = np.full(labels.shape, 255, np.uint8)
    if len(layer):
        codes = layer["class"].map({"background": 0, "building": 1, "tree": 2})
        back = rasterize(zip(layer.geometry, codes, strict=True), labels.shape, fill=255, dtype="uint8")
    np.testing.assert_array_equal(back, labels)


def test_one_pixel_objects_are_kept_when_asked(write_mask, tmp_path) -> None:
    labels = np.zeros((5, 5), np.uint8)
    labels[1, 1] = labels[3, 3] = 1
    config = VectorizeConfig(min_area_m2=0, min_hole_m2=0)
    result = vectorize(write_mask(labels), tmp_path / "small.gpkg", config)
    assert result.counts == {"building": 2}
    assert result.area_m2 == {"building": pytest.approx(0.5)}


def test_a_mask_that_is_all_building_is_one_rectangle(write_mask, tmp_path) -> None:
    out = tmp_path / "all.gpkg"
    vectorize(write_mask(np.ones((40, 60), np.uint8)), out)
    layer = read(out)
    assert layer.geometry[0].equals_exact(shapely.box(400_000, 4_999_980, 400_030, 5_000_000), 1e-6, normalize=True)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:4326", Affine(1e-6, 0, 85.52, 0, -1e-6, 27.63)),
        ("EPSG:3857", Affine(0.15, 0, 9_520_000, 0, -0.15, 3_202_500)),
        ("EPSG:3857", Affine.translation(9_520_000, 8_000_000) @ Affine.rotation(20) @ Affine.scale(0.3, -0.3)),
        ("EPSG:2263", Affine(0.5, 0, 985_000, 0, -0.5, 200_000)),
    ],
    ids=["degrees", "Web Mercator", "Web Mercator rotated", "US survey feet"],
)
def test_areas_and_lengths_are_those_of_the_ground(write_mask, tmp_path, labels, crs, transform) -> None:
    out = tmp_path / "ground.gpkg"
    vectorize(write_mask(labels, crs=crs, transform=transform), out, VectorizeConfig(min_area_m2=0.1))
    layer = read(out)
    assert layer.crs == pyproj.CRS(crs)
    assert len(layer) == 3
    geod = pyproj.Geod(ellps="WGS84")
    for row in layer.to_crs(4326).itertuples():
        area = geod.geometry_area_perimeter(shapely.orient_polygons(row.geometry))[0]
        length = geod.geometry_length(row.geometry.boundary)
        assert row.area_m2 == pytest.approx(area, rel=1e-3)
        assert row.perimeter_m == pytest.approx(length, rel=1e-3)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32633", UTM),
        ("EPSG:3857", Affine(1.0, 0, 0, 0, -1.0, 8_399_737)),
        ("EPSG:4326", Affine(0.5 / 55_800, 0, 10, 0, -0.5 / 111_412, 60)),
    ],
    ids=["UTM", "Web Mercator", "degrees"],
)
@pytest.mark.parametrize(("tolerance", "simplified"), [(0.5, False), (1.0, True)])
def test_tolerances_are_ground_metres(write_mask, tmp_path, crs, transform, tolerance, simplified) -> None:
    """At 60 degrees north, pixels of 0.5 m: a corner cut out by 1 x 1 m makes triangles of 0.5 m2."""
    labels = np.zeros((90, 90), np.uint8)
    labels[10:80, 10:80] = 1
    labels[10:12, 78:80] = 0
    mask = write_mask(labels, crs=crs, transform=transform)
    vectorize(mask, tmp_path / "a.gpkg", VectorizeConfig(tolerance_m=tolerance))
    assert (shapely.get_num_coordinates(read(tmp_path / "a.gpkg").geometry[0]) < 7) == simplified


def test_limits_are_ground_metres_in_web_mercator(write_mask, tmp_path) -> None:
    """At 60 degrees north a nominal square metre is a quarter of one."""
    labels = np.zeros((60, 60), np.uint8)
    labels[5:15, 5:15] = 1  # 100 px: nominally 6.25 m2, on the ground 1.6 m2
    labels[20:40, 20:40] = 1  # 400 px: nominally 25 m2, on the ground 6.3 m2
    mask = write_mask(labels, crs="EPSG:3857", transform=Affine(0.25, 0, 0, 0, -0.25, 8_399_737))
    assert vectorize(mask, tmp_path / "a.gpkg", VectorizeConfig(min_area_m2=4)).counts == {"building": 1}
    assert vectorize(mask, tmp_path / "b.gpkg", VectorizeConfig(min_area_m2=1)).counts == {"building": 2}
    assert vectorize(mask, tmp_path / "c.gpkg", VectorizeConfig(min_area_m2=8)).counts == {"building": 0}


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_a_mask_without_crs_keeps_pixel_coordinates(write_mask, tmp_path, labels, extension) -> None:
    mask, out = write_mask(labels, crs=None, transform=Affine.identity()), tmp_path / f"pixels{extension}"
    with pytest.warns(CtrsWarning) as told:
        vectorize(mask, out, EXACT)
    messages = [str(entry.message) for entry in told]
    assert "no CRS found; going on in pixel coordinates" in messages[0]
    if extension == ".geojson":
        assert messages.pop().startswith(f"{out}: GeoJSON is read as WGS84, but the mask has no CRS")
    assert len(messages) == 1
    layer = read(out)
    assert layer.geometry.iloc[0].bounds == (5, 5, 35, 25) or extension == ".fgb"
    assert sorted(layer["area_m2"]) == [1, 536, 800, 899]
    if extension != ".geojson":
        assert layer.crs is None or layer.crs.is_engineering


def test_a_mask_with_a_place_and_no_crs_keeps_its_coordinates(write_mask, tmp_path, labels) -> None:
    mask = write_mask(labels, crs=None)
    with pytest.warns(MissingCrsWarning, match="no CRS found; going on in its own coordinates, taken for metres"):
        vectorize(mask, tmp_path / "a.gpkg", EXACT)
    assert read(tmp_path / "a.gpkg").total_bounds[0] > 400_000


def test_a_raster_of_zeros_and_ones_is_taken_for_buildings(write_mask, tmp_path, labels) -> None:
    mask = write_mask((labels == 1).astype(np.uint8), classes=None, nodata=None)
    with pytest.warns(LabelWarning, match="0 counts as background and 1 as building"):
        result = vectorize(mask, tmp_path / "a.gpkg")
    assert result.counts == {"building": 3}


@pytest.mark.parametrize("nodata", [None, 0])
def test_buildings_of_255_are_not_taken_for_nodata(write_mask, tmp_path, labels, nodata) -> None:
    mask = write_mask((labels == 1).astype(np.uint8) * 255, classes=None, nodata=nodata)
    with pytest.raises(
        LabelError, match=r"scene_mask\.tif: 255 found and no 1, expected .*gdal_edit\.py -a_nodata 255"
    ):
        vectorize(mask, tmp_path / "a.gpkg")
    assert [path.name for path in tmp_path.iterdir()] == ["scene_mask.tif"]


@pytest.mark.parametrize(("value", "nodata"), [(255, 255), (0, 0)])
def test_a_mask_without_buildings_may_hold_nodata(write_mask, tmp_path, value, nodata) -> None:
    mask = write_mask(np.full((20, 20), value, np.uint8), classes=None, nodata=nodata)
    with pytest.warns(LabelWarning, match="0 counts as background and 1 as building"):
        assert vectorize(mask, tmp_path / "a.gpkg").counts == {"building": 0}


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (np.zeros((3, 8, 8), np.uint8), {}, "3 bands found, expected one band of class values"),
        (
            np.zeros((8, 8), np.float32),
            {"nodata": None},
            "dtype float32 found, expected integer class values; of probabilities give the mask drawn from them, and "
            "those that ctrs predict wrote with --probabilities; .* gdal_translate -ot Byte scene_mask",
        ),
        (
            np.full((8, 8), 9, np.uint8),
            {},
            r"values 9 found that its class table lacks, expected 0 background, 1 build",
        ),
        (np.full((8, 8), 3, np.uint8), {"classes": None}, r"no tag CTRS_CLASSES and values 3 found"),
    ],
    ids=["scene", "probabilities", "unknown value", "unnamed classes"],
)
def test_what_is_no_class_mask_is_refused(write_mask, tmp_path, labels, options, message) -> None:
    out = tmp_path / "a.gpkg"
    with pytest.raises(LabelError, match=rf"scene_mask\.tif: {message}"):
        vectorize(write_mask(labels, **options), out)
    assert not out.exists()
    assert not partial_dir(out).exists()


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
@pytest.mark.parametrize("count", [1, 2])
def test_probabilities_are_told_from_their_mask(write_mask, tmp_path, dtype, count) -> None:
    given = write_mask(np.zeros((count, 8, 8), dtype), name="scene_probabilities.tif", nodata=None, classes=None)
    with rasterio.open(given, "r+") as dataset:
        dataset.update_tags(CTRS_PROBABILITIES="uint8")
    with pytest.raises(
        LabelError, match=r"ties\.tif: probabilities of classes found.*vectorize scene_mask\.tif, and name"
    ):
        vectorize(given, tmp_path / "a.gpkg")


def test_an_unknown_class_is_refused_with_the_known_ones(write_mask, tmp_path, labels) -> None:
    expected = "class 'roof' is unknown; expected one of: background, building, tree, water, or all"
    with pytest.raises(ConfigError, match=expected):
        vectorize(write_mask(labels), tmp_path / "a.gpkg", VectorizeConfig(classes=("roof",)))


def test_an_unknown_format_is_refused_before_anything_is_read(tmp_path) -> None:
    with pytest.raises(UsageError, match=r"a\.dxf: \.dxf found, expected \.gpkg, \.parquet, \.fgb, \.geojson"):
        vectorize(tmp_path / "absent.tif", tmp_path / "a.dxf")


def test_a_missing_mask_is_named(tmp_path) -> None:
    with pytest.raises(InputNotFoundError, match=r"absent\.tif: not found"):
        vectorize(tmp_path / "absent.tif", tmp_path / "a.gpkg")


def test_a_truncated_mask_is_named_and_leaves_nothing(write_mask, tmp_path) -> None:
    mask = write_mask(np.random.default_rng(0).integers(0, 2, (400, 400)).astype(np.uint8))
    mask.write_bytes(mask.read_bytes()[:80_000])
    with pytest.raises(RasterError, match=r"scene_mask\.tif"):
        vectorize(mask, tmp_path / "a.gpkg")
    assert [path.name for path in tmp_path.iterdir()] == ["scene_mask.tif"]


def test_a_folder_that_cannot_be_made_is_named(write_mask, tmp_path, labels) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file: not writable .*choose another place with -o"):
        vectorize(write_mask(labels), tmp_path / "file" / "a.gpkg")


@pytest.mark.parametrize("kind", [DataSourceError, DataLayerError, FieldError, FeatureError, OSError])
def test_a_write_that_fails_leaves_nothing(write_mask, tmp_path, labels, monkeypatch, kind) -> None:
    def fail(polygons: object, path: Path, **options: object) -> None:
        path.write_text("half a la")
        raise kind("disk full")

    monkeypatch.setattr("pyogrio.write_arrow", fail)
    with pytest.raises(OutputError, match=r"a\.gpkg: not writable \(disk full; \S+ \wB left there\)"):
        vectorize(write_mask(labels), tmp_path / "a.gpkg")
    assert [path.name for path in tmp_path.iterdir()] == ["scene_mask.tif"]


def test_geojson_is_rfc_7946(write_mask, tmp_path, labels) -> None:
    out = tmp_path / "a.geojson"
    vectorize(write_mask(labels), out)
    document = json.loads(out.read_text())
    assert "crs" not in document
    shell, hole = document["features"][0]["geometry"]["coordinates"]
    assert shapely.LinearRing(shell).is_ccw
    assert not shapely.LinearRing(hole).is_ccw


def test_geopackage_is_what_qgis_expects(write_mask, tmp_path, labels) -> None:
    out = tmp_path / "town_mask.gpkg"
    vectorize(write_mask(labels), out)
    assert pyogrio.list_layers(out).tolist() == [["town_mask", "Polygon"]]
    info = pyogrio.read_info(out)
    assert info["crs"] == "EPSG:32633"
    types = {"integer": "int64", "number": "float64", "text": "object"}
    assert info["dtypes"].tolist() == [types[kind] for kind in COLUMNS.values()]


def test_the_layer_stands_beside_the_mask() -> None:
    assert polygons_path(Path("maps/scene_mask.tif")) == Path("maps/scene_mask.gpkg")


def test_progress_is_told_in_full(write_mask, tmp_path, labels) -> None:
    told: list[tuple[int, int, str]] = []
    vectorize(write_mask(labels), tmp_path / "a.gpkg", progress=lambda *step: told.append(step))
    phases = {what: (done, total) for done, total, what in told}
    assert phases["reading scene_mask.tif"] == (80, 80)


def test_a_real_town(real_data: Path, tmp_path: Path) -> None:
    """A dense Nepali town in EPSG:3857: polygons cover what the mask and the original polygons cover."""
    mask = real_data / "oam_banepa_urban" / "scene" / "banepa_urban_mask.tif"
    out = tmp_path / "banepa.gpkg"
    with pytest.warns(LabelWarning):
        result = vectorize(mask, out)
    layer = geopandas.read_file(out)
    with rasterio.open(mask) as dataset:
        pixels = int((dataset.read(1) == 1).sum())
        latitude = pyproj.Transformer.from_crs(3857, 4326, always_xy=True).transform(*dataset.xy(2048, 1536))[1]
        nominal = pixels * abs(dataset.transform.a * dataset.transform.e)
        extent = shapely.box(*dataset.bounds)
    assert result.area_m2["building"] == pytest.approx(nominal * np.cos(np.radians(latitude)) ** 2, rel=0.01)
    labels = geopandas.read_file(real_data / "oam_banepa_urban" / "labels" / "buildings.geojson").to_crs(layer.crs)
    truth, found = labels.union_all().intersection(extent), layer.union_all()
    assert truth.intersection(found).area / truth.union(found).area > 0.97
    assert layer.is_valid.all()
    assert found.area == pytest.approx(layer.area.sum(), rel=1e-9), "polygons overlap"
