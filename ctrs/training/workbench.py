"""What a run works with: network, objective, optimizer, data sets, on the device that was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from lightning.fabric import Fabric
from torch.utils.data import DataLoader

from ctrs.config import TrainConfig
from ctrs.data.dataset import Batch, OrderedBatches, ShuffledBatches, TileDataset, make_loader
from ctrs.data.tile_store import TileStore
from ctrs.data.transforms import training_transform, whole_tile_transform
from ctrs.inference.device import resolve_precision
from ctrs.models.segmentation import create_model
from ctrs.tiles.manifest import Manifest
from ctrs.training.settings import resize_factor
from ctrs.training.step import TrainingStep, create_training_step

_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True, kw_only=True)
class Workbench:
    """What the loop works with.

    Args:
        fabric: Device and precision.
        step: Network and objective.
        wrapped: The same behind Fabric's wrapper, which the loop calls.
        optimizer: Over all parameters of ``step``.
        train_set: Training tiles, cropped and augmented.
        train_batches: Their batches.
        val_set: Whole validation tiles, None without such a split.
        val_batches: Their batches.
    """

    fabric: Fabric
    step: TrainingStep
    wrapped: Any
    optimizer: torch.optim.Optimizer
    train_set: TileDataset
    train_batches: ShuffledBatches
    val_set: TileDataset | None
    val_batches: OrderedBatches | None


def set_up(config: TrainConfig, manifest: Manifest, device: torch.device, *, pretrained: bool) -> Workbench:
    """Build all that a run works with; weights are drawn from the global generator.

    Args:
        config: From ``effective_config``.
        manifest: The prepared data.
        device: From ``resolve_device``.
        pretrained: Load the weights that the configuration names; False where a saved state replaces them anyway.

    Raises:
        UsageError: Backbone, decoder or loss is unknown, or they do not fit.
        CheckpointError: The weights cannot be had.
        DeviceError: The device cannot compute in the precision asked for.
    """
    fabric = _fabric(config, device)
    num_classes, factor = manifest.classes.num_classes, resize_factor(config, manifest.tile_px)
    model = create_model(
        config.backbone,
        config.decoder,
        num_classes=num_classes,
        in_channels=manifest.bands.count,
        weights=config.weights if pretrained else "none",
        drop_path=config.drop_path,
    )
    step = create_training_step(model, config, num_classes=num_classes)
    step.to(fabric.device)
    optimizer = torch.optim.AdamW(
        step.parameters(),
        lr=known(config.learning_rate),
        weight_decay=config.weight_decay,
        fused=True if fabric.device.type == "cuda" else None,
    )
    wrapped, _ = fabric.setup(step, optimizer)
    batch_size, crop_px = known(config.batch_size), known(config.crop)
    train_store, val_tiles = TileStore(manifest.split("train")), manifest.split("val")
    transform = training_transform(config.augment, crop_px=crop_px, resize_factor=factor)
    val_set = val_batches = None
    if val_tiles:
        val_store = TileStore(val_tiles)
        val_set = TileDataset(val_store, manifest.bands, whole_tile_transform(resize_factor=factor))
        val_px = max(tile.window.width * tile.window.height for tile in val_tiles) * factor**2
        val_batches = OrderedBatches(val_store, max(1, int(batch_size * crop_px**2 / val_px)))
    return Workbench(
        fabric=fabric,
        step=step,
        wrapped=wrapped,
        optimizer=optimizer,
        train_set=TileDataset(train_store, manifest.bands, transform, seed=config.seed),
        train_batches=ShuffledBatches(len(train_store), batch_size, seed=config.seed),
        val_set=val_set,
        val_batches=val_batches,
    )


def _fabric(config: TrainConfig, device: torch.device) -> Fabric:
    mixed = resolve_precision(config.precision, device) == torch.bfloat16
    devices = 1 if device.index is None else [device.index]
    return Fabric(accelerator=device.type, devices=devices, precision="bf16-mixed" if mixed else "32-true")


def loader(
    work: Workbench, dataset: TileDataset, batches: ShuffledBatches | OrderedBatches, config: TrainConfig
) -> DataLoader[Batch]:
    """Return a loader of the run's own."""
    return make_loader(dataset, batches, workers=config.workers or 0, pin_memory=work.fabric.device.type == "cuda")


def known(value: _Number | None) -> _Number:
    """Return a setting that ``effective_config`` has filled in."""
    if value is None:
        raise ValueError("a setting is open; pass what effective_config returned")
    return value
