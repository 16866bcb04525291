"""A mask that is drawn block by block is drawn as the whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from scipy import ndimage

from ctrs.classes import IGNORE_INDEX
from ctrs.config import VectorizeConfig
from ctrs.raster.cog import MaskClass
from ctrs.raster.geotiff import Grid
from ctrs.vector.block_drawing import draw_blocks
from ctrs.vector.drawing import draw_block, reach_m
from ctrs.vector.layers.part import LayerPart
from ctrs.vector.regions.blocks import Block, object_blocks
from ctrs.vector.regions.runs import Runs

CLASSES = tuple(
    MaskClass(value=value, name=name, color=(value, 0, 0))
    for value, name in enumerate(["background", "building", "tree"])
)
UTM = CRS.from_epsg(32633)


def grid_of(labels: npt.NDArray[np.uint8], pixel_m: float, crs: CRS = UTM) -> Grid:
    height, width = labels.shape
    return Grid(crs=crs, transform=Affine(pixel_m, 0, 400_000, 0, -pixel_m, 5_000_000), width=width, height=height)


def cut(labels: npt.NDArray[np.uint8], rows: Sequence[int]) -> Iterator[Runs]:
    """Cut a raster into bands of the given heights, again and again."""
    row, place = 0, 0
    while row < len(labels):
        yield Runs.from_array(labels[row : row + rows[place % len(rows)]])
        row, place = row + rows[place % len(rows)], place + 1


def blocks_of(
    labels: npt.NDArray[np.uint8], rows: Sequence[int], values: Sequence[int], config: VectorizeConfig, grid: Grid
) -> Iterator[Block]:
    wanted = np.zeros(256, bool)
    wanted[list(values)] = True
    return object_blocks(
        cut(labels, rows), grid, wanted, reach_m=reach_m(config, grid), small_hole_m2=config.smallest_hole_m2
    )


def drawn_in_blocks(
    labels: npt.NDArray[np.uint8],
    rows: Sequence[int],
    values: Sequence[int],
    config: VectorizeConfig,
    grid: Grid,
    jobs: int = 1,
) -> LayerPart:
    wanted = [entry for entry in CLASSES if entry.value in values]

    def draw(block: Block) -> LayerPart:
        return draw_block(block, wanted, config, all_wanted=len(wanted) == len(CLASSES), jobs=1)

    parts = list(draw_blocks(blocks_of(labels, rows, values, config, grid), draw, jobs=jobs))
    firsts = np.concatenate([[-1], *[part.firsts for part in parts]])
    assert (np.diff(firsts) >= 0).all(), "parts are not in order"
    return LayerPart.joined([draw(Block.empty(grid)), *parts])


def drawn_whole(labels: npt.NDArray[np.uint8], values: Sequence[int], config: VectorizeConfig, grid: Grid) -> LayerPart:
    wanted = [entry for entry in CLASSES if entry.value in values]
    kept = np.where(np.isin(labels, values), labels, np.uint8(IGNORE_INDEX))
    block = Block.of_mask(Runs.from_array(kept), grid)
    return draw_block(block, wanted, config, all_wanted=len(wanted) == len(CLASSES), jobs=1)


def assert_same(found: LayerPart, expected: LayerPart) -> None:
    assert found.firsts.tolist() == expected.firsts.tolist()
    assert shapely.to_wkb(found.polygons).tolist() == shapely.to_wkb(expected.polygons).tolist()
    assert list(found.columns) == list(expected.columns)
    for name, values in found.columns.items():
        np.testing.assert_array_equal(values, expected.columns[name], err_msg=name)


@st.composite
def masks(draw: st.DrawFn) -> npt.NDArray[np.uint8]:
    """Blots of several sizes, some within each other, on a mask that is mostly high."""
    height, width = draw(st.integers(1, 90)), draw(st.integers(1, 40))
    labels = np.zeros((height, width), np.uint8)
    for _ in range(draw(st.integers(0, 12))):
        top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        tall, wide = draw(st.sampled_from([1, 2, 5, 12, 40])), draw(st.sampled_from([1, 2, 5, 12, 40]))
        labels[top : top + tall, left : left + wide] = draw(st.sampled_from([0, 1, 1, 2, 255]))
    if draw(st.booleans()):
        rng = np.random.default_rng(draw(st.integers(0, 9)))
        spots = rng.random(labels.shape) < draw(st.sampled_from([0.02, 0.2]))
        labels[spots] = rng.integers(0, 3, int(spots.sum()))
    return labels


@settings(max_examples=150, deadline=None)
@given(
    labels=masks(),
    rows=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    values=st.sampled_from([(1,), (1, 2), (0, 1, 2), (2,)]),
    pixel_m=st.sampled_from([0.5, 1.0, 4.0]),
    min_area=st.sampled_from([0.0, 4.0, 30.0]),
    min_hole=st.sampled_from([0.0, 2.0, 60.0, 400.0]),
    tolerance=st.sampled_from([None, 0.0, 2.0]),
)
def test_bands_leave_no_trace(labels, rows, values, pixel_m, min_area, min_hole, tolerance) -> None:
    config = VectorizeConfig(min_area_m2=min_area, min_hole_m2=min_hole, tolerance_m=tolerance)
    grid = grid_of(labels, pixel_m)
    assert_same(drawn_in_blocks(labels, rows, values, config, grid), drawn_whole(labels, values, config, grid))


@settings(max_examples=15, deadline=None)
@given(labels=masks(), rows=st.lists(st.integers(1, 30), min_size=1, max_size=4))
def test_bands_leave_no_trace_in_straight_walls(labels, rows) -> None:
    config = VectorizeConfig(regularize="full")
    labels[labels == 2] = 0
    grid = grid_of(labels, 0.5)
    assert_same(drawn_in_blocks(labels, rows, (1,), config, grid), drawn_whole(labels, (1,), config, grid))


@pytest.mark.parametrize("crs", ["EPSG:3857", "EPSG:3035"])
def test_ground_metres_are_those_of_the_whole_mask(crs: str) -> None:
    """Far up north a row's pixels differ in area, and metres are measured on the ellipsoid."""
    rng = np.random.default_rng(1)
    labels = np.kron(rng.random((60, 8)) < 0.2, np.ones((6, 6))).astype(np.uint8)
    grid = replace(grid_of(labels, 40.0), crs=CRS.from_string(crs), transform=Affine(40, 0, 4e6, 0, -40, 8.4e6))
    config = VectorizeConfig(min_area_m2=20_000, min_hole_m2=10_000)
    found = drawn_in_blocks(labels, [7], (1,), config, grid)
    assert len(found) >= 10
    assert_same(found, drawn_whole(labels, (1,), config, grid))


def test_threads_leave_no_trace() -> None:
    rng = np.random.default_rng(2)
    labels = np.kron(rng.random((80, 12)) < 0.3, np.ones((5, 5))).astype(np.uint8)
    grid, config = grid_of(labels, 0.5), VectorizeConfig()
    expected = drawn_whole(labels, (1,), config, grid)
    for jobs in (1, 2, 3):
        assert_same(drawn_in_blocks(labels, [16], (1,), config, grid, jobs), expected)


@settings(max_examples=100, deadline=None)
@given(labels=masks(), rows=st.lists(st.integers(1, 30), min_size=1, max_size=4))
def test_each_pixel_is_in_one_block_with_all_that_is_near(labels, rows) -> None:
    grid, config = grid_of(labels, 1.0), VectorizeConfig(min_hole_m2=0)
    owner = np.full(labels.shape, -1)
    frontier = 0
    for number, block in enumerate(blocks_of(labels, rows, (1,), config, grid)):
        taken = block.runs.to_array() == 1
        place = owner[block.row_off : block.row_off + block.runs.height]
        assert (place[taken] == -1).all()
        place[taken] = number
        assert np.flatnonzero(owner == number)[0] >= frontier
        frontier = block.frontier
    assert ((owner >= 0) == (labels == 1)).all()
    near = ndimage.maximum_filter(owner, size=7, mode="constant", cval=-1)
    assert (near[owner >= 0] == owner[owner >= 0]).all() or _nearest_other(owner) > reach_m(config, grid)


def _nearest_other(owner: npt.NDArray[np.int64]) -> float:
    """Return the least distance, along rows or columns, between pixels of two blocks, in pixels."""
    places = np.argwhere(owner >= 0)
    owners = owner[owner >= 0]
    far = np.abs(places[:, None] - places[None]).max(axis=2)
    other = owners[:, None] != owners[None]
    return float(far[other].min()) if other.any() else np.inf


def test_no_more_is_held_than_objects_need() -> None:
    """Rows of houses: a block is some rows, whatever the height of the mask."""
    labels = np.tile(np.pad(np.ones((20, 20), np.uint8), 10), (25, 3))
    config = VectorizeConfig()
    heights = [block.runs.height for block in blocks_of(labels, [16], (1,), config, grid_of(labels, 0.5))]
    assert len(heights) == 25
    assert max(heights) <= 30


def test_an_object_as_high_as_the_mask_holds_back_what_begins_below_it() -> None:
    labels = np.zeros((200, 60), np.uint8)
    labels[:, 2:8] = 1
    labels[20:40, 30:50] = 1
    labels[100:120, 30:50] = 1
    config, grid = VectorizeConfig(), grid_of(labels, 0.5)
    parts = list(
        draw_blocks(
            blocks_of(labels, [10], (1,), config, grid), lambda block: draw_block(block, CLASSES[1:2], config), jobs=1
        )
    )
    assert [len(part) for part in parts] == [3]
    assert_same(parts[0], drawn_whole(labels, (1,), config, grid))


def test_an_error_in_a_thread_is_raised() -> None:
    labels = np.tile(np.pad(np.ones((20, 20), np.uint8), 10), (5, 1))

    def draw(block: Block) -> LayerPart:
        raise RuntimeError("no ink")

    with pytest.raises(RuntimeError, match="no ink"):
        list(draw_blocks(blocks_of(labels, [16], (1,), VectorizeConfig(), grid_of(labels, 0.5)), draw, jobs=2))


def test_how_far_nothing_reaches_decides_no_tie() -> None:
    """A speck borders as much on a building as on nothing, of which there is more in the whole mask than in a block."""
    labels = np.zeros((200, 40), np.uint8)
    labels[50:80, 5:35] = 1
    labels[50, 5] = 2
    config = VectorizeConfig(min_area_m2=2.0, tolerance_m=0.0)
    grid = grid_of(labels, 1.0)
    whole = drawn_whole(labels, (1, 2), config, grid)
    assert whole.columns["area_m2"].tolist() == [900.0]
    assert_same(drawn_in_blocks(labels, [10], (1, 2), config, grid), whole)


def test_what_stands_in_a_small_hole_keeps_it_open() -> None:
    labels = np.zeros((80, 60), np.uint8)
    labels[10:50, 10:50] = 1
    labels[12:48, 12:48] = 0
    labels[26:34, 26:34] = 1
    config, grid = VectorizeConfig(min_hole_m2=400.0, tolerance_m=0.0), grid_of(labels, 0.5)
    whole = drawn_whole(labels, (1,), config, grid)
    assert len(whole) == 2
    assert_same(drawn_in_blocks(labels, [4], (1,), config, grid), whole)
