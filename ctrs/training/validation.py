"""Scores of the validation tiles after each epoch: whole tiles, nothing random, one confusion matrix."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager

import torch

from ctrs.classes import ClassMap
from ctrs.data.dataset import Batch
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
    """Return what the log shows: mean IoU over the scored classes, overall accuracy, IoU of each class."""
    return {
        "mean_iou": matrix.mean_iou(classes.scored_indices),
        "overall_accuracy": matrix.overall_accuracy(),
        **{f"iou {name}": float(value) for name, value in zip(classes.names, matrix.iou, strict=True)},
    }
