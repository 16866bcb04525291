"""Focal, Lovász and Tversky terms by segmentation_models_pytorch, over the pixels that have a label.

Our own part is what smp leaves open: which pixels count, what a batch without any gives, and weights of classes.
Dimension letters: B images, K classes, H x W pixels.
"""

from __future__ import annotations

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from ctrs.errors import ConfigError

_VOID = 255
"""Label of pixels that do not count, as smp is told; no more classes than this fit a mask of bytes."""


class FocalTerm(nn.Module):
    """Focal loss (Lin et al., Focal Loss for Dense Object Detection, 2017), each class against the rest.

    For each pixel and class (1 - p)^gamma * -log p with the sigmoid's p of the truth "is this class" or "is not"; mean
    over valid pixels and classes, as smp's ``FocalLoss("multiclass")``. Classes that the batch does not hold count too:
    its pixels are no such. Departures from smp:

    - smp's mean over no valid pixel is NaN, here 0 with a graph;
    - smp picks valid pixels by a mask, which waits for the device; here invalid ones count as 0, and the number of
      valid ones divides;
    - smp's ``class_weights`` weigh the K means; ours weigh pixels by their true class, as in the cross entropy.

    Args:
        num_classes: K.
        gamma: 0 or at least 1. Between, smp's gradient is not a number at pixels that are sure.

    Raises:
        ConfigError: ``gamma`` is out of range.
    """

    def __init__(self, num_classes: int, *, gamma: float) -> None:
        super().__init__()
        if gamma != 0 and gamma < 1:
            raise ConfigError(
                f"segmentation.focal_gamma = {gamma:g} found, expected 0 or at least 1; the gradient of what lies "
                "between is not finite at pixels that are sure"
            )
        self.num_classes = num_classes
        self._by_element = smp.losses.FocalLoss("multiclass", gamma=gamma, reduction="none").focal_loss_fn

    def forward(self, logits: Tensor, target: Tensor, valid: Tensor, weight: Tensor | None) -> Tensor:
        """Compute the term.

        Args:
            logits: (B, K, H, W), float32 or float64.
            target: (B, H, W) class indices, 0 where not valid.
            valid: (B, H, W), True where the pixel counts.
            weight: (B, H, W) of pixels; None: 1.
        """
        classes = torch.arange(self.num_classes, device=target.device)[:, None, None]
        truth = (target[:, None] == classes).to(logits.dtype)  # (B, K, H, W)
        loss: Tensor = self._by_element(logits, truth).mean(1)  # (B, H, W)
        if weight is not None:
            loss = loss * weight
        return torch.where(valid, loss, 0.0).sum() / valid.sum().clamp_min(1)


class LovaszTerm(nn.Module):
    """Lovász-Softmax loss (Berman et al., 2018) over the whole batch by smp's ``LovaszLoss("multiclass")``.

    Mean over the classes that the batch holds, so that absent ones have no term. A batch without valid pixels gives 0
    with a graph, where smp returns an empty tensor. smp waits for the device once for each class, and its loop does not
    compile in one graph: it stays outside. Its cumulative sums are float32, exact up to 16.7 million pixels.
    """

    def __init__(self) -> None:
        super().__init__()
        self._loss = smp.losses.LovaszLoss("multiclass", per_image=False, ignore_index=_VOID)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Compute the term; arguments as those of `FocalTerm`."""
        loss: Tensor = self._loss(logits.float(), torch.where(valid, target, _VOID))
        return loss.sum()  # of one number, or of none without valid pixels


class TverskyTerm(nn.Module):
    """Tversky loss (Salehi et al., 2017) by smp's ``TverskyLoss("multiclass")``, without smoothing.

    1 - TP / (TP + alpha FP + beta FN) for each class over the whole batch, 0 for classes that the batch does not hold,
    mean over all K classes; a batch without valid pixels gives 0 with a graph. smp has TP as half of |P| + |G| -
    |P - G|, which in float32 loses digits for classes far smaller than what is predicted of them.

    Args:
        alpha: Weight of false positives.
        beta: Weight of false negatives.
    """

    def __init__(self, *, alpha: float, beta: float) -> None:
        super().__init__()
        self._loss = smp.losses.TverskyLoss("multiclass", ignore_index=_VOID, alpha=alpha, beta=beta)

    def forward(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Compute the term; arguments as those of `FocalTerm`."""
        loss: Tensor = self._loss(logits, torch.where(valid, target, _VOID))
        return loss
