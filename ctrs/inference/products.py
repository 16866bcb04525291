"""What is made of blended logits: the mask, how sure the network is, and the probability of each class.

K classes, n x m a block of finished scene pixels, P classes whose probabilities are wanted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ctrs.classes import MAX_CLASSES, ClassMap, LandClass
from ctrs.config import ConfidenceKind, PredictConfig, ProbabilityFormat
from ctrs.errors import UsageError
from ctrs.raster.probabilities import UINT8_STEPS

OTHER_NAME = "other"
"""Name of what is left when only some classes are written."""

_CACHED_VALUES = 2**20
"""Values (pixels times classes) that are worked on at a time on the CPU: what stays in its caches takes less time."""


@dataclass(frozen=True, kw_only=True)
class ProductBlock:
    """What was made of a block of finished pixels; on the device of the sums.

    Args:
        mask: uint8 (n, m), values of ``Products.written``.
        confidence: float32 (n, m) in [0, 1]; None unless wanted.
        probabilities: (P, n, m) as stored: uint8, ``round(254 p)``, or float16; None unless wanted.
        logits: Mean logits, float32 (K, n, m); None unless wanted.
    """

    mask: Tensor
    confidence: Tensor | None = None
    probabilities: Tensor | None = None
    logits: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Products:
    """What is wanted of blended logits, and how it is made.

    Args:
        classes: Class table of the logits.
        written: Class table of the mask: the same, and behind it ``other`` where only some classes are written.
        values: Mask values that can occur: those of the classes written and of ``other``.
        thresholds: Index of a class and its least probability: a pixel is of such a class exactly where the class is
            at least so probable; of several the most probable; elsewhere of the most probable other one.
        confidence: Which kind, None for none.
        probabilities: Number format, None for none.
        probability_names: Names of the P classes, in the order of the bands.
        logits: Whether the mean logits are wanted.
    """

    classes: ClassMap
    written: ClassMap
    values: tuple[int, ...]
    thresholds: tuple[tuple[int, float], ...] = ()
    confidence: ConfidenceKind | None = None
    probabilities: ProbabilityFormat | None = None
    probability_names: tuple[str, ...] = ()
    logits: bool = False

    @classmethod
    def for_config(cls, classes: ClassMap, config: PredictConfig, *, logits: bool = False) -> Products:
        """Return what the options of a prediction ask for.

        Args:
            classes: Class table of the network.
            config: Of which ``classes``, ``thresholds``, ``confidence`` and ``probabilities`` matter here.
            logits: Whether the mean logits are wanted too.

        Raises:
            UsageError: A class is unknown, every class has a threshold, or there is no room for ``other``.
        """
        kept = tuple(dict.fromkeys(config.classes)) or classes.names
        _check_names(classes, kept, "classes to write")
        _check_names(classes, [name for name, _ in config.thresholds], "thresholds")
        if len(config.thresholds) == classes.num_classes:
            raise UsageError(
                f"thresholds: all {classes.num_classes} classes have one, so a pixel that reaches none would be of no "
                "class; leave one class without"
            )
        written, values = classes, tuple(range(classes.num_classes))
        if set(kept) != set(classes.names):
            written = _with_other(classes)
            values = (*sorted(classes.index(name) for name in kept), classes.num_classes)
        return cls(
            classes=classes,
            written=written,
            values=values,
            thresholds=tuple(sorted((classes.index(name), least) for name, least in config.thresholds)),
            confidence=config.confidence,
            probabilities=config.probabilities,
            probability_names=kept,
            logits=logits,
        )

    @torch.inference_mode()
    def make(self, sums: Tensor, weights: Tensor | None = None) -> ProductBlock:
        """Make the products of a block.

        The mask is that of the sums, whatever else is wanted: the same bit for bit with and without confidence.

        Args:
            sums: Weighted sums of logits, float32 (K, n, m).
            weights: Sums of the weights (n, m), above 0; None where they are 1 everywhere.
        """
        num_classes, height, width = sums.shape
        mask = sums.new_empty((height, width), dtype=torch.uint8)
        confidence = sums.new_empty((height, width)) if self.confidence else None
        probabilities = None
        if self.probabilities:
            dtype = torch.uint8 if self.probabilities == "uint8" else torch.float16
            probabilities = sums.new_empty((len(self.probability_names), height, width), dtype=dtype)
        logits = sums.new_empty((num_classes, height, width)) if self.logits else None
        whole = ProductBlock(mask=mask, confidence=confidence, probabilities=probabilities, logits=logits)
        on_cpu = sums.device.type == "cpu"
        step = max(1, _CACHED_VALUES // max(num_classes * width, 1)) if on_cpu else max(height, 1)
        for top in range(0, height, step):
            rows = slice(top, top + step)
            part = ProductBlock(
                mask=mask[rows],
                confidence=None if confidence is None else confidence[rows],
                probabilities=None if probabilities is None else probabilities[:, rows],
                logits=None if logits is None else logits[:, rows],
            )
            # Class after class in memory, however the sums lie.
            self._fill(part, sums[:, rows].contiguous(), None if weights is None else weights[rows])
        return whole

    def _fill(self, block: ProductBlock, sums: Tensor, weights: Tensor | None) -> None:
        """Write the products of some rows into a block of the same rows."""
        values = self.confidence or self.probabilities or self.thresholds or self.logits
        mean = sums / weights if values and weights is not None else sums
        if block.logits is not None:
            block.logits.copy_(mean)
        if not (self.confidence or self.probabilities or self.thresholds):
            block.mask.copy_(self._named(largest_class(sums)))
            return
        best = mean[0].clone()
        for one in mean[1:]:
            torch.maximum(best, one, out=best)
        shares = (mean - best).exp_()
        total = shares[0].clone()
        for one in shares[1:]:
            total += one
        if block.confidence is not None and not self._shows_another:
            self._sureness(mean, best, shares, total, out=block.confidence)
        shares /= total  # K n m, the probabilities
        shown = self._named(self._decided(sums, shares))
        block.mask.copy_(shown)
        if block.confidence is not None and self._shows_another:
            self._sureness_of(shown, shares, out=block.confidence)
        if block.probabilities is not None:
            for place, name in enumerate(self.probability_names):
                share = shares[self.classes.index(name)]
                block.probabilities[place] = (share * UINT8_STEPS).round_() if self.probabilities == "uint8" else share

    def _sureness(self, mean: Tensor, best: Tensor, shares: Tensor, total: Tensor, *, out: Tensor) -> None:
        """Write the confidence.

        Args:
            mean: Mean logits (K, n, m).
            best: Largest of them (n, m).
            shares: ``exp(mean - best)``.
            total: Sum of the shares over the classes.
            out: Where to write.
        """
        if self.confidence == "probability":
            torch.reciprocal(total, out=out)
        elif len(shares) == 1:  # nothing else it could be
            out.fill_(1.0)
        elif self.confidence == "margin":
            first, second = shares[0].clone(), torch.zeros_like(total)
            for one in shares[1:]:
                torch.maximum(second, torch.minimum(first, one), out=second)
                torch.maximum(first, one, out=first)
            torch.div(first - second, total, out=out)
        else:
            # H = -sum p log p with p = s / S and s = exp(d): log S - sum(s d) / S. A share of 0 adds nothing.
            spread = torch.zeros_like(total)
            for one, share in zip(mean, shares, strict=True):
                spread += (one - best).clamp_(min=-200.0).mul_(share)
            entropy = total.log().sub_(spread.div_(total))
            torch.sub(1.0, entropy, alpha=1 / torch.log(torch.tensor(float(len(shares)))).item(), out=out)
            out.clamp_(0.0, 1.0)

    @property
    def _shows_another(self) -> bool:
        """Whether the mask may show another class than the most probable one, and the confidence is that of a class."""
        return self.confidence != "entropy" and (bool(self.thresholds) or self.written is not self.classes)

    def _sureness_of(self, shown: Tensor, shares: Tensor, *, out: Tensor) -> None:
        """Write the confidence of the classes that the mask shows; ``other`` is as probable as all that it stands for.

        Args:
            shown: Values of the mask (n, m).
            shares: Probabilities (K, n, m).
            out: Where to write.
        """
        kept = self.values if self.written is self.classes else self.values[:-1]
        rest = [index for index in range(len(shares)) if index not in kept]
        out.zero_()
        rival = torch.zeros_like(out)
        for value in self.values:
            share = shares[value] if value in kept else shares[rest].sum(dim=0)
            is_shown = shown == value
            torch.where(is_shown, share, out, out=out)
            torch.maximum(rival, share.masked_fill(is_shown, 0.0), out=rival)
        if self.confidence == "margin":
            out -= rival
        out.clamp_(0.0, 1.0)

    def _decided(self, sums: Tensor, shares: Tensor) -> Tensor:
        """Return the class of each pixel, by the thresholds where there are some."""
        if not self.thresholds:
            return largest_class(sums)
        least = dict(self.thresholds)
        others = [index for index in range(len(sums)) if index not in least]
        decided = torch.tensor(others, dtype=torch.uint8, device=sums.device)[largest_class(sums[others]).int()]
        best = torch.full_like(sums[0], -torch.inf)
        for index, probability in self.thresholds:
            larger = (shares[index] >= probability) & (sums[index] > best)
            decided[larger] = index
            torch.where(larger, sums[index], best, out=best)
        return decided

    def _named(self, indices: Tensor) -> Tensor:
        """Replace the indices of classes that are not written by that of ``other``."""
        if self.written is self.classes:
            return indices
        table = torch.full((self.classes.num_classes,), self.classes.num_classes, dtype=torch.uint8)
        for value in self.values[:-1]:
            table[value] = value
        return table.to(indices.device)[indices.int()]


def largest_class(sums: Tensor) -> Tensor:
    """Return the index of the largest of K values at each pixel, the first of equals.

    A loop of comparisons, since on the CPU ``torch.argmax`` over a leading axis takes many times as long, and so does
    ``masked_fill_``; there it is numpy's, which takes less time than torch's.

    Args:
        sums: (K, n, m), K at most 255.

    Returns:
        uint8 (n, m).

    >>> largest_class(torch.tensor([[[1.0, 2.0, 0.0]], [[1.0, 3.0, -1.0]]]))
    tensor([[0, 1, 0]], dtype=torch.uint8)
    """
    if sums.device.type == "cpu":
        return torch.from_numpy(_largest_class(sums.numpy()))
    best = sums[0].clone()
    indices = torch.zeros(best.shape, dtype=torch.uint8, device=sums.device)
    for index in range(1, len(sums)):
        larger = (sums[index] > best).view(torch.uint8).mul_(index)
        torch.maximum(indices, larger, out=indices)
        torch.maximum(best, sums[index], out=best)
    return indices


def _largest_class(sums: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    best = sums[0].copy()
    indices = np.zeros(best.shape, np.uint8)
    is_larger = np.empty(best.shape, bool)
    larger = is_larger.view(np.uint8)
    for index, values in enumerate(sums[1:], start=1):
        np.greater(values, best, out=is_larger)
        larger *= np.uint8(index)
        np.maximum(indices, larger, out=indices)
        np.maximum(best, values, out=best)
    return indices


def _check_names(classes: ClassMap, names: tuple[str, ...] | list[str], where: str) -> None:
    for name in names:
        if name not in classes.names:
            raise UsageError(f"{where}: {name!r} found, expected classes of the model: {', '.join(classes.names)}")


def _with_other(classes: ClassMap) -> ClassMap:
    """Return the table with one more class behind all that are learnt: grey, ``other``."""
    if classes.num_classes >= MAX_CLASSES:
        raise UsageError(f"classes to write: the model has {classes.num_classes}, so there is no room for `other`")
    taken = {entry.name for entry in classes.classes}
    name = next(name for name in (OTHER_NAME, *(f"{OTHER_NAME} {n}" for n in range(2, 300))) if name not in taken)
    colors = {entry.color for entry in classes.classes}
    grey = next((tone, tone, tone) for tone in (*range(160, 256), *range(160)) if (tone, tone, tone) not in colors)
    value = max(entry.value for entry in classes.classes) + 1
    return ClassMap(classes=(*classes.classes, LandClass(value=value, name=name, color=grey, scored=False)))
