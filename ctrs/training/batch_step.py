"""One optimizer step: the parts of its batch, their gradients, and the step itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from ctrs.config import TrainConfig
from ctrs.data.dataset import Batch
from ctrs.training.workbench import Workbench


def grouped(batches: Iterable[Batch], count: int) -> Iterator[list[Batch]]:
    """Yield the parts of each step's batch together."""
    parts: list[Batch] = []
    for batch in batches:
        parts.append(batch)
        if len(parts) == count:
            yield parts
            parts = []


def accumulate(
    work: Workbench, config: TrainConfig, parts_of_batch: Sequence[Batch], *, epoch: int, number: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute objective and gradients of this process's share of a batch, part by part; return the means."""
    totals, parts = [], []
    for part, batch in enumerate(parts_of_batch):
        is_last = part + 1 == len(parts_of_batch)
        with work.fabric.no_backward_sync(work.wrapped, enabled=not is_last):
            total, named = forward_backward(work, config, batch, epoch=epoch, number=number, part=part)
        totals.append(total)
        parts.append(named)
    if len(totals) == 1:
        return totals[0], parts[0]
    return torch.stack(totals).mean(), {
        name: torch.stack([named[name].float() for named in parts]).mean() for name in parts[0]
    }


def forward_backward(
    work: Workbench, config: TrainConfig, batch: Batch, *, epoch: int, number: int, part: int = 0
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the objective of a part of a batch, and gradients that add up to those of the batch's mean."""
    images, labels = work.images(batch)
    place = number + ((work.fabric.global_rank * config.accumulate + part) << 32)  # other keys in each part
    keys = work.step.draw_keys(images, seed=config.seed, epoch=epoch, step=place)
    waits = epoch * work.train_batches.num_steps + number < config.contrast_warmup_steps
    total, parts = work.wrapped(images, labels, keys, contrast_scale=0.0 if waits else 1.0)
    work.fabric.backward(total / config.accumulate if config.accumulate > 1 else total)
    return total.detach(), parts


def optimize(work: Workbench, config: TrainConfig) -> Tensor:
    """Clip the gradient, take the step, and return the gradient's norm before clipping."""
    scaler, optimizer = work.scaler, work.optimizer
    if scaler is not None:
        scaler.unscale_(optimizer)
    parameters = [value for group in optimizer.param_groups for value in group["params"]]
    grad_norm = torch.nn.utils.clip_grad_norm_(parameters, config.gradient_clip)
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)  # not where a gradient is not finite
        scaler.update()
    optimizer.zero_grad(set_to_none=True)
    if work.average is not None:
        work.average.update(work.step)
    return grad_norm
