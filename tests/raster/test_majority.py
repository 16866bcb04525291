"""Overviews by majority, against a count at each pixel."""

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrs.classes import IGNORE_INDEX
from ctrs.raster.majority import halve, write_overviews


def some_mask(height, width, num_classes=3, seed=0, nodata=0.3):
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, num_classes, (height, width)).astype(np.uint8)
    mask[rng.random((height, width)) < nodata] = IGNORE_INDEX
    return mask


def counts_allow(mask, half):
    """Tell whether each pixel has a class of most of its four, and nodata only where all four have it."""
    for row, col in np.ndindex(half.shape):
        four = mask[2 * row : 2 * row + 2, 2 * col : 2 * col + 2].ravel()
        four = four[four != IGNORE_INDEX]
        counts = np.bincount(four, minlength=256)
        found = half[row, col]
        if found == IGNORE_INDEX:
            if len(four):
                return False
        elif counts[found] == 0 or counts[found] < counts.max():
            return False
    return True


@settings(deadline=None, max_examples=100)
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    num_classes=st.integers(1, 5),
    seed=st.integers(0, 10**6),
    nodata=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
)
def test_a_pixel_has_the_class_of_most_of_its_four(height, width, num_classes, seed, nodata):
    mask = some_mask(height, width, num_classes, seed, nodata)
    before = mask.copy()
    half = halve(mask)
    assert half.shape == (-(-height // 2), -(-width // 2))
    assert half.dtype == np.uint8
    assert counts_allow(mask, half)
    np.testing.assert_array_equal(mask, before)


def test_all_ways_to_fill_four_pixels():
    values = (0, 1, 2, 3, IGNORE_INDEX)
    for four in np.ndindex(*[len(values)] * 4):
        mask = np.array([values[i] for i in four], np.uint8).reshape(2, 2)
        assert counts_allow(mask, halve(mask)), mask


@pytest.mark.parametrize("step", [1, 7, 512, 2000])
@pytest.mark.parametrize(("height", "width"), [(1100, 70), (1025, 1), (1, 1500), (777, 1031), (512, 512)])
def test_each_is_half_of_the_one_before_whatever_the_rows(tmp_path, step, height, width):
    mask = some_mask(height, width)
    rows = (mask[top : top + step] for top in range(0, height, step))
    paths = write_overviews(rows, height, width, tmp_path, stop_px=128)
    expected = mask
    for path in paths:
        assert max(expected.shape) > 128
        expected = halve(expected)
        with rasterio.open(path) as file:
            np.testing.assert_array_equal(file.read(1), expected)
    assert max(expected.shape) <= 128
