"""``ctrs prepare``: imagery and labels become tiles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ctrs.cli import options
from ctrs.cli.console import Console
from ctrs.config import LabelKind, PrepareConfig
from ctrs.workspace import PREPARED

_DEFAULT = PrepareConfig()


def prepare(
    source: Annotated[
        Path, typer.Argument(help="ISPRS Potsdam or Vaihingen folder, or any folder with images and labels.")
    ],
    out: options.Out = None,
    preset: Annotated[
        str | None, typer.Option(help="potsdam, vaihingen, loveda, uavid, inria, generic; recognised unless given.")
    ] = None,
    classes: Annotated[Path | None, typer.Option(help="TOML file with class tables.")] = None,
    labels: Annotated[LabelKind, typer.Option(help="How label files are read.")] = _DEFAULT.labels,
    class_field: Annotated[str | None, typer.Option(help="Field of label polygons that holds the class.")] = None,
    tile: Annotated[int | None, typer.Option(help="Tile edge in pixels; ISPRS 500, else 512, unless given.")] = None,
    val: Annotated[
        list[str] | None, typer.Option(help="Scenes for validation, as a pattern; may be repeated. By place otherwise.")
    ] = None,
    test: Annotated[list[str] | None, typer.Option(help="Scenes for the test, as a pattern; may be repeated.")] = None,
    val_fraction: Annotated[
        float, typer.Option(help="Share of training tiles that validate, cut by place.")
    ] = _DEFAULT.val_fraction,
    seed: Annotated[int, typer.Option(help="Seed of the choice of validation places.")] = _DEFAULT.seed,
    workers: Annotated[
        int | None, typer.Option(help="Scenes at the same time; one for each core unless given.")
    ] = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
) -> None:
    """Tile scenes and labels; write a manifest, classes and band statistics to prepared/NAME."""
    console = Console(as_json=as_json, verbose=verbose, quiet=quiet)
    config = PrepareConfig(
        preset=preset,
        classes=classes,
        labels=labels,
        class_field=class_field,
        tile_px=tile,
        val=tuple(val or ()),
        test=tuple(test or ()),
        val_fraction=val_fraction,
        seed=seed,
        workers=workers,
        overwrite=overwrite,
    )
    from ctrs.tiles import prepare_tiles

    target = out or Path(PREPARED) / source.absolute().name
    with console.progress() as progress:
        manifest = prepare_tiles(source, target, config, progress=progress)
    names = manifest.classes.names
    splits: dict[str, Any] = {}
    for split in manifest.splits:
        tiles = manifest.split(split)
        splits[split] = {
            "scenes": len({tile.scene for tile in tiles}),
            "tiles": len(tiles),
            "class_px": dict(zip(names, manifest.class_counts(split), strict=True)),
        }
    payload = {
        "path": str(target),
        "preset": manifest.preset,
        "tile_px": manifest.tile_px,
        "pixel_size_m": manifest.pixel_size_m,
        "classes": list(manifest.classes.names),
        "bands": manifest.bands.to_json(),
        "splits": splits,
    }

    def show() -> None:
        rows = [[what, *(str(split[what]) for split in splits.values())] for what in ("scenes", "tiles")]
        for name in names:
            shares = (split["class_px"][name] / max(1, sum(split["class_px"].values())) for split in splits.values())
            rows.append([name, *(f"{share:.1%}" for share in shares)])
        console.table(str(target), ["", *splits], rows)
        console.line(str(target))

    console.result(payload, show)
