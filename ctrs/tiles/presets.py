"""Known layouts of public data sets: TOML files that say where images and labels lie, their classes and splits."""

from __future__ import annotations

import importlib.resources
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal, get_args

from ctrs.classes import ClassMap
from ctrs.config import LabelKind, SplitName
from ctrs.errors import ConfigError

GENERIC = "generic"
"""Name of the layout of any folder with images and labels."""


@dataclass(frozen=True, kw_only=True)
class ImagePattern:
    """Where images lie.

    Args:
        pattern: Regular expression over the path below the source; its groups make up the id.
        bands: Band names in file order, empty to take the file's own.
    """

    pattern: re.Pattern[str]
    bands: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A known layout.

    Args:
        name: Name of the preset.
        title: What it is, in a few words.
        url: Where the data come from.
        tile_px: Edge of a tile in pixels.
        crs: CRS of images that name none, None if unknown.
        labels: How its labels are read.
        color_tolerance: Largest difference in each channel at which a colour counts as its legend colour.
        images: Patterns of images in order of preference; the first that finds anything is taken.
        label_patterns: Patterns of labels in order of preference.
        eroded_patterns: Patterns of labels with eroded class borders.
        classes: Class table.
        split_ids: Official split of each id; ids that no list names are in ``train``.
        split_folders: Split of each text that the group ``split`` of the patterns can find.
        unlabelled: Splits whose labels are not published; such images are left out.
        known_bad: Ids whose labels are known to be wrong.
    """

    name: str
    title: str
    url: str
    tile_px: int
    crs: str | None
    labels: LabelKind
    color_tolerance: int
    images: tuple[ImagePattern, ...]
    label_patterns: tuple[re.Pattern[str], ...]
    eroded_patterns: tuple[re.Pattern[str], ...]
    classes: ClassMap
    split_ids: Mapping[str, SplitName]
    split_folders: Mapping[str, SplitName]
    unlabelled: frozenset[SplitName]
    known_bad: frozenset[str]

    def image_pattern(self, paths: Iterable[str]) -> ImagePattern | None:
        """Return the first image pattern that finds anything among paths below the source."""
        found = tuple(paths)
        for image in self.images:
            if any(image.pattern.fullmatch(path) for path in found):
                return image
        return None


def preset_names() -> tuple[str, ...]:
    """Return the names of the presets that come with ctrs, ``generic`` last.

    >>> "potsdam" in preset_names()
    True
    """
    names = sorted(entry.name.removesuffix(".toml") for entry in _folder().iterdir() if entry.name.endswith(".toml"))
    return (*names, GENERIC)


def preset_text(name: str) -> str:
    """Return the TOML text of a preset that comes with ctrs, to copy and edit.

    Raises:
        ConfigError: There is none of this name.
    """
    if name == GENERIC or name not in preset_names():
        known = ", ".join(preset_names())
        raise ConfigError(f"preset {name!r} is unknown; expected one of: {known}, or the path of a TOML file")
    return (_folder() / f"{name}.toml").read_text(encoding="utf-8")


def load_preset(name: str) -> Preset | None:
    """Return a preset by name or by path to a TOML file; None for ``generic``.

    Raises:
        ConfigError: There is none of this name, or the file is wrong.
    """
    if name == GENERIC:
        return None
    path = Path(name)
    if path.suffix == ".toml":
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"preset {path}: not readable ({error.strerror}); check the path") from error
        return parse_preset(text, name=path.stem, where=str(path))
    return parse_preset(preset_text(name), name=name, where=f"preset {name}")


def recognise(paths: Iterable[str]) -> Preset | None:
    """Return the preset whose images and labels both lie among paths below a source, None if none fits."""
    found = tuple(paths)
    for name in preset_names():
        preset = load_preset(name)
        if preset is None or preset.image_pattern(found) is None:
            continue
        if any(pattern.fullmatch(path) for pattern in preset.label_patterns for path in found):
            return preset
    return None


def path_id(match: re.Match[str]) -> str:
    """Return the id that a pattern found: its groups but ``split``, numbers without leading zeros.

    >>> path_id(re.fullmatch(r"top_(?P<id>[0-9_]+).tif", "top_06_07.tif"))
    '6_7'
    """
    parts = [text for group, text in match.groupdict().items() if group != "split" and text]
    return re.sub(r"(?<!\d)0+(?=\d)", "", "_".join(parts))


def parse_preset(text: str, *, name: str, where: str) -> Preset:
    """Read a preset from TOML text.

    Raises:
        ConfigError: A key is missing or wrong.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: not readable as TOML ({error}); mend the file") from error
    unknown = set(document) - {
        "title", "url", "tile_px", "crs", "labels", "color_tolerance", "image", "files", "split", "class",
    }  # fmt: skip
    if unknown:
        raise ConfigError(f"{where}: unknown key {min(unknown)!r}; `ctrs presets` files show what can stand there")
    files = document.get("files", {})
    split = document.get("split", {})
    images = tuple(
        ImagePattern(pattern=_pattern(row.get("pattern", ""), where), bands=tuple(row.get("bands", ())))
        for row in document.get("image", ())
    )
    labels = tuple(_pattern(pattern, where) for pattern in files.get("label", ()))
    if not images or not labels:
        raise ConfigError(f"{where}: no image or no label pattern found; add [[image]] pattern and [files] label")
    kind = document.get("labels", "auto")
    if kind not in get_args(LabelKind):
        raise ConfigError(f"{where}: labels = {kind!r} found, expected one of: {', '.join(get_args(LabelKind))}")
    return Preset(
        name=name,
        title=document.get("title", name),
        url=document.get("url", ""),
        tile_px=int(document.get("tile_px", 512)),
        crs=document.get("crs"),
        labels=kind,
        color_tolerance=int(document.get("color_tolerance", 0)),
        images=images,
        label_patterns=labels,
        eroded_patterns=tuple(_pattern(pattern, where) for pattern in files.get("eroded", ())),
        classes=ClassMap.from_json(document.get("class", ()), where=where),
        split_ids={
            str(identifier): _split(part, where)
            for part in ("train", "val", "test")
            for identifier in split.get(part, ())
        },
        split_folders={key: _split(value, where) for key, value in split.get("folders", {}).items()},
        unlabelled=frozenset(_split(part, where) for part in split.get("unlabelled", ())),
        known_bad=frozenset(split.get("known_bad", ())),
    )


def _folder() -> Traversable:
    return importlib.resources.files("ctrs.tiles") / "presets"


def _pattern(text: str, where: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise ConfigError(f"{where}: pattern {text!r} is no regular expression ({error}); mend it") from error
    if "id" not in pattern.groupindex:
        raise ConfigError(f"{where}: pattern {text!r} has no group (?P<id>...); add it around the part that differs")
    return pattern


def _split(text: str, where: str) -> SplitName:
    names: dict[str, Literal["train", "val", "test"]] = {"train": "train", "val": "val", "test": "test"}
    if text not in names:
        raise ConfigError(f"{where}: split {text!r} found, expected one of: {', '.join(names)}")
    return names[text]
