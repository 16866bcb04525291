from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import albumentations
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ctrs
from ctrs.classes import IGNORE_INDEX
from ctrs.config import AugmentConfig
from ctrs.data.cropping import WholeTile, ZoomCrop
from ctrs.data.samples import Sample, sample_rng
from ctrs.data.transforms import (
    BrightnessContrast,
    QuarterTurn,
    Transform,
    Turn,
    training_transform,
    whole_tile_transform,
)
from ctrs.raster.bands import Bands

NOTHING_RANDOM = AugmentConfig(flip=False, rotate90=False, scale=(1.0, 1.0), brightness=0.0, contrast=0.0)


def make_sample(
    height: int, width: int, bands: int = 3, *, values: tuple[int, ...] = (0, 3, 7), seed: int = 0
) -> Sample:
    rng = np.random.default_rng(seed)
    return Sample(
        image=rng.random((height, width, bands), np.float32),
        mask=rng.choice(np.array(values, np.uint8), (height, width)),
        valid=rng.random((height, width)) > 0.1,
    )


def bands_for(pixels: npt.NDArray[Any]) -> Bands:
    count = pixels.shape[0]
    flat = pixels.reshape(count, -1).astype(np.float64)
    low, high = flat.min(axis=1), flat.max(axis=1)
    return Bands(
        names=tuple(f"band{number}" for number in range(count)), dtype=str(pixels.dtype), low=tuple(low),
        high=tuple(high), mean=tuple(flat.mean(axis=1)), std=tuple(flat.std(axis=1)),
    )  # fmt: skip


@pytest.mark.parametrize("count", [1, 3, 4, 8, 20])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_any_band_count_and_dtype_goes_through_training_transforms(count: int, dtype: str) -> None:
    rng = np.random.default_rng(0)
    low, high = (-3000, 3000) if dtype == "int16" else (0, 255 if dtype == "uint8" else 4000)
    pixels = rng.integers(low, high, (count, 80, 90)).astype(dtype)
    scaled = np.moveaxis(bands_for(pixels).scale(pixels), 0, -1)
    sample = Sample(image=scaled, mask=np.zeros((80, 90), np.uint8), valid=np.ones((80, 90), bool))
    result = training_transform(AugmentConfig(), crop_px=64)(sample, sample_rng(0, 0, 0))
    assert result.image.shape == (64, 64, count)
    assert result.image.dtype == np.float32
    assert 0 <= result.image.min() < result.image.max() <= 1
    assert result.mask.shape == result.valid.shape == (64, 64)


EVERYTHING = AugmentConfig(
    rotate=30.0, gamma=0.4, noise=0.1, blur=2.0, band_shift=0.1, cutmix=0.5, mosaic=0.5, scale=(0.5, 2.0)
)


@settings(max_examples=60)
@given(
    height=st.integers(8, 70),
    width=st.integers(8, 70),
    crop=st.integers(8, 64),
    factor=st.sampled_from([1.0, 512 / 500, 0.5]),
    seed=st.integers(0, 10**6),
)
def test_mask_values_never_grow_and_sizes_are_as_asked(
    height: int, width: int, crop: int, factor: float, seed: int
) -> None:
    sample = make_sample(height, width, values=(0, 3, 7), seed=seed)
    transform = training_transform(AugmentConfig(scale=(0.5, 2.0)), crop_px=crop, resize_factor=factor)
    result = transform(sample, sample_rng(seed, 1, 2))
    assert result.image.shape == (crop, crop, 3)
    assert set(np.unique(result.mask)) <= {0, 3, 7, IGNORE_INDEX}
    assert set(np.unique(result.mask[result.valid])) <= {0, 3, 7}
    assert np.isfinite(result.image).all()


def test_equal_seed_epoch_and_index_give_equal_samples_and_others_differ() -> None:
    sample = make_sample(64, 64)
    transform = training_transform(AugmentConfig(), crop_px=48)
    first = transform(sample, sample_rng(1, 2, 3))
    for _ in range(3):  # whatever was transformed in between
        transform(sample, sample_rng(9, 9, 9))
    again = training_transform(AugmentConfig(), crop_px=48)(sample, sample_rng(1, 2, 3))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.mask, again.mask)
    for other in ((0, 2, 3), (1, 0, 3), (1, 2, 0)):
        assert not np.array_equal(first.image, transform(sample, sample_rng(*other)).image)


def test_transforms_leave_their_input_alone() -> None:
    sample = make_sample(64, 64)
    image, mask, valid = sample.image.copy(), sample.mask.copy(), sample.valid.copy()
    for index in range(8):
        training_transform(AugmentConfig(), crop_px=64)(sample, sample_rng(0, 0, index))
    np.testing.assert_array_equal(sample.image, image)
    np.testing.assert_array_equal(sample.mask, mask)
    np.testing.assert_array_equal(sample.valid, valid)


@settings(max_examples=30)
@given(count=st.sampled_from([1, 3, 20]), crop=st.integers(8, 48), seed=st.integers(0, 10**6))
def test_with_everything_on_mask_values_come_from_the_sources_and_values_stay_in_range(
    count: int, crop: int, seed: int
) -> None:
    tile, other = make_sample(40, 50, count, values=(0, 3), seed=seed), make_sample(30, 60, count, values=(5,), seed=1)
    transform = training_transform(EVERYTHING, crop_px=crop)
    result = transform(tile, sample_rng(seed, 0, 0), lambda _: other)
    assert result.image.shape == (crop, crop, count)
    assert result.image.dtype == np.float32
    assert np.isfinite(result.image).all()
    assert 0 <= result.image.min() <= result.image.max() <= 1
    assert set(np.unique(result.mask)) <= {0, 3, 5, IGNORE_INDEX}
    assert set(np.unique(result.mask[result.valid])) <= {0, 3, 5}
    again = training_transform(EVERYTHING, crop_px=crop)(tile, sample_rng(seed, 0, 0), lambda _: other)
    np.testing.assert_array_equal(result.image, again.image)
    np.testing.assert_array_equal(result.mask, again.mask)
    np.testing.assert_array_equal(result.valid, again.valid)


def half_plane(px: int, bands: int) -> Sample:
    mask = np.zeros((px, px), np.uint8)
    mask[:, 30:] = 1
    image = np.repeat(mask[..., None].astype(np.float32), bands, axis=2)
    return Sample(image=image, mask=mask, valid=np.ones((px, px), bool))


@pytest.mark.parametrize("bands", [1, 3, 5])
def test_turns_by_any_angle_keep_image_mask_and_validity_in_register(bands: int) -> None:
    sample = half_plane(65, bands)
    for index in range(30):
        result = Turn(180.0)(sample, sample_rng(0, 0, index))
        assert result.image.shape == sample.image.shape
        assert (result.mask[~result.valid] == IGNORE_INDEX).all()
        assert IGNORE_INDEX not in result.mask[result.valid]
        for band in range(bands):
            values = result.image[..., band]
            decided = result.valid & (abs(values - 0.5) > 0.05)
            assert decided.mean() > 0.6
            np.testing.assert_array_equal(result.mask[decided], values[decided] > 0.5)


def test_what_turns_in_from_outside_is_not_valid_and_leaves_valid_pixels_alone() -> None:
    px = 33
    sample = Sample(
        image=np.ones((px, px, 2), np.float32), mask=np.ones((px, px), np.uint8), valid=np.ones((px, px), bool)
    )
    shares = []
    for index in range(20):
        result = Turn(45.0)(sample, sample_rng(0, 0, index))
        assert (result.image == 1).all()
        shares.append(result.valid.mean())
    assert 0.8 < min(shares) < 0.9
    assert max(shares) > 0.95


@pytest.mark.parametrize("count", [1, 3, 5, 7, 8, 20])
def test_own_turns_and_contrast_equal_those_of_albumentations_bit_for_bit(count: int) -> None:
    image = np.random.default_rng(0).random((40, 30, count), np.float32)
    theirs, ours = albumentations.RandomRotate90(), QuarterTurn()
    for factor in range(4):
        for array in (image, image[..., 0].copy(), (image[..., 0] > 0.5).astype(np.uint8)):
            np.testing.assert_array_equal(ours.apply(array, factor), theirs.apply(array, factor))
    theirs, ours = albumentations.RandomBrightnessContrast(), BrightnessContrast()
    for alpha, beta in ((1.0, 0.0), (1.1, 0.1), (0.87, -0.13), (1.0, 0.07), (1.49, 0.0)):
        np.testing.assert_array_equal(ours.apply(image, alpha, beta), theirs.apply(image, alpha, beta))


def test_what_is_off_changes_nothing_that_is_drawn() -> None:
    """Options at 0 draw no random numbers: samples are those of versions that did not have the options."""
    sample = make_sample(64, 64)
    default = training_transform(AugmentConfig(), crop_px=48)(sample, sample_rng(0, 1, 2))
    digest = hashlib.sha256(default.image.tobytes() + default.mask.tobytes() + default.valid.tobytes()).hexdigest()
    assert digest[:16] == "d3161796d25589ad"


@pytest.mark.parametrize("changes", [{"flip": True}, {"rotate90": True}, {"flip": True, "rotate90": True}])
def test_flips_and_turns_move_image_mask_and_validity_together(changes: dict[str, bool]) -> None:
    mask = np.arange(36, dtype=np.uint8).reshape(6, 6)
    sample = Sample(image=mask[..., None].astype(np.float32) / 35, mask=mask, valid=mask % 5 != 0)
    config = AugmentConfig(
        flip=changes.get("flip", False), rotate90=changes.get("rotate90", False), scale=(1, 1), brightness=0, contrast=0
    )
    transform = training_transform(config, crop_px=6)
    seen = set()
    for index in range(64):
        result = transform(sample, sample_rng(0, 0, index))
        np.testing.assert_array_equal(np.round(result.image[..., 0] * 35), result.mask)
        np.testing.assert_array_equal(result.valid, result.mask % 5 != 0)
        seen.add(result.mask.tobytes())
    assert len(seen) == (8 if len(changes) == 2 else 4)


def test_nothing_random_is_the_identity() -> None:
    sample = make_sample(64, 64)
    result = training_transform(NOTHING_RANDOM, crop_px=64)(sample, sample_rng(0, 0, 0))
    np.testing.assert_array_equal(result.image, sample.image)
    np.testing.assert_array_equal(result.mask, sample.mask)


def test_crops_reach_every_place_and_are_cut_not_resampled() -> None:
    mask = np.arange(100, dtype=np.uint8).reshape(10, 10)
    sample = Sample(image=mask[..., None].astype(np.float32), mask=mask, valid=np.ones((10, 10), bool))
    corners = {int(Transform(ZoomCrop(crop_px=8))(sample, sample_rng(0, 0, index)).mask[0, 0]) for index in range(200)}
    assert corners == {row * 10 + col for row in range(3) for col in range(3)}


def test_what_lies_beyond_the_tile_is_not_valid_and_ignored() -> None:
    sample = Sample(
        image=np.ones((10, 12, 2), np.float32), mask=np.full((10, 12), 4, np.uint8), valid=np.ones((10, 12), bool)
    )
    result = Transform(ZoomCrop(crop_px=16))(sample, sample_rng(0, 0, 0))
    assert result.valid.sum() == 120
    assert (result.image[result.valid] == 1).all()
    assert (result.mask[~result.valid] == IGNORE_INDEX).all()
    assert (result.mask[result.valid] == 4).all()


def test_zoom_shows_objects_larger() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[24:40, 24:40] = 1
    sample = Sample(image=mask[..., None].astype(np.float32), mask=mask, valid=np.ones((64, 64), bool))
    for zoom in (0.5, 2.0):
        result = Transform(ZoomCrop(crop_px=128, scale=(zoom, zoom)))(sample, sample_rng(0, 0, 0))
        assert result.mask[result.valid].sum() == pytest.approx(256 * zoom**2, rel=0.05)


def test_mask_and_image_stay_in_register_when_resampled() -> None:
    """The boundary of a half plane, halfway in the image's blend, lies where the nearest mask changes."""
    mask = np.zeros((40, 40), np.uint8)
    mask[:, 17:] = 1
    sample = Sample(image=mask[..., None].astype(np.float32), mask=mask, valid=np.ones((40, 40), bool))
    for factor in (0.75, 0.9, 1.3, 1.5, 512 / 500, 1.9):
        result = Transform(WholeTile(factor))(sample, sample_rng(0, 0, 0))
        decided = abs(result.image[..., 0] - 0.5) > 0.01
        np.testing.assert_array_equal(result.image[..., 0][decided] > 0.5, result.mask[decided] == 1)


def test_whole_tiles_are_resized_by_the_factor() -> None:
    sample = make_sample(500, 250)
    result = whole_tile_transform(resize_factor=512 / 500)(sample, sample_rng(0, 0, 0))
    assert result.mask.shape == (512, 256)
    assert result.image.shape == (512, 256, 3)


def test_brightness_and_contrast_change_values_and_keep_the_range() -> None:
    sample = make_sample(32, 32)
    config = AugmentConfig(flip=False, rotate90=False, scale=(1, 1), brightness=0.5, contrast=0.5)
    transform = training_transform(config, crop_px=32)
    means = [float(transform(sample, sample_rng(0, 0, index)).image.mean()) for index in range(50)]
    assert min(means) < 0.35 < 0.65 < max(means)
    np.testing.assert_array_equal(transform(sample, sample_rng(0, 0, 0)).mask, sample.mask)


def imported(source: str) -> Iterator[str]:
    """Yield the names of modules that some code imports, also within functions and by their name as text."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in (
            "import_module",
            "__import__",
        ):
            yield from (str(given.value) for given in node.args if isinstance(given, ast.Constant))


def test_one_file_alone_knows_albumentations() -> None:
    package = Path(ctrs.__file__).parent
    users = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if any(name.partition(".")[0] == "albumentations" for name in imported(path.read_text(encoding="utf-8")))
    }
    assert users == {"data/transforms.py"}
