from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest
import torch

from ctrs.training import environment
from ctrs.training.environment import describe_environment, record_start, source_commit

CPU = torch.device("cpu")


def test_each_start_is_kept(tmp_path: Path) -> None:
    record_start(tmp_path, first_epoch=1, device=CPU, command=["ctrs", "train", "--epochs", "2"])
    record_start(tmp_path, first_epoch=2, device=CPU, command=["ctrs", "train", "--resume"])
    starts = json.loads((tmp_path / "environment.json").read_text())["starts"]
    assert [start["first_epoch"] for start in starts] == [1, 2]
    assert starts[0]["command"] == ["ctrs", "train", "--epochs", "2"]
    assert starts[1]["python"] == platform.python_version()
    assert starts[1]["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert starts[1]["cores"] >= 1
    assert starts[1]["memory_bytes"] > 1e8
    assert starts[1]["cpu"]
    assert starts[1]["gpus"] == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["environment.json"]


def test_a_file_that_someone_broke_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "environment.json").write_text("{")
    record_start(tmp_path, first_epoch=3, device=CPU, command=["ctrs"])
    assert len(json.loads((tmp_path / "environment.json").read_text())["starts"]) == 1


def test_neither_home_nor_host_nor_user_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone-real")
    facts = describe_environment(
        CPU, command=["ctrs", "train", "/home/someone-real/data", "--init=/home/someone-real/m"]
    )
    assert facts["command"] == ["ctrs", "train", "~/data", "--init=~/m"]
    assert "someone-real" not in json.dumps(facts)
    assert set(facts) == {
        "started", "command", "ctrs", "ctrs_commit", "python", "packages", "system", "cpu", "cores", "threads",
        "memory_bytes", "device", "gpus", "cuda", "cudnn", "nvidia_driver",
    }  # fmt: skip


def test_commit_of_a_checkout_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment.ctrs, "__file__", str(tmp_path / "ctrs" / "__init__.py"))
    assert source_commit() is None
    (tmp_path / ".git").mkdir()  # no repository: git fails, and nothing is said
    assert source_commit() is None


def test_versions_of_trackers_where_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"torch": "2", "mlflow": "3.1"}

    def version(name: str) -> str:
        try:
            return known[name]
        except KeyError:
            raise environment.metadata.PackageNotFoundError(name) from None

    monkeypatch.setattr(environment.metadata, "version", version)
    assert environment.package_versions() == {"mlflow": "3.1", "torch": "2"}


def test_driver_is_read_from_the_kernel_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.124.06  Release Build\n"
    monkeypatch.setattr(environment.Path, "read_text", lambda *_, **__: line)
    assert environment._nvidia_driver() == "570.124.06"
