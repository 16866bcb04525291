"""The examples run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ctrs.config import read_ablation

ROOT = Path(__file__).resolve().parent.parent


def run_example(name: str, *arguments: str, cwd: Path) -> str:
    """Run an example in a process of its own and return what it printed."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / name, *arguments],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_contrast_in_a_loop_of_ones_own(tmp_path: Path) -> None:
    printed = run_example("contrast_in_your_own_loop.py", cwd=tmp_path)
    rows = re.findall(
        r"^step (\d): loss (\S+), cl (\S+) \(\[(.*)\] anchors\), supcon (\S+), cms (\S+), ccs (\S+), "
        r"pne (\S+) \((\d+) anchors\)$",
        printed,
        flags=re.MULTILINE,
    )
    assert [int(row[0]) for row in rows] == [0, 1, 2, 3, 4]
    losses = [float(row[1]) for row in rows]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.7 * losses[0]
    for first, last, below in zip(rows[0][2:7], rows[-1][2:7], (0.9, 0, 0.95, 0.5, 0.5), strict=True):
        assert not below or float(last) < below * float(first)
    assert all(int(count) > 0 for row in rows for count in [*row[3].split(", "), row[8]])


@pytest.mark.slow
def test_five_steps(tmp_path: Path) -> None:
    printed = run_example("five_steps.py", cwd=tmp_path)
    found = re.fullmatch(
        r"mean IoU without Clutter on the test split: (0\.\d{3})\n(\S+scene_mask\.gpkg): (\d+) buildings\n", printed
    )
    assert found, printed
    assert float(found[1]) > 0.1
    folder = tmp_path / "five-steps"
    assert tmp_path / found[2] == folder / "scene_mask.gpkg"
    assert int(found[3]) > 0
    for name in ("prepared/manifest.parquet", "run/best/model.json", "run/eval/test/report.json", "scene_mask.tif"):
        assert (folder / name).is_file(), name


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.toml")), ids=lambda path: path.stem)
def test_a_grid_is_whole_and_compares_with_none(path: Path) -> None:
    grid = read_ablation(path)
    assert len(grid.seeds) >= 3
    for row in grid.rows:
        assert (grid.reference(row) is None) == (row[1] == "none")
    named = re.findall(r"ctrs ablate (\S+)", path.read_text())
    assert named == [f"examples/{path.name}"]
