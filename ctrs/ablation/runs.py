"""What stands in the folders of an ablation's runs, read from their small files: no weights, no data needed."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ctrs.config import AblationRun, SplitName, TrainConfig, to_plain
from ctrs.errors import CtrsError, DataError
from ctrs.evaluation.fold_choice import data_of_fold
from ctrs.evaluation.protocols import plain_number
from ctrs.evaluation.score_report import REPORT_FILE, EvaluationReport, read_report
from ctrs.jobs import write_text
from ctrs.model_files import read_metadata
from ctrs.tiles.manifest import Manifest
from ctrs.training.run_config import RunRecord, differences, read_run_record
from ctrs.training.run_folder import RunFolder

RUNS, FAILURES = "runs", "failures"
FORMAT_VERSION = 1

RunState = Literal["to do", "stopped", "trained", "finished"]


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """How far a run of the grid is.

    Args:
        run: Its place in the grid.
        folder: Where it stands.
        state: ``to do``, ``stopped`` in training, ``trained`` but not scored, or ``finished``.
        record: What the run there was set up with; None before that.
        changed: In what it differs from the run of the grid; empty where it is the same.
        epochs: Finished epochs.
        seconds: Time spent on them.
        history: Each epoch as in the run's ``metrics.csv``.
        best_epoch: Epoch that is scored, 0 before the first.
        val_mean_iou: Its mean IoU on the validation places, by which it was chosen; NaN where there are none.
        report: Scores, once it is finished.
        error: Why the last attempt failed; None where it did not.
    """

    run: AblationRun
    folder: Path
    state: RunState = "to do"
    record: RunRecord | None = None
    changed: tuple[str, ...] = ()
    epochs: int = 0
    seconds: float = 0.0
    best_epoch: int = 0
    val_mean_iou: float = math.nan
    report: EvaluationReport | None = None
    history: tuple[Mapping[str, float], ...] = ()
    error: str | None = None

    @property
    def is_finished(self) -> bool:
        """Whether it is trained and scored."""
        return self.state == "finished"

    @property
    def peak_memory_mb(self) -> float:
        """Most memory that an epoch held, in 10⁶ bytes; NaN where the run did not measure it."""
        found = [row.get("peak_memory_mb", math.nan) for row in self.history]
        return max((value for value in found if value > 0), default=math.nan)

    @property
    def share_at_bound(self) -> float:
        """Share of the steps in which a contrast term stood at its bound; NaN for losses without one."""
        found = [value for row in self.history for key, value in row.items() if key.endswith("_clip_active")]
        return sum(found) / len(found) if found else math.nan

    @property
    def mean_boundary_iou(self) -> float:
        """Mean boundary IoU over the scored classes; NaN where it was not measured."""
        outlines = None if self.report is None else self.report.outlines
        if self.report is None or outlines is None:
            return math.nan
        return outlines.mean_boundary_iou(self.report.scored_indices)

    def describe(self) -> str:
        """Say it in a few words."""
        if self.changed:
            return f"another run stands there: {'; '.join(self.changed)}"
        if self.error is not None:
            return f"failed: {self.error}"
        if self.state == "stopped":
            return f"epoch {self.epochs} of {self.run.config.epochs}"
        return {"trained": "trained, not scored"}.get(self.state, self.state)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        run, report = self.run, self.report
        return {
            "name": run.name,
            "network": run.network,
            "loss": run.loss,
            "variant": run.variant,
            "seed": run.seed,
            "state": self.state,
            "error": self.error,
            "epochs": self.epochs,
            "best_epoch": self.best_epoch,
            "val_mean_iou": plain_number(self.val_mean_iou),
            "training_seconds": round(self.seconds, 3),
            "peak_memory_mb": plain_number(self.peak_memory_mb),
            "share_at_bound": plain_number(self.share_at_bound),
            "mean_boundary_iou": plain_number(self.mean_boundary_iou),
            "test_openings": None if report is None else report.test_openings,
            "protocols": [] if report is None else [entry.to_json() for entry in report.protocols],
            "config": to_plain(run.config if self.record is None else self.record.config),
        }


def read_status(run: AblationRun, out_dir: Path, split: SplitName, manifest: Manifest | None = None) -> RunStatus:
    """Read how far a run is.

    Args:
        run: Its place in the grid.
        out_dir: Folder of the ablation.
        split: Whose scores are wanted.
        manifest: The prepared data; None where they are not there, so that nothing can be compared with them.

    Raises:
        ConfigError: The run's configuration was damaged.
        DataError: Its table of epochs was damaged.
    """
    folder = RunFolder(out_dir / RUNS / run.name)
    error = read_failure(out_dir, run)
    if not folder.is_run:
        return RunStatus(run=run, folder=folder.path, error=error)
    record = read_run_record(folder.path)
    changed = _changed(record, run.config, manifest)
    rows = _read_metrics(folder.metrics)
    best = _best(rows)
    status = RunStatus(
        run=run,
        folder=folder.path,
        state="stopped",
        record=record,
        changed=tuple(changed),
        epochs=len(rows),
        seconds=sum(row["seconds"] for row in rows),
        best_epoch=int(best.get("epoch", 0)),
        val_mean_iou=best.get("val_mean_iou", math.nan),
        history=tuple(rows),
        error=error,
    )
    if changed or not _is_trained(rows, run.config):
        return status
    report = _report(folder.path / "eval" / split / REPORT_FILE, record, manifest)
    if report is not None:
        return dataclasses.replace(status, state="finished", report=report, error=None)
    return dataclasses.replace(status, state="trained") if _has_last_epoch(folder, len(rows)) else status


def read_failure(out_dir: Path, run: AblationRun) -> str | None:
    """Return why the last attempt at a run failed."""
    try:
        return str(json.loads(_failure_file(out_dir, run).read_text(encoding="utf-8"))["error"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"unknown, its record is not readable ({error})"


def note_failure(out_dir: Path, run: AblationRun, error: str | None) -> None:
    """Keep why a run failed, or forget it."""
    path = _failure_file(out_dir, run)
    if error is None:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"format_version": FORMAT_VERSION, "error": error}) + "\n")


def _failure_file(out_dir: Path, run: AblationRun) -> Path:
    return out_dir / FAILURES / f"{run.name}.json"


def _changed(record: RunRecord, config: TrainConfig, manifest: Manifest | None) -> list[str]:
    """Name what the run there has otherwise; what the grid leaves open was decided when it was set up."""
    stored = record.config
    decided = ("batch_size", "learning_rate", "crop", "workers")
    open_settings = {key: getattr(stored, key) for key in decided if getattr(config, key) is None}
    changed = differences(stored, dataclasses.replace(config, **open_settings))
    if stored.epochs != config.epochs and not any(text.startswith("epochs ") for text in changed):
        changed.append(f"epochs was {stored.epochs} and is {config.epochs}")
    if manifest is not None and record.split_hash != data_of_fold(manifest, config.fold).split_hash:
        changed.append("the data are others")
    return changed


def _read_metrics(path: Path) -> list[dict[str, float]]:
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = [
                {key: float(value) if value else math.nan for key, value in row.items()}
                for row in csv.DictReader(stream)
            ]
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path}: not readable as a run's table of epochs ({error}); remove the run") from error
    if any("seconds" not in row or "epoch" not in row for row in rows):
        raise DataError(f"{path}: columns epoch and seconds are missing in a run's table of epochs; remove the run")
    return rows


def _is_trained(rows: list[dict[str, float]], config: TrainConfig) -> bool:
    """Whether all epochs are finished, or patience ended: see ``RunState.out_of_patience``."""
    waited = len(rows) - int(_best(rows).get("epoch", len(rows)))
    return len(rows) >= config.epochs or (config.patience is not None and waited >= config.patience)


def _best(rows: list[dict[str, float]]) -> Mapping[str, float]:
    """Return the row of the epoch that training keeps as the best: see ``RunState.improves``."""
    best: Mapping[str, float] = {}
    for row in rows:
        score, before = row.get("val_mean_iou", math.nan), best.get("val_mean_iou", math.nan)
        if math.isnan(score) or math.isnan(before) or score > before:
            best = row
    return best


def _report(path: Path, record: RunRecord, manifest: Manifest | None) -> EvaluationReport | None:
    """Read the report of the run's own data; None where there is none that can be read, or that of other data."""
    if not path.is_file():
        return None
    try:
        report = read_report(path)
    except DataError:
        return None  # evaluate says what is wrong with it
    places = {record.data_dir.absolute()} | ({manifest.root.absolute()} if manifest else set())
    return report if report.data.absolute() in places else None


def _has_last_epoch(folder: RunFolder, epoch: int) -> bool:
    """Whether the checkpoint of the last epoch was written: a kill may fall between the table and it."""
    try:
        return read_metadata(folder.last).epoch == epoch
    except CtrsError:
        return False
