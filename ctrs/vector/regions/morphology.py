"""Opening and closing of a mask with a disc in ground metres, while it is read band by band.

Opening takes away the parts of a class in which no disc of that width fits; they go to the nearest class around.
Closing fills what lies between parts of a class where no disc of that width fits. Distances are Euclidean between pixel
centres, so that pixels need not be square, and widths hold to about a pixel.

What lies outside the raster, and nodata, counts as more of the same for opening and as a gap for closing: neither ever
takes a building away at the scene's edge or makes one grow there. Nodata pixels never change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from ctrs.classes import IGNORE_INDEX, Mask
from ctrs.raster.geotiff import Grid
from ctrs.vector.regions.cleaning import ground_pixel_size
from ctrs.vector.regions.runs import Runs

_LEAST_ROWS = 512
"""Rows worked on at a time, at least; the margins around them are looked at twice."""

_REACH = 2.0
"""Opened parts look for another class up to this many widths away, and stay where there is none."""

_ROUNDING = 1 + 1e-9

Flags = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]


def open_and_close(
    bands: Iterable[Runs], grid: Grid, wanted: Flags, *, opening_m: float = 0.0, closing_m: float = 0.0
) -> Iterator[Runs]:
    """Open, then close, the wanted classes of a mask. How it is cut into bands leaves no trace in the pixels.

    Args:
        bands: Runs of class values of consecutive row bands of a mask.
        grid: Of the mask.
        wanted: For each of the 256 values, whether it is opened and closed. The others are what is given to, and what
            is filled: closing never overwrites another wanted class.
        opening_m: Parts narrower than this, in ground metres, leave; 0: none.
        closing_m: Gaps narrower than this are filled; 0: none.

    Yields:
        Runs of bands of other heights.
    """
    width, height = ground_pixel_size(grid)
    sampling = (height, width)
    opening, closing = disc_radius_m(opening_m, sampling), disc_radius_m(closing_m, sampling)
    if opening <= 0 and closing <= 0:
        yield from bands
        return
    reach_m = 2 * opening + _REACH * opening_m * (opening > 0) + 2 * max(closing, 0)
    margin = int(np.ceil(reach_m / height)) + 2
    top, done, end = 0, 0, 0
    held = np.empty((0, grid.width), np.uint8)
    for band in bands:
        held = np.concatenate([held, band.to_array()])
        end += band.height
        ready = end if end == grid.height else end - margin
        if end < grid.height and ready - done < max(_LEAST_ROWS, margin):
            continue
        changed = held
        if opening > 0:
            changed = opened(changed, wanted, opening, sampling, reach_m=_REACH * opening_m)
        if closing > 0:
            changed = closed(changed, wanted, closing, sampling)
        yield Runs.from_array(changed[done - top : ready - top])
        done = ready
        held, top = held[max(0, done - margin) - top :], max(0, done - margin)


def disc_radius_m(width_m: float, sampling: tuple[float, float]) -> float:
    """Return the distance between pixel centres that a disc of this width spans to either side of its own.

    >>> round(disc_radius_m(1.0, (0.2, 0.2)), 6)  # two pixels: five pixels wide
    0.4
    """
    return (width_m - float(np.sqrt(sampling[0] * sampling[1]))) / 2 * _ROUNDING


def opened(labels: Mask, wanted: Flags, radius: float, sampling: tuple[float, float], *, reach_m: float) -> Mask:
    """Return a mask without the parts of wanted classes that hold no disc.

    Args:
        labels: Class values; shape (H, W).
        wanted: For each of the 256 values, whether it is opened.
        radius: Of the disc, from pixel centre to pixel centre.
        sampling: Height and width of a pixel.
        reach_m: How far away a part may find another class.
    """
    gone = np.zeros(labels.shape, bool)
    for value in _values(labels, wanted):
        gone |= (labels == value) & ~_holds_disc((labels == value) | (labels == IGNORE_INDEX), radius, sampling)
    if not gone.any():
        return labels
    places = np.flatnonzero(gone)
    before, nearest = labels.reshape(-1)[places], np.full(len(places), np.inf)
    found = before.copy()
    kept = np.where(gone, np.uint8(IGNORE_INDEX), labels)
    for value in np.flatnonzero(np.bincount(kept.reshape(-1), minlength=256)[:IGNORE_INDEX]).tolist():
        away = _distances_at(places, kept == value, reach_m, sampling)
        # Another class than its own; of equally near ones that with the least value.
        better = (before != value) & (away < nearest)
        nearest[better] = away[better]
        found[better] = value
    result = labels.copy()
    result.reshape(-1)[places] = found
    return result


def closed(labels: Mask, wanted: Flags, radius: float, sampling: tuple[float, float]) -> Mask:
    """Return a mask in which wanted classes fill the gaps around them that hold no disc; arguments as ``opened``."""
    fillable = ~wanted[labels] & (labels != IGNORE_INDEX)
    nearest = np.full(labels.size, np.inf)
    result = labels.copy()
    for value in _values(labels, wanted):
        places = np.flatnonzero(fillable & ~_holds_disc(labels != value, radius, sampling))
        if not len(places):
            continue
        # Nearer than the radius, or a disc would fit there.
        away = _distances_at(places, labels == value, radius, sampling)
        better = away < nearest[places]
        nearest[places[better]] = away[better]
        result.reshape(-1)[places[better]] = value
    return result


def _values(labels: Mask, wanted: Flags) -> list[int]:
    found: list[int] = np.flatnonzero(np.bincount(labels.reshape(-1), minlength=256)[:IGNORE_INDEX]).tolist()
    return [value for value in found if wanted[value]]


def _holds_disc(inside: Flags, radius: float, sampling: tuple[float, float]) -> Flags:
    """True where a disc lies wholly inside; what is beyond the raster counts as inside."""
    # Compiled modules load their compiler: nobody else has to wait for it.
    from ctrs.vector.regions.disc_loops import within

    margin = [int(radius / side) + 1 for side in sampling]
    padded = np.pad(inside, [(margin[0], margin[0]), (margin[1], margin[1])], constant_values=True)
    centers = ~within(~padded, radius, *sampling)
    return within(centers, radius, *sampling)[margin[0] : -margin[0], margin[1] : -margin[1]]


def _distances_at(
    places: npt.NDArray[np.int64], away_from: Flags, reach_m: float, sampling: tuple[float, float]
) -> FloatArray:
    """Distances of places in the raster to the nearest True; infinite beyond the reach."""
    from ctrs.vector.regions.disc_loops import distances_at

    return distances_at(places, away_from, reach_m, *sampling)
