from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ctrs.classes import IGNORE_INDEX
from ctrs.data.cropping import ZoomCrop
from ctrs.data.mixing import CutMix, Mosaic
from ctrs.data.samples import Sample, sample_rng

PX = 32


def tile_of(number: int, px: int = 40) -> Sample:
    """A tile whose mask is its number and whose image is a tenth of it; its left column is not valid."""
    valid = np.ones((px, px), bool)
    valid[:, 0] = False
    return Sample(
        image=np.full((px, px, 2), number / 10, np.float32), mask=np.full((px, px), number, np.uint8), valid=valid
    )


def drawing(*numbers: int) -> Callable[[np.random.Generator], Sample]:
    """Draw tiles in turn, whatever the generator says."""
    rest = iter(numbers)
    return lambda _: tile_of(next(rest))


def check_register(sample: Sample, allowed: set[int]) -> None:
    assert sample.image.shape == (PX, PX, 2)
    np.testing.assert_allclose(sample.image[..., 0], sample.mask / 10, atol=1e-6)
    assert set(np.unique(sample.mask)) <= allowed


def test_a_mosaic_shows_four_tiles_that_meet_in_the_middle_half() -> None:
    mosaic = Mosaic(share=1.0, crop=ZoomCrop(crop_px=PX, scale=(0.8, 1.5)))
    own_places, meets = set(), set()
    for index in range(60):
        sample = mosaic(tile_of(1), sample_rng(0, 0, index), drawing(2, 3, 4))
        check_register(sample, {1, 2, 3, 4})
        corners = [int(sample.mask[row, col]) for row in (0, -1) for col in (0, -1)]
        assert sorted(corners) == [1, 2, 3, 4]
        own_places.add(corners.index(1))
        row = int((sample.mask[:, 0] == corners[0]).sum())
        assert (sample.mask[:row, 0] == corners[0]).all()
        assert PX // 4 <= row <= PX - PX // 4
        meets.add(row)
    assert own_places == {0, 1, 2, 3}
    assert len(meets) > 10


def test_cutmix_pastes_one_rectangle_of_another_tile_of_any_size() -> None:
    crop = ZoomCrop(crop_px=PX)
    cutmix = CutMix(share=1.0, crop=crop, base=crop)
    shares = []
    for index in range(200):
        sample = cutmix(tile_of(1), sample_rng(0, 0, index), drawing(2))
        check_register(sample, {1, 2})
        rows, cols = np.nonzero(sample.mask == 2)
        assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(cols) + 1)  # a rectangle
        shares.append(len(rows) / PX**2)
    assert np.mean(shares) == pytest.approx(0.5, abs=0.06)
    assert min(shares) < 0.1
    assert max(shares) > 0.9


def test_shares_tell_how_many_crops_are_mixed() -> None:
    crop = ZoomCrop(crop_px=PX)
    mosaic = Mosaic(share=0.3, crop=crop)
    both = CutMix(share=0.5, crop=crop, base=mosaic)
    mosaics = [mosaic(tile_of(1), sample_rng(0, 0, index), drawing(2, 2, 2)) for index in range(300)]
    assert sum(bool((sample.mask == 2).any()) for sample in mosaics) == pytest.approx(90, abs=25)
    mixed = [both(tile_of(1), sample_rng(0, 1, index), drawing(2, 2, 2, 3)) for index in range(300)]
    pasted = sum(len({*np.unique(sample.mask)} - {1}) > 0 for sample in mixed)
    assert pasted == pytest.approx(300 * (1 - 0.7 * 0.5), abs=25)


def test_mixed_samples_keep_what_is_not_valid_and_leave_their_sources_alone() -> None:
    crop = ZoomCrop(crop_px=PX, scale=(1.0, 1.0))
    cutmix = CutMix(share=1.0, crop=crop, base=Mosaic(share=0.5, crop=crop))
    empty = Sample(image=np.zeros((8, 8, 2), np.float32), mask=np.zeros((8, 8), np.uint8), valid=np.zeros((8, 8), bool))
    own = tile_of(1)
    for index in range(20):
        sample = cutmix(own, sample_rng(0, 0, index), lambda _: empty)
        assert set(np.unique(sample.mask[sample.valid])) <= {1}
        assert set(np.unique(sample.mask)) <= {0, 1, IGNORE_INDEX}
        assert not sample.valid[sample.mask != 1].any()
    np.testing.assert_array_equal(own.mask, tile_of(1).mask)
    np.testing.assert_array_equal(own.valid, tile_of(1).valid)
    np.testing.assert_array_equal(own.image, tile_of(1).image)
    assert not empty.valid.any()
