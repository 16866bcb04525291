"""Official splits that come with a data set as text files: each line names an image, or a numbered chip of one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from ctrs.config import PrepareConfig, SplitName
from ctrs.errors import DataError, UsageError
from ctrs.raster.names import file_name, shown
from ctrs.raster.windows import PixelWindow
from ctrs.tiles.archives import read_text
from ctrs.tiles.findings import Findings
from ctrs.tiles.preset_file import Preset, plain_id

_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class ChipSplits:
    """Split of a scene by chips: squares side by side, numbered from 0 row by row, remainders at the right counted.

    Args:
        chip_px: Edge of a chip in pixels of the scene.
        splits: Split of each chip by its number; chips that no list names are in none.
    """

    chip_px: int
    splits: Mapping[int, SplitName] = field(hash=False)

    def split_of(self, window: PixelWindow, *, width: int) -> SplitName | None:
        """Return the split of a tile: that of all chips that it touches, None where these are not of one split.

        Args:
            window: Place of the tile in the scene.
            width: Columns of the scene.

        >>> chips = ChipSplits(chip_px=10, splits={0: "train", 1: "test", 3: "train"})
        >>> chips.split_of(PixelWindow(col_off=0, row_off=0, width=10, height=10), width=25)
        'train'
        >>> chips.split_of(PixelWindow(col_off=5, row_off=0, width=10, height=10), width=25) is None
        True
        >>> chips.split_of(PixelWindow(col_off=0, row_off=10, width=10, height=10), width=25)
        'train'
        """
        per_row = -(-width // self.chip_px)
        rows = range(window.row_off // self.chip_px, -(-(window.row_off + window.height) // self.chip_px))
        cols = range(window.col_off // self.chip_px, -(-(window.col_off + window.width) // self.chip_px))
        touched = {self.splits.get(row * per_row + col) for row in rows for col in cols}
        return touched.pop() if len(touched) == 1 else None


@dataclass(frozen=True, kw_only=True)
class ListedSplits:
    """What the lists say.

    Args:
        scenes: Split of each image that a list names, by id.
        chips: Split by chips of each image, by id.
        files: The lists.
    """

    scenes: Mapping[str, SplitName]
    chips: Mapping[str, ChipSplits]
    files: tuple[Path, ...] = ()


def read_listed_splits(
    preset: Preset,
    files: Mapping[str, Path],
    images: Mapping[str, Path],
    config: PrepareConfig,
    findings: Findings,
) -> ListedSplits:
    """Read the lists of a preset and find the images that they name.

    Args:
        preset: The preset.
        files: Files by their paths below the source.
        images: Images by id.
        config: Options.
        findings: Takes what is missing or strange.

    Raises:
        DataError: A line is in two lists, or names no chip where chips are expected.
        UsageError: The options change the pixels that chips are counted in.
    """
    nothing = ListedSplits(scenes={}, chips={})
    if not preset.split_lists or config.split == "place":
        return nothing
    if preset.chip_px is not None and (config.val or config.test):
        findings.note("splits", f"the official split of {preset.name} is left aside: --val or --test names the scenes")
        return nothing
    found: dict[SplitName, Path] = {}
    missing: list[str] = []
    for split, name in preset.split_lists.items():
        path = _find(name, files)
        if path is None:
            missing.append(name)
        else:
            found[split] = path
    if missing:
        findings.warn(
            "splits",
            f"{', '.join(missing)} of preset {preset.name} not found: "
            + ("there is no official split; all scenes are" if not found else "what it would list is")
            + (" left out" if found and preset.chip_px else " taken for training (choose with --val and --test)"),
        )
    if not found:
        return nothing
    if preset.chip_px is not None and (config.gsd_m is not None or config.crs is not None):
        option = "--gsd" if config.gsd_m is not None else "--crs"
        raise UsageError(
            f"{option} found, but the official split of {preset.name} counts chips of {preset.chip_px} px of the "
            f"images as they are; leave {option} out, or split by place with --split place"
        )
    entries = _read_entries(found)
    ids = {plain_id(key): identifier for identifier in images for key in _names(identifier, images[identifier])}
    if preset.chip_px is not None:
        return replace(_chips(entries, ids, preset.chip_px, preset, findings), files=tuple(found.values()))
    scenes = {ids[entry]: split for entry, (split, _) in entries.items() if entry in ids}
    _tell_unknown([entry for entry in entries if entry not in ids], len(entries), preset, findings)
    unlisted = sorted(set(images) - set(scenes))
    if unlisted:
        findings.warn(
            "splits",
            f"scenes {_named(unlisted)} are in no list of {preset.name}; they are taken for training "
            "(choose with --val and --test)",
        )
    return ListedSplits(scenes=scenes, chips={}, files=tuple(found.values()))


def _chips(
    entries: Mapping[str, tuple[SplitName, Path]],
    ids: Mapping[str, str],
    chip_px: int,
    preset: Preset,
    findings: Findings,
) -> ListedSplits:
    """Return the chips of each image; images without any have none that is in a split."""
    of_scene: dict[str, dict[int, SplitName]] = {identifier: {} for identifier in ids.values()}
    unknown: list[str] = []
    for entry, (split, path) in entries.items():
        match = re.fullmatch(r"(.+)_(\d+)", entry)
        if match is None:
            raise DataError(f"{shown(path)}: {entry!r} found, expected names of chips: the image, _ and a number")
        if match[1] in ids:
            of_scene[ids[match[1]]][int(match[2])] = split
        elif match[1] not in unknown:
            unknown.append(match[1])
    _tell_unknown(unknown, len(unknown) + len(of_scene), preset, findings)
    bare = sorted(identifier for identifier, splits in of_scene.items() if not splits)
    if bare:
        findings.warn("splits", f"scenes {_named(bare)}: in no list of {preset.name}; they are left out")
    return ListedSplits(
        scenes={},
        chips={identifier: ChipSplits(chip_px=chip_px, splits=splits) for identifier, splits in of_scene.items()},
    )


def _find(name: str, files: Mapping[str, Path]) -> Path | None:
    """Return the file of this name that lies nearest to the source."""
    places = [PurePosixPath(place) for place in files if place == name or place.endswith(f"/{name}")]
    if not places:
        return None
    return files[min(places, key=lambda place: (len(place.parts), place.as_posix())).as_posix()]


def _read_entries(lists: Mapping[SplitName, Path]) -> dict[str, tuple[SplitName, Path]]:
    """Return the split of each line without folder, ending and leading zeros, and the list it stands in."""
    entries: dict[str, tuple[SplitName, Path]] = {}
    for split, path in lists.items():
        for line in read_text(path).splitlines():
            name = PurePosixPath(line.strip().replace("\\", "/")).name
            if not name:
                continue
            entry = plain_id(re.sub(r"\.(?:tiff?|png|jpe?g)$", "", name, flags=re.IGNORECASE))
            other = entries.setdefault(entry, (split, path))
            if other[0] != split:
                raise DataError(
                    f"{shown(path)}: {name} is listed in {file_name(other[1]).name}, too; keep it in one of the two"
                )
    return entries


def _names(identifier: str, image: Path) -> tuple[str, str]:
    return identifier, file_name(image).stem


def _tell_unknown(unknown: list[str], total: int, preset: Preset, findings: Findings) -> None:
    if unknown:
        findings.note(
            "splits",
            f"{len(unknown)} of {total} images in the lists of {preset.name} are not there: {_named(unknown)}",
        )


def _named(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
