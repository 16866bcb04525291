"""Pixels on another grid: the same in all windows, as GDAL has them, and nothing of what is not valid."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio.warp
import scipy.ndimage
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.enums import Resampling

from ctrs.errors import RasterError
from ctrs.raster import warp as warping
from ctrs.raster.geotiff import Grid, GroundControl
from ctrs.raster.locate import locate
from ctrs.raster.warp import GridWarp, grid_warp
from ctrs.raster.windows import PixelWindow

UTM = CRS.from_epsg(32633)
WEB = CRS.from_epsg(3857)
H, W = 120, 150
SOURCE = Grid(crs=UTM, transform=Affine(0.5, 0, 4e5, 0, -0.5, 5.8e6), width=W, height=H)
X, Y = (values[0] for values in rasterio.warp.transform(UTM, WEB, [4e5], [5.8e6]))

TARGETS = {
    "coarser": Grid(crs=UTM, transform=Affine(1.3, 0, 4e5 - 3, 0, -1.3, 5.8e6 + 2), width=64, height=55),
    "finer": Grid(crs=UTM, transform=Affine(0.31, 0, 4e5 - 3, 0, -0.31, 5.8e6 + 2), width=260, height=215),
    "turned": Grid(
        crs=UTM,
        transform=Affine.translation(4e5 + 20, 5.8e6 + 10) @ Affine.rotation(-35) @ Affine.scale(0.45, -0.45),
        width=160,
        height=175,
    ),
    "web": Grid(crs=WEB, transform=Affine(0.8, 0, X - 5, 0, -0.8, Y + 5), width=170, height=130),
    "web coarser": Grid(crs=WEB, transform=Affine(2.4, 0, X - 5, 0, -2.4, Y + 5), width=55, height=45),
}


def whole(grid: Grid) -> PixelWindow:
    return PixelWindow(col_off=0, row_off=0, width=grid.width, height=grid.height)


def smooth(height: int = H, width: int = W) -> np.ndarray:
    rows, cols = np.mgrid[:height, :width]
    bands = [np.sin(cols / 9) * np.cos(rows / 7), np.cos(cols / 5 + rows / 11), np.sin(rows / 6)]
    return (127 + 100 * np.stack(bands)).astype(np.uint8)


def sample(
    warp: GridWarp, pixels: np.ndarray, valid: np.ndarray | None = None, *, window: PixelWindow | None = None,
    method: str | None = None,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    valid = np.ones(pixels.shape[1:], bool) if valid is None else valid

    def read(part: PixelWindow) -> tuple[np.ndarray, np.ndarray]:
        assert min(part.width, part.height) > 0
        assert min(part.col_off, part.row_off) >= 0
        assert part.col_off + part.width <= warp.source.width
        assert part.row_off + part.height <= warp.source.height
        return pixels[(slice(None), *part.slices)], valid[part.slices]

    return warp.read(
        window or whole(warp.target), read, method=method or warp.method, count=len(pixels), dtype=pixels.dtype
    )


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("method", ["nearest", "bilinear", "average"])
def test_the_same_in_all_windows_and_chunks(name: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    warp = grid_warp(SOURCE, TARGETS[name])
    pixels = np.random.default_rng(0).integers(0, 60000, (2, H, W)).astype(np.uint16)
    valid = np.random.default_rng(1).random((H, W)) < 0.8
    expected, expected_valid = sample(warp, pixels, valid, method=method)
    assert 0 < expected_valid.mean() < 1
    monkeypatch.setattr(warping, "CHUNK_BYTES", 5000)
    height, width = warp.target.shape
    for row_off in range(0, height, 23):
        for col_off in range(0, width, 37):
            window = PixelWindow(
                col_off=col_off, row_off=row_off, width=min(37, width - col_off), height=min(23, height - row_off)
            )
            found, found_valid = sample(warp, pixels, valid, window=window, method=method)
            assert np.array_equal(found_valid, expected_valid[window.slices])
            assert np.array_equal(found, expected[(slice(None), *window.slices)])


@pytest.mark.parametrize(("name", "tolerance"), [("coarser", 2), ("finer", 1), ("web", 1)])
def test_as_gdal_has_it(name: str, tolerance: int) -> None:
    warp, pixels = grid_warp(SOURCE, TARGETS[name]), smooth()
    assert warp.method == ("average" if name == "coarser" else "bilinear")
    found, valid = sample(warp, pixels)
    expected = np.zeros((3, *warp.target.shape), np.uint8)
    rasterio.warp.reproject(
        pixels, expected, src_transform=SOURCE.transform, src_crs=UTM, dst_transform=warp.target.transform,
        dst_crs=warp.target.crs, resampling=Resampling[warp.method], tolerance=0,
    )  # fmt: skip
    assert 0.3 < valid.mean() < 1
    inner = scipy.ndimage.binary_erosion(valid, np.ones((3, 3)))
    difference = np.abs(found.astype(int) - expected)[:, inner]
    assert difference.max() <= tolerance
    assert difference.mean() < 0.5


@pytest.mark.parametrize("name", ["turned", "web", "web coarser"])
def test_as_places_computed_one_by_one_have_it(name: str) -> None:
    warp, pixels = grid_warp(SOURCE, TARGETS[name]), smooth()
    found, valid = sample(warp, pixels)
    steps = (np.arange(20) + 0.5) / 20 if warp.method == "average" else np.array([0.5])
    expected = np.zeros((3, *warp.target.shape))
    for dy in steps:
        for dx in steps:
            cols, rows = np.meshgrid(np.arange(warp.target.width) + dx, np.arange(warp.target.height) + dy)
            cols, rows = locate(SOURCE, warp.target, cols, rows)
            expected += [
                scipy.ndimage.map_coordinates(band.astype(float), [rows - 0.5, cols - 0.5], order=len(steps) < 2)
                for band in pixels
            ]
    inner = scipy.ndimage.binary_erosion(valid, np.ones((3, 3)))
    assert inner.sum() > 500
    difference = np.abs(found - expected / len(steps) ** 2)[:, inner]
    assert difference.max() < (6 if warp.method == "average" else 0.51)
    assert difference.mean() < (1.2 if warp.method == "average" else 0.3)


def test_whole_blocks_are_averaged_exactly() -> None:
    target = Grid(crs=UTM, transform=SOURCE.transform @ Affine.scale(3), width=W // 3, height=H // 3)
    pixels = np.random.default_rng(0).integers(0, 60000, (2, H, W)).astype(np.uint16)
    valid = np.ones((H, W), bool)
    valid[:3, :3] = valid[3:5, :3] = valid[:1, 6:9] = False
    found, found_valid = sample(grid_warp(SOURCE, target), pixels, valid)
    blocks = np.where(valid, pixels, 0).astype(float).reshape(2, H // 3, 3, W // 3, 3).sum((2, 4))
    counts = valid.reshape(H // 3, 3, W // 3, 3).sum((1, 3))
    assert not found_valid[:2, 0].any()  # none, and three of nine
    assert found_valid.sum() == found_valid.size - 2
    expected = np.rint(blocks / np.maximum(counts, 1))
    assert np.array_equal(found[:, found_valid], expected[:, found_valid])
    assert not found[:, ~found_valid].any()


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "float32", "float64"])
def test_nothing_bleeds_from_what_is_not_valid(name: str, dtype: str) -> None:
    pixels = np.full((2, H, W), 100, dtype)
    valid = np.ones((H, W), bool)
    valid[40:80, 30:60] = False
    valid[::7, ::5] = False
    pixels[:, ~valid] = np.nan if dtype.startswith("f") else 0
    warp = grid_warp(SOURCE, TARGETS[name])
    found, found_valid = sample(warp, pixels, valid)
    assert np.abs(found[:, found_valid].astype(float) - 100).max() <= (1e-4 if dtype.startswith("f") else 0)
    assert found.dtype == dtype
    cols, rows = (np.floor(values).astype(int) for values in np.broadcast_arrays(*warp.positions(whole(warp.target))))
    inside = (cols >= 0) & (rows >= 0) & (cols < W) & (rows < H)
    hole = (cols >= 33) & (cols < 57) & (rows >= 43) & (rows < 77)
    assert hole.any()
    assert not found_valid[hole].any()
    beyond = (cols < -2) | (rows < -2) | (cols > W + 1) | (rows > H + 1)
    assert beyond.any()
    assert not found_valid[beyond].any()
    if warp.method == "bilinear":
        expected = inside.copy()
        expected[inside] = valid[rows[inside], cols[inside]]
        assert np.array_equal(found_valid, expected)


@given(factor=st.floats(0.2, 6), angle=st.floats(-180, 180), dx=st.floats(-20, 20), dy=st.floats(-20, 20))
def test_nearest_takes_the_pixel_below_the_center(factor: float, angle: float, dx: float, dy: float) -> None:
    turn = Affine.translation(4e5 + 20 + dx, 5.8e6 - 20 + dy) @ Affine.rotation(angle)
    target = Grid(crs=UTM, transform=turn @ Affine.scale(0.5 * factor, -0.5 * factor), width=25, height=20)
    pixels = np.arange(1, H * W + 1, dtype=np.int32).reshape(1, H, W)
    found, valid = sample(grid_warp(SOURCE, target), pixels, method="nearest")
    for row in range(20):
        for col in range(25):
            x, y = ~SOURCE.transform @ (target.transform @ (col + 0.5, row + 0.5))
            if min(abs(x - round(x)), abs(y - round(y))) < 1e-5:
                continue  # on the border of two pixels
            inside = 0 <= x < W and 0 <= y < H
            assert valid[row, col] == inside
            assert found[0, row, col] == (pixels[0, int(y), int(x)] if inside else 0)


@pytest.mark.parametrize("turn", [(-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, 1, 0)])
def test_flips_and_quarter_turns_change_no_value(turn: tuple[int, int, int, int]) -> None:
    a, b, d, e = turn
    transform = SOURCE.transform @ Affine(a, b, 70, d, e, 60)
    target = Grid(crs=UTM, transform=transform, width=40, height=30)
    warp = grid_warp(SOURCE, target)
    assert warp.is_exact
    assert warp.method == "nearest"
    pixels = np.random.default_rng(0).normal(size=(1, H, W)).astype(np.float32)
    found, valid = sample(warp, pixels)
    assert valid.all()
    rows, cols = np.mgrid[:30, :40] + 0.5
    assert np.array_equal(
        found[0], pixels[0][(d * cols + e * rows + 60).astype(int), (a * cols + b * rows + 70).astype(int)]
    )


def test_interpolated_places_are_good_enough() -> None:
    grid = Grid(crs=UTM, transform=Affine(10, 0, 2e5, 0, -10, 5.9e6), width=20000, height=20000)
    left, _, _, top = rasterio.warp.transform_bounds(UTM, WEB, 2e5, 5.7e6, 4e5, 5.9e6)
    target = Grid(crs=WEB, transform=Affine(16, 0, left, 0, -16, top), width=20000, height=20000)
    warp = grid_warp(grid, target)
    for row_off, col_off in ((0, 0), (9000, 9000), (19000, 150)):
        window = PixelWindow(col_off=col_off, row_off=row_off, width=100, height=90)
        cols, rows = np.meshgrid(np.arange(col_off, col_off + 100) + 0.5, np.arange(row_off, row_off + 90) + 0.5)
        exact = locate(grid, target, cols, rows)
        for found, expected in zip(warp.positions(window), exact, strict=True):
            assert np.abs(found - expected).max() < 0.06


def test_ground_control_points_place_pixels() -> None:
    truth = Affine.translation(4e5, 5.8e6) @ Affine.rotation(20) @ Affine.scale(0.5, -0.5)
    points = tuple(
        (float(row), float(col), *(truth @ (float(col), float(row))), 0.0)
        for row in (0, 60, 120)
        for col in (0, 75, 150)
    )
    source = Grid(
        crs=None, transform=Affine.identity(), width=W, height=H, ground_control=GroundControl(crs=UTM, points=points)
    )
    x, y = truth @ (75.0, 60.0)
    target = Grid(crs=UTM, transform=Affine(0.5, 0, x - 10, 0, -0.5, y + 10), width=40, height=40)
    warp = grid_warp(source, target)
    assert warp.scale == pytest.approx(1, rel=1e-3)
    found = warp.positions(whole(target))
    expected = grid_warp(Grid(crs=UTM, transform=truth, width=W, height=H), target).positions(whole(target))
    for here, there in zip(found, expected, strict=True):
        assert np.abs(here - there).max() < 0.01


def test_places_outside_a_projection_are_nowhere() -> None:
    polar = Grid(crs=CRS.from_epsg(3031), transform=Affine(1000, 0, -5e4, 0, -1000, 5e4), width=100, height=100)
    target = Grid(crs=CRS.from_epsg(4326), transform=Affine(1, 0, -180, 0, -1, -60), width=360, height=60)
    _, valid = sample(grid_warp(polar, target), np.ones((1, 100, 100), np.uint8))
    assert not valid[:20].any()


def test_no_way_between_two_reference_systems() -> None:
    local = CRS.from_wkt('LOCAL_CS["site grid",UNIT["metre",1],AXIS["x",EAST],AXIS["y",NORTH]]')
    with pytest.raises(RasterError, match=r"no way from EPSG:32633 to .*site grid.*; choose another CRS"):
        grid_warp(Grid(crs=local, transform=SOURCE.transform, width=W, height=H), SOURCE)


def test_reads_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warping, "CHUNK_BYTES", 2**18)
    big = Grid(crs=UTM, transform=Affine(0.05, 0, 4e5, 0, -0.05, 5.8e6), width=40000, height=40000)
    largest = 0

    def read(part: PixelWindow) -> tuple[np.ndarray, np.ndarray]:
        nonlocal largest
        largest = max(largest, part.width * part.height)
        return np.ones((1, part.height, part.width), np.uint8), np.ones((part.height, part.width), bool)

    for transform in (Affine(0.5, 0, 4e5, 0, -0.5, 5.8e6), Affine(0.3, 0.3, 4e5, 0.3, -0.3, 5.8e6 - 500)):
        warp = grid_warp(big, Grid(crs=UTM, transform=transform, width=4000, height=4000))
        window = PixelWindow(col_off=0, row_off=0, width=4000, height=200)
        _, valid = warp.read(window, read, method="average", count=1, dtype=np.dtype(np.uint8))
        assert valid.any()
    assert largest < 4 * 2**18
