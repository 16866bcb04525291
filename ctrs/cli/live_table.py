"""What a training shows on a terminal: the last epochs as a table, and below it how far the steps are."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ctrs.cli.console import Console, phases, progress_bars
from ctrs.config import DEFAULT_WEIGHTS, SEGMENTATION_WEIGHTS
from ctrs.progress import Progress, format_duration

if TYPE_CHECKING:
    from ctrs.training.records import EpochRecord, TrainPlan

SHOWN_EPOCHS = 10
_RECENT_EPOCHS = 5
_TERMS = {*DEFAULT_WEIGHTS, *SEGMENTATION_WEIGHTS, "cross_entropy", "auxiliary"}


class EpochTable:
    """The last epochs: losses, scores, speed, time; rendered anew whenever it is looked at.

    A narrow terminal shows no parts of the loss.
    """

    def __init__(self) -> None:
        self._plan: TrainPlan | None = None
        self._records: list[EpochRecord] = []

    def plan(self, plan: TrainPlan) -> None:
        """Take note of what is going to be done."""
        self._plan = plan
        self._records = list(plan.history)

    def add(self, record: EpochRecord) -> None:
        """Take note of an epoch."""
        self._records.append(record)

    @property
    def seconds_left(self) -> float | None:
        """Expected seconds until the last epoch ends, None while that is not known."""
        if self._plan is None:
            return None
        recent = [record.seconds for record in self._records if record.epoch >= self._plan.first_epoch]
        if not recent:
            return self._plan.expected_seconds
        recent = recent[-_RECENT_EPOCHS:]
        return (self._plan.epochs - self._records[-1].epoch) * sum(recent) / len(recent)

    def __rich_console__(self, console: RichConsole, options: ConsoleOptions) -> RenderResult:
        if not self._records:
            return
        parts = self._parts() if options.max_width >= _WIDE else []
        table = Table(box=None, header_style="bold", pad_edge=False)
        for name in ("epoch", "loss", *(name.replace("_", " ") for name in parts), "mean IoU", "images/s", "time"):
            table.add_column(name, justify="right", no_wrap=True)
        for record in self._records[-SHOWN_EPOCHS:]:
            score = "–" if record.score is None else f"{record.score:.4f}"
            table.add_row(
                str(record.epoch),
                f"{record.losses['total']:.4f}",
                *(_figure(record.losses.get(name)) for name in parts),
                Text(f"{score} *", style="bold green") if record.is_best else f"{score}  ",
                f"{record.images_per_second:.1f}",
                format_duration(record.seconds),
            )
        yield table
        yield Text(self._summary(), style="dim")

    def _parts(self) -> list[str]:
        """Return the names of the loss's parts: those that are terms of it, not what is counted along with them."""
        names = [name for name in self._records[-1].losses if name in _TERMS]
        return names if len(names) > 1 else []

    def _summary(self) -> str:
        last = self._records[-1]
        total = "" if self._plan is None else f" of {self._plan.epochs}"
        text = f"epoch {last.epoch}{total} finished"
        best = next((record for record in reversed(self._records) if record.is_best and record.scores), None)
        if best is not None:
            text += f", * best so far: {_figure(best.score)} in epoch {best.epoch}"
        left = self.seconds_left
        return text if not left else f"{text}, about {format_duration(left)} left"


_WIDE = 90
"""Columns of a terminal from which the parts of the loss have room."""


def _figure(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.4f}"


class TrainingView:
    """What ``train`` calls back: progress, plan and epochs.

    Args:
        progress: Takes steps.
        on_plan: Takes the plan.
        on_epoch: Takes each epoch.
    """

    def __init__(
        self, progress: Progress, on_plan: Callable[[TrainPlan], None], on_epoch: Callable[[EpochRecord], None]
    ) -> None:
        self.progress = progress
        self.on_plan = on_plan
        self.on_epoch = on_epoch


@contextmanager
def training_view(console: Console, terminal: RichConsole | None = None) -> Iterator[TrainingView]:
    """Show a training: a live table on a terminal, else a line for each epoch; nothing when quiet.

    Args:
        console: The voice of the command.
        terminal: Where to draw; None: stderr.
    """
    screen = RichConsole(file=sys.stderr) if terminal is None else terminal
    if console.quiet or not screen.is_terminal or screen.is_dumb_terminal:
        with console.progress() as progress:
            yield TrainingView(progress, lambda _: None, lambda record: console.note(record.describe()))
        return
    table, bars = EpochTable(), progress_bars(screen)
    with Live(Group(table, bars), console=screen, refresh_per_second=4) as live:

        def add(record: EpochRecord) -> None:
            table.add(record)
            live.refresh()

        yield TrainingView(phases(bars), table.plan, add)
