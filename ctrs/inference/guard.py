"""Whether a scene looks like the imagery that a network was trained on, before an hour is spent on mapping it.

The ground pixel, the values of each band (Wasserstein distance of the histograms, in standard deviations of the
training imagery), their spread, values that training never saw, clipped values, and the order of the bands are compared
with what ``ctrs train`` wrote into the checkpoint. Limits are never narrower than the training scenes themselves:
a place may differ from a model's home by as much as its homes differ from each other.

C bands, n pixels.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from ctrs.errors import DataWarning, ImageryMismatchError
from ctrs.model_files import CheckpointMetadata
from ctrs.raster.bands import Bands
from ctrs.raster.imagery_profile import BandProfile, ImageryProfile, outside_share

Kind = Literal["pixel size", "empty", "band order", "values", "spread", "outside", "clipped", "constant"]

MAX_SAMPLES = 100_000
"""Pixels of a scene that are looked at."""

MIN_SAMPLES = 500
"""Valid pixels below which nothing is said about values."""

COARSER, FINER = 1.25, 0.8
"""Ground pixel as a share of the training's from which a scene is too coarse, or too fine."""

MAX_DISTANCE = 1.0
"""Histogram distance, in standard deviations of the training imagery, above which a band is another."""

FARTHEST_DISTANCE = 2.0
"""The same where the training scenes themselves differ much."""

STD_RATIOS = (0.5, 2.0)
"""Standard deviation as a share of the training's below and above which a band is flat or harsh."""

MAX_OUTSIDE = 0.2
"""Share of values outside the training's 0.1st to 99.9th percentile."""

MAX_CLIPPED = 0.1
"""Share of values at an end of the dtype's range; white roofs in the sun fill half as much."""

_MARGIN = 1.25
"""How much farther than the farthest training scene a scene may lie."""

_ORDER_GAIN, _ORDER_RATIO, _ORDER_FIT = 0.25, 1.25, 2.0
"""Divergence that another order of the bands must save, by how much, and how well it must fit then."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Something in which a scene differs from the training imagery.

    Args:
        kind: What was compared.
        text: It in words, with figures and what to do about it.
        figures: What was found, what training had, and the limit that was passed.
    """

    kind: Kind
    text: str
    figures: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "figures": dict(self.figures)}


@dataclass(frozen=True, kw_only=True)
class TrainingImagery:
    """What a checkpoint knows of the imagery that it was trained on.

    Args:
        bands: Names, dtype, means and standard deviations.
        pixel_sizes_m: Least and greatest ground pixel; None where the data have no CRS.
        profile: Values in more detail; None in checkpoints of an older ctrs: then means and deviations serve.
    """

    bands: Bands
    pixel_sizes_m: tuple[float, float] | None
    profile: ImageryProfile | None = None

    @classmethod
    def of(cls, metadata: CheckpointMetadata) -> TrainingImagery:
        """Read it from the description of a checkpoint.

        Raises:
            DataError: The description is damaged.
        """
        row = metadata.data.get("imagery")
        profile = None if row is None else ImageryProfile.from_json(row, where="checkpoint")
        sizes = None if profile is None else profile.pixel_sizes_m
        if sizes is None and metadata.pixel_size_m is not None:
            sizes = metadata.pixel_size_m, metadata.pixel_size_m
        return cls(bands=metadata.bands, pixel_sizes_m=sizes, profile=profile)


class SampledScene(Protocol):
    """What is asked of a scene: ``SceneSource`` gives it."""

    @property
    def name(self) -> str:
        """Name for messages."""

    @property
    def pixel_size_m(self) -> float | None:
        """Ground metres of a pixel; None where they are not known."""

    @property
    def gsd_factor(self) -> float:
        """Pixels that the network sees for one pixel of the scene."""

    @property
    def bidx(self) -> tuple[int, ...]:
        """Numbers of the bands in the file, from 1."""

    def sample(self, max_px: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Return about so many pixels (C, h, w) from all over the scene, and which (h, w) are valid."""


def check_scene(scene: SampledScene, training: TrainingImagery, *, strict: bool = False) -> tuple[Difference, ...]:
    """Compare a scene with the training imagery; warn in one line, or refuse it.

    Args:
        scene: The scene.
        training: From the checkpoint.
        strict: Refuse.

    Returns:
        In what it differs, empty where it is alike.

    Raises:
        ImageryMismatchError: It differs and ``strict`` is True.
    """
    pixels, valid = scene.sample(MAX_SAMPLES)
    seen_m = None if scene.pixel_size_m is None else scene.pixel_size_m / scene.gsd_factor
    found = compare(pixels[:, valid], training, pixel_size_m=seen_m, bidx=scene.bidx)
    if valid.size and not valid.any():
        text = f"no valid pixel among {valid.size} spread over it; check its nodata value, mask and area of interest"
        found = (*found, Difference(kind="empty", text=text, figures={"pixels": valid.size}))
    if not found:
        return found
    line = f"{scene.name}: unlike the training imagery: {'; '.join(difference.text for difference in found)}"
    if strict:
        raise ImageryMismatchError(
            f"{line}; give imagery like the training's, a model trained on such imagery, or leave out --strict"
        )
    warnings.warn(f"{line}; look at the mask with care (--strict refuses such scenes)", DataWarning, stacklevel=2)
    return found


def compare(
    values: npt.NDArray[Any],
    training: TrainingImagery,
    *,
    pixel_size_m: float | None = None,
    bidx: Sequence[int] | None = None,
) -> tuple[Difference, ...]:
    """Return in what a scene differs from the training imagery.

    Args:
        values: (C, n), raw values of valid pixels from all over the scene.
        training: What to compare with; the same number of bands.
        pixel_size_m: Ground pixel that the network will see; None where it is not known.
        bidx: Numbers of the bands in the file, for advice; None: 1, 2, ...
    """
    found = [_compare_pixel_size(pixel_size_m, training.pixel_sizes_m)]
    if values.shape[1] >= MIN_SAMPLES:
        own = BandProfile.of(values)
        numbers = tuple(bidx) if bidx else tuple(range(1, len(values) + 1))
        order = _better_order(own, training)
        if order is not None:
            found.append(_order_difference(own, training, order, numbers))
            own, values = own.reordered(order), values[list(order)]  # what else differs is told of the right bands
        found.append(_compare_values(own, training))
        found.append(_compare_spread(own, training))
        found.append(_compare_outside(values, training))
        found.append(_compare_clipped(own, training))
    return tuple(difference for difference in found if difference is not None)


def _compare_pixel_size(own: float | None, known: tuple[float, float] | None) -> Difference | None:
    if own is None or known is None:
        return None
    least, greatest = known
    if FINER * least <= own <= COARSER * greatest:
        return None
    coarser = own > greatest
    ratio = own / greatest if coarser else own / least
    had = _length(least) if _length(least) == _length(greatest) else f"{_length(least)} to {_length(greatest)}"
    return Difference(
        kind="pixel size",
        text=(
            f"ground pixel {_length(own)}, training had {had} "
            f"({ratio if coarser else 1 / ratio:.2g} x {'coarser' if coarser else 'finer'}; --gsd model resamples)"
        ),
        figures={"found_m": own, "least_m": least, "greatest_m": greatest, "ratio": ratio},
    )


def _better_order(own: BandProfile, training: TrainingImagery) -> tuple[int, ...] | None:
    """Return the order in which the bands are clearly more like the training's, if there is one."""
    if training.profile is None:
        return None
    known = training.profile.bands
    as_is = known.divergence(own)
    others = {order: known.divergence(own.reordered(order)) for order in _orders(training.bands.names)}
    best = min(others, key=lambda order: others[order], default=None)
    if best is None or others[best] > _ORDER_FIT:
        return None
    return best if as_is >= max(others[best] + _ORDER_GAIN, _ORDER_RATIO * others[best]) else None


def _order_difference(
    own: BandProfile, training: TrainingImagery, order: tuple[int, ...], numbers: tuple[int, ...]
) -> Difference | None:
    if training.profile is None:
        return None
    as_is, fit = (training.profile.bands.divergence(profile) for profile in (own, own.reordered(order)))
    chosen = ",".join(str(numbers[band]) for band in order)
    return Difference(
        kind="band order",
        text=(
            f"bands {chosen} fit {', '.join(training.bands.names)} better than "
            f"{','.join(map(str, numbers))} do (divergence {fit:.2f} instead of {as_is:.2f}; try --bidx {chosen})"
        ),
        figures={"divergence": as_is, "reordered": fit},
    )


def _orders(names: Sequence[str]) -> list[tuple[int, ...]]:
    """Return the orders in which bands are found by mistake: backwards, red and blue exchanged, infrared first."""
    size = len(names)
    if size < 3:
        return []
    ident = tuple(range(size))
    orders = [ident[::-1]]
    words = [name.casefold() for name in names]
    if "red" in words and "blue" in words:
        swapped = list(ident)
        red, blue = words.index("red"), words.index("blue")
        swapped[red], swapped[blue] = blue, red
        orders.append(tuple(swapped))
    if size > 3:
        orders += [(*ident[1:], 0), (size - 1, *ident[:-1])]
    return list(dict.fromkeys(orders))


def _compare_values(own: BandProfile, training: TrainingImagery) -> Difference | None:
    bands, profile = training.bands, training.profile
    limit = MAX_DISTANCE
    std = np.array(bands.std)
    shift = (np.array(own.mean) - np.array(bands.mean)) / std
    if profile is None:
        distances = np.abs(shift)
    else:
        limit = min(max(limit, _MARGIN * profile.widest_distance), FARTHEST_DISTANCE)
        distances = np.array(profile.bands.distances(own)) / std
    far = np.flatnonzero(distances > limit)
    if not len(far):
        return None
    band = int(distances.argmax())
    tone = "darker" if shift[band] < 0 else "brighter"
    others = f" (also {_names(bands, far, band)})" if len(far) > 1 else ""
    measure = "mean" if profile is None else "histogram distance"
    return Difference(
        kind="values",
        text=(
            f"band {bands.names[band]} is {tone}: mean {own.mean[band]:.4g}, training {bands.mean[band]:.4g} +- "
            f"{bands.std[band]:.3g}; {measure} {distances[band]:.2f} standard deviations, limit {limit:.2f}{others}"
        ),
        figures={
            "band": band + 1, "mean": own.mean[band], "training_mean": bands.mean[band], "shift": float(shift[band]),
            "distance": float(distances[band]), "limit": limit,
        },
    )  # fmt: skip


def _compare_spread(own: BandProfile, training: TrainingImagery) -> Difference | None:
    bands, profile = training.bands, training.profile
    least, greatest = STD_RATIOS
    if profile is not None:
        least = min(least, profile.std_ratios[0] / _MARGIN)
        greatest = max(greatest, profile.std_ratios[1] * _MARGIN)
    ratios = np.array(own.std) / np.array(bands.std)
    constant = [number for number, line in enumerate(own.quantiles) if line[0] == line[-1]]
    if constant:
        band = constant[0]
        value = own.quantiles[band][0]
        return Difference(
            kind="constant",
            text=f"band {bands.names[band]} holds nothing but {value:g}{_also(bands, constant, band)}",
            figures={"band": band + 1, "value": value},
        )
    odd = np.flatnonzero((ratios < least) | (ratios > greatest))
    if not len(odd):
        return None
    band = int(max(odd, key=lambda number: abs(math.log(ratios[number]))))
    limit = least if ratios[band] < least else greatest
    return Difference(
        kind="spread",
        text=(
            f"band {bands.names[band]} has {'little' if ratios[band] < least else 'much'} contrast: standard deviation "
            f"{own.std[band]:.3g}, training {bands.std[band]:.3g} ({ratios[band]:.2f} of it, limit {limit:.2f})"
            f"{_also(bands, odd, band)}"
        ),
        figures={
            "band": band + 1, "std": own.std[band], "training_std": bands.std[band], "ratio": float(ratios[band]),
            "limit": limit,
        },
    )  # fmt: skip


def _compare_outside(values: npt.NDArray[Any], training: TrainingImagery) -> Difference | None:
    """Find values that training hardly saw; without a profile, those that scaling clips."""
    bands, profile = training.bands, training.profile
    limit = MAX_OUTSIDE
    if profile is None:
        if values.dtype == np.uint8:
            return None
        columns = [np.array(ends)[:, None] for ends in (bands.low, bands.high)]
        shares = ((values < columns[0]) | (values > columns[1])).mean(axis=1)
        ends = list(zip(bands.low, bands.high, strict=True))
    else:
        limit = max(limit, 2 * profile.widest_outside)
        shares = np.array(outside_share(values, profile.bands.quantiles))
        ends = [(line[1], line[-2]) for line in profile.bands.quantiles]
    band = int(shares.argmax())
    if shares[band] <= limit:
        return None
    low, high = ends[band]
    return Difference(
        kind="outside",
        text=(
            f"{shares[band]:.0%} of band {bands.names[band]} lie outside {low:g} to {high:g}, which training saw "
            f"(limit {limit:.0%}){_also(bands, np.flatnonzero(shares > limit), band)}"
        ),
        figures={"band": band + 1, "share": float(shares[band]), "low": low, "high": high, "limit": limit},
    )


def _compare_clipped(own: BandProfile, training: TrainingImagery) -> Difference | None:
    bands, profile = training.bands, training.profile
    limit = MAX_CLIPPED if profile is None else max(MAX_CLIPPED, 2 * profile.widest_end_share)
    ends = np.array([own.least_share, own.greatest_share])  # 2 C
    ends[ends >= 1] = 0  # a constant band is said to be one
    end, band = (int(place) for place in np.unravel_index(int(ends.argmax()), ends.shape))
    if ends[end, band] <= limit:
        return None
    value = own.quantiles[band][-1 if end else 0]
    return Difference(
        kind="clipped",
        text=(
            f"{ends[end, band]:.0%} of band {bands.names[band]} have the {'greatest' if end else 'least'} value "
            f"{value:g} (limit {limit:.0%}): clipped, or nodata that is not declared"
        ),
        figures={"band": band + 1, "share": float(ends[end, band]), "value": value, "limit": limit},
    )


def _also(bands: Bands, numbers: Sequence[int] | npt.NDArray[np.intp], shown: int) -> str:
    return f", also {_names(bands, numbers, shown)}" if len(numbers) > 1 else ""


def _names(bands: Bands, numbers: Sequence[int] | npt.NDArray[np.intp], shown: int) -> str:
    return ", ".join(bands.names[number] for number in numbers if number != shown)


def _length(metres: float) -> str:
    """Return a length with three digits, in centimetres below a metre.

    >>> _length(0.0742), _length(0.5), _length(1.25)
    ('7.42 cm', '50 cm', '1.25 m')
    """
    return f"{metres * 100:.3g} cm" if metres < 1 else f"{metres:.3g} m"
