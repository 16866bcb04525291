"""Scaling and standardizing by stored statistics."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrs.errors import BandMismatchError, ConfigError
from ctrs.raster.bands import Bands


def bands(**changes):
    values = {
        "names": ("red", "nir"),
        "dtype": "uint16",
        "low": (100.0, 0.0),
        "high": (1100.0, 4000.0),
        "mean": (350.0, 1000.0),
        "std": (50.0, 400.0),
        "nodata": 0.0,
    }
    return Bands(**{**values, **changes})


def test_scale_maps_low_to_0_and_high_to_1_and_clips():
    pixels = np.array([[[100, 1100, 600, 0, 65535]], [[0, 4000, 1000, 0, 65535]]], np.uint16)
    expected = np.array([[[0, 1, 0.5, 0, 1]], [[0, 1, 0.25, 0, 1]]], np.float32)
    scaled = bands().scale(pixels)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, expected, atol=1e-6)


def test_mean_becomes_0_and_one_deviation_above_it_1():
    pixels = np.array([[[350, 400]], [[1000, 1400]]], np.uint16)
    standardized = bands().standardize(bands().scale(pixels))
    np.testing.assert_allclose(standardized, [[[0, 1]], [[0, 1]]], atol=1e-5)


def test_batches_are_scaled_like_single_images():
    pixels = np.random.default_rng(0).integers(0, 5000, (3, 2, 4, 5)).astype(np.uint16)
    np.testing.assert_array_equal(bands().scale(pixels)[1], bands().scale(pixels[1]))


def test_nan_becomes_0_and_the_input_stays_as_it_is():
    pixels = np.array([[[np.nan, 600]], [[1000, 1000]]], np.float32)
    before = pixels.copy()
    scaled = bands(dtype="float32").scale(pixels)
    assert scaled[0, 0].tolist() == [0.0, 0.5]
    np.testing.assert_array_equal(pixels, before)


@given(st.lists(st.floats(-1e4, 1e4), min_size=2, max_size=2))
def test_json_round_trip(means):
    original = bands(mean=tuple(means))
    assert Bands.from_json(original.to_json()) == original


def test_unknown_keys_are_refused():
    with pytest.raises(ConfigError, match="expected names, dtype"):
        Bands.from_json({**bands().to_json(), "offset": 1})


@pytest.mark.parametrize("changes", [{"std": (1.0, 0.0)}, {"high": (100.0, 4000.0)}])
def test_statistics_that_cannot_be_are_refused(changes):
    with pytest.raises(ConfigError, match="high must exceed low and std must exceed 0"):
        bands(**changes)


def test_a_list_of_another_length_is_refused():
    with pytest.raises(ConfigError, match="1 values in mean, expected 2"):
        bands(mean=(1.0,))


def test_sources_of_another_kind_are_refused():
    bands().check_source(2, "uint16", where="a.tif")
    with pytest.raises(BandMismatchError, match=r"a.tif: 3 bands found, expected 2 \(red, nir\).*--bidx"):
        bands().check_source(3, "uint16", where="a.tif")
    with pytest.raises(BandMismatchError, match=r"a.tif: dtype uint8 found, expected uint16"):
        bands().check_source(2, "uint8", where="a.tif")


def test_pixels_with_another_band_count_are_refused():
    with pytest.raises(BandMismatchError, match="expected 2 bands"):
        bands().scale(np.zeros((3, 4, 4), np.uint16))
