"""``ctrs prepare``: imagery and labels become tiles."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from ctrs.cli import options
from ctrs.cli.console import Console
from ctrs.config import LabelKind, PrepareConfig, SplitBy
from ctrs.errors import DataError, UsageError
from ctrs.workspace import PREPARED

_DEFAULT = PrepareConfig()
_INPUT, _LABELS, _TILES, _SPLITS = "Input", "Labels", "Tiles", "Splits"


def prepare(
    source: Annotated[
        Path | None,
        typer.Argument(
            help="ISPRS folder or zip archives, another known layout, or any folder with images and labels; "
            "may be left out with --images.",
            show_default=False,
        ),
    ] = None,
    out: options.Out = None,
    check: Annotated[bool, typer.Option("--check", help="Look for every fault, write a report and no tiles.")] = False,
    preset: Annotated[
        str | None,
        typer.Option(help="Name from `ctrs presets` or a TOML file; recognised unless given.", rich_help_panel=_INPUT),
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option(help="Kind of images where a preset has several: IRRG.", rich_help_panel=_INPUT),
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(help="Images: a pattern, path or URL; may be repeated.", rich_help_panel=_INPUT),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(help="Label rasters or vector files: a pattern, path or URL.", rich_help_panel=_INPUT),
    ] = None,
    mosaic: Annotated[
        bool, typer.Option("--mosaic", help="All images are parts of one scene.", rich_help_panel=_INPUT)
    ] = False,
    extra: Annotated[
        list[str] | None,
        typer.Option(help="Further file of the preset that becomes a band: dsm.", rich_help_panel=_INPUT),
    ] = None,
    bidx: Annotated[
        str | None,
        typer.Option("--bidx", "-b", help="Bands as 1,2,3; all but alpha unless given.", rich_help_panel=_INPUT),
    ] = None,
    src_crs: Annotated[str | None, typer.Option(help="CRS of images that name none.", rich_help_panel=_INPUT)] = None,
    skip_known_bad: Annotated[
        bool,
        typer.Option("--skip-known-bad", help="Leave out scenes with known label errors.", rich_help_panel=_INPUT),
    ] = False,
    classes: Annotated[
        Path | None,
        typer.Option(help="Class table: TOML, JSON palette, or colour table as text.", rich_help_panel=_LABELS),
    ] = None,
    label_kind: Annotated[
        LabelKind, typer.Option(help="How label files are read.", rich_help_panel=_LABELS)
    ] = _DEFAULT.label_kind,
    class_field: Annotated[
        str | None, typer.Option(help="Field of vector labels that holds the class.", rich_help_panel=_LABELS)
    ] = None,
    priority_field: Annotated[
        str | None, typer.Option(help="Field of vector labels; higher numbers lie on top.", rich_help_panel=_LABELS)
    ] = None,
    paint_order: Annotated[
        str | None,
        typer.Option(help="Classes as A,B,C in the order of painting; the last on top.", rich_help_panel=_LABELS),
    ] = None,
    label_buffer: Annotated[
        str | None,
        typer.Option(
            help="Half width of lines and radius of points in metres, or the field that holds it.",
            rich_help_panel=_LABELS,
        ),
    ] = None,
    nearest_color: Annotated[
        bool,
        typer.Option("--nearest-color", help="Read colours as the nearest of the legend.", rich_help_panel=_LABELS),
    ] = False,
    max_unknown: Annotated[
        float,
        typer.Option(help="Share of a label outside the class table that is ignored.", rich_help_panel=_LABELS),
    ] = _DEFAULT.max_unknown,
    tile: Annotated[
        str | None,
        typer.Option(help="Tile edge: 512 pixels or 50m; ISPRS 500, else 512, unless given.", rich_help_panel=_TILES),
    ] = None,
    stride: Annotated[
        str | None,
        typer.Option(help="Step between tiles: 256 or 25m; none overlap unless given.", rich_help_panel=_TILES),
    ] = None,
    gsd: Annotated[
        float | None, typer.Option(help="Resample to this ground pixel in metres.", rich_help_panel=_TILES)
    ] = None,
    crs: Annotated[str | None, typer.Option(help="Reproject to this CRS.", rich_help_panel=_TILES)] = None,
    aoi: Annotated[
        Path | None, typer.Option(help="Vector file; ground outside it is nodata.", rich_help_panel=_TILES)
    ] = None,
    min_valid: Annotated[
        float, typer.Option(help="Least share of valid pixels of a tile.", rich_help_panel=_TILES)
    ] = _DEFAULT.min_valid,
    split: Annotated[
        SplitBy, typer.Option(help="auto: official or by folder where there is one.", rich_help_panel=_SPLITS)
    ] = _DEFAULT.split,
    val: Annotated[
        list[str] | None,
        typer.Option(help="Scenes for validation: a pattern, or @FILE with a list.", rich_help_panel=_SPLITS),
    ] = None,
    test: Annotated[
        list[str] | None,
        typer.Option(help="Scenes for the test: a pattern, or @FILE with a list.", rich_help_panel=_SPLITS),
    ] = None,
    val_fraction: Annotated[
        float, typer.Option(help="Share of training tiles that validate, cut by place.", rich_help_panel=_SPLITS)
    ] = _DEFAULT.val_fraction,
    test_fraction: Annotated[
        float, typer.Option(help="Share of tiles that test, with --split place.", rich_help_panel=_SPLITS)
    ] = _DEFAULT.test_fraction,
    block: Annotated[
        str | None, typer.Option(help="Blocks of ground dealt out by place: 1024 or 200m.", rich_help_panel=_SPLITS)
    ] = None,
    split_buffer: Annotated[
        str | None,
        typer.Option(help="Leave out training tiles this near to other splits: 64 or 20m.", rich_help_panel=_SPLITS),
    ] = None,
    folds: Annotated[
        int, typer.Option(help="Folds by place for cross-validation; `ctrs train --fold N`.", rich_help_panel=_SPLITS)
    ] = _DEFAULT.folds,
    seed: Annotated[int, typer.Option(help="Seed of the choice of places.", rich_help_panel=_SPLITS)] = _DEFAULT.seed,
    licence: Annotated[
        str | None, typer.Option(help="Licence of the data: 'CC BY 4.0'; goes with every model trained on them.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Threads; one for each core unless given.")] = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
) -> None:
    """Tile scenes and labels; write a manifest, classes, band statistics and a report to prepared/NAME."""
    console = Console(as_json=as_json, verbose=verbose, quiet=quiet)
    config = PrepareConfig(
        preset=preset,
        variant=variant,
        images=tuple(images or ()),
        labels=tuple(labels or ()),
        mosaic=mosaic,
        extra=tuple(extra or ()),
        bidx=_band_numbers(bidx),
        src_crs=src_crs,
        classes=classes,
        label_kind=label_kind,
        class_field=class_field,
        priority_field=priority_field,
        paint_order=tuple(name.strip() for name in (paint_order or "").split(",") if name.strip()),
        nearest_color=nearest_color,
        max_unknown=max_unknown,
        crs=crs,
        gsd_m=gsd,
        aoi=aoi,
        min_valid=min_valid,
        skip_known_bad=skip_known_bad,
        split=split,
        val=tuple(val or ()),
        test=tuple(test or ()),
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        folds=folds,
        licence=licence,
        seed=seed,
        workers=workers,
        overwrite=overwrite,
        **_buffer(label_buffer),
        **_length("tile", tile),
        **_length("stride", stride),
        **_length("block", block),
        **_length("split_buffer", split_buffer),
    )
    source, name = _source(source, config)
    if check:
        _check(source, out or Path(PREPARED) / f"{name}_check.html", config, console)
    else:
        _prepare(source, out or Path(PREPARED) / name, config, console)


def _prepare(source: Path, target: Path, config: PrepareConfig, console: Console) -> None:
    """Cut tiles and show what was made."""
    from ctrs.tiles import prepare_tiles
    from ctrs.tiles.audit_record import read_record
    from ctrs.tiles.tiling import REPORT_FILE

    with console.progress() as progress:
        manifest = prepare_tiles(source, target, config, progress=progress)
    names = manifest.classes.names
    splits: dict[str, Any] = {}
    for part in manifest.splits:
        tiles = manifest.split(part)
        splits[part] = {
            "scenes": len({tile.scene for tile in tiles}),
            "tiles": len(tiles),
            "class_px": dict(zip(names, manifest.class_counts(part), strict=True)),
        }
    record = read_record(target)
    report = target / REPORT_FILE
    payload = {
        "path": str(target),
        "report": str(report) if report.exists() else None,
        "preset": manifest.preset,
        "licence": manifest.licence,
        "tile_px": manifest.tile_px,
        "pixel_size_m": manifest.pixel_size_m,
        "classes": list(manifest.classes.names),
        "bands": manifest.bands.to_json(),
        "splits": splits,
        "class_px": None if record is None else record["classes"],
        "findings": None if record is None else record["findings"],
    }

    def show() -> None:
        rows = [[what, *(str(split[what]) for split in splits.values())] for what in ("scenes", "tiles")]
        for name in names:
            shares = (split["class_px"][name] / max(1, sum(split["class_px"].values())) for split in splits.values())
            rows.append([name, *(f"{share:.1%}" for share in shares)])
        console.table(str(target), ["", *splits], rows)
        if record is not None:
            _show_classes(record, console)
        if report.exists():
            console.line(str(report))
        console.line(str(target))

    console.result(payload, show)


def _check(source: Path, report: Path, config: PrepareConfig, console: Console) -> None:
    """Look for every fault and show what was found; faults make the exit code 1."""
    from ctrs.tiles import audit_source
    from ctrs.tiles.audit_record import audit_record

    if report.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--out {report} found, expected the name of an HTML file for the report of --check")
    with console.progress() as progress:
        audit = audit_source(source, report, config, progress=progress)
    record = audit_record(audit)

    def show() -> None:
        for level in ("fault", "warning", "note"):
            for finding in audit.findings:
                if finding.level == level:
                    console.line(f"{level:<8} {finding.check:<13} {finding.message}")
        if not audit.findings:
            console.line("nothing found that is wrong or odd")
        if audit.scenes:
            _show_classes(record, console)
        console.line(str(report))

    console.result({"report": str(report), **record}, show)
    if audit.num_faults:
        noun = "fault" if audit.num_faults == 1 else "faults"
        raise DataError(f"{audit.num_faults} {noun} found in {audit.source}; the report is {report}")


def _show_classes(record: dict[str, Any], console: Console) -> None:
    """Show the pixels of each class before and after: what the labels hold, and what became of it."""
    classes: dict[str, dict[str, Any]] = record["classes"]
    columns = {"label px": "label_px", "tiles px": "tiled_px", "left out": "left_out_px"}
    title = "classes before and after, each pixel once"
    if not any(counts.get("source_px") is not None for counts in classes.values()):
        rows = [[name, *(str(counts[key]) for key in columns.values())] for name, counts in classes.items()]
        console.table(title, ["", *columns], rows)
        return
    shares = [_shares(classes, key) for key in ("source_px", "label_px")]
    rows = [
        [name, str(counts["source_px"]), before, *(str(counts[key]) for key in columns.values()), after]
        for (name, counts), before, after in zip(classes.items(), *shares, strict=True)
    ]
    console.table(title, ["", "source px", "share", *columns, "share"], rows)
    size = record["resampled_to_m"]
    pixels = "to another grid" if size is None else f"to ground pixels of {size:.4g} m"
    console.line(f"resampled {pixels}; source px: in the label files, where there is imagery")


def _shares(classes: dict[str, dict[str, Any]], key: str) -> list[str]:
    """Return the share that each class has of the pixels of all."""
    whole = max(1, sum(counts[key] for counts in classes.values()))
    return [f"{counts[key] / whole:.2%}" for counts in classes.values()]


def _source(source: Path | None, config: PrepareConfig) -> tuple[Path, str]:
    """Return the source folder and the name of the data set."""
    if source is not None:
        name = source.absolute().name
        return source, source.stem if source.suffix.lower() == ".zip" else name
    if not config.images:
        raise UsageError("no source given; name a folder, or images with --images and labels with --labels")
    return Path(), Path().absolute().name


def _length(name: str, text: str | None) -> dict[str, Any]:
    """Read a length in pixels or metres: ``512`` or ``50m``."""
    if text is None:
        return {}
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(m|px)?", text.strip())
    if match is None or (match[2] != "m" and not match[1].isdigit()):
        option = f"--{name.replace('_', '-')}"
        raise UsageError(f"{option} {text!r} found, expected pixels or metres, such as 512 or 50m")
    return {f"{name}_m": float(match[1])} if match[2] == "m" else {f"{name}_px": int(match[1])}


def _buffer(text: str | None) -> dict[str, Any]:
    """Read a half width in metres, or the name of a field."""
    if text is None:
        return {}
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*m?", text.strip())
    if match is None and re.match(r"[-+]?\s*\.?\d", text.strip()):
        raise UsageError(f"--label-buffer {text!r} found, expected metres, such as 2.5 or 2.5m, or the name of a field")
    return {"label_buffer_field": text} if match is None else {"label_buffer_m": float(match[1])}


def _band_numbers(text: str | None) -> tuple[int, ...]:
    """Read band numbers as rasterio's commands do: ``1,2,3``, or a range ``1-4``."""
    numbers: list[int] = []
    for part in (text or "").split(",") if text else ():
        match = re.fullmatch(r"\s*(\d+)(?:\s*(?:-|\.\.)\s*(\d+))?\s*", part)
        if match is None:
            raise UsageError(f"--bidx {text!r} found, expected band numbers such as 1,2,3 or 1-4")
        numbers += range(int(match[1]), int(match[2] or match[1]) + 1)
    return tuple(numbers)
