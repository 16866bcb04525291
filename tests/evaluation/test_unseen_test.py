"""No choice is made by test scenes: training does not open them, whatever else the data hold."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from ctrs.config import TrainConfig
from ctrs.model_files import find_checkpoint
from ctrs.training import train
from tests.prepared_data import MakePrepared


def hide_test(data: Path) -> None:
    """Make each file of the test unreadable."""
    hidden = [path for kind in ("images", "masks") for path in (data / kind / "test").glob("*.tif")]
    assert len(hidden) == 4
    for path in hidden:
        path.write_bytes(b"no raster")


def weights_of(run: Path, name: str) -> dict[str, np.ndarray]:
    return load_file(find_checkpoint(run / name).weights)


@pytest.mark.parametrize("val", [2, 0], ids=["validation", "no validation"])
def test_training_never_opens_test_tiles(
    prepared: MakePrepared, tmp_path: Path, tiny_config: TrainConfig, val: int
) -> None:
    """The same weights, bit for bit, and the same best epoch, whether the test can be read or not."""
    runs = []
    for name in ("readable", "hidden"):
        data = prepared(name, train=4, val=val, test=2)
        if name == "hidden":
            hide_test(data)
        runs.append(tmp_path / f"run_{name}")
        train(data, runs[-1], tiny_config)
    for which in ("best", "last"):
        first, second = (weights_of(run, which) for run in runs)
        assert first.keys() == second.keys()
        assert all(np.array_equal(first[key], second[key]) for key in first)
    for run in runs:
        assert not (run / "test_openings.json").exists()
        with (run / "metrics.csv").open(encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        assert all(bool(row.get("val_mean_iou")) == bool(val) for row in rows)
        assert not any("test" in column for column in rows[0])


def test_no_option_of_training_names_the_test() -> None:
    """Neither the best epoch nor early stopping can be told to look there."""
    assert not [name for name in TrainConfig.__dataclass_fields__ if "test" in name or "split" in name]
