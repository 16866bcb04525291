"""``ctrs train`` says what it kept, also where nothing validates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from ctrs import training
from ctrs.cli.app import main
from ctrs.training.records import TrainResult


@pytest.fixture(autouse=True)
def _data_and_a_quick_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source of four tiles, and a training that ends at once."""
    monkeypatch.chdir(tmp_path)
    profile = {"driver": "GTiff", "crs": "EPSG:32633", "transform": Affine(0.5, 0, 400_000, 0, -0.5, 5_800_000)}
    for kind, count, top in (("images", 3, 255), ("labels", 1, 2)):
        path = tmp_path / "src" / kind / "a.tif"
        path.parent.mkdir(parents=True)
        with rasterio.open(path, "w", width=64, height=64, count=count, dtype="uint8", **profile) as file:
            file.write(np.random.default_rng(0).integers(0, top, (count, 64, 64)).astype(np.uint8))

    def trained(data: Path, run_dir: Path, *args: object, **kwargs: object) -> TrainResult:
        return TrainResult(run_dir=run_dir, epochs=3, best_epoch=3, metrics={}, seconds=1.0)

    monkeypatch.setattr(training, "train", trained)


@pytest.mark.parametrize(
    ("options", "how"),
    [
        (["--folds", "2"], "choose --fold 0..1"),
        (["--val-fraction", "0"], "prepare the data with --val, --val-fraction or --folds"),
    ],
)
def test_without_validation_there_is_a_word_and_no_table(
    options: list[str], how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", "src", "--tile", "32", *options, "-q"]) == 0
    capsys.readouterr()
    assert main(["train", "prepared/src"]) == 0
    printed = capsys.readouterr().out
    assert f"epoch 3 kept, which is the last: no validation; {how}" in printed.splitlines()
    assert "metric" not in printed
