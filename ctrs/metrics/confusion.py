"""Scores of class masks from one confusion matrix of pixels: IoU, F1, precision, recall, overall accuracy (numpy only).

With TP, FP and FN of a class counted over all pixels seen:

    IoU = TP / (TP + FP + FN)        F1 = 2 TP / (2 TP + FP + FN)
    precision = TP / (TP + FP)       recall = TP / (TP + FN)       overall accuracy = sum TP / pixels

A ratio whose denominator is 0 is NaN, not 0 and not 1: a class that is neither in the truth nor in the prediction has
no IoU, and means leave it out. A class that is predicted but absent from the truth has IoU 0 and counts in the mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ctrs.errors import LabelError, UsageError

Counts = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]

_CHUNK_PX = 1 << 20  # np.bincount widens its input to 8 bytes a pixel; chunks keep that small


class ConfusionMatrix:
    """Counts pixels by true and predicted class.

    Pixels whose truth is ``ignore_index`` are not counted. Pixels with a true class but no prediction (predicted
    ``ignore_index``, e.g. nodata) are counted in a last column of their own: they are missed by their class and lower
    its recall, IoU and F1 and the overall accuracy, so that a model cannot gain by staying silent.

    Args:
        num_classes: Number of classes K, at most 255.
        ignore_index: Mask value of ignored pixels, at least K and at most 255.

    >>> matrix = ConfusionMatrix(2)
    >>> matrix.update(np.array([0, 0, 1, 1, 255]), np.array([0, 1, 1, 255, 0]))
    >>> matrix.counts.tolist()
    [[1, 1, 0], [0, 1, 1]]
    >>> matrix.recall.tolist(), round(matrix.mean_iou(), 4)
    ([0.5, 0.5], 0.4167)
    """

    def __init__(self, num_classes: int, *, ignore_index: int = 255) -> None:
        if not 1 <= num_classes <= ignore_index <= 255:
            raise UsageError(
                f"confusion matrix: num_classes {num_classes} and ignore_index {ignore_index} found, "
                "expected 1 <= num_classes <= ignore_index <= 255"
            )
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.counts: Counts = np.zeros((num_classes, num_classes + 1), np.int64)
        """Pixels, int64 (K, K + 1): rows true classes, columns predicted classes, last column not predicted."""

    @classmethod
    def from_counts(cls, counts: npt.ArrayLike, *, ignore_index: int = 255) -> ConfusionMatrix:
        """Build from counts made elsewhere.

        Args:
            counts: Non-negative integers (K, K), or (K, K + 1) with the column of pixels not predicted.
            ignore_index: As in the constructor.

        Raises:
            UsageError: The array is of another shape or kind.
        """
        array = np.asarray(counts)
        if array.ndim != 2 or array.shape[1] - array.shape[0] not in (0, 1) or array.dtype.kind not in "iu":
            raise UsageError(
                f"confusion matrix: counts of shape {array.shape} and dtype {array.dtype} found, "
                "expected integers of shape (K, K) or (K, K + 1)"
            )
        if (array < 0).any():
            raise UsageError("confusion matrix: negative counts found, expected numbers of pixels")
        matrix = cls(array.shape[0], ignore_index=ignore_index)
        matrix.counts[:, : array.shape[1]] = array
        return matrix

    def update(self, truth: npt.NDArray[Any], pred: npt.NDArray[Any]) -> None:
        """Count pixels.

        Args:
            truth: Class indices or ``ignore_index``, integers of any shape.
            pred: Likewise, of the same shape.

        Raises:
            UsageError: The shapes differ or the arrays hold no integers.
            LabelError: A value is neither a class index nor ``ignore_index``; nothing is counted then.
        """
        if truth.shape != pred.shape:
            raise UsageError(f"confusion matrix: truth {truth.shape} and prediction {pred.shape} differ in shape")
        flat_truth, flat_pred = _as_bytes(truth, "truth").ravel(), _as_bytes(pred, "prediction").ravel()
        # One count for each of the 256 x 256 pairs needs no test of the single pixel, and shows unknown values too.
        pairs = np.zeros(1 << 16, np.int64)
        for start in range(0, flat_truth.size, _CHUNK_PX):
            piece = slice(start, start + _CHUNK_PX)
            keys = (flat_truth[piece].astype(np.uint16) << 8) | flat_pred[piece]
            pairs += np.bincount(keys, minlength=pairs.size)
        table = pairs.reshape(256, 256)
        self._check_values(table.sum(axis=1), "truth")
        self._check_values(table.sum(axis=0), "prediction")
        valid = table[: self.num_classes]
        self.counts[:, : self.num_classes] += valid[:, : self.num_classes]
        self.counts[:, -1] += valid[:, self.ignore_index]

    def _check_values(self, histogram: Counts, what: str) -> None:
        found = [value for value in np.flatnonzero(histogram).tolist() if value != self.ignore_index]
        strange = [value for value in found if value >= self.num_classes]
        if strange:
            raise LabelError(
                f"{what}: value {strange[0]} found in {int(histogram[strange[0]])} px, expected class indices "
                f"0 to {self.num_classes - 1} or {self.ignore_index}; is this mask made for another class table?"
            )

    def merge(self, other: ConfusionMatrix) -> None:
        """Add the counts of another matrix to this one.

        Raises:
            UsageError: It has another number of classes.
        """
        if other.num_classes != self.num_classes:
            raise UsageError(
                f"confusion matrices of {self.num_classes} and {other.num_classes} classes cannot be added"
            )
        self.counts += other.counts

    def __add__(self, other: ConfusionMatrix) -> ConfusionMatrix:
        total = ConfusionMatrix.from_counts(self.counts, ignore_index=self.ignore_index)
        total.merge(other)
        return total

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ConfusionMatrix):
            return NotImplemented
        return np.array_equal(self.counts, other.counts)

    __hash__ = None  # type: ignore[assignment]  # counts change

    def __repr__(self) -> str:
        return f"ConfusionMatrix(num_classes={self.num_classes}, pixels={self.total})"

    def to_json(self) -> dict[str, Any]:
        """Return options and counts as values that JSON holds exactly."""
        return {"num_classes": self.num_classes, "ignore_index": self.ignore_index, "counts": self.counts.tolist()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ConfusionMatrix:
        """Read what ``to_json`` gave."""
        return cls.from_counts(np.asarray(values["counts"], np.int64), ignore_index=values["ignore_index"])

    def with_truth(self, indices: Sequence[int]) -> ConfusionMatrix:
        """Return the matrix over the pixels whose true class is one of ``indices``; predictions stay as they are."""
        kept = ConfusionMatrix(self.num_classes, ignore_index=self.ignore_index)
        rows = list(indices)
        kept.counts[rows] = self.counts[rows]
        return kept

    @property
    def total(self) -> int:
        """Number of pixels counted."""
        return int(self.counts.sum())

    @property
    def support(self) -> Counts:
        """True pixels of each class, (K,)."""
        totals: Counts = self.counts.sum(axis=1)
        return totals

    @property
    def predicted(self) -> Counts:
        """Predicted pixels of each class, (K,)."""
        totals: Counts = self.counts[:, :-1].sum(axis=0)
        return totals

    @property
    def true_positives(self) -> Counts:
        """Correct pixels of each class, (K,)."""
        return np.diagonal(self.counts).copy()

    @property
    def iou(self) -> Scores:
        """Intersection over union of each class, (K,); NaN for classes neither true nor predicted."""
        return ratio(self.true_positives, self.support + self.predicted - self.true_positives)

    @property
    def f1(self) -> Scores:
        """F1 of each class, (K,); NaN for classes neither true nor predicted."""
        return ratio(2 * self.true_positives, self.support + self.predicted)

    @property
    def precision(self) -> Scores:
        """Precision of each class, (K,); NaN for classes never predicted."""
        return ratio(self.true_positives, self.predicted)

    @property
    def recall(self) -> Scores:
        """Recall of each class, (K,); NaN for classes absent from the truth."""
        return ratio(self.true_positives, self.support)

    def overall_accuracy(self, indices: Sequence[int] | None = None) -> float:
        """Return the share of correct pixels, NaN without pixels.

        Args:
            indices: Only pixels whose true class is one of these; None: all.
        """
        matrix = self if indices is None else self.with_truth(indices)
        return float(ratio(matrix.true_positives.sum(), matrix.counts.sum()))

    def mean_iou(self, indices: Sequence[int] | None = None) -> float:
        """Return the mean IoU over the given classes (None: all) that have one, NaN if none has."""
        return mean_over(self.iou, indices)

    def mean_f1(self, indices: Sequence[int] | None = None) -> float:
        """Return the mean F1 over the given classes (None: all) that have one, NaN if none has."""
        return mean_over(self.f1, indices)


def mean_over(scores: Scores, indices: Sequence[int] | None = None) -> float:
    """Return the mean of the given entries (None: all) that are not NaN, NaN if none is left.

    >>> mean_over(np.array([0.5, np.nan, 1.0]))
    0.75
    """
    chosen = scores if indices is None else scores[list(indices)]
    held = chosen[~np.isnan(chosen)]
    return float(held.mean()) if held.size else float("nan")


def iou_of(counts: npt.NDArray[Any]) -> Scores:
    """Return the IoU of each class, (..., K), of ``ConfusionMatrix.counts`` (..., K, K + 1)."""
    hits, true, pred = _margins(counts)
    return ratio(hits, true + pred - hits)


def f1_of(counts: npt.NDArray[Any]) -> Scores:
    """Return the F1 of each class, (..., K), of ``ConfusionMatrix.counts`` (..., K, K + 1)."""
    hits, true, pred = _margins(counts)
    return ratio(2 * hits, true + pred)


def accuracy_of(counts: npt.NDArray[Any]) -> Scores:
    """Return the overall accuracy, (...), of ``ConfusionMatrix.counts`` (..., K, K + 1)."""
    hits, true, _ = _margins(counts)
    return ratio(hits.sum(axis=-1), true.sum(axis=-1))


def _margins(counts: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the correct, true and predicted pixels of each class, each (..., K)."""
    known = counts[..., :-1]
    return np.diagonal(known, axis1=-2, axis2=-1), counts.sum(axis=-1), known.sum(axis=-2)


def ratio(part: Any, whole: Any) -> Scores:
    """Return ``part / whole``, NaN where ``whole`` is 0.

    >>> ratio([1, 0], [2, 0]).tolist()
    [0.5, nan]
    """
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    result: Scores = np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
    return result


def _as_bytes(values: npt.NDArray[Any], what: str) -> npt.NDArray[np.uint8]:
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind not in "iub":
        raise UsageError(f"confusion matrix: {what} of dtype {values.dtype} found, expected integers")
    if values.size and (values.min() < 0 or values.max() > 255):
        raise LabelError(f"{what}: values from {values.min()} to {values.max()} found, expected 0 to 255")
    return values.astype(np.uint8)
