"""What a tile is on its way to the network, and the random numbers that belong to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ctrs.classes import IGNORE_INDEX, Mask
from ctrs.raster.bands import FloatArray

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A tile or a part of it on the way to the network; it serves as a ``Source`` too.

    Args:
        image: float32 (H, W, C) in [0, 1].
        mask: uint8 (H, W), class index or ``IGNORE_INDEX``.
        valid: bool (H, W), True where the image holds data.
    """

    image: FloatArray
    mask: Mask
    valid: BoolArray

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.mask.shape[0], self.mask.shape[1]

    def cut(self, rows: slice, cols: slice) -> Sample:
        """Return a part of the sample, as views."""
        return Sample(image=self.image[rows, cols], mask=self.mask[rows, cols], valid=self.valid[rows, cols])

    def paste(self, piece: Sample, row: int, col: int) -> None:
        """Write another sample over a part of this one, which must own its arrays."""
        height, width = piece.shape
        rows, cols = slice(row, row + height), slice(col, col + width)
        self.image[rows, cols] = piece.image
        self.mask[rows, cols] = piece.mask
        self.valid[rows, cols] = piece.valid

    def nothing(self, shape: tuple[int, int]) -> Sample:
        """Return a sample of as many bands without a valid pixel, to be written to."""
        return nothing(shape, np.zeros(self.image.shape[2], np.float32))


class Source(Protocol):
    """What samples are cut from; only the part that is cut is decoded further."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""

    def cut(self, rows: slice, cols: slice) -> Sample:
        """Return a part, which must not be written to."""

    def nothing(self, shape: tuple[int, int]) -> Sample:
        """Return a sample of as many bands without a valid pixel, to be written to."""


DrawSource = Callable[[np.random.Generator], Source]
"""Draws another tile."""


class Cut(Protocol):
    """First step on the way: from a tile to a sample."""

    def __call__(self, tile: Source, rng: np.random.Generator, others: DrawSource) -> Sample:
        """Return a sample that must not be written to."""


class Change(Protocol):
    """Further step on the way; several are joined by ``Chain``."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return a changed sample; the given one is left as it is."""


def nothing(shape: tuple[int, int], color: FloatArray) -> Sample:
    """Return a sample without a valid pixel, to be written to.

    Args:
        shape: Rows and columns.
        color: (C,) values that its pixels have, lest resampling and blur draw odd ones into valid pixels.
    """
    image = np.empty((*shape, len(color)), np.float32)
    image[:] = np.tile(color, (shape[1], 1))  # row by row is faster than pixel by pixel
    return Sample(image=image, mask=np.full(shape, IGNORE_INDEX, np.uint8), valid=np.zeros(shape, bool))


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
