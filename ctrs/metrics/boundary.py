"""Scores of class outlines: Boundary IoU, and boundary F1 by distance.

Boundary IoU (Cheng et al., Boundary IoU: Improving Object-Centric Image Segmentation Evaluation, CVPR 2021) compares
bands along the inside of outlines. With ``G`` the true and ``P`` the predicted pixels of a class, and ``G_d``, ``P_d``
those within ``d`` px of their outlines:

    Boundary IoU = |(G_d ∩ G) ∩ (P_d ∩ P)| / |(G_d ∩ G) ∪ (P_d ∩ P)|

As in the authors' code, distance is that of ``d`` erosions with a 3 x 3 square (Chebyshev: a pixel belongs to the band
if the (2 d + 1)² square around it holds a pixel that is not of the class), and the ground outside the scene belongs to
no class, so that scene edges are outlines. Departures: ``d`` is given in pixels, not as 2 % of an image's diagonal;
counts are added over scenes before they are divided.

Boundary F1 at distance ``t`` matches outline pixels: those of a class that share an edge with a pixel that is not of
the class. Scene edges are no outlines here; they would be found for nothing.

    precision = predicted outline pixels within t of a true one of the class / predicted outline pixels
    recall = true outline pixels within t of a predicted one of the class / true outline pixels
    F1 = 2 precision recall / (precision + recall)

with Euclidean distances between pixel centres.

Ignored ground (truth ``ignore_index``) is unknown, for both masks: its pixels are not counted, and a border against
them is no outline, since nobody knows what lies there. What is predicted on it has no effect. Where the truth is known
but nothing was predicted (predicted ``ignore_index``), the prediction is ground of no class, and its borders are
outlines of the predicted classes beside it.

Labels with eroded borders hold no outlines at all, since each border between classes is ignored: these scores are for
full labels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ctrs.errors import UsageError
from ctrs.metrics.blocks import ScoredBlock
from ctrs.metrics.byte_counts import count_bytes
from ctrs.metrics.confusion import Counts, Scores, mean_over, ratio
from ctrs.metrics.neighbourhoods import Bytes, reduce_disc, reduce_square

_NOTHING = 254  # ground of no class: outside the scene, or not predicted
_PLANES = 8  # classes whose outlines share an array, one bit each

Flags = npt.NDArray[np.bool_]


class BoundaryCounts:
    """Counts pixels along the outlines of each class.

    Args:
        num_classes: Number of classes K, at most 254.
        boundary_px: Width ``d`` of the band that Boundary IoU compares, 1 or more.
        distances_px: D distances ``t`` up to which an outline pixel counts as found; may be empty.
        ignore_index: Mask value of ignored pixels, at least K and at most 255.

    >>> from ctrs.metrics import scored_blocks
    >>> truth = np.zeros((8, 8), np.uint8)
    >>> truth[2:6, 2:6] = 1
    >>> counts = BoundaryCounts(2, boundary_px=1, distances_px=(0, 1))
    >>> for block in scored_blocks(truth, np.roll(truth, 1, axis=1), block_px=4, halo_px=counts.halo_px):
    ...     counts.update(block)
    >>> counts.boundary_iou.round(3).tolist(), counts.boundary_f1[:, 1].round(3).tolist()
    ([0.731, 0.333], [0.5, 1.0])
    """

    def __init__(
        self,
        num_classes: int,
        *,
        boundary_px: int = 3,
        distances_px: Sequence[float] = (1.0, 3.0, 5.0),
        ignore_index: int = 255,
    ) -> None:
        if not 1 <= num_classes <= _NOTHING or not num_classes <= ignore_index <= 255:
            raise UsageError(
                f"boundary scores: num_classes {num_classes} and ignore_index {ignore_index} found, expected "
                f"1 <= num_classes <= {_NOTHING} and num_classes <= ignore_index <= 255"
            )
        if boundary_px < 1 or any(distance < 0 for distance in distances_px):
            raise UsageError(
                f"boundary scores: boundary_px {boundary_px} and distances_px {tuple(distances_px)} found, "
                "expected 1 or more, and no negative distance"
            )
        self.num_classes = num_classes
        self.boundary_px = boundary_px
        self.distances_px = tuple(float(distance) for distance in distances_px)
        self.ignore_index = ignore_index
        self.band_counts: Counts = np.zeros((3, num_classes), np.int64)
        """Pixels in the bands, int64 (3, K): in both, in the true one, in the predicted one."""
        self.outline_counts: Counts = np.zeros((len(self.distances_px), 4, num_classes), np.int64)
        """Outline pixels, int64 (D, 4, K): predicted and found, predicted, true and found, true."""

    @property
    def halo_px(self) -> int:
        """Width of the halo that blocks must have."""
        return max([self.boundary_px, *(math.floor(distance) + 1 for distance in self.distances_px)])

    def update(self, block: ScoredBlock) -> None:
        """Count a block.

        Raises:
            UsageError: Its halo is narrower than ``halo_px``.
            LabelError: A value is neither a class index nor ``ignore_index``; nothing is counted then.
        """
        block = block.reaching(self.halo_px)
        block.require_classes(self.num_classes, self.ignore_index)
        ignored = block.truth == self.ignore_index
        masks = _Masks(
            truth=block.truth,
            pred=np.where(block.pred == self.ignore_index, np.uint8(_NOTHING), block.pred),
            ignored=ignored if ignored.any() else None,
            core=block.core,
        )
        self.band_counts += _band_counts(masks, self.boundary_px, self.num_classes)
        if self.distances_px:
            self.outline_counts += _outline_counts(masks, self.distances_px, self.num_classes)

    @property
    def boundary_iou(self) -> Scores:
        """Boundary IoU of each class, (K,); NaN for classes neither true nor predicted."""
        return boundary_iou_of(self.band_counts)

    @property
    def boundary_precision(self) -> Scores:
        """Precision of the outlines by distance and class, (D, K); NaN where none is predicted."""
        return ratio(self.outline_counts[:, 0], self.outline_counts[:, 1])

    @property
    def boundary_recall(self) -> Scores:
        """Recall of the outlines by distance and class, (D, K); NaN where there is no true one."""
        return ratio(self.outline_counts[:, 2], self.outline_counts[:, 3])

    @property
    def boundary_f1(self) -> Scores:
        """F1 of the outlines by distance and class, (D, K); NaN for classes without any, 0 if only one mask has one."""
        return boundary_f1_of(self.outline_counts)

    def mean_boundary_iou(self, indices: Sequence[int] | None = None) -> float:
        """Return the mean Boundary IoU over the given classes (None: all) that have one, NaN if none has."""
        return mean_over(self.boundary_iou, indices)

    def mean_boundary_f1(self, indices: Sequence[int] | None = None) -> list[float]:
        """Return, for each distance, the mean F1 over the given classes (None: all) that have one, NaN if none has."""
        return [mean_over(scores, indices) for scores in self.boundary_f1]

    def merge(self, other: BoundaryCounts) -> None:
        """Add the counts of other scenes.

        Raises:
            UsageError: They were made with other options.
        """
        if self._options() != other._options():
            raise UsageError(
                f"boundary scores made with {self._options()} and {other._options()} cannot be added; "
                "score both with the same options"
            )
        self.band_counts += other.band_counts
        self.outline_counts += other.outline_counts

    def __add__(self, other: BoundaryCounts) -> BoundaryCounts:
        total = BoundaryCounts.from_json(self.to_json())
        total.merge(other)
        return total

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BoundaryCounts):
            return NotImplemented
        return (
            self._options() == other._options()
            and np.array_equal(self.band_counts, other.band_counts)
            and np.array_equal(self.outline_counts, other.outline_counts)
        )

    __hash__ = None  # type: ignore[assignment]  # counts change

    def _options(self) -> dict[str, Any]:
        return {
            "num_classes": self.num_classes,
            "boundary_px": self.boundary_px,
            "distances_px": list(self.distances_px),
            "ignore_index": self.ignore_index,
        }

    def to_json(self) -> dict[str, Any]:
        """Return options and counts as values that JSON holds exactly."""
        return self._options() | {"band": self.band_counts.tolist(), "outline": self.outline_counts.tolist()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> BoundaryCounts:
        """Read what ``to_json`` gave."""
        counts = cls(
            values["num_classes"],
            boundary_px=values["boundary_px"],
            distances_px=values["distances_px"],
            ignore_index=values["ignore_index"],
        )
        counts.band_counts += np.asarray(values["band"], np.int64)
        if counts.distances_px:
            counts.outline_counts += np.asarray(values["outline"], np.int64)
        return counts


def boundary_iou_of(band_counts: npt.NDArray[Any]) -> Scores:
    """Return the Boundary IoU of each class, (..., K), of ``band_counts`` (..., 3, K)."""
    both, true, pred = band_counts[..., 0, :], band_counts[..., 1, :], band_counts[..., 2, :]
    return ratio(both, true + pred - both)


def boundary_f1_of(outline_counts: npt.NDArray[Any]) -> Scores:
    """Return the boundary F1 by distance and class, (..., D, K), of ``outline_counts`` (..., D, 4, K)."""
    found_pred, pred, found_true, true = (outline_counts[..., part, :].astype(np.float64) for part in range(4))
    # 2 P R / (P + R) with P = a / b and R = c / d is 2 a c / (a d + c b): 0 / 0 where none of the outlines is found.
    scores = ratio(2 * found_pred * found_true, found_pred * true + found_true * pred)
    scores[np.isnan(scores) & (pred + true > 0)] = 0.0
    return scores


class _Masks:
    """A block's masks with ground of no class told from ignored ground."""

    def __init__(self, *, truth: Bytes, pred: Bytes, ignored: Flags | None, core: tuple[slice, slice]) -> None:
        self.truth = truth
        self.pred = pred
        self.ignored = ignored
        self.core = core

    def within(self, flags: Flags) -> Flags:
        """Return the flags of the core's pixels that are not ignored."""
        return flags if self.ignored is None else flags & ~self.ignored[self.core]


def _band_counts(masks: _Masks, width_px: int, num_classes: int) -> Counts:
    truth, pred = masks.truth[masks.core], masks.pred[masks.core]
    in_true = masks.within(_near_other(masks.truth, masks, width_px))
    in_pred = masks.within(_near_other(masks.pred, masks, width_px))
    both = in_true & in_pred
    both &= truth == pred
    return np.stack(
        [_by_class(mask, flags, num_classes) for mask, flags in ((truth, both), (truth, in_true), (pred, in_pred))]
    )


def _near_other(mask: Bytes, masks: _Masks, width_px: int) -> Flags:
    """Return, for the core, whether the square around a pixel holds another known value than its own."""
    # The ground outside the scene is padded as of no class. Where the scene goes on, the halo is wide enough that
    # no square of a core pixel reaches the padding.
    frame = _frame(masks.core, width_px)
    low = np.pad(mask, width_px, constant_values=_NOTHING)
    high = low
    if masks.ignored is not None:
        # What is unknown is never the least nor the greatest. Values are moved up by one to make room below.
        low, high = low.copy(), low + np.uint8(1)
        inner = (slice(width_px, -width_px), slice(width_px, -width_px))
        low[inner][masks.ignored], high[inner][masks.ignored] = 255, 0
    own = mask[masks.core]
    least, most = (
        reduce_square(array[frame], width_px, ufunc) for array, ufunc in ((low, np.minimum), (high, np.maximum))
    )
    flags: Flags = least != own
    flags |= most != (own if masks.ignored is None else own + np.uint8(1))
    return flags


def _outline_counts(masks: _Masks, distances_px: Sequence[float], num_classes: int) -> Counts:
    counts: Counts = np.zeros((len(distances_px), 4, num_classes), np.int64)
    lines = [(mask, _outlines(mask, masks.ignored)) for mask in (masks.truth, masks.pred)]
    totals = [_by_class(mask[masks.core], flags[masks.core], num_classes) for mask, flags in lines]
    counts[:, 3], counts[:, 1] = totals
    either = totals[0] + totals[1]
    for first in range(0, num_classes, _PLANES):
        last = min(first + _PLANES, num_classes)
        if not either[first:last].any():
            continue
        truth, pred = (_bits(mask, flags, first) for mask, flags in lines)
        for number, distance in enumerate(distances_px):
            for part, ours, theirs in ((0, pred, truth), (2, truth, pred)):
                found = _within(theirs, masks.core, distance)
                found &= ours[masks.core]
                # A pixel holds at most the bit of its own class.
                counts[number, part, first:last] = count_bytes(found)[1 << np.arange(last - first)]
    return counts


def _outlines(mask: Bytes, ignored: Flags | None) -> Flags:
    """Return which pixels share an edge with a known pixel of another value."""
    flags = np.zeros(mask.shape, np.bool_)
    for before, after in (((slice(-1),), (slice(1, None),)), ((slice(None), slice(-1)), (slice(None), slice(1, None)))):
        differs = mask[before] != mask[after]
        if ignored is not None:
            differs &= ~(ignored[before] | ignored[after])
        flags[before] |= differs
        flags[after] |= differs
    return flags


def _bits(mask: Bytes, flags: Flags, first: int) -> Bytes:
    """Return a mask with bit ``n`` set at the flagged pixels of class ``first + n``."""
    bits: Bytes = np.left_shift(np.uint8(1), mask & np.uint8(_PLANES - 1))
    bits *= flags & (mask >> np.uint8(3) == first >> 3)
    return bits


def _within(bits: Bytes, core: tuple[slice, slice], distance: float) -> Bytes:
    """Return, for the core, the bits set within the distance of each pixel."""
    reach = math.floor(distance)
    return reduce_disc(np.pad(bits, reach)[_frame(core, reach)], distance, np.bitwise_or)


def _frame(core: tuple[slice, slice], width_px: int) -> tuple[slice, slice]:
    """Return where the core with ``width_px`` around it stands in an array that was padded by ``width_px``."""
    rows, cols = (slice(side.start, side.stop + 2 * width_px) for side in core)
    return rows, cols


def _by_class(mask: Bytes, flags: Flags, num_classes: int) -> Counts:
    """Count the flagged pixels by class; those of no class are left out."""
    # All others become 255, which is no class; to pick out the flagged ones would take several times as long.
    return count_bytes(mask | (flags.view(np.uint8) - np.uint8(1)))[:num_classes]
