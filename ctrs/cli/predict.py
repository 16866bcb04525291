"""``ctrs predict``: scenes become masks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from ctrs.cli import options
from ctrs.cli.console import Console
from ctrs.config import (
    Blend,
    ConfidenceKind,
    MosaicOutput,
    Precision,
    PredictConfig,
    ProbabilityFormat,
    parse_memory,
)
from ctrs.errors import CtrsError, UsageError
from ctrs.workspace import newest_run

_DEFAULT = PredictConfig()
_INPUT, _WINDOWS, _WRITTEN, _COMPUTE = "Input", "Windows", "What is written", "Compute"


def predict(
    scenes: Annotated[
        list[str], typer.Argument(help="Rasters, folders of rasters, patterns, or names that GDAL opens.")
    ],
    model: options.Model = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="A .tif for one scene, else a folder; SCENE_mask.tif beside each scene unless given."
        ),
    ] = None,
    mosaic: Annotated[
        MosaicOutput | None,
        typer.Option(
            help="Map all scenes as one raster, without seams: into one mask, or each into its own.",
            show_default=False,
            rich_help_panel=_INPUT,
        ),
    ] = None,
    bidx: Annotated[
        str | None,
        typer.Option(
            "--bidx",
            "-b",
            help="Bands to use, from 1, in the order of the model's bands: 3,2,1.",
            show_default="all but alpha",
            rich_help_panel=_INPUT,
        ),
    ] = None,
    gsd: Annotated[
        str | None,
        typer.Option(
            help="Ground metres of the pixels that the network sees, or `model` for those it was trained with.",
            show_default="the scene's",
            rich_help_panel=_INPUT,
        ),
    ] = None,
    bounds: Annotated[
        str | None,
        typer.Option(
            help="Map only W,S,E,N, in the scene's CRS; write --bounds=W,S,E,N where W is negative.",
            show_default=False,
            rich_help_panel=_INPUT,
        ),
    ] = None,
    aoi: Annotated[
        Path | None,
        typer.Option(
            help="Vector file with the area of interest; outside it is nodata.",
            show_default=False,
            rich_help_panel=_INPUT,
        ),
    ] = None,
    skip_unreadable: Annotated[
        bool,
        typer.Option("--skip-unreadable", help="Broken blocks become nodata and are reported.", rich_help_panel=_INPUT),
    ] = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Refuse scenes unlike the training imagery instead of warning.", rich_help_panel=_INPUT
        ),
    ] = False,
    window: Annotated[
        int | None,
        typer.Option(
            help="Window edge in pixels that the network sees.",
            show_default="the checkpoint's",
            rich_help_panel=_WINDOWS,
        ),
    ] = None,
    overlap: Annotated[
        float | None,
        typer.Option(
            help="Share of the window that neighbours have in common.",
            show_default="the checkpoint's",
            rich_help_panel=_WINDOWS,
        ),
    ] = None,
    blend: Annotated[
        Blend, typer.Option(help="Weights of overlapping windows.", rich_help_panel=_WINDOWS)
    ] = _DEFAULT.blend,
    tta: Annotated[
        str,
        typer.Option(
            help="Test-time augmentation: none, flip, d4 or multiscale:0.75,1,1.25.", rich_help_panel=_WINDOWS
        ),
    ] = _DEFAULT.tta,
    classes: Annotated[
        str | None,
        typer.Option(
            help="Names of the classes to write, joined by commas; the rest becomes `other`.",
            show_default="all",
            rich_help_panel=_WRITTEN,
        ),
    ] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=PROBABILITY from which a pixel is of that class: building=0.6; may be repeated.",
            show_default="the most probable class",
            rich_help_panel=_WRITTEN,
        ),
    ] = None,
    confidence: Annotated[
        ConfidenceKind | None,
        typer.Option(
            help="Also write SCENE_confidence.tif: how sure the network is, 0 to 1.",
            show_default=False,
            rich_help_panel=_WRITTEN,
        ),
    ] = None,
    probabilities: Annotated[
        ProbabilityFormat | None,
        typer.Option(
            help="Also write SCENE_probabilities.tif, one band for each class.",
            show_default=False,
            rich_help_panel=_WRITTEN,
        ),
    ] = None,
    style: Annotated[
        bool, typer.Option("--qml", help="Also write a QGIS style, SCENE_mask.qml.", rich_help_panel=_WRITTEN)
    ] = False,
    stac: Annotated[
        bool, typer.Option("--stac", help="Also write a STAC item, SCENE_mask.stac.json.", rich_help_panel=_WRITTEN)
    ] = False,
    creation_options: Annotated[
        list[str] | None,
        typer.Option(
            "--co",
            help="NAME=VALUE for GDAL's COG driver: COMPRESS=ZSTD; may be repeated.",
            show_default=False,
            rich_help_panel=_WRITTEN,
        ),
    ] = None,
    batch_size: options.BatchSize = None,
    device: options.Device = _DEFAULT.device,
    precision: Annotated[
        Precision,
        typer.Option(help="Number format; auto is bf16 where the device computes it fast.", rich_help_panel=_COMPUTE),
    ] = _DEFAULT.precision,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the network first (torch.compile).", rich_help_panel=_COMPUTE)
    ] = False,
    threads: options.Threads = None,
    max_memory: Annotated[
        str | None,
        typer.Option(
            help="Memory beside network and activations, such as 500MB; wide scenes are mapped in blocks of columns.",
            show_default="whole rows",
            rich_help_panel=_COMPUTE,
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on with unfinished work.", rich_help_panel="Output")
    ] = True,
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
        tta=tta,
        batch_size=batch_size,
        bidx=_band_numbers(bidx),
        gsd=_ground_size(gsd),
        bounds=_rectangle(bounds),
        aoi=aoi,
        classes=_names(classes),
        thresholds=_thresholds(threshold or ()),
        confidence=confidence,
        probabilities=probabilities,
        device=device,
        precision=precision,
        compile=compiled,
        threads=threads,
        max_memory=None if max_memory is None else parse_memory(max_memory),
        skip_unreadable=skip_unreadable,
        strict=strict,
        creation_options=tuple(_creation_option(text) for text in creation_options or ()),
        style=style,
        stac=stac,
        resume=resume,
        overwrite=overwrite,
    )
    checkpoint = model or newest_run()
    if model is None:
        console.note(f"run: {checkpoint}")
    from ctrs.memory import share_one_arena

    share_one_arena()
    from ctrs.inference import Predictor, mask_paths, predict_mosaic
    from ctrs.raster.creation_options import check_creation_options
    from ctrs.raster.names import without_secrets

    check_creation_options(config.creation_options)
    pairs = [] if mosaic is not None else mask_paths(scenes, out)
    predictor = Predictor.from_checkpoint(checkpoint, device=device, precision=precision, config=config)
    masks: list[Path] = []
    failed: list[tuple[str, CtrsError]] = []
    with console.progress() as progress:
        if mosaic is not None:
            masks = predict_mosaic(
                predictor, scenes, out, config, each=mosaic == "each", progress=progress, command=sys.argv
            )
        else:
            for scene, mask in pairs:
                try:
                    masks.append(predictor.predict_raster(scene, mask, config, progress=progress, command=sys.argv))
                except CtrsError as error:
                    if len(pairs) == 1:
                        raise
                    failed.append((str(scene), error))  # the other scenes are worth their masks
                    console.failure(str(error))
                else:
                    console.note(f"{without_secrets(str(scene))} -> {mask}")
    _show_outputs(console, checkpoint, masks, config, failed)
    if failed:
        raise CtrsError(f"{len(failed)} of {len(pairs)} scenes have no mask, for the reasons above")


def _show_outputs(
    console: Console,
    checkpoint: Path,
    masks: list[Path],
    config: PredictConfig,
    failed: list[tuple[str, CtrsError]],
) -> None:
    from ctrs.raster.confidence import confidence_path
    from ctrs.raster.names import shown, without_secrets
    from ctrs.raster.probabilities import probabilities_path

    payload: dict[str, object] = {"model": str(checkpoint), "masks": [str(mask) for mask in masks]}
    payload["failed"] = [{"scene": without_secrets(shown(scene)), "error": str(error)} for scene, error in failed]
    beside: list[Path] = []
    if config.confidence is not None:
        payload["confidences"] = [str(confidence_path(mask)) for mask in masks]
        beside += [confidence_path(mask) for mask in masks]
    if config.probabilities is not None:
        payload["probabilities"] = [str(probabilities_path(mask)) for mask in masks]
        beside += [probabilities_path(mask) for mask in masks]

    def show() -> None:
        for path in (*masks, *beside):
            console.line(str(path))

    console.result(payload, show)


def _band_numbers(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--bidx {text!r} found, expected band numbers joined by commas, such as 3,2,1") from None


def _ground_size(text: str | None) -> float | Literal["model"] | None:
    if text is None:
        return None
    if text == "model":
        return "model"
    try:
        return float(text.lower().removesuffix("m"))
    except ValueError:
        raise UsageError(f"--gsd {text!r} found, expected metres such as 0.1, or model") from None


def _rectangle(text: str | None) -> tuple[float, float, float, float] | None:
    if text is None:
        return None
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--bounds {text!r} found, expected W,S,E,N in the scene's CRS") from None
    if not (west < east and south < north):
        raise UsageError(f"--bounds {text!r} found, expected W,S,E,N with W below E and S below N")
    return west, south, east, north


def _names(text: str | None) -> tuple[str, ...]:
    names = () if text is None else tuple(part.strip() for part in text.split(",") if part.strip())
    if text is not None and not names:
        raise UsageError(f"--classes {text!r} found, expected names of classes, joined by commas")
    return names


def _thresholds(texts: Sequence[str]) -> tuple[tuple[str, float], ...]:
    found = tuple(_threshold(text) for text in texts)
    named = [name for name, _ in found]
    twice = [text for text, name in zip(texts, named, strict=True) if named.count(name) > 1]
    if twice:
        raise UsageError(f"--threshold {' and '.join(twice)} found, expected one probability for each class")
    return found


def _threshold(text: str) -> tuple[str, float]:
    name, _, value = text.rpartition("=")
    try:
        found = name.strip(), float(value)
    except ValueError:
        found = "", 0.0
    if not found[0] or not 0 < found[1] <= 1:
        raise UsageError(f"--threshold {text!r} found, expected NAME=PROBABILITY, up to 1, such as building=0.6")
    return found


def _creation_option(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise UsageError(f"--co {text!r} found, expected NAME=VALUE such as COMPRESS=ZSTD")
    return name.strip().upper(), value.strip()
