from __future__ import annotations

import csv
import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ctrs.config import TrainConfig
from ctrs.errors import (
    ConfigError,
    DataError,
    DeviceError,
    InputNotFoundError,
    OutputError,
    OutputExistsError,
    TrainingError,
    UsageError,
)
from ctrs.model_files import hash_weights, read_metadata
from ctrs.models.checkpoint import load_checkpoint
from ctrs.training import EpochRecord, TrainPlan, batch_step, footprint, run_output, train, trainer
from ctrs.training.run_config import read_run_config
from ctrs.workspace import newest_run


class StopError(Exception):
    """What the tests throw into a run."""


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory, write_prepared: Any) -> Path:
    """Prepared data that no test changes."""
    return write_prepared(tmp_path_factory.mktemp("data") / "town")


@pytest.fixture(scope="module")
def whole(town: Path, tmp_path_factory: pytest.TempPathFactory, tiny_config: TrainConfig) -> Path:
    """A run of four epochs that was never stopped."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    train(town, run, dataclasses.replace(tiny_config, epochs=4))
    return run


def weights_of(run: Path) -> dict[str, str]:
    files = ("last/model.safetensors", "best/model.safetensors", "heads.safetensors")
    return {name: hash_weights(run / name) for name in files}


def rows_of(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def without_times(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    times = ("seconds", "images_per_second", "data_wait", "peak_memory_mb")
    return [{key: value for key, value in row.items() if key not in times} for row in rows]


def test_a_run_learns_and_leaves_all_files(prepared, tiny_config: TrainConfig, tmp_path: Path) -> None:
    data, run = prepared(), tmp_path / "runs" / "a"
    plans: list[TrainPlan] = []
    records: list[EpochRecord] = []
    steps: list[tuple[int, int]] = []
    config = dataclasses.replace(tiny_config, epochs=4)

    def progress(done: int, total: int, what: str) -> None:
        if what == "training":
            assert len(plans) == 1
            steps.append((done, total))

    result = train(data, run, config, progress=progress, on_plan=plans.append, on_epoch=records.append)

    assert result.metrics["iou building"] > 0.5
    assert records[-1].losses["total"] < records[0].losses["total"]
    assert [record.epoch for record in records] == [1, 2, 3, 4]
    assert steps == [(number, 12) for number in range(1, 13)]
    assert (plans[0].steps_per_epoch, plans[0].num_train, plans[0].num_val, plans[0].cached) == (3, 6, 2, True)
    assert plans[0].expected_seconds > 0
    assert {entry.name for entry in run.iterdir()} == {
        "best", "last", "heads.safetensors", "resume", "config.toml", "metrics.csv", "tensorboard", "curves.png",
        "confusion.png", "examples.png", "environment.json", "logs.json", "README.md",
    }  # fmt: skip
    assert [float(row["val_mean_iou"]) for row in rows_of(run)] == pytest.approx(
        [record.scores["mean_iou"] for record in records], abs=1e-7
    )
    best = max(records, key=lambda record: record.scores["mean_iou"])
    assert result.best_epoch == best.epoch
    assert read_metadata(run / "best").epoch == best.epoch
    metadata = read_metadata(run / "last")
    assert (metadata.epoch, metadata.window_px, metadata.resize_factor, metadata.pixel_size_m) == (4, 64, 1.0, 0.1)
    assert metadata.data["name"] == "town"
    assert metadata.metrics["val_iou_building"] == pytest.approx(records[-1].scores["iou building"])
    stored, data_dir = read_run_config(run)
    assert data_dir == data
    assert stored == dataclasses.replace(config, workers=0)
    model, _ = load_checkpoint(run)
    assert not any("contrast" in name or "objective" in name for name in model.state_dict())


def test_the_same_seed_gives_the_same_weights_and_another_does_not(
    prepared, tiny_config: TrainConfig, tmp_path: Path
) -> None:
    data = prepared()
    torch.manual_seed(1)
    train(data, tmp_path / "a", tiny_config)
    torch.manual_seed(2)
    random.seed(3)
    train(data, tmp_path / "b", dataclasses.replace(tiny_config, workers=1))
    assert weights_of(tmp_path / "a") == weights_of(tmp_path / "b")
    assert without_times(rows_of(tmp_path / "a")) == without_times(rows_of(tmp_path / "b"))
    train(data, tmp_path / "c", dataclasses.replace(tiny_config, seed=1))
    assert weights_of(tmp_path / "c") != weights_of(tmp_path / "a")


def test_the_callers_generators_and_threads_stay_as_they_are(
    town: Path, tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(5)
    before, threads = torch.get_rng_state(), torch.get_num_threads()

    def set_up(*_: Any, **__: Any) -> None:
        assert torch.get_num_threads() == threads + 1
        torch.rand(3)
        raise StopError

    monkeypatch.setattr(trainer, "set_up", set_up)
    with pytest.raises(StopError):
        train(town, tmp_path / "a", dataclasses.replace(tiny_config, threads=threads + 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_each_epoch_sees_other_crops_in_another_order(
    town: Path, tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, seen = batch_step.forward_backward, []

    def recording(work: Any, config: TrainConfig, batch: Any, *, epoch: int, **place: int) -> Any:
        seen.append((epoch, float(batch["image"].double().sum())))
        return original(work, config, batch, epoch=epoch, **place)

    monkeypatch.setattr(batch_step, "forward_backward", recording)
    train(town, tmp_path / "a", tiny_config, on_plan=lambda _: seen.clear())
    assert [epoch for epoch, _ in seen] == [0, 0, 0, 1, 1, 1]
    assert len({total for _, total in seen}) == 6


PLACES = [
    ("step 1 of epoch 1", 0),
    ("step 2 of epoch 3", 0),
    ("append_metrics", 3),
    ("save_checkpoints", 3),
    ("save_checkpoints", 4),
    ("save_checkpoint", 3),
    ("draw", 1),
]


@pytest.mark.parametrize(("place", "call"), PLACES)
def test_a_stopped_run_goes_on_to_the_same_weights(
    town: Path,
    whole: Path,
    tiny_config: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    call: int,
) -> None:
    config, stopped = dataclasses.replace(tiny_config, epochs=4), tmp_path / "stopped"

    def stop_at_step(done: int, total: int, what: str) -> None:
        if what == "training" and place == f"step {(done - 1) % 3 + 1} of epoch {(done - 1) // 3 + 1}":
            raise StopError

    module = trainer if place in ("append_metrics", "save_checkpoints", "draw") else run_output
    with monkeypatch.context() as patch:
        if not place.startswith("step"):
            patch.setattr(module, place, _stopping(getattr(module, place), call=call))
        with pytest.raises(StopError):
            train(town, stopped, config, progress=stop_at_step)
    result = train(town, stopped, config, resume=True)

    assert weights_of(stopped) == weights_of(whole)
    assert without_times(rows_of(stopped)) == without_times(rows_of(whole))
    assert read_metadata(stopped / "best").epoch == read_metadata(whole / "best").epoch == result.best_epoch
    assert result.epochs == 4
    assert {entry.name for entry in stopped.iterdir()} == {entry.name for entry in whole.iterdir()}


def _stopping(function: Any, *, call: int) -> Any:
    calls = 0

    def replaced(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise StopError
        return function(*arguments, **options)

    return replaced


def test_a_finished_run_has_nothing_left_to_do(town: Path, tiny_config: TrainConfig, tmp_path: Path, caplog) -> None:
    run = tmp_path / "runs" / "a"
    first = train(town, run, tiny_config)
    weights, times = weights_of(run), (run / "last" / "model.json").stat().st_mtime_ns
    shutil.copytree(run, tmp_path / "runs" / "b")
    assert newest_run(tmp_path).name == "b"
    for how in ({"resume": True}, {}):
        with caplog.at_level("INFO"):
            again = train(town, run, tiny_config, on_plan=lambda _: pytest.fail("planned"), **how)
        assert again == dataclasses.replace(first, resumed_at=2)
        assert "all 2 epochs are finished; nothing to do" in caplog.text
    assert weights_of(run) == weights
    assert (run / "last" / "model.json").stat().st_mtime_ns == times
    assert newest_run(tmp_path).name == "a", "a run that is asked for again is the newest"


def test_a_finished_run_can_be_given_more_epochs(
    town: Path, whole: Path, tiny_config: TrainConfig, tmp_path: Path
) -> None:
    train(town, tmp_path / "a", tiny_config)
    train(town, tmp_path / "a", dataclasses.replace(tiny_config, epochs=4), resume=True)
    assert weights_of(tmp_path / "a") == weights_of(whole)
    assert read_run_config(tmp_path / "a")[0].epochs == 4


def test_overwrite_begins_anew(town: Path, whole: Path, tiny_config: TrainConfig, tmp_path: Path) -> None:
    run = tmp_path / "a"
    shutil.copytree(whole, run)
    (run / "test_openings.json").touch()
    other = dataclasses.replace(tiny_config, loss="none", epochs=1)
    with pytest.raises(OutputExistsError, match="another run stands there"):
        train(town, run, other)
    result = train(town, run, other, overwrite=True)
    assert result.epochs == 1
    assert len(rows_of(run)) == 1
    assert not (run / "heads.safetensors").exists()
    assert not (run / "test_openings.json").exists()


def test_overwrite_keeps_the_earlier_run_where_the_disk_lacks_room_for_a_new_one(
    town: Path, whole: Path, tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "a"
    shutil.copytree(whole, run)
    other = dataclasses.replace(tiny_config, loss="none", epochs=1)
    free = 1000
    monkeypatch.setattr(footprint.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    for entry in (run / "best", run / "resume"):  # what stands there will make room, but not enough
        shutil.rmtree(entry)
    left = {path.relative_to(run): path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(OutputError, match="left with what the run there takes, but the run needs"):
        train(town, run, other, overwrite=True)
    found = {path.relative_to(run): path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert {path: found[path] for path in left} == left
    free = 10**9
    assert train(town, run, other, overwrite=True).epochs == 1


def test_without_validation_split_the_last_epoch_is_the_best(
    prepared, tiny_config: TrainConfig, tmp_path: Path
) -> None:
    result = train(prepared(val=0), tmp_path / "a", tiny_config)
    assert (result.best_epoch, result.metrics) == (2, {})
    assert read_metadata(tmp_path / "a" / "best").epoch == 2


def test_bf16_on_the_cpu(town: Path, whole: Path, tiny_config: TrainConfig, tmp_path: Path) -> None:
    plans: list[TrainPlan] = []
    config = dataclasses.replace(tiny_config, precision="bf16", epochs=1)
    train(town, tmp_path / "a", config, on_plan=plans.append)
    assert plans[0].precision == "bf16"
    model, _ = load_checkpoint(tmp_path / "a")
    assert {value.dtype for value in model.state_dict().values()} <= {torch.float32, torch.int64}
    (rounded,), exact = rows_of(tmp_path / "a"), rows_of(whole)[0]
    assert rounded["train_total"] != exact["train_total"]
    assert float(rounded["train_total"]) == pytest.approx(float(exact["train_total"]), rel=0.1)


def test_a_run_killed_before_its_first_epoch_can_be_started_again_or_gone_on_with(
    town: Path, tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(tiny_config, epochs=1)
    for number, (place, resume) in enumerate(
        [("read_state", False), ("read_state", True), ("write_metrics", False), ("write_metrics", True)]
    ):
        run = tmp_path / str(number)
        with monkeypatch.context() as patch:
            patch.setattr(trainer, place, _stopping(None, call=1))
            with pytest.raises(StopError):
                train(town, run, config)
        assert run.is_dir()
        assert train(town, run, config, resume=resume).epochs == 1


def test_ct_paper_resizes_and_says_so_in_the_checkpoint(prepared, tiny_config: TrainConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(tiny_config, recipe="ct-paper", epochs=1, crop=96)
    train(prepared(), tmp_path / "a", config)
    metadata = read_metadata(tmp_path / "a")
    assert (metadata.resize_factor, metadata.recipe, metadata.window_px) == (512 / 64, "ct-paper", 64)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(
    prepared, tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, run = prepared(), tmp_path / "a"
    original, calls = batch_step.forward_backward, 0

    def exploding(*arguments: Any, epoch: int, number: int, part: int = 0) -> Any:
        nonlocal calls
        total, parts = original(*arguments, epoch=epoch, number=number, part=part)
        calls += 1
        return (total * float("nan") if (epoch, number) == (1, 1) else total), parts

    monkeypatch.setattr(batch_step, "forward_backward", exploding)
    with pytest.raises(TrainingError, match=r"epoch 2, step 2: the loss is nan at learning rate 0\.003"):
        train(data, run, tiny_config)
    model, metadata = load_checkpoint(run / "last")
    assert metadata.epoch == 1
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


def test_ctrl_c_says_how_to_go_on(prepared, tiny_config: TrainConfig, tmp_path: Path) -> None:
    def interrupt(_: EpochRecord) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        train(prepared(), tmp_path / "a", tiny_config, on_epoch=interrupt)
    assert "`ctrs train --resume --name a` goes on" in caught.value.__notes__[0]


def test_wrong_calls_leave_no_folder(prepared, tiny_config: TrainConfig, tmp_path: Path) -> None:
    data, run = prepared(), tmp_path / "a"
    with pytest.raises(UsageError, match="backbone 'nonsense'"):
        train(data, run, dataclasses.replace(tiny_config, backbone="nonsense"))
    with pytest.raises(UsageError, match="unknown term"):
        train(data, run, dataclasses.replace(tiny_config, loss="magic"))
    with pytest.raises(DataError, match="no training tiles"):
        train(prepared("empty", train=0), run, tiny_config)
    with pytest.raises(InputNotFoundError, match="not found"):
        train(tmp_path / "nowhere", run, tiny_config)
    with pytest.raises(InputNotFoundError, match="no run to go on with"):
        train(data, run, tiny_config, resume=True)
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="no CUDA device"):
            train(data, run, dataclasses.replace(tiny_config, device="cuda"))
    assert not run.exists()


def test_a_missing_tile_is_named_and_the_run_can_go_on_later(
    prepared, tiny_config: TrainConfig, tmp_path: Path
) -> None:
    data, run = prepared(), tmp_path / "a"
    missing = next((data / "images" / "train").iterdir())
    kept = missing.read_bytes()
    missing.unlink()
    with pytest.raises(InputNotFoundError, match=rf"{missing.name}: the tile is in the manifest but not on disk"):
        train(data, run, tiny_config)
    missing.write_bytes(kept)
    assert train(data, run, tiny_config).epochs == 2


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Any]:
    """Start training in a process of its own."""
    running: list[subprocess.Popen[bytes]] = []

    def start(data: Path, run: Path, config: dict[str, Any], *, resume: bool) -> subprocess.Popen[bytes]:
        code = (
            "from pathlib import Path\n"
            "from ctrs.config import TrainConfig, from_mapping\n"
            "from ctrs.training import train\n"
            f"train(Path({str(data)!r}), Path({str(run)!r}), from_mapping(TrainConfig, {config!r}), resume={resume})"
        )
        process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


@pytest.mark.soak  # test_kill.py does the same at more moments, and cheaper
def test_killed_again_and_again_a_run_ends_with_the_same_weights(prepared, tmp_path: Path, child: Any) -> None:
    """SIGKILL at random moments, ten times, in epochs, between them, while files are written, and before the first."""
    data = prepared()
    config = {
        "backbone": "test_convnext", "decoder": "dcfam", "epochs": 30, "batch_size": 2, "crop": 32, "device": "cpu",
        "learning_rate": 3e-3, "threads": 1,
    }  # fmt: skip
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = child(data, whole, config, resume=False)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()

    rng = np.random.default_rng(int.from_bytes(os.urandom(4)))
    seen = []
    for number in range(10):
        process = child(data, killed, config, resume=killed.is_dir() and number % 2 == 1)
        pointer = killed / "resume" / "current"
        before = pointer.read_text() if pointer.exists() else ""
        deadline = time.monotonic() + 120
        if number:  # the first one is killed at any moment, imports included
            while (pointer.read_text() if pointer.exists() else "") == before and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.4))
        else:
            while not (killed / "config.toml").exists():
                assert time.monotonic() < deadline
                time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
        assert process.returncode in (-signal.SIGKILL, 0), errors.decode()
        seen.append(pointer.read_text() if pointer.exists() else "")
        if (killed / "last").exists():
            load_checkpoint(killed / "last")
            load_checkpoint(killed)
    process = child(data, killed, config, resume=True)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    assert len(set(seen)) > 5
    assert weights_of(killed) == weights_of(whole)
    assert without_times(rows_of(killed)) == without_times(rows_of(whole))


ALL_TERMS = "cl+infonce+supcon+cms+ccs+pne"


def test_with_every_term_a_stopped_run_goes_on_to_the_same_weights(
    prepared, tiny_config: TrainConfig, tmp_path: Path
) -> None:
    """Batch norm's statistics in the heads are part of what is saved."""
    data, config = prepared(), dataclasses.replace(tiny_config, loss=ALL_TERMS, crop=64)
    train(data, tmp_path / "whole", config)
    train(data, tmp_path / "parts", dataclasses.replace(config, epochs=1))
    train(data, tmp_path / "parts", config, resume=True)
    assert weights_of(tmp_path / "parts") == weights_of(tmp_path / "whole")
    assert without_times(rows_of(tmp_path / "parts")) == without_times(rows_of(tmp_path / "whole"))
    row = rows_of(tmp_path / "whole")[-1]
    assert all(float(row[f"train_{term}"]) > 0 for term in ALL_TERMS.split("+"))


def test_contrast_waits_for_its_first_step(prepared, tiny_config: TrainConfig, tmp_path: Path) -> None:
    records: list[EpochRecord] = []
    config = dataclasses.replace(tiny_config, loss="cl:0.5", contrast_warmup_steps=3)
    train(prepared(), tmp_path / "a", config, on_epoch=records.append)
    for record, weight in zip(records, (0.0, 0.5), strict=True):
        losses = record.losses
        expected = losses["cross_entropy"] + losses["dice"] + weight * losses["cl"]
        assert losses["total"] == pytest.approx(expected, rel=1e-5)
        assert losses["cl"] > 0.1


def test_drop_path_reaches_the_encoder(prepared, tiny_config: TrainConfig, tmp_path: Path) -> None:
    data, config = prepared(), dataclasses.replace(tiny_config, epochs=1, loss="none")
    for name, drop_path in (("none", None), ("zero", 0.0), ("half", 0.5)):
        train(data, tmp_path / name, dataclasses.replace(config, drop_path=drop_path))
    none, zero, half = (
        hash_weights(tmp_path / name / "last" / "model.safetensors") for name in ("none", "zero", "half")
    )
    assert none == zero != half


def test_fewer_epochs_than_are_trained_are_refused(whole: Path, town: Path, tiny_config: TrainConfig) -> None:
    config = dataclasses.replace(read_run_config(whole)[0], schedule="constant")
    run = whole.with_name("constant")
    train(town, run, dataclasses.replace(config, epochs=2))
    before = {entry: entry.read_bytes() for entry in run.rglob("*") if entry.is_file()}
    with pytest.raises(ConfigError, match="epochs = 1 found, but 2 epochs are trained already; give 2 or more"):
        train(town, run, dataclasses.replace(config, epochs=1), resume=True)
    assert {entry: entry.read_bytes() for entry in run.rglob("*") if entry.is_file()} == before


def test_the_read_me_tells_of_each_saved_epoch(town: Path, tmp_path: Path, tiny_config: TrainConfig) -> None:
    def stop(record: EpochRecord) -> None:
        raise StopError

    with pytest.raises(StopError):
        train(town, tmp_path / "a", tiny_config, on_epoch=stop)
    assert "Not finished: 1 of 2 epochs when this was written." in (tmp_path / "a" / "README.md").read_text()
