"""Band statistics over valid pixels, gathered tile by tile and joined, in memory for one tile."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ctrs.errors import DataWarning
from ctrs.raster.bands import Bands

ReadTile = Callable[[], tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]]
"""Returns the pixels (C, h, w) and the valid mask (h, w) of a tile."""

LOW_QUANTILE, HIGH_QUANTILE = 0.001, 0.999
_BINS = 65536
_ROUNDS = 4


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Count, mean, sum of squared deviations, least and greatest value of each band over valid pixels."""

    count: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    least: tuple[float, ...]
    greatest: tuple[float, ...]

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Moments:
        """Build from the JSON of ``dataclasses.asdict``."""
        return cls(
            count=int(row["count"]),
            mean=tuple(row["mean"]),
            deviation=tuple(row["deviation"]),
            least=tuple(row["least"]),
            greatest=tuple(row["greatest"]),
        )

    @classmethod
    def of(cls, pixels: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> Moments:
        """Measure a tile: pixels (C, h, w), valid mask (h, w)."""
        if pixels.dtype == np.uint8:
            return cls._of_bytes(pixels, valid)
        values = pixels[:, valid].astype(np.float64)
        if not values.shape[1]:
            zeros = (0.0,) * len(pixels)
            return cls(count=0, mean=zeros, deviation=zeros, least=zeros, greatest=zeros)
        mean = values.mean(axis=1)
        return cls(
            count=values.shape[1],
            mean=tuple(mean.tolist()),
            deviation=tuple(((values - mean[:, None]) ** 2).sum(axis=1).tolist()),
            least=tuple(values.min(axis=1).tolist()),
            greatest=tuple(values.max(axis=1).tolist()),
        )

    @classmethod
    def _of_bytes(cls, pixels: npt.NDArray[np.uint8], valid: npt.NDArray[np.bool_]) -> Moments:
        """Measure with whole numbers, which is exact and several times faster."""
        count = int(valid.sum())
        rows: list[tuple[float, float, float, float]] = []
        for band in pixels:
            values = band if count == band.size else band[valid]
            if not count:
                rows.append((0.0, 0.0, 0.0, 0.0))
                continue
            total = int(values.sum(dtype=np.uint64))
            squares = int(np.square(values, dtype=np.uint16).sum(dtype=np.uint64))
            deviation = (squares * count - total * total) / count
            rows.append((total / count, deviation, float(values.min()), float(values.max())))
        mean, deviations, least, greatest = (tuple(column) for column in zip(*rows, strict=True))
        return cls(count=count, mean=mean, deviation=deviations, least=least, greatest=greatest)


def join(parts: Iterable[Moments]) -> Moments:
    """Join the moments of disjoint sets of pixels (Chan, Golub, LeVeque 1979)."""
    filled = [part for part in parts if part.count]
    if not filled:
        return Moments(count=0, mean=(), deviation=(), least=(), greatest=())
    counts = np.array([part.count for part in filled], np.float64)[:, None]
    means = np.array([part.mean for part in filled])
    total = counts.sum()
    mean = (counts * means).sum(axis=0) / total
    deviation = np.array([part.deviation for part in filled]).sum(axis=0) + (counts * (means - mean) ** 2).sum(axis=0)
    return Moments(
        count=int(total),
        mean=tuple(mean.tolist()),
        deviation=tuple(deviation.tolist()),
        least=tuple(np.min([part.least for part in filled], axis=0).tolist()),
        greatest=tuple(np.max([part.greatest for part in filled], axis=0).tolist()),
    )


def band_statistics(
    names: Sequence[str], dtype: str, nodata: float | None, moments: Moments, tiles: Sequence[ReadTile]
) -> Bands:
    """Describe the bands of a data set.

    Args:
        names: Band names.
        dtype: rasterio dtype.
        nodata: Nodata value, None for none.
        moments: Of the training tiles.
        tiles: Readers of the training tiles; called for dtypes other than ``uint8`` only.
    """
    constant = [name for name, low, high in zip(names, moments.least, moments.greatest, strict=True) if low == high]
    if constant:
        warnings.warn(
            f"constant over all training tiles: band {', '.join(constant)}; leave it out or check the imagery",
            DataWarning,
            stacklevel=2,
        )
    std = tuple(float(np.sqrt(deviation / moments.count)) if deviation > 0 else 1.0 for deviation in moments.deviation)
    if dtype == "uint8":
        low, high = (0.0,) * len(names), (255.0,) * len(names)
    else:
        low = quantiles(LOW_QUANTILE, moments, tiles, whole_numbers=np.dtype(dtype).kind in "iu")
        high = quantiles(HIGH_QUANTILE, moments, tiles, whole_numbers=np.dtype(dtype).kind in "iu")
        high = tuple(upper if upper > lower else lower + 1.0 for lower, upper in zip(low, high, strict=True))
    return Bands(names=tuple(names), dtype=dtype, low=low, high=high, mean=moments.mean, std=std, nodata=nodata)


def quantiles(share: float, moments: Moments, tiles: Sequence[ReadTile], *, whole_numbers: bool) -> tuple[float, ...]:
    """Return the value of each band below which a share of the valid pixels lies, in memory for one tile.

    A histogram over the band's range is refined around the quantile until its bins are single whole numbers, or a
    billionth of the values' spread.
    """
    low, high = np.array(moments.least), np.array(moments.greatest)
    spread = np.sqrt(np.array(moments.deviation) / max(1, moments.count))
    goal = np.ones_like(low) if whole_numbers else np.maximum(spread * 1e-9, np.finfo(np.float64).tiny)
    wanted = share * moments.count
    for _ in range(_ROUNDS):
        bins = np.minimum(_BINS, np.ceil((high - low) / goal).astype(np.int64) + 1).clip(1)
        width = np.maximum((high - low) / np.maximum(bins - 1, 1), goal)
        if whole_numbers:
            width = np.ceil(width)
        histograms = [np.zeros(count, np.int64) for count in bins]
        below = np.zeros(len(low), np.int64)
        for read in tiles:
            pixels, valid = read()
            for number, band in enumerate(pixels):
                values = band[valid].astype(np.float64)
                below[number] += int((values < low[number]).sum())
                place = np.floor((values[values >= low[number]] - low[number]) / width[number]).astype(np.int64)
                place = place[place < bins[number]]
                histograms[number] += np.bincount(place, minlength=bins[number])
        for number, histogram in enumerate(histograms):
            place = int(np.searchsorted(below[number] + np.cumsum(histogram), wanted))
            low[number] += min(place, len(histogram) - 1) * width[number]
        high = low + width - (1 if whole_numbers else 0)
        if (width <= goal).all():
            break
    return tuple(low.tolist())
