"""Segmentation loss: a weighted sum of named terms over the pixels that have a label.

The softmax is computed once for cross entropy and Dice. Dimension letters: B images, K classes, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ctrs.config import parse_segmentation
from ctrs.errors import ConfigError

PARTS: Mapping[str, str] = {
    "ce": "cross_entropy",
    "dice": "dice",
    "focal": "focal",
    "lovasz": "lovasz",
    "tversky": "tversky",
}
"""What the log calls each term."""


class SegmentationLossOutput(NamedTuple):
    """The weighted sum, and each term without its weight under its name in the log; scalars with a graph."""

    total: Tensor
    parts: dict[str, Tensor]


class SegmentationLoss(nn.Module):
    """Label-smoothed cross entropy, soft Dice, focal, Lovász and Tversky terms, as many as are asked for.

    - ``ce``: mean over valid pixels only, as `torch.nn.functional.cross_entropy` with ``ignore_index`` (smp
      divides by all pixels, so that ignored ones lower the loss).
    - ``dice``: 1 - (2 |P G| + smooth) / (|P| + |G| + smooth) for each class over the whole batch, 0 for classes that
      the batch does not hold, mean over all K classes. This is smp's multiclass DiceLoss with half the
      ``smooth``, which counts twice there.
    - ``focal``, ``lovasz``, ``tversky`` by smp: see `ctrs.losses.smp_terms`.

    A class weight multiplies the loss of the pixels that truly are of this class, label smoothing included, in ``ce``
    and ``focal``; the sum is divided by the number of valid pixels, not by the sum of their weights as in torch: a
    batch of common classes alone then weighs little, as it should. Weights with mean 1 over the training pixels
    (`balanced_weights`) keep the loss's size.

    A batch without a valid pixel gives 0 with a graph in every term.

    Args:
        num_classes: K.
        terms: See `ctrs.config.parse_segmentation`.
        label_smoothing: Share of the target that is spread over all classes, in ``ce``.
        dice_smooth: Added to numerator and denominator of Dice.
        focal_gamma: Exponent of the focal loss.
        tversky_alpha: Weight of false positives.
        tversky_beta: Weight of false negatives.
        class_weights: One for each class; None: all 1.
        ignore_index: Label of pixels that do not count; values outside 0..K-1 do not count either.

    Raises:
        ConfigError: An unknown term, or an option outside its range.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        num_classes: int,
        *,
        terms: str = "ce+dice",
        label_smoothing: float = 0.05,
        dice_smooth: float = 0.05,
        focal_gamma: float = 2.0,
        tversky_alpha: float = 0.5,
        tversky_beta: float = 0.5,
        class_weights: Sequence[float] | None = None,
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
        if class_weights is not None and (len(class_weights) != num_classes or min(class_weights) < 0):
            raise ConfigError(
                f"class_weights of the segmentation loss must be {num_classes} numbers of at least 0, one for each "
                f"class, found {list(class_weights)}"
            )
        self.num_classes = num_classes
        self.terms = parse_segmentation(terms)
        self.label_smoothing = label_smoothing
        self.dice_smooth = dice_smooth
        self.ignore_index = ignore_index
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)
        self.by_smp = _smp_terms(
            {term.name for term in self.terms},
            num_classes,
            focal_gamma=focal_gamma,
            tversky_alpha=tversky_alpha,
            tversky_beta=tversky_beta,
        )

    def forward(self, logits: Tensor, labels: Tensor) -> SegmentationLossOutput:
        """Compute all terms, in float32 under autocast too.

        Args:
            logits: (B, K, H, W).
            labels: (B, H, W) integer class indices.
        """
        with torch.autocast(logits.device.type, enabled=False):
            wide = logits if logits.dtype == torch.float64 else logits.float()
            valid = (labels >= 0) & (labels < self.num_classes) & (labels != self.ignore_index)  # (B, H, W)
            target = torch.where(valid, labels, 0).long()
            values = self._values(wide, target, valid)
            weighted = [
                values[term.name] if term.weight == 1 else term.weight * values[term.name] for term in self.terms
            ]
            total = weighted[0]
            for value in weighted[1:]:
                total = total + value
            return SegmentationLossOutput(total, {PARTS[name]: value for name, value in values.items()})

    def _values(self, logits: Tensor, target: Tensor, valid: Tensor) -> dict[str, Tensor]:
        names = [term.name for term in self.terms]
        log_probability = logits.log_softmax(1) if {"ce", "dice"} & set(names) else logits
        weight = None
        if self.class_weights is not None:
            weight = self.class_weights.to(logits.dtype).index_select(0, target.flatten()).view_as(target)  # (B, H, W)
        values: dict[str, Tensor] = {}
        for name in names:
            if name == "ce":
                values[name] = self._cross_entropy(log_probability, target, valid, weight)
            elif name == "dice":
                values[name] = self._dice(log_probability.exp(), target, valid)
            elif name == "focal":
                values[name] = self.by_smp[name](logits, target, valid, weight)
            else:
                values[name] = self.by_smp[name](logits, target, valid)
        return values

    def _cross_entropy(self, log_probability: Tensor, target: Tensor, valid: Tensor, weight: Tensor | None) -> Tensor:
        loss = -log_probability.gather(1, target[:, None]).squeeze(1)  # (B, H, W)
        if self.label_smoothing:
            loss = (1 - self.label_smoothing) * loss - self.label_smoothing * log_probability.mean(1)
        if weight is not None:
            loss = loss * weight
        return torch.where(valid, loss, 0.0).sum() / valid.sum().clamp_min(1)

    def _dice(self, probability: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        classes = torch.arange(self.num_classes, device=target.device)[:, None, None]
        truth = (target[:, None] == classes) & valid[:, None]  # (B, K, H, W)
        count = truth.sum((0, 2, 3))
        predicted = torch.where(valid[:, None], probability, 0.0).sum((0, 2, 3))
        common = torch.where(truth, probability, 0.0).sum((0, 2, 3))
        score = (2 * common + self.dice_smooth) / (predicted + count + self.dice_smooth).clamp_min(1e-7)
        return torch.where(count > 0, 1 - score, 0.0).mean()


def balanced_weights(class_counts: Sequence[int]) -> list[float]:
    """Return weights inverse to the classes' shares of the training pixels, with mean 1 over these pixels.

    Args:
        class_counts: Training pixels of each class. A class without any has the weight 0: no pixel would have it.

    Examples:
        >>> balanced_weights([60, 30, 0])
        [0.75, 1.5, 0.0]
    """
    present = sum(count > 0 for count in class_counts)
    return [sum(class_counts) / (present * count) if count else 0.0 for count in class_counts]


def _smp_terms(
    names: set[str], num_classes: int, *, focal_gamma: float, tversky_alpha: float, tversky_beta: float
) -> nn.ModuleDict:
    """Build the terms by smp, which takes a while to import, so that only those who use it pay."""
    if not names & {"focal", "lovasz", "tversky"}:
        return nn.ModuleDict()
    from ctrs.losses.smp_terms import FocalTerm, LovaszTerm, TverskyTerm

    terms: dict[str, nn.Module] = {}
    if "focal" in names:
        terms["focal"] = FocalTerm(num_classes, gamma=focal_gamma)
    if "lovasz" in names:
        terms["lovasz"] = LovaszTerm()
    if "tversky" in names:
        terms["tversky"] = TverskyTerm(alpha=tversky_alpha, beta=tversky_beta)
    return nn.ModuleDict(terms)
