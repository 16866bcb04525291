"""Weights and the rolling accumulator, against sums over the whole scene in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ctrs.inference.blending import RowBandAccumulator, largest_class, window_weights
from ctrs.raster.windows import window_starts


@given(st.integers(1, 600), st.data())
def test_no_weight_is_zero_and_windows_are_symmetric(size, data):
    stride = data.draw(st.integers(max(1, size // 10), size))
    weights = window_weights(size, stride)
    assert weights.shape == (size,)
    assert weights.min() > 0
    assert weights.max() <= 1
    torch.testing.assert_close(weights, weights.flip(0))


def test_neighbours_cross_fade_to_one():
    weights = window_weights(64, 48)
    torch.testing.assert_close(weights[48:] + weights[:16], torch.ones(16))
    assert (weights[16:48] == 1).all()


def test_constant_weights():
    assert (window_weights(9, 3, "constant") == 1).all()


@given(st.integers(1, 70), st.integers(1, 70), st.integers(4, 30), st.sampled_from(["hann", "constant"]), st.data())
def test_rolling_sums_equal_whole_scene_sums(height, width, size, blend, data):
    stride = data.draw(st.integers(max(1, size // 10), size))
    rows, cols = window_starts(height, size, stride), window_starts(width, size, stride)
    weights = window_weights(size, stride, blend)
    accumulator = RowBandAccumulator(
        num_classes=2, width=width, height=height, row_starts=rows, col_starts=cols, weights=weights
    )
    assert accumulator.sums.shape == (2, min(size, height), width)
    generator = np.random.default_rng(data.draw(st.integers(0, 9)))
    sums, total = np.zeros((2, height, width)), np.zeros((height, width))
    whole = np.outer(weights.double(), weights.double())
    found, means = [], []
    for number, row in enumerate(rows):
        for col in cols:
            logits = generator.normal(0, 3, (2, size, size)).astype(np.float32)
            accumulator.add(torch.from_numpy(logits), col)
            h, w = min(size, height), min(size, width)
            sums[:, row : row + h, col : col + w] += (logits * whole)[:, :h, :w]
            total[row : row + h, col : col + w] += whole[:h, :w]
        finished = accumulator.finish_row(number)
        found.append(finished.clone())
        means.append(accumulator.normalize(finished, number))
    assert torch.cat(found, dim=1).shape == (2, height, width)
    np.testing.assert_allclose(torch.cat(found, dim=1), sums, atol=1e-4, rtol=1e-5)
    np.testing.assert_allclose(torch.cat(means, dim=1), sums / total, atol=1e-5, rtol=1e-5)


@given(st.integers(1, 7), st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_largest_class_is_argmax_with_the_first_of_equals(num_classes, height, width, seed):
    values = np.random.default_rng(seed).integers(-2, 3, (num_classes, height, width)).astype(np.float32)
    found = largest_class(torch.from_numpy(values))
    assert found.dtype == torch.uint8
    np.testing.assert_array_equal(found, values.argmax(axis=0))


def test_largest_class_of_many():
    values = torch.zeros(250, 1, 3)
    values[249, 0, 0], values[128, 0, 1] = 1, 1
    assert largest_class(values).tolist() == [[249, 128, 0]]


@pytest.mark.parametrize("num_rows", [200, 20_000])
def test_memory_does_not_depend_on_height(num_rows):
    accumulator = RowBandAccumulator(
        num_classes=3,
        width=50,
        height=num_rows,
        row_starts=window_starts(num_rows, 32, 24),
        col_starts=window_starts(50, 32, 24),
        weights=window_weights(32, 24),
    )
    held = [value for value in vars(accumulator).values() if isinstance(value, torch.Tensor)]
    assert sum(tensor.numel() for tensor in held) == 3 * 32 * 50 + 3 * 32 * 32 + 32 * 32 + 50 + 32
