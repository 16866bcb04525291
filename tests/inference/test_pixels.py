"""Windows, batches and network input."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrs.errors import RasterError
from ctrs.inference.pixels import FileBlocks, ValidRows, WindowBatch, read_windows
from ctrs.inference.standardize import PixelStandardizer
from ctrs.inference.window_plan import WindowPlan
from ctrs.raster.bands import Bands


def some_bands(count, dtype):
    high = {"uint8": 255.0, "uint16": 3000.0, "int16": 900.0}.get(dtype, 1.5)
    spread = np.linspace(0.1, 0.3, count)
    return Bands(
        names=tuple(f"b{i}" for i in range(count)),
        dtype=dtype,
        low=tuple(-0.01 * high * np.arange(count)),
        high=(high,) * count,
        mean=tuple(spread * high),
        std=tuple(spread * high / 2),
    )


def some_pixels(dtype, shape, seed=0):
    generator = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return generator.normal(0.5, 1, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return generator.integers(limits.min, limits.max, shape, endpoint=True).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("count", [1, 4, 20])
def test_input_is_what_bands_say_bit_for_bit(dtype, count):
    bands, pixels = some_bands(count, dtype), some_pixels(dtype, (count, 17, 23))
    out = np.full((17, 23, count), np.nan, np.float32)
    PixelStandardizer(bands)(pixels, np.ones((17, 23), bool), out)
    expected = bands.standardize(bands.scale(pixels))
    np.testing.assert_array_equal(out, np.moveaxis(expected, 0, -1))
    # A part of larger rows, in place within larger memory: windows of a scene that is smaller than they are.
    out = np.full((20, 30, count), np.nan, np.float32)
    PixelStandardizer(bands)(pixels[:, 3:, 5:], np.ones((14, 18), bool), out[:14, :18])
    np.testing.assert_array_equal(out[:14, :18], np.moveaxis(expected[:, 3:, 5:], 0, -1))
    assert np.isnan(out[14:]).all()
    assert np.isnan(out[:, 18:]).all()


def test_many_rows_become_what_few_do():
    bands, pixels = some_bands(3, "uint8"), some_pixels("uint8", (3, 300, 9))
    out = np.full((300, 9, 3), np.nan, np.float32)
    PixelStandardizer(bands)(pixels, np.ones((300, 9), bool), out)
    np.testing.assert_array_equal(out, np.moveaxis(bands.standardize(bands.scale(pixels)), 0, -1))


def test_invalid_pixels_become_the_mean():
    bands, pixels = some_bands(2, "float32"), np.full((2, 1, 2), np.nan, np.float32)
    pixels[:, 0, 1] = bands.high
    out = np.ones((1, 2, 2), np.float32)
    PixelStandardizer(bands)(pixels, np.array([[False, True]]), out)
    assert out[0, 0].tolist() == [0, 0]
    assert (out[0, 1] > 0).all()


def array_reader(array, valid):
    rows_read = []

    def read(window):
        rows, cols = window.slices
        rows_read.append((rows.start, rows.stop))
        return array[:, rows, cols].copy(), valid[rows, cols].copy()

    return read, rows_read


plans = st.builds(
    WindowPlan,
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    window_px=st.integers(5, 40),
    overlap=st.floats(0, 0.9),
    batch_size=st.integers(1, 5),
)


def assert_same_windows(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert type(one) is type(other)
        if isinstance(one, ValidRows):
            np.testing.assert_array_equal(one.valid, other.valid)
        else:
            assert one.places == other.places
            assert torch.equal(one.pixels, other.pixels)


@settings(max_examples=40)
@given(plans, st.integers(0, 20))
def test_each_window_comes_once_with_its_pixels_and_each_row_is_read_once(plan, seed):
    bands = some_bands(2, "uint8")
    array = some_pixels("uint8", (2, plan.height, plan.width), seed)
    valid = np.random.default_rng(seed).random((plan.height, plan.width)) > 0.9
    valid[: plan.height // 2] = False
    read, rows_read = array_reader(array, valid)
    expected = np.moveaxis(bands.standardize(bands.scale(array)), 0, -1) * valid[..., None]
    size, seen, valid_rows = plan.window_px, [], []
    for item in read_windows(read, plan, PixelStandardizer(bands)):
        if isinstance(item, ValidRows):
            assert item.row == len(valid_rows)
            valid_rows.append(item.valid)
            continue
        assert item.pixels.shape == (len(item.places), size, size, 2)
        for pixels, (row, col) in zip(item.pixels, item.places, strict=True):
            assert row < len(valid_rows)
            part = expected[plan.row_starts[row] :, plan.col_starts[col] :][:size, :size]
            np.testing.assert_array_equal(pixels[: part.shape[0], : part.shape[1]], part)
            assert not pixels[part.shape[0] :].any()
            assert not pixels[:, part.shape[1] :].any()
            seen.append((row, col))
    np.testing.assert_array_equal(np.concatenate(valid_rows), valid)
    wanted = [
        (r, c)
        for r, row in enumerate(plan.row_starts)
        for c, col in enumerate(plan.col_starts)
        if valid[row : row + size, col : col + size].any()
    ]
    assert seen == wanted
    assert [row for part in rows_read for row in range(*part)] == list(range(plan.height))


@given(plans, st.data())
def test_going_on_forms_the_same_batches(plan, data):
    bands, array = some_bands(1, "uint8"), some_pixels("uint8", (1, plan.height, plan.width))
    valid = some_pixels("uint8", (plan.height, plan.width), 1) > 240
    scene_row = data.draw(st.integers(0, plan.height - 1))
    first = plan.first_row_for(scene_row)
    assert first % plan.rows_in_group == 0
    assert all(start + plan.window_px <= scene_row for start in plan.row_starts[:first])  # nothing is missed

    def batches(first_row):
        items = read_windows(array_reader(array, valid)[0], plan, PixelStandardizer(bands), first_row=first_row)
        return [item for item in items if isinstance(item, WindowBatch)]

    whole = [batch for batch in batches(0) if batch.places[0][0] >= first]
    rest = batches(first)
    assert [batch.places for batch in rest] == [batch.places for batch in whole]
    for one, other in zip(rest, whole, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)


def test_batches_run_across_rows_of_windows_in_narrow_scenes():
    plan = WindowPlan(height=640, width=64, window_px=64, overlap=0.0, batch_size=3)
    read, _ = array_reader(np.ones((1, 640, 64), np.uint8), np.ones((640, 64), bool))
    items = read_windows(read, plan, PixelStandardizer(some_bands(1, "uint8")))
    sizes = [len(item.places) for item in items if isinstance(item, WindowBatch)]
    assert sizes == [3, 3, 3, 1]


@given(plans, st.integers(1, 50), st.integers(-20, 0), st.data())
def test_rows_are_read_in_whole_blocks_and_windows_are_the_same(plan, height, offset, data):
    standardize = PixelStandardizer(some_bands(1, "uint8"))
    array = some_pixels("uint8", (1, plan.height, plan.width))
    valid = np.ones((plan.height, plan.width), bool)
    first = plan.first_row_for(data.draw(st.integers(0, plan.height - 1)))
    read, rows_read = array_reader(array, valid)
    blocks = FileBlocks(height=height, row_offset=offset)
    found = list(read_windows(read, plan, standardize, first_row=first, blocks=blocks))
    expected = list(read_windows(array_reader(array, valid)[0], plan, standardize, first_row=first))
    assert_same_windows(found, expected)
    assert [row for part in rows_read for row in range(*part)] == list(range(plan.row_starts[first], plan.height))
    if height <= min(plan.window_px, plan.height):
        assert all(stop == plan.height or (stop - offset) % height == 0 for _, stop in rows_read)


@given(plans, st.integers(1, 50), st.integers(1, 50), st.integers(-20, 0), st.data())
def test_rows_are_read_in_parts_of_whole_blocks_and_windows_are_the_same(plan, height, width, offset, data):
    standardize = PixelStandardizer(some_bands(1, "uint8"))
    array = some_pixels("uint8", (1, plan.height, plan.width))
    valid = some_pixels("uint8", (plan.height, plan.width), 1) > 100
    first = plan.first_row_for(data.draw(st.integers(0, plan.height - 1)))
    times_read = np.zeros((plan.height, plan.width), int)
    usual, pauses = array_reader(array, valid)[0], []

    def read(window):
        times_read[window.slices] += 1
        left, right = window.col_off, window.col_off + window.width
        assert left == 0 or (left - offset) % width == 0
        assert right == plan.width or (right - offset) % width == 0
        assert window.width >= min(plan.window_px, plan.width)
        return usual(window)

    def pause():
        pauses.append(times_read.sum())

    blocks = FileBlocks(height=height, width=width, col_offset=offset)
    found = list(read_windows(read, plan, standardize, first_row=first, blocks=blocks, pause=pause))
    expected = list(read_windows(usual, plan, standardize, first_row=first))
    assert_same_windows(found, expected)
    assert not times_read[: plan.row_starts[first]].any()
    assert (times_read[plan.row_starts[first] :] == 1).all()
    windows = sum(len(item.places) for item in found if isinstance(item, WindowBatch))
    assert len(pauses) >= windows + 1


def test_damage_below_is_told_when_its_rows_are_needed():
    plan = WindowPlan(height=96, width=64, window_px=32, overlap=0.0, batch_size=1)
    usual = array_reader(np.ones((1, 96, 64), np.uint8), np.ones((96, 64), bool))[0]

    def read(window):
        if window.row_off >= 32:
            raise RasterError("row 32 cannot be read")
        return usual(window)

    items = read_windows(read, plan, PixelStandardizer(some_bands(1, "uint8")), blocks=FileBlocks(width=16))
    assert isinstance(next(items), ValidRows)
    assert [next(items).places for _ in range(2)] == [((0, 0),), ((0, 1),)]
    with pytest.raises(RasterError, match="row 32"):
        next(items)


def test_blocks_higher_than_a_window_are_not_read_ahead():
    assert FileBlocks(height=4096).end_after(700, most=512) == 700
    assert FileBlocks(height=512).end_after(700, most=512) == 1024
    assert FileBlocks(height=512).end_after(1024, most=512) == 1024


@given(plans, st.integers(1, 5))
def test_a_block_of_columns_sees_what_the_whole_scene_sees_there(plan, count):
    standardize = PixelStandardizer(some_bands(1, "uint8"))
    array = some_pixels("uint8", (1, plan.height, plan.width))
    valid = some_pixels("uint8", (plan.height, plan.width), 1) > 200

    def windows(part):
        pixels, rows = {}, []
        for item in read_windows(array_reader(array, valid)[0], part, standardize):
            if isinstance(item, ValidRows):
                rows.append(item.valid)
                continue
            for one, (row, col) in zip(item.pixels, item.places, strict=True):
                pixels[row, part.col_starts[col]] = one.clone()
        return pixels, np.concatenate(rows)

    whole, _ = windows(plan)
    parts = plan.in_blocks(count)
    assert len(parts) == min(count, len(plan.col_starts))
    edges = [part.columns.start for part in parts] + [plan.width]
    assert edges[0] == 0
    for part, stop in zip(parts, edges[1:], strict=True):
        assert part.columns.stop == stop
        pixels, rows = windows(part)
        np.testing.assert_array_equal(rows, valid[:, part.columns])
        # All windows that reach into the block, and no others.
        reaching = {place for place in whole if place[1] < stop and place[1] + plan.window_px > part.columns.start}
        assert pixels.keys() == reaching
        assert all(torch.equal(pixels[place], whole[place]) for place in reaching)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
def test_raw_windows_become_the_same_input_on_the_device(dtype):
    standardize = PixelStandardizer(some_bands(3, dtype))
    plan = WindowPlan(height=50, width=70, window_px=32, overlap=0.3, batch_size=4)
    array, valid = some_pixels(dtype, (3, 50, 70)), np.random.default_rng(0).random((50, 70)) > 0.3
    valid[:, 40:] = True
    made = [list(read_windows(array_reader(array, valid)[0], plan, standardize, raw=raw)) for raw in (False, True)]
    for usual, raw in zip(*made, strict=True):
        if isinstance(raw, WindowBatch):
            assert raw.raw
            assert raw.pixels.dtype == standardize.raw_dtype
            found, expected = (item.to_input(standardize, torch.device("cpu")) for item in (raw, usual))
            assert torch.equal(found, expected)
            assert found.stride() == expected.stride()


def test_small_scenes_are_filled_up_with_the_mean_in_either_way():
    standardize = PixelStandardizer(some_bands(2, "uint8"))
    plan = WindowPlan(height=5, width=7, window_px=16, overlap=0.25, batch_size=2)
    array, valid = some_pixels("uint8", (2, 5, 7)), np.ones((5, 7), bool)
    for raw in (False, True):
        _, batch = read_windows(array_reader(array, valid)[0], plan, standardize, raw=raw)
        images = batch.to_input(standardize, torch.device("cpu"))
        assert images.shape == (1, 2, 16, 16)
        assert not images[:, :, 5:].any()
        assert not images[..., 7:].any()
        assert images[:, :, :5, :7].any()
