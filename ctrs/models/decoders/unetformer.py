"""UNetFormer's decoder: global-local attention blocks on the way up, a feature refinement head at stride 4.

Source: Wang et al., UNetFormer: A UNet-like Transformer for Efficient Semantic Segmentation of Remote Sensing Urban
Scene Imagery (2022), written from the description of the architecture. The auxiliary head stands apart from the
decoder, for it serves training only. Departures from the published network:

- maps whose sides are no multiple of the window are padded with zeros and cropped, and padded cells are no keys of
  the attention;
- paddings of even kernels are zeros, so that maps smaller than the padding work;
- in the separable convolution the norm stands at the end.

Dimension letters: B images, C channels, h x w cells, M cells of a window, E heads, W windows of an image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ctrs.errors import UsageError
from ctrs.models.decoders.dcfam import conv_norm, conv_norm_relu, initialize


def conv_norm_relu6(in_channels: int, out_channels: int) -> nn.Sequential:
    """3 x 3 convolution, batch normalisation, ReLU6."""
    return nn.Sequential(*conv_norm(in_channels, out_channels), nn.ReLU6(inplace=True))


class WindowAttention(nn.Module):
    """Attention inside windows with a learnt bias for each relative position."""

    relative: Tensor

    def __init__(self, channels: int, *, num_heads: int, window: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window = window
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.bias = nn.Parameter(torch.empty((2 * window - 1) ** 2, num_heads))
        nn.init.trunc_normal_(self.bias, std=0.02)
        row, col = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
        place = torch.stack([row.flatten(), col.flatten()])  # (2, M)
        offset = place[:, :, None] - place[:, None, :] + window - 1  # (2, M, M)
        self.register_buffer("relative", offset[0] * (2 * window - 1) + offset[1], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same shape."""
        height, width = x.shape[-2:]
        bottom, right = -height % self.window, -width % self.window
        cells = self.window**2
        # qkv has no bias: padding its output is padding its input.
        windows = self._to_windows(F.pad(self.qkv(x), (0, right, 0, bottom)))  # (B * W, 3 C, M)
        query, key, value = (
            windows.view(windows.shape[0], 3, self.num_heads, -1, cells).transpose(-1, -2).unbind(1)
        )  # (B * W, E, M, D)
        bias = (
            self.bias[self.relative.flatten()].view(cells, cells, self.num_heads).permute(2, 0, 1)[None]
        )  # (1, E, M, M)
        if bottom or right:
            padded = F.pad(x.new_zeros((x.shape[0], 1, height, width)), (0, right, 0, bottom), value=float("-inf"))
            bias = bias + self._to_windows(padded)[:, None]  # (B * W, E, M, M)
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype))
        return self._from_windows(out, height + bottom, width + right)[..., :height, :width]

    def _to_windows(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B * W, C, M)."""
        B, C, h, w = x.shape
        s = self.window
        return x.view(B, C, h // s, s, w // s, s).permute(0, 2, 4, 1, 3, 5).reshape(-1, C, s * s)

    def _from_windows(self, x: Tensor, h: int, w: int) -> Tensor:
        """(B * W, E, M, D) to (B, E * D, h, w)."""
        s = self.window
        heads, dim = x.shape[1], x.shape[3]
        x = x.reshape(-1, h // s, w // s, heads, s, s, dim).permute(0, 3, 6, 1, 4, 2, 5)
        # Attention's layout differs from device to device; an exported graph must not count on one.
        return x.clone(memory_format=torch.contiguous_format).view(-1, heads * dim, h, w)


class GlobalLocalAttention(nn.Module):
    """Two convolutions for the neighbourhood, window attention mixed along rows and columns for the rest."""

    def __init__(self, channels: int, *, num_heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.local3 = conv_norm(channels, channels, 3)
        self.local1 = conv_norm(channels, channels, 1)
        self.attention = WindowAttention(channels, num_heads=num_heads, window=window)
        self.project = nn.Sequential(
            nn.Conv2d(channels, channels, window, groups=channels, bias=False),
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, channels, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same shape."""
        before, after = (self.window - 1) // 2, self.window // 2
        attended = self.attention(x)
        mixed = F.avg_pool2d(F.pad(attended, (0, 0, before, after)), (self.window, 1), stride=1)
        mixed = mixed + F.avg_pool2d(F.pad(attended, (before, after, 0, 0)), (1, self.window), stride=1)
        both = mixed + self.local3(x) + self.local1(x)
        out: Tensor = self.project(F.pad(both, (before, after, before, after)))
        return out


class Block(nn.Module):
    """x + attention(BN(x)), then x + MLP(BN(x))."""

    def __init__(self, channels: int, *, num_heads: int, window: int, ratio: int = 4) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.attention = GlobalLocalAttention(channels, num_heads=num_heads, window=window)
        self.norm2 = nn.BatchNorm2d(channels)
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, ratio * channels, 1), nn.ReLU6(inplace=True), nn.Conv2d(ratio * channels, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same shape."""
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class WeightedFusion(nn.Module):
    """Mix the doubled map with an encoder stage by two learnt shares."""

    def __init__(self, skip_channels: int, channels: int) -> None:
        super().__init__()
        self.lateral = nn.Conv2d(skip_channels, channels, 1, bias=False)
        self.shares = nn.Parameter(torch.ones(2))
        self.mix = conv_norm_relu6(channels, channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(B, C, h, w) and (B, C_s, 2 h, 2 w) to (B, C, 2 h, 2 w)."""
        x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
        shares = F.relu(self.shares)
        shares = shares / (shares.sum() + 1e-8)
        mixed: Tensor = self.mix(shares[0] * self.lateral(skip) + shares[1] * x)
        return mixed


class FeatureRefinement(nn.Module):
    """Weighted fusion, attention over positions and over channels, then a separable convolution with a shortcut."""

    def __init__(self, skip_channels: int, channels: int) -> None:
        super().__init__()
        self.fusion = WeightedFusion(skip_channels, channels)
        self.position = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        squeezed = max(1, channels // 16)
        self.channel = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, squeezed, 1, bias=False),
            nn.ReLU6(inplace=True),
            nn.Conv2d(squeezed, channels, 1, bias=False),
        )
        self.shortcut = conv_norm(channels, channels, 1)
        self.project = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(B, C, h, w) and (B, C_s, 2 h, 2 w) to (B, C, 2 h, 2 w)."""
        x = self.fusion(x, skip)
        shortcut = self.shortcut(x)
        x = x * self.position(x).sigmoid() + x * self.channel(x).sigmoid()
        return F.relu6(self.project(x) + shortcut)


class UnetFormerDecoder(nn.Module):
    """Fuse four stages into one map at stride 4.

    Args:
        channels: Channels of the stages at strides 4, 8, 16, 32.
        width: Channels inside and at the end; 64 in UNetFormer, 256 in its larger form.
        num_heads: Attention heads; must divide ``width``.
        window: Edge of attention windows in cells.
    """

    def __init__(self, channels: Sequence[int], *, width: int = 64, num_heads: int = 8, window: int = 8) -> None:
        super().__init__()
        c1, c2, c3, c4 = channels
        if width % num_heads:
            raise UsageError(f"decoder unetformer: width {width} does not divide by {num_heads} heads; change one")
        self.out_channels = width
        self.out_stride = 4
        self.enter = conv_norm(c4, width, 1)
        self.block4 = Block(width, num_heads=num_heads, window=window)
        self.fusion3 = WeightedFusion(c3, width)
        self.block3 = Block(width, num_heads=num_heads, window=window)
        self.fusion2 = WeightedFusion(c2, width)
        self.block2 = Block(width, num_heads=num_heads, window=window)
        self.refine1 = FeatureRefinement(c1, width)
        self.final = conv_norm_relu6(width, width)
        initialize(self)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Four (B, C_s, h_s, w_s) maps whose sizes halve from one to the next, to (B, width, h_1, w_1)."""
        return self.with_inner(features)[0]

    def with_inner(self, features: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """Return what `forward` does, and the blocks' outputs (B, width, h_s, w_s) at strides 32, 16, 8."""
        x1, x2, x3, x4 = features
        out4 = self.block4(self.enter(x4))
        out3 = self.block3(self.fusion3(out4, x3))
        out2 = self.block2(self.fusion2(out3, x2))
        embedding: Tensor = self.final(self.refine1(out2, x1))
        return embedding, (out4, out3, out2)


class AuxiliaryHead(nn.Module):
    """Logits from the sum of the blocks' outputs at stride 8, for deep supervision in training.

    3 x 3 convolution, batch normalisation, ReLU, dropout 0.1, 1 x 1 convolution; UNetFormer weighs its loss by 0.4.

    Args:
        channels: Of the blocks' outputs.
        num_classes: Channels of the logits.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.mix = conv_norm_relu(channels, channels)
        self.classify = nn.Sequential(nn.Dropout(0.1), nn.Conv2d(channels, num_classes, 1))
        initialize(self.mix)

    def forward(self, inner: Sequence[Tensor]) -> Tensor:
        """(B, C, h_s, w_s) at strides 32, 16, 8 to (B, K, 8 h, 8 w), the size of the padded input."""
        coarse, middle, fine = inner
        x = fine
        for other in (middle, coarse):
            x = x + F.interpolate(other, size=fine.shape[-2:], mode="bilinear", align_corners=False)
        logits: Tensor = self.classify(self.mix(x))
        return F.interpolate(logits, scale_factor=8, mode="bilinear", align_corners=False)
