"""What a run leaves for others: checkpoints and the table of metrics after each epoch, pictures now and then."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ctrs.config import TrainConfig, to_plain
from ctrs.errors import CtrsError
from ctrs.model_files import WEIGHTS_FILE, CheckpointMetadata, read_metadata
from ctrs.models.checkpoint import save_checkpoint, save_module
from ctrs.report.confusion_picture import confusion_picture
from ctrs.report.curves import draw_curves
from ctrs.report.examples import Example, examples_picture
from ctrs.report.model_card import read_card
from ctrs.report.png import read_description
from ctrs.report.stac_item import item_path, write_stac_item
from ctrs.tiles.manifest import Manifest
from ctrs.training.origin import read_origin
from ctrs.training.resume import RunState
from ctrs.training.run_folder import RunFolder, write_metrics
from ctrs.training.run_readme import write_readme
from ctrs.training.settings import resize_factor
from ctrs.training.step import TrainingStep
from ctrs.training.validation import selection_protocol

PREDICTION_OVERLAP = 0.25
"""Share of the window that neighbours have in common when the checkpoint predicts."""


def save_checkpoints(
    run: RunFolder, state: RunState, step: TrainingStep, config: TrainConfig, manifest: Manifest
) -> None:
    """Write ``last``, and ``best`` where this epoch is it."""
    record, model = state.history[-1], step.model
    metadata = CheckpointMetadata(
        architecture=model.architecture,
        classes=manifest.classes,
        bands=manifest.bands,
        window_px=manifest.tile_px,
        overlap=PREDICTION_OVERLAP,
        pixel_size_m=manifest.pixel_size_m,
        resize_factor=resize_factor(config, manifest.tile_px),
        recipe=config.recipe,
        config=to_plain(config),
        data={
            "name": manifest.name,
            "path": str(manifest.root),
            "preset": manifest.preset,
            "split_hash": manifest.split_hash,
            "fingerprint": manifest.fingerprint,
            "num_tiles": {split: len(manifest.split(split)) for split in manifest.splits},
            "licence": manifest.licence,
            "footprint": manifest.training_ground,
            "imagery": None if manifest.imagery is None else manifest.imagery.to_json(),
        },
        metrics=record.to_row(),
        protocol=selection_protocol(manifest.classes) if record.scores else None,
        epoch=record.epoch,
        init=read_origin(run.path),
    )
    if record.is_best:
        save_checkpoint(run.best, model, metadata)
        if step.objective.has_heads:
            save_module(run.heads, step.objective)
    save_checkpoint(run.last, model, metadata)


def make_good(run: RunFolder, state: RunState, step: TrainingStep, config: TrainConfig, manifest: Manifest) -> None:
    """Bring the files that follow from the state up to it, where a stop fell between it and them."""
    write_metrics(run.metrics, state.history)
    try:
        last = read_metadata(run.last).epoch
    except CtrsError:
        last = 0
    if last != state.epoch and not state.step:  # within an epoch, checkpoints of the one before stand
        save_checkpoints(run, state, step, config, manifest)
    draw(run, state, config, manifest)


def draw(
    run: RunFolder, state: RunState, config: TrainConfig, manifest: Manifest, examples: Sequence[Example] = ()
) -> None:
    """Draw the curves of all epochs, the best epoch's confusion matrix and examples; write read-me and STAC item.

    Args:
        run: The run's folder.
        state: Where the run stands, after one epoch or more.
        config: From ``effective_config``.
        manifest: The prepared data.
        examples: What the best epoch predicts; empty where that is not known or drawn already.
    """
    _draw_curves(run, state)
    best = state.best
    if best is not None and state.confusion:
        confusion_picture(
            run.confusion,
            np.array(state.confusion, np.int64),
            manifest.classes.names,
            title=f"{run.path.name}, epoch {best.epoch}: validation",
        )
    if best is not None and examples:
        title = f"{run.path.name}, epoch {best.epoch}: validation tiles"
        examples_picture(run.examples, examples, manifest.classes, title=title, description={"epoch": best.epoch})
    write_readme(run, state, config, manifest)
    weights = run.best / WEIGHTS_FILE
    if weights.is_file() and not item_path(weights).exists():  # a new best checkpoint has none yet
        write_stac_item(read_card(run.best), overwrite=True)


def examples_epoch(run: RunFolder) -> int:
    """Return the epoch that the picture of examples shows, 0 where there is none."""
    found = (read_description(run.examples) or {}).get("epoch") if run.examples.exists() else None
    return found if isinstance(found, int) else 0


def _draw_curves(run: RunFolder, state: RunState) -> None:
    history, best = state.history, state.best
    hidden = ("grad_norm", "/")  # counts and raw values are in metrics.csv
    losses = [name for name in history[0].losses if not any(part in name for part in hidden)]
    names = {name: name.removeprefix("iou ").replace("mean_iou", "mean IoU") for name in history[0].scores}
    draw_curves(
        run.curves,
        [record.epoch for record in history],
        losses={name: [record.losses[name] for record in history] for name in losses},
        scores={
            label: [record.scores[name] for record in history]
            for name, label in names.items()
            if name != "overall_accuracy"
        },
        best_epoch=best.epoch if best and best.scores else None,
        title=run.path.name,
    )
