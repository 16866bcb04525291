"""How long an epoch will take, from steps that leave no trace in the run."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from ctrs.data.dataset import Batch, TileDataset
from ctrs.data.sampling import OrderedBatches, TrainingBatches
from ctrs.training.random_state import own_random_state

_ENOUGH_SECONDS = 2.0  # a first step that takes longer is not dominated by one-off costs and stands for the rest


def expected_epoch_seconds(
    module: nn.Module,
    *,
    train_step: Callable[[Batch], Tensor],
    val_step: Callable[[Batch], object],
    train: tuple[TileDataset, TrainingBatches],
    val: tuple[TileDataset, OrderedBatches] | None,
    workers: int,
) -> float:
    """Time a forward and backward pass on the first batch, and a validation batch; generators and state stay put.

    Args:
        module: What the steps change: its buffers are put back, its gradients dropped.
        train_step: Forward and backward pass of a batch.
        val_step: Validation of a batch.
        train: Training tiles and their batches.
        val: Validation tiles and their batches, None for none.
        workers: Loader processes.

    Returns:
        Seconds for an epoch of training and validation.
    """
    buffers = {name: value.clone() for name, value in module.named_buffers()}
    with own_random_state():
        seconds = len(train[1]) * _seconds_per_batch(train_step, *train, workers=workers)
        if val is not None:
            seconds += len(val[1]) * _seconds_per_batch(val_step, *val, workers=workers)
    with torch.no_grad():
        for name, value in module.named_buffers():
            value.copy_(buffers[name])
    module.zero_grad(set_to_none=True)
    return seconds


def _seconds_per_batch(
    step: Callable[[Batch], object], dataset: TileDataset, batches: TrainingBatches | OrderedBatches, *, workers: int
) -> float:
    began = time.perf_counter()
    batch: Batch = default_collate([dataset[key] for key in next(iter(batches))])
    loading = time.perf_counter() - began
    computing = _timed(step, batch)
    if computing < _ENOUGH_SECONDS:
        computing = _timed(step, batch)
    return computing + loading if workers == 0 else max(computing, loading / workers)


def _timed(step: Callable[[Batch], object], batch: Batch) -> float:
    began = time.perf_counter()
    step(batch)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began
