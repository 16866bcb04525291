"""``train``: one loop on Lightning Fabric, readable from top to bottom. Only this module seeds globally."""

from __future__ import annotations

import dataclasses
import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from ctrs.config import TrainConfig, describe_loss, to_plain
from ctrs.data.dataset import Batch
from ctrs.data.tile_store import preload_where_it_fits
from ctrs.errors import TrainingError
from ctrs.inference.device import cpu_threads, resolve_device, resolve_precision
from ctrs.model_files import METADATA_FILE
from ctrs.progress import Progress, no_progress
from ctrs.tiles.manifest import Manifest
from ctrs.training.epoch_meter import EpochMeter
from ctrs.training.event_log import EventLog
from ctrs.training.expected_time import expected_epoch_seconds
from ctrs.training.fold_choice import data_of_fold, warn_all_folds_train
from ctrs.training.records import EpochRecord, TrainPlan, TrainResult
from ctrs.training.resume import RunState, has_state, own_random_state, read_state, restore_state, save_state
from ctrs.training.run_config import write_run_config
from ctrs.training.run_folder import RunFolder, append_metrics, check_run_folder, open_run, write_metrics
from ctrs.training.run_output import draw, make_good, save_checkpoints
from ctrs.training.settings import check_data, effective_config, learning_rate_at
from ctrs.training.validation import selection_scores, validate
from ctrs.training.workbench import Workbench, known, loader, set_up
from ctrs.workspace import mark_as_newest

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_PICTURES = 30.0


def train(
    data_dir: Path,
    run_dir: Path,
    config: TrainConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = no_progress,
    on_plan: Callable[[TrainPlan], None] | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> TrainResult:
    """Train a network on prepared tiles.

    Epochs are counted from 1 in all that people read, and from 0 in seeds. A run that was stopped goes on at its last
    finished epoch: with ``resume``, and also when the same call is made again. On the CPU it ends with the same
    weights, bit for bit, as a run that was never stopped. A run whose epochs are all finished is left as it is, but
    becomes the newest, which the next command takes.

    Args:
        data_dir: Folder that prepare wrote.
        run_dir: Folder of the run, usually ``runs/NAME``.
        config: What to train and how.
        resume: Go on with the run in ``run_dir``.
        overwrite: Discard the run in ``run_dir``.
        progress: Told of each step.
        on_plan: Told, before the first step, what is going to be done and how long that is expected to take.
        on_epoch: Told of each finished epoch.

    Returns:
        Where the run stands and how good its best epoch is.

    Raises:
        InputNotFoundError: There are no prepared data, or no run to go on with.
        DataError: Nothing can be learnt from the data, or they have no such fold.
        UsageError: Backbone, decoder, loss or another setting is wrong.
        DeviceError: The device is not there.
        OutputExistsError: Another run stands in ``run_dir``.
        OutputError: ``run_dir`` cannot be written, or another process trains there.
        TrainingError: Loss or gradient is not finite, the device's memory is full, or a run trained with another number
            of CPU threads should go on.
    """
    manifest = Manifest.open(data_dir)
    warn_all_folds_train(manifest, config.fold)
    manifest = data_of_fold(manifest, config.fold)
    check_data(manifest)
    device = resolve_device(config.device)
    config = effective_config(config, manifest.tile_px, device)
    run = RunFolder(run_dir)
    go_on = check_run_folder(run, config, manifest, resume=resume, overwrite=overwrite)
    with own_random_state(), cpu_threads(config.threads):
        seed_globally(config.seed)
        work = set_up(config, manifest, device, pretrained=not (go_on and has_state(run.resume)))
        with open_run(run, overwrite=overwrite and not go_on), _stops_explained(run, config):
            state = read_state(run.resume)
            if state.epoch:
                restore_state(run.resume, work.step, work.optimizer)
            write_run_config(run.path, config, manifest)  # from here on the folder is a run
            if state.epoch:
                make_good(run, state, work.step, config, manifest)
            else:
                write_metrics(run.metrics, ())
            return _run_epochs(run, state, work, config, manifest, progress, on_plan, on_epoch)


def _run_epochs(
    run: RunFolder,
    state: RunState,
    work: Workbench,
    config: TrainConfig,
    manifest: Manifest,
    progress: Progress,
    on_plan: Callable[[TrainPlan], None] | None,
    on_epoch: Callable[[EpochRecord], None] | None,
) -> TrainResult:
    """Train until the last epoch; the state is saved after each."""
    resumed_at = state.epoch
    if resumed_at >= config.epochs:
        logger.info("%s: all %d epochs are finished; nothing to do", run.path, config.epochs)
        mark_as_newest(run.best / METADATA_FILE)
        return _result(run, state, resumed_at)
    fabric, step, batches = work.fabric, work.step, work.train_batches
    stores = [work.train_set.store] + ([work.val_set.store] if work.val_set else [])
    cached = preload_where_it_fits(stores, workers=config.workers or 0, progress=progress)
    plan = _plan(run, state, work, config, manifest, cached=cached)
    logger.info("%s", plan.describe())
    if on_plan is not None:
        on_plan(plan)

    train_loader = loader(work, work.train_set, batches, config)
    val_loader = loader(work, work.val_set, work.val_batches, config) if work.val_set and work.val_batches else None
    steps_per_epoch, num_steps = len(batches), config.epochs * len(batches)
    drawn = time.monotonic()
    with EventLog(run.tensorboard, first_epoch=resumed_at + 1, title=str(to_plain(config))) as events:
        for epoch in range(resumed_at, config.epochs):
            began = time.perf_counter()
            batches.epoch = epoch
            step.train()
            meter = EpochMeter(epoch + 1, device=fabric.device)
            for number, batch in enumerate(meter.timed(train_loader)):
                done = epoch * steps_per_epoch + number
                rate = learning_rate_at(done, config, steps_per_epoch=steps_per_epoch)
                for group in work.optimizer.param_groups:
                    group["lr"] = rate
                total, parts = _forward_backward(work, config, batch, epoch=epoch, number=number)
                grad_norm = fabric.clip_gradients(
                    work.wrapped, work.optimizer, max_norm=config.gradient_clip, error_if_nonfinite=False
                )
                work.optimizer.step()
                work.optimizer.zero_grad(set_to_none=True)
                meter.add(total, parts, cast(Tensor, grad_norm), num_images=len(batch["image"]), learning_rate=rate)
                progress(done + 1, num_steps, "training")
            losses = meter.finish()
            scores: dict[str, float] = {}
            if val_loader is not None:
                matrix = validate(
                    step.model, val_loader, manifest.classes.num_classes, device=fabric.device,
                    autocast=fabric.autocast(),
                )  # fmt: skip
                scores = selection_scores(matrix, manifest.classes)
            record = EpochRecord(
                epoch=epoch + 1,
                step=(epoch + 1) * steps_per_epoch,
                learning_rate=rate,
                losses=losses,
                scores=scores,
                seconds=time.perf_counter() - began,
                images_per_second=meter.images_per_second,
                data_wait=meter.data_wait,
                is_best=False,
            )
            record = dataclasses.replace(record, is_best=state.improves(record.score))
            state = state.after(record, time.perf_counter() - began)
            save_state(run.resume, state, step, work.optimizer)  # what follows can be made good from it
            append_metrics(run.metrics, record)
            events.add(record)
            save_checkpoints(run, state, step, config, manifest)
            if epoch + 1 == config.epochs or time.monotonic() - drawn > _SECONDS_BETWEEN_PICTURES:
                draw(run, state)
                drawn = time.monotonic()
            if on_epoch is not None:
                on_epoch(record)
    return _result(run, state, resumed_at)


def _forward_backward(
    work: Workbench, config: TrainConfig, batch: Batch, *, epoch: int, number: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute objective and gradients of a batch."""
    images, labels = work.fabric.to_device((batch["image"], batch["mask"]))
    keys = work.step.draw_keys(images, seed=config.seed, epoch=epoch, step=number)
    waits = epoch * len(work.train_batches) + number < config.contrast_warmup_steps
    total, parts = work.wrapped(images, labels, keys, contrast_scale=0.0 if waits else 1.0)
    work.fabric.backward(total)
    return total.detach(), parts


def _plan(
    run: RunFolder, state: RunState, work: Workbench, config: TrainConfig, manifest: Manifest, *, cached: bool
) -> TrainPlan:
    """Time steps that leave no trace, and say what is going to be done."""

    def val_step(batch: Batch) -> object:
        return validate(
            work.step.model, [batch], manifest.classes.num_classes, device=work.fabric.device,
            autocast=work.fabric.autocast(),
        )  # fmt: skip

    work.step.train()
    seconds = expected_epoch_seconds(
        work.step,
        train_step=lambda batch: _forward_backward(work, config, batch, epoch=0, number=0)[0],
        val_step=val_step,
        train=(work.train_set, work.train_batches),
        val=(work.val_set, work.val_batches) if work.val_set and work.val_batches else None,
        workers=config.workers or 0,
    )
    device = work.fabric.device
    return TrainPlan(
        run_dir=run.path,
        data=manifest.name,
        model=f"{config.backbone} + {config.decoder}, loss {describe_loss(config.loss)}",
        parameters=sum(parameter.numel() for parameter in work.step.parameters()),
        num_train=len(work.train_set),
        num_val=len(work.val_set) if work.val_set else 0,
        epochs=config.epochs,
        first_epoch=state.epoch + 1,
        steps_per_epoch=len(work.train_batches),
        batch_size=known(config.batch_size),
        crop_px=known(config.crop),
        learning_rate=known(config.learning_rate),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        precision="bf16" if resolve_precision(config.precision, device) == torch.bfloat16 else "fp32",
        workers=config.workers or 0,
        cached=cached,
        seconds_per_epoch=seconds,
    )


def _result(run: RunFolder, state: RunState, resumed_at: int) -> TrainResult:
    best = state.best
    return TrainResult(
        run_dir=run.path,
        epochs=state.epoch,
        best_epoch=best.epoch if best else 0,
        metrics=dict(best.scores) if best else {},
        seconds=state.seconds,
        resumed_at=resumed_at,
    )


def seed_globally(seed: int) -> None:
    """Seed all generators that libraries draw from: initialisation, dropout, stochastic depth."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  (libraries draw from it)
    torch.manual_seed(seed)


@contextmanager
def _stops_explained(run: RunFolder, config: TrainConfig) -> Iterator[None]:
    """Say how to go on after Ctrl-C, and what to do when the device's memory is full."""
    try:
        yield
    except KeyboardInterrupt as error:
        error.add_note(f"{run.path} holds all finished epochs; `ctrs train --resume --name {run.path.name}` goes on")
        raise
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"{run.path}: the device's memory is full with batches of {config.batch_size} x {config.crop} px; "
            "lower --batch-size or --crop"
        ) from error
