"""Which scenes the options put into validation and test: by pattern, by name, or by a list in a file."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from ctrs.config import PrepareConfig
from ctrs.errors import InputNotFoundError, UsageError
from ctrs.raster.names import file_name, shown
from ctrs.tiles.listing import named
from ctrs.tiles.scene_source import SceneSource

LIST_MARK = "@"
"""Begins the name of a file that lists scenes."""


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """A pattern and where it stands, for messages: the place, and the option where the place does not name it."""

    pattern: str
    where: str
    option: str = ""


def choose_splits(scenes: Sequence[SceneSource], config: PrepareConfig, source: Path) -> tuple[SceneSource, ...]:
    """Put scenes into the splits that the options name; a split that is named holds these scenes and nothing else.

    Args:
        scenes: With the splits of the benchmark or of the folders.
        config: Options.
        source: The source, for messages.

    Raises:
        InputNotFoundError: A list file is not there.
        UsageError: An entry matches no scene, or a scene is in both.
    """
    if not (config.val or config.test):
        return tuple(scenes)
    names = _Names(scenes)
    val, test = (
        _named_scenes(_entries(option, texts), names, source)
        for option, texts in (("--val", config.val), ("--test", config.test))
    )
    chosen: list[SceneSource] = []
    for number, scene in enumerate(scenes):
        in_val, in_test = number in val, number in test
        if in_val and in_test:
            raise UsageError(f"scene {scene.name} matches both --val and --test; make the patterns exclude each other")
        split = scene.split
        if (config.val and split == "val") or (config.test and split == "test"):
            split = "train"
        chosen.append(replace(scene, split="val" if in_val else "test" if in_test else split))
    return tuple(chosen)


def list_files_of(config: PrepareConfig) -> tuple[Path, ...]:
    """Return the files with lists of scenes that the options name."""
    return tuple(Path(text[1:]) for text in (*config.val, *config.test) if text.startswith(LIST_MARK))


def _entries(option: str, texts: Sequence[str]) -> list[_Entry]:
    """Return the patterns of an option, those of list files included."""
    entries: list[_Entry] = []
    for text in texts:
        if not text.startswith(LIST_MARK):
            entries.append(_Entry(pattern=text, where=f"{option} {text!r}"))
            continue
        path = Path(text[1:])
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise UsageError(f"{option} {text}: is no text in UTF-8, expected a scene name on each line") from error
        except OSError as error:
            raise InputNotFoundError(
                f"{option} {text}: not readable ({error.strerror}); name a text file with a scene name on each line"
            ) from error
        kept = [(number, line.partition(" #")[0].strip()) for number, line in enumerate(lines, 1)]
        kept = [(number, line) for number, line in kept if line and not line.startswith("#")]
        if not kept:
            raise UsageError(f"{option} {text}: names no scene; write a scene name or pattern on each line")
        entries += [
            _Entry(pattern=line, where=f"{path}, line {number}: {line!r}", option=option) for number, line in kept
        ]
    return entries


class _Names:
    """All names by which options may call scenes."""

    def __init__(self, scenes: Sequence[SceneSource]) -> None:
        self.scenes = scenes
        self._numbers: dict[str, set[int]] = {}
        self._paths = [PurePosixPath(shown(scene.image)) for scene in scenes]
        for number, scene in enumerate(scenes):
            image = file_name(scene.image)
            for name in (scene.name, *scene.aliases, image.name, image.stem):
                self._numbers.setdefault(name, set()).add(number)

    def matches(self, pattern: str) -> set[int]:
        """Return the numbers of the scenes that a name or pattern matches."""
        found = set(self._numbers.get(pattern, ()))
        if any(sign in pattern for sign in "*?["):
            fits = re.compile(fnmatch.translate(pattern)).match
            found.update(number for name, numbers in self._numbers.items() if fits(name) for number in numbers)
        if "/" in pattern:
            found.update(number for number, path in enumerate(self._paths) if path.match(pattern))
        return found


def _named_scenes(entries: Sequence[_Entry], names: _Names, source: Path) -> set[int]:
    """Return the numbers of the scenes that entries match; entries that match none are refused, all at once."""
    found = [names.matches(entry.pattern) for entry in entries]
    missing = [entry for entry, numbers in zip(entries, found, strict=True) if not numbers]
    unknown = [entry.where for entry in missing]
    if unknown:
        known = named(scene.name for scene in names.scenes)
        verb = "matches" if len(unknown) == 1 else "match"
        option = "".join(sorted({f" ({entry.option})" for entry in missing if entry.option}))
        raise UsageError(f"{named(unknown)} {verb} no scene of {source}{option}; scenes: {known}")
    return set().union(*found)
