"""Samples made of several tiles: mosaic and CutMix.

Partners are drawn uniformly from the training tiles with the sample's own generator, so that a mixed sample is a pure
function of (seed, epoch, index, repetition) too. Pixels, masks and validity move together: a mixed mask holds no value
that its sources do not hold. What follows (turns, colour) is drawn once for the whole sample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ctrs.data.cropping import ZoomCrop
from ctrs.data.samples import Cut, DrawSource, Sample, Source


@dataclass(frozen=True, kw_only=True)
class Mosaic(Cut):
    """Put crops together from four tiles that meet at a random point of the crop's middle half.

    Each quarter is cut from its tile in the quarter's own size, at a random place and zoom of its own; the tile itself
    takes a random one of the four places (after Bochkovskiy et al. 2020, YOLOv4, section 3.3).

    Args:
        share: Share of the crops that are mosaics.
        crop: How tiles are cut.
    """

    share: float
    crop: ZoomCrop

    def __call__(self, tile: Source, rng: np.random.Generator, others: DrawSource) -> Sample:
        """Return a mosaic, or a crop of one tile."""
        if rng.random() >= self.share:
            return self.crop(tile, rng, others)
        px = self.crop.crop_px
        row, col = (int(rng.integers(px // 4, px - px // 4 + 1)) for _ in range(2))
        own_place = int(rng.integers(4))
        canvas = tile.nothing((px, px))
        for place in range(4):
            source = tile if place == own_place else others(rng)
            top, left = (0, row)[place // 2], (0, col)[place % 2]
            shape = (row, px - row)[place // 2], (col, px - col)[place % 2]
            canvas.paste(self.crop.cut(source, shape, rng), top, left)
        return canvas


@dataclass(frozen=True, kw_only=True)
class CutMix(Cut):
    """Paste a rectangle of another tile into crops (Yun et al. 2019; for masks French et al. 2020).

    The rectangle has the crop's aspect and, as there, a share of its area that is uniform in [0, 1]. Unlike there it
    lies wholly within the crop, so that its area is not cut off, and labels are pasted with the pixels, not blended.

    Args:
        share: Share of the crops that get a rectangle.
        crop: How the rectangle is cut from its tile.
        base: What it is pasted into: crops or mosaics.
    """

    share: float
    crop: ZoomCrop
    base: Cut

    def __call__(self, tile: Source, rng: np.random.Generator, others: DrawSource) -> Sample:
        """Return a mixed sample, or what ``base`` gives."""
        sample = self.base(tile, rng, others)
        if rng.random() >= self.share:
            return sample
        height, width = sample.shape
        edge = math.sqrt(rng.random())
        shape = max(1, round(height * edge)), max(1, round(width * edge))
        row, col = (int(rng.integers(0, whole - part + 1)) for whole, part in zip(sample.shape, shape, strict=True))
        canvas = tile.nothing(sample.shape)
        canvas.paste(sample, 0, 0)
        canvas.paste(self.crop.cut(others(rng), shape, rng), row, col)
        return canvas
