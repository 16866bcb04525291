"""What the loop can do beside the plain steps: parts of a batch, half precision, averages, going on within an epoch."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import ctrs
from ctrs.config import TrainConfig
from ctrs.errors import CheckpointError, TrainingError
from ctrs.model_files import hash_weights
from ctrs.models.checkpoint import load_checkpoint
from ctrs.training import EpochRecord, batch_step, train, trainer, workbench
from ctrs.training.determinism import deterministic_algorithms, told_what_varies
from ctrs.training.epoch_meter import SKIPPED, EpochMeter
from ctrs.training.resume import STATE_FILE, TENSORS_FILE, read_state

CPU = torch.device("cpu")


class StopError(Exception):
    """What the tests throw into a run."""


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory, write_prepared: Any) -> Path:
    """Prepared data that no test changes."""
    return write_prepared(tmp_path_factory.mktemp("data") / "town")


@pytest.fixture(scope="module")
def config(tiny_config: TrainConfig) -> TrainConfig:
    """Six tiles in three steps; no pictures of TensorBoard."""
    return dataclasses.replace(tiny_config, log=())


def weights_of(run: Path) -> dict[str, str]:
    files = ("last/model.safetensors", "best/model.safetensors", "heads.safetensors")
    return {name: hash_weights(run / name) for name in files if (run / name).exists()}


def stop_after(step: int) -> Any:
    def progress(done: int, total: int, what: str) -> None:
        if what == "training" and done == step:
            raise StopError

    return progress


def with_group_norm(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, nn.GroupNorm(1, child.num_features))
        else:
            with_group_norm(child)
    return module


def test_the_parts_of_a_batch_add_up_to_its_mean(
    town: Path, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = workbench.create_model
    monkeypatch.setattr(workbench, "create_model", lambda *a, **k: with_group_norm(create(*a, **k)))
    config = dataclasses.replace(
        config, loss="none", segmentation=dataclasses.replace(config.segmentation, terms="ce"), batch_size=6,
        optimizer="sgd", learning_rate=0.05, drop_path=0.0, gradient_clip=1e9,
    )  # fmt: skip
    records: dict[int, list[EpochRecord]] = {1: [], 3: []}
    for parts, told in records.items():
        run = tmp_path / str(parts)
        train(town, run, dataclasses.replace(config, accumulate=parts), on_epoch=told.append)
    whole, parted = (load_file(tmp_path / name / "last" / "model.safetensors") for name in ("1", "3"))
    for name, value in whole.items():
        torch.testing.assert_close(parted[name], value, rtol=0, atol=1e-6)
    assert [record.step for record in records[3]] == [1, 2]
    for one, three in zip(records[1], records[3], strict=True):
        for name in ("total", "grad_norm"):  # clipped to a norm, gradients of any scale would do
            assert three.losses[name] == pytest.approx(one.losses[name], rel=1e-4), name


def test_a_run_stopped_within_an_epoch_goes_on_at_the_same_step(
    town: Path, config: TrainConfig, tmp_path: Path
) -> None:
    config = dataclasses.replace(config, ema=0.9, schedule="cosine", drop_path=0.3, save_minutes=1e-9)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(town, whole, config)
    for number, step in enumerate((2, 3, 5)):
        with pytest.raises(StopError):
            train(town, parts, config, progress=stop_after(step), resume=number > 0)
        state = read_state(parts / "resume")
        assert (state.epoch, state.step) == ((step - 1) // 3, (step - 1) % 3)
    steps: list[int] = []
    records: list[EpochRecord] = []
    train(
        town, parts, config, resume=True, on_epoch=records.append,
        progress=lambda done, _, what: steps.append(done) if what == "training" else None,
    )  # fmt: skip
    assert steps == [5, 6]
    assert weights_of(parts) == weights_of(whole)
    whole_rows, rows = ((run / "metrics.csv").read_text().splitlines() for run in (whole, parts))
    assert [row.split(",")[:8] for row in rows] == [row.split(",")[:8] for row in whole_rows]


def test_a_run_does_not_go_on_with_another_number_of_threads(town: Path, config: TrainConfig, tmp_path: Path) -> None:
    run, one = tmp_path / "run", dataclasses.replace(config, loss="none", threads=1)
    train(town, run, dataclasses.replace(one, epochs=1))
    before = weights_of(run)
    with pytest.raises(
        TrainingError, match=r"with 1 CPU threads, found 2, which would give other weights.*--threads 1$"
    ):
        train(town, run, dataclasses.replace(one, threads=2), resume=True)
    assert weights_of(run) == before
    assert train(town, run, one, resume=True).epochs == 2


@pytest.mark.parametrize("name", [TENSORS_FILE, STATE_FILE])
def test_a_byte_that_changed_is_found(town: Path, config: TrainConfig, tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    with pytest.raises(StopError):
        train(town, run, config, progress=stop_after(4))
    (path,) = (run / "resume").glob(f"*/{name}")
    content = bytearray(path.read_bytes())
    place = len(content) - 100 if name == TENSORS_FILE else content.index(b'"seconds": ') + 11
    content[place] = content[place] ^ 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{name}: not a whole state to go on from \(its SHA-256"):
        train(town, run, config, resume=True)


def test_the_moving_average_is_what_is_scored_and_kept(town: Path, config: TrainConfig, tmp_path: Path) -> None:
    train(town, tmp_path / "plain", config)
    train(town, tmp_path / "average", dataclasses.replace(config, ema=0.5))
    plain, average = (load_checkpoint(tmp_path / name)[0].state_dict() for name in ("plain", "average"))
    resumed = load_file(next((tmp_path / "average" / "resume").glob("*/state.safetensors")))
    last = load_file(tmp_path / "average" / "last" / "model.safetensors")
    trained = load_file(tmp_path / "plain" / "last" / "model.safetensors")
    assert plain.keys() == average.keys()
    moved = 0
    for name, value in last.items():
        assert torch.equal(value, resumed[f"average/model.{name}"]), name
        assert torch.equal(trained[name], resumed[f"module/model.{name}"]), name  # training itself is not changed
        moved += not torch.equal(value, trained[name])
    assert moved > 20


def test_patience_ends_a_run_which_then_counts_as_finished(
    town: Path, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scores = iter([0.5, 0.6, 0.6, 0.55, 0.7, 0.1])
    monkeypatch.setattr(trainer, "selection_scores", lambda *_: {"mean_iou": next(scores)})
    config = dataclasses.replace(config, epochs=6, patience=2, loss="none")
    with caplog.at_level("INFO"):
        result = train(town, tmp_path / "run", config)
    assert (result.epochs, result.best_epoch, result.stopped_early) == (4, 2, True)
    said = "stopped early after epoch 4 of 6: 2 epochs without a better score than that of epoch 2"
    assert said in caplog.text
    caplog.clear()
    with caplog.at_level("INFO"):
        again = train(town, tmp_path / "run", config, resume=True)
    assert again == dataclasses.replace(result, resumed_at=4)
    assert f"{said}; nothing to do" in caplog.text
    more = train(town, tmp_path / "run", dataclasses.replace(config, patience=3), resume=True)
    assert (more.epochs, more.best_epoch, more.stopped_early) == (6, 5, False)


def test_frozen_stages_thaw_when_their_epochs_are_over(town: Path, config: TrainConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(config, frozen_stages=4, frozen_epochs=1, epochs=2)
    encoders: list[dict[str, Tensor]] = []

    def keep(_: EpochRecord) -> None:
        last = load_file(tmp_path / "run" / "last" / "model.safetensors")
        encoders.append({name: value for name, value in last.items() if name.startswith("encoder.")})

    with pytest.warns(UserWarning, match="frozen with random weights"):
        train(town, tmp_path / "run", config, on_epoch=keep)
    with pytest.warns(UserWarning, match="frozen with random weights"):
        train(town, tmp_path / "other", dataclasses.replace(config, learning_rate=1e-5), on_epoch=lambda _: None)
    first = load_file(tmp_path / "other" / "last" / "model.safetensors")
    assert all(torch.allclose(value, first[name], atol=1e-3) for name, value in encoders[0].items())
    assert any(not torch.allclose(value, encoders[1][name], atol=1e-3) for name, value in encoders[0].items())


def test_half_precision_scales_the_loss_and_goes_on_with_its_scale(
    town: Path, config: TrainConfig, tmp_path: Path
) -> None:
    config = dataclasses.replace(config, precision="fp16", loss="none", save_minutes=1e-9)
    records: list[EpochRecord] = []
    train(town, tmp_path / "whole", config, on_epoch=records.append)
    assert records[1].losses["total"] < 2
    assert SKIPPED in records[0].losses
    with pytest.raises(StopError):
        train(town, tmp_path / "parts", config, progress=stop_after(5))
    document = json.loads(next((tmp_path / "parts" / "resume").glob("*/state.json")).read_text())
    assert document["others"]["scaler"]["scale"] >= 1
    train(town, tmp_path / "parts", config, resume=True)
    assert weights_of(tmp_path / "parts") == weights_of(tmp_path / "whole")


def test_steps_that_the_scaler_skips_are_counted_and_too_many_are_an_error() -> None:
    meter = EpochMeter(1, device=CPU, skips_overflow=True)
    for norm in (float("inf"), 1.0, 3.0):
        meter.add(torch.tensor(2.0), {}, torch.tensor(norm), num_images=1, learning_rate=0.1)
    assert meter.finish() == {"total": 2.0, "grad_norm": 2.0, SKIPPED: 1.0}
    with pytest.raises(TrainingError, match=r"the gradient's norm is inf at learning rate 0\.1, as in 29 steps before"):
        _skip_for_ever(meter)


def _skip_for_ever(meter: EpochMeter) -> None:
    while True:
        meter.add(torch.tensor(2.0), {}, torch.tensor(float("inf")), num_images=1, learning_rate=0.1)


def test_a_meter_goes_on_where_another_was(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)))
    values = torch.rand(7, 2)
    one, first, second = (EpochMeter(1, device=CPU) for _ in range(3))
    for row in values:
        one.add(row[0], {"dice": row[1]}, row[1], num_images=3, learning_rate=0.1)
    for row in values[:4]:
        first.add(row[0], {"dice": row[1]}, row[1], num_images=3, learning_rate=0.1)
    state = first.state_dict()
    second.load_state_dict({**json.loads(json.dumps({**state, "rows": None})), "rows": state["rows"]})
    for row in values[4:]:
        second.add(row[0], {"dice": row[1]}, row[1], num_images=3, learning_rate=0.1)
    assert second.finish() == one.finish()
    assert second.elapsed > state["elapsed"]


def test_channels_last_changes_the_layout_and_not_the_meaning(
    town: Path, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layouts: list[bool] = []
    original = batch_step.forward_backward

    def recording(work: Any, config: TrainConfig, batch: Any, **place: int) -> Any:
        images, _ = work.images(batch)
        layouts.append(images.is_contiguous(memory_format=torch.channels_last))
        return original(work, config, batch, **place)

    monkeypatch.setattr(batch_step, "forward_backward", recording)
    train(town, tmp_path / "plain", dataclasses.replace(config, epochs=1))
    assert not any(layouts)
    layouts.clear()
    config = dataclasses.replace(config, channels_last=True, save_minutes=1e-9)
    train(town, tmp_path / "whole", config)
    assert all(layouts)
    with pytest.raises(StopError):
        train(town, tmp_path / "parts", config, progress=stop_after(5))
    train(town, tmp_path / "parts", config, resume=True)
    assert weights_of(tmp_path / "parts") == weights_of(tmp_path / "whole")


def test_deterministic_algorithms_are_put_back(caplog: pytest.LogCaptureFixture) -> None:
    before = os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    with deterministic_algorithms(False):
        assert not torch.are_deterministic_algorithms_enabled()
    with deterministic_algorithms(True):
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.deterministic
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"]
        with caplog.at_level("INFO"), told_what_varies(CPU):
            torch.rand(2).sum()
        assert "all operations are deterministic on cpu" in caplog.text
        with told_what_varies(CPU):
            torch._C._nn  # noqa: B018
            import warnings

            warnings.warn("put_ does not have a deterministic implementation, but you set ...", stacklevel=1)
    assert "not deterministic on cpu: put_" in caplog.text
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.deterministic
    assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == before


def test_deterministic_steps_run_deterministically_and_what_varies_is_named(
    town: Path, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    active: list[bool] = []
    original = batch_step.forward_backward

    def watched(*arguments: Any, **options: Any) -> Any:
        active.append(torch.are_deterministic_algorithms_enabled())
        torch.zeros(2).put_(torch.tensor([0, 0]), torch.ones(2))  # which of two comes last is not said
        return original(*arguments, **options)

    monkeypatch.setattr(batch_step, "forward_backward", watched)
    config = dataclasses.replace(config, epochs=1, loss="none")
    with caplog.at_level("INFO"):
        train(town, tmp_path / "plain", config)
        assert active
        assert not any(active)
        assert "deterministic on " not in caplog.text
        active.clear()
        train(town, tmp_path / "run", dataclasses.replace(config, deterministic=True))
    assert len(active) >= 3
    assert all(active)
    assert not torch.are_deterministic_algorithms_enabled()
    said = [record.getMessage() for record in caplog.records if "not deterministic" in record.getMessage()]
    assert said == ["not deterministic on cpu: put_"]


WATCHED = """
import torch
from ctrs.training import batch_step
losses, accumulate = [], batch_step.accumulate

def watched(work, *arguments, **options):
    if not losses:
        torch.save(work.step.state_dict(), sys.argv[2] + ".pt")
    total, parts = accumulate(work, *arguments, **options)
    losses.append(total.item())
    Path(sys.argv[2] + ".json").write_text(json.dumps(losses))
    return total, parts

batch_step.accumulate = watched
"""
"""Writes the weights before the first step, and the loss of each."""


def in_a_process(data: Path, run: Path, options: dict[str, Any], before: str = "") -> None:
    code = (
        "import json, sys, warnings; warnings.simplefilter('ignore'); from pathlib import Path\n"
        "from ctrs.config import TrainConfig, from_mapping; from ctrs.training import train\n"
        f"{before}\n"
        "train(Path(sys.argv[1]), Path(sys.argv[2]), from_mapping(TrainConfig, json.loads(sys.argv[3])))"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "PYTHONPATH": str(Path(ctrs.__file__).parents[1])}
    arguments = [sys.executable, "-c", code, str(data), str(run), json.dumps(options)]
    process = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=600)
    assert process.returncode == 0, process.stderr


TINY = {
    "backbone": "test_convnext", "epochs": 1, "batch_size": 2, "crop": 64, "learning_rate": 3e-3, "device": "cpu",
    "log": [],
}  # fmt: skip


@pytest.mark.slow
def test_deterministic_runs_have_the_same_hash_in_two_processes(town: Path, tmp_path: Path) -> None:
    options = {**TINY, "deterministic": True, "loss": "cl+supcon+cms+pne", "workers": 1, "threads": 2}
    for name in ("a", "b"):
        in_a_process(town, tmp_path / name, options)
    assert weights_of(tmp_path / "a") == weights_of(tmp_path / "b")
    assert len(weights_of(tmp_path / "a")) == 3


@pytest.mark.soak  # minutes on a CPU
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
def test_a_compiled_network_takes_the_steps_of_a_plain_one_and_is_kept_alike(town: Path, tmp_path: Path) -> None:
    starts, changes, losses = {}, {}, {}
    for name, options in (("plain", {}), ("compiled", {"compile": True})):
        in_a_process(town, tmp_path / name, {**TINY, "loss": "none", "drop_path": 0.0, **options}, WATCHED)
        starts[name] = torch.load(tmp_path / f"{name}.pt", weights_only=True)
        losses[name] = json.loads((tmp_path / f"{name}.json").read_text())
        last = load_file(tmp_path / name / "last" / "model.safetensors")
        assert {f"model.{key}" for key in last} == starts[name].keys()
        changes[name] = torch.cat([(last[key] - starts[name][f"model.{key}"]).flatten().float() for key in last])
    assert all(torch.equal(value, starts["compiled"][key]) for key, value in starts["plain"].items())
    assert len(losses["plain"]) == 3
    assert losses["compiled"] == pytest.approx(losses["plain"], rel=1e-3)
    plain, compiled = changes["plain"], changes["compiled"]
    assert plain.norm() > 0
    assert (compiled - plain).norm() < 0.1 * plain.norm()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_on_a_gpu_a_stopped_run_goes_on(town: Path, config: TrainConfig, tmp_path: Path, precision: Any) -> None:
    config = dataclasses.replace(config, device="cuda", precision=precision, save_minutes=1e-9, workers=2, ema=0.9)
    with pytest.raises(StopError):
        train(town, tmp_path / "parts", config, progress=stop_after(5))
    result = train(town, tmp_path / "parts", config, resume=True)
    assert result.epochs == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_deterministic_runs_have_the_same_hash(town: Path, config: TrainConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(config, device="cuda", deterministic=True, workers=2)
    for name in ("a", "b"):
        train(town, tmp_path / name, config)
    assert weights_of(tmp_path / "a") == weights_of(tmp_path / "b")
