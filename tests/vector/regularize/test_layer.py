from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine

from ctrs.raster.cog import CLASSES_TAG

CLASS_TABLE = json.dumps(
    [{"value": 0, "name": "background", "color": [0, 0, 0]}, {"value": 1, "name": "building", "color": [255, 0, 0]}]
)


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    """Two houses and a shed of 6 square metres."""
    pixels = np.zeros((120, 160), np.uint8)
    pixels[10:60, 10:80] = pixels[70:110, 90:150] = 1
    pixels[20:30, 120:135] = 1
    path = tmp_path / "town_mask.tif"
    profile = {"driver": "GTiff", "width": 160, "height": 120, "count": 1, "dtype": "uint8", "crs": "EPSG:32633"}
    with rasterio.open(path, "w", transform=Affine(0.2, 0, 400_000, 0, -0.2, 5_000_000), **profile) as dataset:
        dataset.write(pixels, 1)
        dataset.update_tags(**{CLASSES_TAG: CLASS_TABLE})
    return path


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ctrs", "vectorize", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.mark.parametrize("mode", ["fast", "full"])
def test_the_command_writes_straight_buildings(mask: Path, mode: str) -> None:
    done = run(str(mask), "--regularize", mode, "--json")
    assert done.returncode == 0, done.stderr
    layer = geopandas.read_file(mask.with_suffix(".gpkg"))
    assert layer["method"].tolist() == ["walls", "walls"]
    assert (layer["regularization_iou"] > 0.99).all()
    assert layer["area_m2"].round(1).tolist() == pytest.approx([140.0, 96.0], abs=0.5)
    assert run(str(mask), "--regularize", mode, "--min-area", "4", "--overwrite").returncode == 0
    assert len(geopandas.read_file(mask.with_suffix(".gpkg"))) == 3


def test_straight_walls_without_buildings_are_refused_in_one_line(mask: Path) -> None:
    done = run(str(mask), "--regularize", "full", "--classes", "background")
    assert done.returncode == 2
    assert "only its walls are straight" in done.stderr
