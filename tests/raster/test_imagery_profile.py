"""Profiles of imagery against numpy and scipy over all pixels."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from ctrs.errors import DataError
from ctrs.raster.imagery_profile import LEVELS, BandProfile, ImageryProfile, outside_share


def pixels(seed: int = 0, *, mean: float = 100, std: float = 30, count: int = 3, size: int = 20_000) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shared = rng.normal(0, std, size)
    return np.stack([mean + 10 * band + shared + rng.normal(0, 8, size) for band in range(count)])


def test_moments_and_quantiles_are_numpys() -> None:
    values = pixels().clip(0, 255).astype(np.uint8)
    profile = BandProfile.of(values)
    np.testing.assert_allclose(profile.mean, values.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(profile.covariance, np.cov(values, ddof=0), rtol=1e-4)
    np.testing.assert_allclose(profile.std, values.std(axis=1), rtol=1e-4)
    expected = np.quantile(values, LEVELS, axis=1, method="inverted_cdf").T
    np.testing.assert_array_equal(profile.quantiles, expected)
    np.testing.assert_allclose(profile.greatest_share, (values == 255).mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(profile.least_share, (values == 0).mean(axis=1), rtol=1e-5)


def test_weights_count_as_repeated_pixels() -> None:
    values = np.array([[1, 5, 9], [2, 2, 8]], np.int16)
    repeated = np.repeat(values, [1, 3, 2], axis=1)
    assert BandProfile.of(values, np.array([1.0, 3.0, 2.0])) == BandProfile.of(repeated)


def test_distance_is_scipys_wasserstein() -> None:
    one, other = pixels(0), pixels(1, mean=131, std=55)
    found = BandProfile.of(one).distances(BandProfile.of(other))
    expected = [wasserstein_distance(*bands) for bands in zip(one, other, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=0.03)


def test_divergence_is_zero_for_the_same_and_sees_exchanged_bands() -> None:
    values = pixels()
    values[2] = 0.5 * values[2] + 60
    profile = BandProfile.of(values)
    exchanged = BandProfile.of(values[::-1])
    assert profile.divergence(profile) == pytest.approx(0, abs=1e-9)
    assert profile.divergence(exchanged) > 1
    assert exchanged.reordered((2, 1, 0)) == profile


def test_bands_that_hold_the_same_do_not_break_it() -> None:
    values = np.repeat(pixels(count=1), 3, axis=0)
    assert np.isfinite(BandProfile.of(values).divergence(BandProfile.of(values + 5)))
    constant = BandProfile.of(np.full((2, 10), 7, np.uint8))
    assert np.isfinite(constant.divergence(constant))


def test_scenes_are_measured_against_the_whole() -> None:
    dark, bright = pixels(0, mean=60), pixels(1, mean=160)
    profile = ImageryProfile.of([dark, bright, dark[:, :0]], [1, 1, 1], [0.1, 0.2])
    assert profile is not None
    assert profile.num_scenes == 2
    assert profile.pixel_sizes_m == (0.1, 0.2)
    both = np.concatenate([dark, bright], axis=1)
    expected = max(
        wasserstein_distance(part, band) / band.std()
        for scene in (dark, bright)
        for part, band in zip(scene, both, strict=True)
    )
    assert profile.widest_distance == pytest.approx(expected, rel=0.03)
    ratios = np.stack([dark.std(axis=1), bright.std(axis=1)]) / both.std(axis=1)
    assert profile.std_ratios == pytest.approx((ratios.min(), ratios.max()), rel=1e-3)
    assert ImageryProfile.of([dark[:, :0]], [1]) is None


def test_ends_of_the_range_are_not_outside() -> None:
    values = np.array([[0, 0, 10, 20, 30, 40, 200, 255]], np.uint8)
    quantiles = [[0.0, 10.0, *([20.0] * (len(LEVELS) - 4)), 40.0, 90.0]]
    assert outside_share(values, quantiles) == (1 / 8,)


def test_what_is_written_is_read() -> None:
    profile = ImageryProfile.of([pixels()], [4.0], [0.05])
    assert profile is not None
    row = json.loads(json.dumps(profile.to_json()))
    assert ImageryProfile.from_json(row, where="x") == profile


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"levels": [0.5]}, "quantiles at other levels"),
        ({"bands": {}}, "'mean'"),
        ({"bands": 5}, "subscriptable"),
        ({"std_ratios": None}, "None"),
    ],
)
def test_damage_is_told(change: dict[str, object], reason: str) -> None:
    profile = ImageryProfile.of([pixels(size=100)], [1.0])
    assert profile is not None
    with pytest.raises(
        DataError, match=re.escape("model.json: the profile of the training imagery is damaged")
    ) as info:
        ImageryProfile.from_json({**profile.to_json(), **change}, where="model.json")
    assert reason in str(info.value)


def test_a_profile_of_too_few_quantiles_is_refused() -> None:
    with pytest.raises(DataError, match="not 1 bands with 27 quantiles"):
        BandProfile(mean=(1,), covariance=((1,),), quantiles=((1, 2),), least_share=(0,), greatest_share=(0,))
