"""Decoders of segmentation_models_pytorch on the four stages of our encoders.

Their classes are built directly on the stages' channels. They count levels from the input's resolution on, so a map
of the input's size and an empty one at stride 2 stand before the four stages; neither holds memory. Departures from
the library's models:

- PSPNet looks at the last stage (stride 32), where the library cuts the encoder off at stride 8: else the last two
  stages would not be trained.
- The branches of UPerNet and DeepLab that pool an image into one cell have no batch normalisation (as in the library's
  PSPNet), which fails on a batch of one image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from segmentation_models_pytorch.base import modules
from segmentation_models_pytorch.base.initialization import initialize_decoder, initialize_head
from segmentation_models_pytorch.decoders.deeplabv3.decoder import ASPPPooling, DeepLabV3Decoder, DeepLabV3PlusDecoder
from segmentation_models_pytorch.decoders.dpt.decoder import DPTDecoder
from segmentation_models_pytorch.decoders.fpn.decoder import FPNDecoder
from segmentation_models_pytorch.decoders.linknet.decoder import LinknetDecoder
from segmentation_models_pytorch.decoders.manet.decoder import MAnetDecoder
from segmentation_models_pytorch.decoders.pspnet.decoder import PSPDecoder
from segmentation_models_pytorch.decoders.segformer.decoder import SegformerDecoder
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from segmentation_models_pytorch.decoders.unetplusplus.decoder import UnetPlusPlusDecoder
from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder
from torch import Tensor, nn

_BLOCKS = (256, 128, 64, 32, 16)


@dataclass(frozen=True, kw_only=True)
class _Recipe:
    """How a decoder is built from level channels, what it puts out and how large the head's kernel is."""

    build: Callable[[list[int]], nn.Module]
    out_channels: int
    out_stride: int
    kernel_size: int


def _upernet(levels: list[int]) -> nn.Module:
    decoder = UPerNetDecoder(encoder_channels=levels, decoder_channels=256)
    decoder.psp.blocks[0][1] = modules.Conv2dReLU(levels[-1], 256, kernel_size=1, use_norm="identity")
    return _module(decoder)


def _dpt(levels: list[int]) -> nn.Module:
    return _module(
        DPTDecoder(
            encoder_out_channels=levels[2:],
            encoder_output_strides=(4, 8, 16, 32),
            encoder_has_prefix_tokens=False,
            readout="ignore",
        )
    )


def _deeplabv3(levels: list[int]) -> nn.Module:
    return _single_image(
        DeepLabV3Decoder(levels[-1], 256, atrous_rates=(12, 24, 36), aspp_separable=False, aspp_dropout=0.5)
    )


def _deeplabv3plus(levels: list[int]) -> nn.Module:
    return _single_image(
        DeepLabV3PlusDecoder(
            levels,
            encoder_depth=5,
            out_channels=256,
            atrous_rates=(12, 24, 36),
            output_stride=16,
            aspp_separable=True,
            aspp_dropout=0.5,
        )
    )


def _single_image(decoder: Any) -> nn.Module:
    """Take the batch normalisation from DeepLab's pooling branch."""
    (pooling,) = (module for module in decoder.modules() if isinstance(module, ASPPPooling))
    pooling[1] = nn.Conv2d(pooling[1].in_channels, pooling[1].out_channels, 1)
    pooling[2] = nn.Identity()
    return _module(decoder)


def _module(decoder: Any) -> nn.Module:
    """Narrow the untyped library's object."""
    if not isinstance(decoder, nn.Module):
        raise TypeError(f"{type(decoder).__name__} is no module")
    return decoder


_RECIPES: dict[str, _Recipe] = {
    "upernet": _Recipe(build=_upernet, out_channels=256, out_stride=4, kernel_size=1),
    "fpn": _Recipe(
        build=lambda c: _module(FPNDecoder(encoder_channels=c)), out_channels=128, out_stride=4, kernel_size=1
    ),
    "segformer": _Recipe(
        build=lambda c: _module(SegformerDecoder(encoder_channels=c)), out_channels=256, out_stride=4, kernel_size=1
    ),
    "unet": _Recipe(
        build=lambda c: _module(UnetDecoder(c, _BLOCKS)), out_channels=_BLOCKS[-1], out_stride=1, kernel_size=3
    ),
    "unetplusplus": _Recipe(
        build=lambda c: _module(UnetPlusPlusDecoder(c, _BLOCKS)), out_channels=_BLOCKS[-1], out_stride=1, kernel_size=3
    ),
    "manet": _Recipe(
        build=lambda c: _module(MAnetDecoder(c, list(_BLOCKS))), out_channels=_BLOCKS[-1], out_stride=1, kernel_size=3
    ),
    "linknet": _Recipe(build=lambda c: _module(LinknetDecoder(c)), out_channels=32, out_stride=1, kernel_size=1),
    "dpt": _Recipe(build=_dpt, out_channels=256, out_stride=2, kernel_size=3),
    "pspnet": _Recipe(build=lambda c: _module(PSPDecoder(c)), out_channels=512, out_stride=32, kernel_size=3),
    "deeplabv3": _Recipe(build=_deeplabv3, out_channels=256, out_stride=8, kernel_size=1),
    "deeplabv3plus": _Recipe(build=_deeplabv3plus, out_channels=256, out_stride=4, kernel_size=1),
}

SMP_DECODERS = tuple(_RECIPES)


class SmpDecoder(nn.Module):
    """One of the library's decoders behind the interface of ours.

    Args:
        name: One of ``SMP_DECODERS``.
        channels: Channels of the four stages.
        in_channels: Channels of the input.
    """

    def __init__(self, name: str, channels: Sequence[int], *, in_channels: int) -> None:
        super().__init__()
        recipe = _RECIPES[name]
        self.name = name
        self.out_channels = recipe.out_channels
        self.out_stride = recipe.out_stride
        self.in_channels = in_channels
        self.decoder = recipe.build([in_channels, 0, *channels])
        initialize_decoder(self.decoder)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Four (B, C_s, h_s, w_s) maps, the first at stride 4, to (B, out_channels, h, w)."""
        if self.name == "dpt":
            embedding: Tensor = self.decoder(list(features), [None] * len(features))
            return embedding
        first = features[0]
        B, _, h, w = first.shape
        full = first.new_zeros(()).expand(B, self.in_channels, 4 * h, 4 * w)  # read for its size only
        empty = first.new_empty((B, 0, 2 * h, 2 * w))
        levels: Tensor = self.decoder([full, empty, *features])
        return levels


def create_smp_head(name: str, num_classes: int) -> nn.Module:
    """Return the library's head for a decoder, without its upsampling."""
    recipe = _RECIPES[name]
    last = nn.Conv2d(recipe.out_channels, num_classes, recipe.kernel_size, padding=recipe.kernel_size // 2)
    head: nn.Module = last
    if name == "dpt":
        head = nn.Sequential(
            nn.Conv2d(recipe.out_channels, recipe.out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(recipe.out_channels),
            nn.ReLU(inplace=True),
            nn.Dropout(0.1),
            nn.Conv2d(recipe.out_channels, num_classes, 1),
        )
    initialize_head(head)
    return head
