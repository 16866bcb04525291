"""Projection heads: used in training only, on the rows that a contrast loss samples."""

from __future__ import annotations

from torch import Tensor, nn


class ProjectionHead(nn.Module):
    """Linear - GELU - Linear, row by row, without norm layers, so that projecting sampled rows equals projecting all.

    Source: Contrastive Transformer (arXiv 2303.14806), section 3.3, widths from the authors' code.

    Args:
        in_channels: Channels of the stage.
        hidden_channels: Width between the layers; as ``out_channels`` if None.
        out_channels: Width of the projection.

    Examples:
        >>> import torch
        >>> ProjectionHead(64)(torch.zeros(5, 64)).shape
        torch.Size([5, 128])
    """

    def __init__(self, in_channels: int, hidden_channels: int | None = None, out_channels: int = 128) -> None:
        super().__init__()
        hidden = out_channels if hidden_channels is None else hidden_channels
        self.layers = nn.Sequential(nn.Linear(in_channels, hidden), nn.GELU(), nn.Linear(hidden, out_channels))

    def forward(self, rows: Tensor) -> Tensor:
        """(R, C) to (R, D), not normalised."""
        projected: Tensor = self.layers(rows)
        return projected
