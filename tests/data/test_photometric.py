from __future__ import annotations

import numpy as np
import pytest

from ctrs.data.photometric import BandShift, Blur, Gamma, Noise
from ctrs.data.samples import Change, Sample, sample_rng


def plain(value: float, bands: int = 3, px: int = 32) -> Sample:
    return Sample(
        image=np.full((px, px, bands), value, np.float32), mask=np.ones((px, px), np.uint8),
        valid=np.ones((px, px), bool),
    )  # fmt: skip


def results(change: Change, sample: Sample, count: int = 60) -> list[Sample]:
    before = sample.image.copy()
    found = [change(sample, sample_rng(0, 0, index)) for index in range(count)]
    np.testing.assert_array_equal(sample.image, before)
    for result in found:
        assert result.image.dtype == np.float32
        assert result.image.shape == before.shape
        assert 0 <= result.image.min() <= result.image.max() <= 1
        assert result.mask is sample.mask
        assert result.valid is sample.valid
    return found


@pytest.mark.parametrize("bands", [1, 2, 4, 8, 20])
@pytest.mark.parametrize("change", [BandShift(0.5), Gamma(0.9), Blur(10.0), Noise(0.5)])
def test_any_band_count_keeps_shape_and_range(change: Change, bands: int) -> None:
    image = np.random.default_rng(0).random((32, 32, bands), np.float32)
    sample = Sample(image=image, mask=np.ones((32, 32), np.uint8), valid=np.ones((32, 32), bool))
    assert any(not np.array_equal(result.image, image) for result in results(change, sample, 5))


def test_bands_shift_on_their_own_as_a_whole() -> None:
    shifts = np.array([result.image[0, 0] - 0.5 for result in results(BandShift(0.2), plain(0.5))])
    assert -0.2 <= shifts.min() < -0.15
    assert 0.15 < shifts.max() <= 0.2
    assert abs(np.corrcoef(shifts.T)[0, 1]) < 0.5
    assert all(np.ptp(result.image, axis=(0, 1)).max() == 0 for result in results(BandShift(0.2), plain(0.5)))


def test_gamma_raises_to_a_power_around_one() -> None:
    exponents = [np.log(result.image[0, 0, 0]) / np.log(0.5) for result in results(Gamma(0.4), plain(0.5))]
    assert 0.6 - 1e-4 <= min(exponents) < 0.7
    assert 1.3 < max(exponents) <= 1.4 + 1e-4
    for end in (0.0, 1.0):
        assert all((result.image == end).all() for result in results(Gamma(0.4), plain(end), 5))


def test_noise_has_a_standard_deviation_up_to_the_largest() -> None:
    found = np.array([result.image.std() for result in results(Noise(0.1), plain(0.5))])
    assert found.min() < 0.02
    assert 0.08 < found.max() < 0.105
    assert np.mean([result.image.mean() for result in results(Noise(0.1), plain(0.5))]) == pytest.approx(0.5, abs=0.002)


def test_blur_spreads_a_point_by_its_standard_deviation_in_pixels() -> None:
    sample = plain(0.0, 1, 65)
    sample.image[32, 32] = 1.0
    away = np.arange(65) - 32
    found = []
    for result in results(Blur(4.0), sample):
        profile = result.image[..., 0].sum(axis=0)
        assert profile.sum() == pytest.approx(1, abs=1e-3)
        found.append(float((profile * away**2).sum() ** 0.5))
    assert min(found) < 0.5
    assert 3.5 < max(found) < 4.1
