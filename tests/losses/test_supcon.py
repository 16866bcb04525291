from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from ctrs.errors import ConfigError, UsageError
from ctrs.losses.supcon import SupervisedContrastLoss
from ctrs.models import ProjectionHead

CHANNELS = (4, 6, 8, 10)
STRIDES = (4, 8, 16, 32)


def create(**options: object) -> SupervisedContrastLoss:
    torch.manual_seed(0)
    heads = [ProjectionHead(c, out_channels=8) for c in CHANNELS]
    return SupervisedContrastLoss(heads, 3, **options)  # type: ignore[arg-type]


def feature_maps(height: int, width: int, batch: int = 2) -> list[Tensor]:
    g = torch.Generator().manual_seed(5)
    return [
        torch.randn(batch, c, -(-height // r), -(-width // r), generator=g).requires_grad_()
        for c, r in zip(CHANNELS, STRIDES, strict=True)
    ]


def blocks(height: int, width: int, num_classes: int = 3, cell: int = 32, batch: int = 2) -> Tensor:
    g = torch.Generator().manual_seed(3)
    coarse = torch.randint(0, num_classes, (batch, -(-height // cell), -(-width // cell)), generator=g)
    return coarse.repeat_interleave(cell, 1).repeat_interleave(cell, 2)[:, :height, :width]


@pytest.mark.parametrize("tau", [0.1, 1.0])
def test_module_equals_a_loop_over_stages(naive: SimpleNamespace, tau: float) -> None:
    labels = blocks(64, 96)
    labels[:, :6, :6] = 255
    features = [f.detach().double() for f in feature_maps(64, 96)]
    loss = create(num_patches=9, temperature=tau).double()
    keys = loss.draw_keys(features, torch.Generator().manual_seed(0))
    found, stats = loss(features, labels, keys)
    terms, counts = [], []
    for feature, head, key, r in zip(features, loss.heads, keys, STRIDES, strict=True):
        rows = head(feature.permute(0, 2, 3, 1).reshape(-1, feature.shape[1])).tolist()
        windows = labels.unfold(1, r, r).unfold(2, r, r).reshape(len(rows), -1).tolist()
        order = key.argsort(descending=True).tolist()
        patches = []
        for c in range(3):
            patches += [(rows[cell], c) for cell in order if set(windows[cell]) == {c}][:9]
        terms.append(naive.supervised(patches, patches, tau, same=True, denominator="all"))
        counts.append([sum(c == k for _, c in patches) for k in range(3)])
    assert found.item() == pytest.approx(sum(terms) / 4, abs=1e-6)
    assert stats.anchors.tolist() == [sum(n for n in row if n > 1) for row in counts]
    assert stats.valid_terms.tolist() == [sum(n > 0 for n in row) for row in counts]
    assert stats.raw == found
    assert counts[0] == [9, 9, 9]


Maker = Callable[[], tuple[list[Tensor], Tensor]]


def only_void() -> tuple[list[Tensor], Tensor]:
    return feature_maps(64, 64), torch.full((2, 64, 64), 255)


def checkerboard() -> tuple[list[Tensor], Tensor]:
    row, col = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    return feature_maps(64, 64), ((row + col) % 3).expand(2, 64, 64)


def one_patch() -> tuple[list[Tensor], Tensor]:
    labels = torch.full((2, 64, 64), 255)
    labels[0, :4, :4] = 1
    labels[0, 8:12, :4] = 2
    return feature_maps(64, 64), labels


def one_class() -> tuple[list[Tensor], Tensor]:
    return feature_maps(64, 64), torch.ones(2, 64, 64, dtype=torch.int64)


def class_absent() -> tuple[list[Tensor], Tensor]:
    return feature_maps(64, 96), blocks(64, 96, num_classes=2)


def zero_features() -> tuple[list[Tensor], Tensor]:
    return [torch.zeros_like(f).requires_grad_() for f in feature_maps(64, 64)], blocks(64, 64)


def tile_of_500_px() -> tuple[list[Tensor], Tensor]:
    return feature_maps(500, 500, batch=1), blocks(500, 500, batch=1)


@pytest.mark.parametrize(
    ("make", "zero"),
    [
        (only_void, True),
        (checkerboard, True),
        (one_patch, True),
        (one_class, False),
        (class_absent, False),
        (zero_features, False),
        (tile_of_500_px, False),
    ],
)
def test_degenerate_batches_are_finite_and_reach_every_head(make: Maker, zero: bool) -> None:
    features, labels = make()
    loss = create()
    value, stats = loss(features, labels)
    assert value.isfinite()
    assert value.requires_grad
    assert (value == 0) == zero
    assert (stats.anchors.sum() == 0) == zero
    value.backward()
    gradients = [tensor.grad for tensor in [*features, *loss.parameters()]]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    if zero:
        assert all((gradient == 0).all() for gradient in gradients if gradient is not None)


def test_equal_vectors_of_one_class_have_the_loss_of_khosla() -> None:
    features = [torch.ones_like(f) for f in feature_maps(64, 64)]
    value, stats = create(num_patches=8)(features, one_class()[1])
    assert stats.anchors.tolist() == [8, 8, 8, 8]
    assert value.item() == pytest.approx(math.log(7), abs=1e-5)


def test_nan_outside_the_samples_cannot_enter() -> None:
    features, labels = feature_maps(64, 64), blocks(64, 64)
    labels[:, :8, :8] = 255
    for feature, r in zip(features, STRIDES, strict=True):
        with torch.no_grad():
            feature[:, :, : max(1, 8 // r), : max(1, 8 // r)] = float("nan")
    loss = create()
    value, _ = loss(features, labels)
    value.backward()
    assert value.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in [*features, *loss.parameters()])


def test_no_host_synchronisation(no_host_sync: Callable[[], AbstractContextManager[None]]) -> None:
    features, labels = feature_maps(64, 64), blocks(64, 64)
    loss = create()
    keys = loss.draw_keys(features)
    with no_host_sync():
        value, _ = loss(features, labels, keys)
        value.backward()
    assert value.isfinite()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_autocast(dtype: torch.dtype) -> None:
    features, labels = feature_maps(64, 64), blocks(64, 64)
    loss = create(temperature=0.5)
    keys = loss.draw_keys(features, torch.Generator().manual_seed(1))
    expected, _ = loss(features, labels, keys)
    half = [f.detach().to(dtype).requires_grad_() for f in features]
    with torch.autocast("cpu", dtype):
        found, _ = loss(half, labels, keys)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)
    found.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in [*half, *loss.parameters()])


def test_gradient_descent_lowers_the_loss() -> None:
    features, labels = [f.detach() for f in feature_maps(64, 64)], blocks(64, 64)
    loss = create()
    keys = loss.draw_keys(features, torch.Generator().manual_seed(1))
    optimizer = torch.optim.Adam(loss.parameters(), 1e-2)
    seen = []
    for _ in range(15):
        value, _ = loss(features, labels, keys)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        seen.append(value.item())
    assert seen[-1] < seen[0] - 0.1


def test_stages_and_the_record() -> None:
    heads = [ProjectionHead(CHANNELS[2], out_channels=8), ProjectionHead(CHANNELS[0], out_channels=8)]
    loss = SupervisedContrastLoss(heads, 3, stages=(2, 0), num_patches=20)
    features, labels = feature_maps(64, 64), blocks(64, 64)
    assert [key.shape for key in loss.draw_keys(features)] == [(32,), (512,)]
    value, stats = loss(features, labels)
    record = loss.record(stats)
    assert set(record) == {"raw", "anchors_16", "valid_terms_16", "anchors_4", "valid_terms_4"}
    assert record["raw"] == value
    assert record["anchors_16"] < record["anchors_4"] == 60
    assert all(entry.ndim == 0 and not entry.requires_grad for entry in record.values())


def test_more_classes_than_a_word_holds() -> None:
    features, labels = feature_maps(64, 64), blocks(64, 64)
    few = create(num_patches=20)
    keys = few.draw_keys(features)
    expected, stats = few(features, labels, keys)
    many = SupervisedContrastLoss(list(few.heads), 41, num_patches=20)
    found, many_stats = many(features, torch.where(labels == 2, 40, labels), keys)
    torch.testing.assert_close(found, expected)
    assert many_stats.anchors.tolist() == stats.anchors.tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_patches": 0}, "num_patches .* at least 1, found 0"),
        ({"temperature": 0.0}, "temperature .* above 0, found 0"),
        ({"stages": (0, 0, 1, 2)}, "distinct numbers from 0 to 3"),
        ({"stages": (0, 1)}, "one projection head for each of 2 stages, found 4"),
    ],
)
def test_options_out_of_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create(**options)


def test_wrong_number_of_maps() -> None:
    with pytest.raises(UsageError, match="expects 4 feature maps, found 3"):
        create()(feature_maps(64, 64)[:3], blocks(64, 64))


def compiled_equals_eager(backend: str) -> None:
    features, labels = feature_maps(64, 64), blocks(64, 64)
    loss = create()
    keys = loss.draw_keys(features, torch.Generator().manual_seed(1))
    torch._dynamo.reset()
    expected, _ = loss(features, labels, keys)
    found, _ = torch.compile(loss, fullgraph=True, backend=backend)(features, labels, keys)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, features), torch.autograd.grad(expected, features), rtol=1e-3, atol=1e-6
    )


@pytest.mark.slow
def test_compiles_without_graph_breaks() -> None:
    compiled_equals_eager("aot_eager")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*_prims_common:FutureWarning")  # torch's own, inside inductor
def test_compiles_with_inductor() -> None:
    compiled_equals_eager("inductor")
