"""Random changes of an image's values, for any number of bands; masks and validity stay as they are.

Images are float32 (H, W, C) in [0, 1] and stay so. Pixels that are not valid are changed like all others, which has no
effect: they become 0 when the image is standardized.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ctrs.data.samples import Change, Sample
from ctrs.raster.bands import FloatArray


@dataclass(frozen=True)
class BandShift(Change):
    """Add a number to each band, drawn for each from [-most, most]."""

    most: float

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the sample with shifted bands."""
        shift = np.asarray(rng.uniform(-self.most, self.most, sample.image.shape[2]), np.float32)
        return _with_image(sample, _clipped(sample.image + shift))


@dataclass(frozen=True)
class Gamma(Change):
    """Raise values to a power from [1 - most, 1 + most]."""

    most: float

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return a darker or lighter sample, in which 0 and 1 stay as they are."""
        exponent = 1 + rng.uniform(-self.most, self.most)
        return _with_image(sample, _clipped(_banded(cv2.pow(sample.image, exponent), sample)))


@dataclass(frozen=True)
class Blur(Change):
    """Blur with a Gaussian, its standard deviation drawn from [0, most] pixels."""

    most: float

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return a blurred sample."""
        sigma = max(1e-3, rng.uniform(0, self.most))
        blurred = cv2.GaussianBlur(sample.image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)
        return _with_image(sample, _clipped(_banded(blurred, sample)))


@dataclass(frozen=True)
class Noise(Change):
    """Add Gaussian noise to each value, its standard deviation drawn from [0, most]."""

    most: float

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return a noisy sample."""
        sigma = np.float32(rng.uniform(0, self.most))
        noise = rng.standard_normal(sample.image.shape, dtype=np.float32)
        noise *= sigma
        noise += sample.image
        return _with_image(sample, _clipped(noise))


def _with_image(sample: Sample, image: FloatArray) -> Sample:
    return dataclasses.replace(sample, image=image)


def _banded(image: npt.ArrayLike, like: Sample) -> FloatArray:
    """Give a single band back its axis, which OpenCV drops."""
    return np.asarray(image, np.float32).reshape(like.image.shape)


def _clipped(image: FloatArray) -> FloatArray:
    return np.clip(image, 0.0, 1.0, out=image)
