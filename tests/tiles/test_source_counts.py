"""Labels that are resampled are counted in their files, too: what the tiles' grid loses is said, with true numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from rasterio.control import GroundControlPoint

from ctrs.config import PrepareConfig
from ctrs.errors import UnknownColorError
from ctrs.raster.geotiff import open_raster
from ctrs.tiles import Manifest, audit_source, prepare_tiles
from ctrs.tiles import source_counts as module
from ctrs.tiles.audit import Audit
from ctrs.tiles.audit_record import audit_record, read_record
from ctrs.tiles.facts import SceneFacts
from ctrs.tiles.findings import Findings
from ctrs.tiles.layout import find_layout
from ctrs.tiles.manifest import plain_facts
from ctrs.tiles.scan import scan
from ctrs.tiles.scenes import check_source

if TYPE_CHECKING:
    from tests.tiles.conftest import Maker

UTM = "EPSG:32633"
TRANSFORM = Affine(0.5, 0, 400000, 0, -0.5, 5800000)
PLACED: dict[str, Any] = {"transform": TRANSFORM, "crs": UTM}
H, W = 320, 400
CLASSES = """
[[class]]
value = 0
name = "land"
color = [0, 90, 0]
[[class]]
value = 1
name = "road"
color = [9, 9, 9]
[[class]]
value = 2
name = "car"
color = [200, 0, 0]
"""
LAND, ROAD, CAR = 0, 1, 2

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*saturated:ctrs.errors.DataWarning"),
    pytest.mark.filterwarnings("ignore:.*histogram:ctrs.errors.DataWarning"),
]


def traffic() -> np.ndarray:
    """Land, a wide road, and 100 px of cars that lie beside every eighth column and row's centre."""
    mask = np.zeros((H, W), np.uint8)
    mask[96:160] = ROAD
    for number in range(100):
        mask[98 + 8 * (number % 5), 2 + 8 * (number // 5)] = CAR
    return mask


def write(make: Maker, folder: Path, labels: np.ndarray, *, legend: str = CLASSES, **image: Any) -> Path:
    make.raster(folder / "images/a.tif", make.noise(H, W), **{**PLACED, **image})
    make.raster(folder / "labels/a.tif", labels, **PLACED)
    (folder / "classes.toml").write_text(legend)
    return folder


def look(folder: Path, **options: Any) -> Audit:
    return audit_source(folder, folder.parent / "look.html", PrepareConfig(val_fraction=0, tile_px=32, **options))


def facts_of(audit: Audit) -> SceneFacts:
    (scene,) = audit.scenes
    return scene.facts


def of_classes(audit: Audit) -> list[str]:
    return [f"{entry.level}: {entry.message}" for entry in audit.findings if entry.check == "classes"]


def test_a_class_that_no_sample_hits_is_counted_and_named(make: Maker, tmp_path: Path) -> None:
    mask = traffic()
    audit = look(write(make, tmp_path / "src", mask), gsd_m=4.0)
    facts = facts_of(audit)
    assert facts.label_counts[CAR] == 0
    assert facts.source_counts == tuple(np.bincount(mask.ravel()).tolist())
    assert (facts.source_px, facts.source_px_area) == (mask.size, pytest.approx(1 / 64, rel=2e-3))
    assert of_classes(audit) == [
        "warning: class car: 100 px in the labels, none left at a ground pixel of 4 m; choose a finer --gsd"
    ]
    # On its own grid nothing is counted twice.
    own = facts_of(look(tmp_path / "src"))
    assert (own.source_counts, own.source_px, own.given_counts) == (None, None, own.label_counts)


def test_a_class_that_is_in_no_label_is_told_apart(make: Maker, tmp_path: Path) -> None:
    mask = np.where(traffic() == CAR, np.uint8(ROAD), traffic())
    (message,) = of_classes(look(write(make, tmp_path / "src", mask), gsd_m=4.0))
    assert message.startswith("warning: the labels hold no pixel of class car, though the class table names it")


def test_prepared_data_and_its_record_hold_the_counts(make: Maker, tmp_path: Path) -> None:
    mask = traffic()
    write(make, tmp_path / "src", mask)
    with pytest.warns(match="class car: 100 px in the labels, none left"):
        prepare_tiles(tmp_path / "src", tmp_path / "out", PrepareConfig(val_fraction=0, tile_px=32, gsd_m=4.0))
    facts = json.loads((tmp_path / "out/prepared.json").read_text())["facts"]["a"]
    assert facts["source_counts"] == np.bincount(mask.ravel()).tolist()
    record = read_record(tmp_path / "out")
    assert record is not None
    car = record["classes"]["car"]
    assert (car["source_px"], car["label_px"], car["tiled_px"]) == (100, 0, 0)
    assert car["source_m2"] == pytest.approx(100 * 0.25, rel=2e-3)
    assert record["resampled_to_m"] == pytest.approx(4.0, rel=2e-3)
    page = (tmp_path / "out/report.html").read_text()
    assert "in the files, px" in page
    assert "resampled to ground pixels of 4 m" in page
    assert "class car: 100 px in the labels" in page
    plain = audit_record(look(tmp_path / "src"))
    assert plain["resampled_to_m"] is None
    assert plain["classes"]["car"]["source_px"] is None
    assert "in the files, px" not in (tmp_path / "look.html").read_text()


def test_only_pixels_with_imagery_within_the_area_count(make: Maker, tmp_path: Path) -> None:
    labels = traffic()
    valid = np.ones((H, W), bool)
    valid[:, :40] = False
    write(make, tmp_path / "src", labels, mask=valid)
    shown = np.bincount(labels[valid], minlength=3)
    assert facts_of(look(tmp_path / "src", gsd_m=0.75)).source_counts == tuple(shown.tolist())
    box = shapely.box(400000 + 0.5 * 60, 5800000 - 0.5 * 200, 400000 + 0.5 * 180, 5800000 - 0.5 * 20)
    geopandas.GeoDataFrame(geometry=[box], crs=UTM).to_file(tmp_path / "area.gpkg")
    for options in ({"gsd_m": 0.75}, {"gsd_m": 0.6, "crs": "EPSG:32632"}):
        found = facts_of(look(tmp_path / "src", aoi=tmp_path / "area.gpkg", **options))
        expected = np.bincount(labels[20:200, 60:180].ravel(), minlength=3)
        assert found.source_counts is not None
        assert np.abs(np.array(found.source_counts) - expected).max() <= (0 if "crs" not in options else 180)
        assert found.source_counts[CAR] == expected[CAR] > 0


@pytest.mark.parametrize("kind", ["rotated", "ground control points"])
@pytest.mark.parametrize("has_area", [False, True])
def test_straightened_images_count_each_label_pixel(make: Maker, tmp_path: Path, kind: str, has_area: bool) -> None:
    labels = traffic()
    turned = TRANSFORM @ Affine.rotation(20)
    valid = np.ones((H, W), bool)
    valid[:30] = False
    source = write(make, tmp_path / "src", labels, mask=valid, transform=turned)
    make.raster(source / "labels/a.tif", labels, transform=turned, crs=UTM)
    if kind == "ground control points":
        corners = [(0, 0), (H, 0), (0, W), (H, W)]
        points = [GroundControlPoint(row, col, *(turned @ (col, row))) for row, col in corners]
        make.raster(source / "images/a.tif", make.noise(H, W), mask=valid, gcps=points, crs=UTM)
        make.raster(source / "labels/a.tif", labels)
    options: dict[str, Any] = {}
    expected = valid
    if has_area:
        shape = shapely.Polygon([turned @ place for place in ((50, 10), (300, 10), (300, 200), (50, 200))])
        geopandas.GeoDataFrame(geometry=[shape], crs=UTM).to_file(tmp_path / "area.gpkg")
        options["aoi"] = tmp_path / "area.gpkg"
        expected = np.zeros((H, W), bool)
        expected[30:200, 50:300] = True
    facts = facts_of(look(source, **options))
    assert facts.source_counts is not None
    assert facts.source_counts == tuple(np.bincount(labels[expected], minlength=3).tolist())
    assert facts.source_px == H * W
    assert facts.source_px_area == pytest.approx(1.0, rel=1e-3)
    assert sum(facts.source_counts) == pytest.approx(sum(facts.label_counts), rel=0.02)


def test_a_label_on_a_larger_grid_counts_where_the_image_lies(make: Maker, tmp_path: Path) -> None:
    mask = np.full((800, 1000), 77, np.uint8)  # unknown, but not on the image
    mask[80 : 80 + 2 * H, 100 : 100 + 2 * W] = traffic().repeat(2, 0).repeat(2, 1)
    write(make, tmp_path / "src", traffic())
    fine = TRANSFORM @ Affine.translation(-50, -40) @ Affine.scale(0.5)
    make.raster(tmp_path / "src/labels/a.tif", mask, transform=fine, crs=UTM, tiled=True, blockxsize=64, blockysize=64)
    facts = facts_of(look(tmp_path / "src", gsd_m=2.0))
    assert facts.source_counts == tuple((4 * np.bincount(traffic().ravel())).tolist())
    assert (facts.source_px, facts.unknown) == (4 * H * W, {})


def test_colours_that_no_sample_hits_are_faults_nevertheless(make: Maker, tmp_path: Path) -> None:
    mask = traffic()
    mask[7, 9] = 66
    write(make, tmp_path / "src", mask)
    with pytest.raises(UnknownColorError, match=r"unknown label value 66 in 1 px, first at row 7, column 9"):
        prepare_tiles(tmp_path / "src", tmp_path / "out", PrepareConfig(gsd_m=4.0))
    found = look(tmp_path / "src", gsd_m=4.0, max_unknown=1.01 / mask.size)
    assert found.num_faults == 0
    assert look(tmp_path / "src", gsd_m=4.0, max_unknown=0.99 / mask.size).num_faults == 1


@pytest.mark.parametrize("block", [16, 64])
def test_counts_do_not_depend_on_blocks_or_threads(
    make: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    mask = make.indices(H, W, num=3)
    write(make, tmp_path / "src", mask)
    make.raster(tmp_path / "src/labels/a.tif", mask, tiled=True, blockxsize=block, blockysize=block, **PLACED)
    monkeypatch.setattr(module, "CHUNK_BYTES", 4 * 40 * 40)
    for workers in (1, 3):
        facts = facts_of(look(tmp_path / "src", gsd_m=1.3, workers=workers))
        assert facts.source_counts == tuple(np.bincount(mask.ravel()).tolist())


def test_work_that_goes_on_counts_the_same(make: Maker, tmp_path: Path) -> None:
    source = write(make, tmp_path / "src", traffic())
    config = PrepareConfig(val_fraction=0, tile_px=32, gsd_m=1.3)
    findings = Findings(issues_warnings=False)
    ready = check_source(find_layout(source, config, findings), config, findings)
    once, again = (plain_facts(scan(ready, tmp_path / "work", write=True).facts["a"]) for _ in range(2))
    assert once == again
    assert once["source_counts"] == np.bincount(traffic().ravel()).tolist()


def test_a_label_that_breaks_off_is_a_fault_of_its_scene(make: Maker, tmp_path: Path) -> None:
    source = write(make, tmp_path / "src", traffic())
    config = PrepareConfig(val_fraction=0, tile_px=32, gsd_m=4.0)
    findings = Findings(issues_warnings=False)
    ready = check_source(find_layout(source, config, findings), config, findings)
    facts = scan(ready, tmp_path, write=False).facts
    (source / "labels/a.tif").write_bytes(b"no label")
    broken: list[str] = []
    left = module.add_source_counts(ready.scenes, facts, on_error=lambda name, error: broken.append(f"{name}: {error}"))
    assert left == {}
    assert broken[0].startswith("a: ")
    assert "not readable as a raster" in broken[0]


def test_polygons_without_a_pixel_are_named(make: Maker, tmp_path: Path) -> None:
    make.raster(tmp_path / "src/images/a.tif", make.noise(H, W), **PLACED)
    cars = [shapely.box(400009 + 8 * n, 5799989, 400009.6 + 8 * n, 5799989.6) for n in range(7)]
    roads = [shapely.box(400000, 5799900, 400200, 5799950)]
    kinds = ["car"] * 7 + ["road"]
    (tmp_path / "src/labels").mkdir()
    geopandas.GeoDataFrame({"kind": kinds}, geometry=[*cars, *roads], crs=UTM).to_file(
        tmp_path / "src/labels/a.geojson"
    )
    (tmp_path / "src/classes.toml").write_text(CLASSES.replace("land", "background"))
    audit = look(tmp_path / "src", gsd_m=4.0, class_field="kind")
    assert facts_of(audit).polygon_counts == (0, 1, 7)
    (message,) = of_classes(audit)
    assert message.startswith("warning: 7 polygons of class car cover no pixel centre at a ground pixel of 4 m")
    assert not of_classes(look(tmp_path / "src", class_field="kind"))


def test_a_resampled_eroded_label_is_the_nearest_pixel(make: Maker, tmp_path: Path) -> None:
    truth = make.potsdam(tmp_path / "p", ("2_10", "2_13"), size=256)
    config = PrepareConfig(val_fraction=0, tile_px=64, gsd_m=0.07)
    manifest: Manifest = prepare_tiles(tmp_path / "p", tmp_path / "out", config)
    assert manifest.has_eroded
    num_ignored = 0
    for tile in manifest.tiles:
        scene = next(scene for scene in manifest.scenes if scene.name == tile.scene)
        labels = truth[tile.scene.removeprefix("potsdam_")]
        eroded = np.where(labels != np.roll(labels, 1, axis=1), np.uint8(255), labels)
        with open_raster(tmp_path / "p" / scene.source_image) as dataset:
            own = type(scene.grid).of(dataset)
        window = tile.window
        cols, rows = np.meshgrid(
            np.arange(window.col_off, window.col_off + window.width) + 0.5,
            np.arange(window.row_off, window.row_off + window.height) + 0.5,
        )
        to_own = ~own.transform @ scene.grid.transform
        cols, rows = (
            np.floor(places).astype(int) for places in (to_own.a * cols + to_own.c, to_own.e * rows + to_own.f)
        )
        inside = (cols >= 0) & (rows >= 0) & (cols < 256) & (rows < 256)
        for path, source in ((tile.mask, labels), (tile.mask_eroded, eroded)):
            assert path is not None
            with open_raster(path) as dataset:
                found = dataset.read(1)
            with open_raster(tile.image) as dataset:
                shown = inside & (dataset.dataset_mask() > 0)
            assert shown.mean() > 0.5
            expected = source[rows.clip(0, 255), cols.clip(0, 255)]
            assert np.array_equal(found[shown], expected[shown])
        num_ignored += int(((expected == 255) & shown).sum())
    assert num_ignored > 100
