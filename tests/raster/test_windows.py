"""Sliding windows: every pixel covered, no more windows than needed, nothing beyond the raster."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrs.errors import UsageError
from ctrs.raster.windows import PixelWindow, sliding_windows, spread_starts, stride_for_overlap, window_starts

lengths = st.integers(1, 3000)
sizes = st.integers(1, 700)


@given(lengths, sizes, st.data())
def test_starts_cover_the_line_with_the_least_windows(length, size, data):
    stride = data.draw(st.integers(1, size))
    starts = window_starts(length, size, stride)
    covered = np.zeros(length, bool)
    for start in starts:
        covered[start : start + size] = True
    assert covered.all()
    assert starts == sorted(set(starts))
    assert starts[0] == 0
    assert starts[-1] == max(length - size, 0)
    assert all(b - a <= stride for a, b in itertools.pairwise(starts))
    assert len(starts) == (1 if length <= size else math.ceil((length - size) / stride) + 1)


@given(lengths, sizes, st.data())
def test_spread_starts_are_as_many_at_even_steps(length, size, data):
    stride = data.draw(st.integers(1, size))
    starts = spread_starts(length, size, stride)
    assert len(starts) == len(window_starts(length, size, stride))
    assert (starts[0], starts[-1]) == (0, max(length - size, 0))
    steps = [b - a for a, b in itertools.pairwise(starts)]
    assert all(1 <= step <= stride for step in steps)
    assert not steps or max(steps) - min(steps) <= 1


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40), st.data())
def test_windows_lie_inside_and_cover_all(height, width, size, data):
    stride = data.draw(st.integers(1, size))
    seen = np.zeros((height, width), int)
    for window in sliding_windows(height, width, size, stride):
        assert window.row_off + window.height <= height
        assert window.col_off + window.width <= width
        assert (window.height, window.width) == (min(size, height), min(size, width))
        seen[window.slices] += 1
    assert seen.min() >= 1


@pytest.mark.parametrize(("length", "size", "stride"), [(0, 5, 5), (5, 0, 1), (5, 5, 0), (-1, 5, 5)])
def test_numbers_that_are_not_positive_are_refused(length, size, stride):
    with pytest.raises(UsageError, match="expected positive numbers"):
        window_starts(length, size, stride)


def test_a_stride_that_leaves_gaps_is_refused():
    with pytest.raises(UsageError, match="stride 6 exceeds size 5"):
        window_starts(20, 5, 6)


@pytest.mark.parametrize(("overlap", "stride"), [(0.0, 512), (0.25, 384), (0.5, 256), (0.9, 51)])
def test_stride_for_overlap(overlap, stride):
    assert stride_for_overlap(512, overlap) == stride


@pytest.mark.parametrize("overlap", [-0.1, 0.91, 1.0])
def test_overlap_out_of_range_is_refused(overlap):
    with pytest.raises(UsageError, match="expected a share from 0"):
        stride_for_overlap(512, overlap)


def test_stride_is_never_zero():
    assert stride_for_overlap(1, 0.9) == 1


def test_slices_select_the_window():
    array = np.arange(20).reshape(4, 5)
    rows, cols = PixelWindow(col_off=1, row_off=2, width=3, height=1).slices
    assert array[rows, cols].tolist() == [[11, 12, 13]]
