"""``ctrs train``: tiles become a network."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from ctrs.cli import options
from ctrs.cli.console import Console
from ctrs.config import (
    DEFAULT_WEIGHTS,
    RECIPES,
    SEGMENTATION_WEIGHTS,
    Decoder,
    Optimizer,
    Precision,
    Recipe,
    RunLog,
    Sampling,
    Schedule,
    TrainConfig,
    idle_settings,
    merge,
    read_assignments,
    read_toml,
    resolve_train_config,
    run_name,
)
from ctrs.errors import InputNotFoundError, OptionWarning, UsageError
from ctrs.launcher import leads
from ctrs.progress import format_duration
from ctrs.workspace import RUNS, free_run_dir, newest_prepared, newest_run, run_data_dir

_DEFAULT = TrainConfig()
_OPTIMIZER, _COMPUTE = "Optimizer", "Compute"


def train(
    data: Annotated[
        Path | None, typer.Argument(help="Folder that prepare wrote; the newest under prepared/ unless given.")
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(help="poolformer, swin, convnext, ... or a timm model.", show_default=str(_DEFAULT.backbone)),
    ] = None,
    decoder: Annotated[Decoder | None, typer.Option(help="Decoder.", show_default=str(_DEFAULT.decoder))] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            help=f"none, or {', '.join(DEFAULT_WEIGHTS)}, joined by +, each with a weight: cl:0.5.",
            show_default=str(_DEFAULT.loss),
        ),
    ] = None,
    segmentation: Annotated[
        str | None,
        typer.Option(
            help=f"Segmentation loss: {', '.join(SEGMENTATION_WEIGHTS)}, joined by +, each with a weight.",
            show_default=str(_DEFAULT.segmentation.terms),
        ),
    ] = None,
    recipe: Annotated[
        Recipe | None,
        typer.Option(help="A paper's settings (cms-paper, pne-paper: loss terms only); options beside it win."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="imagenet, none, or a local file of encoder weights.", show_default=str(_DEFAULT.weights)),
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(help="ctrs model to begin from (fine-tuning), whatever its classes and bands."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the training tiles.", show_default=str(_DEFAULT.epochs))
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Tiles in each step, over all devices.", show_default="32 for each GPU, 8 on the CPU"),
    ] = None,
    accumulate: Annotated[
        int | None, typer.Option(help="Parts that a batch is computed in, to save memory.", show_default="1")
    ] = None,
    auto: Annotated[
        bool, typer.Option("--auto", help="Choose batch size and workers by trying.", rich_help_panel=_COMPUTE)
    ] = False,
    optimizer: Annotated[
        Optimizer | None,
        typer.Option(help="Optimizer.", show_default=str(_DEFAULT.optimizer), rich_help_panel=_OPTIMIZER),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="Step size.",
            show_default="8e-5 from pretrained weights, else 5e-4; 0.01 with sgd",
            rich_help_panel=_OPTIMIZER,
        ),
    ] = None,
    weight_decay: Annotated[
        float | None,
        typer.Option(help="Weight decay.", show_default=str(_DEFAULT.weight_decay), rich_help_panel=_OPTIMIZER),
    ] = None,
    schedule: Annotated[
        Schedule | None,
        typer.Option(
            help="Learning rate over the run.", show_default=str(_DEFAULT.schedule), rich_help_panel=_OPTIMIZER
        ),
    ] = None,
    warmup_epochs: Annotated[
        int | None,
        typer.Option(help="Epochs of linear rise at the start.", show_default="0", rich_help_panel=_OPTIMIZER),
    ] = None,
    encoder_rate: Annotated[
        float | None,
        typer.Option(help="Factor on the encoder's learning rate.", show_default="1", rich_help_panel=_OPTIMIZER),
    ] = None,
    layer_decay: Annotated[
        float | None,
        typer.Option(help="Factor on it from each block of the encoder to the one before.", rich_help_panel=_OPTIMIZER),
    ] = None,
    frozen_stages: Annotated[
        int | None,
        typer.Option(help="First stages of the encoder that stay as they are.", rich_help_panel=_OPTIMIZER),
    ] = None,
    ema: Annotated[
        float | None,
        typer.Option(help="Decay of the moving average of the weights, e.g. 0.999.", rich_help_panel=_OPTIMIZER),
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many epochs without a better score.", rich_help_panel=_OPTIMIZER)
    ] = None,
    train_share: Annotated[
        float | None,
        typer.Option(help="Share of the training tiles to learn from.", show_default=f"{_DEFAULT.train_share:g}"),
    ] = None,
    tile_draws: Annotated[
        int | None,
        typer.Option(min=1, help="How often an epoch draws each tile.", show_default=str(_DEFAULT.tile_draws)),
    ] = None,
    sampling: Annotated[
        Sampling | None, typer.Option(help="How tiles are drawn.", show_default=str(_DEFAULT.sampling))
    ] = None,
    crop: Annotated[
        int | None, typer.Option(help="Edge of training crops in pixels.", show_default="the tile size")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Loader processes.", rich_help_panel=_COMPUTE)] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of everything random.", show_default=str(_DEFAULT.seed))
    ] = None,
    fold: Annotated[
        int | None, typer.Option(help="Fold that validates, from 0, of data prepared with --folds.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda, cuda:1, ...", show_default="auto", rich_help_panel=_COMPUTE)
    ] = None,
    precision: Annotated[
        Precision | None,
        typer.Option(
            help="Number format of the network.",
            show_default="auto: bf16 on capable GPUs, else fp32",
            rich_help_panel=_COMPUTE,
        ),
    ] = None,
    devices: Annotated[
        int | None,
        typer.Option(help="Devices that train together, on each node.", show_default="1", rich_help_panel=_COMPUTE),
    ] = None,
    num_nodes: Annotated[
        int | None,
        typer.Option("--nodes", help="Machines that train together.", show_default="1", rich_help_panel=_COMPUTE),
    ] = None,
    compile_network: Annotated[
        bool, typer.Option("--compile", help="Compile the network with torch.compile.", rich_help_panel=_COMPUTE)
    ] = False,
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic", help="The same weights each time on the same machine.", rich_help_panel=_COMPUTE
        ),
    ] = False,
    threads: options.Threads = None,
    log: Annotated[
        list[str] | None,
        typer.Option(help=f"Log beside metrics.csv: {', '.join(get_args(RunLog))}.", show_default="tensorboard"),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run under runs/.")] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any key of the TOML file: --set augment.cutmix=0.5.", metavar="KEY=VALUE"),
    ] = None,
    config_file: Annotated[Path | None, typer.Option("--config", help="TOML file; options win over it.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped run (the newest, or --name).")] = False,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a network on prepared tiles; write checkpoints, metrics and curves to runs/NAME."""
    follows = not leads()
    console = Console(as_json=as_json, verbose=verbose, quiet=quiet or follows)
    given = {
        "backbone": backbone,
        "decoder": decoder,
        "loss": loss,
        "segmentation": None if segmentation is None else {"terms": segmentation},
        "recipe": recipe,
        "weights": weights,
        "init": None if init is None else str(init),
        "epochs": epochs,
        "batch_size": batch_size,
        "accumulate": accumulate,
        "auto": auto or None,
        "optimizer": optimizer,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "schedule": schedule,
        "warmup_epochs": warmup_epochs,
        "encoder_rate": encoder_rate,
        "layer_decay": layer_decay,
        "frozen_stages": frozen_stages,
        "ema": ema,
        "patience": patience,
        "train_share": train_share,
        "tile_draws": tile_draws,
        "sampling": sampling,
        "crop": crop,
        "workers": workers,
        "seed": seed,
        "fold": fold,
        "device": device,
        "devices": devices,
        "num_nodes": num_nodes,
        "precision": precision,
        "compile": compile_network or None,
        "deterministic": deterministic or None,
        "threads": threads,
        "log": log,
    }
    options_given = {key: value for key, value in given.items() if value is not None}
    chosen = merge(read_assignments(assignments or ()), options_given)
    if name is not None and (not name or name != Path(name).name or name.startswith(".")):
        raise UsageError(f"--name {name!r} found, expected a plain folder name: runs stand in {RUNS}/, side by side")
    if resume:
        refused = _refused_beside_resume(options_given, assignments or (), config_file, overwrite=overwrite)
        if refused:
            raise UsageError(_only_as_set_up(refused, given))
        run_dir, data_dir, config = _stopped_run(data, name, chosen)
    else:
        file = read_toml(config_file) if config_file else {}
        file = _as_its_source(file, chosen)
        with options.called_as_typed({key: _option(key) for key in options_given}):
            config = resolve_train_config(file, chosen, where=str(config_file) if config_file else "options")
        if config.recipe and set(RECIPES[config.recipe]) == {"loss"}:
            console.note(f"recipe {config.recipe}: sets the loss terms and weights only; loss: {config.loss}")
        for idle in idle_settings(merge(file, chosen), config):
            warnings.warn(idle, OptionWarning, stacklevel=2)
        data_dir = data or newest_prepared()
        if data is None:
            console.note(f"data: {data_dir}")
        run_dir = Path(RUNS) / name if name else free_run_dir(run_name(config, data_dir.absolute().name))
    console.note(f"run: {run_dir}")

    from ctrs.cli.live_table import training_view
    from ctrs.training import train as train_network

    with training_view(console) as view:
        result = train_network(
            data_dir,
            run_dir,
            config,
            resume=resume,
            overwrite=overwrite,
            progress=view.progress,
            on_plan=view.on_plan,
            on_epoch=view.on_epoch,
        )
    payload = result.to_json()

    def show() -> None:
        if result.metrics:
            rows = [[key, f"{value:.4f}"] for key, value in result.metrics.items()]
            console.table(f"best epoch {result.best_epoch} of {result.epochs}, validation", ["metric", "value"], rows)
        else:
            console.line(_without_validation(result.best_epoch, data_dir))
        console.note(f"trained in {format_duration(result.seconds)}")
        console.line(str(run_dir))

    if not follows:
        console.result(payload, show)


def _as_its_source(file: dict[str, Any], chosen: dict[str, Any]) -> dict[str, Any]:
    """Take backbone and decoder of the model that training begins from, unless they are given."""
    source = chosen.get("init", file.get("init"))
    if not isinstance(source, str) or not source:
        return file
    from ctrs.model_files import read_metadata

    architecture = read_metadata(Path(source)).architecture
    return {"backbone": architecture.backbone, "decoder": architecture.decoder, **file}


def _without_validation(epoch: int, data_dir: Path) -> str:
    """Say why there are no scores to show, and how to get some."""
    from ctrs.tiles import Manifest

    num_folds = Manifest.open(data_dir).num_folds
    how = f"choose --fold 0..{num_folds - 1}" if num_folds else "prepare the data with --val, --val-fraction or --folds"
    return f"epoch {epoch} kept, which is the last: no validation; {how}"


def _option(key: str) -> str:
    return "--nodes" if key == "num_nodes" else f"--{key.replace('_', '-')}"


def _refused_beside_resume(
    options_given: Iterable[str], assignments: Sequence[str], config_file: Path | None, *, overwrite: bool
) -> list[str]:
    """Name, as typed, what a run that goes on cannot have otherwise."""
    from ctrs.training.run_config import MAY_CHANGE

    keys = [text.partition("=")[0].strip() for text in assignments]
    return [
        *(_option(key) for key in options_given if key not in MAY_CHANGE),
        *(f"--set {key}" for key in keys if key not in MAY_CHANGE),
        *(["--config"] if config_file else []),
        *(["--overwrite"] if overwrite else []),
    ]


def _only_as_set_up(refused: Sequence[str], options_known: Iterable[str]) -> str:
    from ctrs.training.run_config import MAY_CHANGE

    typed = MAY_CHANGE & set(options_known)
    allowed = ", ".join(sorted(map(_option, typed)))
    return (
        f"{', '.join(refused)} found, but --resume goes on with a run as it was set up; beside it only DATA, --name, "
        f"{allowed}, --set of {', '.join(sorted(MAY_CHANGE - typed))} and the output options may stand; start a new "
        "run for anything else"
    )


def _stopped_run(data: Path | None, name: str | None, chosen: dict[str, Any]) -> tuple[Path, Path, TrainConfig]:
    """Find the run that ``--resume`` means, with the data and configuration written there."""
    from ctrs.training.run_config import read_run_config

    run_dir = Path(RUNS) / name if name else newest_run(unfinished=True)
    if not run_dir.is_dir():
        raise InputNotFoundError(f"{run_dir}: no such run; see {RUNS}/ for those that exist")
    config, data_dir = read_run_config(run_dir)
    return run_dir, data or run_data_dir(run_dir) or data_dir, dataclasses.replace(config, **chosen)
