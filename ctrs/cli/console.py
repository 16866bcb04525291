"""What a command says: results on stdout, everything else on stderr, in colour only where a person is watching."""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TextIO

from ctrs.errors import CtrsWarning
from ctrs.progress import Progress, format_duration, no_progress

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

_PLAIN_INTERVAL_S = 10.0


class Console:
    """The voice of one command.

    Args:
        as_json: Results are one JSON object.
        verbose: Debug messages and tracebacks.
        quiet: Results and errors only.
    """

    def __init__(self, *, as_json: bool, verbose: bool, quiet: bool) -> None:
        self.as_json = as_json
        self.verbose = verbose
        self.quiet = quiet and not verbose
        self._listen_to_library()

    def note(self, text: str) -> None:
        """Say something on stderr, unless quiet."""
        if not self.quiet:
            write_line(sys.stderr, text)

    def failure(self, text: str) -> None:
        """Say on stderr that one of several things failed, also when quiet."""
        write_line(sys.stderr, f"failed: {text}")

    def result(self, payload: dict[str, Any], show: Callable[[], None]) -> None:
        """Print the result: ``payload`` as JSON on request, else whatever ``show`` prints."""
        if self.as_json:
            write_line(sys.stdout, json.dumps(payload, indent=2, default=str, allow_nan=False))
        else:
            show()

    def line(self, text: str) -> None:
        """Print one line of a result on stdout."""
        write_line(sys.stdout, text)

    def table(
        self, title: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, left: Sequence[int] = (0,)
    ) -> None:
        """Print a table on stdout: columns of text (``left``, the first one unless given) left, the others right."""
        from rich.console import Console as RichConsole
        from rich.table import Table

        table = Table(title=title or None, title_justify="left", header_style="bold")
        for number, name in enumerate(header):
            # Text wraps where the terminal is narrow, but names do not.
            wraps = number > 0 and number in left
            justify: Literal["left", "right"] = "left" if number in left else "right"
            table.add_column(name, justify=justify, no_wrap=not wraps, overflow="fold" if wraps else "ellipsis")
        for row in rows:
            table.add_row(*row)
        width = None if sys.stdout.isatty() else 200
        RichConsole(file=sys.stdout, width=width, highlight=False).print(table)

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """Give a progress callable: bars with the time left on a terminal, else plain lines; nothing when quiet."""
        if self.quiet:
            yield no_progress
        elif sys.stderr.isatty():
            from rich.console import Console as RichConsole

            bars = progress_bars(RichConsole(file=sys.stderr))
            with bars:
                yield _RichPhases(bars)
        else:
            yield _PlainPhases(sys.stderr)

    def _listen_to_library(self) -> None:
        """Show the library's messages and warnings as lines on stderr."""
        logger = logging.getLogger("ctrs")
        level = logging.DEBUG if self.verbose else logging.ERROR if self.quiet else logging.INFO
        logger.setLevel(level)
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
        logger.addHandler(_LineHandler())
        logger.propagate = False
        verbose, quiet = self.verbose, self.quiet

        def show(
            message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any
        ) -> None:
            if issubclass(category, CtrsWarning):
                if not quiet:
                    write_line(sys.stderr, f"warning: {message}")
            elif verbose:
                write_line(sys.stderr, f"{filename}:{lineno}: {category.__name__}: {message}")

        warnings.showwarning = show
        warnings.filterwarnings("always", category=CtrsWarning)


class _LineHandler(logging.Handler):
    """Writes each record as one plain line to whatever stderr is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        write_line(sys.stderr, prefix + record.getMessage())


def progress_bars(terminal: RichConsole) -> RichProgress:
    """Return bars with the time left, to be drawn on a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    return RichProgress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=terminal,
    )


def phases(bars: RichProgress) -> Progress:
    """Return a progress callable that draws on bars."""
    return _RichPhases(bars)


class _RichPhases:
    """One bar for each phase; a phase that begins again (the training of the next run) has a new bar for the old."""

    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}
        self._done: dict[str, int] = {}

    def __call__(self, done: int, total: int, what: str) -> None:
        if done < self._done.get(what, 0):
            self._bars.remove_task(self._tasks.pop(what))
        self._done[what] = done
        if what not in self._tasks:
            for task in self._tasks.values():
                self._bars.stop_task(task)
            self._tasks[what] = self._bars.add_task(what, total=total)
        self._bars.update(self._tasks[what], completed=done, total=total)


class _PlainPhases:
    """A line when a phase opens, every ten seconds, and when it is done, with the time left."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._what: str | None = None
        self._first_done = self._done = 0
        self._started = self._last = 0.0

    def __call__(self, done: int, total: int, what: str) -> None:
        now = time.monotonic()
        if what == self._what and done >= total and done == self._done:
            return  # said already
        if what != self._what:
            self._what, self._first_done, self._started, self._last = what, done, now, now
            self._done = done
            if done < total:
                write_line(self._stream, f"{what}: {done}/{total}")
                return
        elif done < total and now - self._last < _PLAIN_INTERVAL_S:
            return
        self._last, self._done = now, done
        elapsed = now - self._started
        text = f"{what}: {done}/{total}, {format_duration(elapsed)}"
        if self._first_done < done < total:
            text += f", {format_duration(elapsed / (done - self._first_done) * (total - done))} left"
        write_line(self._stream, text)


def write_line(stream: TextIO, text: str) -> None:
    """Write one line; a reader that has gone away (a closed pipe) is no error of ours."""
    try:
        stream.write(text + "\n")
        stream.flush()
    except BrokenPipeError:
        stream.close()
