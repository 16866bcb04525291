"""Error maps: right at each pixel, with a legend that GDAL reads, whole or not there at all."""

from __future__ import annotations

import json
import tracemalloc
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.crs import CRS
from rasterio.transform import Affine
from rio_cogeo import cog_validate

from ctrs.classes import ClassMap, LandClass
from ctrs.errors import GridMismatchError
from ctrs.evaluation import error_map
from ctrs.evaluation.error_map import ERRORS_TAG, ErrorMapWriter, error_categories, error_values, write_error_map
from ctrs.metrics.blocks import scored_blocks
from ctrs.raster.cog import write_class_cog
from ctrs.raster.geotiff import Grid

CLASSES = ClassMap(
    classes=(
        LandClass(value=0, name="impervious surface", color=(255, 255, 255)),
        LandClass(value=1, name="building", color=(0, 0, 255)),
        LandClass(value=2, name="clutter", color=(255, 0, 0), scored=False),
    )
)
TRANSFORM = Affine(0.5, 0, 400_000, 0, -0.5, 5_800_000)


def write_mask(path, mask):
    height, width = mask.shape
    grid = Grid(crs=CRS.from_epsg(32633), transform=TRANSFORM, width=width, height=height)
    return write_class_cog(path, [mask], grid, CLASSES)


@pytest.fixture
def masks(tmp_path):
    rng = np.random.default_rng(1)
    truth, pred = rng.integers(0, 3, (2, 300, 210)).astype(np.uint8)
    truth[:20, :30], pred[100:120] = 255, 255
    return truth, pred, write_mask(tmp_path / "truth.tif", truth), write_mask(tmp_path / "pred.tif", pred)


def test_pixels_and_legend_come_back(tmp_path, masks, monkeypatch):
    truth, pred, truth_path, pred_path = masks
    monkeypatch.setattr(error_map, "_STRIP_PX", 1)  # strips of the fewest rows
    out = write_error_map(truth_path, pred_path, tmp_path / "town_errors.tif", CLASSES)
    with rasterio.open(out) as dataset:
        found = dataset.read(1)
        assert (dataset.nodata, dataset.crs, dataset.transform) == (255, CRS.from_epsg(32633), TRANSFORM)
        colors = dataset.colormap(1)
        tags = dataset.tags()
    for row, col in np.ndindex(*truth.shape):
        true, predicted = int(truth[row, col]), int(pred[row, col])
        assert found[row, col] == (255 if true == 255 else 0 if true == predicted else 1 + true)
    assert [colors[value][:3] for value in range(4)] == [(204, 204, 204), (255, 255, 255), (0, 0, 255), (255, 0, 0)]
    assert json.loads(tags[ERRORS_TAG])[2] == {"value": 2, "name": "wrong, should be building", "color": [0, 0, 255]}
    assert "CTRS_CLASSES" not in tags  # it is no mask: what reads masks refuses it
    described = tmp_path / "description.vrt"
    rasterio.shutil.copy(out, described, driver="VRT")
    names = [entry.text for entry in ElementTree.parse(described).iterfind(".//CategoryNames/Category")]
    assert names == ["correct", *(f"wrong, should be {name}" for name in CLASSES.names)]
    assert cog_validate(out, quiet=True)[0]
    assert sorted(p.name for p in tmp_path.glob("*town*")) == ["town_errors.tif", "town_errors.tif.aux.xml"]


def test_blocks_of_any_size_give_the_same_map(tmp_path, masks):
    truth, pred, truth_path, pred_path = masks
    whole = write_error_map(truth_path, pred_path, tmp_path / "whole.tif", CLASSES)
    grid = Grid(crs=CRS.from_epsg(32633), transform=TRANSFORM, width=210, height=300)
    writer = ErrorMapWriter(tmp_path / "rows", grid, CLASSES)
    for block in scored_blocks(truth, pred, block_px=97, halo_px=4):
        writer.update(block)
    with rasterio.open(writer.write(tmp_path / "blocks.tif")) as blocks, rasterio.open(whole) as expected:
        np.testing.assert_array_equal(blocks.read(1), expected.read(1))
    assert not (tmp_path / "rows").exists()


def test_another_map_is_replaced(tmp_path, masks):
    _, _, truth_path, pred_path = masks
    out = write_error_map(truth_path, pred_path, tmp_path / "errors.tif", CLASSES)
    write_error_map(truth_path, truth_path, out, CLASSES)
    with rasterio.open(out) as dataset:
        assert set(np.unique(dataset.read(1))) == {0, 255}


def test_nothing_stands_there_after_a_failure(tmp_path, masks, monkeypatch):
    _, _, truth_path, pred_path = masks
    with monkeypatch.context() as patch:
        patch.setattr(ErrorMapWriter, "write", lambda *_: (_ for _ in ()).throw(RuntimeError("stop")))
        with pytest.raises(RuntimeError, match="stop"):
            write_error_map(truth_path, pred_path, tmp_path / "errors.tif", CLASSES)
    assert not list(tmp_path.glob("errors.tif*"))
    write_error_map(truth_path, pred_path, tmp_path / "errors.tif", CLASSES)
    assert not list(tmp_path.glob(".*.partial"))

    small = write_mask(tmp_path / "small.tif", np.zeros((5, 5), np.uint8))
    with pytest.raises(GridMismatchError, match=r"small\.tif: 5 x 5 px found, but .*truth\.tif has 210 x 300"):
        write_error_map(truth_path, small, tmp_path / "other.tif", CLASSES)


def test_all_classes_that_a_table_may_have(tmp_path):
    rows = tuple(LandClass(value=i, name=f"c{i}", color=(i, 255 - i, i // 2)) for i in range(250))
    many = ClassMap(classes=rows)
    assert len(error_categories(many)) == 251
    truth, pred = np.array([[249, 255]], np.uint8), np.array([[0, 0]], np.uint8)
    assert error_values(truth, pred).tolist() == [[250, 255]]


@pytest.mark.parametrize("taken", [(204,) * 3, (255,) * 3, (0,) * 3, (128,) * 3])
def test_grey_of_correct_pixels_is_no_class(taken):
    table = ClassMap(
        classes=(
            LandClass(value=0, name="a", color=taken),
            LandClass(value=1, name="b", color=(190, 190, 190) if taken != (255,) * 3 else (150, 150, 150)),
        )
    )
    grey = error_categories(table)[0][1]
    assert min(abs(grey[0] - entry.color[0]) for entry in table.learnt) >= 48


def test_memory_does_not_grow_with_the_height(tmp_path):
    def peak(height):
        rng = np.random.default_rng(0)
        mask = np.kron(rng.integers(0, 3, (height // 64, 8)), np.ones((64, 64))).astype(np.uint8)
        path = write_mask(tmp_path / f"m{height}.tif", mask)
        tracemalloc.start()
        write_error_map(path, path, tmp_path / f"e{height}.tif", CLASSES)
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return held

    assert peak(8192) < 1.3 * peak(2048)
