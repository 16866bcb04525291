"""``ctrs vectorize --truth`` as a user runs it."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine

from ctrs.cli import app as program

UTM = Affine(0.5, 0, 400_000, 0, -0.5, 5_000_000)


@pytest.fixture
def town(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two masks and the true buildings of both."""
    monkeypatch.chdir(tmp_path)
    boxes = [(10, 10, 30, 30), (50, 10, 70, 30)]
    for number, left in enumerate((0, 100)):
        pixels = np.zeros((1, 100, 100), np.uint8)
        for col, row, right, bottom in boxes[: number + 1]:
            pixels[0, row:bottom, col:right] = 1
        profile = {"driver": "GTiff", "width": 100, "height": 100, "count": 1, "dtype": "uint8", "crs": "EPSG:32633"}
        with rasterio.open(
            tmp_path / f"{number}_mask.tif", "w", transform=UTM @ Affine.translation(left, 0), **profile
        ) as dataset:
            dataset.write(pixels)
    places = [
        UTM @ (left + col, row) + UTM @ (left + right, bottom) for left in (0, 100) for col, row, right, bottom in boxes
    ]
    shapes = [shapely.box(x0, y1, x1, y0) for x0, y0, x1, y1 in places]
    geopandas.GeoSeries(shapes, crs="EPSG:32633").to_file(tmp_path / "truth.gpkg")
    return tmp_path


def run(*arguments: str) -> int:
    with warnings.catch_warnings():
        return program.main(["vectorize", *arguments])


def test_masks_are_judged_by_one_truth(town: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("0_mask.tif", "1_mask.tif", "--truth", "truth.gpkg", "--json") == 0
    layers = json.loads(capsys.readouterr().out)["layers"]
    assert [entry["quality"]["truth_verdicts"]["matched"] for entry in layers] == [1, 2]
    assert [entry["quality"]["truth_verdicts"]["missed"] for entry in layers] == [1, 0]
    assert [entry["quality"]["skipped"] for entry in layers] == [False, False]
    assert json.loads((town / "0_mask_quality.json").read_text())["quality"] == layers[0]["quality"]["quality"]
    assert len(geopandas.read_file(town / "1_mask_verdicts.gpkg")) == 4
    assert run("0_mask.tif", "1_mask.tif", "--truth", "truth.gpkg") == 0
    told = capsys.readouterr()
    assert "0_mask_quality.json: is the result of this very job already" in told.err
    lines = [" ".join(line.strip("│ ").replace("│", " ").split()) for line in told.out.splitlines()]
    assert "0_mask.gpkg truth 2 1 0 0 1" in lines
    assert "1_mask.gpkg drawn 2 2 0 0 0" in lines
    assert "0.95 1.000 0.500 0.667 1.000 1.000 1.000" in lines
    assert "boundary IoU (1 m) 0.500 1.000" in lines
    assert lines[-3:] == ["1_mask.gpkg", "1_mask_verdicts.gpkg", "1_mask_quality.json"]


def test_a_finished_layer_is_judged_later(town: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("0_mask.tif") == 0
    assert "quality" not in capsys.readouterr().out
    drawn = (town / "0_mask.gpkg").read_bytes()
    assert run("0_mask.tif", "--truth", "truth.gpkg") == 0
    assert (town / "0_mask.gpkg").read_bytes() == drawn
    assert (town / "0_mask_quality.json").exists()


@pytest.mark.parametrize(
    ("truth", "said"),
    [
        ("absent.gpkg", "absent.gpkg: not found; check the path"),
        ("0_mask.tif", "0_mask.tif: not readable as polygons"),
        ("points.gpkg", "points.gpkg: no polygons found"),
        ("far.gpkg", "far.gpkg: no overlap with 0_mask.tif"),
        ("nowhere.gpkg", "nowhere.gpkg: no CRS found"),
    ],
)
def test_a_truth_that_cannot_serve_is_refused_before_anything_is_drawn(
    town: Path, capsys: pytest.CaptureFixture[str], truth: str, said: str
) -> None:
    geopandas.GeoSeries([shapely.Point(0, 0)], crs="EPSG:32633").to_file(town / "points.gpkg")
    geopandas.GeoSeries([shapely.box(0, 0, 9, 9)], crs="EPSG:32633").to_file(town / "far.gpkg")
    with pytest.warns(UserWarning, match="'crs' was not provided"):
        geopandas.GeoSeries([shapely.box(0, 0, 9, 9)]).to_file(town / "nowhere.gpkg")
    assert run("0_mask.tif", "--truth", truth) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"error: {said}")
    assert told.count("\n") == 1
    assert not (town / "0_mask.gpkg").exists()


def test_several_classes_without_buildings_cannot_be_judged(town: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("0_mask.tif", "--truth", "truth.gpkg", "--classes", "tree,water") == 2
    assert "--truth: tree, water are drawn, but one class is judged" in capsys.readouterr().err


def test_the_truth_is_never_written_over(town: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (town / "truth.gpkg").read_bytes()
    assert run("0_mask.tif", "-o", "truth.gpkg", "--truth", "truth.gpkg", "--overwrite") == 2
    assert "--truth truth.gpkg: is a file that is written here" in capsys.readouterr().err
    assert (town / "truth.gpkg").read_bytes() == before
