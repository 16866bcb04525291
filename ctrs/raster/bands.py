"""What the bands of a data set are and how their values become network input: one description for every step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ctrs.errors import BandMismatchError, ConfigError

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Bands:
    """Names, dtype and statistics of the bands, over the valid pixels of the training split.

    Args:
        names: Band names in file order, e.g. ``("red", "green", "blue")``.
        dtype: rasterio dtype of the source, e.g. ``"uint8"``.
        low: Raw value of each band that becomes 0. ``uint8``: 0.
        high: Raw value of each band that becomes 1. ``uint8``: 255; else the 99.9th percentile.
        mean: Mean of each band, in raw values.
        std: Standard deviation of each band, in raw values, above 0.
        nodata: Nodata value of the source, None where validity comes from an alpha band, a mask or not at all.
    """

    names: tuple[str, ...]
    dtype: str
    low: tuple[float, ...]
    high: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    nodata: float | None = None

    def __post_init__(self) -> None:
        for field in ("names", "low", "high", "mean", "std"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
            if len(getattr(self, field)) != len(self.names):
                raise ConfigError(f"bands: {len(getattr(self, field))} values in {field}, expected {len(self.names)}")
        if any(high <= low for low, high in zip(self.low, self.high, strict=True)) or min(self.std) <= 0:
            raise ConfigError("bands: high must exceed low and std must exceed 0 in each band")

    @property
    def count(self) -> int:
        """Number of bands."""
        return len(self.names)

    def scale(self, pixels: npt.NDArray[Any]) -> FloatArray:
        """Map raw values to [0, 1] by ``low`` and ``high``, clipped; NaN becomes 0.

        Args:
            pixels: Raw values (C, H, W) or (B, C, H, W).

        Returns:
            float32 of the same shape.

        Raises:
            BandMismatchError: The band count differs.
        """
        self._check(pixels)
        low, high = self._column(self.low), self._column(self.high)
        scaled = pixels.astype(np.float32)
        scaled -= low
        scaled /= high - low
        if pixels.dtype.kind == "f":
            np.nan_to_num(scaled, copy=False, nan=0.0)
        return np.clip(scaled, 0.0, 1.0, out=scaled)

    def standardize(self, scaled: FloatArray) -> FloatArray:
        """Subtract the mean and divide by the standard deviation, in place, of values that ``scale`` returned."""
        self._check(scaled)
        mean, std = self.scaled_mean_std()
        scaled -= self._column(mean)
        scaled /= self._column(std)
        return scaled

    def scaled_mean_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and standard deviation of each band in units of ``scale``."""
        spans = [high - low for low, high in zip(self.low, self.high, strict=True)]
        mean = tuple((m - low) / span for m, low, span in zip(self.mean, self.low, spans, strict=True))
        return mean, tuple(s / span for s, span in zip(self.std, spans, strict=True))

    def check_source(self, count: int, dtype: str, *, where: str) -> None:
        """Refuse a raster whose bands or dtype differ from these.

        Raises:
            BandMismatchError: With what was found and what is expected.
        """
        if count != self.count:
            raise BandMismatchError(
                f"{where}: {count} bands found, expected {self.count} ({', '.join(self.names)}); "
                "choose bands with --bidx or use a model trained on such bands"
            )
        if dtype != self.dtype:
            raise BandMismatchError(
                f"{where}: dtype {dtype} found, expected {self.dtype}, whose values the model knows; "
                f"use a model trained on {dtype}, or rescale the raster as the training imagery was, "
                "with one range for all scenes (gdal_translate -ot -scale)"
            )

    def to_json(self) -> dict[str, Any]:
        """Return plain lists and numbers."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Bands:
        """Build from ``to_json`` output.

        Raises:
            ConfigError: Keys are missing or unknown.
        """
        try:
            return cls(**row)
        except TypeError as error:
            raise ConfigError(f"bands: {error}; expected names, dtype, low, high, mean, std, nodata") from error

    def _check(self, pixels: npt.NDArray[Any]) -> None:
        if pixels.shape[-3] != self.count:
            raise BandMismatchError(
                f"pixels of shape {pixels.shape} found, expected {self.count} bands before rows and columns"
            )

    @staticmethod
    def _column(values: tuple[float, ...]) -> FloatArray:
        return np.array(values, np.float32)[:, None, None]
