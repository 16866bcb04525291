"""What a run is going to do and to take, found before it begins by steps that leave no trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ctrs.config import TrainConfig, describe_loss
from ctrs.data.dataset import Batch
from ctrs.inference.device import resolve_precision
from ctrs.tiles.manifest import Manifest, Tile
from ctrs.training.expected_time import expected_epoch_seconds
from ctrs.training.footprint import (
    DiskNeed,
    MemoryMeter,
    check_disk,
    count_parameters,
    disk_need,
    unmade_optimizer_bytes,
)
from ctrs.training.records import TrainPlan
from ctrs.training.resume import RunState
from ctrs.training.run_folder import RunFolder
from ctrs.training.run_readme import files_of
from ctrs.training.training_tiles import class_counts
from ctrs.training.validation import validate
from ctrs.training.workbench import Workbench, known

_PRECISION_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


def plan_training(
    run: RunFolder,
    state: RunState,
    work: Workbench,
    config: TrainConfig,
    manifest: Manifest,
    *,
    train_step: Callable[[Batch], Tensor],
    cached: bool,
) -> TrainPlan:
    """Measure a step and say what is going to be done.

    Args:
        run: The run's folder, which stands.
        state: Where the run stands.
        work: What it works with.
        config: From ``effective_config``.
        manifest: The prepared data.
        train_step: Forward and backward pass of a part of a batch, in this process alone.
        cached: Decoded tiles are held in memory.

    Raises:
        OutputError: The disk clearly lacks the room for what will be written.
    """
    device, world_size = work.fabric.device, work.fabric.world_size
    need = disk_need_of(work)
    free = check_disk(run, need)

    def val_step(batch: Batch) -> object:
        return validate(
            work.step.model, [batch], manifest.classes.num_classes, device=device, autocast=work.fabric.autocast()
        )

    meter = MemoryMeter(device)
    meter.begin()
    work.step.train()
    seconds = expected_epoch_seconds(
        work.step,
        train_step=train_step,
        val_step=val_step,
        train=(work.train_set, work.train_batches),
        val=(work.val_set, work.val_batches) if work.val_set and work.val_batches else None,
        workers=config.workers or 0,
    )
    peak = meter.peak_bytes()
    trained, frozen = count_parameters(work.step)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    sets = [found for found in (work.train_set, work.val_set) if found is not None]
    return TrainPlan(
        run_dir=run.path,
        data=manifest.name,
        model=f"{config.backbone} + {config.decoder}, loss {describe_loss(config.loss)}",
        parameters=trained,
        frozen_parameters=frozen,
        num_train=len(work.train_set),
        num_val=len(work.val_set) if work.val_set else 0,
        epochs=config.epochs,
        first_epoch=state.epoch + 1,
        steps_per_epoch=work.train_batches.num_steps,
        batch_size=known(config.batch_size),
        crop_px=known(config.crop),
        learning_rate=known(config.learning_rate),
        device=name if world_size == 1 else f"{world_size} x {name}",
        precision=_PRECISION_NAMES[resolve_precision(config.precision, device)],
        workers=config.workers or 0,
        cached=cached,
        seconds_per_epoch=seconds,
        memory_bytes=peak + unmade_optimizer_bytes(work.optimizer) if peak else 0,
        memory_available=meter.held_bytes() + meter.available_bytes(),
        cache_bytes=sum(found.store.held_bytes for found in sets),
        disk_bytes=need.total,
        disk_free=free,
        written=files_of(config, validates=work.val_set is not None, has_heads=work.step.objective.has_heads),
        unlabelled=_unlabelled(work.train_set.store.tiles),
        history=state.history,
    )


def disk_need_of(work: Workbench) -> DiskNeed:
    """Return the room that a run takes on the disk."""
    return disk_need(work.step.model, work.step, work.optimizer, averaged=work.average is not None)


def _unlabelled(tiles: Sequence[Tile]) -> float:
    """Return the share of the training pixels that no class counts."""
    pixels = sum(tile.window.width * tile.window.height for tile in tiles)
    return max(0.0, 1 - sum(class_counts(tiles)) / max(1, pixels))
