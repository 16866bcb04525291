"""Contrastive Transformer losses of sampled vectors: deterministic, no sampling, no networks.

Source: Jyhne et al., A Contrastive Learning Scheme with Transformer Innate Patches (arXiv 2303.14806), sections 3.2
to 3.4. Every function works on fixed-size buffers with counts, so nothing waits for the device.

Dimension letters: K classes, n sampled cells of each class, D projection width, P pairs, k kept pairs, u queries,
M shared negatives.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ctrs.config import ClForm, InfoNceVariant
from ctrs.losses.functional.masked import first_entries, masked_mean


class MinedPairs(NamedTuple):
    """The hardest pairs of each class; ``kept`` is True where an entry counts."""

    similarity: Tensor
    """(K, k) cosine."""
    pairs: Tensor
    """(K, k) int64 index of the pair."""
    kept: Tensor
    """(K, k) bool."""


def _tops(count: Tensor, top: float) -> Tensor:
    """Return floor(count * top), at least 1 where count is not 0 (float64: 0.7 * 10 is 7)."""
    return torch.where(count > 0, (count.double() * top + 1e-9).floor().long().clamp_min(1), 0)


def mine_pairs(similarity: Tensor, count: Tensor, *, top: float, hardest: Literal["highest", "lowest"]) -> MinedPairs:
    """Keep the hardest pairs: the most similar negative ones, the least similar positive ones.

    Args:
        similarity: (K, P) cosine; the first ``count`` entries of each row are pairs.
        count: (K,) int64.
        top: Fraction of the pairs that is kept, rounded down, at least one.
        hardest: Which end is hard.

    Examples:
        >>> mined = mine_pairs(torch.tensor([[0.0, 0.5, 0.0, -0.5]]), torch.tensor([4]), top=0.5, hardest="highest")
        >>> mined.similarity.tolist(), mined.kept.tolist()
        ([[0.5, 0.0]], [[True, True]])
    """
    size = similarity.shape[1]
    highest = hardest == "highest"
    filled = torch.where(first_entries(count, size), similarity, -2.0 if highest else 2.0)
    k = max(1, int(size * top + 1e-9))
    values, pairs = filled.topk(min(k, size), dim=1, largest=highest)
    return MinedPairs(values, pairs, first_entries(_tops(count, top), values.shape[1]))


def soft_cross_entropy(similarity: Tensor, *, positive: bool, smoothing: float = 0.1, form: ClForm = "logit") -> Tensor:
    """Two-class soft cross entropy of a cosine x, with s = (x + 1) / 2.

    ``"logit"`` takes [1 - s, s] as logits: softplus(x) - t x. ``"prob"`` takes them as probabilities: -(t log s + (1
    - t) log(1 - s)), s clamped to [1e-6, 1 - 1e-6]. The target t is 1 - smoothing / 2 for positive pairs, smoothing /
      2 for negative ones.
    """
    target = 1 - smoothing / 2 if positive else smoothing / 2
    if form == "logit":
        return F.softplus(similarity) - target * similarity
    s = ((similarity + 1) / 2).clamp(1e-6, 1 - 1e-6)
    return -(target * s.log() + (1 - target) * torch.log1p(-s))


def _negative_similarity(positives: Tensor, negatives: Tensor) -> Tensor:
    """Cosine of the k-th positive with the k-th negative, (K, n)."""
    return (positives * negatives).sum(-1)


def _bisect(vectors: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Return the second half aligned with the first, (K, n // 2, D), and the number of pairs, (K,).

    An odd last one is dropped.
    """
    half = count // 2
    size = vectors.shape[1] // 2
    partner = torch.arange(size, device=count.device) + half[:, None]  # (K, n // 2)
    return _take(vectors, partner), half


def _take(vectors: Tensor, index: Tensor) -> Tensor:
    """Pick (K, k, D) vectors out of (K, n, D) by (K, k) indices."""
    K, n, D = vectors.shape
    rows = index + torch.arange(K, device=index.device)[:, None] * n
    return vectors.reshape(K * n, D).index_select(0, rows.reshape(-1)).view(K, index.shape[1], D)


def _positive_pairs(positives: Tensor, count: Tensor, top: float) -> tuple[MinedPairs, Tensor]:
    """Bisect the positives and mine the least similar pairs; also return the partner vectors (K, n // 2, D)."""
    partner, half = _bisect(positives, count)
    similarity = (positives[:, : partner.shape[1]] * partner).sum(-1)
    return mine_pairs(similarity, half, top=top, hardest="lowest"), partner


def cl_terms(
    positives: Tensor,
    negatives: Tensor,
    positive_count: Tensor,
    negative_count: Tensor,
    *,
    top: float = 0.5,
    smoothing: float = 0.1,
    form: ClForm = "logit",
) -> tuple[Tensor, Tensor]:
    """Contrastive loss of each class (section 3.4), on sampled vectors in the order in which they were drawn.

    Negative pairs are (p_k, n_k), of which the most similar are kept; positive pairs are (p_k, p_{k + q}), q =
    floor(a / 2), of which the least similar are kept.

    Args:
        positives: (K, n, D) unit vectors, the first ``positive_count`` of each class are valid.
        negatives: (K, n, D) unit vectors, the first ``negative_count`` are valid.
        positive_count: (K,) int64, a.
        negative_count: (K,) int64, b.
        top: Fraction of pairs kept.
        smoothing: Label smoothing of the two-class target.
        form: See `soft_cross_entropy`.

    Returns:
        Negative and positive part, each (K,); 0 where there is no pair.

    Examples:
        >>> angle = torch.deg2rad(torch.tensor([[[0.0, 60, 90, 180]], [[90.0, 0, 180, 60]]]))
        >>> p, n = torch.stack([angle.cos(), angle.sin()], -1)
        >>> negative, positive = cl_terms(p, n, torch.tensor([4]), torch.tensor([4]))
        >>> round(negative.item(), 6), round(positive.item(), 6)
        (0.821112, 0.949077)
    """
    pairs = torch.minimum(positive_count, negative_count)
    negative = mine_pairs(_negative_similarity(positives, negatives), pairs, top=top, hardest="highest")
    negative_part = masked_mean(
        soft_cross_entropy(negative.similarity, positive=False, smoothing=smoothing, form=form), negative.kept
    )
    positive, _ = _positive_pairs(positives, positive_count, top)
    positive_part = masked_mean(
        soft_cross_entropy(positive.similarity, positive=True, smoothing=smoothing, form=form), positive.kept
    )
    return negative_part, positive_part


def infonce_terms(
    positives: Tensor,
    negatives: Tensor,
    positive_count: Tensor,
    negative_count: Tensor,
    *,
    top: float = 0.5,
    temperature: float = 0.1,
    variant: InfoNceVariant = "paper",
) -> Tensor:
    """InfoNCE of each class with shared negatives, on sampled vectors in the order in which they were drawn.

    ``"paper"``: queries and keys are the mined positive pairs, the shared negatives those of the mined negative pairs
    (section 3.2). ``"author"`` (published code): of the pairs (p_k, n_k) the most similar are kept, in descending
    order; the kept positives are bisected into queries and keys, the kept negatives are shared.

    Args:
        positives: (K, n, D) unit vectors, the first ``positive_count`` of each class are valid.
        negatives: (K, n, D) unit vectors, the first ``negative_count`` are valid.
        positive_count: (K,) int64.
        negative_count: (K,) int64.
        top: Fraction of pairs kept.
        temperature: Divides the cosines.
        variant: See above.

    Returns:
        (K,); 0 where there is no query or no negative.
    """
    pairs = torch.minimum(positive_count, negative_count)
    mined = mine_pairs(_negative_similarity(positives, negatives), pairs, top=top, hardest="highest")
    shared = torch.where(mined.kept[:, :, None], _take(negatives, mined.pairs), 0.0)  # (K, M, D)
    if variant == "author":
        kept = _take(positives, mined.pairs)
        keys, half = _bisect(kept, mined.kept.sum(1))
        queries = kept[:, : keys.shape[1]]
        similarity = (queries * keys).sum(-1)
        valid = first_entries(half, keys.shape[1])  # (K, u)
    else:
        positive, _ = _positive_pairs(positives, positive_count, top)
        queries = _take(positives, positive.pairs)
        similarity, valid = positive.similarity, positive.kept
    left_out = torch.where(mined.kept, 0.0, -1e4).to(queries.dtype)[:, None, :]  # (K, 1, M)
    logits = torch.baddbmm(left_out, queries, shared.transpose(1, 2), alpha=1 / temperature)  # (K, u, M)
    every = torch.cat([(similarity / temperature)[:, :, None], logits], dim=-1)  # (K, u, 1 + M)
    loss = -every.log_softmax(-1)[:, :, 0]
    return masked_mean(loss, valid & mined.kept.any(1, keepdim=True))
