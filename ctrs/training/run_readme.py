"""``README.md`` of a run: what was trained on what, how good it is, what each file is, and how to go on."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ctrs.config import TrainConfig, describe_loss
from ctrs.jobs import write_text
from ctrs.progress import counted, format_duration
from ctrs.tiles.manifest import Manifest
from ctrs.training.resume import RunState
from ctrs.training.run_folder import RunFolder
from ctrs.workspace import RUNS

_FILES = {
    "best/": "network of the best epoch: `model.safetensors`, `model.json`; what `ctrs eval` and `ctrs predict` take",
    "last/": "network of the last epoch",
    "heads.safetensors": "projection heads that belong to `best/`; needed to look at the embedding only",
    "config.toml": "every setting, as it was used; `ctrs train --config` takes it",
    "environment.json": "machine, packages and command line of each start",
    "init.json": "the model that this run began from",
    "metrics.csv": "losses, validation scores and speed of each epoch",
    "curves.png": "the same as curves",
    "confusion.png": "validation pixels of the best epoch by true and predicted class",
    "examples.png": "a few validation tiles in the best epoch: image, truth, prediction, errors",
    "tensorboard/": "event files; `tensorboard --logdir` shows them",
    "logs.json": "which other logs the run writes to, and under which ids",
    "resume/": "what `--resume` needs; may be deleted once the run is finished",
}
"""Names in a run's folder, in the order in which people need them."""


def write_readme(run: RunFolder, state: RunState, config: TrainConfig, manifest: Manifest) -> None:
    """Write ``README.md``, as far as the run has come."""
    write_text(run.readme, "\n".join(_lines(run, state, config, manifest)) + "\n")


def files_of(config: TrainConfig, *, validates: bool, has_heads: bool) -> tuple[str, ...]:
    """Return the names that will stand in a run's folder.

    Args:
        config: From ``effective_config``.
        validates: There are validation tiles.
        has_heads: The objective has projection heads.
    """
    absent = set() if has_heads else {"heads.safetensors"}
    absent |= set() if validates else {"confusion.png", "examples.png"}
    absent |= set() if config.init else {"init.json"}
    absent |= set() if config.log else {"logs.json"}
    absent |= set() if "tensorboard" in config.log else {"tensorboard/"}
    return (*(name for name in _FILES if name not in absent), "README.md")


def _lines(run: RunFolder, state: RunState, config: TrainConfig, manifest: Manifest) -> Iterator[str]:
    yield f"# {run.path.name}"
    yield ""
    classes = ", ".join(manifest.classes.names)
    yield f"{config.backbone} with decoder {config.decoder}, loss {describe_loss(config.loss)}, on {manifest.name}:"
    yield f"{counted(manifest.classes.num_classes, 'class')} ({classes}), bands {', '.join(manifest.bands.names)}"
    yield f"({manifest.bands.dtype}), tiles of {manifest.tile_px} px{_ground(manifest)};"
    yield f"{', '.join(f'{len(manifest.split(split))} {split}' for split in manifest.splits)}."
    yield ""
    done = f"{state.epoch} of {counted(config.epochs, 'epoch')}"
    if state.epoch >= config.epochs or state.out_of_patience(config.patience):
        yield f"Finished: {done} in {format_duration(state.seconds)}."
    else:
        yield f"Not finished: {done} when this was written."
    yield ""
    yield from _scores(state)
    yield "## Go on"
    yield ""
    # Commands find runs by name below the folder that they are called in.
    shown = f"{RUNS}/{run.path.name}" if run.path.absolute().parent.name == RUNS else str(run.path.name)
    if state.epoch:
        yield f"    ctrs eval {shown}"
        yield f"    ctrs predict SCENE.tif --model {shown}"
        yield f"    ctrs info {shown}"
    if state.epoch < config.epochs:
        yield f"    ctrs train --resume --name {run.path.name}"
    yield ""
    yield "## Files"
    yield ""
    yield "| file | what it is |"
    yield "|---|---|"
    present = {entry.name for entry in run.path.iterdir()}
    for name, text in _FILES.items():
        if name.rstrip("/") in present:
            yield f"| `{name}` | {text} |"


def _ground(manifest: Manifest) -> str:
    return "" if manifest.pixel_size_m is None else f", {manifest.pixel_size_m:.3g} m a pixel"


def _scores(state: RunState) -> Iterator[str]:
    best = state.best
    if best is None:
        return
    if not best.scores:
        yield "Nothing validated: `best/` is the last epoch."
        yield ""
        return
    yield f"| validation, epoch {best.epoch} | |"
    yield "|---|---:|"
    for name, value in best.scores.items():
        label = name.removeprefix("iou ") if name.startswith("iou ") else name.replace("_", " ").replace("iou", "IoU")
        yield f"| {'IoU of ' if name.startswith('iou ') else ''}{label} | {_figure(value)} |"
    yield ""
    yield "They are those of validation tiles, which chose the epoch; `ctrs eval` scores whole scenes."
    yield ""


def _figure(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4f}"
