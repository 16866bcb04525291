"""``ctrs train --resume`` goes on with a run that was stopped, to the same weights."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from ctrs.cli.app import main
from ctrs.model_files import hash_weights
from ctrs.training import batch_step
from ctrs.training.run_config import read_run_config
from tests.prepared_data import make_prepared

OPTIONS = [
    "--backbone", "test_convnext", "--loss", "cl", "--epochs", "2", "--batch-size", "2", "--crop", "32", "--device",
    "cpu", "--learning-rate", "0.003", "--seed", "3", "--set", "log=[]",
]  # fmt: skip


@pytest.fixture
def town(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Prepared data in a folder of their own; a run has two epochs of three steps."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prepared").mkdir()
    return make_prepared(tmp_path / "prepared" / "town").relative_to(tmp_path).as_posix()


def stop_at(step: int, patch: pytest.MonkeyPatch) -> None:
    """Stop a training as Ctrl-C does, within a step."""
    optimize, steps = batch_step.optimize, iter(range(1, step + 1))

    def stopped(*arguments: Any) -> Any:
        if next(steps) == step:
            raise KeyboardInterrupt
        return optimize(*arguments)

    patch.setattr(batch_step, "optimize", stopped)


def weights_of(run: Path) -> dict[str, str]:
    files = ("last/model.safetensors", "best/model.safetensors", "heads.safetensors")
    return {name: hash_weights(run / name) for name in files}


def test_a_stopped_run_goes_on_to_the_same_weights(town: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", town, *OPTIONS, "--name", "whole", "-q"]) == 0
    with pytest.MonkeyPatch.context() as patch:
        stop_at(5, patch)
        assert main(["train", town, *OPTIONS, "--name", "stopped"]) == 130
    assert "`ctrs train --resume --name stopped` goes on" in capsys.readouterr().err
    steps: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        optimize = batch_step.optimize
        patch.setattr(batch_step, "optimize", lambda *given: (steps.append(1), optimize(*given))[1])
        assert main(["train", "--resume", "--json"]) == 0  # the newest run that is not finished, and its own data
    printed = capsys.readouterr()
    assert len(steps) == 3  # of the second epoch alone
    assert f"run: {Path('runs', 'stopped')}" in printed.err
    result = json.loads(printed.out)
    assert (result["epochs"], result["resumed_at"], Path(result["run_dir"]).name) == (2, 1, "stopped")
    whole, stopped = Path("runs/whole"), Path("runs/stopped")
    assert weights_of(stopped) == weights_of(whole)
    with (stopped / "metrics.csv").open(newline="") as stream:
        assert [row["epoch"] for row in csv.DictReader(stream)] == ["1", "2"]
    assert read_run_config(stopped) == read_run_config(whole)


def test_what_may_not_change_is_refused(town: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stop_at(1, patch)
        assert main(["train", town, *OPTIONS, "--name", "stopped", "-q"]) == 130
    capsys.readouterr()
    assert main(["train", "--resume", "--name", "stopped", "--learning-rate", "0.1", "-q"]) == 2
    assert "--resume goes on with a run as it was set up" in capsys.readouterr().err
    assert main(["train", "--resume", "--name", "none", "-q"]) == 1
    assert "no such run" in capsys.readouterr().err
