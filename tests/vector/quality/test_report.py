from __future__ import annotations

import json
import os
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely

from ctrs.config import VectorizeConfig
from ctrs.errors import ConfigError, CtrsWarning, InputNotFoundError, LabelError, OutputExistsError, UsageError
from ctrs.vector import vectorize
from ctrs.vector.quality.reference import read_reference
from ctrs.vector.quality.report import check_report, judged_class, report_paths, report_quality
from tests.vector.conftest import WriteMask


def at(col: int, row: int, width: int, height: int) -> shapely.Geometry:
    """A rectangle of whole pixels of the tests' masks: half metres."""
    left, top = 400_000 + col / 2, 5_000_000 - row / 2
    return shapely.box(left, top - height / 2, left + width / 2, top)


TRUTH = [
    at(10, 10, 20, 20),  # in the mask as it is
    at(50, 10, 20, 20),  # absent
    at(90, 10, 20, 20),  # 30 columns wide in the mask
    at(190, 50, 40, 20),  # across the right border: 10 columns inside
    at(0, 195, 20, 20),  # across the lower border: 5 rows, of which 3 are nodata: 10 m²
    at(-28, 60, 30, 10),  # a metre inside, drawn, but below 8 m²
    at(300, 300, 20, 20),  # outside
    at(50, 150, 20, 20),  # under nodata
]


@pytest.fixture
def mask(write_mask: WriteMask) -> Path:
    labels = np.zeros((200, 200), np.uint8)
    for col, row, width, height in ((10, 10, 20, 20), (90, 10, 30, 20), (190, 50, 10, 20), (140, 140, 10, 10)):
        labels[row : row + height, col : col + width] = 1
    labels[195:197, :20] = 1
    labels[60:70, :2] = 1
    labels[197:, :20] = 255
    labels[145:175, 45:75] = 255
    return write_mask(labels)


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    path = tmp_path / "truth.geojson"
    geopandas.GeoSeries(TRUTH, crs="EPSG:32633").to_crs("EPSG:4326").to_file(path)
    return path


@pytest.mark.parametrize("suffix", [".gpkg", ".parquet", ".fgb", ".geojson"])
def test_a_layer_is_judged_where_the_mask_is_valid(mask: Path, truth: Path, tmp_path: Path, suffix: str) -> None:
    layer = tmp_path / f"drawn{suffix}"
    vectorize(mask, layer)
    done = report_quality(layer, mask, read_reference(truth))
    assert (done.path, done.verdicts_path, done.style_path) == report_paths(layer)
    content = json.loads(done.path.read_text())
    assert content == done.content
    assert content["format_version"] == content["definitions_version"] == 1
    assert content["class"] == "building"
    reference = content["reference"]
    # The strip of a metre does not count; the building at the lower border does, with 2 rows of 20 columns: 10 m².
    assert reference["num_in_file"] == 8
    assert (reference["num_judged"], reference["num_outside"], reference["num_cut"]) == (5, 3, 2)
    assert reference["num_cut_small"] == 1
    assert content["truth_verdicts"] == {"matched": 4, "split": 0, "merged": 0, "missed": 1}
    assert content["drawn_verdicts"] == {"matched": 4, "split": 0, "merged": 0, "spurious": 1}
    assert content["quality"]["num_matched"] == 4
    assert len(content["quality"]["detections"]) == 10
    iou = (3 * 1 + 2 / 3) / 5
    assert content["quality"]["iou"] == pytest.approx(iou, abs=2e-3)
    buildings = geopandas.read_file(done.verdicts_path)
    assert buildings.crs == "EPSG:32633"
    true = buildings[buildings["layer"] == "truth"]
    assert true["source_id"].tolist() == [1, 2, 3, 4, 5]
    assert true["cut"].tolist() == [False, False, False, True, True]
    assert true["verdict"].tolist() == ["matched", "missed", "matched", "matched", "matched"]
    drawn = buildings[buildings["layer"] == "drawn"]
    assert sorted(drawn["source_id"]) == [1, 2, 3, 5, 6]  # the fourth lies where nothing is judged
    assert drawn.set_index("source_id").geometry[1].area == pytest.approx(100, rel=1e-3)
    partner = buildings.set_index("id").loc[true["partner"].iloc[2]]
    assert (partner["layer"], partner["verdict"]) == ("drawn", "matched")
    assert partner["iou"] == pytest.approx(2 / 3, abs=1e-3)
    assert partner["hausdorff_m"] == pytest.approx(5, abs=0.01)
    assert true["partner"].isna().tolist() == [False, True, False, False, False]
    assert done.style_path.read_text().startswith("<!DOCTYPE qgis")


def test_multipolygons_of_eight_neighbours_are_judged(write_mask: WriteMask, tmp_path: Path) -> None:
    labels = np.zeros((100, 100), np.uint8)
    labels[10:20, 10:20] = labels[20:30, 20:30] = labels[30:40, 30:40] = labels[50:60, 50:60] = 1
    mask, layer, config = write_mask(labels), tmp_path / "drawn.gpkg", VectorizeConfig(connectivity=8)
    vectorize(mask, layer, config)
    truth = tmp_path / "truth.gpkg"
    shapes = [at(place, place, 10, 10) for place in (10, 20, 30, 50)]
    geopandas.GeoSeries(shapes, crs="EPSG:32633").to_file(truth)
    done = report_quality(layer, mask, read_reference(truth), config)
    assert done.content["truth_verdicts"] == {"matched": 1, "split": 0, "merged": 3, "missed": 0}
    buildings = geopandas.read_file(done.verdicts_path)
    assert set(buildings.geom_type) == {"MultiPolygon"}
    assert buildings.set_index("id").loc[5, "parts"] == 3


def test_a_finished_report_is_not_made_again(mask: Path, truth: Path, tmp_path: Path) -> None:
    layer = tmp_path / "drawn.gpkg"
    vectorize(mask, layer)
    first = report_quality(layer, mask, read_reference(truth))
    before = {path: path.read_bytes() for path in report_paths(layer)}
    again = report_quality(layer, mask, read_reference(truth))
    assert (first.skipped, again.skipped) == (False, True)
    assert again.content == first.content
    first.verdicts_path.unlink()
    assert not report_quality(layer, mask, read_reference(truth)).skipped
    assert {path: path.read_bytes() for path in report_paths(layer)} == before


def test_a_report_on_something_else_needs_overwrite(mask: Path, truth: Path, tmp_path: Path) -> None:
    layer = tmp_path / "drawn.gpkg"
    vectorize(mask, layer)
    done = report_quality(layer, mask, read_reference(truth))
    other = tmp_path / "other.gpkg"
    geopandas.GeoSeries(TRUTH[:2], crs="EPSG:32633").to_file(other)
    with pytest.raises(OutputExistsError, match=r"drawn_verdicts.gpkg: exists and is the result of other inputs"):
        report_quality(layer, mask, read_reference(other))
    done.style_path.write_text("mine")
    replaced = report_quality(layer, mask, read_reference(other), VectorizeConfig(overwrite=True))
    assert replaced.content["reference"]["num_in_file"] == 2
    assert done.style_path.read_text() != "mine"


def test_a_folder_as_truth_is_known_by_what_is_in_it(mask: Path, tmp_path: Path) -> None:
    layer, truth = tmp_path / "drawn.gpkg", tmp_path / "city.gdb"
    vectorize(mask, layer)

    def save(shapes: list[shapely.Geometry]) -> None:
        geopandas.GeoSeries(shapes, crs="EPSG:32633").to_file(truth, driver="OpenFileGDB", layer="houses")

    save(TRUTH[:2])
    stamp = truth.stat()
    assert report_quality(layer, mask, read_reference(truth)).content["reference"]["num_in_file"] == 2
    (truth / "city.lock").touch()  # another program has it open
    assert report_quality(layer, mask, read_reference(truth)).skipped
    save(TRUTH[:3])
    os.utime(truth, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    with pytest.raises(OutputExistsError, match=r"drawn_verdicts.gpkg: exists and is the result of other inputs"):
        report_quality(layer, mask, read_reference(truth))
    with pytest.raises(UsageError, match=r"city.gdb: drawn.gpkg would be written into it; choose another place"):
        check_report(truth / "drawn.gpkg", mask, read_reference(truth))


def test_a_changed_style_is_kept(mask: Path, truth: Path, tmp_path: Path) -> None:
    layer = tmp_path / "drawn.gpkg"
    vectorize(mask, layer)
    report_paths(layer)[2].write_text("mine")
    report_quality(layer, mask, read_reference(truth))
    assert report_paths(layer)[2].read_text() == "mine"


def test_files_of_others_are_never_replaced(mask: Path, truth: Path, tmp_path: Path) -> None:
    layer = tmp_path / "drawn.gpkg"
    vectorize(mask, layer)
    reference = read_reference(truth)
    report, verdicts, _ = report_paths(layer)
    for path, text in ((report, '{"scores": 1}'), (verdicts, "no layer"), (report, "[]")):
        path.write_text(text)
        with pytest.raises(OutputExistsError, match=f"{path.name}: stands there and was not written by ctrs vectorize"):
            report_quality(layer, mask, reference, VectorizeConfig(overwrite=True))
        assert path.read_text() == text
        path.unlink()
    with pytest.raises(UsageError, match=r"truth.geojson: is a file that is written here"):
        check_report(truth, mask, reference)


def test_nothing_is_left_where_judging_fails(mask: Path, truth: Path, tmp_path: Path) -> None:
    layer = tmp_path / "drawn.gpkg"
    vectorize(mask, layer)
    far = tmp_path / "far.gpkg"
    geopandas.GeoSeries([at(5000, 0, 10, 10)], crs="EPSG:32633").to_file(far)
    for judge in (check_report, report_quality):
        arguments = (layer, mask, read_reference(far))
        with pytest.raises(LabelError, match=r"far.gpkg: no overlap with .*it covers 402500, 4999995, 402505, 5000000"):
            judge(*arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["drawn.gpkg", "far.gpkg", mask.name, truth.name]
    with pytest.raises(InputNotFoundError, match=r"absent.gpkg: not found; draw it first"):
        report_quality(tmp_path / "absent.gpkg", mask, read_reference(truth))
    layer.write_text("broken")
    with pytest.raises(LabelError, match=r"drawn.gpkg: not readable as polygons"):
        report_quality(layer, mask, read_reference(truth))


@pytest.mark.parametrize("suffix", [".gpkg", ".parquet", ".geojson"])
def test_a_mask_without_buildings_misses_all(write_mask: WriteMask, truth: Path, tmp_path: Path, suffix: str) -> None:
    mask, layer = write_mask(np.zeros((200, 200), np.uint8)), tmp_path / f"drawn{suffix}"
    vectorize(mask, layer)
    content = report_quality(layer, mask, read_reference(truth)).content
    assert content["truth_verdicts"]["missed"] == content["quality"]["num_missed"] == 6
    assert content["quality"]["polis_m"] is None


def test_one_class_is_judged(write_mask: WriteMask, truth: Path, tmp_path: Path) -> None:
    assert judged_class(VectorizeConfig(classes=("tree",))) == "tree"
    assert judged_class(VectorizeConfig(classes=("all",))) == "building"
    assert judged_class(VectorizeConfig(classes=("tree", "building"))) == "building"
    with pytest.raises(ConfigError, match=r"--truth: tree, water are drawn, but one class is judged"):
        judged_class(VectorizeConfig(classes=("tree", "water")))
    labels = np.zeros((200, 200), np.uint8)
    labels[10:30, 10:30] = 1
    labels[10:30, 50:70] = 2
    mask, layer, config = write_mask(labels), tmp_path / "drawn.gpkg", VectorizeConfig(classes=("all",))
    vectorize(mask, layer, config)
    content = report_quality(layer, mask, read_reference(truth), config).content
    assert content["drawn_verdicts"] == {"matched": 1, "split": 0, "merged": 0, "spurious": 0}


def test_a_mask_without_crs_goes_with_a_truth_without_crs(write_mask: WriteMask, tmp_path: Path) -> None:
    labels = np.zeros((200, 200), np.uint8)
    labels[10:30, 10:30] = 1
    mask, truth = write_mask(labels, crs=None), tmp_path / "truth.gpkg"
    with pytest.warns(UserWarning, match=r"'crs' was not provided"):
        geopandas.GeoSeries(TRUTH).to_file(truth)
    for suffix in (".gpkg", ".geojson"):
        layer = tmp_path / f"drawn{suffix}"
        with pytest.warns(CtrsWarning) as said:
            vectorize(mask, layer, VectorizeConfig(overwrite=True))
        assert any("no CRS found" in str(entry.message) for entry in said)
        assert any("GeoJSON is read as WGS84" in str(entry.message) for entry in said) == (suffix == ".geojson")
        content = report_quality(layer, mask, read_reference(truth), VectorizeConfig(overwrite=True)).content
        assert content["truth_verdicts"]["matched"] == 1
