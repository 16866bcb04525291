"""``ctrs eval``: how good a network is, on whole scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ctrs.cli import options
from ctrs.cli.console import Console
from ctrs.config import EvalConfig, PredictConfig, SplitName
from ctrs.workspace import newest_prepared, newest_run, run_data_dir

_DEFAULT = PredictConfig()


def evaluate(
    model: Annotated[
        Path | None,
        typer.Argument(help="Run folder, checkpoint folder or model.safetensors; the newest run unless given."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder that prepare wrote; the run's own unless given.")
    ] = None,
    split: Annotated[
        SplitName | None, typer.Option(help="train, val or test; test where there is one, else val.")
    ] = None,
    batch_size: options.BatchSize = None,
    device: options.Device = _DEFAULT.device,
    threads: options.Threads = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
) -> None:
    """Score whole scenes: IoU and F1 for each class, overall accuracy, mean IoU without unscored classes (Clutter)."""
    console = Console(as_json=as_json, verbose=verbose, quiet=quiet)
    checkpoint = model or newest_run()
    if model is None:
        console.note(f"run: {checkpoint}")
    data_dir = data or run_data_dir(checkpoint)
    if data_dir is None:
        from ctrs.model_files import find_checkpoint

        find_checkpoint(checkpoint)  # if that is no checkpoint, missing data are not what to complain about
        data_dir = newest_prepared()
    if data is None:
        console.note(f"data: {data_dir}")
    config = EvalConfig(
        split=split,
        predict=PredictConfig(batch_size=batch_size, device=device, threads=threads),
        overwrite=overwrite,
    )
    from ctrs.training import evaluate as evaluate_checkpoint

    with console.progress() as progress:
        report = evaluate_checkpoint(checkpoint, data_dir, config, progress=progress)

    console.note(report.summary())

    def show() -> None:
        for table in report.tables():
            console.table(table.title, table.header, table.rows)
        console.line(str(report.path))

    console.result(report.to_json(), show)
