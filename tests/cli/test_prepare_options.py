"""Each option of ``ctrs prepare`` reaches the configuration that is stored with the data, and does its work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine

from ctrs.cli.app import main
from ctrs.config import PrepareConfig
from ctrs.config.toml import from_mapping
from ctrs.tiles import Manifest

UTM = "EPSG:32633"
PLACE = Affine(0.5, 0, 400_000, 0, -0.5, 5_800_000)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two scenes side by side, each with a class raster, and an area of interest over most of both."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for number, name in enumerate(("east", "west")):
        options: dict[str, Any] = {
            "driver": "GTiff", "width": 200, "height": 200, "dtype": "uint8", "crs": UTM,
            "transform": PLACE @ Affine.translation(-300 * number, 0),
        }  # fmt: skip
        for kind, top in (("images", 255), ("labels", 2)):
            path = tmp_path / "src" / kind / f"{name}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            count = 4 if kind == "images" else 1
            coarse = rng.integers(0, top, (count, 20, 20)).repeat(10, 1).repeat(10, 2)
            with rasterio.open(path, "w", count=count, **options) as file:
                file.write(coarse.astype(np.uint8))
    area = shapely.box(399_850, 5_799_905, 400_100, 5_800_000)
    geopandas.GeoDataFrame(geometry=[area], crs=UTM).to_crs(4326).to_file(tmp_path / "area.geojson")
    (tmp_path / "val.txt").write_text("# held out\nwest\n")
    return tmp_path / "src"


def stored(path: str) -> PrepareConfig:
    document = json.loads(Path(path, "prepared.json").read_text())
    return from_mapping(PrepareConfig, document["config"])


def test_grid_and_tiles(source: Path) -> None:
    call = ["prepare", "src", "--tile", "40m", "--stride", "20m", "--gsd", "0.8", "--crs", "EPSG:3857", "-q"]
    assert main([*call, "--aoi", "area.geojson", "--min-valid", "0.4", "--bidx", "4,1-2", "--val", "@val.txt"]) == 0
    config = stored("prepared/src")
    assert (config.tile_m, config.stride_m, config.gsd_m, config.crs) == (40.0, 20.0, 0.8, "EPSG:3857")
    assert (config.aoi, config.min_valid, config.bidx) == (Path("area.geojson"), 0.4, (4, 1, 2))
    manifest = Manifest.open(Path("prepared/src"))
    assert {scene.name: scene.split for scene in manifest.scenes} == {"east": "train", "west": "val"}
    assert manifest.pixel_size_m == pytest.approx(0.8, rel=0.01)
    assert min(tile.valid_fraction for tile in manifest.tiles) >= 0.4
    starts = sorted({tile.window.col_off for tile in manifest.tiles if tile.scene == "east"})
    assert starts[:3] == [0, 25, 50]
    for tile in manifest.tiles:
        with rasterio.open(tile.image) as image, rasterio.open(tile.mask) as mask:
            assert (image.count, image.crs.to_epsg(), image.shape) == (3, 3857, (50, 50))
            assert mask.transform == image.transform
            assert set(np.unique(mask.read(1)).tolist()) <= {0, 1, 255}


def test_splits_by_place(source: Path) -> None:
    call = ["prepare", "src", "--tile", "32", "--split", "place", "--test-fraction", "0.25", "--val-fraction", "0.25"]
    assert main([*call, "--block", "32m", "--split-buffer", "5m", "--seed", "3", "--bidx", "1-3", "-q"]) == 0
    config = stored("prepared/src")
    assert (config.split, config.block_m, config.split_buffer_m, config.seed) == ("place", 32.0, 5.0, 3)
    table = geopandas.read_parquet("prepared/src/manifest.parquet")
    ground = {split: table[table.split == split].geometry.union_all() for split in ("train", "val", "test")}
    assert min(shape.area for shape in ground.values()) > 0
    assert ground["train"].distance(ground["val"]) >= 5 - 1e-6
    assert ground["train"].distance(ground["test"]) >= 5 - 1e-6


def test_folds(source: Path) -> None:
    assert main(["prepare", "src", "--tile", "32", "--folds", "3", "--bidx", "1-3", "-q"]) == 0
    manifest = Manifest.open(Path("prepared/src"))
    assert stored("prepared/src").folds == manifest.num_folds == 3
    for fold in range(3):
        parted = manifest.for_fold(fold)
        assert {tile.fold for tile in parted.split("val")} == {fold}
        assert fold not in {tile.fold for tile in parted.split("train")}


def test_images_and_labels_from_anywhere(source: Path) -> None:
    lines = geopandas.GeoDataFrame(
        {"kind": ["road", "track"], "rank": [2, 1]},
        geometry=[
            shapely.LineString([(400_000, 5_799_950), (400_100, 5_799_950)]),
            shapely.LineString([(400_050, 5_799_900), (400_050, 5_800_000)]),
        ],
        crs=UTM,
    )
    lines.to_file("roads.gpkg")
    call = ["prepare", "--images", "src/images/*.tif", "--labels", "roads.gpkg", "--class-field", "kind", "-q"]
    options = [
        "--label-buffer",
        "4m",
        "--priority-field",
        "rank",
        "--tile",
        "64",
        "--val-fraction",
        "0",
        "--bidx",
        "1,2,3",
    ]
    assert main([*call, *options, "--out", "out", "--workers", "1"]) == 0
    manifest = Manifest.open(Path("out"))
    assert manifest.classes.names == ("background", "road", "track")
    counts = dict(zip(manifest.classes.names, manifest.facts["east"]["tiled_counts"], strict=True))
    assert counts["road"] == 16 * 200  # eight metres are sixteen pixels, and the road lies on top
    assert counts["track"] == 16 * (200 - 16)
    assert main([*call, *options, "--paint-order", "road,track", "--out", "other"]) == 0
    counts = dict(zip(manifest.classes.names, Manifest.open(Path("other")).facts["east"]["tiled_counts"], strict=True))
    assert counts["track"] == 16 * 200


@pytest.mark.parametrize("text", ["3ft", "-3", ".5", "-.5m"])
def test_a_width_that_is_none_is_no_field(source: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    assert main(["prepare", "src", f"--label-buffer={text}"]) == 2
    assert (
        f"--label-buffer '{text}' found, expected metres, such as 2.5 or 2.5m, or the name of"
        in capsys.readouterr().err
    )
