"""Rows of fixed size of which only some entries count: no boolean indexing, so nothing waits for the device."""

from __future__ import annotations

import torch
from torch import Tensor


def first_entries(count: Tensor, size: int) -> Tensor:
    """Return a (K, size) mask, True for the first ``count`` entries of each of K rows.

    Examples:
        >>> first_entries(torch.tensor([1, 0]), 2).tolist()
        [[True, False], [False, False]]
    """
    return torch.arange(size, device=count.device) < count[:, None]


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Average (K, P) values over the True entries of each row; 0 where there is none.

    Examples:
        >>> masked_mean(torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([[True, True, False]])).tolist()
        [2.0]
    """
    return torch.where(mask, values, 0.0).sum(1) / mask.sum(1).clamp_min(1)
