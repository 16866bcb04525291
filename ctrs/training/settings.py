"""Settings that depend on the data and the device: what a configuration leaves open is decided here, once."""

from __future__ import annotations

import dataclasses
import os
import warnings

import torch

from ctrs.config import CT_PAPER_INPUT_PX, TrainConfig
from ctrs.errors import DataError, DataWarning
from ctrs.tiles.manifest import Manifest

GPU_BATCH, CPU_BATCH = 32, 8
FINE_TUNING_RATE, FROM_SCRATCH_RATE, SGD_RATE = 8e-5, 5e-4, 1e-2
MAX_WORKERS = 8


def resize_factor(config: TrainConfig, tile_px: int) -> float:
    """Return network pixels for each tile pixel: 1, but ``ct-paper`` resizes tiles to 512 px."""
    return CT_PAPER_INPUT_PX / tile_px if config.recipe == "ct-paper" else 1.0


def effective_config(config: TrainConfig, tile_px: int, device: torch.device) -> TrainConfig:
    """Fill in what the configuration leaves to be decided.

    Args:
        config: As given.
        tile_px: Edge of the prepared tiles.
        device: Where training runs.

    Returns:
        The configuration with ``batch_size``, ``learning_rate``, ``crop`` (network pixels) and ``workers`` set.
    """
    whole_tile = round(tile_px * resize_factor(config, tile_px))
    if config.crop and config.crop > whole_tile:
        warnings.warn(
            DataWarning(
                f"crop {config.crop} px is larger than the tiles ({whole_tile} px): the rest of each crop is empty and "
                f"costs time and memory; pass --crop {whole_tile} or less"
            ),
            stacklevel=2,
        )
    return dataclasses.replace(
        config,
        batch_size=config.batch_size or (CPU_BATCH if device.type == "cpu" else GPU_BATCH),
        learning_rate=config.learning_rate or _default_rate(config),
        crop=config.crop or whole_tile,
        workers=default_workers(device) if config.workers is None else config.workers,
    )


def _default_rate(config: TrainConfig) -> float:
    if config.optimizer == "sgd":  # whose steps are not scaled by the gradient's size
        return SGD_RATE
    pretrained = config.weights != "none" or config.init is not None or config.recipe == "ct-paper"
    return FINE_TUNING_RATE if pretrained else FROM_SCRATCH_RATE


def default_workers(device: torch.device) -> int:
    """Return the number of loader processes: none on the CPU, where they would take cores from the network."""
    return 0 if device.type == "cpu" else min(MAX_WORKERS, usable_cores())


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def check_data(manifest: Manifest) -> None:
    """Refuse data that nothing can be learnt from.

    Raises:
        DataError: There are no training tiles, no labelled pixels, or only one class.
    """
    train = manifest.split("train")
    if not train:
        present = ", ".join(f"{len(manifest.split(name))} in {name}" for name in manifest.splits) or "none at all"
        raise DataError(
            f"{manifest.root}: no training tiles ({present}); run `ctrs prepare` with scenes that are neither "
            "--val nor --test"
        )
    if manifest.classes.num_classes < 2:
        raise DataError(
            f"{manifest.root}: the class table has one class, {manifest.classes.names[0]!r}, expected two or more; "
            "add a background class to classes.toml and run `ctrs prepare` again"
        )
    if not any(manifest.class_counts("train")):
        raise DataError(
            f"{manifest.root}: no labelled pixel in {len(train)} training tiles, all are nodata or ignored; "
            "check the labels and run `ctrs prepare` again"
        )
