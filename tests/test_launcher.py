"""Who decides among several processes, as torchrun and SLURM number them; nothing is started here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from ctrs import training
from ctrs.cli.app import main
from ctrs.config import TrainConfig
from ctrs.errors import UsageError
from ctrs.launcher import LaunchedRank, launched_rank, leads
from ctrs.training.distributed import check_ranks, outside_ranks
from ctrs.training.records import TrainResult

CPU = torch.device("cpu")
SRUN = {
    "SLURM_JOB_ID": "17", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "2", "SLURM_LOCALID": "0", "SLURM_NODEID": "1", "SLURM_NTASKS_PER_NODE": "2",
}  # fmt: skip
TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "3", "RANK": "2", "LOCAL_RANK": "2"}


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without a launcher, to write into."""
    for name in {*SRUN, *TORCHRUN}:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def write(say: pytest.MonkeyPatch, values: dict[str, str]) -> None:
    for name, value in values.items():
        say.setenv(name, value)


def test_a_process_of_its_own_leads(say: pytest.MonkeyPatch) -> None:
    assert launched_rank() is None
    assert outside_ranks() is None
    assert leads()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (TORCHRUN, LaunchedRank("torchrun", 2, 3)),
        ({**TORCHRUN, "RANK": "0"}, LaunchedRank("torchrun", 0, 3)),
        (SRUN, LaunchedRank("SLURM", 2, 4)),
        ({**SRUN, "SLURM_PROCID": "0"}, LaunchedRank("SLURM", 0, 4)),
        ({**SRUN, **TORCHRUN}, LaunchedRank("torchrun", 2, 3)),  # torchrun under one srun on each node
        ({**SRUN, "SLURM_STEP_NUM_TASKS": ""}, None),  # a batch script
        ({**SRUN, "SLURM_STEP_NUM_TASKS": "1"}, None),
        ({**SRUN, "SLURM_JOB_NAME": "interactive"}, None),
    ],
)
def test_the_environment_says_who_leads(
    say: pytest.MonkeyPatch, values: dict[str, str], expected: LaunchedRank | None
) -> None:
    write(say, values)
    ranks = outside_ranks()
    assert launched_rank() == expected
    assert leads() == (expected is None or expected.rank == 0)
    if expected is None:
        assert ranks is None
    else:
        assert isinstance(ranks, TorchElasticEnvironment if expected.launcher == "torchrun" else SLURMEnvironment)
        assert (ranks.global_rank(), ranks.world_size()) == (expected.rank, expected.world_size)


def test_tasks_that_are_not_counted_on_each_node_are_refused(say: pytest.MonkeyPatch) -> None:
    write(say, SRUN)
    say.delenv("SLURM_NTASKS_PER_NODE")
    with pytest.raises(UsageError, match=r"srun started 4 processes.*give it --ntasks-per-node"):
        outside_ranks()


def test_devices_and_nodes_must_be_those_that_were_started(say: pytest.MonkeyPatch) -> None:
    write(say, SRUN)
    check_ranks(TrainConfig(devices=2, num_nodes=2), CPU)
    with pytest.raises(UsageError, match="4 processes were started, but devices = 3 on 1 nodes need 3"):
        check_ranks(TrainConfig(devices=3), CPU)
    say.setenv("SLURM_STEP_NUM_TASKS", "1")
    with pytest.raises(UsageError, match="num_nodes = 2 found, but neither torchrun nor SLURM started this process"):
        check_ranks(TrainConfig(devices=2, num_nodes=2), CPU)


@pytest.mark.parametrize(
    ("values", "tells"),
    [({}, True), (SRUN, False), ({**SRUN, "SLURM_PROCID": "0"}, True), ({**SRUN, "SLURM_JOB_NAME": "bash"}, True)],
)
def test_only_the_process_that_leads_tells_on_the_command_line(
    tmp_path: Path, say: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], values: dict[str, str], tells: bool
) -> None:
    def trained(data: Path, run_dir: Path, *args: object, **kwargs: object) -> TrainResult:
        return TrainResult(run_dir=run_dir, epochs=3, best_epoch=3, metrics={"mean_iou": 0.5}, seconds=1.0)

    say.setattr(training, "train", trained)
    say.chdir(tmp_path)
    write(say, values)
    assert main(["train", "town", "--name", "one"]) == 0
    printed = capsys.readouterr()
    assert ("runs/one" in printed.out) is tells
    assert ("run: " in printed.err) is tells
