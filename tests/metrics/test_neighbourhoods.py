"""Neighbourhoods against scipy's filters."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from ctrs.metrics.neighbourhoods import disc_half_widths, reduce_disc, reduce_square

FILTERS = {np.minimum: ndimage.minimum_filter, np.maximum: ndimage.maximum_filter}


@pytest.mark.parametrize("ufunc", FILTERS)
@pytest.mark.parametrize("radius", [0, 1, 2, 3, 4, 7, 13])
def test_square(ufunc, radius):
    array = np.random.default_rng(radius).integers(0, 256, (40, 35)).astype(np.uint8)
    expected = FILTERS[ufunc](array, size=2 * radius + 1)
    np.testing.assert_array_equal(
        reduce_square(array, radius, ufunc), expected[radius : 40 - radius, radius : 35 - radius]
    )


@pytest.mark.parametrize("ufunc", FILTERS)
@pytest.mark.parametrize("radius", [0, 0.5, 1, 2**0.5, 2, 2.5, 3, 5**0.5, 5, 6.3, 10, 16])
def test_disc(ufunc, radius):
    reach = math.floor(radius)
    array = np.random.default_rng(3).integers(0, 256, (40, 35)).astype(np.uint8)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    expected = FILTERS[ufunc](array, footprint=np.sqrt(y * y + x * x) <= radius)
    before = array.copy()
    np.testing.assert_array_equal(reduce_disc(array, radius, ufunc), expected[reach : 40 - reach, reach : 35 - reach])
    np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize("squared", range(200))
def test_roots_reach_their_own_pixels(squared):
    """A distance that is a root in float64 reaches the pixels exactly that far away, whatever its square rounds to."""
    radius = math.sqrt(squared)
    for row, half in enumerate(disc_half_widths(radius)):
        assert math.sqrt(row * row + half * half) <= radius < math.sqrt(row * row + (half + 1) ** 2)
