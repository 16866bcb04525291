from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from ctrs.config import TrainConfig
from ctrs.tiles.manifest import Manifest
from ctrs.training.records import EpochRecord
from ctrs.training.resume import RunState
from ctrs.training.run_folder import RunFolder
from ctrs.training.run_readme import files_of, write_readme

RECORD = EpochRecord(
    epoch=1, step=3, learning_rate=1e-3, losses={"total": 1.0},
    scores={"mean_iou": 0.625, "overall_accuracy": 0.75, "iou ground": 0.5, "iou building": math.nan},
    seconds=70.0, images_per_second=4.0, data_wait=0.1, is_best=True,
)  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    path = tmp_path / "runs" / "a"
    (path / "best").mkdir(parents=True)
    (path / "metrics.csv").touch()
    return RunFolder(path)


def test_it_says_what_how_good_and_how_to_go_on(prepared: Any, run: RunFolder, tiny_config: TrainConfig) -> None:
    manifest = Manifest.open(prepared())
    write_readme(run, RunState(history=(RECORD,), seconds=70.0), tiny_config, manifest)
    text = run.readme.read_text()
    assert "test_convnext with decoder dcfam, loss cl:1, on town:" in text
    assert "2 classes (ground, building), bands red, green, blue" in text
    assert "(uint8), tiles of 64 px, 0.1 m a pixel;\n6 train, 2 val." in text
    assert "Not finished: 1 of 2 epochs when this was written." in text
    assert "| mean IoU | 0.6250 |" in text
    assert "| IoU of building | – |" in text
    for command in ("eval runs/a", "predict SCENE.tif --model runs/a", "info runs/a", "train --resume --name a"):
        assert f"    ctrs {command}\n" in text
    assert "| `best/` |" in text
    assert "| `metrics.csv` |" in text
    assert "`last/`" not in text  # not there yet


def test_a_run_that_has_just_begun_and_one_that_is_finished(
    prepared: Any, run: RunFolder, tiny_config: TrainConfig
) -> None:
    manifest = Manifest.open(prepared())
    write_readme(run, RunState(), tiny_config, manifest)
    text = run.readme.read_text()
    assert "Not finished: 0 of 2 epochs" in text
    assert "    ctrs eval" not in text
    last = dataclasses.replace(RECORD, epoch=2, scores={})
    write_readme(run, RunState(history=(RECORD, last), seconds=140.0), tiny_config, manifest)
    text = run.readme.read_text()
    assert "\nFinished: 2 of 2 epochs in 2 min 20 s." in text
    assert "--resume --name" not in text
    assert "Nothing validated: `best/` is the last epoch." in text


def test_only_what_will_be_written_is_announced() -> None:
    config = TrainConfig()
    assert files_of(config, validates=True, has_heads=True) == (
        "best/", "last/", "heads.safetensors", "config.toml", "environment.json", "metrics.csv", "curves.png",
        "confusion.png", "examples.png", "tensorboard/", "logs.json", "resume/", "README.md",
    )  # fmt: skip
    bare = files_of(dataclasses.replace(config, log=(), init="runs/b"), validates=False, has_heads=False)
    assert bare == (
        "best/", "last/", "config.toml", "environment.json", "init.json", "metrics.csv", "curves.png", "resume/",
        "README.md",
    )  # fmt: skip
