"""Probabilities and confidences as COGs: valid whatever their size, and the numbers that went in."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rio_cogeo import cog_validate

from ctrs.classes import ClassMap, LandClass
from ctrs.errors import RasterError
from ctrs.raster import probabilities
from ctrs.raster.cog import read_class_tag, write_class_cog
from ctrs.raster.confidence import check_confidence, confidence_kind, read_confidence, to_steps, write_confidence_cog
from ctrs.raster.geotiff import Grid, open_raster
from ctrs.raster.probabilities import (
    check_probabilities,
    read_probabilities,
    set_nodata,
    write_probabilities_cog,
)
from ctrs.raster.row_bands import RowBands
from ctrs.raster.windows import PixelWindow

UTM = Affine(0.2, 0, 5e5, 0, -0.2, 5.4e6)
SIZES = [(1, 1), (17, 17), (511, 511), (512, 512), (513, 513), (512, 700), (700, 3000)]
CLASSES = ClassMap(classes=tuple(LandClass(value=i, name=f"c{i}", color=(i, 0, 0)) for i in range(3)))


def grid_of(height, width):
    return Grid(crs=CRS.from_epsg(32633), transform=UTM, width=width, height=height)


def bands_of(folder, array, step=300):
    bands = RowBands(folder, array.shape[-1])
    for top in range(0, array.shape[-2], step):
        bands.append(array[..., top : top + step, :])
    return bands


def stored(count, height, width, number_format, seed=0):
    """Probabilities as they are stored, smooth so that averages can be told, and where they are valid."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:height, :width]
    shares = np.stack([1.5 + np.sin(rows / 97 + band) * np.cos(cols / 71 + band) for band in range(count)])
    shares /= shares.sum(axis=0)
    valid = np.ones((height, width), bool)
    valid[: height // 3] = False
    valid[height // 2 :, rng.integers(0, width, 3)] = False
    values = np.rint(shares * 254).astype(np.uint8) if number_format == "uint8" else shares.astype(np.float16)
    set_nodata(values, valid)
    return values, valid


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_all_three_are_valid_cogs_of_any_size(tmp_path, height, width):
    grid = grid_of(height, width)
    valid = np.ones((height, width), bool)
    valid[0] = height == 1
    paths = [write_class_cog(tmp_path / "mask.tif", [np.where(valid, 1, 255).astype(np.uint8)], grid, CLASSES)]
    steps = to_steps(np.full((height, width), 0.5, np.float32), valid)
    paths.append(write_confidence_cog(tmp_path / "sure.tif", bands_of(tmp_path / "s", steps), grid, {}))
    for number_format in ("uint8", "float16"):
        values, _ = stored(3, height, width, number_format)
        path = tmp_path / f"{number_format}.tif"
        bands = bands_of(tmp_path / number_format, values)
        paths.append(write_probabilities_cog(path, bands, grid, CLASSES.names, number_format, {}))
    for path in paths:
        assert cog_validate(path, strict=True) == (True, [], []), path.name
        with rasterio.open(path) as dataset:
            assert bool(dataset.overviews(1)) == (max(height, width) > 512)
            assert Grid.of(dataset) == grid


@pytest.mark.parametrize("number_format", ["uint8", "float16"])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 20])
def test_numbers_names_and_nodata_come_back(tmp_path, count, number_format):
    values, valid = stored(count, 530, 90, number_format)
    names = [f"class {i} & <ä>" for i in range(count)]
    bands = bands_of(tmp_path / "rows", values, step=111)
    path = write_probabilities_cog(tmp_path / "p.tif", bands, grid_of(530, 90), names, number_format, {"CTRS_JOB": "j"})
    assert not list(tmp_path.glob("*.aux.xml"))
    with open_raster(path) as dataset:
        assert check_probabilities(dataset) == tuple(names)
        assert dataset.tags()["CTRS_JOB"] == "j"
        assert dataset.colorinterp == (ColorInterp.gray, *[ColorInterp.undefined] * (count - 1))  # no red, no alpha
        assert all(flags == [MaskFlags.nodata] for flags in dataset.mask_flag_enums)
        found = read_probabilities(dataset, PixelWindow(col_off=3, row_off=100, width=80, height=400))
        assert found.dtype == np.float32
        expected = values / np.float32(254) if number_format == "uint8" else values.astype(np.float32)
        expected[:, ~valid] = np.nan
        np.testing.assert_allclose(found, expected[:, 100:500, 3:83], atol=1e-7)
        second = read_probabilities(dataset, PixelWindow(col_off=0, row_off=0, width=90, height=530), bidx=(count,))
        np.testing.assert_allclose(second, expected[count - 1 :], atol=1e-7)
        raw = dataset.read()
        np.testing.assert_array_equal(raw, values if number_format == "uint8" else values.astype(np.float32))
        small = dataset.read(out_shape=(count, 265, 45), masked=True) * dataset.scales[0]
        near = expected[:, 400:402, 10:12].mean(axis=(1, 2))
        np.testing.assert_allclose(small[:, 200, 5], near, atol=0.01)
        assert small.mask[:, 10].all()


@pytest.mark.parametrize("number_format", ["uint8", "float16"])
def test_the_same_numbers_make_the_same_bytes(tmp_path, number_format):
    values, _ = stored(3, 700, 530, number_format)  # blocks reach over the edge
    names = ["a", "b", "c"]
    files = set()
    for turn in range(3):
        bands = bands_of(tmp_path / f"rows{turn}", values)
        path = write_probabilities_cog(tmp_path / "p.tif", bands, grid_of(700, 530), names, number_format, {})
        files.add(path.read_bytes())
    assert len(files) == 1


def test_bands_that_would_fill_memory_have_smaller_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(probabilities, "_MOST_BLOCK_BYTES", 4 * 4 * 256**2)
    for count, block_px in ((4, 256), (5, 128)):
        values = np.zeros((count, 600, 300), np.float16)
        names = [f"c{i}" for i in range(count)]
        bands = bands_of(tmp_path / f"rows{count}", values)
        path = write_probabilities_cog(tmp_path / "p.tif", bands, grid_of(600, 300), names, "float16", {})
        with rasterio.open(path) as dataset:
            assert dataset.block_shapes[0] == (block_px, block_px)


def test_other_rasters_are_refused(tmp_path, write_raster):
    path = write_raster(np.zeros((2, 4, 4), np.uint8))
    with open_raster(path) as dataset:
        with pytest.raises(RasterError, match=r"2 bands of uint8, 0 of them named, without tag CTRS_PROBABILITIES"):
            check_probabilities(dataset)
        with pytest.raises(RasterError, match=r"2 bands of uint8 without tag CTRS_CONFIDENCE found"):
            check_confidence(dataset)


@pytest.mark.parametrize("kind", ["probability", "margin", "entropy"])
def test_a_confidence_says_what_it_is(tmp_path, kind):
    values = np.linspace(0, 1, 90 * 40, dtype=np.float32).reshape(40, 90)
    valid = np.ones((40, 90), bool)
    valid[:, 3] = False
    bands = bands_of(tmp_path / "rows", to_steps(values, valid))
    with open_raster(write_confidence_cog(tmp_path / "c.tif", bands, grid_of(40, 90), {}, kind=kind)) as dataset:
        assert confidence_kind(dataset) == kind
        check_confidence(dataset, kind)
        check_confidence(dataset, None)
        assert dataset.descriptions == (f"confidence ({kind})",)
        # 0 is a margin like any other, and not nodata
        np.testing.assert_array_equal(dataset.read_masks(1) > 0, valid)
        found = read_confidence(dataset, PixelWindow(col_off=0, row_off=0, width=90, height=40))
        np.testing.assert_allclose(found[valid], values[valid], atol=1.01 / 65535)
        for other in {"probability", "margin", "entropy"} - {kind}:
            with pytest.raises(RasterError, match=f"confidence by {kind} found, expected {other}"):
                check_confidence(dataset, other)


def test_blocks_of_columns_must_fill_the_grid(tmp_path):
    def block(start, width, height=9):
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        bands = RowBands(folder, width, col_off=start)
        bands.append(np.full((height, width), start, np.uint8))
        return bands

    path = write_class_cog(tmp_path / "m.tif", [block(2, 3), block(0, 2)], grid_of(9, 5), CLASSES)
    with rasterio.open(path) as dataset:
        assert dataset.read(1)[0].tolist() == [0, 0, 2, 2, 2]
    for blocks, message in (
        ([block(0, 2)], "2 columns found, expected 5"),
        ([block(0, 2), block(3, 2)], "columns from 3 on found, expected from 2 on"),
        ([block(0, 2), block(2, 3, 8)], "8 rows found, expected 9"),
    ):
        with pytest.raises(ValueError, match=message):
            write_class_cog(tmp_path / "m.tif", blocks, grid_of(9, 5), CLASSES)


def test_overviews_do_not_depend_on_blocks_of_columns(tmp_path):
    mask = np.random.default_rng(0).integers(0, 3, (800, 700)).astype(np.uint8)
    whole = write_class_cog(tmp_path / "whole.tif", [mask], grid_of(800, 700), CLASSES)
    blocks = []
    for start, stop, step in ((0, 333, 100), (333, 600, 77), (600, 700, 800)):
        bands = RowBands(tmp_path / f"b{start}", stop - start, col_off=start)
        for top in range(0, 800, step):
            bands.append(np.ascontiguousarray(mask[top : top + step, start:stop]))
        blocks.append(bands)
    path = write_class_cog(tmp_path / "blocks.tif", blocks, grid_of(800, 700), CLASSES)
    assert path.read_bytes() == whole.read_bytes()


def test_the_tag_lists_only_values_that_can_occur(tmp_path):
    path = write_class_cog(tmp_path / "m.tif", [np.ones((4, 4), np.uint8)], grid_of(4, 4), CLASSES, values=(1, 2))
    assert [entry.value for entry in read_class_tag(path)] == [1, 2]
    with rasterio.open(path) as dataset:
        assert dataset.colormap(1)[2][:3] == (2, 0, 0)
