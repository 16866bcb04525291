"""Tables of a preset's TOML file: each key is read as its type, and what is wrong is noted in a line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any

from ctrs.config import SplitName

SPLIT_NAMES: tuple[SplitName, ...] = ("train", "val", "test")

_SHOWN_CHARACTERS = 60


class PresetTable:
    """A table of the file; what is wrong with a key is noted, and a harmless value is returned."""

    def __init__(self, table: Any, place: str, known: Sequence[str], mistakes: list[str]) -> None:
        self._place = place
        self._mistakes = mistakes
        if not isinstance(table, dict):
            mistakes.append(f"{place} = {shown(table)} found, expected a table: [{place}] and its keys below")
            table = {}
        self.table: dict[str, Any] = table
        for key in table:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                advice = f"did you mean {near[0]!r}?" if near else f"expected one of: {', '.join(known)}"
                mistakes.append(f"unknown key {self._name(key)!r}; {advice}")

    def _name(self, key: str) -> str:
        return f"{self._place}.{key}" if self._place else key

    def _wrong(self, key: str, expected: str) -> None:
        self._mistakes.append(f"{self._name(key)} = {shown(self.table[key])} found, expected {expected}")

    def one(self, key: str, *, required: bool = True) -> tuple[str, ...]:
        """Return the text of a key, as a tuple that is empty where there is none."""
        if key not in self.table:
            if required:
                self._mistakes.append(f"{self._name(key)} is missing; add {key} = '...'")
            return ()
        value = self.table[key]
        if not isinstance(value, str) or not value.strip():
            self._wrong(key, "text in quotes")
            return ()
        return (value,)

    def texts(self, key: str) -> tuple[str, ...]:
        """Return the texts of a list."""
        if key not in self.table:
            return ()
        value = self.table[key]
        if not isinstance(value, list):
            self._wrong(key, "a list of texts: ['...', '...']")
            return ()
        wrong = [entry for entry in value if not isinstance(entry, str) or not entry.strip()]
        if wrong:
            self._mistakes.append(
                f"{self._name(key)} holds {shown(wrong[0])}, expected texts in quotes: ['...', '...']"
            )
        return tuple(entry for entry in value if entry not in wrong)

    def unique(self, key: str) -> tuple[str, ...]:
        """Return the texts of a list that may hold none twice."""
        found = self.texts(key)
        twice = next((text for text in found if found.count(text) > 1), None)
        if twice is not None:
            self._mistakes.append(f"{self._name(key)} holds {twice!r} twice; give each another name")
        return found

    def number(self, key: str, default: int | None, low: int, high: int) -> int | None:
        """Return an integer."""
        value = self.table.get(key, default)
        if value is default or (isinstance(value, int) and not isinstance(value, bool) and low <= value <= high):
            return value
        self._wrong(key, f"an integer from {low} to {high}")
        return default

    def rows(self, key: str, known: Sequence[str]) -> tuple[PresetTable, ...]:
        """Return the tables of an array of tables."""
        value = self.table.get(key, [])
        if not isinstance(value, list):
            self._wrong(key, f"[[{key}]] with double brackets, once for each")
            return ()
        return tuple(PresetTable(row, f"{key}[{number}]", known, self._mistakes) for number, row in enumerate(value))

    def patterns(self, texts: Sequence[str], key: str) -> tuple[re.Pattern[str], ...]:
        """Return the texts as regular expressions with a group ``id``."""
        found: list[re.Pattern[str]] = []
        for text in texts:
            try:
                pattern = re.compile(text)
            except (re.error, OverflowError, RecursionError) as error:
                self._mistakes.append(f"{self._name(key)}: {text!r} is no regular expression ({error}); mend it")
                continue
            if "id" not in pattern.groupindex:
                self._mistakes.append(
                    f"{self._name(key)}: {text!r} has no group (?P<id>...); add it around the part that differs"
                )
                continue
            found.append(pattern)
        return tuple(found)

    def split_name(self, text: str) -> tuple[SplitName, ...]:
        """Return the text as the name of a split."""
        for part in SPLIT_NAMES:
            if part == text:
                return (part,)
        self._mistakes.append(f"{self._place}: split {text!r} found, expected one of: {', '.join(SPLIT_NAMES)}")
        return ()

    def table_of_splits(self, key: str) -> dict[str, SplitName]:
        """Return a table whose values are names of splits."""
        if key not in self.table:
            return {}
        table = self.table[key]
        if not isinstance(table, dict):
            self._wrong(key, '{ FOLDER = "train", OTHER = "test" }')
            return {}
        found: dict[str, SplitName] = {}
        for name, value in table.items():
            if not isinstance(value, str):
                self._mistakes.append(
                    f"{self._name(key)}.{name} = {shown(value)} found, expected one of: {', '.join(SPLIT_NAMES)}"
                )
                continue
            for part in self.split_name(value):
                found[name] = part
        return found

    def lists(self) -> dict[SplitName, str]:
        """Return the file that lists each split."""
        table = self.table.get("lists", {})
        if not isinstance(table, dict):
            self._wrong("lists", '{ train = "train.txt", test = "test.txt" }')
            return {}
        found: dict[SplitName, str] = {}
        for name, value in table.items():
            if not isinstance(value, str) or not value.strip():
                self._mistakes.append(f"split.lists.{name} = {shown(value)} found, expected the name of a text file")
                continue
            for part in self.split_name(name):
                found[part] = value
        return found


def shown(value: Any) -> str:
    """Return a value as it stands in Python, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
