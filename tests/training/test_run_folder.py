from __future__ import annotations

import csv
import dataclasses
import math
from pathlib import Path

import pytest
import torch

from ctrs.config import AugmentConfig, TrainConfig, read_toml, resolve_train_config
from ctrs.errors import ConfigError, DataError, InputNotFoundError, OutputError, OutputExistsError
from ctrs.tiles.manifest import Manifest
from ctrs.training.records import EpochRecord
from ctrs.training.run_config import CONFIG_FILE, differences, read_run_config, read_run_record, write_run_config
from ctrs.training.run_folder import RunFolder, append_metrics, check_run_folder, open_run, write_metrics
from ctrs.training.settings import effective_config

CONFIG = effective_config(TrainConfig(loss="none"), 64, torch.device("cpu"))


@pytest.fixture
def manifest(prepared) -> Manifest:
    return Manifest.open(prepared())


@pytest.fixture
def run(tmp_path: Path, manifest: Manifest) -> RunFolder:
    run = RunFolder(tmp_path / "runs" / "a")
    run.path.mkdir(parents=True)
    write_run_config(run.path, CONFIG, manifest)
    return run


def check(run: RunFolder, manifest: Manifest, config: TrainConfig = CONFIG, **how: bool) -> bool:
    return check_run_folder(run, config, manifest, **{"resume": False, "overwrite": False, **how})


def test_config_survives_its_file(run: RunFolder, manifest: Manifest) -> None:
    config = dataclasses.replace(CONFIG, augment=AugmentConfig(scale=(1, 2)), recipe="ct-paper", threads=2)
    write_run_config(run.path, config, manifest)
    assert read_run_config(run.path) == (config, manifest.root)
    assert read_run_record(run.path).split_hash == manifest.split_hash


def test_a_runs_config_serves_a_new_run(run: RunFolder, manifest: Manifest) -> None:
    config = dataclasses.replace(CONFIG, recipe="ct-paper", augment=AugmentConfig(scale=(1, 2)))
    write_run_config(run.path, config, manifest)
    file = read_toml(run.path / CONFIG_FILE)
    assert resolve_train_config(file, {}, where="config.toml") == config
    assert resolve_train_config(file, {"seed": 3}, where="config.toml") == dataclasses.replace(config, seed=3)


def test_config_of_another_version_is_refused(run: RunFolder) -> None:
    path = run.path / CONFIG_FILE
    path.write_text(path.read_text().replace("format_version = 1", "format_version = 9"))
    with pytest.raises(ConfigError, match=r"config\.toml: format_version 9 found, expected 1"):
        read_run_config(run.path)


def test_settings_that_train_the_same_network_may_change() -> None:
    same = dataclasses.replace(CONFIG, workers=7, device="cuda", precision="bf16", threads=1, epochs=99)
    assert differences(CONFIG, same) == []
    other = dataclasses.replace(CONFIG, seed=1, schedule="cosine", epochs=99)
    assert differences(CONFIG, other) == [
        "epochs was 50 and is 99", "schedule was 'constant' and is 'cosine'", "seed was 0 and is 1",
    ]  # fmt: skip


def test_free_folders_are_begun(tmp_path: Path, manifest: Manifest) -> None:
    run = RunFolder(tmp_path / "runs" / "b")
    assert not check(run, manifest)
    run.path.mkdir(parents=True)
    assert not check(run, manifest)
    with open_run(run, overwrite=False):  # killed right after
        pass
    assert not check(run, manifest)
    assert not check(run, manifest, resume=True)


def test_the_same_run_is_gone_on_with_and_another_is_not_replaced(run: RunFolder, manifest: Manifest) -> None:
    assert check(run, manifest)
    assert check(run, manifest, resume=True)
    assert not check(run, manifest, overwrite=True)
    for config in (dataclasses.replace(CONFIG, seed=1), dataclasses.replace(CONFIG, epochs=60)):
        with pytest.raises(OutputExistsError, match=r"another run stands there \((seed|epochs) was .*--resume.*--name"):
            check(run, manifest, config)
        assert not check(run, manifest, config, overwrite=True)
    assert check(run, manifest, dataclasses.replace(CONFIG, epochs=60), resume=True)
    with pytest.raises(ConfigError, match="goes on with its own settings, but seed was 0 and is 1"):
        check(run, manifest, dataclasses.replace(CONFIG, seed=1), resume=True)


def test_other_data_are_noticed(run: RunFolder, manifest: Manifest) -> None:
    other = dataclasses.replace(manifest, tiles=manifest.tiles[1:])
    with pytest.raises(OutputExistsError, match="the data are others"):
        check(run, other)
    with pytest.raises(DataError, match="other tiles or splits"):
        check(run, other, resume=True)


def test_folders_that_are_no_run_are_left_alone(tmp_path: Path, manifest: Manifest) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    for how in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(OutputExistsError, match="exists and is no run"):
            check(RunFolder(tmp_path / "photos"), manifest, **how)
    with pytest.raises(InputNotFoundError, match="no run to go on with"):
        check(RunFolder(tmp_path / "nowhere"), manifest, resume=True)


def test_overwrite_removes_the_earlier_run_and_a_second_process_is_kept_out(run: RunFolder) -> None:
    (run.path / "eval").mkdir()
    with open_run(run, overwrite=False), pytest.raises(OutputError, match="another process"):  # noqa: SIM117
        with open_run(run, overwrite=True):
            pass
    assert (run.path / "eval").is_dir()
    (run.path.parent / ".a.partial").mkdir()  # a kill while an earlier run was discarded
    with open_run(run, overwrite=True):
        assert [entry.name for entry in run.path.iterdir()] == ["resume"]
        assert [entry.name for entry in run.path.parent.iterdir()] == ["a"]


def test_metrics_table_grows_by_rows(tmp_path: Path) -> None:
    def record(epoch: int) -> EpochRecord:
        return EpochRecord(
            epoch=epoch, step=epoch, learning_rate=0.1, losses={"total": 1 / epoch}, scores={"mean_iou": math.nan},
            seconds=1.0, images_per_second=1.0, data_wait=0.0, is_best=True,
        )  # fmt: skip

    path = tmp_path / "metrics.csv"
    write_metrics(path, ())
    for epoch in (1, 2, 3):
        append_metrics(path, record(epoch))
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert rows[2]["train_total"] == "0.33333333"
    assert rows[2]["val_mean_iou"] == ""
    text = path.read_text()
    path.write_text(text + "4,4,0.1")  # cut off by a kill
    write_metrics(path, [record(1), record(2), record(3)])
    assert path.read_text() == text
    with pytest.raises(OutputError, match=r"metrics\.csv: cannot be written"):
        append_metrics(tmp_path / "no" / "metrics.csv", record(1))


@pytest.mark.parametrize("resume", [True, False])
def test_checkpoints_without_their_state_are_not_trained_over(run: RunFolder, manifest: Manifest, resume: bool) -> None:
    assert check(run, manifest, resume=resume)  # stopped before the first save
    run.last.mkdir()
    (run.last / "model.json").write_text("{}")
    with pytest.raises(OutputExistsError, match=r"holds checkpoints, but resume/ is gone.* --init .*or discard"):
        check(run, manifest, resume=resume)
    assert not check(run, manifest, overwrite=True)
    run.resume.mkdir()
    (run.resume / "current").write_text("epoch-00001")
    assert check(run, manifest, resume=resume)
