"""The table of an ablation: rows of the grid over seeds, as text, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import ctrs
from ctrs.ablation.gain import CONFIDENCE, SAMPLES, Gain, paired_gain
from ctrs.ablation.runs import RunStatus
from ctrs.ablation.spread import Spread
from ctrs.config import AblationConfig, SplitName, ablation_to_plain
from ctrs.evaluation.score_report import EvaluationReport
from ctrs.evaluation.score_tables import ScoreTable
from ctrs.jobs import write_text
from ctrs.progress import format_duration

KIND = "ctrs ablation"
FORMAT_VERSION = 1
_EXPLANATION = (
    "Mean ± sample standard deviation over seeds. Differences are those of pairs of runs with the same network and "
    "seed, which saw the same batches; in brackets their {confidence:.0%} interval over scenes and seeds ({samples} "
    "bootstrap samples of both). The epoch that is scored is the best one on validation places, or the last one where "
    "there are none. At its bound: share of steps in which a contrast term stood there. Training is the mean time of "
    "all epochs and memory the mean of their peaks, on the machine that ran them."
)
_EFFORT = ("at its bound", "training", "memory", "runs")
TABLE_FILE, CSV_FILE, JSON_FILE = "table.md", "table.csv", "ablation.json"


@dataclass(frozen=True, kw_only=True)
class AblationRow:
    """What the runs of a network, loss and variant have in common, over seeds.

    Args:
        network: Name of the network.
        loss: As ``--loss``.
        variant: Name of the variant, empty for none.
        num_runs: Runs of the grid.
        num_finished: Runs that are trained and scored.
        num_failed: Runs whose last attempt failed.
        mean_iou: Of the headline protocol.
        class_iou: IoU of each class of that protocol.
        boundary_iou: Mean boundary IoU over the scored classes.
        difference: Mean IoU minus that of the run without contrast with the same network and seed; None where the row
            is compared with nothing.
        at_bound: Share of the steps in which a contrast term stood at its bound.
        seconds: Training time of the finished runs.
        memory_mb: Their peak memory in 10⁶ bytes.
    """

    network: str
    loss: str
    variant: str
    num_runs: int
    num_finished: int
    num_failed: int
    mean_iou: Spread
    class_iou: Mapping[str, Spread]
    boundary_iou: Spread
    difference: Gain | None
    at_bound: Spread
    seconds: Spread
    memory_mb: Spread

    @property
    def difference_text(self) -> str:
        """The paired difference; the number of pairs where it is not that of the finished runs."""
        if self.difference is None:
            return ""
        text = self.difference.describe()
        pairs = self.difference.spread.count
        return f"{text} (n = {pairs})" if 1 < pairs < self.num_finished else text

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "network": self.network,
            "loss": self.loss,
            "variant": self.variant,
            "runs": self.num_runs,
            "finished": self.num_finished,
            "failed": self.num_failed,
            "mean_iou": self.mean_iou.to_json(),
            "iou": {name: spread.to_json() for name, spread in self.class_iou.items()},
            "boundary_iou": self.boundary_iou.to_json(),
            "share_at_bound": self.at_bound.to_json(),
            "peak_memory_mb": self.memory_mb.to_json(),
            "difference_to_none": None if self.difference is None else self.difference.to_json(),
            "training_seconds": self.seconds.to_json(),
        }


@dataclass(frozen=True, kw_only=True)
class AblationResult:
    """The runs of a grid, as far as they are.

    Args:
        config: The grid.
        out_dir: Folder of the ablation.
        split: What was scored.
        runs: Every run.
    """

    config: AblationConfig
    out_dir: Path
    split: SplitName
    runs: tuple[RunStatus, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        """Files of the table."""
        return tuple(self.out_dir / name for name in (TABLE_FILE, CSV_FILE, JSON_FILE))

    @property
    def failed(self) -> tuple[RunStatus, ...]:
        """Runs whose last attempt failed."""
        return tuple(status for status in self.runs if status.error is not None)

    @property
    def num_finished(self) -> int:
        """Runs that are trained and scored."""
        return sum(status.is_finished for status in self.runs)

    @cached_property
    def protocol(self) -> str:
        """Name of the headline protocol; empty before the first score."""
        return next((status.report.headline.name for status in self.runs if status.report is not None), "")

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Classes of the headline protocol; none before the first score."""
        found = (status.report.headline for status in self.runs if status.report is not None)
        return next((tuple(entry.name for entry in head.classes) for head in found), ())

    @cached_property
    def rows(self) -> tuple[AblationRow, ...]:
        """Means and standard deviations over seeds."""
        return tuple(self._row(row) for row in self.config.rows)

    def tables(self) -> tuple[ScoreTable, ...]:
        """Return the scores, and the IoU of each class, for a terminal."""
        columns = self._columns()
        header = (*columns, "mean IoU", *self._difference_column(), *_EFFORT)
        scores = [(*labels, *self._score_cells(row), *_effort_cells(row)) for labels, row in self._labelled()]
        tables = [ScoreTable(title=self.title, header=header, rows=tuple(scores))]
        if self.class_names:
            classes = [
                (
                    *labels,
                    *(_short(row.class_iou[name].mean) for name in self.class_names),
                    _short(row.boundary_iou.mean),
                )
                for labels, row in self._labelled()
            ]
            title = "IoU of each class and mean boundary IoU, mean over seeds"
            tables.append(
                ScoreTable(title=title, header=(*columns, *self.class_names, "boundary IoU"), rows=tuple(classes))
            )
        return tuple(tables)

    @property
    def title(self) -> str:
        """What the table shows."""
        return f"{self.split} split, {self.protocol or 'no scores yet'}: mean ± standard deviation over seeds"

    def to_markdown(self) -> str:
        """Return the whole table as Markdown, with what it means and which runs failed."""
        header = (*self._columns(), "mean IoU", *self._difference_column(), *self.class_names, "boundary IoU", *_EFFORT)
        lines = [_markdown_row(header), "|" + "---|" * len(header)]
        for labels, row in self._labelled():
            iou = [row.class_iou[name].describe() for name in self.class_names]
            lines.append(
                _markdown_row(
                    (*labels, *self._score_cells(row), *iou, row.boundary_iou.describe(), *_effort_cells(row))
                )
            )
        what = f"{self.split} split of {self.config.data.name}" + (f", {self.protocol}" if self.protocol else "")
        seeds = ", ".join(map(str, self.config.seeds))
        explanation = _EXPLANATION.format(confidence=CONFIDENCE, samples=SAMPLES)
        text = f"IoU on the {what}, seeds {seeds}. {explanation}\n\n{chr(10).join(lines)}\n"
        if self.failed:
            failures = "\n".join(f"- `{status.run.name}`: {status.error}" for status in self.failed)
            text += f"\nFailed runs, which are left out:\n\n{failures}\n"
        return text

    def to_csv(self) -> str:
        """Return one line for each run with all its scores."""
        lines = [dict(_csv_cells(status)) for status in self.runs]
        header = dict.fromkeys(name for line in lines for name in line)
        stream = io.StringIO()
        writer = csv.DictWriter(stream, list(header), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
        return stream.getvalue()

    def to_json(self) -> dict[str, Any]:
        """Return JSON values: the grid, its rows and its runs."""
        return {
            "kind": KIND,
            "format_version": FORMAT_VERSION,
            "ctrs_version": ctrs.__version__,
            "grid": ablation_to_plain(self.config),
            "split": self.split,
            "protocol": self.protocol,
            "rows": [row.to_json() for row in self.rows],
            "runs": [status.to_json() for status in self.runs],
        }

    def _row(self, row: tuple[str, str, str]) -> AblationRow:
        mine = [status for status in self.runs if status.run.row == row]
        finished = [status for status in mine if status.is_finished]
        heads = [status.report.headline for status in mine if status.report is not None]
        network, loss, variant = row
        return AblationRow(
            network=network,
            loss=loss,
            variant=variant,
            num_runs=len(mine),
            num_finished=len(heads),
            num_failed=sum(status.error is not None for status in mine),
            mean_iou=Spread.of([head.mean_iou for head in heads]),
            class_iou={name: Spread.of([head.class_score(name).iou for head in heads]) for name in self.class_names},
            boundary_iou=Spread.of([status.mean_boundary_iou for status in finished]),
            difference=self._gain(row),
            at_bound=Spread.of([status.share_at_bound for status in finished]),
            seconds=Spread.of([status.seconds for status in finished]),
            memory_mb=Spread.of([status.peak_memory_mb for status in finished]),
        )

    def _gain(self, row: tuple[str, str, str]) -> Gain | None:
        reference = self.config.reference(row)
        if reference is None:
            return None
        return paired_gain(self.reports(row), self.reports(reference))

    def reports(self, row: tuple[str, str, str]) -> dict[int, EvaluationReport]:
        """Return the reports of the finished runs of a row by seed."""
        found = [status for status in self.runs if status.run.row == row]
        return {status.run.seed: status.report for status in found if status.report is not None}

    def _columns(self) -> tuple[str, ...]:
        return ("network", "loss", "variant") if self.config.variants else ("network", "loss")

    def _labelled(self) -> Iterator[tuple[tuple[str, ...], AblationRow]]:
        for row in self.rows:
            labels = (row.network, row.loss, row.variant or "–")
            yield labels[: len(self._columns())], row

    def _difference_column(self) -> tuple[str, ...]:
        compared = any(self.config.reference(row) for row in self.config.rows)
        return ("difference to none",) if compared else ()

    def _score_cells(self, row: AblationRow) -> tuple[str, ...]:
        return (row.mean_iou.describe(), *([row.difference_text] if self._difference_column() else []))


def write_tables(result: AblationResult) -> None:
    """Write ``table.md``, ``table.csv`` and ``ablation.json`` into the folder of the ablation.

    Raises:
        OutputError: One cannot be written.
    """
    write_text(result.out_dir / TABLE_FILE, result.to_markdown())
    write_text(result.out_dir / CSV_FILE, result.to_csv())
    write_text(result.out_dir / JSON_FILE, json.dumps(result.to_json(), indent=1, allow_nan=False) + "\n")


def _effort_cells(row: AblationRow) -> tuple[str, ...]:
    """Return share of steps at the bound, mean training time and memory, and finished and failed runs."""
    failed = f", {row.num_failed} failed" if row.num_failed else ""
    time = format_duration(row.seconds.mean) if row.seconds.count else "–"
    bound = f"{row.at_bound.mean:.0%}" if row.at_bound.count else "–"
    memory = f"{row.memory_mb.mean:.0f} MB" if row.memory_mb.count else "–"
    return bound, time, memory, f"{row.num_finished}/{row.num_runs}{failed}"


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _csv_cells(status: RunStatus) -> Iterator[tuple[str, str | int]]:
    """Yield the columns of a run: its place, its training, headline scores, and mean IoU under other protocols."""
    run, report = status.run, status.report
    yield from (("run", run.name), ("network", run.network), ("loss", run.loss), ("variant", run.variant))
    yield from (("seed", run.seed), ("state", status.state), ("error", status.error or ""))
    yield from (("epochs", status.epochs), ("best_epoch", status.best_epoch))
    yield from (("val_mean_iou", _exact(status.val_mean_iou)), ("training_seconds", f"{status.seconds:.3f}"))
    yield from (("peak_memory_mb", _exact(status.peak_memory_mb)), ("share_at_bound", _exact(status.share_at_bound)))
    yield "mean_boundary_iou", _exact(status.mean_boundary_iou)
    if report is None:
        return
    head = report.headline
    yield from (("split", report.split or ""), ("protocol", head.name))
    yield from (("test_openings", "" if report.test_openings is None else report.test_openings),)
    yield from (("mean_iou", _exact(head.mean_iou)), ("mean_f1", _exact(head.mean_f1)))
    yield "overall_accuracy", _exact(head.overall_accuracy)
    yield from ((f"iou {entry.name}", _exact(entry.iou)) for entry in head.classes)
    yield from ((f"f1 {entry.name}", _exact(entry.f1)) for entry in head.classes)
    yield from ((f"mean_iou ({other.name})", _exact(other.mean_iou)) for other in report.protocols[1:])


def _short(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4f}"


def _exact(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.8g}"
