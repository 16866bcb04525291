"""Simple feature pyramid: four stages at strides 4, 8, 16, 32 out of the one map of a plain vision transformer.

Source: Li et al., Exploring Plain Vision Transformer Backbones for Object Detection (ViTDet, arXiv 2203.16527),
section 3. Departures:

- the transformer's own last norm is kept, for that is what its pretraining (DINOv2, DINOv3) looked at;
- the last norm of each stage is not here: the network norms every stage of any encoder.
"""

from __future__ import annotations

from typing import Any

from timm.layers.norm import LayerNorm2d
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn

PATCH_SIZE = 16
WIDTH = 256


class NormedFeatures(FeatureGetterNet):
    """Maps of a timm transformer after its last norm."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "norm": True})


class FeaturePyramid(nn.Module):
    """Resize one map by transposed convolutions and pooling, then bring each size to one width.

    Args:
        in_channels: Channels of the map.
        width: Channels of the four stages.

    Examples:
        >>> import torch
        >>> [tuple(stage.shape) for stage in FeaturePyramid(8, width=16)(torch.zeros(1, 8, 2, 4))]
        [(1, 16, 8, 16), (1, 16, 4, 8), (1, 16, 2, 4), (1, 16, 1, 2)]
    """

    def __init__(self, in_channels: int, width: int = WIDTH) -> None:
        super().__init__()
        half, quarter = max(1, in_channels // 2), max(1, in_channels // 4)
        self.stages = nn.ModuleList(
            [
                nn.Sequential(
                    nn.ConvTranspose2d(in_channels, half, 2, stride=2),
                    LayerNorm2d(half),
                    nn.GELU(),
                    nn.ConvTranspose2d(half, quarter, 2, stride=2),
                    *_to_width(quarter, width),
                ),
                nn.Sequential(nn.ConvTranspose2d(in_channels, half, 2, stride=2), *_to_width(half, width)),
                nn.Sequential(*_to_width(in_channels, width)),
                nn.Sequential(nn.MaxPool2d(2), *_to_width(in_channels, width)),
            ]
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, h, w) at stride 16, h and w even, to four (B, width, ...) maps at strides 4, 8, 16, 32."""
        return [stage(x) for stage in self.stages]


def _to_width(in_channels: int, width: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(in_channels, width, 1, bias=False),
        LayerNorm2d(width),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
    )


class PyramidEncoder(nn.Module):
    """A plain vision transformer and its pyramid, behind the interface of a hierarchical encoder.

    Args:
        trunk: From timm, features only; gives one map at stride 16.
        trunk_channels: Its channels.
    """

    def __init__(self, trunk: nn.Module, trunk_channels: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.pyramid = FeaturePyramid(trunk_channels)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, C, H, W), H and W multiples of 32, to four maps at strides 4, 8, 16, 32."""
        (last,) = self.trunk(images)
        stages: list[Tensor] = self.pyramid(last)
        return stages
