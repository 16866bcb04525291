"""Where one of two runs maps scenes better, and where worse: places chosen by a rule, and their masks as a picture.

    ctrs eval RUN_A --split test; ctrs eval RUN_B --split test
    python benchmarks/changed_places.py PREPARED RUN_A RUN_B places.png

The rule is that of the page that ``ctrs eval RUN_A RUN_B`` writes: of all square cells of all scenes those with the
greatest drop in wrong pixels from A to B, and those with the greatest rise, as shares of the pixels that count there.
Truth and both masks are drawn below each other, the masks with wrong pixels in a colour that no class has; no imagery.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from ctrs.classes import ClassMap, Mask
from ctrs.config import EvalConfig
from ctrs.config.choices import SplitName
from ctrs.evaluation.scene_picturing import add_scene
from ctrs.evaluation.score_places import ShownPlace, gallery_for
from ctrs.report.examples import error_color
from ctrs.tiles.manifest import Manifest, scene_mosaics

PANEL_PX, GAP_PX, TEXT_PX = 240, 10, 16
EMPTY = (208, 208, 208)


def find_places(
    prepared: Path, runs: Sequence[Path], names: Sequence[str], split: SplitName, number: int
) -> tuple[ClassMap, list[ShownPlace], list[ShownPlace]]:
    """Return the classes, the places that the second run maps better, and those that it maps worse."""
    manifest = Manifest.open(prepared)
    with tempfile.TemporaryDirectory() as scratch:
        mosaics = scene_mosaics(manifest, split, Path(scratch))
        shapes = [mosaic.scene.grid.shape for mosaic in mosaics]
        gallery = gallery_for(manifest.classes, EvalConfig(num_places=number), shapes, manifest.bands)
        if gallery is None:
            raise SystemExit("no places asked for")
        for mosaic in mosaics:
            file = f"{mosaic.scene.name}_mask.tif"
            masks = {name: run / "eval" / split / "masks" / file for name, run in zip(names, runs, strict=True)}
            add_scene(gallery, mosaic, masks)
        return manifest.classes, gallery.better, gallery.worse


def draw(classes: ClassMap, kinds: Sequence[tuple[str, Sequence[ShownPlace]]], names: Sequence[str]) -> Image.Image:
    """Draw a column of three rows (truth, masks, errors) for each place; kinds stand below each other."""
    columns = max(len(places) for _, places in kinds)
    height = TEXT_PX + 2 * TEXT_PX + (1 + len(names)) * (PANEL_PX + TEXT_PX) + GAP_PX
    picture = Image.new("RGB", (columns * (PANEL_PX + GAP_PX) + GAP_PX, len(kinds) * height), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(12)
    for line, (title, places) in enumerate(kinds):
        top = line * height
        pen.text((GAP_PX, top + 2), title, "black", font)
        for col, shown in enumerate(places):
            left, place = GAP_PX + col * (PANEL_PX + GAP_PX), shown.place
            pen.text(
                (left, top + TEXT_PX + 2), f"{place.scene}, row {place.row_off}, column {place.col_off}", "black", font
            )
            y = top + 3 * TEXT_PX
            pen.text((left, y - TEXT_PX + 2), "truth", "black", font)
            picture.paste(colored(shown.panels.truth, classes), (left, y))
            for number, (name, mask) in enumerate(shown.panels.runs, 1):
                y = top + 3 * TEXT_PX + number * (PANEL_PX + TEXT_PX)
                share = shown.errors[name] / (place.counted / len(names))
                pen.text((left, y - TEXT_PX + 2), f"{name}: {share:.1%} wrong, coloured", "black", font)
                wrong = (mask != shown.panels.truth) & shown.panels.counted
                picture.paste(colored(mask, classes, wrong), (left, y))
    return picture


def colored(mask: Mask, classes: ClassMap, wrong: npt.NDArray[np.bool_] | None = None) -> Image.Image:
    """Return a mask in its classes' colours, ignored pixels grey, wrong ones in a colour that no class has."""
    table = np.full((256, 3), EMPTY, np.uint8)
    table[: classes.num_classes] = [entry.color for entry in classes.classes]
    pixels = table[mask]
    if wrong is not None:
        pixels[wrong] = error_color(classes)
    return Image.fromarray(pixels).resize((PANEL_PX, PANEL_PX), Image.Resampling.NEAREST)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prepared", type=Path, help="data that both runs were trained on")
    parser.add_argument("runs", type=Path, nargs=2, help="runs with eval/SPLIT/masks")
    parser.add_argument("picture", type=Path, help="PNG to write")
    parser.add_argument("--names", nargs=2, default=("none", "cl"), help="what the runs are called")
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--number", type=int, default=3, help="places of each kind")
    options = parser.parse_args()
    first, second = options.names
    classes, better, worse = find_places(options.prepared, options.runs, options.names, options.split, options.number)
    kinds = ((f"{second} maps these better than {first}", better), (f"{second} maps these worse than {first}", worse))
    for title, places in kinds:
        print(title)
        for shown in places:
            place, counted = shown.place, shown.place.counted / 2
            shares = ", ".join(f"{name} {count / counted:.1%} wrong" for name, count in shown.errors.items())
            print(f"  {place.scene}, row {place.row_off}, column {place.col_off}, {place.width} px: {shares}")
    draw(classes, kinds, options.names).save(options.picture)


if __name__ == "__main__":
    main()
