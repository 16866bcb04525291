"""``ctrs train``: tiles become a network."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from ctrs.cli import options
from ctrs.cli.console import Console, format_seconds
from ctrs.config import (
    DEFAULT_WEIGHTS,
    RECIPES,
    Decoder,
    Precision,
    Recipe,
    TrainConfig,
    read_toml,
    resolve_train_config,
    run_name,
)
from ctrs.errors import InputNotFoundError, UsageError
from ctrs.workspace import RUNS, free_run_dir, newest_prepared, newest_run

_DEFAULT = TrainConfig()


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
    recipe: Annotated[
        Recipe | None,
        typer.Option(help="A paper's settings (cms-paper, pne-paper: loss terms only); options beside it win."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="imagenet, none, or a local file of encoder weights.", show_default=str(_DEFAULT.weights)),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the training tiles.", show_default=str(_DEFAULT.epochs))
    ] = None,
    batch_size: options.BatchSize = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Step size.", show_default="8e-5 from pretrained weights, else 5e-4")
    ] = None,
    crop: Annotated[
        int | None, typer.Option(help="Edge of training crops in pixels.", show_default="the tile size")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Loader processes.", rich_help_panel="Compute")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of everything random.", show_default=str(_DEFAULT.seed))
    ] = None,
    fold: Annotated[
        int | None, typer.Option(help="Fold that validates, from 0, of data prepared with --folds.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda, cuda:1, ...", show_default="auto", rich_help_panel="Compute")
    ] = None,
    precision: Annotated[
        Precision | None,
        typer.Option(
            help="Number format of the network.",
            show_default="auto: bf16 on capable GPUs, else fp32",
            rich_help_panel="Compute",
        ),
    ] = None,
    threads: options.Threads = None,
    name: Annotated[str | None, typer.Option(help="Name of the run under runs/.")] = None,
    config_file: Annotated[Path | None, typer.Option("--config", help="TOML file; options win over it.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped run (the newest, or --name).")] = False,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a network on prepared tiles; write checkpoints, metrics and curves to runs/NAME."""
    console = Console(as_json=as_json, verbose=verbose, quiet=quiet)
    given = {
        "backbone": backbone,
        "decoder": decoder,
        "loss": loss,
        "recipe": recipe,
        "weights": weights,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "crop": crop,
        "workers": workers,
        "seed": seed,
        "fold": fold,
        "device": device,
        "precision": precision,
        "threads": threads,
    }
    chosen = {key: value for key, value in given.items() if value is not None}
    if name is not None and (not name or name != Path(name).name or name.startswith(".")):
        raise UsageError(f"--name {name!r} found, expected a plain folder name: runs stand in {RUNS}/, side by side")
    if resume:
        run_dir, data_dir, config = _stopped_run(data, name, chosen, config_file, overwrite=overwrite)
    else:
        file = read_toml(config_file) if config_file else {}
        config = resolve_train_config(file, chosen, where=str(config_file) if config_file else "options")
        if config.recipe and set(RECIPES[config.recipe]) == {"loss"}:
            console.note(f"recipe {config.recipe}: sets the loss terms and weights only; loss: {config.loss}")
        data_dir = data or newest_prepared()
        if data is None:
            console.note(f"data: {data_dir}")
        run_dir = Path(RUNS) / name if name else free_run_dir(run_name(config, data_dir.absolute().name))
    console.note(f"run: {run_dir}")

    from ctrs.training import train as train_network

    with console.progress() as progress:
        result = train_network(
            data_dir,
            run_dir,
            config,
            resume=resume,
            overwrite=overwrite,
            progress=progress,
            on_epoch=lambda record: console.note(record.describe()),
        )
    payload = result.to_json()

    def show() -> None:
        if result.metrics:
            rows = [[key, f"{value:.4f}"] for key, value in result.metrics.items()]
            console.table(f"best epoch {result.best_epoch} of {result.epochs}, validation", ["metric", "value"], rows)
        else:
            console.line(_without_validation(result.best_epoch, data_dir))
        console.note(f"trained in {format_seconds(result.seconds)}")
        console.line(str(run_dir))

    console.result(payload, show)


def _without_validation(epoch: int, data_dir: Path) -> str:
    """Say why there are no scores to show, and how to get some."""
    from ctrs.tiles import Manifest

    num_folds = Manifest.open(data_dir).num_folds
    how = f"choose --fold 0..{num_folds - 1}" if num_folds else "prepare the data with --val, --val-fraction or --folds"
    return f"epoch {epoch} kept, which is the last: no validation; {how}"


def _stopped_run(
    data: Path | None, name: str | None, chosen: dict[str, Any], config_file: Path | None, *, overwrite: bool
) -> tuple[Path, Path, TrainConfig]:
    """Find the run that ``--resume`` means, with the data and configuration written there."""
    from ctrs.training.run_config import MAY_CHANGE, read_run_config

    if config_file or overwrite or not set(chosen) <= MAY_CHANGE:
        allowed = ", ".join(f"--{key}" for key in sorted(MAY_CHANGE))
        raise UsageError(
            f"--resume goes on with a run as it was set up; beside it only DATA, --name, {allowed} and the output "
            "options may stand; start a new run for anything else"
        )
    run_dir = Path(RUNS) / name if name else newest_run(unfinished=True)
    if not run_dir.is_dir():
        raise InputNotFoundError(f"{run_dir}: no such run; see {RUNS}/ for those that exist")
    config, data_dir = read_run_config(run_dir)
    return run_dir, data or data_dir, dataclasses.replace(config, **chosen)
