"""What a run works with: network, objective, optimizer, data sets, on the device that was asked for."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from lightning.fabric import Fabric
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from ctrs.classes import IGNORE_INDEX
from ctrs.config import TrainConfig
from ctrs.data.dataset import Batch, TileDataset, make_loader
from ctrs.data.sampling import OrderedBatches, TrainingBatches, epoch_order_of
from ctrs.data.tile_store import TileStore
from ctrs.data.transforms import training_transform, whole_tile_transform
from ctrs.models.fine_tuning import load_matching
from ctrs.models.segmentation import create_model
from ctrs.tiles.manifest import Manifest
from ctrs.training.moving_average import MovingAverage
from ctrs.training.optimization import create_optimizer
from ctrs.training.random_state import own_random_state
from ctrs.training.resume import Stateful
from ctrs.training.settings import resize_factor
from ctrs.training.step import TrainingStep, create_training_step
from ctrs.training.training_tiles import class_counts, training_tiles

logger = logging.getLogger(__name__)

_Number = TypeVar("_Number", int, float)


@dataclass(kw_only=True)
class Workbench:
    """What the loop works with.

    Args:
        fabric: Device, precision, processes.
        step: Network and objective.
        wrapped: The same behind Fabric's wrapper, which the loop calls.
        optimizer: Over all parameters of ``step``.
        average: Moving average of ``step``, None for none.
        train_set: Training tiles, cropped and augmented.
        train_batches: This process's share of their batches.
        val_set: Whole validation tiles, None without such a split.
        val_batches: This process's share of their batches.
        memory_format: Layout of the images.
        origin: What was taken from another model of ctrs; None where nothing was, or a saved state replaces it.
    """

    fabric: Fabric
    step: TrainingStep
    wrapped: Any
    optimizer: torch.optim.Optimizer
    average: MovingAverage[TrainingStep] | None
    train_set: TileDataset
    train_batches: TrainingBatches
    val_set: TileDataset | None
    val_batches: OrderedBatches | None
    memory_format: torch.memory_format
    origin: Mapping[str, Any] | None = None

    @property
    def judged(self) -> TrainingStep:
        """What validation and checkpoints take: the moving average where there is one."""
        return self.step if self.average is None else self.average.module

    @property
    def scaler(self) -> torch.amp.GradScaler | None:
        """The loss scaler of fp16, None without."""
        scaler = getattr(self.fabric.strategy.precision, "scaler", None)
        return scaler if isinstance(scaler, torch.amp.GradScaler) else None

    def stateful(self) -> dict[str, Stateful]:
        """Return what keeps a state beside network and optimizer."""
        others: Mapping[str, Stateful | None] = {"average": self.average, "scaler": self.scaler}
        return {name: other for name, other in others.items() if other is not None}

    def images(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return images and labels of a batch on the device."""
        images, labels = self.fabric.to_device((batch["image"], batch["mask"]))
        return images.contiguous(memory_format=self.memory_format), labels

    def wrap(self, config: TrainConfig) -> None:
        """Put Fabric's wrapper around the step, again after the parameters that are trained have changed."""
        if self.fabric.world_size > 1:
            _leave_out_unused(self)
        module = self.step
        if config.compile:
            if self.fabric.device.type == "cpu" and self.fabric.is_global_zero and self.wrapped is None:
                logger.info("compiling the network, which takes minutes on a CPU before the first step")
            # It warns of a toolkit without a CUDA device, which says nothing about this run.
            logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
            module = cast(TrainingStep, torch.compile(self.step))
        self.wrapped = self.fabric.setup_module(module)


def set_up(config: TrainConfig, manifest: Manifest, fabric: Fabric, *, pretrained: bool) -> Workbench:
    """Build all that a run works with; weights are drawn from the global generator.

    Args:
        config: From ``effective_config``.
        manifest: The prepared data.
        fabric: From ``open_fabric``.
        pretrained: Load the weights that the configuration names; False where a saved state replaces them anyway.

    Raises:
        UsageError: Backbone, decoder or loss is unknown, or they do not fit.
        CheckpointError: The weights, or the model to begin from, cannot be had or do not fit.
    """
    num_classes, factor = manifest.classes.num_classes, resize_factor(config, manifest.tile_px)
    model = create_model(
        config.backbone,
        config.decoder,
        num_classes=num_classes,
        in_channels=manifest.bands.count,
        weights=config.weights if pretrained else "none",
        drop_path=config.drop_path,
    )
    origin = None
    if config.init is not None and pretrained:
        origin = load_matching(model, Path(config.init), manifest.bands, manifest.classes).origin()
    tiles = training_tiles(manifest, config)
    step = create_training_step(model, config, num_classes=num_classes, class_counts=class_counts(tiles))
    on_cuda = fabric.device.type == "cuda"
    channels_last = on_cuda if config.channels_last is None else config.channels_last
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    step.to(fabric.device)
    if channels_last:
        step.to(memory_format=torch.channels_last)
    batch_size, crop_px = known(config.batch_size), known(config.crop)
    train_store, val_tiles = TileStore(tiles), manifest.split("val")
    transform = training_transform(config.augment, crop_px=crop_px, resize_factor=factor)
    ranks = {"rank": fabric.global_rank, "world_size": fabric.world_size}
    val_set = val_batches = None
    if val_tiles:
        val_store = TileStore(val_tiles)
        val_set = TileDataset(val_store, manifest.bands, whole_tile_transform(resize_factor=factor))
        val_px = max(tile.window.width * tile.window.height for tile in val_tiles) * factor**2
        at_once = batch_size // (fabric.world_size * config.accumulate)
        val_batches = OrderedBatches(val_store, max(1, int(at_once * crop_px**2 / val_px)), **ranks)
    order = epoch_order_of(
        train_store.tiles, config.sampling, config.repeat_threshold, config.seed, draws=config.tile_draws
    )
    return Workbench(
        fabric=fabric,
        step=step,
        wrapped=None,
        optimizer=create_optimizer(step, config),
        average=None if config.ema is None else MovingAverage(step, config.ema),
        train_set=TileDataset(train_store, manifest.bands, transform, seed=config.seed),
        train_batches=TrainingBatches(order, batch_size, accumulate=config.accumulate, **ranks),
        val_set=val_set,
        val_batches=val_batches,
        memory_format=memory_format,
        origin=origin,
    )


def _leave_out_unused(work: Workbench) -> None:
    """Tell DistributedDataParallel which parameters get no gradient, as it would wait for them for ever.

    Such are the norms of stages that neither the decoder nor the objective looks at. They are found by a step on an
    empty batch, which leaves no trace.
    """
    step = work.step
    channels, side_px = step.model.architecture.in_channels, 64
    buffers = {name: value.clone() for name, value in step.named_buffers()}
    with own_random_state(), work.fabric.autocast():
        images = torch.zeros(2, channels, side_px, side_px, device=work.fabric.device)
        labels = torch.full((2, side_px, side_px), IGNORE_INDEX, device=work.fabric.device)
        total, _ = step(images, labels, step.draw_keys(images, seed=0, epoch=0, step=0))
    total.backward()
    unused = [name for name, value in step.named_parameters() if value.requires_grad and value.grad is None]
    step.zero_grad(set_to_none=True)
    with torch.no_grad():
        for name, value in step.named_buffers():
            value.copy_(buffers[name])
    ignore = DistributedDataParallel._set_params_and_buffers_to_ignore_for_model
    ignore(step, unused)  # type: ignore[no-untyped-call]


def loader(
    work: Workbench, dataset: TileDataset, batches: TrainingBatches | OrderedBatches, config: TrainConfig
) -> DataLoader[Batch]:
    """Return a loader of the run's own."""
    return make_loader(dataset, batches, workers=config.workers or 0, pin_memory=work.fabric.device.type == "cuda")


def known(value: _Number | None) -> _Number:
    """Return a setting that ``effective_config`` has filled in."""
    if value is None:
        raise ValueError("a setting is open; pass what effective_config returned")
    return value
