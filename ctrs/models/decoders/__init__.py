"""Decoders: four stages to one map, which a head turns into logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from torch import nn

from ctrs import config
from ctrs.errors import UsageError
from ctrs.models.decoders.dcfam import DcfamDecoder
from ctrs.models.decoders.unetformer import UnetFormerDecoder

DECODERS: tuple[str, ...] = get_args(config.Decoder)

_OUTPUT_STRIDES = {"deeplabv3": 8, "deeplabv3plus": 16}


def encoder_output_stride(name: str) -> int:
    """Return the stride that a decoder wants of the encoder's last stage; below 32 the encoder must be dilated."""
    return _OUTPUT_STRIDES.get(name, 32)


def create_decoder(
    name: str, channels: Sequence[int], *, num_classes: int, in_channels: int = 3
) -> tuple[nn.Module, nn.Module]:
    """Build a decoder and its head.

    Args:
        name: One of ``DECODERS``.
        channels: Channels of the four stages, at strides 4, 8, 16, 32 or, where ``encoder_output_stride`` is less than
            32, at no more than that.
        num_classes: Channels of the logits.
        in_channels: Channels of the input.

    Returns:
        The decoder, which maps the list of stages to its embedding (B, out_channels, h, w) and has the attributes
        ``out_channels`` and ``out_stride``; and the head, which maps that to logits of the same size.

    Raises:
        UsageError: The name is unknown, or the decoder can't take these channels.
    """
    if name == "dcfam":
        dcfam = DcfamDecoder(channels)
        return dcfam, nn.Conv2d(dcfam.out_channels, num_classes, 1, bias=False)
    if name == "unetformer":
        unetformer = UnetFormerDecoder(channels)
        head = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(unetformer.out_channels, num_classes, 1))
        return unetformer, head
    # The library takes a while to import, so only those who use it pay.
    from ctrs.models.decoders.smp import SMP_DECODERS, SmpDecoder, create_smp_head

    if name not in SMP_DECODERS:
        raise UsageError(f"decoder {name!r} is unknown, expected one of {', '.join(DECODERS)}")
    return SmpDecoder(name, channels, in_channels=in_channels), create_smp_head(name, num_classes)


__all__ = ["DECODERS", "DcfamDecoder", "UnetFormerDecoder", "create_decoder", "encoder_output_stride"]
