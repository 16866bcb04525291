from __future__ import annotations

import gc
import mmap
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ctrs.errors import OutputError
from ctrs.training import footprint
from ctrs.training.footprint import MemoryMeter, check_disk, count_parameters, disk_need, optimizer_bytes
from ctrs.training.run_folder import RunFolder

MEBI = 1 << 20


def test_memory_of_the_process_is_that_of_what_it_holds() -> None:
    gc.collect()  # what earlier tests left is not to go while we look
    meter = MemoryMeter(torch.device("cpu"))
    meter.begin()
    if not meter.peak_bytes():
        pytest.skip("the system does not tell the memory of a process")
    before = meter.held_bytes()
    # Pages of the system: an array may come from memory that the process has freed and kept.
    with mmap.mmap(-1, 400 * MEBI) as ballast:
        ballast.write(bytes(400 * MEBI))
        assert meter.held_bytes() - before > 300 * MEBI
    assert meter.peak_bytes() - before > 300 * MEBI
    if meter.exact:
        meter.begin()
        assert meter.peak_bytes() - before < 200 * MEBI
    assert meter.available_bytes() > 0


def test_parameters_by_whether_they_are_trained() -> None:
    network = nn.Sequential(nn.Linear(10, 4), nn.Linear(4, 1))
    network[0].requires_grad_(False)
    assert count_parameters(network) == (5, 44)


def test_optimizers_hold_what_they_hold() -> None:
    network = nn.Linear(100, 10)
    for optimizer in (
        torch.optim.AdamW(network.parameters()),
        torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9),
        torch.optim.SGD(network.parameters(), lr=0.1),
    ):
        network(torch.ones(1, 100)).sum().backward()
        expected = optimizer_bytes(optimizer)
        assert footprint.unmade_optimizer_bytes(optimizer) == expected
        optimizer.step()
        held = [
            value
            for state in optimizer.state.values()
            for value in state.values()
            if isinstance(value, torch.Tensor) and value.numel() > 1
        ]
        assert expected == sum(value.numel() * 4 for value in held)
        if held:
            assert footprint.unmade_optimizer_bytes(optimizer) == 0


def test_room_for_checkpoints_and_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, head = nn.Linear(1000, 1000, bias=False), nn.Linear(1000, 100, bias=False)
    module = nn.ModuleList([model, head])
    need = disk_need(model, module, torch.optim.AdamW(module.parameters()))
    assert need.checkpoints == 2 * 4_000_000 + 400_000
    assert need.resume == 3 * 4_400_000
    assert disk_need(model, module, torch.optim.AdamW(module.parameters()), averaged=True).resume == 4 * 4_400_000
    run = RunFolder(tmp_path)
    left = need.total + need.staged
    monkeypatch.setattr(footprint.shutil, "disk_usage", lambda _: SimpleNamespace(free=left))
    assert check_disk(run, need) == left
    monkeypatch.setattr(footprint.shutil, "disk_usage", lambda _: SimpleNamespace(free=left - 1))
    with pytest.raises(OutputError, match=r"the disk has 55 MB left, but the run needs 55 MB more \(checkpoints 8 MB"):
        check_disk(run, need)
    (tmp_path / "resume").mkdir()
    (tmp_path / "resume" / "state").write_bytes(b"x")  # what stands there already needs no room
    assert check_disk(run, need) == left - 1
    assert check_disk(run, need, replaced=True) == left  # or gives its room back
