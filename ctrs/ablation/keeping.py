"""The small files of an ablation, from which its table is made again anywhere: without data, weights or training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import tomli_w

from ctrs.ablation.runs import RUNS, RunStatus
from ctrs.ablation.table import AblationResult, write_tables
from ctrs.config import ablation_to_plain, read_toml
from ctrs.errors import DataError, OutputExistsError
from ctrs.evaluation.score_report import REPORT_FILE
from ctrs.jobs import write_text
from ctrs.training.run_config import CONFIG_FILE
from ctrs.training.run_folder import RunFolder

GRID_FILE = "grid.toml"


def keep_results(result: AblationResult, folder: Path) -> tuple[Path, ...]:
    """Copy what the table of a finished ablation is made from, some tens of kilobytes for each run.

    ``ctrs ablate FOLDER/grid.toml --out FOLDER`` makes the same table from it. Places on this machine are left out: the
    data bear the name that the grid gives them. Files that stand there from an earlier call are replaced.

    Args:
        result: The ablation, with all runs finished.
        folder: Where to.

    Returns:
        The grid, the three tables.

    Raises:
        DataError: A run is not finished, so that the table could not be made without training.
        OutputExistsError: ``folder`` is a file, or the ablation itself.
        OutputError: It cannot be written.
    """
    missing = [status.run.name for status in result.runs if not status.is_finished]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(f"{result.out_dir}: {missing[0]}{more} not finished; only whole ablations are kept")
    if folder.resolve() == result.out_dir.resolve() or (folder.exists() and not folder.is_dir()):
        raise OutputExistsError(f"{folder}: is a file or the ablation itself; choose another folder with --keep")
    data = _place_of(result.config.data)
    for status in result.runs:
        _keep_run(status, folder / RUNS / status.run.name, result.split, data)
    kept = replace(result, config=replace(result.config, data=Path(data), split=result.split), out_dir=folder)
    grid = folder / GRID_FILE
    write_text(grid, tomli_w.dumps(ablation_to_plain(kept.config)))
    write_tables(kept)
    return (grid, *kept.paths)


def _place_of(data: Path) -> str:
    return f"prepared/{data.name}" if data.is_absolute() else data.as_posix()


def _keep_run(status: RunStatus, folder: Path, split: str, data: str) -> None:
    run = RunFolder(status.folder)
    settings: dict[str, Any] = read_toml(run.path / CONFIG_FILE)
    settings["data"] = {key: value for key, value in settings["data"].items() if key != "place"} | {"path": data}
    report = json.loads((run.path / "eval" / split / REPORT_FILE).read_text(encoding="utf-8"))
    name = f"{RUNS}/{status.run.name}"
    report |= {"data": data, "path": f"{name}/eval/{split}/{REPORT_FILE}", "checkpoint": f"{name}/best"}
    (folder / "eval" / split).mkdir(parents=True, exist_ok=True)
    write_text(folder / CONFIG_FILE, tomli_w.dumps(settings))
    write_text(folder / run.metrics.name, run.metrics.read_text(encoding="utf-8"))
    write_text(folder / "eval" / split / REPORT_FILE, json.dumps(report, allow_nan=False) + "\n")
