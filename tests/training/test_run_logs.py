"""Logs beside ``metrics.csv``; W&B and MLflow are stand-ins that write down how they are called."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ctrs.classes import ClassMap, LandClass
from ctrs.config import TrainConfig
from ctrs.errors import CtrsWarning, UsageError
from ctrs.report.examples import Example
from ctrs.training.records import EpochRecord
from ctrs.training.run_folder import RunFolder
from ctrs.training.run_logs import RunLogs, check_logs, numbers_of

CLASSES = ClassMap(
    classes=(
        LandClass(value=0, name="low vegetation", color=(0, 0, 0)),
        LandClass(value=1, name="building", color=(255, 0, 0)),
    )
)
EXAMPLE = Example(
    name="town_0_1",
    image=np.zeros((3, 8, 6), np.uint8),
    truth=np.zeros((8, 6), np.uint8),
    predicted=np.ones((8, 6), np.uint8),
)


def record(epoch: int) -> EpochRecord:
    return EpochRecord(
        epoch=epoch, step=10 * epoch, learning_rate=5e-4, losses={"total": 2.0 - epoch / 10, "cl": math.nan},
        scores={"mean_iou": epoch / 10, "iou low vegetation": 0.5}, seconds=1.0, images_per_second=4.0, data_wait=0.1,
        is_best=True,
    )  # fmt: skip


def config(*logs: str, epochs: int = 3) -> TrainConfig:
    return TrainConfig(epochs=epochs, log=logs)  # type: ignore[arg-type]


Calls = list[tuple[str, tuple[Any, ...], dict[str, Any]]]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    (tmp_path / "runs" / "a").mkdir(parents=True)
    return RunFolder(tmp_path / "runs" / "a")


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls: Calls = []
    module = ModuleType("wandb")

    def note(name: str, result: Any = None) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls.append((name, args, kwargs))
            return result

        return call

    def init(**kwargs: Any) -> SimpleNamespace:
        calls.append(("init", (), kwargs))
        return SimpleNamespace(id=kwargs["id"] or "w1", log=note("log"), finish=note("finish"))

    module.init = init  # type: ignore[attr-defined]
    module.Image = lambda pixels, caption: (pixels.shape, caption)  # type: ignore[attr-defined]
    module.api = SimpleNamespace(api_key="secret")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    return calls


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls: Calls = []
    module = ModuleType("mlflow")
    for name in ("set_experiment", "log_params", "log_metrics", "log_image", "end_run"):
        setattr(module, name, lambda *args, _name=name, **kwargs: calls.append((_name, args, kwargs)))

    def start_run(**kwargs: Any) -> SimpleNamespace:
        calls.append(("start_run", (), kwargs))
        return SimpleNamespace(info=SimpleNamespace(run_id=kwargs["run_id"] or "m1"))

    module.start_run = start_run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", module)
    for name in ("MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    return calls


def events(run: RunFolder) -> EventAccumulator:
    found = EventAccumulator(str(run.tensorboard))
    found.Reload()
    return found


def test_tensorboard_has_numbers_and_pictures(run: RunFolder) -> None:
    with RunLogs(run, config("tensorboard"), first_epoch=1) as logs:
        for epoch in (1, 2, 3):
            logs.add(record(epoch))
            if logs.wants_examples(epoch):
                logs.show(epoch, [EXAMPLE], CLASSES)
    assert [path.name.split(".")[4] for path in run.tensorboard.iterdir()] == ["ctrs"], "no name of a machine"
    found = events(run)
    assert [(point.step, round(point.value, 6)) for point in found.Scalars("val/mean_iou")] == [
        (1, 0.1), (2, 0.2), (3, 0.3),
    ]  # fmt: skip
    assert {"val/iou/low_vegetation", "val/iou/low vegetation"} & {*found.Tags()["scalars"]}  # TensorBoard's choice
    assert "train/cl" not in found.Tags()["scalars"]  # never a number
    pictures = found.Images("examples/town_0_1")
    assert [picture.step for picture in pictures] == [1, 2, 3]
    assert (pictures[0].height, pictures[0].width) == (8, 3 * 6 + 8)


def test_epochs_that_a_stop_kept_from_the_log_are_made_good_and_void_ones_replaced(run: RunFolder) -> None:
    with RunLogs(run, config("tensorboard"), first_epoch=1) as logs:
        logs.add(record(1))
    # Killed after the state of epoch 2 was saved, before its numbers were told.
    with RunLogs(run, config("tensorboard"), first_epoch=3, history=[record(1), record(2)]) as logs:
        logs.add(record(3))
    assert [point.step for point in events(run).Scalars("train/total")] == [1, 2, 3]


def test_pictures_are_few_in_a_long_run(run: RunFolder) -> None:
    with RunLogs(run, config("tensorboard", epochs=205), first_epoch=1) as logs:
        wanted = [epoch for epoch in range(1, 206) if logs.wants_examples(epoch)]
    assert wanted[:3] == [1, 10, 20]
    assert wanted[-1] == 205
    assert len(wanted) == 22
    with RunLogs(run, config(), first_epoch=1) as nothing:
        assert not nothing.wants_examples(1)


def test_wandb_is_told_and_a_resumed_run_is_the_same_run(run: RunFolder, wandb: Calls) -> None:
    with RunLogs(run, config("wandb"), first_epoch=1) as logs:
        logs.add(record(1))
        logs.show(1, [EXAMPLE], CLASSES)
    name, _, began = wandb[0]
    assert (name, began["project"], began["name"], began["id"], began["resume"]) == ("init", "ctrs", "a", None, None)
    assert "mode" not in began
    assert began["config"]["epochs"] == 3
    assert began["dir"] == str(run.path)
    assert wandb[1] == ("log", ({"epoch": 1, **numbers_of(record(1))},), {"step": 1})
    assert wandb[2] == ("log", ({"examples": [((8, 26, 3), "town_0_1")]},), {"step": 1})
    assert wandb[3] == ("finish", (), {"exit_code": 0})
    wandb.clear()
    with RunLogs(run, config("wandb"), first_epoch=3, history=[record(1), record(2)]) as logs:
        logs.add(record(3))
    assert (wandb[0][2]["id"], wandb[0][2]["resume"]) == ("w1", "allow")
    assert [call[2]["step"] for call in wandb if call[0] == "log"] == [2, 3]


def test_wandb_without_a_key_is_offline_and_asks_nothing(
    run: RunFolder, wandb: Calls, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sys.modules["wandb"].api.api_key = None  # type: ignore[attr-defined]
    with caplog.at_level("INFO", "ctrs"), RunLogs(run, config("wandb"), first_epoch=1):
        pass
    assert wandb[0][2]["mode"] == "offline"
    assert "`wandb sync` uploads it later" in caplog.text
    for variable, value in (("WANDB_MODE", "online"), ("WANDB_API_KEY", "given")):
        wandb.clear()
        with monkeypatch.context() as patch:
            patch.setenv(variable, value)
            with RunLogs(run, config("wandb"), first_epoch=1):
                pass
        assert "mode" not in wandb[0][2]


def test_mlflow_is_told_and_a_resumed_run_is_the_same_run(run: RunFolder, mlflow: Calls) -> None:
    with RunLogs(run, config("mlflow"), first_epoch=1) as logs:
        logs.add(record(1))
        logs.show(1, [EXAMPLE], CLASSES)
    assert [call[0] for call in mlflow] == [
        "set_experiment", "start_run", "log_params", "log_metrics", "log_image", "end_run",
    ]  # fmt: skip
    assert mlflow[0][1] == ("ctrs",)
    assert mlflow[1][2] == {"run_id": None, "run_name": "a", "nested": True}
    assert mlflow[2][1][0]["augment.flip"] is True
    assert mlflow[3][1][0]["val/mean_iou"] == 0.1
    assert mlflow[3][2] == {"step": 1}
    assert mlflow[4][1][0].shape == (8, 26, 3)
    assert mlflow[4][2] == {"key": "examples_0", "step": 1}
    assert mlflow[5][2] == {"status": "FINISHED"}
    mlflow.clear()
    with pytest.raises(KeyboardInterrupt), RunLogs(run, config("mlflow"), first_epoch=2, history=[record(1)]):
        raise KeyboardInterrupt
    assert mlflow == [
        ("start_run", (), {"run_id": "m1", "run_name": None, "nested": True}),
        ("end_run", (), {"status": "FAILED"}),
    ]


def test_names_that_mlflow_refuses_are_changed(run: RunFolder, mlflow: Calls) -> None:
    odd = dataclasses.replace(record(1), scores={"iou Straße (breit)": 0.5, "iou a,b": 0.25})
    with RunLogs(run, config("mlflow"), first_epoch=1) as logs:
        logs.add(odd)
    told = next(call[1][0] for call in mlflow if call[0] == "log_metrics")
    assert {"val/iou/Straße _breit_", "val/iou/a_b"} <= set(told)


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_what_is_not_installed_is_said_before_training(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=rf"log '{name}': .* is not installed.*`pip install {name}`.*--log {name}"):
        check_logs(("tensorboard", name))  # type: ignore[arg-type]
    check_logs(("tensorboard",))


def test_a_tracker_that_fails_costs_its_log_only(run: RunFolder, wandb: Calls, mlflow: Calls) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    sys.modules["mlflow"].log_metrics = broken  # type: ignore[attr-defined]
    with RunLogs(run, config("mlflow", "wandb"), first_epoch=1) as logs:
        with pytest.warns(CtrsWarning, match=r"log mlflow: stopped \(no route to host\)"):
            logs.add(record(1))
        logs.add(record(2))
    assert [call[2]["step"] for call in wandb if call[0] == "log"] == [1, 2]
    told = json.loads((run.path / "logs.json").read_text())["logs"]
    assert told == {"mlflow": {"id": "m1"}, "wandb": {"id": "w1", "epoch": 2}}


def test_a_tracker_that_cannot_begin_is_tried_again_by_a_resumed_run(run: RunFolder, mlflow: Calls) -> None:
    works = sys.modules["mlflow"].start_run  # type: ignore[attr-defined]

    def refuse(**_: object) -> None:
        raise RuntimeError("server away")

    sys.modules["mlflow"].start_run = refuse  # type: ignore[attr-defined]
    with (
        pytest.warns(CtrsWarning, match="log mlflow: stopped .server away."),
        RunLogs(run, config("mlflow"), first_epoch=1) as logs,
    ):
        logs.add(record(1))
    sys.modules["mlflow"].start_run = works  # type: ignore[attr-defined]
    mlflow.clear()
    with RunLogs(run, config("mlflow"), first_epoch=2, history=[record(1)]):
        pass
    assert [call[0] for call in mlflow] == ["set_experiment", "start_run", "log_params", "log_metrics", "end_run"]


def test_ids_that_someone_broke_cost_the_ids_only(run: RunFolder, wandb: Calls) -> None:
    (run.path / "logs.json").write_text("[]")
    with (
        pytest.warns(CtrsWarning, match=r"logs\.json: not readable"),
        RunLogs(run, config("wandb"), first_epoch=2, history=[record(1)]),
    ):
        pass
    assert wandb[0][2]["id"] is None
