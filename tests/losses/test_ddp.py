"""Two processes train with a contrast term of which one has no valid pair: it must neither hang nor starve a head.

DistributedDataParallel waits for the gradient of each parameter, so each term must give one to all of them, always.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import ctrs
from ctrs.losses.contrastive import ContrastiveTransformerLoss
from ctrs.losses.multiscale import MultiscaleContrastLoss
from ctrs.losses.pne import PositiveNegativeEqualLoss
from ctrs.losses.supcon import SupervisedContrastLoss
from ctrs.models.projection import NormProjectionHead, ProjectionHead

WORLD_SIZE = 2
SIDE_PX = 64
STRIDES = (4, 8, 16, 32)
CHANNELS = (4, 6, 8, 10)
TERMS = ("cl", "infonce", "supcon", "cms+ccs", "cms+ccs/ln", "pne", "pne/ln")


def make_loss(term: str) -> nn.Module:
    """Build the loss that a term names, with heads of batch norm or, with ``/ln``, of layer norm."""
    name, _, norm = term.partition("/")
    if name in ("pne", "cms+ccs"):
        order = "norm-relu" if name == "pne" else "relu-norm"
        heads = [
            NormProjectionHead(channels, [8], 8, norm="ln" if norm else "bn", order=order) for channels in CHANNELS
        ]
        if name == "pne":
            return PositiveNegativeEqualLoss(heads[0], 2)
        return MultiscaleContrastLoss(heads, 2, min_views=1)
    rows = [ProjectionHead(channels, out_channels=8) for channels in CHANNELS]
    if name == "supcon":
        return SupervisedContrastLoss(rows, 2)
    options = {"min_positives": 1, "min_negatives": 1, "min_positive_pairs": 1}  # for a term at stride 32 as well
    return ContrastiveTransformerLoss(rows, 2, kind=name, clip_mode="rescale", **options)  # type: ignore[arg-type]


class Network(nn.Module):
    """A stem for each stage and a loss on them; the images' first two bands are the logits."""

    def __init__(self, term: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.on_embedding = term.startswith("pne")
        stages = range(1 if self.on_embedding else len(STRIDES))
        self.stems = nn.ModuleList(nn.Conv2d(3, CHANNELS[stage], 1) for stage in stages)
        self.loss = make_loss(term)

    def features(self, images: Tensor) -> list[Tensor]:
        return [
            stem(nn.functional.avg_pool2d(images, stride)) for stem, stride in zip(self.stems, STRIDES, strict=False)
        ]

    def draw_keys(self, images: Tensor) -> tuple[Tensor, ...]:
        features = self.features(images)
        keys: tuple[Tensor, ...] = self.loss.draw_keys(  # type: ignore[operator]
            features[0] if self.on_embedding else features, torch.Generator().manual_seed(0)
        )
        return keys

    def forward(self, images: Tensor, labels: Tensor, keys: Sequence[Tensor]) -> Tensor:
        features = self.features(images)
        inputs = (features[0], images[:, :2]) if self.on_embedding else (features,)
        value: Tensor | tuple[Tensor, ...] = self.loss(*inputs, labels, keys)[0]
        return value if isinstance(value, Tensor) else torch.stack(value).sum()


def make_batch(rank: int) -> tuple[Tensor, Tensor]:
    """Return images and labels of two halves, one for each class, for rank 0, and nothing but void for the others."""
    images = torch.rand(2, 3, SIDE_PX, SIDE_PX, generator=torch.Generator().manual_seed(rank))
    labels = torch.full((2, SIDE_PX, SIDE_PX), 255)
    if rank == 0:
        labels[:, :, : SIDE_PX // 2], labels[:, :, SIDE_PX // 2 :] = 0, 1
    return images, labels


def train_one_step(term: str, rank: int) -> dict[str, Any]:
    """Do what one of the processes does and return what it saw."""
    images, labels = make_batch(rank)
    alone = Network(term)
    keys = alone.draw_keys(images)
    alone(images, labels, keys).backward()
    network = Network(term)
    wrapped = DistributedDataParallel(network)
    optimizer = torch.optim.AdamW(wrapped.parameters(), lr=1e-3)
    value = wrapped(images, labels, keys)
    value.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in network.named_parameters()}
    optimizer.step()
    return {
        "value": value.detach(),
        "gradients": gradients,
        "alone": {name: parameter.grad for name, parameter in alone.named_parameters()},
        "weights": {name: parameter.detach() for name, parameter in network.named_parameters()},
    }


def run_process(folder: Path, rank: int) -> None:
    """Train a step with each term; what the process saw goes to ``rank_RANK.pt``."""
    torch.distributed.init_process_group(
        "gloo", init_method=(folder / "store").as_uri(), rank=rank, world_size=WORLD_SIZE
    )
    torch.save({term: train_one_step(term, rank) for term in TERMS}, folder / f"rank_{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Any]]]:
    """Run both processes; what each of them saw, by term."""
    folder = tmp_path_factory.mktemp("ddp")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(ctrs.__file__).parents[1])}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(folder), str(rank)], stderr=subprocess.PIPE, text=True, env=environment
        )
        for rank in range(WORLD_SIZE)
    ]
    try:
        errors = [process.communicate(timeout=240)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * WORLD_SIZE, "\n".join(errors)
    return [torch.load(folder / f"rank_{rank}.pt", weights_only=True) for rank in range(WORLD_SIZE)]


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
@pytest.mark.parametrize("term", TERMS)
def test_a_process_without_a_valid_pair_trains_along(term: str, ranks: list[dict[str, dict[str, Any]]]) -> None:
    first, second = (rank[term] for rank in ranks)
    assert first["value"] > 0
    assert second["value"] == 0
    names = dict(Network(term).named_parameters())
    assert any(name.startswith("loss.") for name in names)
    for name, before in names.items():
        gradient = first["gradients"][name]
        assert gradient.isfinite().all(), name
        assert torch.equal(gradient, second["gradients"][name]), name
        assert (second["alone"][name] == 0).all(), name
        torch.testing.assert_close(gradient, first["alone"][name] / WORLD_SIZE, rtol=1e-5, atol=1e-9)
        assert torch.equal(first["weights"][name], second["weights"][name]), name
        assert not torch.equal(first["weights"][name], before), name
    assert all((first["gradients"][name] != 0).any() for name in names if name.endswith("weight"))


if __name__ == "__main__":
    run_process(Path(sys.argv[1]), int(sys.argv[2]))
