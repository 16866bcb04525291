"""Buildings that touch in a mask are parted at necks of their shape, or where their probability dips.

A height is laid over each building: the distance to its outline, or its smoothed probability. Pixels are taken from the
highest down. Each joins the neighbour that stands highest, so that parts grow from their peaks downhill and meet at the
lowest place between them, where it is narrowest. There, at the saddle, it is decided once whether the two are one:

- ``erosion``: a saddle nearer to the outline than half the width parts, so parts hang together by less than the width;
- ``watershed``: a saddle lower than both peaks by half the width parts: a neck counts by how much wider the building is
  on both sides of it;
- ``probability``: a dip below both peaks by a tenth parts, wherever it lies in the shape.

Both sides must hold a circle as wide as the width, and be large enough to be buildings. The saddle is the lowest place
of the highest way from peak to peak, so holes and bites that do not reach across count for nothing. Nothing outside a
building decides how it is parted, and memory is that of the largest building's bounding box.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt, gaussian_filter

from ctrs.config import Split
from ctrs.progress import Progress, no_progress
from ctrs.raster.windows import PixelWindow
from ctrs.vector.regions.outlines import NO_REGION
from ctrs.vector.regions.probabilities import ClassProbabilities
from ctrs.vector.regions.runs import IntArray, RegionIds, Runs
from ctrs.vector.regularize.compiling import compiled

FloatArray = npt.NDArray[np.float64]
ReadProbability = Callable[[PixelWindow], npt.NDArray[Any]]
"""Probability of building in a window, 0 to 1, NaN where it is not known."""

MIN_PART_M2 = 16.0
"""Smallest building that is parted from another."""

MIN_DIP = 0.1
"""Probability by which both parts rise above the highest way between them."""

SMOOTHING_M = 0.4
"""Standard deviation of the Gaussian that evens out probabilities."""

_LEAST_DEPTH = 0.15
"""Erosion: both parts reach this share of the width further from the outline than the neck: wobble parts nothing."""

_PHASE = "parting buildings"


@dataclass(frozen=True, kw_only=True)
class SplitRegions:
    """Regions of a raster after parting.

    Args:
        runs: Of the raster; values are the regions, ``NO_REGION`` where there is none.
        sources: Region before parting of each region; shape (N,). Regions are numbered by their first pixels.
    """

    runs: Runs
    sources: IntArray


def split_regions(
    runs: Runs,
    *,
    method: Split,
    width_m: float,
    pixel_m: tuple[float, float],
    min_area_m2: float = MIN_PART_M2,
    chosen: npt.NDArray[np.bool_] | None = None,
    probability: ReadProbability | None = None,
    progress: Progress = no_progress,
) -> SplitRegions:
    """Part regions that hang together by a neck.

    Args:
        runs: Values are 4-connected regions of buildings, or ``NO_REGION``.
        method: How; ``none`` numbers regions anew and nothing else.
        width_m: See above, ground metres.
        pixel_m: Width and height of a pixel, ground metres.
        min_area_m2: No part is smaller, and none smaller than ``MIN_PART_M2``.
        chosen: For each region whether it may be parted; None: all.
        probability: Reads the probability of building; needed for ``probability``.
        progress: Told after each region.

    Returns:
        Regions that are 4-connected; those made of one region cover exactly its pixels.
    """
    if method == "probability" and probability is None:
        raise ValueError("method 'probability' needs probabilities")
    regions = runs.values
    drawn = np.flatnonzero(regions != NO_REGION)
    order = drawn[np.argsort(regions[drawn], kind="stable")]
    begins = np.flatnonzero(np.diff(regions[order], prepend=NO_REGION))
    smallest = max(min_area_m2, MIN_PART_M2) / (pixel_m[0] * pixel_m[1])
    firsts, values, sources = [runs.firsts], [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    numbers = regions.astype(np.int64)
    following = int(regions.max(initial=NO_REGION)) + 1
    for number, members in enumerate(np.split(order, begins[1:]) if len(order) and method != "none" else []):
        progress(number + 1, len(begins), _PHASE)
        if chosen is not None and not chosen[regions[members[0]]]:
            continue
        if runs.lengths[members].sum() < 2 * smallest:
            continue
        shape = _Shape.of(runs, members)
        labels = _parts(shape, method, width_m, pixel_m, smallest, probability)
        if labels.max() < 2:
            continue
        # Where a part ends within a run a new run begins; the first of each run takes the run's place.
        found = labels[shape.pixels]
        fresh = np.append(True, (np.diff(found) != 0) | (np.diff(shape.places) != 1))
        fresh[np.searchsorted(shape.places, runs.firsts[members])] = True
        places, parts = shape.places[fresh], found[fresh] - 1 + following
        inside = ~np.isin(places, runs.firsts[members])
        numbers[members] = parts[~inside]
        firsts.append(places[inside])
        values.append(parts[inside])
        sources.append(np.full(int(labels.max()), regions[members[0]], np.int64))
        following += int(labels.max())
    joined = np.concatenate(firsts)
    order = np.argsort(joined, kind="stable")
    numbers = np.concatenate([numbers, *values])[order]
    origin = np.concatenate([np.arange(following - sum(map(len, sources))), *sources])
    return _numbered(Runs(height=runs.height, width=runs.width, firsts=joined[order], values=numbers), origin)


def probability_of(probabilities: ClassProbabilities, value: int, window: PixelWindow) -> ReadProbability:
    """Return what reads the probability of a class within rows of a mask, counted from the first of them.

    Args:
        probabilities: Of the mask.
        value: Of the class in the mask.
        window: The rows, which are read at once.
    """
    values = probabilities.read(window.row_off, window.row_off + window.height, [value])[0]
    return lambda part: values[part.slices]


def _numbered(runs: Runs, origin: IntArray) -> SplitRegions:
    """Number regions by their first pixels."""
    found, first, where = np.unique(runs.values, return_index=True, return_inverse=True)
    first = np.where(found == NO_REGION, -1, first)
    rank = np.empty(len(found), np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(found)) - int(NO_REGION in found)
    ids: RegionIds = np.where(found == NO_REGION, NO_REGION, rank)[where].astype(np.int32)
    sources = np.empty(int(rank.max(initial=-1)) + 1, np.int64)
    drawn = found != NO_REGION
    sources[rank[drawn]] = origin[found[drawn]]
    return SplitRegions(runs=runs.with_values(ids), sources=sources)


@dataclass(frozen=True, kw_only=True)
class _Shape:
    """One region on its bounding box, with a margin of a pixel.

    Args:
        window: The bounding box without its margin.
        mask: True in the region; (height + 2, width + 2).
        pixels: Flat index of each of its pixels in ``mask``, rising.
        places: The same pixels in the raster.
    """

    window: PixelWindow
    mask: npt.NDArray[np.bool_]
    pixels: IntArray
    places: IntArray

    @classmethod
    def of(cls, runs: Runs, members: IntArray) -> _Shape:
        lengths = runs.lengths[members]
        rows, columns = runs.rows[members], runs.firsts[members] % runs.width
        top, left = int(rows.min()), int(columns.min())
        height, width = int(rows.max()) + 1 - top, int((columns + lengths).max()) - left
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        mask = np.zeros((height + 2, width + 2), bool)
        pixels = np.repeat((rows - top + 1) * (width + 2) + columns - left + 1, lengths) + within
        mask.reshape(-1)[pixels] = True
        return cls(
            window=PixelWindow(col_off=left, row_off=top, width=width, height=height),
            mask=mask,
            pixels=pixels,
            places=np.repeat(runs.firsts[members], lengths) + within,
        )


def _parts(
    shape: _Shape,
    method: Split,
    width_m: float,
    pixel_m: tuple[float, float],
    smallest_px: float,
    probability: ReadProbability | None,
) -> npt.NDArray[np.int64]:
    """Return the part of each pixel of a region's bounding box, flat, from 1; 0 outside."""
    depth = distance_transform_edt(shape.mask, sampling=(pixel_m[1], pixel_m[0]))
    # The outline runs half a pixel before the nearest pixel outside.
    depth = np.maximum(depth - (pixel_m[0] + pixel_m[1]) / 4, 0)
    half = width_m / 2
    height, limit, dip = depth, np.inf, half
    if method == "erosion":
        limit, dip = half, _LEAST_DEPTH * width_m
    if method == "probability" and probability is not None:
        height, dip = _smoothed(probability(shape.window), shape.mask, pixel_m), MIN_DIP
    flat = np.ascontiguousarray(height, np.float64).reshape(-1)
    # Steps of a thousandth: rounding of distances must not decide who stands higher.
    flat = np.round(flat, 3)
    order = shape.pixels[np.argsort(-flat[shape.pixels], kind="stable")]
    width = shape.mask.shape[1]
    labels = _grow(flat, depth.reshape(-1), order, width, limit, dip, half, smallest_px)
    return np.asarray(labels, np.int64)


def _smoothed(values: npt.NDArray[Any], mask: npt.NDArray[np.bool_], pixel_m: tuple[float, float]) -> FloatArray:
    """Average probabilities over the known pixels of the region."""
    padded = np.pad(values.astype(np.float64), 1, constant_values=np.nan)
    known = mask & np.isfinite(padded)
    sigma = (SMOOTHING_M / pixel_m[1], SMOOTHING_M / pixel_m[0])
    weights = gaussian_filter(known.astype(np.float64), sigma, mode="constant")
    total = gaussian_filter(np.where(known, padded, 0.0), sigma, mode="constant")
    return np.asarray(np.where(weights > 1e-6, total / np.maximum(weights, 1e-6), 1.0), np.float64)


@compiled
def _grow(
    height: FloatArray,
    depth: FloatArray,
    order: IntArray,
    width: int,
    limit: float,
    dip: float,
    half: float,
    smallest_px: float,
) -> IntArray:
    """Grow parts downhill and join those that belong together.

    Args:
        height: Flat.
        depth: Distance to the outline, flat.
        order: Flat indices of the region's pixels, highest first.
        width: Of a row.
        limit: Saddles from this height on part nothing.
        dip: Saddles higher than this below the lower peak part nothing.
        half: Both sides reach this distance from the outline.
        smallest_px: Fewest pixels of a part.

    Returns:
        Part of each pixel, from 1; 0 outside.
    """
    labels = np.zeros(len(height), np.int64)
    parents = np.zeros(len(order) + 1, np.int64)
    peaks, reach = np.zeros(len(order) + 1), np.zeros(len(order) + 1)
    sizes = np.zeros(len(order) + 1, np.int64)
    count = 0
    steps = np.array([-width, -1, 1, width])
    saddles = [(0.0, 0, 0) for _ in range(0)]
    for pixel in order:
        highest, best = -np.inf, 0
        for step in steps:
            other = pixel + step
            if labels[other] and height[other] > highest:
                highest, best = height[other], labels[other]
        if best == 0:
            count += 1
            labels[pixel], parents[count] = count, count
            peaks[count], reach[count], sizes[count] = height[pixel], depth[pixel], 1
            continue
        mine = _root(parents, best)
        labels[pixel] = mine
        sizes[mine] += 1
        reach[mine] = max(reach[mine], depth[pixel])
        for step in steps:
            if labels[pixel + step] == 0:
                continue
            other = _root(parents, labels[pixel + step])
            if other == mine:
                continue
            level = height[pixel]
            apart = level < limit and min(peaks[mine], peaks[other]) - level >= dip
            if apart and min(reach[mine], reach[other]) >= half:
                saddles.append((level, mine, other))
                continue
            low, high = (mine, other) if peaks[mine] < peaks[other] else (other, mine)
            parents[low] = high
            peaks[high] = max(peaks[high], peaks[low])
            reach[high] = max(reach[high], reach[low])
            sizes[high] += sizes[low]
            mine = high
    # What came out too small goes back over its highest saddle, highest first: they were met in this order.
    merged = True
    while merged:
        merged = False
        for _, upper, lower in saddles:
            one, two = _root(parents, upper), _root(parents, lower)
            if one != two and min(sizes[one], sizes[two]) < smallest_px:
                parents[two] = one
                sizes[one] += sizes[two]
                merged = True
    # Number parts by the first pixel.
    numbers = np.zeros(count + 1, np.int64)
    found = 0
    for pixel in np.sort(order):
        part = _root(parents, labels[pixel])
        if numbers[part] == 0:
            found += 1
            numbers[part] = found
        labels[pixel] = numbers[part]
    return labels


@compiled
def _root(parents: IntArray, label: int) -> int:
    while parents[label] != label:
        parents[label] = parents[parents[label]]
        label = parents[label]
    return label
