from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ctrs.errors import UsageError
from ctrs.models import create_decoder
from ctrs.models.decoders.unetformer import (
    AuxiliaryHead,
    GlobalLocalAttention,
    UnetFormerDecoder,
    WeightedFusion,
    WindowAttention,
)


def test_parameter_counts() -> None:
    parts = create_decoder("unetformer", (64, 128, 320, 512), num_classes=6)
    assert round(sum(p.numel() for part in parts for p in part.parameters()) / 1e6, 2) == 0.52
    decoder = parts[0]
    assert sum(p.numel() for p in decoder.parameters()) == 514_718
    # The published network has 0.55 M, of which 0.04 M are the auxiliary head, which stands apart.
    extra = sum(p.numel() for p in AuxiliaryHead(64, 6).parameters())
    assert extra == 64 * 64 * 9 + 2 * 64 + 64 * 6 + 6
    assert round(extra / 1e6, 2) == 0.04
    assert round((sum(p.numel() for part in parts for p in part.parameters()) + extra) / 1e6, 2) == 0.55
    large = UnetFormerDecoder((64, 128, 320, 512), width=256)
    assert round(sum(p.numel() for p in large.parameters()) / 1e6, 1) == 7.2


@pytest.mark.parametrize("size", [(32, 32), (64, 160), (128, 96)])
def test_any_shape(size: tuple[int, int]) -> None:
    channels = (8, 16, 24, 32)
    features = [torch.randn(2, c, size[0] // r, size[1] // r) for c, r in zip(channels, (4, 8, 16, 32), strict=True)]
    decoder = UnetFormerDecoder(channels, width=16, num_heads=2)
    embedding = decoder(features)
    assert embedding.shape == (2, 16, size[0] // 4, size[1] // 4)
    embedding.mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in decoder.parameters())


def naive_window_attention(module: WindowAttention, x: Tensor) -> Tensor:
    """Loop over windows, heads and cells; the window's edge cells simply see fewer keys."""
    _, channels, height, width = x.shape
    s, heads = module.window, module.num_heads
    depth = channels // heads
    qkv = module.qkv(x)[0].view(3, heads, depth, height, width)
    out = torch.zeros(heads, depth, height, width)
    for i in range(height):
        for j in range(width):
            top, left = i // s * s, j // s * s
            places = [(a, b) for a in range(top, min(top + s, height)) for b in range(left, min(left + s, width))]
            for head in range(heads):
                scores = torch.stack(
                    [
                        qkv[0, head, :, i, j] @ qkv[1, head, :, a, b] / depth**0.5
                        + module.bias[(i - a + s - 1) * (2 * s - 1) + (j - b + s - 1), head]
                        for a, b in places
                    ]
                ).softmax(0)
                out[head, :, i, j] = sum(
                    score * qkv[2, head, :, a, b] for score, (a, b) in zip(scores, places, strict=True)
                )
    return out.reshape(1, channels, height, width)


@pytest.mark.parametrize("size", [(4, 8), (3, 3), (6, 5)])
def test_window_attention_equals_a_loop_over_cells(size: tuple[int, int]) -> None:
    module = WindowAttention(6, num_heads=2, window=4)
    nn.init.normal_(module.bias)
    x = torch.randn(1, 6, *size)
    with torch.no_grad():
        torch.testing.assert_close(module(x), naive_window_attention(module, x), rtol=1e-4, atol=1e-5)


def test_global_local_attention_keeps_the_size_and_reaches_beyond_a_window() -> None:
    module = GlobalLocalAttention(8, num_heads=2, window=4).eval()
    x = torch.randn(1, 8, 12, 12, requires_grad=True)
    out = module(x)
    assert out.shape == x.shape
    (gradient,) = torch.autograd.grad(out[0, :, 5, 5].sum(), x)
    assert (gradient[0, :, 0, 5] != 0).any()


def test_weighted_fusion_starts_even_and_ignores_negative_shares() -> None:
    fusion = WeightedFusion(3, 4)
    fusion.mix = nn.Identity()  # type: ignore[assignment]
    x, skip = torch.randn(1, 4, 2, 2), torch.randn(1, 3, 4, 4)
    doubled = nn.functional.interpolate(x, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(fusion(x, skip), (fusion.lateral(skip) + doubled) / 2)
    with torch.no_grad():
        fusion.shares.copy_(torch.tensor([-1.0, 3.0]))
    torch.testing.assert_close(fusion(x, skip), doubled)


def test_width_must_divide_by_the_heads() -> None:
    with pytest.raises(UsageError, match="width 60 does not divide by 8 heads"):
        UnetFormerDecoder((8, 16, 24, 32), width=60)


def test_the_blocks_outputs_are_at_strides_32_16_8() -> None:
    channels = (8, 16, 24, 32)
    features = [torch.randn(2, c, 64 // r, 96 // r) for c, r in zip(channels, (4, 8, 16, 32), strict=True)]
    decoder = UnetFormerDecoder(channels, width=16, num_heads=2).eval()
    embedding, inner = decoder.with_inner(features)
    assert torch.equal(embedding, decoder(features))
    assert [tuple(level.shape) for level in inner] == [(2, 16, 2, 3), (2, 16, 4, 6), (2, 16, 8, 12)]
    found = []
    for block in (decoder.block4, decoder.block3, decoder.block2):
        block.register_forward_hook(lambda _module, _inputs, out: found.append(out))
    decoder(features)
    assert all(torch.equal(*pair) for pair in zip(found, inner, strict=True))


def test_auxiliary_head_sums_the_maps_at_stride_8() -> None:
    head = AuxiliaryHead(4, 3).eval()
    inner = [torch.randn(2, 4, h, w) for h, w in ((2, 3), (4, 6), (8, 12))]
    logits = head(inner)
    assert logits.shape == (2, 3, 64, 96)
    summed = inner[2].clone()
    summed += nn.functional.interpolate(inner[1], scale_factor=2, mode="bilinear")
    summed += nn.functional.interpolate(inner[0], scale_factor=4, mode="bilinear")
    expected = nn.functional.interpolate(head.classify(head.mix(summed)), scale_factor=8, mode="bilinear")
    torch.testing.assert_close(logits, expected)
    assert [type(module) for module in (*head.mix, *head.classify)] == [
        nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Dropout, nn.Conv2d,
    ]  # fmt: skip
