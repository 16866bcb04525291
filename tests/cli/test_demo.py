from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ctrs.cli import app as program
from ctrs.cli import demo

RunCtrs = Callable[..., subprocess.CompletedProcess[str]]


def test_only_a_demos_folder_is_emptied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    treasure = tmp_path / "thesis.txt"
    treasure.write_text("two years of work")
    assert program.main(["demo", "--out", str(tmp_path), "--overwrite"]) == 1
    assert "is not a demo's folder" in capsys.readouterr().err
    assert treasure.read_text() == "two years of work"


def test_a_file_in_the_way_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert program.main(["demo", "--out", str(tmp_path / "file")]) == 1
    assert "is a file; choose a folder" in capsys.readouterr().err


def test_other_settings_need_overwrite(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    demo._open_folder(out, "one", overwrite=False)
    (out / "town").mkdir()
    demo._open_folder(out, "one", overwrite=False)  # the same demo goes on
    assert (out / "town").is_dir()
    with pytest.raises(demo.OutputExistsError, match="other settings; pass --overwrite"):
        demo._open_folder(out, "two", overwrite=False)
    demo._open_folder(out, "two", overwrite=True)
    assert not (out / "town").exists()


@pytest.mark.slow
def test_demo_finds_the_buildings(tmp_path: Path, run_ctrs: RunCtrs) -> None:
    started = time.monotonic()
    done = run_ctrs("demo", "--out", "demo", "--json", timeout=900)
    seconds = time.monotonic() - started
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    headline = next(entry for entry in result["report"]["protocols"] if entry["name"] == "strict, without clutter")
    building = next(entry for entry in headline["classes"] if entry["name"] == "building")
    assert building["iou"] > 0.7
    assert result["counts"]["building"] > 20
    for key in ("picture", "mask", "polygons"):
        assert (tmp_path / result[key]).is_file()
    again = run_ctrs("demo", "--out", "demo", "--json", timeout=900)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["seconds"] < seconds / 3, "a finished demo is made again"
