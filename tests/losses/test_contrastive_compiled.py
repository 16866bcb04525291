from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor

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


VARIANTS: list[dict[str, object]] = [
    {"kind": "cl", "clip_mode": "rescale"},
    {"kind": "cl", "form": "prob", "clip_mode": "none", "average": "valid"},
    {"kind": "infonce", "clip_mode": "hard", "clip": 100.0},
    {"kind": "infonce", "variant": "author", "clip_mode": "rescale"},
]


def case(options: dict[str, object]) -> tuple[ContrastiveTransformerLoss, list[Tensor], Tensor, tuple[Tensor, ...]]:
    """A loss of which one stage picks cells and the other projects all of them, and its arguments."""
    features, labels = feature_maps(64, 64), blocks(64, 64)
    modules = heads()
    loss = ContrastiveTransformerLoss([modules[0], modules[2]], 3, stages=(0, 2), num_pairs=20, **options)  # type: ignore[arg-type]
    return loss, features, labels, loss.draw_keys(features, torch.Generator().manual_seed(1))


def compare(backend: str, options: dict[str, object]) -> None:
    loss, features, labels, keys = case(options)
    inputs = [features[0], features[2], *loss.parameters()]
    expected, stats = loss(features, labels, keys)
    gradients = torch.autograd.grad(expected, inputs)
    torch.compiler.reset()
    found, found_stats = torch.compile(loss, fullgraph=True, backend=backend)(features, labels, keys)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, inputs), gradients, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(tuple(found_stats), tuple(stats))
    assert (stats.valid_terms > 0).all()


@pytest.mark.parametrize(
    "options", [VARIANTS[0], VARIANTS[2], *(pytest.param(v, marks=pytest.mark.slow) for v in VARIANTS[1::2])], ids=str
)
def test_compiles_without_graph_breaks(options: dict[str, object]) -> None:
    compare("aot_eager", options)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_compiles_with_inductor(options: dict[str, object]) -> None:
    compare("inductor", options)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_no_host_synchronisation(
    options: dict[str, object], no_host_sync: Callable[[], AbstractContextManager[None]]
) -> None:
    loss, features, labels, keys = case(options)
    with no_host_sync():
        value, stats = loss(features, labels, keys)
        loss.record(stats)
        value.backward()
    assert value.isfinite()


@pytest.mark.parametrize("num_threads", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["cl", "infonce"])
def test_results_are_the_same_in_every_run_and_memory_format(kind: str, num_threads: int) -> None:
    """With two threads and stages wide enough that both work, adding up in the order of arrival would show."""
    features = [torch.randn(2, c, 64 // r, 64 // r).requires_grad_() for c, r in zip((32, 64), (1, 2), strict=True)]
    labels = blocks(64, 64, cell=8)
    loss = ContrastiveTransformerLoss(
        [ProjectionHead(32), ProjectionHead(64)],
        3,
        kind=kind,  # type: ignore[arg-type]
        stages=(0, 1),
        strides=(1, 2),
        num_pairs=700,
        clip_mode="none",
    )
    keys = loss.draw_keys(features, torch.Generator().manual_seed(1))
    inputs = [*features, *loss.parameters()]
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        first, _ = loss(features, labels, keys)
        gradients = torch.autograd.grad(first, inputs)
        for _ in range(3):
            again, _ = loss(features, labels, keys)
            assert torch.equal(again, first)
            assert all(torch.equal(a, b) for a, b in zip(torch.autograd.grad(again, inputs), gradients, strict=True))
    finally:
        torch.set_num_threads(before)
    channels_last = [f.detach().to(memory_format=torch.channels_last).requires_grad_() for f in features]
    other, _ = loss(channels_last, labels, keys)
    torch.testing.assert_close(other, first, rtol=1e-6, atol=0)
    torch.testing.assert_close(torch.autograd.grad(other, channels_last), gradients[:2], rtol=1e-4, atol=1e-8)
