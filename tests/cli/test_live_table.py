"""What a training shows while it runs."""

from __future__ import annotations

import dataclasses
import io
import logging
from pathlib import Path

import pytest
from rich.console import Console as RichConsole

from ctrs.cli.console import Console
from ctrs.cli.live_table import EpochTable, training_view
from ctrs.training.records import EpochRecord, TrainPlan

PLAN = TrainPlan(
    run_dir=Path("runs/a"), data="town", model="swin + dcfam, loss cl", parameters=21_100_000, num_train=100,
    num_val=20, epochs=30, first_epoch=1, steps_per_epoch=12, batch_size=8, crop_px=512, learning_rate=8e-5,
    device="cpu", precision="fp32", workers=0, cached=True, seconds_per_epoch=60.0,
)  # fmt: skip


def record(epoch: int, *, best: bool = False, validates: bool = True) -> EpochRecord:
    return EpochRecord(
        epoch=epoch, step=12 * epoch, learning_rate=8e-5,
        losses={"total": 2.0 - epoch / 100, "grad_norm": 1.0, "cross_entropy": 0.75, "dice": 0.5, "cl": 0.25,
                "cl/anchors_4": 9.0},
        scores={"mean_iou": epoch / 100} if validates else {}, seconds=30.0, images_per_second=4.0, data_wait=0.1,
        is_best=best,
    )  # fmt: skip


def terminal(width: int = 120) -> RichConsole:
    return RichConsole(
        file=io.StringIO(), force_terminal=True, width=width, color_system=None, _environ={"TERM": "xterm"}
    )


def drawn(table: EpochTable, width: int = 120) -> list[str]:
    screen = terminal(width)
    screen.print(table)
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue().splitlines()


def test_the_last_ten_epochs_with_losses_scores_and_time_left() -> None:
    table = EpochTable()
    assert drawn(table) == []
    table.plan(PLAN)
    assert table.seconds_left == 1800
    for epoch in range(1, 13):
        table.add(record(epoch, best=epoch == 11))
    lines = drawn(table)
    assert lines[0].split() == [
        "epoch", "loss", "cross", "entropy", "dice", "cl", "mean", "IoU", "images/s", "time",
    ]  # fmt: skip
    assert [line.split()[0] for line in lines[1:11]] == [str(epoch) for epoch in range(3, 13)]
    assert lines[9].split() == ["11", "1.8900", "0.7500", "0.5000", "0.2500", "0.1100", "*", "4.0", "30", "s"]
    assert lines[10].split()[:2] == ["12", "1.8800"]
    assert lines[11] == "epoch 12 of 30 finished, * best so far: 0.1100 in epoch 11, about 9 min 0 s left"
    assert len(lines) == 12


def test_epochs_of_earlier_processes_are_shown_but_say_nothing_of_the_time() -> None:
    table = EpochTable()
    table.plan(dataclasses.replace(PLAN, first_epoch=3, history=(record(1), record(2, best=True))))
    assert table.seconds_left == 28 * 60
    lines = drawn(table)
    assert [line.split()[0] for line in lines[1:3]] == ["1", "2"]
    assert lines[3] == "epoch 2 of 30 finished, * best so far: 0.0200 in epoch 2, about 28 min 0 s left"
    table.add(record(3))
    assert table.seconds_left == 27 * 30


def test_a_narrow_terminal_has_no_room_for_parts() -> None:
    table = EpochTable()
    table.add(record(1, validates=False))
    lines = drawn(table, width=60)
    assert lines[0].split() == ["epoch", "loss", "mean", "IoU", "images/s", "time"]
    assert lines[1].split() == ["1", "1.9900", "–", "4.0", "30", "s"]
    assert max(map(len, lines)) <= 60


def test_on_a_terminal_there_is_one_table_with_a_bar_below(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal()
    console = Console(as_json=False, verbose=False, quiet=False)
    with training_view(console, screen) as view:
        view.on_plan(PLAN)
        logging.getLogger("ctrs.training").info("said by the library")
        for epoch in range(1, 3):
            view.progress(12 * epoch, 360, "training")
            view.on_epoch(record(epoch, best=True))
    assert isinstance(screen.file, io.StringIO)
    shown = screen.file.getvalue()
    assert "said by the library" in shown  # above the table, which it does not tear apart
    last = shown[shown.rindex("cross entropy") :]
    assert last.count("0.0100 *") == last.count("0.0200 *") == 1
    assert "epoch 2 of 30 finished" in last
    assert "24/360" in last


def test_elsewhere_there_is_a_line_for_each_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    plain = RichConsole(file=io.StringIO(), force_terminal=False)
    with training_view(Console(as_json=False, verbose=False, quiet=False), plain) as view:
        view.on_plan(PLAN)
        view.on_epoch(record(1))
        view.on_epoch(record(2))
    assert [line.split(",")[0] for line in capsys.readouterr().err.splitlines()] == ["epoch 1", "epoch 2"]
    with training_view(Console(as_json=False, verbose=False, quiet=True), terminal()) as view:
        view.on_epoch(record(1))
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
