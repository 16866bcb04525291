"""Which scenes the options put into validation and test: by pattern, by name, or by a list in a file."""

from __future__ import annotations

import fnmatch
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
    """A pattern and where it stands, for messages."""

    pattern: str
    where: str


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
    val, test = _entries("--val", config.val), _entries("--test", config.test)
    for entries in (val, test):
        _refuse_unknown(entries, scenes, source)
    chosen: list[SceneSource] = []
    for scene in scenes:
        in_val, in_test = _is_named(scene, val), _is_named(scene, test)
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
        entries += [_Entry(pattern=line, where=f"line {number} {line!r}") for number, line in kept]
    return entries


def _refuse_unknown(entries: Sequence[_Entry], scenes: Sequence[SceneSource], source: Path) -> None:
    """Refuse entries that match no scene, all at once."""
    unknown = [entry for entry in entries if not any(_is_named(scene, [entry]) for scene in scenes)]
    if unknown:
        known = named(scene.name for scene in scenes)
        verb = "matches" if len(unknown) == 1 else "match"
        raise UsageError(f"{named(entry.where for entry in unknown)} {verb} no scene of {source}; scenes: {known}")


def _is_named(scene: SceneSource, entries: Sequence[_Entry]) -> bool:
    image = file_name(scene.image)
    names = {scene.name, *scene.aliases, image.name, image.stem}
    return any(
        entry.pattern in names
        or any(fnmatch.fnmatchcase(name, entry.pattern) for name in names)
        or ("/" in entry.pattern and PurePosixPath(shown(scene.image)).match(entry.pattern))
        for entry in entries
    )
