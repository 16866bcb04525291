"""How much ground each class covers, true and predicted.

    error = predicted area - true area        relative error = error / true area

over the pixels whose truth is known; ignored ground belongs to neither. Pixels that have a true class but no prediction
lower the predicted area of whatever they would have been. False alarms and misses of a class cancel: this is the error
of an inventory, not of a map.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ctrs.errors import UsageError
from ctrs.metrics.blocks import ScoredBlock
from ctrs.metrics.confusion import ConfusionMatrix, Counts, Scores, ratio


class AreaCounts:
    """Counts pixels of each class, true and predicted, by the ground area of a pixel.

    Args:
        num_classes: Number of classes K.
        pixel_area_m2: Ground area of a pixel of the blocks to come; each scene has an accumulator of its own, and
            their sum is exact whatever the order.
        ignore_index: Mask value of ignored pixels, at least K and at most 255.

    >>> from ctrs.metrics import scored_blocks
    >>> areas = AreaCounts(2, pixel_area_m2=0.25)
    >>> truth, pred = np.array([[0, 0, 1, 255]], np.uint8), np.array([[0, 1, 1, 1]], np.uint8)
    >>> areas.update(next(scored_blocks(truth, pred)))
    >>> areas.true_m2.tolist(), areas.pred_m2.tolist(), areas.relative_error.tolist()
    ([0.5, 0.25], [0.25, 0.5], [-0.5, 1.0])
    """

    def __init__(self, num_classes: int, *, pixel_area_m2: float, ignore_index: int = 255) -> None:
        if not 1 <= num_classes <= ignore_index <= 255:
            raise UsageError(
                f"areas: num_classes {num_classes} and ignore_index {ignore_index} found, "
                "expected 1 <= num_classes <= ignore_index <= 255"
            )
        if not (math.isfinite(pixel_area_m2) and pixel_area_m2 > 0):
            raise UsageError(f"areas: pixel_area_m2 {pixel_area_m2} found, expected square metres above 0")
        self.num_classes = num_classes
        self.pixel_area_m2 = float(pixel_area_m2)
        self.ignore_index = ignore_index
        self.counts: dict[float, Counts] = {}
        """Pixels, int64 (2, K): true and predicted ones, for each ground area of a pixel."""

    def update(self, block: ScoredBlock) -> None:
        """Count a block.

        Raises:
            LabelError: A value is neither a class index nor ``ignore_index``; nothing is counted then.
        """
        matrix = ConfusionMatrix(self.num_classes, ignore_index=self.ignore_index)
        matrix.update(block.core_truth, block.core_pred)
        self.add_pixels(matrix)

    def add_pixels(self, matrix: ConfusionMatrix) -> None:
        """Count the pixels that a confusion matrix holds already, instead of reading their blocks."""
        if matrix.num_classes != self.num_classes:
            raise UsageError(f"areas of {self.num_classes} and {matrix.num_classes} classes cannot be added")
        self._add(self.pixel_area_m2, np.stack([matrix.support, matrix.predicted]))

    def _add(self, pixel_area_m2: float, counts: Counts) -> None:
        held = self.counts.get(pixel_area_m2)
        self.counts[pixel_area_m2] = counts.copy() if held is None else held + counts

    @property
    def true_m2(self) -> Scores:
        """True area of each class, (K,)."""
        true: Scores = self._areas()[0]
        return true

    @property
    def pred_m2(self) -> Scores:
        """Predicted area of each class, (K,)."""
        pred: Scores = self._areas()[1]
        return pred

    @property
    def error_m2(self) -> Scores:
        """Predicted less true area of each class, (K,)."""
        true, pred = self._areas()
        error: Scores = pred - true
        return error

    @property
    def relative_error(self) -> Scores:
        """Error as a share of the true area of each class, (K,); NaN for classes absent from the truth."""
        return ratio(self.error_m2, self.true_m2)

    def _areas(self) -> Scores:
        total: Scores = np.zeros((2, self.num_classes))
        for pixel_area_m2 in sorted(self.counts):
            total += pixel_area_m2 * self.counts[pixel_area_m2]
        return total

    def merge(self, other: AreaCounts) -> None:
        """Add the counts of other scenes, whose pixels may be of another size.

        Raises:
            UsageError: They have another number of classes.
        """
        if (other.num_classes, other.ignore_index) != (self.num_classes, self.ignore_index):
            raise UsageError(f"areas of {self.num_classes} and {other.num_classes} classes cannot be added")
        for pixel_area_m2, counts in other.counts.items():
            self._add(pixel_area_m2, counts)

    def __add__(self, other: AreaCounts) -> AreaCounts:
        total = AreaCounts.from_json(self.to_json())
        total.merge(other)
        return total

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AreaCounts):
            return NotImplemented
        return self.to_json() | {"pixel_area_m2": 0} == other.to_json() | {"pixel_area_m2": 0}

    __hash__ = None  # type: ignore[assignment]  # counts change

    def to_json(self) -> dict[str, Any]:
        """Return options and counts as values that JSON holds exactly."""
        return {
            "num_classes": self.num_classes,
            "pixel_area_m2": self.pixel_area_m2,
            "ignore_index": self.ignore_index,
            "counts": [[area, *self.counts[area].tolist()] for area in sorted(self.counts)],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> AreaCounts:
        """Read what ``to_json`` gave."""
        areas = cls(values["num_classes"], pixel_area_m2=values["pixel_area_m2"], ignore_index=values["ignore_index"])
        for pixel_area_m2, *counts in values["counts"]:
            areas._add(float(pixel_area_m2), np.asarray(counts, np.int64))
        return areas
