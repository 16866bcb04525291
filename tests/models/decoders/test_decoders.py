from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor

from ctrs import config
from ctrs.errors import UsageError
from ctrs.models import DECODERS, create_decoder
from ctrs.models.decoders import encoder_output_stride
from ctrs.models.decoders.smp import SMP_DECODERS
from ctrs.models.encoder import stage_strides

CHANNELS = (8, 16, 24, 32)
STRIDE = {
    "unet": 1,
    "unetplusplus": 1,
    "manet": 1,
    "linknet": 1,
    "dpt": 2,
    "pspnet": 32,
    "deeplabv3": 8,
    "deeplabv3plus": 4,
}


def stages(name: str, batch: int, height: int, width: int) -> list[Tensor]:
    strides = stage_strides(encoder_output_stride(name))
    return [torch.randn(batch, c, height // r, width // r) for c, r in zip(CHANNELS, strides, strict=True)]


def test_the_registry_equals_the_choices_of_the_command_line() -> None:
    assert set(get_args(config.Decoder)) == {"dcfam", "unetformer", *SMP_DECODERS}
    assert get_args(config.Decoder) == DECODERS


@pytest.mark.parametrize("name", DECODERS)
def test_decoder_and_head_share_one_interface(name: str) -> None:
    decoder, head = create_decoder(name, CHANNELS, num_classes=5, in_channels=4)
    embedding = decoder(stages(name, 2, 64, 96))
    stride = STRIDE.get(name, 4)
    assert decoder.out_stride == stride
    assert embedding.shape == (2, decoder.out_channels, 64 // stride, 96 // stride)
    logits = head(embedding)
    assert logits.shape == (2, 5, 64 // stride, 96 // stride)
    logits.square().mean().backward()
    assert all(p.grad is not None for part in (decoder, head) for p in part.parameters())


@pytest.mark.parametrize("name", DECODERS)
def test_a_batch_of_one_trains(name: str) -> None:
    decoder, head = create_decoder(name, CHANNELS, num_classes=5)
    assert head(decoder(stages(name, 1, 64, 64))).isfinite().all()


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("unet", 3.3),
        ("manet", 10.8),
        ("unetplusplus", 4.5),
        ("linknet", 0.5),
        ("fpn", 1.9),
        ("upernet", 8.3),
        ("segformer", 0.5),
    ],
)
def test_parameter_counts_on_poolformer_equal_those_of_smp(name: str, millions: float) -> None:
    decoder, _ = create_decoder(name, (64, 128, 320, 512), num_classes=6)
    assert round(sum(p.numel() for p in decoder.parameters()) / 1e6, 1) == millions


def test_unknown_decoder_names_the_known() -> None:
    with pytest.raises(UsageError, match="decoder 'deeplab' is unknown, expected one of dcfam, unetformer, upernet"):
        create_decoder("deeplab", CHANNELS, num_classes=2)
