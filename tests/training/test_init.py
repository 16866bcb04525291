"""Fine-tuning: a run begins from a model with other classes."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from pathlib import Path

import pytest
import torch

from ctrs.classes import ClassMap, LandClass
from ctrs.config import TrainConfig
from ctrs.errors import CheckpointError, ConfigError, InputNotFoundError
from ctrs.model_files import CheckpointMetadata, hash_weights, read_metadata
from ctrs.models import create_model, save_checkpoint
from ctrs.raster.bands import Bands
from ctrs.training import train
from ctrs.training.origin import ORIGIN_FILE
from ctrs.training.run_config import read_run_config
from ctrs.training.settings import FINE_TUNING_RATE, effective_config

CLASSES = ClassMap(
    classes=(
        LandClass(value=0, name="ground", color=(0, 0, 0)),
        LandClass(value=1, name="building", color=(255, 0, 0)),
    )
)
OTHER_CLASSES = ClassMap(
    classes=(
        LandClass(value=0, name="water", color=(0, 0, 255)),
        LandClass(value=1, name="building", color=(255, 0, 0)),
    )
)


BANDS = Bands(
    names=("red", "green", "blue"), dtype="uint8", low=(0,) * 3, high=(255,) * 3, mean=(100,) * 3, std=(50,) * 3
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, tiny_config: TrainConfig) -> Path:
    """A run that nobody trained, of the network that ``tiny_config`` trains."""
    folder = tmp_path_factory.mktemp("source") / "run"
    torch.manual_seed(5)
    model = create_model(tiny_config.backbone, tiny_config.decoder, num_classes=2, in_channels=3)
    metadata = CheckpointMetadata(
        architecture=model.architecture, classes=CLASSES, bands=BANDS, window_px=64, overlap=0.25,
        data={"name": "town"},
    )  # fmt: skip
    save_checkpoint(folder / "best", model, metadata)
    return folder


@pytest.fixture
def config(tiny_config: TrainConfig, source: Path) -> TrainConfig:
    return dataclasses.replace(tiny_config, init=str(source), epochs=1, loss="none", log=())


def test_a_run_says_what_it_began_from(
    prepared, config: TrainConfig, source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        train(prepared(classes=OTHER_CLASSES, train=2, val=1), tmp_path / "a", config)
    assert "classes known: building; new: water" in caplog.text
    origin = read_metadata(tmp_path / "a").init
    assert origin["weights_hash"] == read_metadata(source).weights_hash
    assert (origin["data"], origin["new_classes"]) == ("town", ["water"])
    assert read_run_config(tmp_path / "a")[0].init == str(source)


@pytest.mark.slow
def test_going_on_needs_the_source_no_more(prepared, config: TrainConfig, source: Path, tmp_path: Path) -> None:
    data = prepared(classes=OTHER_CLASSES, train=2, val=1)
    train(data, tmp_path / "whole", dataclasses.replace(config, epochs=2))
    copy = tmp_path / "copy"
    shutil.copytree(source, copy)
    config = dataclasses.replace(config, init=str(copy))
    train(data, tmp_path / "parts", dataclasses.replace(config, epochs=1))
    shutil.rmtree(copy)
    train(data, tmp_path / "parts", dataclasses.replace(config, epochs=2), resume=True)
    files = [tmp_path / name / "last" / "model.safetensors" for name in ("whole", "parts")]
    assert hash_weights(files[0]) == hash_weights(files[1])
    assert read_metadata(tmp_path / "parts").init["path"] == str(copy / "best" / "model.safetensors")
    assert json.loads((tmp_path / "parts" / ORIGIN_FILE).read_text())["new_classes"] == ["water"]


def test_what_cannot_serve_leaves_no_run(prepared, config: TrainConfig, source: Path, tmp_path: Path) -> None:
    data = prepared()
    with pytest.raises(InputNotFoundError, match="gone: no such run or checkpoint"):
        train(data, tmp_path / "run", dataclasses.replace(config, init="gone"))
    with pytest.raises(
        CheckpointError, match=r"--init .*has the backbone test_convnext, but this run trains test_resnet"
    ):
        train(data, tmp_path / "run", dataclasses.replace(config, backbone="test_resnet"))
    foreign = tmp_path / "foreign.pth"
    foreign.write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"foreign.pth: not a model of ctrs; .*--weights"):
        train(data, tmp_path / "run", dataclasses.replace(config, init=str(foreign)))
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match=r"weights = 'imagenet' found, expected \"none\" beside init"):
        dataclasses.replace(config, weights="imagenet")


def test_a_run_from_a_model_learns_slowly_unless_told(config: TrainConfig) -> None:
    open_rate = dataclasses.replace(config, learning_rate=None)
    assert effective_config(open_rate, 64, torch.device("cpu")).learning_rate == FINE_TUNING_RATE
