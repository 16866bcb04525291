"""DC-Swin's decoder (DCFAM): densely connected features, linear attention over space and over channels.

Source: Wang et al., A Novel Transformer Based Semantic Segmentation Scheme for Fine-Resolution Remote Sensing Images
(2022), written from the description of the architecture, for any four stages at strides 4 to 32. Departures from the
published network:

- vectors are normalised with an epsilon, so that zero pixels stay finite;
- maps need not be square;
- the attentions run in float32, outside autocast, for their sums over positions overflow half precision;
- a denominator of the linear attention is kept above a tenth of the number of positions (over channels it could come
  near zero);
- every convolution is initialised (Kaiming), not only direct children.

Dimension letters: B images, C channels, N = h * w positions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ctrs.errors import UsageError


def conv_norm(in_channels: int, out_channels: int, kernel_size: int = 3, *, stride: int = 1) -> nn.Sequential:
    """Convolution without bias, then batch normalisation."""
    padding = kernel_size // 2
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride=stride, padding=padding, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def conv_norm_relu(in_channels: int, out_channels: int) -> nn.Sequential:
    """3 x 3 convolution, batch normalisation, ReLU."""
    return nn.Sequential(*conv_norm(in_channels, out_channels), nn.ReLU(inplace=True))


def initialize(module: nn.Module) -> None:
    """Kaiming initialisation of every convolution inside ``module``; norms start as the identity."""
    for child in module.modules():
        if isinstance(child, nn.Conv2d):
            nn.init.kaiming_normal_(child.weight, nonlinearity="relu")
            if child.bias is not None:
                nn.init.zeros_(child.bias)


class Downsample(nn.Module):
    """Residual block that halves the resolution: conv-BN-ReLU, strided conv-BN, plus a strided conv-BN of x, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.first = conv_norm_relu(in_channels, out_channels)
        self.second = conv_norm(out_channels, out_channels, stride=2)
        self.shortcut = conv_norm(in_channels, out_channels, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C', h / 2, w / 2)."""
        return F.relu(self.second(self.first(x)) + self.shortcut(x))


class LargeFieldUpsample(nn.Module):
    """Two depthwise-separable convolutions (dilation 6, 12), each followed by doubling the resolution (nearest)."""

    def __init__(self, in_channels: int, mid_channels: int, out_channels: int) -> None:
        super().__init__()
        self.first = self._separable(in_channels, mid_channels, dilation=6)
        self.second = self._separable(mid_channels, out_channels, dilation=12)

    @staticmethod
    def _separable(in_channels: int, out_channels: int, *, dilation: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(in_channels, in_channels, 3, padding=dilation, dilation=dilation, groups=in_channels, bias=False),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C', 4 h, 4 w)."""
        x = F.interpolate(self.first(x), scale_factor=2.0, mode="nearest")
        return F.interpolate(self.second(x), scale_factor=2.0, mode="nearest")


def _bounded(denominator: Tensor, positions: int) -> Tensor:
    return denominator.clamp_min(0.1 * positions)


class SpatialAttention(nn.Module):
    """Linear attention between positions: x + gamma * (sum_n v_n + q (k v^T)) / (N + q . sum_n k_n).

    The softmax kernel e^{q.k} of unit vectors is replaced by its first-order expansion 1 + q.k, so the cost is linear
    in N.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels // 8, 1)
        self.key = nn.Conv2d(channels, channels // 8, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same shape."""
        query, key, value = (conv(x).flatten(2) for conv in (self.query, self.key, self.value))  # (B, C', N)
        with torch.autocast(x.device.type, enabled=False):
            query = F.normalize(query.float(), dim=1, eps=1e-6)
            key = F.normalize(key.float(), dim=1, eps=1e-6)
            value = value.float()
            affinity = value @ key.transpose(1, 2)  # (B, C, C / 8)
            summed = value.sum(2, keepdim=True) + affinity @ query  # (B, C, N)
            weight = key.sum(2, keepdim=True).transpose(1, 2) @ query  # (B, 1, N)
            attended = summed / _bounded(x.shape[2] * x.shape[3] + weight, x.shape[2] * x.shape[3])
        attended = attended.view(x.shape).to(x.dtype)
        return torch.addcmul(x, self.gamma.to(x.dtype), attended)


class ChannelAttention(nn.Module):
    """The same linear attention between channels, each a vector over positions; x is query, key and value."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same shape."""
        positions = x.shape[2] * x.shape[3]
        with torch.autocast(x.device.type, enabled=False):
            value = x.float().flatten(2)  # (B, C, N)
            unit = F.normalize(value, dim=1, eps=1e-6)
            affinity = unit @ unit.transpose(1, 2)  # (B, C, C)
            summed = value.sum(1, keepdim=True) + affinity @ value  # (B, C, N)
            attended = summed / _bounded(positions + affinity.sum(2, keepdim=True), positions)
        attended = attended.view(x.shape).to(x.dtype)
        return torch.addcmul(x, self.gamma.to(x.dtype), attended)


class DcfamDecoder(nn.Module):
    """Fuse four stages into one map at stride 4.

    Args:
        channels: Channels of the stages at strides 4, 8, 16, 32; the third must be divisible by 8.
        dropout: Probability of dropping whole channels before the last convolution.
    """

    def __init__(self, channels: Sequence[int], *, dropout: float = 0.05) -> None:
        super().__init__()
        c1, c2, c3, c4 = channels
        if c3 % 8:
            raise UsageError(
                f"decoder dcfam needs a third stage whose channels divide by 8, found {c3}; "
                "choose another backbone or decoder"
            )
        self.out_channels = c1
        self.out_stride = 4
        self.lateral4 = nn.Conv2d(c4, c4, 1, bias=False)
        self.lateral1 = nn.Conv2d(c1, c1, 1, bias=False)
        self.spatial = SpatialAttention(c3)
        self.channel = ChannelAttention()
        self.down12 = Downsample(c1, c2)
        self.down231 = Downsample(c2, c3)
        self.down232 = Downsample(c2, c3)
        self.down34 = Downsample(c3, c4)
        self.up4 = LargeFieldUpsample(c4, c3, c2)
        self.up3 = LargeFieldUpsample(c3, c2, c1)
        self.merge2 = conv_norm_relu(c2, c1)
        self.dropout = nn.Dropout2d(dropout)
        self.final = conv_norm_relu(c1, c1)
        initialize(self)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Four (B, C_s, h_s, w_s) maps whose sizes halve from one to the next, to (B, C_1, h_1, w_1)."""
        x1, x2, x3, x4 = features
        out4 = self.lateral4(x4) + self.down34(self.spatial(self.down232(x2)))
        out3 = self.spatial(x3) + self.down231(self.channel(self.down12(x1)))
        out2 = self.channel(x2) + self.up4(out4)
        out1 = self.lateral1(x1) + self.up3(out3)
        merged = F.interpolate(self.merge2(out2), size=out1.shape[-2:], mode="bilinear", align_corners=False)
        embedding: Tensor = self.final(self.dropout(out1 + merged))
        return embedding
