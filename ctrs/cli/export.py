"""``ctrs export``: a model in a form that other programs run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ctrs.cli import options
from ctrs.cli.console import Console
from ctrs.errors import UsageError
from ctrs.workspace import newest_run

_FORMATS, _NETWORK = "Formats", "Network"


def export(
    model: Annotated[
        Path | None,
        typer.Argument(
            help="Run folder, checkpoint folder or weight file; the newest run unless given.", show_default=False
        ),
    ] = None,
    onnx: Annotated[
        bool,
        typer.Option(
            "--onnx", help="ONNX file for the QGIS plugin Deepness, GeoDeep and onnxruntime.", rich_help_panel=_FORMATS
        ),
    ] = False,
    pt2: Annotated[
        bool, typer.Option("--pt2", help="Archive of torch.export, for torch without ctrs.", rich_help_panel=_FORMATS)
    ] = False,
    window: Annotated[
        int | None,
        typer.Option(
            help="Edge of the windows that it takes, in pixels; the model's unless given.",
            show_default=False,
            rich_help_panel=_NETWORK,
        ),
    ] = None,
    logits: Annotated[
        bool,
        typer.Option(
            "--logits", help="Return logits; Deepness and GeoDeep need probabilities.", rich_help_panel=_NETWORK
        ),
    ] = False,
    out: options.Out = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a model for other programs; what is written must compute what the model computes, to 1e-4."""
    console = Console(as_json=as_json, verbose=verbose, quiet=quiet)
    if not (onnx or pt2):
        raise UsageError("no format given; pass --onnx, --pt2 or both")
    if onnx and pt2 and out is not None:
        raise UsageError("--out names one file; give --onnx or --pt2 with it, or leave it out")
    path = model or newest_run()
    if model is None:
        console.note(f"run: {path}")

    from ctrs.inference.export import TOLERANCE, Export, export_onnx, export_program

    written: list[Export] = []
    for wanted, write in ((onnx, export_onnx), (pt2, export_program)):
        if wanted:
            with console.progress() as progress:
                result = write(
                    path,
                    out,
                    window_px=window,
                    output="logits" if logits else "probabilities",
                    overwrite=overwrite,
                    progress=progress,
                )
            written.append(result)
            for text in result.misfits:
                console.note(f"{result.path.name}: {text}")
            if result.difference is not None:
                console.note(
                    f"{result.path.name}: windows of {result.window_px} px; its results differ from the model's by "
                    f"{result.difference:.1g} at most, {TOLERANCE:g} is allowed"
                )

    def show() -> None:
        for result in written:
            console.line(str(result.path))

    console.result({"model": str(path), "written": [result.to_json() for result in written]}, show)
