from __future__ import annotations

import dataclasses

import pytest
import torch

from ctrs.classes import ClassMap, LandClass
from ctrs.config import TrainConfig
from ctrs.errors import DataError, DataWarning
from ctrs.tiles.manifest import Manifest
from ctrs.training.settings import check_data, default_workers, effective_config, resize_factor

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def test_open_settings_depend_on_device_weights_and_tiles() -> None:
    on_cpu = effective_config(TrainConfig(), 512, CPU)
    assert (on_cpu.batch_size, on_cpu.learning_rate, on_cpu.crop, on_cpu.workers) == (8, 5e-4, 512, 0)
    on_gpu = effective_config(TrainConfig(weights="imagenet"), 300, GPU)
    assert (on_gpu.batch_size, on_gpu.learning_rate, on_gpu.crop) == (32, 8e-5, 300)
    assert on_gpu.workers == default_workers(GPU) >= 1


def test_sgd_has_a_learning_rate_of_its_own() -> None:
    assert effective_config(TrainConfig(optimizer="sgd", weights="imagenet"), 512, CPU).learning_rate == 0.01
    assert effective_config(TrainConfig(optimizer="sgd", learning_rate=0.1), 512, CPU).learning_rate == 0.1


def test_what_is_given_stays() -> None:
    given = TrainConfig(batch_size=3, learning_rate=0.1, crop=64, workers=2)
    assert effective_config(given, 512, GPU) == given


def test_a_crop_beyond_the_tile_is_warned_of() -> None:
    with pytest.warns(
        DataWarning, match=r"crop 4096 px is larger than the tiles \(128 px\): .* pass --crop 128 or less"
    ):
        effective_config(TrainConfig(crop=4096), 128, CPU)
    effective_config(TrainConfig(crop=128), 128, CPU)
    effective_config(TrainConfig(recipe="ct-paper", crop=512), 500, CPU)


def test_ct_paper_resizes_500_px_tiles_to_512() -> None:
    config = TrainConfig(recipe="ct-paper")
    assert resize_factor(config, 500) == 512 / 500
    assert resize_factor(TrainConfig(), 500) == 1
    effective = effective_config(config, 500, CPU)
    assert (effective.crop, effective.learning_rate) == (512, 8e-5)


def test_data_without_training_tiles_are_refused(prepared) -> None:
    manifest = Manifest.open(prepared(train=0, val=2))
    with pytest.raises(DataError, match=r"no training tiles \(2 in val\); run `ctrs prepare`"):
        check_data(manifest)
    with pytest.raises(DataError, match="none at all"):
        check_data(dataclasses.replace(manifest, tiles=()))


def test_a_class_table_of_one_class_is_refused(prepared) -> None:
    one = ClassMap(classes=(LandClass(value=0, name="building", color=(1, 1, 1)),))
    with pytest.raises(DataError, match="one class, 'building', expected two or more"):
        check_data(Manifest.open(prepared(classes=one)))


def test_data_without_a_labelled_pixel_are_refused(prepared) -> None:
    with pytest.raises(DataError, match="no labelled pixel in 6 training tiles"):
        check_data(Manifest.open(prepared(labelled=False)))
