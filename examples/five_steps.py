"""The five steps from Python, on a synthetic town: python examples/five_steps.py [FOLDER]."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from ctrs.config import PrepareConfig, TrainConfig
from ctrs.evaluation import evaluate
from ctrs.inference import Predictor
from ctrs.synthetic import TownConfig, make_town
from ctrs.tiles import prepare_tiles
from ctrs.training import train
from ctrs.vector import vectorize


def main(folder: Path) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    town = make_town(folder / "town", TownConfig(size_px=512, train_ids=("2_10", "2_11"), test_ids=("2_13",)))
    manifest = prepare_tiles(town, folder / "prepared", PrepareConfig(tile_px=128))
    result = train(
        manifest.root,
        folder / "run",
        TrainConfig(backbone="pvt", loss="cl", epochs=4, batch_size=8, crop=96, schedule="cosine"),
    )
    report = evaluate(result.run_dir, manifest.root)
    print(f"mean IoU without Clutter on the {report.split} split: {report.headline.mean_iou:.3f}")
    scene = town / "2_Ortho_RGB" / "top_potsdam_2_13_RGB.tif"
    mask = Predictor.from_checkpoint(result.run_dir).predict_raster(scene, folder / "scene_mask.tif")
    layer = vectorize(mask, folder / "scene_mask.gpkg")
    print(f"{layer.path}: {layer.counts['building']} buildings")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "five-steps"))
