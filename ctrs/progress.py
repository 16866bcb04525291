"""How long work tells its caller how far it is; the command line draws it, a library user may pass any callable."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called by long-running functions whenever a unit of work is finished."""

    def __call__(self, done: int, total: int, what: str) -> None:
        """Take note of progress.

        Args:
            done: Finished units, 0 to ``total``.
            total: Number of units in this phase.
            what: The phase in a few words, e.g. ``"tiling top_potsdam_2_10"``; a new text opens a new phase.
        """


def no_progress(done: int, total: int, what: str) -> None:
    """Ignore progress: the default of every library function."""
