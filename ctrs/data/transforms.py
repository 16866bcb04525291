"""What happens to a tile between disk and network; the one file that knows albumentations.

Images are float32 (C, H, W) scaled to [0, 1] by the stored statistics before anything photometric (albumentations clips
floats above 1). Masks are resampled nearest at pixel centres, always, so that the set of their values never grows;
images bilinearly. What lies outside the tile is not valid: its mask is ``IGNORE_INDEX``.

Each random draw comes from the generator that is passed in, which ``sample_rng`` makes from (seed, epoch, index) alone:
no state lives in loader workers, and the result does not depend on how many there are.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ctrs.classes import IGNORE_INDEX, Mask
from ctrs.config import AugmentConfig
from ctrs.raster.bands import FloatArray

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # else importing it asks a package index for a newer release

import albumentations
import cv2
from albumentations.augmentations.geometric.functional import resize

cv2.setNumThreads(0)  # its thread pool does not survive the fork of loader processes, and tiles are small

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A tile or a part of it on the way to the network.

    Args:
        image: float32 (C, H, W) in [0, 1].
        mask: uint8 (H, W), class index or ``IGNORE_INDEX``.
        valid: bool (H, W), True where the image holds data.
    """

    image: FloatArray
    mask: Mask
    valid: BoolArray


class Transform(Protocol):
    """One step; several are joined by ``Chain``."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return a changed sample; the given one is left as it is."""


def sample_rng(seed: int, epoch: int, index: int, repetition: int = 0) -> np.random.Generator:
    """Return the generator of one tile in one epoch: a pure function of its arguments.

    Args:
        seed: Of the run.
        epoch: Epoch.
        index: Index of the tile.
        repetition: How often the tile was drawn before in this epoch.
    """
    again = [repetition] if repetition else []
    return np.random.default_rng(np.random.SeedSequence([seed, epoch, index, *again]))


@dataclass(frozen=True)
class Chain:
    """Transforms one after the other."""

    steps: Sequence[Transform]

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Apply each step."""
        for step in self.steps:
            sample = step(sample, rng)
        return sample


@dataclass(frozen=True)
class Resize:
    """Resample the whole sample by a factor, as ``ct-paper`` does with 500 px tiles (512 / 500)."""

    factor: float

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:  # noqa: ARG002
        """Return the sample on the finer or coarser grid."""
        height, width = sample.mask.shape
        return _resampled(sample, (_scaled_px(height, self.factor), _scaled_px(width, self.factor)))


@dataclass(frozen=True, kw_only=True)
class ZoomCrop:
    """Cut a square of ``crop_px`` at a random place, after a random zoom.

    The piece of the tile that the crop shows is cut first and only that piece is resampled. Where it reaches beyond the
    tile, the rest of the crop is not valid.

    Args:
        crop_px: Edge of the result in pixels.
        scale: Smallest and largest zoom; 2 shows objects twice as large.
        resize_factor: Zoom that applies always, on top of the random one.
    """

    crop_px: int
    scale: tuple[float, float] = (1.0, 1.0)
    resize_factor: float = 1.0

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return a sample of ``crop_px`` x ``crop_px``."""
        zoom = rng.uniform(*self.scale) * self.resize_factor
        source_px = max(1, round(self.crop_px / zoom))
        rows, out_rows = self._place(sample.mask.shape[0], source_px, rng)
        cols, out_cols = self._place(sample.mask.shape[1], source_px, rng)
        piece = Sample(image=sample.image[:, rows, cols], mask=sample.mask[rows, cols], valid=sample.valid[rows, cols])
        piece = _resampled(piece, (out_rows.stop - out_rows.start, out_cols.stop - out_cols.start))
        if piece.mask.shape == (self.crop_px, self.crop_px):
            return piece
        canvas = _nothing(sample.image.shape[0], self.crop_px)
        canvas.image[:, out_rows, out_cols] = piece.image
        canvas.mask[out_rows, out_cols] = piece.mask
        canvas.valid[out_rows, out_cols] = piece.valid
        return canvas

    def _place(self, length: int, source_px: int, rng: np.random.Generator) -> tuple[slice, slice]:
        """Draw where the piece lies along one axis: the part of the tile, and where that part lies in the crop."""
        spare = length - source_px
        start = int(rng.integers(min(0, spare), max(0, spare) + 1))
        first, last = max(0, start), min(length, start + source_px)
        ratio = self.crop_px / source_px
        out_first, out_last = round((first - start) * ratio), round((last - start) * ratio)
        if out_last == out_first:  # a sliver of less than half a pixel
            out_first = min(out_first, self.crop_px - 1)
            out_last = out_first + 1
        return slice(first, last), slice(out_first, out_last)


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
            image=np.ascontiguousarray(np.moveaxis(sample.image, 0, -1)),
            mask=sample.mask,
            valid=sample.valid.astype(np.uint8),
        )
        return Sample(
            image=np.ascontiguousarray(np.moveaxis(changed["image"], -1, 0)),
            mask=np.ascontiguousarray(changed["mask"]),
            valid=changed["valid"].astype(bool),
        )


def training_transform(config: AugmentConfig, *, crop_px: int, resize_factor: float = 1.0) -> Transform:
    """Return what training tiles go through.

    Args:
        config: Which random changes are made, and how far they go.
        crop_px: Edge of the crops in network pixels.
        resize_factor: Network pixels for each tile pixel.
    """
    steps: list[Transform] = [ZoomCrop(crop_px=crop_px, scale=config.scale, resize_factor=resize_factor)]
    changes: list[Any] = []
    if config.flip:
        changes += [albumentations.HorizontalFlip(p=0.5), albumentations.VerticalFlip(p=0.5)]
    if config.rotate90:
        changes.append(albumentations.RandomRotate90(p=1.0))
    if config.brightness or config.contrast:
        changes.append(
            albumentations.RandomBrightnessContrast(
                brightness_limit=config.brightness, contrast_limit=config.contrast, brightness_by_max=True, p=1.0
            )
        )
    if changes:
        steps.append(Albumentations(changes))
    return Chain(steps)


def whole_tile_transform(*, resize_factor: float = 1.0) -> Transform:
    """Return what validation tiles go through: nothing random."""
    return Resize(resize_factor)


def _scaled_px(length: int, factor: float) -> int:
    return max(1, round(length * factor))


def _resampled(sample: Sample, shape: tuple[int, int]) -> Sample:
    """Resample to (rows, columns): the image bilinearly, mask and validity nearest."""
    if sample.mask.shape == shape:
        return sample
    image = resize(np.ascontiguousarray(np.moveaxis(sample.image, 0, -1)), shape, cv2.INTER_LINEAR)
    mask = resize(np.ascontiguousarray(sample.mask), shape, cv2.INTER_NEAREST_EXACT)
    valid = resize(sample.valid.astype(np.uint8), shape, cv2.INTER_NEAREST_EXACT)
    return Sample(image=np.moveaxis(image, -1, 0), mask=mask, valid=valid.astype(bool))


def _nothing(count: int, size_px: int) -> Sample:
    """Return a sample without a valid pixel, to be written to."""
    return Sample(
        image=np.zeros((count, size_px, size_px), np.float32),
        mask=np.full((size_px, size_px), IGNORE_INDEX, np.uint8),
        valid=np.zeros((size_px, size_px), bool),
    )
