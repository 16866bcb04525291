"""``ctrs eval``: how good networks, or masks made by anyone, are on whole scenes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ctrs.cli import options
from ctrs.cli.console import Console, write_line
from ctrs.config import EvalConfig, PredictConfig, SplitName, parse_required_scores
from ctrs.errors import UsageError
from ctrs.raster.names import source_path
from ctrs.workspace import newest_prepared, newest_run, run_data_dir

if TYPE_CHECKING:
    from ctrs.evaluation.score_tables import ScoreTable

_DEFAULT = EvalConfig()
_DISTANCES = ",".join(f"{distance:g}" for distance in _DEFAULT.distances_px)
_PAGE = "report.html"
_MASKS, _SCORES = "Masks made by others", "Scores"
_OPTIONS = {
    "boundary_px": "--boundary",
    "distances_px": "--distances",
    "objects": "--objects",
    "object_iou": "--object-iou",
    "min_object_px": "--min-object",
    "bins": "--bins",
    "bootstrap": "--bootstrap",
    "confidence": "--confidence",
    "seed": "--seed",
    "num_places": "--places",
    "fail_under": "--fail-under",
    "batch_size": "--batch-size",
    "threads": "--threads",
}
"""By the key that holds the value."""


def evaluate(
    models: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Runs, checkpoint folders or weight files; the newest run unless given. Several are compared with "
            "the first."
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder that prepare wrote; the run's own unless given.")
    ] = None,
    split: Annotated[
        SplitName | None,
        typer.Option(help="train, val or test; test where there is one, else val. Several models: val unless given."),
    ] = None,
    fail_under: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Exit with 1 if a score is lower: building=0.8 (its IoU), mean_iou=0.7, building.object_f1=0.8, ...; "
            "repeatable.",
        ),
    ] = None,
    pred: Annotated[
        list[str] | None,
        typer.Option("--pred", help="Score this mask instead of a model; repeatable.", rich_help_panel=_MASKS),
    ] = None,
    truth: Annotated[
        list[str] | None,
        typer.Option("--truth", help="Labels or polygons for each --pred, in order.", rich_help_panel=_MASKS),
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(help="TOML with the class table of masks that name no classes.", rich_help_panel=_MASKS),
    ] = None,
    class_field: Annotated[
        str | None,
        typer.Option(
            help="Field of polygons that holds the class; each is a building unless given.", rich_help_panel=_MASKS
        ),
    ] = None,
    resample: Annotated[
        bool,
        typer.Option("--resample", help="Bring masks onto the grid of their truth (nearest).", rich_help_panel=_MASKS),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Folder of the comparison, or of the report on masks.", rich_help_panel="Output"
        ),
    ] = None,
    eroded: Annotated[
        bool | None,
        typer.Option(
            "--eroded/--no-eroded",
            help="Also score labels eroded here by 3 px, as ISPRS does.",
            show_default="where an ISPRS data set has none",
            rich_help_panel=_SCORES,
        ),
    ] = None,
    boundary: Annotated[
        int, typer.Option(help="Width of boundary IoU's band in pixels.", rich_help_panel=_SCORES)
    ] = _DEFAULT.boundary_px,
    distances: Annotated[
        str, typer.Option(help="Distances of boundary F1 in pixels, or none.", rich_help_panel=_SCORES)
    ] = _DISTANCES,
    objects: Annotated[
        str, typer.Option(help="Classes that are matched as objects, or none.", rich_help_panel=_SCORES)
    ] = ",".join(_DEFAULT.objects),
    object_iou: Annotated[
        float, typer.Option(help="IoU from which objects match.", rich_help_panel=_SCORES)
    ] = _DEFAULT.object_iou,
    min_object: Annotated[
        int, typer.Option(help="Objects of fewer pixels are left out.", rich_help_panel=_SCORES)
    ] = _DEFAULT.min_object_px,
    bins: Annotated[int, typer.Option(help="Bins of the calibration error.", rich_help_panel=_SCORES)] = _DEFAULT.bins,
    bootstrap: Annotated[
        int, typer.Option(help="Samples of scenes for intervals; 0: none.", rich_help_panel=_SCORES)
    ] = _DEFAULT.bootstrap,
    confidence: Annotated[
        float, typer.Option(help="Probability that intervals cover.", rich_help_panel=_SCORES)
    ] = _DEFAULT.confidence,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.", rich_help_panel=_SCORES)] = _DEFAULT.seed,
    places: Annotated[
        int, typer.Option(help="Worst and best places in the report, of each.", rich_help_panel=_SCORES)
    ] = _DEFAULT.num_places,
    pixels_only: Annotated[
        bool, typer.Option("--pixels-only", help="Scores of pixels and nothing else.", rich_help_panel=_SCORES)
    ] = False,
    batch_size: options.BatchSize = None,
    device: options.Device = _DEFAULT.predict.device,
    threads: options.Threads = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
) -> None:
    """Score whole scenes under every protocol, with outlines, objects, areas and confidence; compare several models."""
    console = Console(as_json=as_json, verbose=verbose, quiet=quiet)
    with options.called_as_typed(_OPTIONS):
        config = EvalConfig(
            split=split,
            predict=PredictConfig(batch_size=batch_size, device=device, threads=threads),
            classes=classes,
            class_field=class_field,
            resample=resample,
            boundary_px=boundary,
            distances_px=_numbers(distances),
            objects=_words("--objects", objects),
            object_iou=object_iou,
            min_object_px=min_object,
            bins=bins,
            bootstrap=bootstrap,
            confidence=confidence,
            seed=seed,
            num_places=places,
            eroded=eroded,
            pixels_only=pixels_only,
            fail_under=parse_required_scores(fail_under or ()),
            overwrite=overwrite,
        )
    _check_call(config, models, data, pred, truth, out)
    from ctrs.memory import share_one_arena

    share_one_arena()
    from ctrs.evaluation import evaluate as evaluate_checkpoint
    from ctrs.evaluation import evaluate_masks, evaluate_models
    from ctrs.evaluation.required_scores import unmet

    if pred and truth:
        masks = [source_path(text) for text in pred]
        folder = out or masks[0].parent / "eval" / masks[0].stem
        with console.progress() as progress:
            report = evaluate_masks(masks, [source_path(text) for text in truth], config, out=folder, progress=progress)
        for scene in report.scenes:
            for note in scene.notes:
                console.note(f"{scene.name}: {note}")
        reports = [report]
    else:
        checkpoints, data_dir = _models_and_data(console, models, data)
        if len(checkpoints) > 1:
            with console.progress() as progress:
                comparison = evaluate_models(checkpoints, data_dir, config, out=out, progress=progress)
            reports = list(comparison.reports)
        else:
            with console.progress() as progress:
                reports = [evaluate_checkpoint(checkpoints[0], data_dir, config, progress=progress)]
    result = comparison if len(reports) > 1 else reports[0]
    console.note(result.summary())
    console.result(result.to_json(), lambda: _show(console, result.tables(), result.path))
    lines = [line for entry in reports for line in unmet(entry, config.fail_under)]
    for line in lines:
        write_line(sys.stderr, f"error: {line}")
    if lines:
        raise typer.Exit(1)


def _check_call(
    config: EvalConfig,
    models: Sequence[Path] | None,
    data: Path | None,
    pred: Sequence[str] | None,
    truth: Sequence[str] | None,
    out: Path | None,
) -> None:
    """Refuse options that have no meaning together."""
    if pred or truth:
        if not pred or not truth:
            raise UsageError("--pred and --truth belong together: name a mask and its labels")
        given = [name for name, value in (("MODELS", models), ("--data", data), ("--split", config.split)) if value]
        if given:
            raise UsageError(f"{', '.join(given)} and --pred found; score either models or masks")
        usual = _DEFAULT.predict
        of_models = (
            ("--batch-size", config.predict.batch_size != usual.batch_size),
            ("--device", config.predict.device != usual.device),
            ("--threads", config.predict.threads != usual.threads),
        )
        given = [name for name, is_given in of_models if is_given]
        if given:
            raise UsageError(f"{', '.join(given)} and --pred found; no network runs where masks are scored: leave out")
        return
    masks_only = (("--classes", config.classes), ("--class-field", config.class_field), ("--resample", config.resample))
    given = [name for name, value in masks_only if value]
    if given:
        raise UsageError(f"{', '.join(given)} found without --pred; it is for masks made by others")
    if out is not None and len(models or ()) < 2:
        raise UsageError("--out found with one model, whose report stands in its run; leave it out, or name two models")


def _models_and_data(console: Console, models: Sequence[Path] | None, data: Path | None) -> tuple[list[Path], Path]:
    """Return the models and the data to score them on, the newest ones where none are given."""
    checkpoints = list(models or [newest_run()])
    if not models:
        console.note(f"run: {checkpoints[0]}")
    if data is not None:
        return checkpoints, data
    from ctrs.model_files import find_checkpoint

    for checkpoint in checkpoints:
        find_checkpoint(checkpoint)  # if one is no checkpoint, missing data are not what to complain about
    found = [run_data_dir(checkpoint) for checkpoint in checkpoints]
    own = list(dict.fromkeys(folder.absolute() for folder in found if folder is not None))
    if len(own) > 1:
        raise UsageError(
            f"models trained on {' and '.join(map(str, own))} found; say with --data what all are to be scored on"
        )
    data_dir = next((folder for folder in found if folder is not None), None) or newest_prepared()
    console.note(f"data: {data_dir}")
    return checkpoints, data_dir


def _show(console: Console, tables: Sequence[ScoreTable], path: Path | None) -> None:
    for table in tables:
        console.table(table.title, table.header, table.rows)
    if path is not None:
        for file in (path, path.with_name(_PAGE)):
            if file.exists():
                console.line(str(file))


def _words(option: str, text: str) -> tuple[str, ...]:
    words = tuple(part.strip() for part in text.split(",") if part.strip())
    if not words:
        raise UsageError(f"{option} {text!r} found, expected values joined by commas, or none")
    return () if words == ("none",) else words


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in _words("--distances", text))
    except ValueError as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(
            f"--distances {text!r} found, expected pixels joined by commas, such as 1,3,5, or none"
        ) from None
