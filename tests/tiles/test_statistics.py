"""Band statistics against numpy over all pixels at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrs.errors import DataWarning
from ctrs.tiles.statistics import Moments, ReadTile, band_statistics, join, quantiles


def make_tiles(dtype: str, seed: int = 0, num: int = 4) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    tiles = []
    for number in range(num):
        raw = rng.normal(1000 + 300 * number, 200, (2, 30, 40)) * np.array([1.0, 0.1])[:, None, None]
        pixels = raw.clip(0, 255).astype(dtype) if dtype == "uint8" else raw.astype(dtype)
        tiles.append((pixels, rng.random((30, 40)) > 0.3))
    return tiles


def readers(tiles: list[tuple[np.ndarray, np.ndarray]]) -> list[ReadTile]:
    return [lambda tile=tile: tile for tile in tiles]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_moments_are_those_of_all_valid_pixels(dtype: str) -> None:
    tiles = make_tiles(dtype)
    moments = join(Moments.of(*tile) for tile in tiles)
    values = np.concatenate([pixels[:, valid] for pixels, valid in tiles], axis=1).astype(np.float64)
    assert moments.count == values.shape[1]
    np.testing.assert_allclose(moments.mean, values.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(np.sqrt(np.array(moments.deviation) / moments.count), values.std(axis=1), rtol=1e-10)
    assert moments.least == tuple(values.min(axis=1))
    assert moments.greatest == tuple(values.max(axis=1))


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32", "int32"])
@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_quantiles_are_numpys(dtype: str, share: float) -> None:
    tiles = make_tiles(dtype)
    tiles[0][0][0, 0, 0] = 30000  # an outlier must not make the histogram coarse
    tiles[0][1][0, 0] = True
    moments = join(Moments.of(*tile) for tile in tiles)
    found = quantiles(share, moments, readers(tiles), whole_numbers=np.dtype(dtype).kind in "iu")
    values = np.concatenate([pixels[:, valid] for pixels, valid in tiles], axis=1).astype(np.float64)
    expected = np.quantile(values, share, axis=1, method="inverted_cdf")
    np.testing.assert_allclose(found, expected, atol=1e-9 if np.dtype(dtype).kind in "iu" else 0.01)


def test_huge_outliers_keep_quantiles_sharp() -> None:
    rng = np.random.default_rng(3)
    pixels = rng.normal(0, 1, (1, 100, 100)).astype(np.float32)
    pixels[0, 0, 0] = -1e7
    valid = np.ones((100, 100), bool)
    moments = Moments.of(pixels, valid)
    (median,) = quantiles(0.5, moments, readers([(pixels, valid)]), whole_numbers=False)
    assert median == pytest.approx(float(np.median(pixels)), abs=0.01)


def test_bands_of_bytes_span_their_type_and_others_their_percentiles() -> None:
    tiles = make_tiles("uint8")
    bands = band_statistics(("a", "b"), "uint8", None, join(Moments.of(*tile) for tile in tiles), [])
    assert (bands.low, bands.high) == ((0.0, 0.0), (255.0, 255.0))
    tiles = make_tiles("uint16")
    bands = band_statistics(("a", "b"), "uint16", 0.0, join(Moments.of(*tile) for tile in tiles), readers(tiles))
    values = np.concatenate([pixels[:, valid] for pixels, valid in tiles], axis=1)
    assert bands.high[0] == np.quantile(values[0], 0.999, method="inverted_cdf")
    assert bands.nodata == 0.0


def test_constant_bands_are_warned_of_and_usable() -> None:
    pixels, valid = np.full((1, 4, 4), 7, np.uint16), np.ones((4, 4), bool)
    with pytest.warns(DataWarning, match="constant over all training tiles: band gray"):
        bands = band_statistics(("gray",), "uint16", None, Moments.of(pixels, valid), readers([(pixels, valid)]))
    assert bands.high > bands.low
    assert bands.std == (1.0,)


def test_tiles_without_valid_pixels_count_nothing() -> None:
    empty = Moments.of(np.ones((2, 3, 3), np.uint8), np.zeros((3, 3), bool))
    full = Moments.of(np.full((2, 3, 3), 9, np.uint8), np.ones((3, 3), bool))
    assert empty.count == 0
    assert join([empty, full]).mean == (9.0, 9.0)
    assert Moments.of(np.ones((2, 3, 3), np.float32), np.zeros((3, 3), bool)).count == 0


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_joining_is_the_same_for_any_cut(seed: int, num: int) -> None:
    tiles = make_tiles("uint16", seed, num)
    once = join(Moments.of(*tile) for tile in tiles)
    nested = join([join(Moments.of(*tile) for tile in tiles[:1]), join(Moments.of(*tile) for tile in tiles[1:])])
    np.testing.assert_allclose(once.mean, nested.mean)
    np.testing.assert_allclose(once.deviation, nested.deviation)
