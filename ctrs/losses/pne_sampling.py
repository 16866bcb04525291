"""Which cells Positive-Negative Equal contrast looks at: anchors from errors, candidates from right cells.

The random numbers (*keys*, one for each cell) are drawn outside and passed in: the largest keys inside a pool are the
sample. Right and wrong cells are disjoint, so one key for each cell serves both. Static shapes, no loop over images
or classes, no host synchronisation.

Dimension letters: B images, K classes, H x W pixels, h x w cells of the embedding, N = h * w cells of an image, G
groups that share candidates (B images, or one for the batch), A anchors of an image, n candidates of a class.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ctrs.config import LargeSets, PneResize, PneScope


class Verdicts(NamedTuple):
    """What the network says about each cell and what the label says, without a graph."""

    label: Tensor
    """(B, N) int64 class of the label, 0 where it is void."""
    predicted: Tensor
    """(B, N) int64."""
    confidence: Tensor
    """(B, N) largest probability, float32 (float64 for float64 logits)."""
    valid: Tensor
    """(B, N) bool, True where the label is a class."""


class PneSamples(NamedTuple):
    """Sampled cells as indices into all B * N cells; entries that are not valid mean nothing."""

    anchors: Tensor
    """(B, A) int64 wrong cells."""
    anchor_valid: Tensor
    """(B, A) bool."""
    candidates: Tensor
    """(G, K, n) int64 right cells of each class."""
    candidate_valid: Tensor
    """(G, K, n) bool."""
    errors: Tensor
    """() int64 number of wrong cells."""
    eligible: Tensor
    """() int64 number of wrong cells that could have become an anchor."""


def cell_verdicts(
    logits: Tensor,
    labels: Tensor,
    size: tuple[int, int],
    *,
    stride: int,
    ignore_index: int = 255,
    resize: PneResize = "nearest",
) -> Verdicts:
    """Bring logits and labels to the cells of an embedding and compare them there.

    Cells are numbered from the top left; those beyond the image (the embedding may belong to a padded input) are
    void. The label is that of the window's top left pixel, as nearest interpolation takes it.

    Args:
        logits: (B, K, H, W).
        labels: (B, H, W) integer class indices.
        size: (h, w) of the embedding, h * stride >= H and w * stride >= W.
        stride: Of the embedding.
        ignore_index: Label of void pixels; values outside 0..K-1 are void as well.
        resize: ``"nearest"`` takes the logits of the same pixel as the label, ``"bilinear"`` those at the window's
            centre.
    """
    with torch.no_grad():
        picked = logits.detach()
        if resize == "bilinear" and stride > 1:
            picked = picked if picked.dtype == torch.float64 else picked.float()
            height, width = labels.shape[-2:]
            picked = F.pad(picked, (0, -width % stride, 0, -height % stride), mode="replicate")
            cells = (picked.shape[-2] // stride, picked.shape[-1] // stride)
            picked = F.interpolate(picked, size=cells, mode="bilinear", align_corners=False)
        else:
            picked = picked[..., ::stride, ::stride]
            picked = picked if picked.dtype == torch.float64 else picked.float()
        best, predicted = picked.max(1)  # (B, ceil(H / stride), ceil(W / stride))
        confidence = (best - picked.logsumexp(1)).exp()
        label = labels[:, ::stride, ::stride]
        valid = (label >= 0) & (label < logits.shape[1]) & (label != ignore_index)
        label = torch.where(valid, label, 0).long()
        beyond = (0, size[1] - label.shape[-1], 0, size[0] - label.shape[-2])
        return Verdicts(*(F.pad(part, beyond).flatten(1) for part in (label, predicted, confidence, valid)))


def sample_verdicts(
    verdicts: Verdicts,
    keys: Tensor,
    *,
    num_classes: int,
    max_anchors: int,
    num_candidates: int,
    scope: PneScope = "image",
    large_sets: LargeSets = "subsample",
) -> PneSamples:
    """Sample right cells of each class and wrong cells whose true and predicted class both have right cells.

    Args:
        verdicts: Of each cell.
        keys: (B * N,) float32 in [0, 1).
        num_classes: K.
        max_anchors: Cap on the anchors of an image.
        num_candidates: Cap on the candidates of a class in an image, or in the batch with ``scope="batch"``.
        scope: Where candidates come from.
        large_sets: Whether all of an image's wrong cells of one true and one predicted class are left out where they
            are more than ``max_anchors``.
    """
    label, predicted, _, valid = verdicts
    B, N = label.shape
    G = B if scope == "image" else 1
    keys = keys.view(B, N)
    right = valid & (label == predicted)
    classes = torch.arange(num_classes, device=label.device)[:, None]
    pool = right.view(G, 1, -1) & (label.view(G, 1, -1) == classes)  # (G, K, B N / G)
    candidates, candidate_valid = _largest(pool, keys.view(G, 1, -1), num_candidates)
    exists = candidate_valid.any(-1).expand(B, num_classes)
    errors = valid & (label != predicted)
    eligible = errors & exists.gather(1, label) & exists.gather(1, predicted)
    if large_sets == "skip":
        pair = predicted * num_classes + label  # (B, N)
        sizes = eligible.new_zeros((B, num_classes**2), dtype=torch.int64).scatter_add(1, pair, eligible.long())
        eligible = eligible & (sizes.gather(1, pair) <= max_anchors)
    anchors, anchor_valid = _largest(eligible, keys, max_anchors)
    image = torch.arange(B, device=label.device)[:, None] * N
    group = torch.arange(G, device=label.device)[:, None, None] * (B * N // G)
    return PneSamples(anchors + image, anchor_valid, candidates + group, candidate_valid, errors.sum(), eligible.sum())


def _largest(pool: Tensor, keys: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the cells with the largest keys in each (..., N) pool and which of them are in it, (..., count)."""
    values, cells = torch.where(pool, keys, -1.0).topk(min(count, pool.shape[-1]), dim=-1)
    return cells, values >= 0
