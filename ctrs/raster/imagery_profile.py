"""What values imagery holds, in a few numbers: quantiles and covariance of its bands, and how far its scenes differ.

Two profiles are compared by standard measures: the Wasserstein distance of each band's values (Vaserstein 1969; in one
dimension the mean distance of quantiles: Ramdas, Garcia Trillos, Cuturi, Entropy 19(2), 2017), and the Kullback-Leibler
divergence of the normal distributions with the bands' means and covariances, which sees how bands go together.

C bands, n pixels, L levels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ctrs.errors import DataError

Floats = npt.NDArray[np.float64]

LEVELS: tuple[float, ...] = (
    0.0, 0.001, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8,
    0.85, 0.9, 0.95, 0.98, 0.99, 0.999, 1.0,
)  # fmt: skip
"""Shares of the pixels below the quantiles that are kept."""

_RIDGE = 0.01
"""Share of a band's variance that is added to it: bands that hold the same would make the covariance singular."""

_DIGITS = 6


@dataclass(frozen=True, kw_only=True)
class BandProfile:
    """Values of the bands of some imagery, over valid pixels.

    Args:
        mean: Mean of each band.
        covariance: (C, C).
        quantiles: (C, L), at ``LEVELS``.
        least_share: Share of each band's pixels at the least value that the dtype can hold (0 for floats).
        greatest_share: The same at the greatest value.
    """

    mean: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    quantiles: tuple[tuple[float, ...], ...]
    least_share: tuple[float, ...]
    greatest_share: tuple[float, ...]

    def __post_init__(self) -> None:
        size = len(self.mean)
        lengths = {len(self.covariance), len(self.quantiles), len(self.least_share), len(self.greatest_share)}
        whole = lengths == {size} and all(len(row) == size for row in self.covariance)
        if not size or not whole or any(len(row) != len(LEVELS) for row in self.quantiles):
            raise DataError(f"profile of imagery: not {size} bands with {len(LEVELS)} quantiles each throughout")

    @classmethod
    def of(cls, values: npt.NDArray[Any], weights: Floats | None = None) -> BandProfile:
        """Measure pixels.

        Args:
            values: (C, n), raw values in the dtype of the imagery; n at least 1.
            weights: (n,), pixels that each stands for; None: all alike.
        """
        exact = values.astype(np.float64)
        share = np.full(exact.shape[1], 1 / exact.shape[1]) if weights is None else weights / weights.sum()
        mean = exact @ share
        centred = exact - mean[:, None]
        least, greatest = _limits(values.dtype)
        return cls(
            mean=_tuple(mean),
            covariance=tuple(_tuple(row) for row in (centred * share) @ centred.T),
            quantiles=tuple(_tuple(_weighted_quantiles(band, share)) for band in exact),
            least_share=_tuple((exact == least) @ share),
            greatest_share=_tuple((exact == greatest) @ share),
        )

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each band."""
        return tuple(float(np.sqrt(max(row[number], 0.0))) for number, row in enumerate(self.covariance))

    def distances(self, other: BandProfile) -> tuple[float, ...]:
        """Return the Wasserstein-1 distance of each band's values to another's, in raw values.

        >>> dark = BandProfile.of(np.arange(101.0)[None])
        >>> round(dark.distances(BandProfile.of(np.arange(101.0)[None] + 40))[0], 6)
        40.0
        """
        apart = np.abs(np.array(self.quantiles) - np.array(other.quantiles))  # C L
        return tuple(float(distance) for distance in np.trapezoid(apart, LEVELS, axis=1))

    def divergence(self, other: BandProfile) -> float:
        """Return the Kullback-Leibler divergence of another's normal distribution from this one's; 0: the same."""
        own, theirs = np.array(self.covariance), np.array(other.covariance)
        ridge = np.diag(np.maximum(_RIDGE * np.diag(own), 1e-12))
        own, theirs = own + ridge, theirs + ridge
        apart = np.array(other.mean) - np.array(self.mean)
        inverse = np.linalg.inv(own)
        volumes = float(np.linalg.slogdet(own)[1] - np.linalg.slogdet(theirs)[1])
        return max(0.0, 0.5 * float(np.trace(inverse @ theirs) + apart @ inverse @ apart - len(apart) + volumes))

    def reordered(self, order: Sequence[int]) -> BandProfile:
        """Return the profile of the same imagery with its bands in another order."""
        return BandProfile(
            mean=tuple(self.mean[band] for band in order),
            covariance=tuple(tuple(self.covariance[row][band] for band in order) for row in order),
            quantiles=tuple(self.quantiles[band] for band in order),
            least_share=tuple(self.least_share[band] for band in order),
            greatest_share=tuple(self.greatest_share[band] for band in order),
        )


@dataclass(frozen=True, kw_only=True)
class ImageryProfile:
    """Values of the imagery of several scenes, and how far these differ from the whole.

    Args:
        bands: Of all scenes together.
        num_scenes: Number of scenes that were measured.
        pixel_sizes_m: Least and greatest ground pixel of the scenes; None where none has a CRS.
        widest_distance: Greatest ``BandProfile.distances`` between a scene and the whole, of any band, in standard
            deviations of that band.
        std_ratios: Least and greatest standard deviation of a scene's band as a share of the whole's.
        widest_end_share: Greatest share of a scene's band at the least or greatest value of the dtype.
        widest_outside: Greatest share of a scene's band below or above what ``outside_share`` counts as common.
    """

    bands: BandProfile
    num_scenes: int
    pixel_sizes_m: tuple[float, float] | None
    widest_distance: float
    std_ratios: tuple[float, float]
    widest_end_share: float
    widest_outside: float

    @classmethod
    def of(
        cls,
        scenes: Sequence[npt.NDArray[Any]],
        weights: Sequence[float],
        pixel_sizes_m: Sequence[float] = (),
    ) -> ImageryProfile | None:
        """Measure samples of scenes.

        Args:
            scenes: (C, n) of each, raw values of valid pixels.
            weights: Pixels that one of each sample stands for.
            pixel_sizes_m: Ground pixels of the scenes that have a CRS.

        Returns:
            None where there are no pixels.
        """
        filled = [(values, weight) for values, weight in zip(scenes, weights, strict=True) if values.shape[1]]
        if not filled:
            return None
        every = np.concatenate([values for values, _ in filled], axis=1)
        whole = BandProfile.of(every, np.concatenate([np.full(values.shape[1], float(w)) for values, w in filled]))
        std = np.maximum(whole.std, 1e-12)
        distances: list[float] = []
        ratios: list[float] = []
        ends: list[float] = []
        outside: list[float] = []
        for values, _ in filled:
            own = BandProfile.of(values)
            distances.append(float(np.max(np.array(own.distances(whole)) / std)))
            ratios.extend((np.array(own.std) / std).tolist())
            ends.append(max(*own.least_share, *own.greatest_share))
            outside.append(max(outside_share(values, whole.quantiles)))
        return cls(
            bands=whole,
            num_scenes=len(filled),
            pixel_sizes_m=(_short(min(pixel_sizes_m)), _short(max(pixel_sizes_m))) if pixel_sizes_m else None,
            widest_distance=_short(max(distances)),
            std_ratios=(_short(min(ratios)), _short(max(ratios))),
            widest_end_share=_short(max(ends)),
            widest_outside=_short(max(outside)),
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain lists and numbers."""
        return {**asdict(self), "levels": list(LEVELS)}

    @classmethod
    def from_json(cls, row: Any, *, where: str) -> ImageryProfile:
        """Build from ``to_json`` output, tuples or lists.

        Raises:
            DataError: Keys are missing or wrong, or the quantiles are those of another version.
        """
        try:
            values = dict(row)
            if [float(level) for level in values.pop("levels")] != list(LEVELS):
                raise DataError("quantiles at other levels")
            bands: Mapping[str, Any] = values.pop("bands")
            sizes = values.pop("pixel_sizes_m")
            least, greatest = values.pop("std_ratios")
            return cls(
                bands=BandProfile(
                    mean=_tuple(bands["mean"]),
                    covariance=tuple(_tuple(line) for line in bands["covariance"]),
                    quantiles=tuple(_tuple(line) for line in bands["quantiles"]),
                    least_share=_tuple(bands["least_share"]),
                    greatest_share=_tuple(bands["greatest_share"]),
                ),
                pixel_sizes_m=None if sizes is None else (float(sizes[0]), float(sizes[1])),
                std_ratios=(float(least), float(greatest)),
                **values,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{where}: the profile of the training imagery is damaged ({error}); prepare and train again"
            ) from error


def outside_share(values: npt.NDArray[Any], quantiles: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Return the share of each band's pixels (C, n) outside the 0.1st to 99.9th percentile of other imagery.

    Values at the ends of the dtype's range are not counted: they are what ``least_share`` and ``greatest_share`` are.
    """
    first, last = LEVELS.index(0.001), LEVELS.index(0.999)
    least, greatest = _limits(values.dtype)
    shares: list[float] = []
    for band, levels in zip(values, quantiles, strict=True):
        out = ((band < levels[first]) & (band > least)) | ((band > levels[last]) & (band < greatest))
        shares.append(float(out.mean()))
    return tuple(shares)


def _limits(dtype: np.dtype[Any]) -> tuple[float, float]:
    """Return the least and greatest value of an integer dtype; for floats, values that no pixel has."""
    if dtype.kind not in "iu":
        return -np.inf, np.inf
    limits = np.iinfo(dtype)
    return float(limits.min), float(limits.max)


def _weighted_quantiles(values: Floats, shares: Floats) -> Floats:
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    reached = np.cumsum(shares[order])
    places = np.searchsorted(reached, np.array(LEVELS) - 1e-12)
    found: Floats = ordered[np.minimum(places, len(ordered) - 1)]
    return found


def _tuple(values: Any) -> tuple[float, ...]:
    return tuple(_short(value) for value in values)


def _short(value: Any) -> float:
    """Return a number with as many digits as anyone needs: these stand in each checkpoint."""
    return float(f"{float(value):.{_DIGITS}g}")
