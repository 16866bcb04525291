"""``ctrs eval`` as a user calls it: how often the test was looked at is said aloud."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ctrs.cli.app import main
from tests.evaluation.scored_ground import make_run, prepare

QUICK = ["--data", "prepared/town", "--pixels-only", "--bootstrap", "0", "--device", "cpu", "--threads", "1"]


def test_each_opening_of_the_test_split_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prepared").mkdir()
    prepare(tmp_path / "prepared" / "town")
    make_run(tmp_path / "runs" / "first")
    call = ["eval", "runs/first", *QUICK]
    assert main([*call, "--split", "val"]) == 0
    assert "opened" not in capsys.readouterr().err
    assert main([*call, "--split", "test"]) == 0
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if "the test split of" in line and "is opened now" in line]
    assert len(lines) == 1
    assert lines[0].endswith("opened it never before")
    assert "is opened now" not in printed.out
    assert main([*call, "--split", "test", "--batch-size", "3", "--overwrite", "--json"]) == 0
    printed = capsys.readouterr()
    assert "opened it once before" in printed.err
    assert "opening 2 of the test split" in printed.err
    assert json.loads(printed.out)["test_openings"] == 2
    assert main([*call, "--split", "test", "--batch-size", "3"]) == 0  # the report that stands there is read
    printed = capsys.readouterr()
    assert "is opened now" not in printed.err
    assert "opening 2 of the test split" in printed.err
