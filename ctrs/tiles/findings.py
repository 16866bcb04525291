"""What the check of a data set found: faults that stop it, warnings, notes. Gathered, so that all are told at once."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from ctrs.errors import (
    CtrsError,
    CtrsWarning,
    DataWarning,
    GridMismatchError,
    InputNotFoundError,
    LabelError,
    RasterError,
)
from ctrs.errors import DataError as _DataError

logger = logging.getLogger(__name__)

Level = Literal["fault", "warning", "note"]
Check = Literal[
    "files", "georeference", "bands", "colours", "classes", "alignment", "coverage", "leakage", "radiometry", "splits"
]

FAULTS = (RasterError, LabelError, _DataError, InputNotFoundError)
"""Errors of the data, not of the call or the machine."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was found.

    Args:
        level: A fault stops ``ctrs prepare``; a warning does not; a note is for the record.
        check: Which check found it.
        message: What, where, and what to do.
        scene: Name of the scene, None where it is about several.
        items: All files or scenes that it is about, where the message names only some.
    """

    level: Level
    check: Check
    message: str
    scene: str | None = None
    items: tuple[str, ...] = ()


@dataclass
class Findings:
    """Gathers findings; warnings are also issued as Python warnings at once.

    Args:
        entries: What was found so far.
        issues_warnings: False where the findings themselves are the result, and warnings would say all twice.
    """

    entries: list[Finding] = field(default_factory=list)
    issues_warnings: bool = True
    _errors: list[CtrsError] = field(default_factory=list)

    def note(self, check: Check, message: str, *, scene: str | None = None, items: Iterable[str] = ()) -> None:
        """Add a note."""
        self.entries.append(Finding(level="note", check=check, message=message, scene=scene, items=tuple(items)))

    def warn(
        self,
        check: Check,
        message: str,
        category: type[CtrsWarning] = DataWarning,
        *,
        scene: str | None = None,
        items: Iterable[str] = (),
    ) -> None:
        """Add a warning and issue it."""
        self.entries.append(Finding(level="warning", check=check, message=message, scene=scene, items=tuple(items)))
        if self.issues_warnings:
            warnings.warn(message, category, stacklevel=3)

    def fault(self, check: Check, error: CtrsError, *, scene: str | None = None, items: Iterable[str] = ()) -> None:
        """Add a fault; ``raise_faults`` raises it."""
        self.entries.append(Finding(level="fault", check=check, message=str(error), scene=scene, items=tuple(items)))
        self._errors.append(error)

    @contextmanager
    def gathering(self, check: Check, *, scene: str | None = None) -> Iterator[None]:
        """Take an error of the data that leaves the block as a fault; the code after the block goes on.

        Grids that differ are always a fault of alignment.
        """
        try:
            yield
        except FAULTS as error:
            self.fault("alignment" if isinstance(error, GridMismatchError) else check, error, scene=scene)

    @property
    def faults(self) -> tuple[CtrsError, ...]:
        """Faults found so far."""
        return tuple(self._errors)

    def raise_faults(self) -> None:
        """Raise what was found: the only fault as it is; of several the first, after the others have been logged.

        Raises:
            CtrsError: There are faults.
        """
        if not self._errors:
            return
        first = self._errors[0]
        if len(self._errors) == 1:
            raise first
        for error in self._errors[1:]:
            logger.error("%s", error)
        others = len(self._errors) - 1
        noun = "fault" if others == 1 else "faults"
        raise type(first)(f"{first}; and {others} more {noun}: `ctrs prepare --check` shows all in a report") from first
