"""``ctrs demo``: a synthetic town through all five steps, as a user would take them."""

from __future__ import annotations

import json
import shutil
import time
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ctrs import __version__
from ctrs.cli import options
from ctrs.cli.console import Console
from ctrs.config import EvalConfig, PredictConfig, PrepareConfig, TrainConfig, VectorizeConfig, from_mapping, read_toml
from ctrs.errors import OutputError, OutputExistsError
from ctrs.jobs import fingerprint, write_text
from ctrs.progress import format_duration

if TYPE_CHECKING:
    from ctrs.classes import ClassMap
    from ctrs.evaluation import EvaluationReport

DEMO_FILE = "demo.toml"
_MARK = "demo.json"


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for everything the demo makes.")] = Path("ctrs-demo"),
    seed: Annotated[int, typer.Option(help="Seed of the town and of training.")] = 0,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
) -> None:
    """Make a synthetic town in ISPRS layout and map it: prepare, train, eval, predict, vectorize; minutes on a CPU."""
    console = Console(as_json=as_json, verbose=verbose, quiet=quiet)
    settings = read_toml(Path(str(files("ctrs.cli").joinpath(DEMO_FILE))))
    _open_folder(out, fingerprint({"settings": settings, "seed": seed, "version": __version__}), overwrite=overwrite)
    started = time.monotonic()

    from ctrs.evaluation import evaluate
    from ctrs.inference import Predictor
    from ctrs.synthetic import TownConfig, make_town
    from ctrs.tiles import prepare_tiles
    from ctrs.training import train
    from ctrs.vector import vectorize

    town = from_mapping(TownConfig, {**settings["town"], "seed": seed}, where="demo town")
    config = from_mapping(TrainConfig, {**settings["train"], "seed": seed}, where="demo training")
    with console.progress() as progress:
        source = out / "town"
        if not source.is_dir():  # it appears when it is complete
            make_town(source, town, progress=progress)
        data = prepare_tiles(
            source, out / "prepared", from_mapping(PrepareConfig, settings["prepare"]), progress=progress
        )
        run = out / "run"
        train(
            data.root,
            run,
            config,
            progress=progress,
            on_epoch=lambda record: console.note(record.describe()),
        )
        report = evaluate(run, data.root, EvalConfig(split="test"), progress=progress)
        scene = source / "2_Ortho_RGB" / f"top_potsdam_{town.test_ids[0]}_RGB.tif"
        mask = Predictor.from_checkpoint(run).predict_raster(
            scene, out / f"{scene.stem}_mask.tif", PredictConfig(), progress=progress
        )
        polygons = vectorize(mask, out / f"{mask.stem}.gpkg", VectorizeConfig(), progress=progress)
    truth = source / "5_Labels_all" / f"top_potsdam_{town.test_ids[0]}_label.tif"
    picture = _draw(out / "demo.png", scene, truth, mask, polygons.path, data.classes)
    seconds = time.monotonic() - started
    _show(console, report, {"picture": picture, "mask": mask, "polygons": polygons.path}, seconds, polygons.counts)


def _open_folder(out: Path, job: str, *, overwrite: bool) -> None:
    """Make the demo's folder, or go on in it; only a folder that a demo made is ever emptied."""
    mark = out / _MARK
    if out.exists() and not out.is_dir():
        raise OutputExistsError(f"{out}: is a file; choose a folder with --out")
    if out.exists() and any(out.iterdir()):
        if not mark.is_file():
            raise OutputExistsError(f"{out}: exists and is not a demo's folder; choose another with --out")
        if overwrite:
            shutil.rmtree(out)
        elif json.loads(mark.read_text(encoding="utf-8")).get("fingerprint") != job:
            raise OutputExistsError(
                f"{out}: holds a demo with other settings; pass --overwrite to make it anew, or choose another folder "
                "with --out"
            )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out}: cannot be made ({error.strerror}); choose another folder with --out") from error
    write_text(mark, json.dumps({"format_version": 1, "fingerprint": job}))


def _draw(path: Path, scene: Path, truth: Path, mask: Path, polygons: Path, classes: ClassMap) -> Path:
    """Draw scene, truth, prediction and polygons side by side."""
    import geopandas

    from ctrs.raster.geotiff import open_raster
    from ctrs.report.pictures import comparison_picture
    from ctrs.tiles.decoding import decode_colors

    with open_raster(scene) as dataset:
        image, to_pixel = dataset.read((1, 2, 3)), ~dataset.transform
    with open_raster(truth) as dataset:
        truth_mask = decode_colors(dataset.read((1, 2, 3)), classes, where=str(truth)).mask
    with open_raster(mask) as dataset:
        predicted = dataset.read(1)
    a, b, d, e, xoff, yoff = to_pixel.a, to_pixel.b, to_pixel.d, to_pixel.e, to_pixel.c, to_pixel.f
    outlines = geopandas.read_file(polygons).geometry.affine_transform([a, b, d, e, xoff, yoff])
    return comparison_picture(path, image, truth_mask, predicted, list(outlines), classes)


def _show(
    console: Console, report: EvaluationReport, paths: dict[str, Path], seconds: float, counts: dict[str, int]
) -> None:
    payload = {
        "seconds": round(seconds, 1),
        "report": report.to_json(),
        "counts": counts,
        **{name: str(path) for name, path in paths.items()},
    }

    def show() -> None:
        for table in report.tables():
            console.table(table.title, table.header, table.rows)
        for name, path in paths.items():
            console.line(f"{name}: {path}")
        console.line(f"made in {format_duration(seconds)}")

    console.result(payload, show)
