"""Tiles joined as one raster by a VRT."""

import shutil

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS

from ctrs.errors import RasterError
from ctrs.raster.geotiff import Grid, open_raster, read_window
from ctrs.raster.mosaic import mosaic_vrt
from ctrs.raster.windows import PixelWindow, sliding_windows

GRID = Grid(crs=CRS.from_epsg(32633), transform=Affine(0.2, 0, 5e5, 0, -0.2, 5.4e6), width=90, height=70)


def read_all(path):
    with open_raster(path) as dataset:
        found = Grid.of(dataset)
        window = PixelWindow(col_off=0, row_off=0, width=dataset.width, height=dataset.height)
        return (*read_window(dataset, window), found)


def cut(write_raster, array, left_out=(), **options):
    tiles = []
    for number, window in enumerate(sliding_windows(70, 90, 32, 32)):
        if number in left_out:
            continue
        rows, cols = window.slices
        mask = options.get("mask")
        parts = {**options, "mask": mask[rows, cols]} if mask is not None else options
        tiles.append((write_raster(array[:, rows, cols], f"tiles/{number}.tif", **parts), window))
    return tiles


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_tiles_of_a_scene_give_the_scene_back(write_raster, tmp_path, rng, dtype):
    scene = rng.integers(1, 200, (4, 70, 90)).astype(dtype)
    path = mosaic_vrt(cut(write_raster, scene, alpha="unspecified"), GRID, tmp_path / "vrt" / "scene.vrt")
    pixels, valid, grid = read_all(path)
    np.testing.assert_array_equal(pixels, scene)
    assert pixels.dtype == dtype
    assert valid.all()
    assert grid == GRID


@pytest.mark.parametrize("nodata", [None, 0, 255])
def test_where_no_tile_lies_it_is_invalid(write_raster, tmp_path, rng, nodata):
    scene = rng.integers(1, 200, (3, 70, 90)).astype(np.uint8)
    tiles = cut(write_raster, scene, left_out=(0, 4), nodata=nodata)
    covered = np.zeros((70, 90), bool)
    for _, window in tiles:
        covered[window.slices] = True
    pixels, valid, _ = read_all(mosaic_vrt(tiles, GRID, tmp_path / "scene.vrt"))
    np.testing.assert_array_equal(valid, covered)
    np.testing.assert_array_equal(pixels[:, covered], scene[:, covered])


def test_internal_masks_of_some_tiles_count(write_raster, tmp_path, rng):
    scene = rng.integers(1, 200, (3, 70, 90)).astype(np.uint8)
    mask = np.full((70, 90), 255, np.uint8)
    mask[40:60, 40:60] = 0
    tiles = cut(write_raster, scene, mask=mask)
    plain = write_raster(scene[:, :32, :32], "tiles/0.tif")  # the first tile has no mask at all
    pixels, valid, _ = read_all(mosaic_vrt([(plain, tiles[0][1]), *tiles[1:]], GRID, tmp_path / "scene.vrt"))
    np.testing.assert_array_equal(valid, mask > 0)
    np.testing.assert_array_equal(pixels, scene)


def test_without_crs(write_raster, tmp_path):
    grid = Grid(crs=None, transform=Affine.identity(), width=90, height=70)
    tiles = cut(write_raster, np.ones((1, 70, 90), np.uint8))
    assert read_all(mosaic_vrt(tiles, grid, tmp_path / "scene.vrt"))[2] == grid


def test_the_folder_can_move(write_raster, tmp_path):
    tiles = cut(write_raster, np.ones((1, 70, 90), np.uint8))
    (tmp_path / "vrt").mkdir()
    mosaic_vrt(tiles, GRID, tmp_path / "vrt" / "scene.vrt")
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.move(tmp_path / "tiles", moved)
    shutil.move(tmp_path / "vrt", moved)
    assert read_all(moved / "vrt" / "scene.vrt")[0].all()


def test_no_tiles(tmp_path):
    with pytest.raises(RasterError, match="no tiles to join"):
        mosaic_vrt([], GRID, tmp_path / "scene.vrt")
