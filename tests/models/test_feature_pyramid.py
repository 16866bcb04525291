from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ctrs.models import create_encoder
from ctrs.models.feature_pyramid import FeaturePyramid, PyramidEncoder


def test_stages_equal_the_papers_by_hand() -> None:
    pyramid = FeaturePyramid(8, width=6)
    x = torch.randn(2, 8, 4, 6)
    states = [stage.state_dict() for stage in pyramid.stages]

    def norm(y: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(y.movedim(1, -1), (y.shape[1],), weight, bias, 1e-6).movedim(-1, 1)

    def to_width(y: torch.Tensor, s: dict[str, torch.Tensor], first: int) -> torch.Tensor:
        y = F.conv2d(y, s[f"{first}.weight"])
        y = norm(y, s[f"{first + 1}.weight"], s[f"{first + 1}.bias"])
        return F.conv2d(y, s[f"{first + 2}.weight"], padding=1)

    a, b, c, d = states
    up = F.conv_transpose2d(x, a["0.weight"], a["0.bias"], stride=2)
    up = F.gelu(norm(up, a["1.weight"], a["1.bias"]))
    up = F.conv_transpose2d(up, a["3.weight"], a["3.bias"], stride=2)
    expected = [
        to_width(up, a, 4),
        to_width(F.conv_transpose2d(x, b["0.weight"], b["0.bias"], stride=2), b, 1),
        to_width(x, c, 0),
        to_width(F.max_pool2d(x, 2), d, 1),
    ]
    for found, wanted in zip(pyramid(x), expected, strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("backbone", ["vit_tiny_patch16_224", "vit_small_patch14_dinov2", "vit_small_patch16_dinov3"])
def test_plain_transformers_give_four_strides_at_any_size(backbone: str) -> None:
    encoder, channels = create_encoder(backbone, in_channels=4)
    assert channels == (256, 256, 256, 256)
    for height, width in ((32, 32), (64, 96)):
        maps = encoder(torch.randn(2, 4, height, width))
        assert [tuple(m.shape) for m in maps] == [(2, 256, height // r, width // r) for r in (4, 8, 16, 32)]
    sum(m.square().mean() for m in maps).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())


def test_the_pyramid_sees_the_transformers_last_norm() -> None:
    encoder, _ = create_encoder("vit_tiny_patch16_224")
    assert isinstance(encoder, PyramidEncoder)
    seen = []
    encoder.pyramid.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    encoder(torch.randn(1, 3, 64, 64))
    (tokens,) = seen
    assert tokens.shape == (1, 192, 4, 4)
    assert tokens.mean(1).abs().max() < 1e-4
    assert (tokens.var(1, unbiased=False) - 1).abs().max() < 1e-2


def test_place_is_kept() -> None:
    encoder, _ = create_encoder("vit_tiny_patch16_224")
    for module in encoder.modules():  # without attention each place sees only itself
        if hasattr(module, "qkv"):
            nn.init.zeros_(module.proj.weight)
    images = torch.randn(1, 3, 64, 96)
    other = images.clone()
    other[..., 48:, 80:] += 1
    for r, a, b in zip((4, 8, 16), encoder.eval()(images), encoder(other), strict=False):
        changed = (a - b).abs().sum(1)[0] > 1e-6
        rows, columns = changed.nonzero().unbind(1)
        assert rows.min() >= 48 // r - 1  # a 3 x 3 convolution reaches one cell further
        assert columns.min() >= 80 // r - 1
        assert changed[48 // r :, 80 // r :].all()
