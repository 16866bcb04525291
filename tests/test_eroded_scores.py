"""Labels with eroded borders, from the files of a source to the scores of a report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from ctrs.config import EvalConfig, PredictConfig, PrepareConfig
from ctrs.evaluation.evaluation import evaluate
from ctrs.model_files import CheckpointMetadata
from ctrs.models.checkpoint import save_checkpoint
from ctrs.models.segmentation import create_model
from ctrs.synthetic import TownConfig, make_town
from ctrs.tiles import prepare_tiles

TOWN = TownConfig(size_px=192, pixel_size_m=0.4, train_ids=("2_10",), test_ids=("2_13",))
LABELS = {
    "strict": "5_Labels_all/top_potsdam_2_13_label.tif",
    "isprs": "5_Labels_all_noBoundary/top_potsdam_2_13_label_noBoundary.tif",
}


@pytest.mark.parametrize("named", [False, True], ids=["recognised", "images named"])
def test_both_kinds_of_labels_are_scored(tmp_path: Path, named: bool) -> None:
    """Each pixel of the test scene counts in the full labels, and those that are not black in the eroded ones."""
    source = make_town(tmp_path / "potsdam", TOWN)
    given = PrepareConfig(preset="potsdam", images=("2_Ortho_RGB/*.tif",), tile_px=64)
    manifest = prepare_tiles(source, tmp_path / "data", given if named else PrepareConfig(tile_px=64))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = create_model("pvt", "unetformer", num_classes=manifest.classes.num_classes, in_channels=3)
    metadata = CheckpointMetadata(
        architecture=model.architecture, classes=manifest.classes, bands=manifest.bands, window_px=64, overlap=0.25
    )
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.toml").write_text("epochs = 1\n")
    save_checkpoint(run / "best", model, metadata)
    report = evaluate(run, tmp_path / "data", EvalConfig(predict=PredictConfig(device="cpu", threads=1)))
    assert report.split == "test"
    assert report.labels == ("strict", "isprs")
    assert {entry.labels for entry in report.protocols} == set(LABELS)
    pixels = {kind: report.protocol(f"{kind}, all classes").num_pixels for kind in LABELS}
    assert 0 < pixels["isprs"] < pixels["strict"]
    counted = {kind: matrix.total for kind, matrix in report.confusions.items()}
    for kind, name in LABELS.items():
        with rasterio.open(source / name) as dataset:
            assert counted[kind] == np.count_nonzero(dataset.read().any(axis=0)), kind
    assert 0 < counted["isprs"] < counted["strict"] == 192 * 192
