"""Windows, batches and network input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrs.inference.pixels import PixelStandardizer, ValidRows, WindowBatch, WindowPlan, read_windows
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
    for item in read_windows(read, plan, bands):
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
        items = read_windows(array_reader(array, valid)[0], plan, bands, first_row=first_row)
        return [item for item in items if isinstance(item, WindowBatch)]

    whole = [batch for batch in batches(0) if batch.places[0][0] >= first]
    rest = batches(first)
    assert [batch.places for batch in rest] == [batch.places for batch in whole]
    for one, other in zip(rest, whole, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)


def test_batches_run_across_rows_of_windows_in_narrow_scenes():
    plan = WindowPlan(height=640, width=64, window_px=64, overlap=0.0, batch_size=3)
    read, _ = array_reader(np.ones((1, 640, 64), np.uint8), np.ones((640, 64), bool))
    sizes = [len(i.places) for i in read_windows(read, plan, some_bands(1, "uint8")) if isinstance(i, WindowBatch)]
    assert sizes == [3, 3, 3, 1]
