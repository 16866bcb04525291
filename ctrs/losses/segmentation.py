"""Segmentation loss: soft cross entropy + Dice, 1 : 1, over the pixels that have a label.

The softmax is computed once for both. Dimension letters: B images, K classes, H x W pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ctrs.errors import ConfigError


class SegmentationLossOutput(NamedTuple):
    """The two parts, each a scalar with a graph; their sum is the loss."""

    cross_entropy: Tensor
    dice: Tensor


class SegmentationLoss(nn.Module):
    """Label-smoothed cross entropy and soft Dice.

    - Cross entropy: mean over valid pixels only, as `torch.nn.functional.cross_entropy` with ``ignore_index`` (smp
      divides by all pixels, so that ignored ones lower the loss).
    - Dice: 1 - (2 |P G| + smooth) / (|P| + |G| + smooth) for each class over the whole batch, 0 for classes that the
      batch does not hold, mean over all K classes. This is smp's multiclass DiceLoss with half the
      ``smooth``, which counts twice there.

    A batch without a valid pixel gives 0 with a graph.

    Args:
        num_classes: K.
        label_smoothing: Share of the target that is spread over all classes.
        dice_smooth: Added to numerator and denominator of Dice.
        ignore_index: Label of pixels that do not count; values outside 0..K-1 do not count either.

    Raises:
        ConfigError: An option outside its range.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        label_smoothing: float = 0.05,
        dice_smooth: float = 0.05,
        ignore_index: int = 255,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ConfigError(f"num_classes of the segmentation loss must be at least 1, found {num_classes}")
        if not 0 <= label_smoothing < 1 or dice_smooth < 0:
            raise ConfigError(
                "the segmentation loss needs label_smoothing from 0 to below 1 and dice_smooth of at least 0, "
                f"found {label_smoothing} and {dice_smooth}"
            )
        self.num_classes = num_classes
        self.label_smoothing = label_smoothing
        self.dice_smooth = dice_smooth
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, labels: Tensor) -> SegmentationLossOutput:
        """Compute both parts.

        Args:
            logits: (B, K, H, W).
            labels: (B, H, W) integer class indices.
        """
        with torch.autocast(logits.device.type, enabled=False):
            wide = logits if logits.dtype == torch.float64 else logits.float()
            log_probability = wide.log_softmax(1)
            valid = (labels >= 0) & (labels < self.num_classes) & (labels != self.ignore_index)  # (B, H, W)
            target = torch.where(valid, labels, 0).long()
            cross_entropy = self._cross_entropy(log_probability, target, valid)
            return SegmentationLossOutput(cross_entropy, self._dice(log_probability.exp(), target, valid))

    def _cross_entropy(self, log_probability: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        loss = -log_probability.gather(1, target[:, None]).squeeze(1)  # (B, H, W)
        if self.label_smoothing:
            loss = (1 - self.label_smoothing) * loss - self.label_smoothing * log_probability.mean(1)
        return torch.where(valid, loss, 0.0).sum() / valid.sum().clamp_min(1)

    def _dice(self, probability: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        classes = torch.arange(self.num_classes, device=target.device)[:, None, None]
        truth = (target[:, None] == classes) & valid[:, None]  # (B, K, H, W)
        count = truth.sum((0, 2, 3))
        predicted = torch.where(valid[:, None], probability, 0.0).sum((0, 2, 3))
        common = torch.where(truth, probability, 0.0).sum((0, 2, 3))
        score = (2 * common + self.dice_smooth) / (predicted + count + self.dice_smooth).clamp_min(1e-7)
        return torch.where(count > 0, 1 - score, 0.0).mean()
