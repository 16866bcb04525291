"""Positive-Negative Equal contrast: pull wrongly classified cells to their class, away from the predicted one.

Source: Wang et al., Positive-Negative Equal Contrastive Loss for Semantic Segmentation (arXiv 2207.01417), Eq. 7 to 9.
The functional core (`pne_terms`) takes sampled unit vectors and is deterministic; `PositiveNegativeEqualLoss` is
sampler + core + reduction. Where we depart from the paper or from the authors' published code:

- At most ``max_anchors`` wrong cells of an image become anchors, drawn at random; the code leaves out each set of
  wrong cells of one true and one predicted class that is larger (``large_sets="skip"``).
- Positives and negatives are a random sample, not the first in raster order, and Eq. 8 is taken with means.
- A wrong cell whose true or predicted class has no right cell is no anchor.
- Positives and negatives get no gradient (the code; the paper does not say), anchors get their exact one.
- The loss is the mean over all anchors of the batch.

Dimension letters: B images, C channels, H x W pixels, h x w cells, N = h * w cells of an image, R rows, D projection
width, K classes, G groups that share candidates (B images or 1), A anchors of an image, n candidates of a class.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ctrs.config import LargeSets, PneResize, PneScope
from ctrs.errors import ConfigError, CtrsWarning, UsageError
from ctrs.losses.anchors import unit_vectors
from ctrs.losses.functional.pne import pne_terms
from ctrs.losses.patches import INPUT_MULTIPLE
from ctrs.losses.pne_sampling import PneSamples, Verdicts, cell_verdicts, sample_verdicts
from ctrs.losses.sampling import draw_keys, gather_rows

CELL_STRIDE = 4
"""The paper contrasts at a quarter of the input's size; finer embeddings are averaged to it."""

_LOWEST_SAFE_TEMPERATURE = 0.3


class PneStats(NamedTuple):
    """What the term did, detached: tells whether it is alive."""

    raw: Tensor
    """() the loss."""
    anchors: Tensor
    """() wrong cells that became anchors."""
    images: Tensor
    """() images with an anchor."""
    eligible: Tensor
    """() share of the wrong cells that could have become an anchor; 0 if nothing is wrong."""


class PositiveNegativeEqualLoss(nn.Module):
    """PNE on a decoder's embedding: the mean over anchors of log(1 + mean over negatives / mean over positives).

    Anchors are wrongly classified cells; negatives are right cells of the class that was predicted, positives right
    cells of the true class, weighted by their confidence. Predictions and confidences come from the logits without a
    gradient. Batches without an anchor give 0 with a graph, so that every head parameter gets a (zero) gradient.

    Args:
        head: Maps (R, C') to (R, D) row by row; owned by this loss. Where it has a module ``dense``, that maps the
            whole (B, C, h, w) embedding to (B, C', h, w) first (batch norm needs all cells).
        num_classes: K.
        ignore_index: Label of void pixels; values outside 0..K-1 are void as well.
        embedding_stride: Of the embedding, a power of two; below 4 it is averaged to stride 4 first.
        temperature: Divides cosines.
        max_anchors: Cap on the anchors of an image.
        num_candidates: Cap on the right cells of a class that serve as positives and negatives in an image (in the
            batch with ``scope="batch"``).
        normalize_weights: Divide the positives' confidences by their mean.
        detach: Keep gradients out of positives and negatives.
        resize: How logits come to the embedding's size; labels are always taken nearest.
        scope: Where positives and negatives come from, the anchor's ``"image"`` or the ``"batch"``.
        large_sets: More than ``max_anchors`` wrong cells in an image: ``"subsample"`` draws from all, ``"skip"``
            first leaves out each pair of true and predicted class that has more by itself.

    Raises:
        ConfigError: An option outside its range.

    Warns:
        CtrsWarning: The temperature is below 0.3.
    """

    def __init__(
        self,
        head: nn.Module,
        num_classes: int,
        *,
        ignore_index: int = 255,
        embedding_stride: int = 4,
        temperature: float = 1.0,
        max_anchors: int = 199,
        num_candidates: int = 100,
        normalize_weights: bool = True,
        detach: bool = True,
        resize: PneResize = "nearest",
        scope: PneScope = "image",
        large_sets: LargeSets = "subsample",
    ) -> None:
        super().__init__()
        for name, choice, known in (
            ("resize", resize, get_args(PneResize)),
            ("scope", scope, get_args(PneScope)),
            ("large_sets", large_sets, get_args(LargeSets)),
        ):
            if choice not in known:
                raise ConfigError(f"{name} of the pne loss must be one of {', '.join(known)}, found {choice!r}")
        for name, number in (
            ("num_classes", num_classes),
            ("max_anchors", max_anchors),
            ("num_candidates", num_candidates),
        ):
            if number < 1:
                raise ConfigError(f"{name} of the pne loss must be at least 1, found {number}")
        if embedding_stride < 1 or embedding_stride & (embedding_stride - 1):
            raise ConfigError(f"embedding_stride of the pne loss must be a power of two, found {embedding_stride}")
        if not temperature > 0:
            raise ConfigError(f"temperature of the pne loss must be above 0, found {temperature}")
        if temperature < _LOWEST_SAFE_TEMPERATURE:
            warnings.warn(
                f"temperature {temperature} of the pne loss: the paper's results collapse at 0.1 (mean IoU 4.2 in its "
                f"Table 8); use {_LOWEST_SAFE_TEMPERATURE} or more, 1 is best",
                CtrsWarning,
                stacklevel=2,
            )
        self.head = head
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.embedding_stride = embedding_stride
        self.temperature = temperature
        self.max_anchors = max_anchors
        self.num_candidates = num_candidates
        self.normalize_weights = normalize_weights
        self.detach = detach
        self.resize: PneResize = resize
        self.scope: PneScope = scope
        self.large_sets: LargeSets = large_sets

    @property
    def stride(self) -> int:
        """Stride of the cells that are contrasted."""
        return max(self.embedding_stride, CELL_STRIDE)

    def draw_keys(self, embedding: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """Draw the random keys that `forward` needs for a (B, C, h, w) embedding of this shape, on its device."""
        factor = self.stride // self.embedding_stride
        height, width = (-(-size // factor) for size in embedding.shape[-2:])
        return draw_keys([(embedding.shape[0], 1, height, width)], generator, embedding.device)

    def forward(
        self, embedding: Tensor, logits: Tensor, labels: Tensor, keys: tuple[Tensor, ...] | None = None
    ) -> tuple[Tensor, PneStats]:
        """Compute the loss.

        Args:
            embedding: (B, C, h, w), of the input as it is or padded at the right and the bottom to multiples of 32.
            logits: (B, K, H, W).
            labels: (B, H, W) integer class indices.
            keys: From `draw_keys`; drawn from the global generator if None.

        Returns:
            () loss and what it did.

        Raises:
            UsageError: Shapes or types do not fit.
        """
        self._check_inputs(embedding, logits, labels)
        (key,) = self.draw_keys(embedding) if keys is None else keys
        factor = self.stride // self.embedding_stride
        cells = F.avg_pool2d(embedding, factor, ceil_mode=True) if factor > 1 else embedding  # (B, C, h, w)
        size = (cells.shape[-2], cells.shape[-1])
        with torch.no_grad():
            verdicts = cell_verdicts(
                logits, labels, size, stride=self.stride, ignore_index=self.ignore_index, resize=self.resize
            )
            samples = sample_verdicts(
                verdicts,
                key,
                num_classes=self.num_classes,
                max_anchors=self.max_anchors,
                num_candidates=self.num_candidates,
                scope=self.scope,
                large_sets=self.large_sets,
            )
        dense = getattr(self.head, "dense", None)
        features = (cells if dense is None else dense(cells)).contiguous()
        # Computed again in the backward pass, so that of rows and cosines only the indices stay alive.
        terms: Tensor = checkpoint(
            self._terms, features, verdicts, samples, use_reentrant=False, preserve_rng_state=False
        )
        count = samples.anchor_valid.sum()
        loss = torch.where(samples.anchor_valid.view_as(terms), terms, 0.0).sum() / count.clamp_min(1)
        share = samples.eligible.to(loss.dtype) / samples.errors.clamp_min(1)
        return loss, PneStats(loss.detach(), count, samples.anchor_valid.any(1).sum(), share)

    def record(self, stats: PneStats) -> dict[str, Tensor]:
        """Return what `forward` did as named scalars for the log."""
        return stats._asdict()

    def _terms(self, features: Tensor, verdicts: Verdicts, samples: PneSamples) -> Tensor:
        """Return the loss of each anchor, (G, B A / G); of entries that are no anchor some finite number."""
        G, K, n = samples.candidates.shape
        chosen, drawn = samples.anchors.reshape(-1), samples.candidates.reshape(-1)
        anchors = unit_vectors(self.head(gather_rows(features, chosen, samples.anchor_valid.reshape(-1))))
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.detach):
            candidates = unit_vectors(self.head(gather_rows(features, drawn, samples.candidate_valid.reshape(-1))))
        with torch.autocast(features.device.type, enabled=False):
            return pne_terms(
                anchors.view(G, chosen.numel() // G, -1),
                candidates.view(G, K, n, -1),
                samples.candidate_valid,
                verdicts.confidence.reshape(-1).index_select(0, drawn).view(G, K, n),
                verdicts.predicted.reshape(-1).index_select(0, chosen).view(G, -1),
                verdicts.label.reshape(-1).index_select(0, chosen).view(G, -1),
                temperature=self.temperature,
                normalize_weights=self.normalize_weights,
            )

    def _check_inputs(self, embedding: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Refuse shapes that do not belong together."""
        if labels.ndim != 3 or labels.is_floating_point():
            raise UsageError(
                f"labels must be integers of shape (B, H, W), found {labels.dtype} of shape {tuple(labels.shape)}"
            )
        B, H, W = labels.shape
        if logits.shape != (B, self.num_classes, H, W):
            raise UsageError(
                f"logits must have the shape {(B, self.num_classes, H, W)} for labels of shape {(B, H, W)}, "
                f"found {tuple(logits.shape)}"
            )
        r = self.embedding_stride
        tight = (-(-H // r), -(-W // r))
        multiple = max(r, INPUT_MULTIPLE)
        padded = (-(-H // multiple) * multiple // r, -(-W // multiple) * multiple // r)
        if embedding.shape[0] != B or tuple(embedding.shape[-2:]) not in (tight, padded):
            raise UsageError(
                f"an embedding of stride {r} for {B} images of {H} x {W} pixels must have {tight[0]} x {tight[1]} "
                f"cells (or {padded[0]} x {padded[1]} when the input is padded), found shape {tuple(embedding.shape)}; "
                "it must be (B, C, h, w)"
            )
