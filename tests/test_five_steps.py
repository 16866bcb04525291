"""The five commands as a user types them, one after the other in an empty folder, on a town and on real imagery."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import geopandas
import numpy as np
import pytest
import rasterio
from rio_cogeo.cogeo import cog_validate

from ctrs.synthetic import TownConfig, make_town

ROOT = Path(__file__).resolve().parent.parent
RunCtrs = Callable[..., subprocess.CompletedProcess[str]]


def _ok(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def real_sets() -> ModuleType:
    spec = importlib.util.spec_from_file_location("real_sets", ROOT / "benchmarks" / "real_sets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _check_mask(mask: Path, scene: Path, names: list[str]) -> None:
    with rasterio.open(mask) as result, rasterio.open(scene) as source:
        assert (result.crs, result.transform) == (source.crs, source.transform)
        assert (result.width, result.height, result.count) == (source.width, source.height, 1)
        assert result.nodata == 255
        assert [entry["name"] for entry in json.loads(result.tags()["CTRS_CLASSES"])] == names
        values = set(np.unique(result.read(1)).tolist())
    assert values <= {*range(len(names)), 255}
    valid, errors, warnings = cog_validate(mask, strict=True, quiet=True)
    assert valid, (errors, warnings)


def test_town_as_typed(tmp_path: Path, run_ctrs: RunCtrs) -> None:
    make_town(tmp_path / "potsdam", TownConfig(size_px=256, pixel_size_m=0.4, train_ids=("2_10",), test_ids=("2_13",)))
    scene = tmp_path / "scene.tif"
    scene.hardlink_to(tmp_path / "potsdam" / "2_Ortho_RGB" / "top_potsdam_2_13_RGB.tif")
    names = ["impervious surface", "building", "low vegetation", "tree", "car", "clutter"]

    _ok(run_ctrs("prepare", "potsdam/", "--tile", "64"))
    trained = _ok(
        run_ctrs(
            "train", "--backbone", "poolformer", "--loss", "cl", "--epochs", "1", "--batch-size", "4", "--crop", "64"
        )
    )
    assert "expected end" in trained.stderr
    run = Path(trained.stdout.splitlines()[-1])
    assert run == Path("runs/potsdam-poolformer-dcfam-cl")
    for part in (
        "best/model.safetensors",
        "last/model.json",
        "config.toml",
        "metrics.csv",
        "curves.png",
        "heads.safetensors",
    ):
        assert (tmp_path / run / part).is_file(), part

    report = json.loads(_ok(run_ctrs("eval", "--json")).stdout)
    assert report["split"] == "test"
    assert json.loads((tmp_path / run / "eval" / "test" / "report.json").read_text()) == report

    _ok(run_ctrs("predict", "scene.tif"))
    mask = tmp_path / "scene_mask.tif"
    _check_mask(mask, scene, names)
    scored = tmp_path / run / "eval" / "test" / "masks" / "potsdam_2_13_mask.tif"
    with rasterio.open(mask) as ours, rasterio.open(scored) as theirs:
        assert np.array_equal(ours.read(1), theirs.read(1)), "eval scores another mask than predict writes"

    layers = json.loads(_ok(run_ctrs("vectorize", "scene_mask.tif", "--classes", "all", "--json")).stdout)["layers"]
    assert layers[0]["path"] == "scene_mask.gpkg"
    polygons = geopandas.read_file(tmp_path / "scene_mask.gpkg")
    assert polygons.crs == rasterio.open(scene).crs
    assert {"id", "class", "area_m2", "perimeter_m"} <= set(polygons.columns)
    assert len(polygons) == sum(layers[0]["counts"].values()) > 0
    with rasterio.open(scene) as source:
        area = abs(source.transform.a * source.transform.e) * source.width * source.height
    assert polygons.area_m2.sum() == pytest.approx(area, rel=0.01)

    # The same commands again find their results; other options are refused.
    assert "already prepared" in _ok(run_ctrs("prepare", "potsdam/", "--tile", "64")).stderr
    assert "nothing to do" in _ok(run_ctrs("predict", "scene.tif")).stderr
    refused = run_ctrs("predict", "scene.tif", "--overlap", "0.5")
    assert refused.returncode == 1
    assert "--overwrite" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 2, refused.stderr  # the run that was taken, and the error


@pytest.mark.slow
def test_real_buildings(tmp_path: Path, real_data: Path, real_sets: ModuleType, run_ctrs: RunCtrs) -> None:
    real_sets.arrange_buildings(
        real_data, tmp_path / "buildings", ("kampala_a", "kampala_b", "catanduanes_a"), banepa=False
    )
    scene = real_data / "oam_fair_buildings" / "scenes" / "catanduanes_b_z20.tif"

    prepared = _ok(run_ctrs("prepare", "buildings/", "--test", "catanduanes_*", "--tile", "256"))
    assert "1 of 108 polygons" in prepared.stderr  # the one that crosses itself
    _ok(run_ctrs("train", "--loss", "cl", "--epochs", "4", "--batch-size", "4", "--crop", "128", timeout=1200))
    report = json.loads(_ok(run_ctrs("eval", "--json")).stdout)
    assert [entry["name"] for entry in report["scenes"]] == ["catanduanes_a"]
    _ok(run_ctrs("predict", scene, "-o", "scene_mask.tif"))
    _check_mask(tmp_path / "scene_mask.tif", scene, ["background", "building"])
    _ok(run_ctrs("vectorize", "scene_mask.tif"))
    polygons = geopandas.read_file(tmp_path / "scene_mask.gpkg")
    assert polygons.crs.to_epsg() == 3857
    assert polygons.is_valid.all()
    if len(polygons):  # EPSG:3857 is 6 % too large in area at 14 degrees north
        assert (polygons.area_m2 / polygons.area).to_numpy() == pytest.approx(np.cos(np.radians(13.97)) ** 2, rel=0.01)


@pytest.mark.slow
def test_real_land_cover(tmp_path: Path, real_data: Path, real_sets: ModuleType, run_ctrs: RunCtrs) -> None:
    for tile in ("t2", "t5", "t6"):
        real_sets.arrange_dubai(real_data, tmp_path / "dubai", f"{tile}_00[12]")
    names = ["building", "land", "road", "vegetation", "water"]

    prepared = _ok(run_ctrs("prepare", "dubai/", "--val", "t5_*", "--test", "t6_*", "--tile", "256", "--json"))
    assert json.loads(prepared.stdout)["classes"] == names
    assert "no CRS" in prepared.stderr
    _ok(run_ctrs("train", "--loss", "infonce", "--epochs", "2", "--batch-size", "4", "--crop", "128", timeout=1200))
    report = json.loads(_ok(run_ctrs("eval", "--json")).stdout)
    assert [entry["name"] for entry in report["scenes"]] == ["t6_001", "t6_002"]
    scene = tmp_path / "dubai" / "images" / "t6_001.jpg"
    predicted = _ok(run_ctrs("predict", scene, "-o", "t6_mask.tif"))
    assert "no CRS" in predicted.stderr
    _ok(run_ctrs("vectorize", "t6_mask.tif", "--classes", "all", "-o", "t6.parquet"))
    assert set(geopandas.read_parquet(tmp_path / "t6.parquet")["class"]) <= set(names)
