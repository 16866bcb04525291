"""The rules by which a confusion matrix becomes scores; each has a name, since figures of two rules do not compare.

A protocol says which labels are the truth and which pixels count:

- Labels: ``strict`` takes the full labels; ``isprs`` the eroded ones of the ISPRS benchmark, in which the pixels near
  class borders are ignored; ``isprs (eroded here)`` the full ones, eroded by the same rule (``ctrs.metrics.erosion``)
  because the data have no others, or because that was asked for.
- Pixels, for tables with unscored classes (ISPRS clutter):
    - ``without clutter``: pixels whose *true* class is unscored are left out, and means go over the scored classes.
      A scored pixel that is predicted as clutter stays an error: it lowers the recall of its class. This is the
      headline. The Contrastive Transformer paper (arXiv 2303.14806) excludes clutter "from the evaluation" and reports
      means over five classes; it does not say whether true clutter pixels still count as false alarms, hence the next:
    - ``clutter as error``: all pixels count, and means go over the scored classes, so that true clutter predicted as
      a scored class lowers the precision of that class.
    - ``all classes``: all pixels count, and means go over all classes, clutter included.

Pixels without truth (255) never count; true pixels without prediction are errors (see ``ctrs.metrics``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ctrs.classes import ClassMap
from ctrs.metrics import ConfusionMatrix, mean_over

Labels = Literal["strict", "isprs", "isprs (eroded here)"]

LABELS: tuple[Labels, ...] = get_args(Labels)


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """Scores of one class under a protocol; NaN where a ratio has no denominator.

    Args:
        name: Name of the class.
        iou: Intersection over union.
        f1: F1.
        precision: Correct share of the predicted pixels.
        recall: Found share of the true pixels.
        truth_px: True pixels.
        predicted_px: Predicted pixels.
    """

    name: str
    iou: float
    f1: float
    precision: float
    recall: float
    truth_px: int
    predicted_px: int

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; NaN becomes None."""
        return {
            "name": self.name,
            "iou": plain_number(self.iou),
            "f1": plain_number(self.f1),
            "precision": plain_number(self.precision),
            "recall": plain_number(self.recall),
            "truth_px": self.truth_px,
            "predicted_px": self.predicted_px,
        }


@dataclass(frozen=True, kw_only=True)
class ProtocolScore:
    """Scores under one protocol.

    Args:
        name: Labels and pixels, e.g. ``"strict, without clutter"``.
        labels: Which labels are the truth.
        classes: Scores of the classes over which the means go.
        mean_iou: Mean IoU over those classes, as far as they have one.
        mean_f1: Mean F1, likewise.
        mean_precision: Mean precision, likewise.
        mean_recall: Mean recall, likewise.
        overall_accuracy: Correct share of the pixels that count.
        num_pixels: Pixels that count.
    """

    name: str
    labels: Labels
    classes: tuple[ClassScore, ...]
    mean_iou: float
    mean_f1: float
    mean_precision: float
    mean_recall: float
    overall_accuracy: float
    num_pixels: int

    def class_score(self, name: str) -> ClassScore:
        """Return the scores of a class by name.

        Raises:
            KeyError: The protocol does not score it.
        """
        for entry in self.classes:
            if entry.name == name:
                return entry
        raise KeyError(name)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; NaN becomes None."""
        return {
            "name": self.name,
            "labels": self.labels,
            "mean_iou": plain_number(self.mean_iou),
            "mean_f1": plain_number(self.mean_f1),
            "mean_precision": plain_number(self.mean_precision),
            "mean_recall": plain_number(self.mean_recall),
            "overall_accuracy": plain_number(self.overall_accuracy),
            "num_pixels": self.num_pixels,
            "classes": [entry.to_json() for entry in self.classes],
        }


def score_protocols(confusions: Mapping[Labels, ConfusionMatrix], classes: ClassMap) -> tuple[ProtocolScore, ...]:
    """Return the scores under every protocol that the labels and the class table allow, the headline first.

    Args:
        confusions: Confusion matrix over all pixels, for each kind of labels.
        classes: Class table of the matrices.
    """
    return tuple(
        _score(f"{labels}, {pixels}", labels, matrix, indices, classes)
        for labels, whole in confusions.items()
        for pixels, matrix, indices in _variants(whole, classes)
    )


def _variants(whole: ConfusionMatrix, classes: ClassMap) -> Iterator[tuple[str, ConfusionMatrix, tuple[int, ...]]]:
    """Yield name, matrix and classes of the means of each choice of pixels."""
    scored = classes.scored_indices
    unscored = [entry.name for entry in classes.learnt if not entry.scored]
    if unscored and scored:
        names = " and ".join(unscored)
        yield f"without {names}", whole.with_truth(scored), scored
        yield f"{names} as error", whole, scored
    yield "all classes", whole, tuple(range(classes.num_classes))


def _score(
    name: str, labels: Labels, matrix: ConfusionMatrix, indices: tuple[int, ...], classes: ClassMap
) -> ProtocolScore:
    iou, f1, precision, recall = matrix.iou, matrix.f1, matrix.precision, matrix.recall
    support, predicted = matrix.support, matrix.predicted
    return ProtocolScore(
        name=name,
        labels=labels,
        classes=tuple(
            ClassScore(
                name=classes.names[index],
                iou=float(iou[index]),
                f1=float(f1[index]),
                precision=float(precision[index]),
                recall=float(recall[index]),
                truth_px=int(support[index]),
                predicted_px=int(predicted[index]),
            )
            for index in indices
        ),
        mean_iou=mean_over(iou, indices),
        mean_f1=mean_over(f1, indices),
        mean_precision=mean_over(precision, indices),
        mean_recall=mean_over(recall, indices),
        overall_accuracy=matrix.overall_accuracy(),
        num_pixels=matrix.total,
    )


def plain_number(value: float) -> float | None:
    """Return a number for JSON, which knows no NaN.

    >>> plain_number(float("nan")), plain_number(0.5)
    (None, 0.5)
    """
    return None if math.isnan(value) else value
