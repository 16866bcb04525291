"""``ctrs predict``: scenes become masks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ctrs.cli import options
from ctrs.cli.console import Console
from ctrs.config import Blend, Precision, PredictConfig
from ctrs.errors import CtrsError, UsageError
from ctrs.workspace import newest_run

_DEFAULT = PredictConfig()


def predict(
    scenes: Annotated[list[str], typer.Argument(help="Rasters, folders of rasters, or names that GDAL opens.")],
    model: options.Model = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="A .tif for one scene, else a folder; SCENE_mask.tif beside each scene unless given."
        ),
    ] = None,
    window: Annotated[
        int | None, typer.Option(help="Window edge in scene pixels.", show_default="the checkpoint's")
    ] = None,
    overlap: Annotated[
        float | None,
        typer.Option(help="Share of the window that neighbours have in common.", show_default="the checkpoint's"),
    ] = None,
    blend: Annotated[Blend, typer.Option(help="Weights of overlapping windows.")] = _DEFAULT.blend,
    bidx: Annotated[
        str | None, typer.Option(help="Bands to use, from 1, in the order of the model's bands: 3,2,1.")
    ] = None,
    batch_size: options.BatchSize = None,
    device: options.Device = _DEFAULT.device,
    precision: Annotated[
        Precision,
        typer.Option(help="Number format; auto is bf16 on capable GPUs, else fp32.", rich_help_panel="Compute"),
    ] = _DEFAULT.precision,
    threads: options.Threads = None,
    confidence: Annotated[
        bool,
        typer.Option(
            "--confidence", help="Also write SCENE_confidence.tif: how probable the predicted class is, 0 to 1."
        ),
    ] = False,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
) -> None:
    """Map scenes by sliding windows; write one cloud-optimized GeoTIFF mask for each, on the scene's own grid."""
    console = Console(as_json=as_json, verbose=verbose, quiet=quiet)
    config = PredictConfig(
        window_px=window,
        overlap=overlap,
        blend=blend,
        bidx=_band_numbers(bidx),
        batch_size=batch_size,
        device=device,
        precision=precision,
        threads=threads,
        confidence=confidence,
        overwrite=overwrite,
    )
    checkpoint = model or newest_run()
    if model is None:
        console.note(f"run: {checkpoint}")
    from ctrs.inference import Predictor, mask_paths
    from ctrs.raster.confidence import confidence_path

    pairs = mask_paths(scenes, out)
    predictor = Predictor.from_checkpoint(checkpoint, device=device, precision=precision)
    masks: list[Path] = []
    failed: list[CtrsError] = []
    with console.progress() as progress:
        for scene, mask in pairs:
            try:
                masks.append(predictor.predict_raster(scene, mask, config, progress=progress))
            except CtrsError as error:
                if len(pairs) == 1:
                    raise
                failed.append(error)  # the other scenes are worth their masks
                console.note(f"failed: {error}")
            else:
                console.note(f"{scene} -> {mask}")

    surely = [confidence_path(mask) for mask in masks] if confidence else []

    def show() -> None:
        for path in (*masks, *surely):
            console.line(str(path))

    payload: dict[str, object] = {"model": str(checkpoint), "masks": [str(mask) for mask in masks]}
    if confidence:
        payload["confidences"] = [str(path) for path in surely]
    console.result(payload, show)
    if failed:
        raise CtrsError(f"{len(failed)} of {len(pairs)} scenes have no mask, the first because: {failed[0]}")


def _band_numbers(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--bidx {text!r} found, expected band numbers joined by commas, such as 3,2,1") from None
