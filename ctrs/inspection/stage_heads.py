"""The projection heads that a run trained with, by stage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from ctrs.config import TrainConfig, from_mapping
from ctrs.errors import InputNotFoundError, UsageError
from ctrs.losses.objective import Objective
from ctrs.model_files import CheckpointMetadata
from ctrs.models.checkpoint import load_module
from ctrs.models.segmentation import SegmentationModel
from ctrs.training.run_folder import RunFolder
from ctrs.training.step import create_training_step


def load_stage_heads(
    run_dir: Path, checkpoint: Path, model: SegmentationModel, metadata: CheckpointMetadata, stages: Sequence[int]
) -> list[nn.Module]:
    """Load the projection heads that belong to a run's best checkpoint.

    Args:
        run_dir: The run.
        checkpoint: The checkpoint folder that ``model`` comes from.
        model: The network.
        metadata: Its description.
        stages: Stages whose heads are wanted.

    Returns:
        One head for each stage, in evaluation mode, where the network lives. Where several terms have a head at a
        stage, that of the first term.

    Raises:
        InputNotFoundError: The run has no projection heads.
        CheckpointError: The heads are broken or of another network.
        UsageError: The checkpoint is not the best one, or a stage has no head.
    """
    require_heads(run_dir, checkpoint, metadata)
    config = from_mapping(TrainConfig, dict(metadata.config), where=str(checkpoint))
    with torch.random.fork_rng(devices=[]):  # the weights drawn here are thrown away
        num_classes = metadata.classes.num_classes
        weightless = (1,) * num_classes  # class weights have no part in the heads
        step = create_training_step(model, config, num_classes=num_classes, class_counts=weightless)
    load_module(RunFolder(run_dir).heads, step.objective)
    heads = stage_heads(step.objective)
    missing = [stage for stage in stages if stage not in heads]
    if missing:
        has = ", ".join(map(str, sorted(heads))) or "none"
        raise UsageError(
            f"{run_dir}: no projection head at stage {', '.join(map(str, missing))} (loss {config.loss} has heads at "
            f"{has}); choose others with --stage, or leave out --projected"
        )
    device = next(model.parameters()).device
    return [heads[stage].to(device).eval() for stage in stages]


def require_heads(run_dir: Path, checkpoint: Path, metadata: CheckpointMetadata) -> None:
    """Make sure that a run has projection heads and that they belong to a checkpoint.

    Args:
        run_dir: The run.
        checkpoint: The checkpoint folder.
        metadata: Its description.

    Raises:
        InputNotFoundError: The run has no projection heads.
        UsageError: The checkpoint is not the best one.
    """
    run = RunFolder(run_dir)
    if not run.heads.is_file():
        loss = metadata.config.get("loss", "unknown")
        raise InputNotFoundError(
            f"{run.heads}: not found, so there is nothing to project with (trained with loss {loss}); leave out "
            "--projected, or name a run with a contrast on the encoder's stages"
        )
    if checkpoint.resolve() != run.best.resolve():
        raise UsageError(f"{checkpoint}: {run.heads.name} belongs to {run.best}; name {run_dir} for --projected")


def stage_heads(objective: Objective) -> dict[int, nn.Module]:
    """Return the projection head of each stage that has one; the first term in the objective wins."""
    found: dict[int, nn.Module] = {}
    for loss in objective.contrast.children():
        heads = getattr(loss, "heads", None)
        if isinstance(heads, nn.ModuleDict):
            by_stage = {int(stage): head for stage, head in heads.items()}
        elif isinstance(heads, nn.ModuleList):
            by_stage = dict(zip(loss.stages, heads, strict=True))  # type: ignore[arg-type]
        else:  # a term on the decoder's embedding
            continue
        found = {**by_stage, **found}
    return found
