"""Scenes that are damaged."""

import json

import numpy as np
import pytest
import rasterio

from ctrs.classes import IGNORE_INDEX
from ctrs.config import PredictConfig
from ctrs.errors import DataWarning, RasterError
from ctrs.inference.scene_source import open_scene
from ctrs.raster.windows import PixelWindow


@pytest.fixture
def damaged(write_scene):
    """Return a function that writes a scene with a broken block in its middle: the scene, its pixels and the block."""

    def write(layout):
        pixels = np.random.default_rng(3).integers(1, 255, (3, 192, 256)).astype(np.uint8)
        options = {"tiled": True, "blockxsize": 64, "blockysize": 64} if layout == "tiles" else {"blockysize": 24}
        path = write_scene(pixels, compress="deflate", **options)
        block = PixelWindow(col_off=128, row_off=64, width=64, height=64)
        place = "2_1"
        if layout == "strips":
            block, place = PixelWindow(col_off=0, row_off=72, width=256, height=24), "0_3"
        with rasterio.open(path) as file:
            offset = int(file.get_tag_item(f"BLOCK_OFFSET_{place}", "TIFF", bidx=1))
            size = int(file.get_tag_item(f"BLOCK_SIZE_{place}", "TIFF", bidx=1))
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(b"\xff" * size)
        return path, pixels, block

    return write


@pytest.mark.parametrize("layout", ["tiles", "strips"])
def test_a_broken_block_is_named(damaged, make_identity, tmp_path, layout):
    path, _, block = damaged(layout)
    place = rf"block of {block.width} x {block.height} px at row {block.row_off}, column {block.col_off} not readable"
    with pytest.raises(RasterError, match=rf"scene\.tif: {place} .*--skip-unreadable"):
        make_identity().predict_raster(path, tmp_path / "mask.tif")
    assert not (tmp_path / "mask.tif").exists()


@pytest.mark.parametrize("layout", ["tiles", "strips"])
def test_a_broken_block_alone_is_nodata_and_told(damaged, make_identity, tmp_path, layout):
    path, pixels, block = damaged(layout)
    config = PredictConfig(skip_unreadable=True)
    with pytest.warns(DataWarning, match=rf"1 block is unreadable .* at row {block.row_off}, column {block.col_off}"):
        mask = make_identity().predict_raster(path, tmp_path / "mask.tif", config)
    expected = pixels.argmax(axis=0).astype(np.uint8)
    expected[block.slices] = IGNORE_INDEX
    with rasterio.open(mask) as file:
        np.testing.assert_array_equal(file.read(1), expected)
    assert json.loads((tmp_path / "mask.json").read_text())["unreadable"]


def test_blocks_are_counted_from_the_part_that_is_mapped(damaged, make_identity):
    path, _, _ = damaged("tiles")
    with rasterio.open(path) as file:
        left, top = file.transform @ (100, 50)
        right, bottom = file.transform @ (140, 150)
    config = PredictConfig(skip_unreadable=True, bounds=(left, bottom, right, top))
    with open_scene(path, make_identity().bands, config) as source:
        valid = source.read(PixelWindow(col_off=0, row_off=0, width=40, height=100))[1]
        assert source.unreadable == [PixelWindow(col_off=28, row_off=14, width=12, height=64)]
    assert valid.sum() == 40 * 100 - 12 * 64
    assert not valid[14:78, 28:].any()


def test_a_sample_of_a_damaged_scene_fails_at_the_start(damaged, make_identity):
    path, _, _ = damaged("tiles")
    bands = make_identity().bands
    with open_scene(path, bands) as source, pytest.raises(RasterError, match="--skip-unreadable"):
        source.sample()
    with open_scene(path, bands, PredictConfig(skip_unreadable=True)) as source:
        assert source.sample()[1].mean() == 1 - 64 * 64 / (192 * 256)
