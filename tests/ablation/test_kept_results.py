"""The tables under docs/results come back from the kept files of their runs, and stand so in docs/results.md."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from ctrs.ablation import ablate
from ctrs.config import read_ablation

DOCS = Path(__file__).parents[2] / "docs"
STUDIES = sorted(path.parent.name for path in (DOCS / "results").glob("*/grid.toml"))
EXAMPLES = DOCS.parent / "examples"
TABLES = ("table.md", "table.csv", "ablation.json")


def test_the_studies_are_there() -> None:
    assert "contrast_buildings" in STUDIES


@pytest.mark.parametrize("study", STUDIES)
def test_tables_are_made_again_from_what_is_kept(study: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, again = DOCS / "results" / study, tmp_path / "results" / study
    shutil.copytree(kept, again, ignore=shutil.ignore_patterns(*TABLES, "pictures"))
    monkeypatch.chdir(tmp_path)
    result = ablate(read_ablation(again / "grid.toml"), again)
    assert all(status.is_finished for status in result.runs)
    for name in TABLES[:2]:
        assert (again / name).read_text(encoding="utf-8") == (kept / name).read_text(encoding="utf-8")
    before, found = (json.loads((folder / TABLES[2]).read_text(encoding="utf-8")) for folder in (kept, again))
    assert found["rows"] == before["rows"]
    assert found["runs"] == before["runs"]
    assert {path.name for path in (again / "pictures").iterdir()} >= {
        path.name for path in (kept / "pictures").glob("*")
    }


@pytest.mark.parametrize("study", STUDIES)
def test_runs_were_set_up_as_the_example_says(study: str) -> None:
    kept, example = read_ablation(DOCS / "results" / study / "grid.toml"), read_ablation(EXAMPLES / f"{study}.toml")
    assert {run.name: run.config for run in kept.runs} == {run.name: run.config for run in example.runs}


@pytest.mark.parametrize("study", STUDIES)
def test_the_page_shows_the_kept_tables(study: str) -> None:
    page = (DOCS / "results.md").read_text(encoding="utf-8")
    rows = [row for row in (DOCS / "results" / study / "table.md").read_text().splitlines() if row.startswith("|")]
    assert len(rows) > 3
    assert [row for row in rows if row not in page] == []


@pytest.mark.parametrize("study", STUDIES)
def test_each_run_opened_the_test_split_once_and_took_as_many_steps(study: str) -> None:
    runs = sorted((DOCS / "results" / study / "runs").iterdir())
    reports = [json.loads((run / "eval" / "test" / "report.json").read_text(encoding="utf-8")) for run in runs]
    assert {report["test_openings"] for report in reports} == {1}
    assert len({report["split_hash"] for report in reports}) == 1
    assert len({report["weights"] for report in reports}) == len(runs)  # no run stands for another
    steps = [_steps(run) for run in runs]
    assert max(steps) - min(steps) <= 0.06 * max(steps)  # shares of the tiles do not divide evenly


def _steps(run: Path) -> int:
    with (run / "metrics.csv").open(encoding="utf-8") as file:
        return int(list(csv.DictReader(file))[-1]["step"])
