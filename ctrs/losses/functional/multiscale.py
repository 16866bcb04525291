"""Supervised contrast of sampled vectors, within one set or across two: deterministic, no sampling, no networks.

Sources: Pissas et al., Multi-scale and Cross-scale Contrastive Learning for Semantic Segmentation (arXiv 2203.13409),
Eq. 1 and 2, and Khosla et al., Supervised Contrastive Learning (arXiv 2004.11362), Eq. 2. With unit vectors z,
s_ij = z_i . z_j / temperature, P(i) the vectors of the anchor's class (without itself) and N(i) those of other classes:

    negatives:  L_i = 1 / |P(i)| sum over j in P(i) of  softplus(logsumexp over n in N(i) of s_in  -  s_ij)
    all:        L_i = logsumexp over a in P(i) and N(i) of s_ia  -  1 / |P(i)| sum over j in P(i) of s_ij

The first is Eq. 1 and 2 of Pissas et al. written so that nothing overflows, the second is Khosla's L_out. Both are the
same where each anchor has one positive. An anchor without negatives has no loss in the first.

The matrix of similarities is never kept: blocks of whole classes give their part of the loss and, while they are at
hand, of its gradient. That takes three products of matrices in all, where recomputing blocks takes four, and leaves
only the gradient alive until the backward pass.

Dimension letters: K classes, n anchors of a class, m others of a class, D projection width, g classes of a block.
"""

from __future__ import annotations

from typing import Any, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ctrs.config import Denominator, LonelyAnchors
from ctrs.errors import ConfigError

_BLOCK_ROWS = 1024
_LOWEST = -80.0
_NOTHING = 1.81e-35
"""A little above e^-80."""


def supervised_contrast(
    anchors: Tensor,
    anchor_valid: Tensor,
    others: Tensor,
    other_valid: Tensor,
    *,
    temperature: float = 0.1,
    same: bool = True,
    denominator: Denominator = "negatives",
    lonely: LonelyAnchors = "skip",
) -> tuple[Tensor, Tensor]:
    """Contrast anchors with others of their class against others of the remaining classes, averaged over the anchors.

    Gradients go into both sets; there are no second derivatives. Entries that are not valid must be finite, else they
    mean nothing.

    Args:
        anchors: (K, n, D) unit vectors, float32 or float64, of each class.
        anchor_valid: (K, n) bool, True where an entry is an anchor.
        others: (K, m, D) unit vectors among which positives and negatives are.
        other_valid: (K, m) bool.
        temperature: Divides the cosines.
        same: The two sets are one, entry by entry: no vector is its own positive.
        denominator: What stands below the fraction, see above.
        lonely: Anchors without a positive are left out of the mean (``"skip"``) or count as 0 (``"zero"``).

    Returns:
        () loss and () int64 number of anchors in the mean; 0 with a graph where there is none.

    Raises:
        ConfigError: An option outside its range.

    Examples:
        >>> angle = torch.deg2rad(torch.tensor([[0.0, 60.0], [90.0, 180.0]], dtype=torch.float64))
        >>> vectors = torch.stack([angle.cos(), angle.sin()], dim=-1)
        >>> valid = torch.ones(2, 2, dtype=torch.bool)
        >>> loss, count = supervised_contrast(vectors, valid, vectors, valid, temperature=1.0)
        >>> round(loss.item(), 6), count.item()
        (0.948501, 4)
    """
    if not temperature > 0:
        raise ConfigError(f"temperature of a supervised contrast must be above 0, found {temperature}")
    for name, choice, known in (
        ("denominator", denominator, get_args(Denominator)),
        ("lonely", lonely, get_args(LonelyAnchors)),
    ):
        if choice not in known:
            raise ConfigError(f"{name} of a supervised contrast must be one of {', '.join(known)}, found {choice!r}")
    positives = other_valid.sum(1, keepdim=True).expand(anchor_valid.shape)  # (K, n)
    if same:
        positives = positives - other_valid.long()
    chosen = anchor_valid & (positives > 0)
    count = (chosen if lonely == "skip" else anchor_valid).sum()
    positives = positives.clamp_min(1)
    with torch.autocast(anchors.device.type, enabled=False):
        weights = torch.where(chosen, 1.0, 0.0).to(anchors.dtype) / count.clamp_min(1)  # (K, n)
        # A view, because torch.compile refuses one tensor in two places.
        columns = others.view_as(others)
        loss: Tensor = _BlockwiseContrast.apply(
            anchors, columns, other_valid, weights, positives, temperature, same, denominator == "all"
        )
    return loss, count


class _BlockwiseContrast(torch.autograd.Function):
    """Weighted sum over anchors of L_i, block by block, with its gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        anchors: Tensor,
        others: Tensor,
        other_valid: Tensor,
        weights: Tensor,
        positives: Tensor,
        temperature: float,
        same: bool,
        everything: bool,
    ) -> Tensor:
        (K, n, D), m = anchors.shape, others.shape[1]
        columns = others.reshape(K * m, D)
        # Far below all similarities, whatever the temperature, and finite: a row without any has a gradient of 0.
        fill = -1e4 - 4 / temperature
        bias = torch.where(other_valid, 0.0, fill).to(anchors.dtype).view(1, K * m)
        itself = torch.eye(n, m, dtype=torch.bool, device=anchors.device)
        needs_gradient = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        loss = anchors.new_zeros(())
        anchor_gradients = []
        other_gradient = torch.zeros_like(columns)
        for first in range(0, K, step := max(1, _BLOCK_ROWS // max(1, n))):
            block = slice(first, first + step)
            weight = weights[block, :, None]  # (g, n, 1)
            share = weight / positives[block, :, None]  # (g, n, 1)
            rows = anchors[block].reshape(-1, D)
            similarity = torch.addmm(bias, rows, columns.t(), alpha=1 / temperature).view(-1, n, K, m)
            own_view = _own_class(similarity, first)
            own = own_view.clone()  # (g, n, m)
            positive = other_valid[block, None, :] & ~itself if same else other_valid[block, None, :].expand_as(own)
            if not everything:
                own_view.fill_(fill)
            elif same:
                own_view.copy_(torch.where(itself, fill, own))
            flat = similarity.view(-1, n, K * m)
            highest = flat.amax(2, keepdim=True)
            # Where exp underflows it takes many times as long. What is below e^-80 of the largest, and so does not
            # count in float64 either, becomes exactly 0.
            exponential = torch.threshold_(flat.sub_(highest).clamp_(min=_LOWEST).exp_(), _NOTHING, 0.0)
            total = exponential.sum(2, keepdim=True)  # (g, n, 1)
            lse = highest + total.log()
            if everything:
                pulled = torch.where(positive, own, 0.0)
                loss = loss + (weight * lse).sum() - (share * pulled).sum()
                slope = weight
            else:
                gap = lse - own
                loss = loss + (share * torch.where(positive, F.softplus(gap), 0.0)).sum()
                pull = share * torch.where(positive, gap.sigmoid(), 0.0)  # (g, n, m)
                slope = pull.sum(2, keepdim=True)
            if needs_gradient:
                gradient = exponential.mul_(slope / (total * temperature))
                own_view = _own_class(gradient.view(-1, n, K, m), first)
                if everything:
                    own_view.sub_(torch.where(positive, share / temperature, 0.0))
                else:
                    own_view.copy_(pull / -temperature)
                gradient = gradient.view(-1, K * m)
                anchor_gradients.append(gradient @ columns)
                other_gradient.addmm_(gradient.t(), rows)
        if needs_gradient:
            ctx.save_for_backward(torch.cat(anchor_gradients).view(K, n, D), other_gradient.view(K, m, D))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        anchor_gradient, other_gradient = ctx.saved_tensors
        return upstream * anchor_gradient, upstream * other_gradient, *[None] * 6


def _own_class(matrix: Tensor, first: int) -> Tensor:
    """View the part of a (g, n, K, m) matrix in which rows and columns have one class, (g, n, m).

    Args:
        matrix: Rows of the classes ``first`` and following, columns of all classes.
        first: Class of the first rows.
    """
    g = matrix.shape[0]
    return matrix[:, :, first : first + g].diagonal(dim1=0, dim2=2).permute(2, 0, 1)
