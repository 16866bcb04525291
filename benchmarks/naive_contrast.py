"""CL of the Contrastive Transformer the straightforward way: the yardstick that ``loss_cost.py`` compares ours with.

Every patch of every stage is projected by the same heads. For each stage and class the pools of positives and negatives
are read off the label windows, the random sample of each pool is capped at 2000, all pairs of positive x negative
and of positive x positive are formed, sorted in full, and the harder half is kept.

This is charitable: without the cap the 131072 patches that a batch of 8 tiles of 512 px has at stride 4 alone would
give up to 4 * 10^9 pairs for each class, which no memory holds.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class NaiveContrast(nn.Module):
    """CL over all pairs of sampled patches, averaged over stages and the classes in the batch, at most 1.

    Args:
        heads: One projection head for each of ``strides``.
        num_classes: Number of classes.
        strides: Strides of the feature maps.
        cap: Sampled positives and negatives of a class in a stage.
        top: Fraction of the hardest pairs that is kept.
        smoothing: Of the two-class target.
        ignore_index: Label of void pixels.
    """

    def __init__(
        self,
        heads: Sequence[nn.Module],
        num_classes: int,
        *,
        strides: Sequence[int] = (4, 8, 16, 32),
        cap: int = 2000,
        top: float = 0.5,
        smoothing: float = 0.1,
        ignore_index: int = 255,
    ) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.num_classes = num_classes
        self.strides = tuple(strides)
        self.cap = cap
        self.top = top
        self.smoothing = smoothing
        self.ignore_index = ignore_index

    def forward(self, features: Sequence[Tensor], labels: Tensor) -> Tensor:
        """Return the loss of (B, C_s, h_s, w_s) maps and (B, H, W) labels, whose size the largest stride divides."""
        present = [c for c in range(self.num_classes) if bool((labels == c).any())]
        terms = []
        for feature, head, stride in zip(features, self.heads, self.strides, strict=True):
            rows = feature.permute(0, 2, 3, 1).reshape(-1, feature.shape[1])
            projected = F.normalize(head(rows).float(), dim=-1)  # (N, D)
            windows = labels.unfold(1, stride, stride).unfold(2, stride, stride).reshape(len(rows), -1)
            clean = (windows != self.ignore_index).all(1)
            for c in present:
                inside = windows == c
                positives = projected[self._sample(inside.all(1))]
                negatives = projected[self._sample(~inside.any(1) & clean)]
                if len(positives) >= 5 and len(negatives) >= 5:
                    terms.append(self._term(positives, negatives))
        if not terms:
            return sum((feature.sum() * 0 for feature in features), labels.new_zeros((), dtype=torch.float32))
        total = torch.stack(terms).sum() / (len(self.strides) * len(present))
        return total / total.detach().clamp_min(1)

    def _sample(self, pool: Tensor) -> Tensor:
        cells = pool.nonzero().flatten()
        return cells[torch.randperm(len(cells), device=cells.device)[: self.cap]]

    def _term(self, positives: Tensor, negatives: Tensor) -> Tensor:
        unlike = (positives @ negatives.T).flatten().sort(descending=True).values
        first, second = torch.triu_indices(len(positives), len(positives), 1, device=positives.device)
        alike = (positives @ positives.T)[first, second].sort().values
        return self._mean(unlike, 0) + self._mean(alike, 1)

    def _mean(self, cosines: Tensor, target: int) -> Tensor:
        kept = cosines[: max(1, int(len(cosines) * self.top))]
        s = (kept + 1) / 2
        truth = torch.full(kept.shape, target, device=kept.device)
        return F.cross_entropy(torch.stack([1 - s, s], 1), truth, label_smoothing=self.smoothing)
