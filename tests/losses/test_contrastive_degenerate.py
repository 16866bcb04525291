from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from ctrs.losses.contrastive import ContrastiveTransformerLoss
from ctrs.models import ProjectionHead

CHANNELS = (4, 6, 8, 10)
STRIDES = (4, 8, 16, 32)


def heads(width: int = 8) -> list[ProjectionHead]:
    torch.manual_seed(0)
    return [ProjectionHead(c, out_channels=width) for c in CHANNELS]


def feature_maps(height: int, width: int, batch: int = 2, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    g = torch.Generator().manual_seed(5)
    return [
        torch.randn(batch, c, -(-height // r), -(-width // r), generator=g).to(dtype).requires_grad_()
        for c, r in zip(CHANNELS, STRIDES, strict=True)
    ]


def blocks(height: int, width: int, num_classes: int = 3, cell: int = 32, batch: int = 2) -> Tensor:
    g = torch.Generator().manual_seed(3)
    coarse = torch.randint(0, num_classes, (batch, -(-height // cell), -(-width // cell)), generator=g)
    return coarse.repeat_interleave(cell, 1).repeat_interleave(cell, 2)[:, :height, :width]


Maker = Callable[[], tuple[list[Tensor], Tensor]]


def only_void() -> tuple[list[Tensor], Tensor]:
    return feature_maps(64, 64), torch.full((2, 64, 64), 255)


def one_class() -> tuple[list[Tensor], Tensor]:
    return feature_maps(64, 64), torch.ones(2, 64, 64, dtype=torch.int64)


def one_class_and_void() -> tuple[list[Tensor], Tensor]:
    labels = torch.ones(2, 64, 64, dtype=torch.int64)
    labels[:, :, 20:] = 255
    return feature_maps(64, 64), labels


def class_absent() -> tuple[list[Tensor], Tensor]:
    return feature_maps(64, 96), blocks(64, 96, num_classes=2)


def small_cars() -> tuple[list[Tensor], Tensor]:
    labels = blocks(128, 128, num_classes=2, cell=64)
    labels[:, 8:16, 4:24] = 2
    labels[:, 48:56, 4:24] = 2
    return feature_maps(128, 128), labels


def checkerboard() -> tuple[list[Tensor], Tensor]:
    row, col = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    return feature_maps(64, 64), ((row + col) % 3).expand(2, 64, 64)


def only_cars_smaller_than_patches() -> tuple[list[Tensor], Tensor]:
    labels = torch.full((2, 64, 64), 255)
    labels[:, 3:6, 1:60] = 2
    labels[:, 20:60:5, 2::6] = 1
    return feature_maps(64, 64), labels


def one_patch() -> tuple[list[Tensor], Tensor]:
    labels = torch.full((2, 64, 64), 255)
    labels[0, 8:12, 4:8] = 1
    return feature_maps(64, 64), labels


def zero_features() -> tuple[list[Tensor], Tensor]:
    return [torch.zeros_like(f).requires_grad_() for f in feature_maps(64, 64)], blocks(64, 64)


def tile_of_500_px() -> tuple[list[Tensor], Tensor]:
    return feature_maps(500, 500, batch=1), blocks(500, 500, batch=1)


def tile_of_500_px_padded() -> tuple[list[Tensor], Tensor]:
    return feature_maps(512, 512, batch=1), blocks(500, 500, batch=1)


CASES: list[tuple[Maker, bool]] = [
    (only_void, True),
    (one_class, True),
    (one_class_and_void, True),
    (checkerboard, True),
    (only_cars_smaller_than_patches, True),
    (one_patch, True),
    (class_absent, False),
    (small_cars, False),
    (zero_features, False),
    (tile_of_500_px, False),
    (tile_of_500_px_padded, False),
]


@pytest.mark.parametrize("kind", ["cl", "infonce"])
@pytest.mark.parametrize("clip_mode", ["hard", "rescale", "none"])
@pytest.mark.parametrize(("make", "zero"), CASES, ids=[make.__name__ for make, _ in CASES])
def test_degenerate_batches_are_finite_and_reach_every_head(make: Maker, zero: bool, kind: str, clip_mode: str) -> None:
    features, labels = make()
    loss = ContrastiveTransformerLoss(heads(), 3, kind=kind, clip_mode=clip_mode)  # type: ignore[arg-type]
    value, stats = loss(features, labels)
    assert value.isfinite()
    assert (value == 0) == zero
    assert value.requires_grad
    value.backward()
    gradients = [tensor.grad for tensor in [*features, *loss.parameters()]]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    if zero:
        assert all((gradient == 0).all() for gradient in gradients if gradient is not None)
        assert stats.valid_terms.sum() == 0


@pytest.mark.parametrize("kind", ["cl", "infonce"])
def test_one_cell_stages(kind: str) -> None:
    loss = ContrastiveTransformerLoss(
        heads(),
        2,
        kind=kind,
        min_positives=1,
        min_negatives=1,
        min_positive_pairs=1,  # type: ignore[arg-type]
    )
    value, _ = loss(feature_maps(32, 32, batch=1), blocks(32, 32, 2, batch=1))
    assert value == 0
    value.backward()
    assert all(p.grad is not None for p in loss.parameters())


def test_a_single_patch_has_a_negative_term_only(naive: SimpleNamespace) -> None:
    labels = torch.zeros(1, 32, 32, dtype=torch.int64)
    labels[:, :4, :4] = 1
    features = feature_maps(32, 32, batch=1)
    options = {"stages": (0,), "clip_mode": "none", "min_negatives": 1, "min_positive_pairs": 1}
    lone = ContrastiveTransformerLoss(heads()[:1], 2, min_positives=1, **options)  # type: ignore[arg-type]
    keys = lone.draw_keys(features, torch.Generator().manual_seed(0))
    many = ContrastiveTransformerLoss(heads()[:1], 2, min_positives=2, **options)  # type: ignore[arg-type]
    both, only = lone(features, labels, keys), many(features, labels, keys)
    assert both[1].valid_terms.tolist() == [2]
    assert only[1].valid_terms.tolist() == [1]
    rows = lone.heads[0](features[0].permute(0, 2, 3, 1).reshape(64, -1)).tolist()
    partner = max(range(1, 64), key=lambda cell: float(keys[0][cell]))
    expected = naive.entropy(naive.cosine(rows[0], rows[partner]), 0.05, "logit") / 2
    assert (both[0] - only[0]).item() == pytest.approx(expected, abs=1e-5)


def test_void_windows_are_negatives_only_when_allowed() -> None:
    features, labels = one_class_and_void()
    value, stats = ContrastiveTransformerLoss(heads(), 3, void="allow")(features, labels)
    assert value > 0
    assert stats.valid_terms[0] == 1


@pytest.mark.parametrize("kind", ["cl", "infonce"])
@pytest.mark.parametrize("num_pairs", [6, 2000])  # stage 0 picks cells, or projects all of them
def test_nan_outside_the_samples_cannot_enter(kind: str, num_pairs: int) -> None:
    features, labels = feature_maps(64, 64), blocks(64, 64)
    labels[:, :8, :8] = 255
    for feature, r in zip(features, STRIDES, strict=True):
        with torch.no_grad():
            feature[:, :, : max(1, 8 // r), : max(1, 8 // r)] = float("nan")
    loss = ContrastiveTransformerLoss(
        heads(),
        3,
        kind=kind,  # type: ignore[arg-type]
        num_pairs=num_pairs,
        min_positive_pairs=3,
        clip_mode="rescale",
    )
    value, _ = loss(features, labels)
    value.backward()
    assert value.isfinite()
    assert value > 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in [*features, *loss.parameters()])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["cl", "infonce"])
def test_half_precision_autocast(dtype: torch.dtype, kind: str) -> None:
    features, labels = feature_maps(64, 64), blocks(64, 64)
    loss = ContrastiveTransformerLoss(heads(), 3, kind=kind, clip_mode="none")  # type: ignore[arg-type]
    keys = loss.draw_keys(features, torch.Generator().manual_seed(1))
    expected, _ = loss(features, labels, keys)
    half = [f.detach().to(dtype).requires_grad_() for f in features]
    with torch.autocast("cpu", dtype):
        found, _ = loss(half, labels, keys)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)
    found.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in [*half, *loss.parameters()])


def test_huge_half_precision_rows_do_not_overflow() -> None:
    features, labels = feature_maps(64, 64, dtype=torch.float16), blocks(64, 64)
    loss = ContrastiveTransformerLoss([nn.Identity() for _ in CHANNELS], 3, clip_mode="none")
    value, _ = loss([f * 1000 for f in features], labels)
    value.backward()
    assert value.isfinite()
    assert all(f.grad is not None and f.grad.isfinite().all() for f in features)


@pytest.mark.parametrize("kind", ["cl", "infonce"])
def test_vectors_of_length_zero_have_a_bounded_gradient(kind: str) -> None:
    features, labels = zero_features()
    loss = ContrastiveTransformerLoss([nn.Identity() for _ in CHANNELS], 3, kind=kind, clip_mode="none")  # type: ignore[arg-type]
    with torch.no_grad():
        features[0][:, 0, ::2] = 1  # some of them have a direction
    value, _ = loss(features, labels)
    value.backward()
    assert value.isfinite()
    gradients = [f.grad for f in features if f.grad is not None]
    assert len(gradients) == 4
    assert 0 < gradients[0].abs().max() < 1e6


@pytest.mark.parametrize("outside", [-1, 3, 200, 2**32])
def test_labels_outside_the_classes_are_void(outside: int) -> None:
    features, labels = feature_maps(64, 64), blocks(64, 64)
    labels[:, 10:30, 20:34] = 255
    loss = ContrastiveTransformerLoss(heads(), 3)
    keys = loss.draw_keys(features, torch.Generator().manual_seed(1))
    expected, _ = loss(features, labels, keys)
    found, _ = loss(features, torch.where(labels == 255, outside, labels), keys)
    assert torch.equal(found, expected)


def test_vectors_of_length_zero_have_cosine_zero() -> None:
    features, labels = zero_features()
    loss = ContrastiveTransformerLoss(
        [nn.Identity() for _ in CHANNELS], 3, min_positives=2, min_positive_pairs=1, clip_mode="none", average="valid"
    )
    value, stats = loss(features, labels)
    assert stats.valid_terms.sum() > 0
    assert value.item() == pytest.approx(2 * math.log(2), abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["cl", "infonce"])
def test_nothing_after_the_projection_is_half_precision(dtype: torch.dtype, kind: str) -> None:
    projected, labels = [f.detach() for f in feature_maps(64, 64, dtype=dtype)], blocks(64, 64)
    loss = ContrastiveTransformerLoss([nn.Identity() for _ in CHANNELS], 3, kind=kind, clip_mode="none")  # type: ignore[arg-type]
    keys = loss.draw_keys(projected, torch.Generator().manual_seed(1))
    with torch.autocast("cpu", dtype):
        found, _ = loss(projected, labels, keys)
    expected, _ = loss([maps.double() for maps in projected], labels, keys)
    assert (found.dtype, expected.dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)
