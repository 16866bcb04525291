"""``ctrs vectorize``: masks become polygons."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from ctrs.cli import options
from ctrs.cli.console import Console
from ctrs.cli.polygon_quality import show_quality
from ctrs.config import Connectivity, Regularization, Split, VectorizeConfig
from ctrs.errors import InputNotFoundError, UsageError

_DEFAULT = VectorizeConfig()


def vectorize(
    masks: Annotated[list[Path], typer.Argument(help="Class masks as predict writes them.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="File for one mask (.gpkg, .parquet, .fgb, .geojson, .shp), else a folder.",
            show_default="MASK.gpkg beside each",
        ),
    ] = None,
    classes: Annotated[str, typer.Option(help="Class names joined by commas, or all.")] = ",".join(_DEFAULT.classes),
    min_area: Annotated[
        float | None,
        typer.Option(help="Smallest polygon, ground m².", show_default="4; 8 with --regularize"),
    ] = None,
    min_hole: Annotated[
        float | None,
        typer.Option(help="Smallest hole, ground m².", show_default="2; 4 with --regularize"),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            "--tolerance",
            "--simplify",
            help="Tolerance of simplification, ground metres; 0 for none.",
            show_default="1.5 pixels",
        ),
    ] = None,
    regularize: Annotated[
        Regularization,
        typer.Option(help="Straight walls for buildings: right angles alone (fast), or others and circles too (full)."),
    ] = _DEFAULT.regularize,
    split: Annotated[
        Split, typer.Option(help="Part buildings that touch in the mask: by shape, or where their probability dips.")
    ] = _DEFAULT.split,
    split_width: Annotated[
        float | None,
        typer.Option(
            help="Narrowest place that two parts of one building may have, ground metres; with --split.",
            show_default=f"{_DEFAULT.neck_m:g}",
        ),
    ] = None,
    instances: Annotated[
        bool, typer.Option("--instances", help="The mask numbers buildings, each a polygon; they share party walls.")
    ] = False,
    probabilities: Annotated[
        str | None,
        typer.Option(
            help="Probabilities on the mask's grid, or none.", show_default="SCENE_probabilities.tif beside the mask"
        ),
    ] = None,
    opening: Annotated[
        float, typer.Option(help="Parts narrower than this leave first, ground metres; 0 for none.")
    ] = _DEFAULT.opening_m,
    closing: Annotated[
        float, typer.Option(help="Gaps narrower than this are filled first, ground metres; 0 for none.")
    ] = _DEFAULT.closing_m,
    smooth: Annotated[
        float, typer.Option(help="Even out borders of other classes below this length, ground metres; 0 for none.")
    ] = _DEFAULT.smooth_m,
    connectivity: Annotated[
        str, typer.Option(help="Pixels that touch at a corner: two polygons (4) or one (8).", metavar="4|8")
    ] = str(_DEFAULT.connectivity),
    truth: Annotated[
        Path | None,
        typer.Option(help="True buildings, to judge the polygons by: MASK_quality.json and MASK_verdicts.gpkg."),
    ] = None,
    qml: Annotated[bool, typer.Option("--qml", help="Also write a QGIS style beside each layer.")] = False,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Threads.", show_default="one for each core")
    ] = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw polygons of classes, in the mask's CRS, with class, area_m2 and perimeter_m."""
    console = Console(as_json=as_json, verbose=verbose, quiet=quiet)
    if split_width is not None and not 0 < split_width < math.inf:
        raise UsageError(f"--split-width {split_width} found, expected more than 0")
    if split_width is not None and split == "none":
        raise UsageError(
            "--split-width says how narrow a neck --split parts; give both, such as --split watershed, or none"
        )
    config = VectorizeConfig(
        classes=tuple(name.strip() for name in classes.split(",") if name.strip()),
        min_area_m2=min_area,
        min_hole_m2=min_hole,
        tolerance_m=tolerance,
        regularize=regularize,
        split=split,
        split_m=split_width,
        instances=instances,
        probabilities=Path(probabilities) if probabilities not in (None, "none") else None,
        use_probabilities=probabilities != "none",
        opening_m=opening,
        closing_m=closing,
        smooth_m=smooth,
        connectivity=_connectivity(connectivity),
        qml=qml,
        jobs=jobs,
        overwrite=overwrite,
    )
    into_folder = out is not None and (not out.suffix or out.is_dir())
    if out is not None and len(masks) > 1 and not into_folder:
        raise UsageError(f"-o {out}: one file for {len(masks)} masks; name a folder instead")
    for mask in masks:
        if mask.is_dir():
            raise InputNotFoundError(f"{mask}: is a folder, expected a mask; name the masks in it, such as *_mask.tif")
    from ctrs.memory import share_one_arena

    share_one_arena()
    from ctrs.vector import check_mask, polygons_path
    from ctrs.vector import vectorize as vectorize_mask

    targets = [polygons_path(mask) for mask in masks]
    if out is not None:
        targets = [out / target.name if into_folder else out for target in targets]
    _check_targets(masks, targets)
    if len(masks) > 1:
        for mask in masks:
            check_mask(mask, config)
    reference = None
    if truth is not None:
        from ctrs.vector.quality.reference import read_reference
        from ctrs.vector.quality.report import check_report, judged_class, report_quality

        judged_class(config)
        reference = read_reference(truth)
        for mask, target in zip(masks, targets, strict=True):
            check_report(target, mask, reference)
    payload: list[dict[str, Any]] = []
    rows: list[list[str]] = []
    with console.progress() as progress:
        for mask, target in zip(masks, targets, strict=True):
            result = vectorize_mask(mask, target, config, progress=progress)
            payload.append(
                {
                    "path": str(result.path),
                    "counts": result.counts,
                    "area_m2": result.area_m2,
                    "skipped": result.skipped,
                }
            )
            if reference is not None:
                report = report_quality(target, mask, reference, config, progress=progress)
                payload[-1]["quality"] = {**report.content, "skipped": report.skipped}
            rows += [
                [str(result.path), name, str(count), f"{result.area_m2[name]:.1f}"]
                for name, count in result.counts.items()
            ]

    def show() -> None:
        console.table("polygons", ["file", "class", "count", "area m²"], rows)
        if reference is not None:
            show_quality(console, [entry["quality"] for entry in payload])
        for entry in payload:
            console.line(entry["path"])
            if "quality" in entry:
                console.line(entry["quality"]["verdicts"])
                console.line(entry["quality"]["report"])

    console.result({"layers": payload}, show)


def _check_targets(masks: list[Path], targets: list[Path]) -> None:
    """Refuse masks whose layers would have the same name: the last would replace the others."""
    taken: dict[Path, Path] = {}
    for mask, target in zip(masks, targets, strict=True):
        other = taken.setdefault(target.absolute(), mask)
        if other.absolute() != mask.absolute():
            raise UsageError(f"{target}: is the layer of both {other} and {mask}; run them apart, each with its own -o")


def _connectivity(text: str) -> Connectivity:
    if text == "4":
        return 4
    if text == "8":
        return 8
    raise UsageError(f"--connectivity {text}: expected 4 or 8")
