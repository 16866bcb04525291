"""Scores of the validation tiles after each epoch: whole tiles, nothing random, one confusion matrix."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager

import torch

from ctrs.classes import ClassMap
from ctrs.data.dataset import Batch
from ctrs.evaluation.protocols import score_protocols
from ctrs.metrics import ConfusionMatrix
from ctrs.models.segmentation import SegmentationModel


def validate(
    model: SegmentationModel,
    batches: Iterable[Batch],
    num_classes: int,
    *,
    device: torch.device,
    autocast: AbstractContextManager[object],
) -> ConfusionMatrix:
    """Count the pixels of all batches by true and predicted class.

    Args:
        model: The network, left in the mode that it was in.
        batches: Whole tiles.
        num_classes: K.
        device: Where the network is.
        autocast: Context of the network's precision.
    """
    matrix = ConfusionMatrix(num_classes)
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode(), autocast:
            for batch in batches:
                logits = model(batch["image"].to(device, non_blocking=True)).logits
                predicted = logits.argmax(1).to("cpu", torch.uint8)
                matrix.update(batch["mask"].numpy(), predicted.numpy())
    finally:
        model.train(was_training)
    return matrix


def selection_scores(matrix: ConfusionMatrix, classes: ClassMap) -> dict[str, float]:
    """Return what the log shows and ``best`` is chosen by: mean IoU, overall accuracy, IoU of each class.

    They are those of the headline protocol, as ``ctrs eval`` reports it: pixels whose true class is unscored are left
    out. Only the IoU of unscored classes themselves is taken over all pixels.
    """
    headline = score_protocols({"strict": matrix}, classes)[0]
    iou = {name: float(value) for name, value in zip(classes.names, matrix.iou, strict=True)}
    iou |= {entry.name: entry.iou for entry in headline.classes}
    return {
        "mean_iou": headline.mean_iou,
        "overall_accuracy": headline.overall_accuracy,
        **{f"iou {name}": value for name, value in iou.items()},
    }


def selection_protocol(classes: ClassMap) -> str:
    """Return the name of the rule that ``selection_scores`` follows.

    >>> from ctrs.classes import BUILDING_CLASSES
    >>> selection_protocol(BUILDING_CLASSES)
    'validation tiles: strict, all classes'
    """
    headline = score_protocols({"strict": ConfusionMatrix(classes.num_classes)}, classes)[0]
    return f"validation tiles: {headline.name}"
