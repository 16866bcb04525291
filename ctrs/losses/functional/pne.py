"""Positive-Negative Equal contrast of sampled vectors: deterministic, no sampling, no networks.

Source: Wang et al., Positive-Negative Equal Contrastive Loss for Semantic Segmentation (arXiv 2207.01417), Eq. 7 to 9.

Dimension letters: G groups (images, or one for a whole batch), A anchors, K classes, n candidates of each class, D
projection width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_ABSENT = -1e30  # finite, so that two empty sets do not give inf - inf


def pne_terms(
    anchors: Tensor,
    candidates: Tensor,
    candidate_valid: Tensor,
    confidences: Tensor,
    predicted: Tensor,
    true: Tensor,
    *,
    temperature: float = 1.0,
    normalize_weights: bool = True,
) -> Tensor:
    """Contrast each wrongly classified anchor with right cells of two classes (Eq. 8).

    The candidates of the predicted class are its negatives N, those of the true class its positives P, weighted by
    their confidence w: log(1 + mean_N exp(cos / tau) / mean_P (w exp(cos / tau))). Means stand where the paper has
    sums, which is the same for |N| = |P| and does not depend on the sizes otherwise (last line of Eq. 7).

    Args:
        anchors: (G, A, D) unit vectors.
        candidates: (G, K, n, D) unit vectors of right cells of each class.
        candidate_valid: (G, K, n) bool, True where a candidate counts.
        confidences: (G, K, n) probability of the candidate's class; used for positives only.
        predicted: (G, A) int64 class 0..K-1 that was predicted.
        true: (G, A) int64 class 0..K-1 of the label.
        temperature: tau, divides cosines.
        normalize_weights: Divide confidences by their mean over P (paper); the authors' code does not.

    Returns:
        (G, A); 0 where a class has no candidate.

    Examples:
        >>> angle = torch.deg2rad(torch.tensor([0.0, 90, 180, 60, 90]))
        >>> unit = torch.stack([angle.cos(), angle.sin()], -1)
        >>> found = pne_terms(
        ...     unit[None, :1],
        ...     unit[1:].view(1, 2, 2, 2),
        ...     torch.ones(1, 2, 2, dtype=torch.bool),
        ...     torch.tensor([[[0.5, 0.5], [0.9, 0.3]]]),
        ...     predicted=torch.tensor([[0]]),
        ...     true=torch.tensor([[1]]),
        ... )
        >>> round(found.item(), 6)
        0.378497
    """
    G, K, n, _ = candidates.shape
    A = anchors.shape[1]
    similarity = torch.bmm(anchors, candidates.flatten(1, 2).transpose(1, 2)) / temperature  # (G, A, K n)
    by_class = similarity.view(G * A * K, n)
    first = torch.arange(G * A, device=anchors.device) * K
    group = torch.arange(G, device=anchors.device)[:, None] * K
    counts = candidate_valid.sum(-1)  # (G, K)
    log_weights = _log_weights(confidences, candidate_valid, counts, normalize=normalize_weights)

    def log_mean(classes: Tensor, log_weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return log of the (weighted) mean over candidates of each anchor's class and whether there is any, (G A,)."""
        row = (group + classes).reshape(-1)  # (G A,) into (G K,)
        values = by_class.index_select(0, first + classes.reshape(-1))  # (G A, n)
        if log_weights is not None:
            values = values + log_weights.view(G * K, n).index_select(0, row)
        kept = candidate_valid.view(G * K, n).index_select(0, row)
        count = counts.view(-1).index_select(0, row)
        total = torch.where(kept, values, _ABSENT).logsumexp(-1)
        return total - count.clamp_min(1).to(total.dtype).log(), count > 0

    negative, has_negative = log_mean(predicted, None)
    positive, has_positive = log_mean(true, log_weights)
    both = has_negative & has_positive
    return torch.where(both, F.softplus(torch.where(both, negative - positive, 0.0)), 0.0).view(G, A)


def _log_weights(confidences: Tensor, valid: Tensor, counts: Tensor, *, normalize: bool) -> Tensor:
    """Return the log of each candidate's weight, (G, K, n); 0 where it does not count."""
    weights = torch.where(valid, confidences, 1.0)
    if normalize:
        mean = torch.where(valid, confidences, 0.0).sum(-1) / counts.clamp_min(1)  # (G, K)
        weights = torch.where(valid, weights / mean.clamp_min(1e-12)[..., None], 1.0)
    return weights.clamp_min(1e-12).log()
