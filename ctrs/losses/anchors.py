"""From sampled cells of a feature map to unit vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ctrs.losses.sampling import gather_rows


def project_cells(features: Tensor, head: nn.Module, cells: Tensor, valid: Tensor) -> Tensor:
    """Project and normalise sampled cells.

    What stands in cells that were not sampled can't enter, but through the statistics of a batch norm. The rows are
    computed again in the backward pass, so that of them only the indices stay alive.

    Args:
        features: (B, C, h, w).
        head: Maps (R, C') to (R, D) row by row. Where it has a module ``dense``, that maps the whole features to
            (B, C', h, w) first; else C' is C.
        cells: (K, n) int64 in 0..B * h * w - 1.
        valid: (K, n) bool; the others become some finite vector.

    Returns:
        (K, n, D) unit vectors in float32 (float64 for float64 features).
    """
    dense = getattr(head, "dense", None)
    maps = features if dense is None else dense(features)
    vectors: Tensor = checkpoint(
        _unit_rows, maps, head, cells.reshape(-1), valid.reshape(-1), use_reentrant=False, preserve_rng_state=False
    )
    return vectors.view(*cells.shape, -1)


def _unit_rows(maps: Tensor, head: nn.Module, cells: Tensor, valid: Tensor) -> Tensor:
    return unit_vectors(head(gather_rows(maps, cells, valid)))


def unit_vectors(projected: Tensor) -> Tensor:
    """Normalise in float32, outside autocast; half precision overflows in the norm and has too coarse cosines.

    Args:
        projected: (..., D), any float type.

    Returns:
        (..., D) float32 (float64 for float64), of length 1; shorter than 1 where the length was below 1e-6.
    """
    with torch.autocast(projected.device.type, enabled=False):
        wide = projected if projected.dtype == torch.float64 else projected.float()
        # One product with the inverse norm: a division by the norm costs three more passes in the backward.
        inverse: Tensor = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).clamp_min(1e-6).reciprocal()
        return wide * inverse
