"""Two processes train one network: a batch without any pair must neither hang nor starve a parameter of its gradient.

DistributedDataParallel waits for the gradient of each parameter, so each step must give one to all of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

import ctrs
from ctrs.classes import IGNORE_INDEX
from ctrs.config import TrainConfig
from ctrs.models.segmentation import create_model
from ctrs.training.step import TrainingStep, create_training_step

WORLD_SIZE = 2
SIDE_PX = 128


def make_step(loss: str) -> TrainingStep:
    torch.manual_seed(0)
    model = create_model("test_convnext", "fpn", num_classes=2, in_channels=3)
    return create_training_step(model, TrainConfig(loss=loss), num_classes=2)


def make_batch(rank: int) -> tuple[Tensor, Tensor]:
    """Return a batch of two halves, one for each class, for rank 0, and nothing but void for the others."""
    images = torch.rand(2, 3, SIDE_PX, SIDE_PX, generator=torch.Generator().manual_seed(rank))
    labels = torch.full((2, SIDE_PX, SIDE_PX), IGNORE_INDEX)
    if rank == 0:
        labels[:, :, : SIDE_PX // 2], labels[:, :, SIDE_PX // 2 :] = 0, 1
    return images, labels


def train_one_step(folder: Path, loss: str, rank: int) -> None:
    """Do what one of the processes does; what it saw goes to ``rank_RANK.pt``."""
    torch.distributed.init_process_group(
        "gloo", init_method=(folder / "store").as_uri(), rank=rank, world_size=WORLD_SIZE
    )
    step = make_step(loss)
    wrapped = DistributedDataParallel(step)
    optimizer = torch.optim.AdamW(wrapped.parameters(), lr=1e-3)
    images, labels = make_batch(rank)
    total, parts = wrapped(images, labels, step.draw_keys(images, seed=0, epoch=0, step=0))
    total.backward()
    gradients = {name: parameter.grad for name, parameter in step.named_parameters()}
    optimizer.step()
    saved = {"gradients": gradients, "weights": dict(step.named_parameters()), "total": total.detach(), "parts": parts}
    torch.save(saved, folder / f"rank_{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
@pytest.mark.parametrize("loss", ["cl", "infonce", "cl+infonce+supcon+cms+ccs+pne"])
def test_a_process_without_any_labels_trains_along(loss: str, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(ctrs.__file__).parents[1])}
    command = [sys.executable, __file__, str(tmp_path), loss]
    processes = [
        subprocess.Popen([*command, str(rank)], stderr=subprocess.PIPE, text=True, env=environment)
        for rank in range(WORLD_SIZE)
    ]
    try:
        errors = [process.communicate(timeout=240)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * WORLD_SIZE, "\n".join(errors)

    ranks = [torch.load(tmp_path / f"rank_{rank}.pt", weights_only=True) for rank in range(WORLD_SIZE)]
    for term in loss.split("+"):
        assert ranks[0]["parts"][term] > 0, term
        assert ranks[1]["parts"][term] == 0, term
    assert ranks[1]["total"] == 0
    start = dict(make_step(loss).named_parameters())
    for name, before in start.items():
        gradients = [saved["gradients"][name] for saved in ranks]
        assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients), name
        torch.testing.assert_close(*gradients, rtol=0, atol=0)
        assert torch.equal(ranks[0]["weights"][name], ranks[1]["weights"][name]), name
        assert not torch.equal(ranks[0]["weights"][name], before), name


if __name__ == "__main__":
    train_one_step(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
