from __future__ import annotations

import json
import os
import random
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ctrs.errors import CheckpointError, TrainingError
from ctrs.training import resume
from ctrs.training.random_state import own_random_state, random_state, restore_random_state
from ctrs.training.records import EpochRecord
from ctrs.training.resume import (
    RunState,
    has_state,
    read_state,
    restore_state,
    save_state,
)


def make_network(seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 2, 1))
    return module, torch.optim.AdamW(module.parameters(), lr=0.01)


def train_steps(module: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> None:
    for _ in range(count):
        optimizer.zero_grad()
        module(torch.rand(2, 3, 8, 8)).square().sum().backward()
        optimizer.step()


def make_record(epoch: int, *, best: bool = True, score: float = 0.5) -> EpochRecord:
    return EpochRecord(
        epoch=epoch, step=epoch, learning_rate=0.1, losses={"total": 1.0}, scores={"mean_iou": score}, seconds=1.0,
        images_per_second=1.0, data_wait=0.0, is_best=best,
    )  # fmt: skip


STATE = RunState(history=(make_record(1),), seconds=2.5)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
def test_others_may_read_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        save_state(tmp_path / "resume", STATE, *make_network())
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "resume").rglob("*") if path.is_file()]
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in files} == {
        "current": 0o640, "state.safetensors": 0o640, "state.json": 0o640,
    }  # fmt: skip


def test_training_goes_on_bit_for_bit(tmp_path: Path) -> None:
    module, optimizer = make_network()
    train_steps(module, optimizer, 3)
    save_state(tmp_path, STATE, module, optimizer)
    train_steps(module, optimizer, 3)

    other, other_optimizer = make_network(seed=9)
    train_steps(other, other_optimizer, 1)
    restore_state(tmp_path, other, other_optimizer)
    train_steps(other, other_optimizer, 3)
    for name, value in module.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    assert read_state(tmp_path) == STATE


def test_momentum_and_options_of_other_optimizers_survive(tmp_path: Path) -> None:
    module, _ = make_network()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9)
    train_steps(module, optimizer, 2)
    save_state(tmp_path, STATE, module, optimizer)
    expected = [optimizer.state[parameter]["momentum_buffer"].clone() for parameter in module.parameters()]
    other, _ = make_network(seed=9)
    other_optimizer = torch.optim.SGD(other.parameters(), lr=0.01, momentum=0.9)
    restore_state(tmp_path, other, other_optimizer)
    for parameter, buffer in zip(other.parameters(), expected, strict=True):
        assert torch.equal(other_optimizer.state[parameter]["momentum_buffer"], buffer)


def test_channels_last_weights_are_saved_and_keep_their_layout(tmp_path: Path) -> None:
    module, optimizer = make_network()
    module.to(memory_format=torch.channels_last)
    train_steps(module, optimizer, 2)
    save_state(tmp_path, STATE, module, optimizer)
    other, other_optimizer = make_network(seed=9)
    other.to(memory_format=torch.channels_last)
    restore_state(tmp_path, other, other_optimizer)
    assert torch.equal(other[0].weight, module[0].weight)
    assert other[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_all_global_generators_are_restored() -> None:
    def draw() -> tuple[float, float, float, float]:
        return torch.rand(1).item(), np.random.rand(), np.random.standard_normal(), random.gauss()  # noqa: NPY002

    draw()
    saved = json.loads(json.dumps(random_state()))
    first = draw()
    restore_random_state(saved)
    assert draw() == first
    restore_random_state(saved)
    with own_random_state():
        draw()
    assert draw() == first


def test_only_the_newest_state_is_kept_and_half_written_ones_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, optimizer = make_network()
    train_steps(module, optimizer, 1)
    assert not has_state(tmp_path)
    assert read_state(tmp_path) == RunState()
    save_state(tmp_path, STATE, module, optimizer)
    second = STATE.after(make_record(2), 1.0)
    # Killed while the tensors are written, while the folder is renamed, while the pointer is replaced.
    for name in ("sync", "write_text"):
        with monkeypatch.context() as patch:
            patch.setattr(resume, name, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
            with pytest.raises(KeyboardInterrupt):
                save_state(tmp_path, second, module, optimizer)
        assert read_state(tmp_path) == STATE
        restore_state(tmp_path, module, optimizer)
    save_state(tmp_path, second, module, optimizer)
    assert read_state(tmp_path).epoch == 2
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["current", "epoch-00002"]


def test_another_thread_count_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, optimizer = make_network()
    save_state(tmp_path, STATE, module, optimizer)
    threads = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 1)
    with pytest.raises(TrainingError, match=f"with {threads} CPU threads, found {threads + 1}.*OMP_NUM_THREADS"):
        restore_state(tmp_path, module, optimizer)


def test_the_state_of_another_network_is_refused(tmp_path: Path) -> None:
    module, optimizer = make_network()
    train_steps(module, optimizer, 1)
    save_state(tmp_path, STATE, module, optimizer)
    other = nn.Conv2d(3, 4, 3)
    with pytest.raises(CheckpointError, match="not a whole state to go on from"):
        restore_state(tmp_path, other, torch.optim.AdamW(other.parameters()))


@pytest.mark.parametrize("name", [resume.TENSORS_FILE, resume.STATE_FILE])
def test_a_truncated_state_is_refused_by_name(tmp_path: Path, name: str) -> None:
    module, optimizer = make_network()
    save_state(tmp_path, STATE, module, optimizer)
    path = tmp_path / "epoch-00001" / name
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=rf"{name}: not a whole state"):
        restore_state(tmp_path, module, optimizer)


@pytest.mark.parametrize(
    ("pointer", "reason"), [("", "it is empty"), ("epoch-00009 0123", "it names 'epoch-00009', which is not there")]
)
def test_a_pointer_to_nothing_is_named_and_the_weights_are_pointed_out(
    tmp_path: Path, pointer: str, reason: str
) -> None:
    save_state(tmp_path / "resume", STATE, *make_network())
    (tmp_path / "resume" / "current").write_text(pointer)
    with pytest.raises(CheckpointError, match=rf"current: .*\({reason}\); train again with --overwrite$"):
        read_state(tmp_path / "resume")
    (tmp_path / "last").mkdir()
    with pytest.raises(CheckpointError, match=rf"another --name by --init {tmp_path}, or train again"):
        read_state(tmp_path / "resume")


def test_the_best_epoch() -> None:
    state = RunState()
    assert state.best is None
    assert state.improves(0.1)
    state = state.after(make_record(1, score=0.4), 1).after(make_record(2, best=False, score=0.3), 1)
    assert state.best is not None
    assert state.best.epoch == 1
    assert not state.improves(0.4)
    assert state.improves(0.41)
    assert state.improves(None)
    assert (state.epoch, state.seconds) == (2, 2)
