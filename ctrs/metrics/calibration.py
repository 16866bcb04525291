"""Whether confidences are honest: expected calibration error and the table behind it.

Guo et al., On Calibration of Modern Neural Networks, ICML 2017, equations 2 to 5: pixels are sorted into M bins of
equal width by the confidence of the predicted class, bin m holding ((m - 1) / M, m / M]; then

    ECE = sum over bins of (pixels of the bin / pixels) |accuracy of the bin - mean confidence of the bin|

Ignored pixels and pixels without a prediction have no part in it. Departure: a confidence of exactly 0 is counted
in the first bin. torchmetrics differs only for confidences that lie exactly on an edge between bins; it has a bin of
its own for 1.0.

Sums of confidences are kept as integers of 2^-32, so that they do not depend on how a scene was cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ctrs.errors import DataError, UsageError
from ctrs.metrics.blocks import ScoredBlock
from ctrs.metrics.confusion import Counts, Scores, ratio

_UNIT_BITS = 32
"""A float32 in [2^-9, 1] is a multiple of 2^-32, and the most probable of up to 255 classes has at least 1 / 255."""

_CHUNK_PX = 1 << 16
"""Sums of up to 2^21 confidences in units of 2^-32 are held by float64 exactly; fewer stay in the cache."""


@dataclass(frozen=True, kw_only=True)
class ReliabilityRow:
    """A bin of the reliability table.

    Args:
        low: Its pixels' confidences are above this,
        high: and at most this.
        pixels: Pixels in it.
        accuracy: Share of them that is right; NaN without pixels.
        confidence: Their mean confidence; NaN without pixels.
    """

    low: float
    high: float
    pixels: int
    accuracy: float
    confidence: float


class CalibrationCounts:
    """Counts pixels, correct pixels and confidences by bin of confidence.

    Args:
        bins: Number of bins M.
        ignore_index: Mask value of ignored pixels.

    >>> from ctrs.metrics import scored_blocks
    >>> truth, pred = np.array([[0, 0, 1, 255]], np.uint8), np.array([[0, 1, 1, 1]], np.uint8)
    >>> confidence = np.array([[0.75, 0.25, 1.0, 0.5]], np.float32)
    >>> calibration = CalibrationCounts(2)
    >>> calibration.update(next(scored_blocks(truth, pred, confidence=confidence)))
    >>> calibration.ece, [row.accuracy for row in calibration.table]
    (0.16666666666666666, [0.0, 1.0])
    """

    def __init__(self, bins: int = 15, *, ignore_index: int = 255) -> None:
        if bins < 1:
            raise UsageError(f"calibration: bins {bins} found, expected 1 or more")
        self.bins = bins
        self.ignore_index = ignore_index
        self.pixels: Counts = np.zeros((2, bins), np.int64)
        """Pixels of each bin, int64 (2, M): wrong and right ones."""
        self._sums = [0] * bins  # of confidences, in units of 2^-32

    def update(self, block: ScoredBlock) -> None:
        """Count a block.

        Raises:
            DataError: It has no confidences, or one is not in [0, 1].
        """
        block = block.reaching(0)
        if block.confidence is None:
            raise DataError("calibration: the masks come without confidences; predict them with confidences")
        if block.confidence.shape != block.truth.shape:
            raise UsageError(
                f"calibration: masks {block.truth.shape} and confidences {block.confidence.shape} differ in shape"
            )
        counted = (block.truth != self.ignore_index) & (block.pred != self.ignore_index)
        confidence = np.where(counted, block.confidence, np.float32(0))  # where nothing is predicted, any may stand
        if confidence.size and not (confidence.min() >= 0 and confidence.max() <= 1):
            raise DataError(
                f"calibration: confidences from {confidence.min()} to {confidence.max()} found, expected 0 to 1"
            )
        # What is not counted goes to a third row.
        rows = np.where(counted, (block.truth == block.pred).view(np.uint8), np.uint8(2))
        flat_confidence, flat_rows = confidence.ravel(), rows.ravel()
        for start in range(0, confidence.size, _CHUNK_PX):
            self._count(flat_confidence[start : start + _CHUNK_PX], flat_rows[start : start + _CHUNK_PX])

    def _count(self, confidence: npt.NDArray[np.float32], rows: npt.NDArray[np.uint8]) -> None:
        exact = confidence.astype(np.float64)
        # float64 holds the product of a float32 and a bin count exactly: edges are where the definition has them.
        place = np.maximum(np.ceil(exact * self.bins), 1.0) - 1.0
        keys = (place + self.bins * rows.astype(np.float64)).astype(np.int64)
        self.pixels += np.bincount(keys, minlength=3 * self.bins)[: 2 * self.bins].reshape(2, self.bins)
        # What is not counted has a confidence of 0.
        units = np.bincount(keys, weights=np.rint(exact * 2.0**_UNIT_BITS), minlength=3 * self.bins)
        sums = units.reshape(3, self.bins).sum(axis=0).tolist()
        self._sums = [held + int(more) for held, more in zip(self._sums, sums, strict=True)]

    @property
    def sums(self) -> Scores:
        """Sum of the confidences of each bin, (M,)."""
        return np.array([held / 2**_UNIT_BITS for held in self._sums])

    @property
    def bin_counts(self) -> Scores:
        """Pixels, right pixels and sum of confidences, float64 (3, M): what scenes add up."""
        return np.stack([self.pixels.sum(axis=0), self.pixels[1], self.sums])

    @property
    def ece(self) -> float:
        """Expected calibration error, NaN without pixels."""
        return float(ece_of(self.bin_counts))

    @property
    def table(self) -> list[ReliabilityRow]:
        """The reliability table, a row for each bin."""
        pixels, right, sums = self.bin_counts
        accuracy, confidence = ratio(right, pixels), ratio(sums, pixels)
        return [
            ReliabilityRow(
                low=number / self.bins,
                high=(number + 1) / self.bins,
                pixels=int(pixels[number]),
                accuracy=float(accuracy[number]),
                confidence=float(confidence[number]),
            )
            for number in range(self.bins)
        ]

    def merge(self, other: CalibrationCounts) -> None:
        """Add the counts of other scenes.

        Raises:
            UsageError: They have another number of bins.
        """
        if (other.bins, other.ignore_index) != (self.bins, self.ignore_index):
            raise UsageError(f"calibration in {self.bins} and {other.bins} bins cannot be added")
        self.pixels += other.pixels
        self._sums = [ours + theirs for ours, theirs in zip(self._sums, other._sums, strict=True)]

    def __add__(self, other: CalibrationCounts) -> CalibrationCounts:
        total = CalibrationCounts.from_json(self.to_json())
        total.merge(other)
        return total

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CalibrationCounts):
            return NotImplemented
        return self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]  # counts change

    def to_json(self) -> dict[str, Any]:
        """Return options and counts as values that JSON holds exactly; sums are integers in units of 2^-32."""
        return {
            "bins": self.bins,
            "ignore_index": self.ignore_index,
            "pixels": self.pixels.tolist(),
            "sums": list(self._sums),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> CalibrationCounts:
        """Read what ``to_json`` gave."""
        calibration = cls(values["bins"], ignore_index=values["ignore_index"])
        calibration.pixels += np.asarray(values["pixels"], np.int64)
        calibration._sums = [int(units) for units in values["sums"]]
        return calibration


def ece_of(bin_counts: npt.NDArray[Any]) -> Scores:
    """Return the expected calibration error, (...), of ``CalibrationCounts.bin_counts`` (..., 3, M)."""
    pixels, right, sums = bin_counts[..., 0, :], bin_counts[..., 1, :], bin_counts[..., 2, :]
    # pixels / all |right / pixels - sums / pixels| without a division by an empty bin's 0
    return ratio(np.abs(right - sums).sum(axis=-1), pixels.sum(axis=-1))
