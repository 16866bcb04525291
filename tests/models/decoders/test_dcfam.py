from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ctrs.errors import UsageError
from ctrs.models import create_decoder
from ctrs.models.decoders.dcfam import ChannelAttention, DcfamDecoder, SpatialAttention

SMALL = (8, 16, 24, 32)


def stages(height: int, width: int, channels: tuple[int, ...] = SMALL, batch: int = 2) -> list[Tensor]:
    g = torch.Generator().manual_seed(0)
    return [
        torch.randn(batch, c, height // r, width // r, generator=g)
        for c, r in zip(channels, (4, 8, 16, 32), strict=True)
    ]


@pytest.mark.parametrize(
    ("channels", "millions"),
    [((64, 128, 320, 512), 9.70), ((96, 192, 384, 768), 18.1), ((128, 256, 512, 1024), 32.2)],
)
def test_parameter_counts(channels: tuple[int, ...], millions: float) -> None:
    parts = create_decoder("dcfam", channels, num_classes=6)
    count = sum(p.numel() for part in parts for p in part.parameters())
    assert round(count / 1e6, 2 if millions < 10 else 1) == millions


@pytest.mark.parametrize("size", [(32, 32), (64, 128), (160, 96)])
def test_output_is_at_stride_4_for_any_shape(size: tuple[int, int]) -> None:
    embedding = DcfamDecoder(SMALL)(stages(*size))
    assert embedding.shape == (2, 8, size[0] // 4, size[1] // 4)


def test_zero_features_stay_finite_with_gradients() -> None:
    decoder = DcfamDecoder(SMALL)
    nn.init.ones_(decoder.spatial.gamma)
    nn.init.ones_(decoder.channel.gamma)
    features = [torch.zeros_like(stage).requires_grad_() for stage in stages(64, 64)]
    embedding = decoder(features)
    assert embedding.isfinite().all()
    embedding.sum().backward()
    assert all(stage.grad is not None and stage.grad.isfinite().all() for stage in features)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in decoder.parameters())


def test_sparse_channel_attention_stays_finite() -> None:
    attention = ChannelAttention()
    nn.init.ones_(attention.gamma)
    x = torch.randn(2, 6, 5, 7).relu()
    x[:, :, 2] = 0
    assert attention(x).isfinite().all()


def test_attentions_start_as_the_identity() -> None:
    x = torch.randn(2, 16, 5, 7)
    assert torch.equal(SpatialAttention(16)(x), x)
    assert torch.equal(ChannelAttention()(x), x)


def naive_attention(query: Tensor, key: Tensor, value: Tensor, constant: float) -> Tensor:
    """Loop over queries: (sum_n (1 + q . k_n) v_n) / (constant + sum_n q . k_n), rows are positions.

    The denominator is bounded below by a tenth of the constant, which a query opposite to most keys reaches.
    """
    rows = []
    for q in query:
        weights = key @ q
        denominator = (constant + weights.sum()).clamp_min(0.1 * constant)
        rows.append(((1 + weights)[:, None] * value).sum(0) / denominator)
    return torch.stack(rows)


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=0, keepdim=True)


def test_spatial_attention_equals_a_loop_over_positions() -> None:
    attention = SpatialAttention(16)
    nn.init.constant_(attention.gamma, 0.5)
    x = torch.rand(1, 16, 3, 5)
    q, k, v = (conv(x)[0].flatten(1) for conv in (attention.query, attention.key, attention.value))
    expected = x[0].flatten(1) + 0.5 * naive_attention(unit(q).T, unit(k).T, v.T, 15).T
    torch.testing.assert_close(attention(x)[0].flatten(1), expected)


def test_channel_attention_equals_a_loop_over_channels() -> None:
    attention = ChannelAttention()
    nn.init.constant_(attention.gamma, 0.5)
    x = torch.rand(1, 6, 3, 5)
    flat = x[0].flatten(1)
    expected = flat + 0.5 * naive_attention(unit(flat), unit(flat), flat, 15)
    torch.testing.assert_close(attention(x)[0].flatten(1), expected)


def test_half_precision_does_not_overflow() -> None:
    x = torch.full((1, 16, 128, 128), 100.0)
    for attention in (SpatialAttention(16), ChannelAttention()):
        nn.init.ones_(attention.gamma)
        with torch.autocast("cpu", torch.float16):
            assert attention(x.half()).isfinite().all()


def test_every_convolution_is_initialised() -> None:
    decoder = DcfamDecoder((64, 128, 320, 512))
    for module in decoder.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            assert module.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.2)
            assert module.bias is None or (module.bias == 0).all()


def test_third_stage_must_divide_by_8() -> None:
    with pytest.raises(UsageError, match="divide by 8, found 20; choose another"):
        DcfamDecoder((8, 16, 20, 32))
