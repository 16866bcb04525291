"""``train``: one loop on Lightning Fabric, readable from top to bottom."""

from __future__ import annotations

import dataclasses
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment

from ctrs.config import TrainConfig
from ctrs.data.tile_store import fill_cache
from ctrs.errors import ConfigError, CtrsWarning, TrainingError
from ctrs.evaluation.fold_choice import data_of_fold, warn_all_folds_train
from ctrs.inference.device import cpu_threads, resolve_device
from ctrs.launcher import leads
from ctrs.metrics import ConfusionMatrix
from ctrs.model_files import METADATA_FILE
from ctrs.models.checkpoint import load_checkpoint
from ctrs.progress import Progress, counted, no_progress
from ctrs.report.examples import Example
from ctrs.tiles.manifest import Manifest
from ctrs.training import batch_step
from ctrs.training.determinism import deterministic_algorithms, told_what_varies
from ctrs.training.distributed import check_ranks, gather, open_fabric, share_buffers, sum_over_ranks
from ctrs.training.environment import record_start
from ctrs.training.epoch_meter import EpochMeter
from ctrs.training.example_tiles import ExampleTiles
from ctrs.training.footprint import MemoryMeter, check_disk
from ctrs.training.optimization import freeze, learning_rate_at, set_learning_rate
from ctrs.training.origin import write_origin
from ctrs.training.preflight import disk_need_of, plan_training
from ctrs.training.random_state import own_random_state, random_state, seed_globally
from ctrs.training.records import EpochRecord, TrainPlan, TrainResult
from ctrs.training.resume import RunState, has_state, read_state, restore_state, save_state
from ctrs.training.run_config import read_run_record, write_run_config
from ctrs.training.run_folder import RunFolder, append_metrics, check_run_folder, open_run, write_metrics
from ctrs.training.run_logs import RunLogs, check_logs
from ctrs.training.run_output import draw, examples_epoch, make_good, save_checkpoints
from ctrs.training.run_readme import write_readme
from ctrs.training.settings import check_data, effective_config
from ctrs.training.tuning import auto_settings
from ctrs.training.validation import selection_scores, validate
from ctrs.training.workbench import Workbench, loader, set_up
from ctrs.workspace import mark_as_newest

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_PICTURES = 30.0
_STEPS_BETWEEN_AGREEMENTS = 10
"""Several processes ask rank 0 only so often whether it is time to save: each question waits for all of them."""


@dataclass(frozen=True, kw_only=True)
class _Task:
    """What rank 0 decided and all processes do."""

    data_dir: Path
    run_dir: Path
    config: TrainConfig
    pretrained: bool
    overwrite: bool


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

    Epochs are counted from 1 in all that people read, and from 0 in seeds. A run that was stopped goes on where it was
    last saved, which is after each epoch and every ``save_minutes`` within one: with ``resume``, and also when the same
    call is made again. On the CPU it ends with the same weights, bit for bit, as a run that was never stopped. A run
    whose epochs are all finished, or which ran out of patience, is left as it is, but becomes the newest, which the
    next command takes.

    With several devices the processes beside this one are started here, unless torchrun or SLURM has started this one
    together with others. Then all call this function alike; rank 0 decides, and its arguments count.

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
        TrainingError: Loss or gradient is not finite, the device's memory is full, one of several processes failed, or
            a run trained with another number of CPU threads should go on.
    """
    if not leads():
        return train_along(config)
    manifest = Manifest.open(data_dir)
    warn_all_folds_train(manifest, config.fold)
    manifest = data_of_fold(manifest, config.fold)
    check_data(manifest)
    check_logs(config.log)
    device = resolve_device(config.device)
    check_ranks(config, device)
    run = RunFolder(run_dir)
    if config.auto:
        stands = run.is_run and (resume or not overwrite)
        earlier = read_run_record(run.path).config if stands else None
        if earlier is None:  # a folder that is none of ours is refused before anything is tried
            check_run_folder(run, config, manifest, resume=resume, overwrite=overwrite)
        config = auto_settings(config, manifest, device, earlier=earlier, progress=progress)
    config = effective_config(config, manifest.tile_px, device)
    go_on = check_run_folder(run, config, manifest, resume=resume, overwrite=overwrite)
    task = _Task(
        data_dir=data_dir,
        run_dir=run_dir,
        config=config,
        pretrained=not (go_on and has_state(run.resume)),
        overwrite=overwrite and not go_on,
    )
    if config.patience is not None and not manifest.split("val"):
        warnings.warn(
            CtrsWarning("patience has no effect without validation tiles: there is no score that could get better"),
            stacklevel=2,
        )
    with own_random_state(), deterministic_algorithms(config.deterministic), open_fabric(config, device) as fabric:
        return _train(fabric.broadcast(task), fabric, manifest, progress, on_plan, on_epoch)


def train_along(config: TrainConfig, ranks: ClusterEnvironment | None = None) -> TrainResult:
    """Train as one of several processes, but not the one that decides.

    Args:
        config: As the deciding process has it; devices and precision count.
        ranks: The processes; None for those that torchrun or SLURM started.
    """
    device = resolve_device(config.device)
    check_ranks(config, device) if ranks is None else None
    with (
        own_random_state(),
        deterministic_algorithms(config.deterministic),
        open_fabric(config, device, follows=ranks) as fabric,
    ):
        task = cast(_Task, fabric.broadcast(None))
        manifest = data_of_fold(Manifest.open(task.data_dir), task.config.fold)
        return _train(task, fabric, manifest)


def _train(
    task: _Task,
    fabric: Fabric,
    manifest: Manifest,
    progress: Progress = no_progress,
    on_plan: Callable[[TrainPlan], None] | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> TrainResult:
    """Set all up, go back to where the run was saved, and train."""
    config, run, is_leader = task.config, RunFolder(task.run_dir), fabric.is_global_zero
    with cpu_threads(config.threads):
        seed_globally(config.seed)  # the same weights in all processes
        work = set_up(config, manifest, fabric, pretrained=task.pretrained)
        seed_globally(config.seed, rank=fabric.global_rank) if fabric.global_rank else None
        if is_leader and task.overwrite and run.is_run:  # before the run that stands there is given up
            check_disk(run, disk_need_of(work), replaced=True)
        held = open_run(run, overwrite=task.overwrite) if is_leader else nullcontext()
        with held, _stops_explained(run, config):
            state = cast(RunState, fabric.broadcast(read_state(run.resume) if is_leader else None))
            if config.epochs < state.epoch:
                raise ConfigError(
                    f"{run.path}: epochs = {config.epochs} found, but {counted(state.epoch, 'epoch')} are trained "
                    f"already; give {state.epoch} or more"
                )
            begun: dict[str, Any] = {}
            if state.epoch or state.step:
                begun = restore_state(
                    run.resume, work.step, work.optimizer, others=work.stateful(), rank=fabric.global_rank,
                    threads=gather(torch.get_num_threads(), fabric),
                )  # fmt: skip
            if is_leader:
                if not run.is_run:  # one that is refused leaves no trace
                    check_disk(run, disk_need_of(work))
                write_run_config(run.path, config, manifest)  # from here on the folder is a run
                if work.origin:
                    write_origin(run.path, work.origin)
                if state.epoch:
                    make_good(run, state, work.judged, config, manifest)
                    _make_examples_good(run, state, work, config, manifest)
                else:
                    write_metrics(run.metrics, ())
            return _run_epochs(run, state, begun, work, config, manifest, progress, on_plan, on_epoch)


def _run_epochs(
    run: RunFolder,
    state: RunState,
    begun: dict[str, Any],
    work: Workbench,
    config: TrainConfig,
    manifest: Manifest,
    progress: Progress,
    on_plan: Callable[[TrainPlan], None] | None,
    on_epoch: Callable[[EpochRecord], None] | None,
) -> TrainResult:
    """Train until the last epoch, or until patience ends; the state is saved after each epoch and within it."""
    fabric, step, batches = work.fabric, work.step, work.train_batches
    resumed_at, is_leader = state.epoch, fabric.is_global_zero
    if _ends(state, config):
        logger.info("%s: %s; nothing to do", run.path, _describe_end(state, config))
        if is_leader:
            mark_as_newest(run.best / METADATA_FILE)
        return _result(run, state, config, resumed_at)
    stores = [work.train_set.store] + ([work.val_set.store] if work.val_set else [])
    cached = fill_cache(stores, config.cache, workers=config.workers or 0, processes=config.devices, progress=progress)
    step.train()
    freeze(step, config, state.epoch)
    work.wrap(config)
    if is_leader:
        record_start(run.path, first_epoch=resumed_at + 1, device=fabric.device)
        write_readme(run, state, config, manifest)
        plan = _plan(run, state, work, config, manifest, cached=cached)
        logger.info("%s", plan.describe())
        if on_plan is not None:
            on_plan(plan)

    train_loader = loader(work, work.train_set, batches, config)
    val_loader = loader(work, work.val_set, work.val_batches, config) if work.val_set and work.val_batches else None
    steps_per_epoch, memory = batches.num_steps, MemoryMeter(fabric.device)
    drawn = saved = time.monotonic()
    tiles = ExampleTiles(work.val_set) if is_leader and work.val_set else None
    examples: list[Example] = []
    with (
        RunLogs(run, config, first_epoch=resumed_at + 1, history=state.history)
        if is_leader
        else nullcontext(None) as logs
    ):
        for epoch in range(resumed_at, config.epochs):
            step.train()
            if freeze(step, config, epoch):
                work.wrap(config)
            memory.begin()
            meter = EpochMeter(epoch + 1, device=fabric.device, skips_overflow=work.scaler is not None)
            if state.step:
                meter.load_state_dict(begun["meter"])
            batches.epoch, batches.first_step = epoch, state.step
            steps = batch_step.grouped(meter.timed(train_loader), config.accumulate)
            for number, parts_of_batch in enumerate(steps, state.step):
                done = epoch * steps_per_epoch + number
                rate = learning_rate_at(done, config, steps_per_epoch=steps_per_epoch)
                set_learning_rate(work.optimizer, rate)
                total, parts = batch_step.accumulate(work, config, parts_of_batch, epoch=epoch, number=number)
                grad_norm = batch_step.optimize(work, config)
                num_images = sum(len(part["image"]) for part in parts_of_batch)
                meter.add(total, parts, grad_norm, num_images=num_images, learning_rate=rate)
                progress(done + 1, config.epochs * steps_per_epoch, "training")
                is_due = time.monotonic() - saved >= 60 * config.save_minutes
                if number + 1 < steps_per_epoch and _all_agree(fabric, is_due, number):
                    meter.check()  # a network that is lost is not saved
                    state = dataclasses.replace(state, step=number + 1)
                    _save(run, state, work, meter)
                    saved = time.monotonic()
            losses = meter.finish(lambda means: sum_over_ranks(means, fabric) / fabric.world_size)
            scores: dict[str, float] = {}
            confusion: tuple[tuple[int, ...], ...] = ()
            if val_loader is not None:
                share_buffers(work.judged, fabric)
                matrix = validate(
                    work.judged.model, val_loader, manifest.classes.num_classes, device=fabric.device,
                    autocast=fabric.autocast(),
                )  # fmt: skip
                counts = sum_over_ranks(torch.from_numpy(matrix.counts), fabric).cpu().numpy()
                scores = selection_scores(ConfusionMatrix.from_counts(counts), manifest.classes)
                confusion = tuple(tuple(row) for row in counts.tolist())
            record = EpochRecord(
                epoch=epoch + 1,
                step=(epoch + 1) * steps_per_epoch,
                learning_rate=rate,
                losses=losses,
                scores=scores,
                seconds=meter.elapsed,
                images_per_second=meter.images_per_second * fabric.world_size,
                data_wait=meter.data_wait,
                is_best=False,
                peak_memory_bytes=memory.peak_bytes(),
            )
            record = dataclasses.replace(record, is_best=state.improves(record.score))
            state = state.after(record, meter.elapsed, confusion=confusion)
            _save(run, state, work)  # what follows can be made good from it
            saved = time.monotonic()
            if logs is not None:
                append_metrics(run.metrics, record)
                logs.add(record)
                save_checkpoints(run, state, work.judged, config, manifest)
                if tiles is not None and (record.is_best or logs.wants_examples(record.epoch)):
                    seen = tiles.predict(work.judged.model, device=fabric.device, autocast=fabric.autocast())
                    examples = seen if record.is_best else examples
                    if logs.wants_examples(record.epoch):
                        logs.show(record.epoch, seen, manifest.classes)
                if _ends(state, config) or time.monotonic() - drawn > _SECONDS_BETWEEN_PICTURES:
                    draw(run, state, config, manifest, examples)
                    drawn, examples = time.monotonic(), []
                else:
                    write_readme(run, state, config, manifest)
                if on_epoch is not None:
                    on_epoch(record)
            if _ends(state, config):
                logger.info("%s: %s", run.path, _describe_end(state, config))
                break
    return _result(run, state, config, resumed_at)


def _save(run: RunFolder, state: RunState, work: Workbench, meter: EpochMeter | None = None) -> None:
    """Save the run where it stands; in an epoch with what that has added up to."""
    processes = gather((random_state(), torch.get_num_threads()), work.fabric)
    if work.fabric.is_global_zero:
        others = work.stateful() | ({} if meter is None else {"meter": meter})
        generators, threads = zip(*processes, strict=True)
        save_state(run.resume, state, work.step, work.optimizer, others=others, generators=generators, threads=threads)


def _all_agree(fabric: Fabric, is_due: bool, number: int) -> bool:
    """Return what rank 0 says."""
    if fabric.world_size == 1:
        return is_due
    return number % _STEPS_BETWEEN_AGREEMENTS == 0 and bool(fabric.broadcast(is_due))


def _ends(state: RunState, config: TrainConfig) -> bool:
    """Whether there are no more epochs to come."""
    return state.epoch >= config.epochs or state.out_of_patience(config.patience)


def _describe_end(state: RunState, config: TrainConfig) -> str:
    """Say why there are no more epochs to come."""
    if state.epoch >= config.epochs or state.best is None:
        return f"all {config.epochs} epochs are finished" if config.epochs > 1 else "its one epoch is finished"
    without = counted(state.epoch - state.best.epoch, "epoch")
    return (
        f"stopped early after epoch {state.epoch} of {config.epochs}: {without} without a better score than that of "
        f"epoch {state.best.epoch}"
    )


def _plan(
    run: RunFolder, state: RunState, work: Workbench, config: TrainConfig, manifest: Manifest, *, cached: bool
) -> TrainPlan:
    """Time steps that leave no trace, and say what is going to be done."""

    def alone_with_autocast(*arguments: Any, **options: Any) -> Any:
        with work.fabric.autocast():
            return work.step(*arguments, **options)

    alone = work if work.fabric.world_size == 1 else dataclasses.replace(work, wrapped=alone_with_autocast)
    with told_what_varies(work.fabric.device):
        return plan_training(
            run, state, work, config, manifest,
            train_step=lambda batch: batch_step.forward_backward(alone, config, batch, epoch=0, number=0)[0],
            cached=cached,
        )  # fmt: skip


def _make_examples_good(
    run: RunFolder, state: RunState, work: Workbench, config: TrainConfig, manifest: Manifest
) -> None:
    """Draw the examples of the best epoch, where a stop kept them from being drawn."""
    if work.val_set is None or state.best is None or examples_epoch(run) == state.best.epoch:
        return
    model, _ = load_checkpoint(run.best, work.fabric.device)
    tiles = ExampleTiles(work.val_set)
    examples = tiles.predict(model, device=work.fabric.device, autocast=work.fabric.autocast())
    draw(run, state, config, manifest, examples)


def _result(run: RunFolder, state: RunState, config: TrainConfig, resumed_at: int) -> TrainResult:
    best = state.best
    return TrainResult(
        run_dir=run.path,
        epochs=state.epoch,
        best_epoch=best.epoch if best else 0,
        metrics=dict(best.scores) if best else {},
        seconds=state.seconds,
        resumed_at=resumed_at,
        stopped_early=state.epoch < config.epochs,
    )


@contextmanager
def _stops_explained(run: RunFolder, config: TrainConfig) -> Iterator[None]:
    """Say how to go on after Ctrl-C, and what to do when the device's memory is full."""
    try:
        yield
    except KeyboardInterrupt as error:
        again = f"`ctrs train --resume --name {run.path.name}` goes on"
        error.add_note(f"{run.path} holds the run as it was last saved; {again}")
        raise
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"{run.path}: the device's memory is full with batches of {config.batch_size} x {config.crop} px; "
            "lower --batch-size or --crop, or compute each batch in parts by --accumulate"
        ) from error
    except RuntimeError as error:
        if not config.compile or not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        reason = str(error).strip().splitlines()[0]
        raise TrainingError(f"the network cannot be compiled here ({reason}); leave out --compile") from error
