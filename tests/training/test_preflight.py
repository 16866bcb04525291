"""What a run says before it begins, and what it leaves beside the checkpoints."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ctrs.config import TrainConfig
from ctrs.errors import OutputError, UsageError
from ctrs.models.checkpoint import load_checkpoint
from ctrs.report.png import read_description
from ctrs.training import TrainPlan, batch_step, footprint, run_output, train, tuning
from ctrs.training.run_config import read_run_config
from ctrs.training.run_logs import RunLogs

PICTURES = ("curves.png", "confusion.png", "examples.png")


class StopError(Exception):
    """Stands for a kill."""


@pytest.fixture(scope="module")
def town(write_prepared: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = write_prepared(tmp_path_factory.mktemp("data") / "town")
    return path


@pytest.fixture(scope="module")
def trained(town: Path, tiny_config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainPlan]:
    run, plans = tmp_path_factory.mktemp("runs") / "a", []
    train(town, run, tiny_config, on_plan=plans.append)
    return run, plans[0]


def test_the_plan_holds_what_is_true(trained: tuple[Path, TrainPlan]) -> None:
    run, plan = trained
    model, _ = load_checkpoint(run / "best")
    in_network = sum(parameter.numel() for parameter in model.parameters())
    assert plan.parameters > in_network  # projection heads too
    assert plan.frozen_parameters == 0
    assert plan.unlabelled == 0
    assert plan.history == ()
    assert {name.rstrip("/") for name in plan.written} == {entry.name for entry in run.iterdir()}
    written = sum(entry.stat().st_size for entry in run.rglob("*") if entry.is_file())
    assert 0 <= plan.disk_bytes - written <= footprint._OTHER_FILES_BYTES
    assert plan.disk_free > plan.disk_bytes
    assert plan.cache_bytes == 8 * 64 * 64 * 5  # three bands, mask, valid
    if sys.platform == "linux":  # elsewhere the system may not tell
        assert 1e8 < plan.memory_bytes < plan.memory_available


@pytest.mark.filterwarnings("ignore:all stages of the encoder are frozen with random weights")
def test_frozen_parameters_are_told_apart(town: Path, tiny_config: TrainConfig, tmp_path: Path) -> None:
    plans: list[TrainPlan] = []

    def stop(plan: TrainPlan) -> None:
        plans.append(plan)
        raise StopError

    for stages in (0, 4):
        with pytest.raises(StopError):
            train(town, tmp_path / str(stages), dataclasses.replace(tiny_config, frozen_stages=stages), on_plan=stop)
    assert plans[1].frozen_parameters > 0
    assert plans[1].parameters + plans[1].frozen_parameters == plans[0].parameters


def test_a_disk_without_room_is_refused_before_a_step(
    town: Path, tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(footprint.shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    monkeypatch.setattr(batch_step, "forward_backward", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(OutputError, match=r"a: the disk has 1 MB left, but the run needs .* make room"):
        train(town, tmp_path / "a", tiny_config)
    assert not (tmp_path / "a").exists()


def test_logs_that_cannot_be_are_refused_before_a_folder_is_made(
    town: Path, tiny_config: TrainConfig, tmp_path: Path
) -> None:
    config = dataclasses.replace(tiny_config, log=("wandb",))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "wandb", None)
        with pytest.raises(UsageError, match="pip install wandb"):
            train(town, tmp_path / "a", config)
    assert not (tmp_path / "a").exists()


def test_the_folder_explains_itself(trained: tuple[Path, TrainPlan]) -> None:
    run, _ = trained
    starts = json.loads((run / "environment.json").read_text())["starts"]
    assert [start["first_epoch"] for start in starts] == [1]
    assert "Finished: 2 of 2 epochs" in (run / "README.md").read_text()
    best = json.loads((run / "best" / "model.json").read_text())["epoch"]
    assert read_description(run / "examples.png") == {"epoch": best}
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    pictures = [tag for tag in events.Tags()["images"] if tag.startswith("examples/town_000_")]
    assert len(pictures) == 2
    assert [picture.step for picture in events.Images(pictures[0])] == [1, 2]


@pytest.mark.parametrize("stop_at", ["add", "_draw_curves"])
def test_pictures_and_logs_that_a_stop_prevented_are_made_good(
    town: Path, tiny_config: TrainConfig, trained: tuple[Path, TrainPlan], tmp_path: Path, stop_at: str
) -> None:
    run = tmp_path / "a"

    def stop(*_: object, **__: object) -> None:
        raise StopError

    one = dataclasses.replace(tiny_config, epochs=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(*((RunLogs, "add", stop) if stop_at == "add" else (run_output, "_draw_curves", stop)))
        with pytest.raises(StopError):
            train(town, run, one)
    assert not any((run / name).exists() for name in PICTURES)
    train(town, run, one, resume=True)  # nothing is left to train
    assert all((run / name).stat().st_size > 1000 for name in PICTURES)
    assert read_description(run / "examples.png") == {"epoch": 1}
    train(town, run, tiny_config, resume=True)
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert [point.step for point in events.Scalars("val/mean_iou")] == [1, 2]
    whole, _ = trained
    assert (run / "confusion.png").read_bytes() == (whole / "confusion.png").read_bytes()
    assert (run / "examples.png").read_bytes() == (whole / "examples.png").read_bytes()


def test_what_was_chosen_stands_in_the_configuration_and_holds(
    town: Path, tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "_ENOUGH_SECONDS", 0.02)
    auto = dataclasses.replace(tiny_config, auto=True, batch_size=None, workers=0, epochs=1)
    run = tmp_path / "a"
    train(town, run, auto)
    stored, _ = read_run_config(run)
    assert stored.batch_size == 8
    assert stored.auto
    monkeypatch.setattr(tuning, "_Trial", lambda *_, **__: pytest.fail("tried again"))
    assert train(town, run, stored, resume=True).resumed_at == 1
    assert train(town, run, auto).resumed_at == 1
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(OutputError, match="exists and is no run"):
        train(town, tmp_path / "other", auto)
    shutil.rmtree(run)
    with pytest.raises(pytest.fail.Exception, match="tried again"):
        train(town, run, auto)
