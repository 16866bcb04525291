"""The TOML file of a preset: read, and refused with one line for each mistake."""

from __future__ import annotations

import json
import logging
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args

from ctrs.classes import ClassMap
from ctrs.config import LabelKind, SplitName
from ctrs.errors import ConfigError
from ctrs.tiles.preset_table import SPLIT_NAMES, PresetTable, shown

logger = logging.getLogger(__name__)

_KEYS = (
    "title", "url", "licence", "tile_px", "crs", "labels", "label_band", "class_field", "color_tolerance",
    "image", "files", "extra", "split", "class",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ImagePattern:
    """Where images lie.

    Args:
        pattern: Regular expression over the path below the source; its groups make up the id.
        bands: Band names in file order, empty to take the file's own.
        name: What kind of images it finds, where there are several to choose from; empty: it cannot be chosen.
    """

    pattern: re.Pattern[str]
    bands: tuple[str, ...] = ()
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A known layout.

    Args:
        name: Name of the preset.
        content: What its file says, without comments: tells presets apart in the same words in each process.
        title: What it is, in a few words.
        url: Where the data come from.
        licence: Licence or terms of use of the data, None where its file names none.
        tile_px: Edge of a tile in pixels.
        crs: CRS of images that name none, None if unknown.
        labels: How its labels are read.
        label_band: The band of label rasters that holds class values, None for the only one.
        class_field: Field of vector labels that holds the class, None: each polygon is ``building``.
        color_tolerance: Largest difference in each channel at which a colour counts as its legend colour.
        images: Patterns of images in order of preference; the first that finds anything is taken.
        label_patterns: Patterns of labels in order of preference.
        eroded_patterns: Patterns of labels with eroded class borders.
        signs: Names of files one of which must be there for the layout to be recognised; empty: none need be.
        extras: Patterns of further files that can become bands, by name of the band.
        classes: Class table.
        split_ids: Official split of each id; ids that no list names are in ``train``.
        split_folders: Split of each text that the group ``split`` of the patterns can find.
        split_lists: Text file of each split that names its images, or the chips of its images, a line each.
        chip_px: Edge of the numbered chips that the lists name, None if they name images.
        unlabelled: Splits whose labels are not published; such images are left out.
        known_bad: Ids whose labels are known to be wrong.
    """

    name: str
    content: str
    title: str
    url: str
    tile_px: int
    crs: str | None
    labels: LabelKind
    label_band: int | None
    class_field: str | None
    color_tolerance: int
    images: tuple[ImagePattern, ...]
    label_patterns: tuple[re.Pattern[str], ...]
    eroded_patterns: tuple[re.Pattern[str], ...]
    signs: tuple[str, ...]
    extras: Mapping[str, tuple[re.Pattern[str], ...]]
    classes: ClassMap
    split_ids: Mapping[str, SplitName]
    split_folders: Mapping[str, SplitName]
    split_lists: Mapping[SplitName, str]
    chip_px: int | None
    # Sets of texts are written in another order by each process; ``content`` says what they hold.
    unlabelled: frozenset[SplitName] = field(repr=False)
    known_bad: frozenset[str] = field(repr=False)
    licence: str | None = field(default=None, repr=False)  # changes nothing that is prepared

    @property
    def split_summary(self) -> str:
        """The official splits in a few words: how many scenes, or where it is read from.

        >>> from ctrs.tiles.presets import load_preset
        >>> load_preset("potsdam").split_summary, load_preset("loveda").split_summary
        ('train 24, test 14', 'train, val by folder; test unlabelled')
        """
        ids = list(self.split_ids.values())
        counted = [f"{split} {ids.count(split)}" for split in SPLIT_NAMES if split in ids]
        folders = {split for split in self.split_folders.values() if split not in self.unlabelled}
        parts = [", ".join(counted)] if counted else []
        if folders:
            parts.append(f"{', '.join(split for split in SPLIT_NAMES if split in folders)} by folder")
        listed = [split for split in SPLIT_NAMES if split in self.split_lists and split not in self.unlabelled]
        if listed:
            parts.append(f"{', '.join(listed)} by list{'' if self.chip_px is None else ' of chips'}")
        if not parts:
            parts.append("train")
        if self.unlabelled:
            hidden = [split for split in SPLIT_NAMES if split in self.unlabelled]
            parts.append(f"{', '.join(hidden)} unlabelled")
        return "; ".join(parts)

    @property
    def variants(self) -> tuple[str, ...]:
        """The kinds of images that can be chosen.

        >>> from ctrs.tiles.presets import load_preset
        >>> load_preset("potsdam").variants
        ('RGB', 'IRRG', 'RGBIR')
        """
        return tuple(image.name for image in self.images if image.name)

    def of_variant(self, name: str) -> Preset | None:
        """Return the preset with one kind of images alone, None if it has none of this name in upper or lower case."""
        chosen = tuple(image for image in self.images if image.name and image.name.casefold() == name.casefold())
        return replace(self, images=chosen) if chosen else None

    def image_pattern(self, paths: Iterable[str]) -> ImagePattern | None:
        """Return the first image pattern that finds anything among paths below the source."""
        found = tuple(paths)
        for image in self.images:
            if any(image.pattern.fullmatch(path) for path in found):
                return image
        return None

    def fits(self, paths: Iterable[str]) -> bool:
        """Tell whether images, labels and one of the signs, where there are any, lie among paths below a source."""
        found = tuple(paths)
        if self.signs and not any(path.rsplit("/", 1)[-1] in self.signs for path in found):
            return False
        if self.image_pattern(found) is None:
            return False
        return any(pattern.fullmatch(path) for pattern in self.label_patterns for path in found)


def path_id(match: re.Match[str]) -> str:
    """Return the id that a pattern found: its groups but ``split``, numbers without leading zeros.

    >>> path_id(re.fullmatch(r"top_(?P<id>[0-9_]+).tif", "top_06_07.tif"))
    '6_7'
    """
    return plain_id("_".join(text for group, text in match.groupdict().items() if group != "split" and text))


def plain_id(text: str) -> str:
    """Return an id with numbers that have no leading zeros.

    >>> plain_id("area_007"), plain_id("0"), plain_id("1010")
    ('area_7', '0', '1010')
    """
    return re.sub(r"(?<!\d)0+(?=\d)", "", text)


def parse_preset(text: str, *, name: str, where: str) -> Preset:
    """Read a preset from TOML text.

    Args:
        text: The file.
        name: Name of the preset.
        where: Name of the file for messages.

    Raises:
        ConfigError: A key is missing or wrong; where there are several mistakes, all have been logged.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: not readable as TOML ({error}); mend the file") from error
    mistakes: list[str] = []
    preset = _read(document, name, mistakes)
    mistakes = list(dict.fromkeys(mistakes))
    if len(mistakes) > 1:
        for mistake in mistakes:
            logger.error("%s: %s", where, mistake)
        others = len(mistakes) - 1
        raise ConfigError(f"{where}: {mistakes[0]}; and {others} more mistake{'s' if others > 1 else ''} in the file")
    if mistakes or preset is None:
        raise ConfigError(f"{where}: {mistakes[0]}")
    return preset


def _read(document: dict[str, Any], name: str, mistakes: list[str]) -> Preset | None:
    """Read the whole document and note every mistake; None where there is one that leaves nothing to return."""
    top = PresetTable(document, "", _KEYS, mistakes)
    files = PresetTable(document.get("files", {}), "files", ("label", "eroded", "signs"), mistakes)
    split = PresetTable(
        document.get("split", {}),
        "split",
        ("train", "val", "test", "folders", "lists", "chip_px", "unlabelled", "known_bad"),
        mistakes,
    )
    images = tuple(
        ImagePattern(pattern=pattern, bands=row.unique("bands"), name=next(iter(row.one("name", required=False)), ""))
        for row in top.rows("image", ("name", "pattern", "bands"))
        for pattern in row.patterns(row.one("pattern"), "pattern")
    )
    kinds = [image.name.casefold() for image in images if image.name]
    for twice in dict.fromkeys(kind for kind in kinds if kinds.count(kind) > 1):
        mistakes.append(f"image.name {twice!r} found twice (upper and lower case are the same); give each another name")
    labels = files.patterns(files.texts("label"), "label")
    eroded = files.patterns(files.texts("eroded"), "eroded")
    extras: dict[str, tuple[re.Pattern[str], ...]] = {}
    for row in top.rows("extra", ("name", "pattern")):
        found = row.patterns(row.one("pattern"), "pattern")
        for band in row.one("name"):
            extras[band] = (*extras.get(band, ()), *found)
    if not document.get("image") or (isinstance(document.get("files", {}), dict) and not files.table.get("label")):
        mistakes.append("no image or no label pattern found; add [[image]] with a pattern and [files] with label")
    split_ids = _split_ids(split, mistakes)
    folders = split.table_of_splits("folders")
    lists = split.lists()
    chip_px = split.number("chip_px", None, 16, 65536)
    if chip_px is not None and not lists:
        mistakes.append('split.chip_px found without split.lists; add lists = { train = "train.txt" }')
    _check_groups(images, labels, (*eroded, *(p for found in extras.values() for p in found)), folders, mistakes)
    kind: LabelKind = "auto"
    for choice in top.one("labels", required=False):
        if choice in get_args(LabelKind):
            kind = choice  # type: ignore[assignment]  # it is one of them
        else:
            mistakes.append(f"labels = {choice!r} found, expected one of: {', '.join(get_args(LabelKind))}")
    label_band = top.number("label_band", None, 1, 255)
    if label_band is not None and kind != "values":
        mistakes.append(f'label_band = {label_band} found with labels = "{kind}"; it needs labels = "values"')
    classes = _classes(document.get("class"), mistakes)
    tile_px = top.number("tile_px", 512, 32, 8192)
    tolerance = top.number("color_tolerance", 0, 0, 127)
    title, url = (next(iter(top.one(key, required=False)), "") for key in ("title", "url"))
    crs, class_field, licence = (
        next(iter(top.one(key, required=False)), None) for key in ("crs", "class_field", "licence")
    )
    unlabelled = frozenset(part for text in split.texts("unlabelled") for part in split.split_name(text))
    known_bad = frozenset(plain_id(text) for text in split.texts("known_bad"))
    signs = files.texts("signs")
    if mistakes or classes is None or tile_px is None or tolerance is None:
        return None
    return Preset(
        name=name,
        content=json.dumps(
            {key: value for key, value in document.items() if key != "licence"}, sort_keys=True, default=str
        ),
        title=title or name,
        url=url,
        tile_px=tile_px,
        crs=crs,
        labels=kind,
        label_band=label_band,
        class_field=class_field,
        color_tolerance=tolerance,
        images=images,
        label_patterns=labels,
        eroded_patterns=eroded,
        signs=signs,
        extras=extras,
        classes=classes,
        split_ids=split_ids,
        split_folders=folders,
        split_lists=lists,
        chip_px=chip_px,
        unlabelled=unlabelled,
        known_bad=known_bad,
        licence=licence,
    )


def _split_ids(split: PresetTable, mistakes: list[str]) -> dict[str, SplitName]:
    """Return the split of each id that the file lists; an id in two lists is a mistake."""
    found: dict[str, SplitName] = {}
    for part in SPLIT_NAMES:
        for text in split.texts(part):
            identifier = plain_id(text)
            if identifier in found:
                where = f"split.{found[identifier]} and split.{part}" if found[identifier] != part else f"split.{part}"
                twice = "" if found[identifier] != part else " twice"
                mistakes.append(f"id {text!r} stands in {where}{twice}; keep it once")
            found.setdefault(identifier, part)
    return found


def _check_groups(
    images: Sequence[ImagePattern],
    labels: Sequence[re.Pattern[str]],
    others: Sequence[re.Pattern[str]],
    folders: Mapping[str, SplitName],
    mistakes: list[str],
) -> None:
    """Note patterns whose ids could never be equal, and splits by folder that no pattern finds."""
    of_images = [_id_groups(image.pattern) for image in images]
    of_labels = [_id_groups(pattern) for pattern in labels]
    for groups, pattern in [*zip(of_labels, labels, strict=True), *((_id_groups(p), p) for p in others)]:
        if of_images and groups not in of_images:
            mistakes.append(
                f"pattern {pattern.pattern!r} makes ids of the groups {' and '.join(groups)}, the images' of "
                f"{' and '.join(of_images[0])}; give both the same groups in the same order"
            )
    has_split = any("split" in image.pattern.groupindex for image in images)
    if images and folders and not has_split:
        mistakes.append(
            "split.folders found, but no image pattern has a group (?P<split>...); add it around the folder"
        )
    if has_split and not folders:
        mistakes.append(
            "an image pattern has a group split, but split.folders is missing; say which text is which split"
        )


def _id_groups(pattern: re.Pattern[str]) -> tuple[str, ...]:
    return tuple(group for group in pattern.groupindex if group != "split")


def _classes(rows: Any, mistakes: list[str]) -> ClassMap | None:
    if rows is None or rows == []:
        mistakes.append("no classes found; add [[class]] with value, name and color for each")
        return None
    if not isinstance(rows, list):
        mistakes.append(f"class = {shown(rows)} found, expected [[class]] with double brackets, once for each")
        return None
    try:
        return ClassMap.from_json(rows, where="class table")
    except ConfigError as error:
        mistakes.append(str(error))
        return None
