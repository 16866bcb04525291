"""``ctrs inspect``: pictures of what the contrast works on, and of what it does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ctrs.cli import options
from ctrs.cli.console import Console
from ctrs.config import EmbeddingMapConfig, LearningSplit, MapMethod, PatchMapConfig, VoidMode
from ctrs.errors import InputNotFoundError, UsageError
from ctrs.workspace import newest_prepared, newest_run

if TYPE_CHECKING:
    from ctrs.inspection.embedding_report import EmbeddingReport
    from ctrs.tiles.manifest import Manifest

app = typer.Typer(
    help="Draw the patches that the contrast compares, and where they lie among a run's features.",
    no_args_is_help=True,
)

_PATCHES = PatchMapConfig()
_EMBEDDINGS = EmbeddingMapConfig()


@app.command()
def patches(
    tiles: Annotated[
        list[str],
        typer.Argument(
            metavar="TILE",
            help="Image or mask of a prepared tile, or the name of a tile or scene (its most varied tile).",
        ),
    ],
    class_name: Annotated[
        str | None, typer.Option("--class", help="Draw this class, large.", show_default="all classes in the tile")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Folder that prepare wrote; for names, the newest under prepared/ unless given."),
    ] = None,
    void: Annotated[VoidMode, typer.Option(help="Whether patches with unlabelled pixels are negatives.")] = (
        _PATCHES.void
    ),
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of the pictures.", show_default="the current one"),
    ] = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw which patches are positive, negative or discarded for a class at each stage, as TILE_patches.png."""
    console = Console(as_json=as_json, verbose=verbose, quiet=quiet)
    config = PatchMapConfig(class_name=class_name, void=void, overwrite=overwrite)
    manifests = _Manifests(data, console)

    from ctrs.inspection.patch_maps import STRIDES, inspect_patches, picture_name
    from ctrs.report.patch_picture import PatchKind
    from ctrs.tiles.tile_lookup import find_tile

    targets: dict[Path, tuple[Manifest, Any]] = {}
    for name in tiles:
        manifest = manifests.of(name)
        tile = find_tile(name, manifest)
        target = (out or Path()) / picture_name(tile, config)
        other = targets.setdefault(target, (manifest, tile))[1]
        if other.image != tile.image:
            raise UsageError(
                f"{target}: {other.image} and {tile.image} would both be drawn there; draw them one by one"
            )
    reports = []
    with console.progress() as progress:
        for number, (target, (manifest, tile)) in enumerate(targets.items()):
            reports.append(inspect_patches(manifest, tile, target, config))
            progress(number + 1, len(targets), "drawing tiles")

    def show() -> None:
        for report in reports:
            shown = [class_name] if class_name else report.counts
            rows = [
                [f"{name}, stride {stride}", *(str(report.counts[name][stride][kind]) for kind in PatchKind)]
                for name in shown
                for stride in STRIDES
            ]
            console.table(report.tile, ["class", *(kind.name.lower() for kind in PatchKind)], rows)
        for report in reports:
            console.line(str(report.path))

    console.result({"tiles": [report.to_json() for report in reports]}, show)


class _Manifests:
    """Prepared data by the name of a tile: that which a path lies in, else ``--data`` or the newest; each read once."""

    def __init__(self, data: Path | None, console: Console) -> None:
        self._data = data
        self._console = console
        self._opened: dict[Path, Manifest] = {}

    def of(self, name: str) -> Manifest:
        """Return the prepared data of a tile."""
        from ctrs.tiles.manifest import Manifest
        from ctrs.tiles.tile_lookup import is_path, prepared_folder_of

        folder = prepared_folder_of(Path(name)) if is_path(name) else None
        if folder is None and is_path(name):
            absent = "" if Path(name).exists() else "not found; it "
            raise InputNotFoundError(
                f"{name}: {absent}lies in no prepared data, so its mask and classes are not known; name a tile that "
                "`ctrs prepare` wrote, such as prepared/NAME/images/val/SCENE_000_000.tif"
            )
        if folder is None:
            if self._data is None:
                self._data = newest_prepared()
                self._console.note(f"data: {self._data}")
            folder = self._data
        if folder not in self._opened:
            self._opened[folder] = Manifest.open(folder)
        return self._opened[folder]


@app.command()
def embeddings(
    run: Annotated[
        Path | None,
        typer.Argument(help="Run folder, checkpoint folder or model.safetensors; the newest run unless given."),
    ] = None,
    beside: Annotated[
        Path | None,
        typer.Option(
            "--beside", help="Run to draw beside it.", show_default="the like of RUN without contrast (or with)"
        ),
    ] = None,
    alone: Annotated[bool, typer.Option("--alone", help="Draw RUN alone.")] = False,
    stages: Annotated[
        list[int] | None,
        typer.Option("--stage", help="Stage, 0 (stride 4) to 3 (stride 32); may be repeated.", show_default="all"),
    ] = None,
    method: Annotated[MapMethod, typer.Option(help="Projection to the plane.")] = _EMBEDDINGS.method,
    split: Annotated[
        LearningSplit | None, typer.Option(help="Tiles to take; val where there is one, else train.")
    ] = None,
    samples: Annotated[int, typer.Option(help="Patches of each class and stage, at most.")] = _EMBEDDINGS.samples,
    tiles: Annotated[int, typer.Option(help="Tiles that they are drawn from, at most.")] = _EMBEDDINGS.tiles,
    projected: Annotated[
        bool, typer.Option("--projected", help="What the loss compares: the projection heads' output.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the choice of tiles and patches.")] = _EMBEDDINGS.seed,
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder that prepare wrote; the run's own unless given.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="PNG to write.",
            show_default="RUN/embeddings_METHOD.png, with --projected, --stage and --split in its name",
        ),
    ] = None,
    device: options.Device = _EMBEDDINGS.device,
    threads: options.Threads = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw where patches of each class lie among a run's features, beside a run without contrast."""
    console = Console(as_json=as_json, verbose=verbose, quiet=quiet)
    config = EmbeddingMapConfig(
        stages=tuple(stages) if stages else _EMBEDDINGS.stages,
        method=method,
        split=split,
        samples=samples,
        tiles=tiles,
        projected=projected,
        seed=seed,
        device=device,
        threads=threads,
        overwrite=overwrite,
    )
    if alone and beside is not None:
        raise UsageError("--alone and --beside were both given; choose one")
    if out is not None and out.suffix.lower() != ".png":
        raise UsageError(f"--out {out}: expected a file that ends in .png")
    chosen = run or newest_run()
    if run is None:
        console.note(f"run: {chosen}")

    from ctrs.inspection.embedding_map import inspect_embeddings

    if beside is None and not alone:
        beside = _counterpart(chosen, config, console)
    with console.progress() as progress:
        report = inspect_embeddings(chosen, out, config, beside=beside, data_dir=data, progress=progress)
    console.note(f"{report.num_tiles} tiles of the {report.split} split of {report.data}")
    console.result(report.to_json(), lambda: _show_embeddings(report, console))


def _counterpart(run: Path, config: EmbeddingMapConfig, console: Console) -> Path | None:
    """Find the run to draw beside a run, and say which it is or how to get one."""
    from ctrs.inspection.run_pairs import find_counterpart, other_settings, training_command
    from ctrs.model_files import find_checkpoint
    from ctrs.training.run_config import CONFIG_FILE, read_run_config

    home = find_checkpoint(run).home
    if config.projected or not (home / CONFIG_FILE).is_file():
        return None  # a run without contrast has no heads; a checkpoint without its run has no like
    found, (settings, _) = find_counterpart(home), read_run_config(home)
    if found is None:
        loss, what = ("cl", "with") if settings.loss == "none" else ("none", "without")
        console.note(f"beside: no run {what} contrast in {home.absolute().parent}; `{training_command(home, loss)}`")
        return None
    different = other_settings(settings, read_run_config(found)[0])
    console.note(f"beside: {found}" + (f", which differs in {'; '.join(different)}" if different else ""))
    return found


def _show_embeddings(report: EmbeddingReport, console: Console) -> None:
    def text(value: float | None) -> str:
        return "–" if value is None else f"{value:.3f}"

    rows = [
        [
            f"{entry.run} (loss {entry.loss}), stage {entry.stage}",
            str(entry.stride),
            str(sum(entry.counts.values())),
            str(sum(1 for count in entry.counts.values() if count)),
            text(entry.separation.silhouette),
            text(entry.separation.purity),
            text(entry.separation.chance),
        ]
        for entry in report.stages
    ]
    header = ["run", "stride", "patches", "classes", "silhouette", "10-NN purity", "chance"]
    console.table("classes in the full feature space", header, rows)
    console.line(str(report.path))
