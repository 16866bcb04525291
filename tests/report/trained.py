"""A run's folder with a small network that nobody trained, its description, and an evaluation."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ctrs.classes import ClassMap, LandClass
from ctrs.config import TrainConfig, to_plain
from ctrs.model_files import CheckpointMetadata
from ctrs.models import SegmentationModel, create_model, save_checkpoint
from ctrs.raster.bands import Bands

CLASSES = ClassMap(
    classes=(
        LandClass(value=3, name="low vegetation", color=(0, 255, 255)),
        LandClass(value=7, name="building", color=(0, 0, 255)),
        LandClass(value=9, name="clutter", color=(255, 0, 0), scored=False),
        LandClass(value=0, name="boundary", color=(0, 0, 0), ignored=True),
    )
)
BANDS = Bands(
    names=("near infrared", "red", "green"), dtype="uint16", low=(0, 0, 0), high=(4000, 3000.5, 3000),
    mean=(1000, 800, 700), std=(100, 90, 80), nodata=0,
)  # fmt: skip
GROUND = {"type": "Polygon", "coordinates": [[[11.0, 48.0], [11.5, 48.0], [11.5, 48.25], [11.0, 48.0]]]}


@cache
def network() -> SegmentationModel:
    torch.manual_seed(0)
    return create_model("test_convnext", "dcfam", num_classes=3, in_channels=3)


def write_run(folder: Path, **changes: Any) -> Path:
    """Write ``best`` into a run's folder; ``changes`` go into the description."""
    values: dict[str, Any] = {
        "pixel_size_m": 0.05,
        "recipe": "ct-paper",
        "resize_factor": 512 / 500,
        "config": to_plain(TrainConfig(epochs=7, loss="cl", recipe="ct-paper", learning_rate=8e-5)),
        "data": {
            "name": "potsdam", "split_hash": "abc123", "num_tiles": {"train": 20, "val": 4}, "licence": "CC BY 4.0",
            "footprint": GROUND,
        },
        "metrics": {
            "val_mean_iou": 0.7, "val_overall_accuracy": 0.9, "val_iou_low_vegetation": 0.6, "val_iou_building": 0.8,
            "val_iou_clutter": None,
        },
        "protocol": "validation tiles: strict, without clutter",
        "epoch": 5,
    }  # fmt: skip
    metadata = CheckpointMetadata(
        architecture=network().architecture, classes=CLASSES, bands=BANDS, window_px=500, overlap=0.25,
        **(values | changes),
    )  # fmt: skip
    save_checkpoint(folder / "best", network(), metadata)
    (folder / "config.toml").write_text("format_version = 1\n")
    return folder


def write_evaluation(run: Path, split: str = "test", **changes: Any) -> Path:
    """Write what ``ctrs eval`` leaves, as far as a card reads it."""
    classes = [
        {"name": name, "iou": iou, "f1": 0.8, "precision": 0.85, "recall": 0.75, "truth_px": 5, "predicted_px": 6}
        for name, iou in (("low vegetation", 0.512), ("building", 0.834))
    ]
    means = {"mean_iou": 0.673, "mean_f1": 0.8, "mean_precision": 0.85, "mean_recall": None, "overall_accuracy": 0.91}
    row = {
        "kind": "ctrs evaluation", "format_version": 1, "split": split, "data": "prepared/potsdam", "test_openings": 2,
        "protocols": [{"name": "strict, without clutter", **means, "classes": classes},
                      {"name": "strict, all classes", **means, "classes": classes}],
    }  # fmt: skip
    path = run / "eval" / split / "report.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(row | changes))
    return path
