"""From a tile to a crop of the network's size, on a finer or coarser grid.

Masks are resampled nearest at pixel centres, always, so that the set of their values never grows; images bilinearly.
What lies outside the tile is not valid: its mask is ``IGNORE_INDEX``.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ctrs.data.samples import BoolArray, DrawSource, Sample, Source
from ctrs.raster.bands import FloatArray

cv2.setNumThreads(0)  # its thread pool does not survive the fork of loader processes, and tiles are small

_MOST_BANDS = 4
"""What OpenCV interpolates at once with the same rounding as single bands; two bands at once it rounds otherwise."""


@dataclass(frozen=True)
class WholeTile:
    """Resample the whole tile by a factor, as ``ct-paper`` does with 500 px tiles (512 / 500)."""

    factor: float

    def __call__(self, tile: Source, rng: np.random.Generator, others: DrawSource) -> Sample:  # noqa: ARG002
        """Return the tile on the finer or coarser grid."""
        height, width = tile.shape
        whole = tile.cut(slice(0, height), slice(0, width))
        return resampled(whole, (_scaled_px(height, self.factor), _scaled_px(width, self.factor)))


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

    def __call__(self, tile: Source, rng: np.random.Generator, others: DrawSource) -> Sample:  # noqa: ARG002
        """Return a sample of ``crop_px`` x ``crop_px``."""
        return self.cut(tile, (self.crop_px, self.crop_px), rng)

    def cut(self, tile: Source, shape: tuple[int, int], rng: np.random.Generator) -> Sample:
        """Return a sample of any number of rows and columns."""
        zoom = rng.uniform(*self.scale) * self.resize_factor
        rows, out_rows = _place(tile.shape[0], shape[0], zoom, rng)
        cols, out_cols = _place(tile.shape[1], shape[1], zoom, rng)
        piece = resampled(tile.cut(rows, cols), (out_rows.stop - out_rows.start, out_cols.stop - out_cols.start))
        if piece.shape == shape:
            return piece
        canvas = tile.nothing(shape)
        canvas.paste(piece, out_rows.start, out_cols.start)
        return canvas


def _place(length: int, crop_px: int, zoom: float, rng: np.random.Generator) -> tuple[slice, slice]:
    """Draw where the piece lies along one axis: the part of the tile, and where that part lies in the crop."""
    source_px = max(1, round(crop_px / zoom))
    spare = length - source_px
    start = int(rng.integers(min(0, spare), max(0, spare) + 1))
    first, last = max(0, start), min(length, start + source_px)
    ratio = crop_px / source_px
    out_first, out_last = round((first - start) * ratio), round((last - start) * ratio)
    if out_last == out_first:  # a sliver of less than half a pixel
        out_first = min(out_first, crop_px - 1)
        out_last = out_first + 1
    return slice(first, last), slice(out_first, out_last)


def _scaled_px(length: int, factor: float) -> int:
    return max(1, round(length * factor))


def resampled(sample: Sample, shape: tuple[int, int]) -> Sample:
    """Resample to (rows, columns): the image bilinearly, mask and validity nearest."""
    if sample.shape == shape:
        return sample
    size = shape[::-1]
    return Sample(
        image=_resampled_image(sample.image, size),
        mask=np.asarray(cv2.resize(sample.mask, size, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8),
        valid=_resampled_valid(sample.valid, size),
    )


def _resampled_image(image: FloatArray, size: tuple[int, int]) -> FloatArray:
    count = image.shape[2]
    step = 1 if count > _MOST_BANDS and count % _MOST_BANDS == 2 else _MOST_BANDS
    parts = [
        cv2.resize(image[..., first : first + step], size, interpolation=cv2.INTER_LINEAR)
        for first in range(0, count, step)
    ]
    joined = parts[0] if len(parts) == 1 else np.dstack(parts)
    return np.asarray(joined, np.float32).reshape(*size[::-1], count)  # OpenCV drops the axis of a single band


def _resampled_valid(valid: BoolArray, size: tuple[int, int]) -> BoolArray:
    if valid.all():
        return np.ones(size[::-1], bool)
    return cv2.resize(valid.view(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT).view(bool)
