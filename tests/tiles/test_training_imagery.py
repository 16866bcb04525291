"""What the training tiles hold is measured without reading them again, and stands in prepared.json."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio

from ctrs.config import PrepareConfig
from ctrs.errors import DataError
from ctrs.raster.imagery_profile import ImageryProfile
from ctrs.tiles import prepare_tiles
from ctrs.tiles.manifest import Manifest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.tiles.conftest import Maker


def prepare(make: Maker, folder: Path) -> tuple[Manifest, np.ndarray]:
    """Return what was prepared, and the pixels (3, n) of the scenes for training."""
    make.potsdam(folder / "p", ("2_10", "2_11", "2_12", "2_13"), size=160, eroded=False)
    train: list[np.ndarray] = []
    for name, gain in (("2_10", 0.4), ("2_11", 0.6), ("2_12", 0.9), ("2_13", 1.0)):  # the last two do not train
        with rasterio.open(folder / f"p/2_Ortho_RGB/top_potsdam_{name}_RGB.tif", "r+") as dataset:
            pixels = (dataset.read() * gain).astype(np.uint8)
            dataset.write(pixels)
        if gain < 0.9:
            train.append(pixels.reshape(3, -1))
    config = PrepareConfig(tile_px=64, val=("potsdam_2_12",))
    return prepare_tiles(folder / "p", folder / "out", config), np.concatenate(train, axis=1)


def test_the_profile_is_that_of_the_training_pixels_alone(make: Maker, tmp_path: Path) -> None:
    manifest, pixels = prepare(make, tmp_path)
    profile = manifest.imagery
    assert profile is not None
    assert profile.num_scenes == 2
    assert profile.pixel_sizes_m == pytest.approx((0.05, 0.05))
    np.testing.assert_allclose(profile.bands.mean, pixels.mean(axis=1), rtol=1e-5)  # a scene this small is held whole
    np.testing.assert_allclose(profile.bands.std, pixels.std(axis=1), rtol=1e-4)
    np.testing.assert_array_equal(
        np.array(profile.bands.quantiles)[:, [0, -1]].T, [pixels.min(axis=1), pixels.max(axis=1)]
    )
    assert Manifest.open(manifest.root).imagery == profile


def test_data_prepared_before_it_was_measured_are_read(make: Maker, tmp_path: Path) -> None:
    manifest, _ = prepare(make, tmp_path)
    path = manifest.root / "prepared.json"
    document = json.loads(path.read_text())
    kept = document.pop("imagery")
    path.write_text(json.dumps(document))
    assert Manifest.open(manifest.root) == replace(manifest, imagery=None)
    path.write_text(json.dumps({**document, "imagery": {**kept, "levels": []}}))
    with pytest.raises(DataError, match=r"prepared\.json: the profile of the training imagery is damaged"):
        Manifest.open(manifest.root)


def test_a_split_by_place_counts_its_own_side(make: Maker, tmp_path: Path) -> None:
    """One scene, left half dark and right half bright: what trains decides."""
    (tmp_path / "src/images").mkdir(parents=True)
    (tmp_path / "src/labels").mkdir()
    pixels = make.noise(128, 128)
    pixels[:, :, :64] //= 2
    crs, transform = "EPSG:32633", rasterio.Affine(0.5, 0, 400000, 0, -0.5, 5800000)
    make.raster(tmp_path / "src/images/a.tif", pixels, transform=transform, crs=crs)
    labels = np.zeros((1, 128, 128), np.uint8)
    labels[:, ::2] = 1
    make.raster(tmp_path / "src/labels/a.tif", labels, transform=transform, crs=crs)
    config = PrepareConfig(tile_px=32, split="place", val_fraction=0.5, block_px=64)
    manifest = prepare_tiles(tmp_path / "src", tmp_path / "out", config)
    expected = np.concatenate(
        [pixels[(slice(None), *tile.window.slices)].reshape(3, -1) for tile in manifest.split("train")], axis=1
    )
    assert isinstance(manifest.imagery, ImageryProfile)
    np.testing.assert_allclose(manifest.imagery.bands.mean, expected.mean(axis=1), rtol=1e-5)
