"""Supervised contrast between patches of one class: SupCon on the patches of every stage.

Source: Khosla et al., Supervised Contrastive Learning (arXiv 2004.11362), Eq. 2 (L_out), on the homogeneous patches
of Jyhne et al. (arXiv 2303.14806). The functional core is `supervised_contrast` with ``denominator="all"``. As in
Khosla's equation, a batch of one class has a loss (it spreads the class evenly), and there is no base temperature.

Dimension letters: C channels, K classes, n sampled patches of each class, D projection width, S stages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ctrs.errors import ConfigError
from ctrs.losses.anchors import project_cells
from ctrs.losses.functional.masked import first_entries
from ctrs.losses.functional.multiscale import supervised_contrast
from ctrs.losses.patches import classes_of_word, patch_bits, positive_mask
from ctrs.losses.sampling import sample_cells
from ctrs.losses.stages import StageContrast


class SupconStats(NamedTuple):
    """What the term did, detached: tells whether it is alive."""

    raw: Tensor
    """() the loss."""
    anchors: Tensor
    """(S,) patches with a positive in each stage."""
    valid_terms: Tensor
    """(S,) classes with a patch in each stage."""


class SupervisedContrastLoss(StageContrast):
    """Mean over stages of the mean over anchors of Khosla's L_out.

    A patch is an anchor if another sampled patch of the stage has its class. A stage without anchors counts as 0;
    batches without any give 0 with a graph, so that every head gets a (zero) gradient.

    Args:
        heads: One module for each of ``stages``; owned by this loss. See `ctrs.losses.anchors.project_cells`.
        num_classes: K.
        ignore_index: Label of void pixels; values outside 0..K-1 are void as well.
        strides: Strides of all feature maps that will be passed.
        stages: Which of the feature maps take part.
        num_patches: Cap on sampled patches for each class and stage.
        temperature: Divides cosines.

    Raises:
        ConfigError: An option outside its range.
    """

    title = "supcon"

    def __init__(
        self,
        heads: Sequence[nn.Module],
        num_classes: int,
        *,
        ignore_index: int = 255,
        strides: Sequence[int] = (4, 8, 16, 32),
        stages: Sequence[int] = (0, 1, 2, 3),
        num_patches: int = 256,
        temperature: float = 0.1,
    ) -> None:
        super().__init__(num_classes, ignore_index=ignore_index, strides=strides, stages=stages)
        for name, number in (("num_classes", num_classes), ("num_patches", num_patches)):
            if number < 1:
                raise ConfigError(f"{name} of the supcon loss must be at least 1, found {number}")
        if not temperature > 0:
            raise ConfigError(f"temperature of the supcon loss must be above 0, found {temperature}")
        self.check_stages(stages, strides)
        self.check_heads(heads, stages)
        self.heads = nn.ModuleList(heads)
        self.num_patches = num_patches
        self.temperature = temperature

    def forward(
        self, features: Sequence[Tensor], labels: Tensor, keys: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, SupconStats]:
        """Compute the loss.

        Args:
            features: One (B, C_s, h_s, w_s) map for each of ``strides``.
            labels: (B, H, W) integer class indices.
            keys: From `draw_keys`; drawn from the global generator if None.

        Returns:
            () loss and what it did.

        Raises:
            UsageError: Number or sizes of the feature maps do not fit.
        """
        sizes = self.map_sizes(features)
        if keys is None:
            keys = self.draw_keys(features)
        levels = patch_bits(
            labels, sizes, num_classes=self.num_classes, strides=self.strides, ignore_index=self.ignore_index
        )
        terms, anchors, valid_terms = [], [], []
        for stage, head, key in zip(self.stages, self.heads, keys, strict=True):
            cells, count = self._sample(levels[stage], key)  # (K, n), (K,)
            valid = first_entries(count, cells.shape[1])
            vectors = project_cells(features[stage], head, cells, valid)
            term, num_anchors = supervised_contrast(
                vectors, valid, vectors, valid, temperature=self.temperature, denominator="all"
            )
            terms.append(term)
            anchors.append(num_anchors)
            valid_terms.append((count > 0).sum())
        loss = torch.stack(terms).mean()
        return loss, SupconStats(loss.detach(), torch.stack(anchors), torch.stack(valid_terms))

    def record(self, stats: SupconStats) -> dict[str, Tensor]:
        """Name what a batch did, as scalars for the log: ``raw``, ``anchors_S``, ``valid_terms_S``, S the stride."""
        return {"raw": stats.raw, **self.record_stages(anchors=stats.anchors, valid_terms=stats.valid_terms)}

    def _sample(self, bits: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Sample homogeneous patches of each class from (G, B, h, w) bit sets: (K, n) cells and (K,) counts."""
        size = min(self.num_patches, keys.numel())
        parts = []
        for index, word in enumerate(bits.unbind(0)):
            classes = classes_of_word(index, self.num_classes, bits.device)
            parts.append(sample_cells(positive_mask(word.reshape(-1), classes), keys, size))
        cells, counts = zip(*parts, strict=True)
        return torch.cat(cells), torch.cat(counts)
