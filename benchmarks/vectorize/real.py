"""Polygons of real buildings: masks of their labels with noise added, and masks that a trained model predicted.

    python benchmarks/vectorize/real.py --data ../shared/data
    python benchmarks/vectorize/real.py --data ../shared/data --run runs/buildings --keep out --pictures

The labels of Banepa (a dense town, many roofs touch) and Zanzibar (free-standing houses) become masks on the grids of
their scenes, degraded at each level of noise. With ``--run`` also scenes that the model has not seen (unless it was
trained on them) are mapped. Each mask is drawn without straight walls, with them, and with touching buildings parted;
those of labels also with a number for each building, as a network for instances would give it. All are judged against
the labels as they were drawn by hand, cut to the scene. ``--pictures`` draws the verdicts, for looking at; they show
others' imagery.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import geopandas
import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.features
import shapely
from comparison import Run, table, write_mask
from PIL import Image, ImageDraw
from scipy.ndimage import distance_transform_edt

from ctrs.config import VectorizeConfig
from ctrs.errors import CtrsWarning
from ctrs.raster.geotiff import Grid, open_raster
from ctrs.report.verdict_style import COLORS
from ctrs.synthetic.mask_noise import NOISE_LEVELS, NoisyMask
from ctrs.vector import vectorize
from ctrs.vector.quality.reference import on_grid, read_reference
from ctrs.vector.quality.report import report_quality

WAYS = {
    "none": VectorizeConfig(overwrite=True),
    "full": VectorizeConfig(regularize="full", overwrite=True),
    "full, watershed": VectorizeConfig(regularize="full", split="watershed", overwrite=True),
}
NUMBERED = VectorizeConfig(regularize="full", instances=True, overwrite=True)
VIEW_PX = 900


@dataclass(frozen=True)
class Place:
    """A scene with hand-drawn buildings."""

    name: str
    scene: str
    labels: str


def _fair(name: str) -> Place:
    folder = "oam_fair_buildings"
    return Place(name, f"{folder}/scenes/{name}_z20.tif", f"{folder}/labels/{name}.geojson")


BANEPA = Place("banepa_urban", "oam_banepa_urban/scene/banepa_urban.tif", "oam_banepa_urban/labels/buildings.geojson")
DEGRADED = (BANEPA, _fair("zanzibar_a"))
PREDICTED = tuple(map(_fair, ("zanzibar_b", "catanduanes_a", "catanduanes_b")))


Drawing = tuple[str, Place, Path, dict[str, VectorizeConfig]]
"""Name of a mask, where it lies, its file, and the ways to draw it."""


def degraded(args: argparse.Namespace, folder: Path) -> Iterator[Drawing]:
    """Write the masks of labels with noise."""
    for place in DEGRADED:
        if place.name not in args.places:
            continue
        reference = read_reference(args.data / place.labels)
        with open_raster(args.data / place.scene) as dataset:
            grid = Grid.of(dataset)
        shapes = on_grid(reference, grid, Path(place.scene)).to_numpy()
        for level in args.levels:
            mask = folder / f"{place.name}_{level}_mask.tif"
            write_mask(NoisyMask(shapes, grid, NOISE_LEVELS[level], seed=args.seed), mask)
            yield f"{place.name}, {level}", place, mask, WAYS
            numbered = folder / f"{place.name}_{level}_numbered.tif"
            number_buildings(mask, shapes, numbered)
            yield f"{place.name}, {level}", place, numbered, {"full, instances": NUMBERED}


def number_buildings(mask: Path, shapes: npt.NDArray[np.object_], numbered: Path) -> None:
    """Write a mask's buildings with a number for each: that of the nearest true one."""
    with rasterio.open(mask) as dataset:
        pixels, profile = dataset.read(1), dataset.profile
        numbers = rasterio.features.rasterize(
            zip(shapes, range(1, len(shapes) + 1), strict=True),
            out_shape=pixels.shape,
            transform=dataset.transform,
            dtype="uint16",
        )
    nearest = distance_transform_edt(numbers == 0, return_distances=False, return_indices=True)
    with rasterio.open(numbered, "w", **{**profile, "dtype": "uint16"}) as dataset:
        dataset.write(np.where(pixels > 0, numbers[tuple(nearest)], 0).astype(np.uint16), 1)


def predicted(args: argparse.Namespace, folder: Path) -> Iterator[Drawing]:
    """Map the scenes with a trained model, if one is given; masks that stand there already are kept."""
    if args.run is None:
        return
    from ctrs.config import PredictConfig
    from ctrs.inference import Predictor

    predictor = Predictor.from_checkpoint(args.run)
    for place in PREDICTED:
        mask = folder / f"{place.name}_mask.tif"
        predictor.predict_raster(args.data / place.scene, mask, PredictConfig(probabilities="uint8"))
        yield f"{place.name}, predicted", place, mask, WAYS


def judged(drawing: Drawing, args: argparse.Namespace) -> list[Run]:
    """Draw the polygons of a mask in each way and judge them."""
    title, place, mask, ways = drawing
    reference = read_reference(args.data / place.labels)
    runs: list[Run] = []
    for way, config in ways.items():
        layer = mask.with_name(f"{mask.stem}_{way.replace(', ', '_')}.gpkg")
        started = time.process_time()
        vectorize(mask, layer, config)
        seconds = time.process_time() - started
        report = report_quality(layer, mask, reference, config)
        assert report.judgement is not None
        runs.append(Run(title, way, report.judgement.quality, seconds, None))
        print(json.dumps({"layer": layer.name, **report.content["truth_verdicts"]}), file=sys.stderr)
        if args.pictures:
            draw(args.data / place.scene, report.verdicts_path, layer.with_suffix(".png"))
    return runs


def draw(scene: Path, verdicts: Path, picture: Path) -> None:
    """Draw the middle of a scene with the verdicts: true outlines thin and light, drawn ones in their colour."""
    with rasterio.open(scene) as dataset:
        side = min(VIEW_PX, dataset.width, dataset.height)
        left, top = (dataset.width - side) // 2, (dataset.height - side) // 2
        window = rasterio.windows.Window(left, top, side, side)
        pixels = dataset.read([1, 2, 3], window=window).transpose(1, 2, 0)
        inverse = ~dataset.window_transform(window)
    image = Image.fromarray(np.ascontiguousarray(pixels)).resize((2 * side, 2 * side))
    canvas = ImageDraw.Draw(image)
    for row in geopandas.read_file(verdicts).sort_values("layer", ascending=False).itertuples():
        for ring in (row.geometry.exterior, *row.geometry.interiors):
            xy = shapely.get_coordinates(ring)
            points = [tuple(2 * value for value in inverse @ (x, y)) for x, y in xy]
            color = (255, 255, 255) if row.layer == "truth" and row.verdict == "matched" else COLORS[row.verdict]
            canvas.line(points, fill=color, width=1 if row.layer == "truth" else 3)
    image.save(picture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("CTRS_TEST_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=default, help="folder of the real imagery")
    parser.add_argument("--levels", nargs="*", default=["low", "medium"], choices=list(NOISE_LEVELS))
    names = [place.name for place in DEGRADED]
    parser.add_argument("--places", nargs="*", default=names, choices=names, help="whose labels are degraded")
    parser.add_argument("--run", type=Path, help="a trained run: its masks are drawn too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for masks, layers and reports; default: a temporary one")
    parser.add_argument("--pictures", action="store_true", help="draw the verdicts on the imagery, in --keep")
    args = parser.parse_args()
    # Labels that are mended, masks without class names: known, and told by the commands.
    warnings.simplefilter("ignore", CtrsWarning)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        runs: list[Run] = []
        for masks in (degraded, predicted):
            for drawing in masks(args, folder):
                runs += judged(drawing, args)
    print(table(runs))


if __name__ == "__main__":
    main()
