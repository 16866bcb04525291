"""Counts of bytes against numpy's."""

from __future__ import annotations

import numpy as np
import pytest

from ctrs.metrics.byte_counts import count_bytes


@pytest.mark.parametrize("shape", [(0,), (1,), (300, 200), (257, 301), (512, 256)])
def test_equals_bincount(shape):
    array = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    np.testing.assert_array_equal(count_bytes(array), np.bincount(array.ravel(), minlength=256))
    part = array[..., ::2]
    np.testing.assert_array_equal(count_bytes(part), np.bincount(part.ravel(), minlength=256))
