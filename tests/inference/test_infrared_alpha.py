"""GDAL calls the fourth of four bands alpha, be it infrared: as data it hides nothing, and as a mask it is named."""

import warnings

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp
from torch import nn

from ctrs.classes import IGNORE_INDEX
from ctrs.config import PredictConfig
from ctrs.errors import BandMismatchError, DataWarning, RasterError
from ctrs.inference import predict_mosaic
from ctrs.inference.scene_source import open_scene
from tests.inference.conftest import make_bands

UNMARKED = r"scene\.tif: band 4 is marked as alpha but holds more than 32 .* where it is 0, the map is nodata.*--bidx"


class First(nn.Module):
    """Returns the first three bands of its input."""

    def forward(self, images):
        return images[:, :3]


@pytest.fixture
def pixels():
    """Four bands, the last of which is infrared, and 0 on water."""
    pixels = np.random.default_rng(0).integers(1, 256, (4, 90, 80)).astype(np.uint8)
    pixels[3, :30, :20] = 0
    return pixels


@pytest.fixture
def scene(write_scene, pixels):
    path = write_scene(pixels)
    with rasterio.open(path) as file:
        assert file.colorinterp[3] is ColorInterp.alpha
    return path


def mask_of(path):
    with rasterio.open(path) as file:
        return file.read(1)


def test_a_network_of_four_bands_takes_it_as_the_fourth(scene, pixels):
    with open_scene(scene, make_bands(4)) as source:
        assert source.bidx == (1, 2, 3, 4)
        found, valid = source.read(source.window)
        source.warn_odd_alpha()
    np.testing.assert_array_equal(found, pixels)
    assert valid.all()


@pytest.mark.parametrize("bidx", [(1, 2, 4), (4, 1, 2)])
def test_named_with_bidx_it_is_data(scene, pixels, make_identity, tmp_path, bidx):
    out = make_identity().predict_raster(scene, tmp_path / "m.tif", PredictConfig(bidx=bidx))
    np.testing.assert_array_equal(mask_of(out), pixels[[number - 1 for number in bidx]].argmax(axis=0))


@pytest.mark.parametrize("bidx", [(), (1, 2, 3)])
def test_as_a_mask_it_is_named_in_one_line(scene, pixels, make_identity, tmp_path, bidx):
    with pytest.warns(DataWarning, match=UNMARKED) as caught:
        out = make_identity().predict_raster(scene, tmp_path / "m.tif", PredictConfig(bidx=bidx))
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)
    np.testing.assert_array_equal(mask_of(out) == IGNORE_INDEX, pixels[3] == 0)
    with rasterio.open(scene, "r+") as file:  # what the line advises
        file.colorinterp = [*file.colorinterp[:3], ColorInterp.undefined]
    advised = PredictConfig(bidx=(1, 2, 3), overwrite=True)
    with warnings.catch_warnings(action="error"):
        out = make_identity().predict_raster(scene, tmp_path / "m.tif", advised)
    np.testing.assert_array_equal(mask_of(out), pixels[:3].argmax(axis=0))


@pytest.mark.parametrize("full", [1, 255])
def test_what_is_plainly_a_mask_stays_one(write_scene, pixels, make_identity, tmp_path, full):
    pixels[3] = np.where(pixels[3] > 0, full, 0)
    scene = write_scene(pixels)
    out = make_identity().predict_raster(scene, tmp_path / "m.tif")
    np.testing.assert_array_equal(mask_of(out) == IGNORE_INDEX, pixels[3] == 0)
    with (
        pytest.raises(BandMismatchError, match=r"scene\.tif: 3 bands found, expected 4 .*--bidx"),
        open_scene(scene, make_bands(4)),
    ):
        pass


@pytest.mark.parametrize("each", [False, True])
def test_a_mosaic_of_such_scenes(write_scene, pixels, make_predictor, tmp_path, each):
    left = write_scene(pixels[:, :, :40], "a.tif")
    water = np.ascontiguousarray(pixels[:, :, 40:])
    water[3] = 0  # by itself it looks like a mask
    right = write_scene(water, "b.tif", transform=Affine(0.2, 0, 5e5 + 8, 0, -0.2, 5.4e6))
    predictor = make_predictor(First(), count=4)
    masks = predict_mosaic(predictor, [left, right], tmp_path if each else tmp_path / "m.tif", each=each)
    found = np.concatenate([mask_of(path) for path in masks], axis=1)
    np.testing.assert_array_equal(found, pixels[:3].argmax(axis=0))


def test_a_mosaic_with_nothing_in_its_middle(write_scene, pixels, make_predictor, tmp_path):
    scenes = [
        write_scene(pixels, name, transform=Affine(0.2, 0, x, 0, -0.2, 5.4e6))
        for name, x in (("a.tif", 5e5), ("b.tif", 5e5 + 100))
    ]
    (out,) = predict_mosaic(make_predictor(First(), count=4), scenes, tmp_path / "m.tif")
    found = mask_of(out)
    for left in (0, 500):
        np.testing.assert_array_equal(found[:, left : left + 80], pixels[:3].argmax(axis=0))
    assert (found[:, 80:500] == IGNORE_INDEX).all()


def test_damage_of_the_mask_is_told_where_it_is_met(scene, monkeypatch):
    def broken(_dataset):
        raise RasterError("broken")

    with open_scene(scene, make_bands(3)) as source:
        monkeypatch.setattr("ctrs.inference.scene_source.odd_alpha", broken)
        source.warn_odd_alpha()
