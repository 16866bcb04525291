"""Several processes train one network: the steps of one, the same weights in all, one clear message when one fails.

Processes are those that training starts itself, or two that this file starts as torchrun would.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import ctrs
from ctrs.config import AugmentConfig, SegmentationConfig, TrainConfig, from_mapping, to_plain
from ctrs.errors import ConfigError, DeviceError, TrainingError, UsageError
from ctrs.model_files import hash_weights
from ctrs.training import EpochRecord, distributed, train, trainer, workbench
from ctrs.training.distributed import check_ranks, open_fabric

CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(ctrs.__file__).parents[1])}


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory, write_prepared: Any) -> Path:
    """Prepared data that no test changes."""
    return write_prepared(tmp_path_factory.mktemp("data") / "town", train=8, val=3)


@pytest.fixture(scope="module")
def config(tiny_config: TrainConfig) -> TrainConfig:
    """Two processes, one thread each."""
    return replace(tiny_config, devices=2, batch_size=4, crop=64, threads=1)


def with_group_norm(module: nn.Module) -> nn.Module:
    """Replace BatchNorm, whose statistics are those of a process's own images, and dropout, which each draws anew."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, nn.GroupNorm(1, child.num_features))
        elif isinstance(child, nn.Dropout | nn.Dropout2d):
            setattr(module, name, nn.Identity())
        else:
            with_group_norm(child)
    return module


def train_as_told(folder: Path) -> None:
    """Train in this process, one of several or not, and write down the weights that it ends with."""
    told = json.loads((folder / "task.json").read_text())
    works: list[Any] = []
    create, set_up = workbench.create_model, trainer.set_up

    def created(*arguments: Any, **options: Any) -> nn.Module:
        model = create(*arguments, **options)
        return with_group_norm(model) if told["group_norm"] else model

    def captured(*arguments: Any, **options: Any) -> Any:
        works.append(set_up(*arguments, **options))
        return works[-1]

    workbench.create_model, trainer.set_up = created, captured  # type: ignore[assignment]
    train(Path(told["data"]), folder / "run", from_mapping(TrainConfig, told["config"]))
    torch.save(works[0].step.state_dict(), folder / f"rank_{os.environ.get('RANK', '0')}.pt")


def run_ranks(folder: Path, data: Path, config: TrainConfig, *, group_norm: bool) -> list[dict[str, torch.Tensor]]:
    """Train with as many processes as the configuration says, as torchrun starts them; return the weights of each."""
    folder.mkdir()
    task = {"data": str(data), "config": to_plain(config), "group_norm": group_norm}
    (folder / "task.json").write_text(json.dumps(task))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    processes = []
    for rank in range(config.devices):
        started = {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(config.devices), "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "none", "GROUP_RANK": "0",
        }  # fmt: skip
        processes.append(
            subprocess.Popen(
                [sys.executable, "-W", "ignore", __file__, str(folder)], stderr=subprocess.PIPE, text=True,
                env={**ENVIRONMENT, **(started if config.devices > 1 else {})},
            )
        )  # fmt: skip
    try:
        errors = [process.communicate(timeout=300)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(errors)
    return [torch.load(folder / f"rank_{rank}.pt", weights_only=True) for rank in range(config.devices)]


def column_of(run: Path, name: str) -> list[float]:
    with (run / "metrics.csv").open(newline="") as stream:
        return [float(row[name]) for row in csv.DictReader(stream)]


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(town: Path, config: TrainConfig, tmp_path: Path) -> None:
    """No BatchNorm, cross entropy alone, no ignored pixel, no dropout: then nothing depends on who sees which image."""
    config = replace(
        config, loss="none", segmentation=SegmentationConfig(terms="ce"), drop_path=0.0, optimizer="sgd",
        learning_rate=0.05, augment=AugmentConfig(scale=(1.0, 1.0)), epochs=3, gradient_clip=1e9,
    )  # fmt: skip
    both = run_ranks(tmp_path / "both", town, config, group_norm=True)
    (one,) = run_ranks(tmp_path / "one", town, replace(config, devices=1), group_norm=True)
    (parts,) = run_ranks(tmp_path / "parts", town, replace(config, devices=1, accumulate=4), group_norm=True)
    for name, value in one.items():
        assert torch.equal(both[0][name], both[1][name]), name
        torch.testing.assert_close(both[0][name], value, rtol=0, atol=1e-5)
        torch.testing.assert_close(parts[name], value, rtol=0, atol=1e-5)
    for column in ("train_total", "train_grad_norm"):  # clipped to a norm, gradients of any scale would do
        expected = column_of(tmp_path / "one" / "run", column)
        for name in ("both", "parts"):
            assert column_of(tmp_path / name / "run", column) == pytest.approx(expected, rel=1e-4), (name, column)


@pytest.mark.slow
def test_the_default_network_ends_alike_in_both_processes_and_learns(
    town: Path, config: TrainConfig, tmp_path: Path
) -> None:
    both = run_ranks(tmp_path / "both", town, replace(config, epochs=4, accumulate=2, batch_size=8), group_norm=False)
    assert any("running_mean" in name for name in both[0])
    for name, value in both[0].items():
        assert torch.equal(value, both[1][name]), name
    losses = column_of(tmp_path / "both" / "run", "train_total")
    assert losses[-1] < losses[0]
    assert len(losses) == 4
    saved = load_file(tmp_path / "both" / "run" / "last" / "model.safetensors")
    assert all(torch.equal(value, both[0][f"model.{name}"]) for name, value in saved.items())


class StopError(Exception):
    """What the tests throw into a run."""


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_weights(town: Path, config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, epochs=3, drop_path=0.2, ema=0.9, batch_size=2)
    records: list[EpochRecord] = []
    train(town, tmp_path / "whole", replace(config, batch_size=4), on_epoch=records.append)
    assert [record.epoch for record in records] == [1, 2, 3]

    def stop(done: int, total: int, what: str) -> None:
        if what == "training" and done == 4:
            raise StopError

    config = replace(config, batch_size=4, save_minutes=1e-9)
    with pytest.raises(StopError):
        train(town, tmp_path / "parts", config, progress=stop)
    assert "-step-" in (tmp_path / "parts" / "resume" / "current").read_text()
    train(town, tmp_path / "parts", config, resume=True)
    for name in ("last/model.safetensors", "heads.safetensors"):
        assert hash_weights(tmp_path / "parts" / name) == hash_weights(tmp_path / "whole" / name)


@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["deeplabv3", "pspnet"])
def test_parameters_without_gradient_do_not_stop_the_others(
    town: Path, config: TrainConfig, tmp_path: Path, decoder: Any
) -> None:
    """These decoders look at some stages only; the norms of the others get no gradient from a plain loss."""
    config = replace(config, decoder=decoder, loss="none", epochs=1)
    assert train(town, tmp_path / "run", config).epochs == 1


@pytest.mark.slow
def test_a_process_that_dies_is_named(
    town: Path, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    popen = distributed.subprocess.Popen

    def noted(*arguments: Any, **options: Any) -> Any:
        started.append(popen(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(distributed.subprocess, "Popen", noted)
    with pytest.raises(TrainingError, match=r"process 1 of 2: it ended with -9"):
        train(
            town,
            tmp_path / "run",
            replace(config, epochs=50),
            on_plan=lambda _: os.kill(started[0].pid, signal.SIGKILL),
        )
    assert started[0].returncode == -9
    assert "MASTER_PORT" not in os.environ


def train_on_command_line(folder: Path, *arguments: str | Path, threads: int = 1) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-m", "ctrs", "train", *map(str, arguments)], cwd=folder, timeout=300,
        env={**ENVIRONMENT, "OMP_NUM_THREADS": str(threads)}, capture_output=True, text=True,
    )  # fmt: skip


TINY = (
    "--backbone", "test_convnext", "--loss", "none", "--batch-size", "4", "--device", "cpu", "--log", "tensorboard",
    "--name", "one",
)  # fmt: skip


@pytest.mark.slow
def test_the_command_line_starts_the_processes_and_tells_once(town: Path, tmp_path: Path) -> None:
    process = train_on_command_line(tmp_path, town, *TINY, "--epochs", "1", "--devices", "2", "--json")
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout)["epochs"] == 1
    assert len(list((tmp_path / "runs").iterdir())) == 1
    assert process.stderr.count("images/s") == 1
    assert "distributed_backend" not in process.stderr


def threads_of(run: Path) -> list[int]:
    (path,) = (run / "resume").glob("*/state.json")
    return list(json.loads(path.read_text())["threads"])


@pytest.mark.slow
def test_processes_share_the_threads_and_a_run_goes_on_with_any_number_of_them(town: Path, tmp_path: Path) -> None:
    """Nothing here names a number of threads: torch has two, which two processes share."""

    def trained(folder: Path, *arguments: str | Path) -> str:
        process = train_on_command_line(folder, *arguments, threads=2)
        assert process.returncode == 0, process.stderr
        return process.stderr

    two, whole, run = tmp_path / "two", tmp_path / "whole", Path("runs", "one")
    trained(whole, town, *TINY, "--epochs", "2", "--devices", "2")
    trained(two, town, *TINY, "--epochs", "1", "--devices", "2")
    assert threads_of(two / run) == [1, 1]
    refused = train_on_command_line(two, "--resume", "--epochs", "2", "--threads", "2")
    assert refused.returncode != 0
    assert "trained with 1 CPU threads, found 2 in process 0 of 2, which would give" in refused.stderr
    assert "bit for bit" not in trained(two, "--resume", "--epochs", "2")
    weights = "last/model.safetensors"
    assert hash_weights(two / run / weights) == hash_weights(whole / run / weights)
    said = trained(two, "--resume", "--epochs", "3", "--devices", "1")
    assert said.count("the run was trained by 2 processes and goes on with 1: not bit for bit") == 1
    assert threads_of(two / run) == [2]
    said = trained(two, "--resume", "--epochs", "4", "--devices", "2")
    assert said.count("the run was trained by 1 process and goes on with 2: not bit for bit") == 1
    assert len(column_of(two / run, "train_total")) == 4


def test_the_callers_threads_and_environment_stay_as_they_are(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without starting a process: each takes its share, the one that starts the others too."""
    before = torch.get_num_threads()
    asked: list[int | None] = []

    @contextmanager
    def followers(config: TrainConfig, _: Any) -> Iterator[None]:
        asked.extend([config.threads, torch.get_num_threads(), int(os.environ["OMP_NUM_THREADS"])])
        raise StopError
        yield

    monkeypatch.setattr(distributed, "_followers", followers)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(6)
    try:
        for threads, expected in ((None, 3), (5, 5)):
            asked.clear()
            with pytest.raises(StopError), open_fabric(replace(config, threads=threads), CPU):
                pass
            assert asked == [expected] * 3
            assert torch.get_num_threads() == 6
            assert "OMP_NUM_THREADS" not in os.environ
    finally:
        torch.set_num_threads(before)


def test_wrong_numbers_of_devices_are_refused(town: Path, config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither torchrun nor SLURM started this process"):
        train(town, tmp_path / "run", replace(config, num_nodes=2))
    with pytest.raises(UsageError, match="name one or count them"):
        check_ranks(config, torch.device("cuda", 0))
    with pytest.raises(DeviceError, match="devices = 64 asked for, found"):
        check_ranks(replace(config, devices=64), torch.device("cuda"))
    with pytest.raises(ConfigError, match="batch_size = 3 found, expected a multiple of devices x accumulate = 2 x 1"):
        train(town, tmp_path / "run", replace(config, batch_size=3))
    assert not (tmp_path / "run").exists()
    check_ranks(config, CPU)


if __name__ == "__main__":
    train_as_told(Path(sys.argv[1]))
