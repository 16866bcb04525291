"""What happens to a tile between disk and network; the one file that knows albumentations.

Images are scaled to [0, 1] by the stored statistics before anything photometric (albumentations clips floats above 1).

Each random draw comes from the generator that is passed in, which ``sample_rng`` makes from the sample's key alone: no
state lives in loader workers, and the result does not depend on how many there are.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ctrs.classes import IGNORE_INDEX
from ctrs.config import AugmentConfig
from ctrs.data.cropping import WholeTile, ZoomCrop
from ctrs.data.mixing import CutMix, Mosaic
from ctrs.data.photometric import BandShift, Blur, Gamma, Noise
from ctrs.data.samples import Change, Cut, DrawSource, Sample, Source
from ctrs.raster.bands import FloatArray

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # else importing it asks a package index for a newer release

import albumentations

_ROWS_AT_ONCE = 32
_QUARTERS = (cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE)
_BYTES_TURNED = (1, 2, 4, 8, 12, 16, 24, 32)  # sizes of a pixel that OpenCV can turn


@dataclass(frozen=True)
class Transform(Cut):
    """The whole way: a cut and the changes after it.

    Args:
        cut: From a tile to a sample.
        changes: One after the other.
    """

    cut: Cut
    changes: Sequence[Change] = ()

    def __call__(self, tile: Source, rng: np.random.Generator, others: DrawSource | None = None) -> Sample:
        """Return a sample, which may share memory with the tile.

        Args:
            tile: The tile.
            rng: All that is random.
            others: Draws other tiles to mix with; None: mixes the tile with itself.
        """
        sample = self.cut(tile, rng, others or (lambda _: tile))
        for change in self.changes:
            sample = change(sample, rng)
        return sample


@dataclass(frozen=True)
class Turn(Change):
    """Turn about the centre by an angle from [-most, most] degrees; what turns in is not valid."""

    most: float

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the turned sample."""
        height, width = sample.shape
        angle = rng.uniform(-self.most, self.most)
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
        size = (width, height)
        # The rim of the image is repeated outwards, so that nothing odd is interpolated into its outermost pixels.
        image = cv2.warpAffine(sample.image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        mask = cv2.warpAffine(sample.mask, matrix, size, flags=cv2.INTER_NEAREST, borderValue=IGNORE_INDEX)
        valid = cv2.warpAffine(sample.valid.view(np.uint8), matrix, size, flags=cv2.INTER_NEAREST, borderValue=0)
        return Sample(
            image=np.asarray(image, np.float32).reshape(sample.image.shape),
            mask=np.asarray(mask, np.uint8),
            valid=valid.view(bool),
        )


class QuarterTurn(albumentations.RandomRotate90):  # type: ignore[misc]
    """``RandomRotate90`` in a third of the time."""

    def apply(self, img: npt.NDArray[Any], factor: int, **_: Any) -> npt.NDArray[Any]:
        """Return the image turned counterclockwise by ``factor`` quarters."""
        if factor == 0 or img[0, 0].nbytes not in _BYTES_TURNED:
            return np.ascontiguousarray(np.rot90(img, factor))
        turned: npt.NDArray[Any] = cv2.rotate(img, _QUARTERS[factor - 1])
        return turned.reshape(*turned.shape[:2], *img.shape[2:])  # OpenCV drops the axis of a single band


class BrightnessContrast(albumentations.RandomBrightnessContrast):  # type: ignore[misc]
    """``RandomBrightnessContrast`` to the same bits in less time, without copies of the whole image."""

    def apply(self, img: FloatArray, alpha: float, beta: float, **_: Any) -> FloatArray:
        """Return ``alpha * img + beta``, computed in double precision and clipped."""
        changed = np.empty_like(img)
        factor = float(np.float32(alpha))
        for first in range(0, len(img), _ROWS_AT_ONCE):  # what fits in the processor's cache
            rows = img[first : first + _ROWS_AT_ONCE].astype(np.float64)
            rows *= factor
            rows += beta
            changed[first : first + _ROWS_AT_ONCE] = np.clip(rows, 0.0, 1.0, out=rows)
        return changed


class Albumentations:
    """albumentations transforms behind our interface, with their randomness drawn from ours.

    Any of its dual transforms and the photometric ones that accept float32 of any band count will do.
    """

    def __init__(self, steps: Sequence[Any]) -> None:
        self._compose = albumentations.Compose(
            list(steps), additional_targets={"valid": "mask"}, mask_interpolation=cv2.INTER_NEAREST_EXACT, seed=0
        )

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Apply all transforms."""
        # Both generators are shared by all steps; set_random_seed would give each step the same numbers.
        self._compose.set_random_state(rng, random.Random(int(rng.integers(2**63))))
        changed = self._compose(
            image=np.ascontiguousarray(sample.image),
            mask=sample.mask,
            valid=sample.valid.view(np.uint8),
        )
        return Sample(image=changed["image"], mask=changed["mask"], valid=changed["valid"].view(bool))


def training_transform(config: AugmentConfig, *, crop_px: int, resize_factor: float = 1.0) -> Transform:
    """Return what training tiles go through.

    Args:
        config: Which random changes are made, and how far they go.
        crop_px: Edge of the crops in network pixels.
        resize_factor: Network pixels for each tile pixel.
    """
    crop = ZoomCrop(crop_px=crop_px, scale=config.scale, resize_factor=resize_factor)
    cut: Cut = crop
    if config.mosaic:
        cut = Mosaic(share=config.mosaic, crop=crop)
    if config.cutmix:
        cut = CutMix(share=config.cutmix, crop=crop, base=cut)
    changes: list[Change] = [Turn(config.rotate)] if config.rotate else []
    steps: list[Any] = []
    if config.flip:
        steps += [albumentations.HorizontalFlip(p=0.5), albumentations.VerticalFlip(p=0.5)]
    if config.rotate90:
        steps.append(QuarterTurn(p=1.0))
    if config.brightness or config.contrast:
        steps.append(
            BrightnessContrast(
                brightness_limit=config.brightness, contrast_limit=config.contrast, brightness_by_max=True, p=1.0
            )
        )
    if steps:
        changes.append(Albumentations(steps))
    if config.band_shift:
        changes.append(BandShift(config.band_shift))
    if config.gamma:
        changes.append(Gamma(config.gamma))
    if config.blur:
        changes.append(Blur(config.blur))
    if config.noise:  # last, as a sensor adds it to what the lens has blurred
        changes.append(Noise(config.noise))
    return Transform(cut, changes)


def whole_tile_transform(*, resize_factor: float = 1.0) -> Transform:
    """Return what validation tiles go through: nothing random."""
    return Transform(WholeTile(resize_factor))
