"""Projection heads: used in training only, on the rows that a contrast loss samples.

A head maps rows (R, C) to (R, D). Where it has a ``dense`` module, that one runs first, on the whole map (B, C, h, w):
what needs the statistics of all cells. The loss gathers the sampled rows of its result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn import functional as F

from ctrs.config import HeadNorm
from ctrs.errors import ConfigError, UsageError

LayerOrder = Literal["relu-norm", "norm-relu"]


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
        self.in_channels = in_channels
        hidden = out_channels if hidden_channels is None else hidden_channels
        self.layers = nn.Sequential(nn.Linear(in_channels, hidden), nn.GELU(), nn.Linear(hidden, out_channels))

    def forward(self, rows: Tensor) -> Tensor:
        """(R, C) to (R, D), not normalised.

        Raises:
            UsageError: The rows have another width than the head was built for.
        """
        _check_width(rows.shape[-1], self.in_channels, "rows")
        projected: Tensor = self.layers(rows)
        return projected


class CellBatchNorm(nn.BatchNorm2d):
    """Batch norm that uses its running statistics where training has one cell only, and so nothing to average over."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, h, w) to the same."""
        if self.training and input.shape[0] * input.shape[2] * input.shape[3] == 1:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        normalized: Tensor = super().forward(input)
        return normalized


class _HiddenLayers(nn.Sequential):
    """Layers that run on whole maps (B, C, h, w)."""

    def __init__(self, in_channels: int, layers: Sequence[nn.Module]) -> None:
        super().__init__(*layers)
        self.in_channels = in_channels

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C', h, w)."""
        _check_width(input.shape[1], self.in_channels, "a map")
        for layer in self:
            input = layer(input)
        return input


class NormProjectionHead(nn.Module):
    """Hidden layers with norms, then a linear layer.

    Sources: the projectors of Pissas et al. (arXiv 2203.13409), section 4.1, which normalise after the ReLU, and of
    SimCLR, which Wang et al. (arXiv 2207.01417) take and which normalises before it. With ``norm="bn"`` the hidden
    layers are in `dense` and run on whole maps, for their statistics are those of all cells; the last layer runs on
    sampled rows, which is exact. With ``norm="ln"`` each row is normalised by itself and all layers run on sampled
    rows.

    Args:
        in_channels: C, channels of the stage.
        hidden_channels: Widths of the hidden layers.
        out_channels: D, width of the projection.
        norm: Batch norm (papers) or layer norm.
        order: Of ReLU and norm.

    Raises:
        ConfigError: No hidden layer, or an unknown norm or order.

    Examples:
        >>> import torch
        >>> head = NormProjectionHead(8, [8, 16], 4)
        >>> head.dense(torch.zeros(2, 8, 3, 5)).shape, head(torch.zeros(7, 16)).shape
        (torch.Size([2, 16, 3, 5]), torch.Size([7, 4]))
    """

    dense: nn.Sequential | None
    """Runs on whole maps before rows are gathered; None where rows suffice."""

    def __init__(
        self,
        in_channels: int,
        hidden_channels: Sequence[int],
        out_channels: int = 256,
        *,
        norm: HeadNorm = "bn",
        order: LayerOrder = "relu-norm",
    ) -> None:
        super().__init__()
        if not hidden_channels:
            raise ConfigError("hidden_channels of a projection head is empty, expected one width or more")
        if norm not in get_args(HeadNorm):
            raise ConfigError(
                f"norm of a projection head must be one of {', '.join(get_args(HeadNorm))}, found {norm!r}"
            )
        if order not in get_args(LayerOrder):
            raise ConfigError(
                f"order of a projection head must be one of {', '.join(get_args(LayerOrder))}, found {order!r}"
            )
        hidden: list[nn.Module] = []
        width = in_channels
        for channels in hidden_channels:
            hidden.append(
                nn.Conv2d(width, channels, 1, bias=False) if norm == "bn" else nn.Linear(width, channels, bias=False)
            )
            normalize = CellBatchNorm(channels) if norm == "bn" else nn.LayerNorm(channels)
            # In place: the layer before needs its input for its gradient, not its output.
            relu = nn.ReLU(inplace=True)
            hidden += [relu, normalize] if order == "relu-norm" else [normalize, relu]
            width = channels
        last = nn.Linear(width, out_channels)
        self.in_channels = width if norm == "bn" else in_channels
        self.dense = _HiddenLayers(in_channels, hidden) if norm == "bn" else None
        self.layers = last if norm == "bn" else nn.Sequential(*hidden, last)

    def forward(self, rows: Tensor) -> Tensor:
        """(R, C'), of `dense`'s result where there is one, to (R, D), not normalised.

        Raises:
            UsageError: The rows have another width than the head was built for.
        """
        _check_width(rows.shape[-1], self.in_channels, "rows")
        projected: Tensor = self.layers(rows)
        return projected


def _check_width(found: int, expected: int, what: str) -> None:
    if found != expected:
        raise UsageError(
            f"a projection head for {expected} channels got {what} of {found}; build one head for each stage, with the "
            "stage's channels (model.feature_channels)"
        )
