"""Which files make up each scene of a source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ctrs.config import SplitName
from ctrs.raster.names import absolute, shown
from ctrs.tiles.presets import Preset
from ctrs.tiles.split_lists import ChipSplits


@dataclass(frozen=True, kw_only=True)
class SceneSource:
    """A scene and its labels as found.

    Args:
        name: Unique name.
        split: Split by the benchmark, the folders or the options.
        image: The image.
        label: Raster or vector label.
        label_eroded: Raster label with eroded class borders.
        known_bad: Its labels are known to be wrong.
        aliases: Further names by which options may call it.
        extra: Further files of the scene that become bands, by name, in the order of the bands.
        image_parts: Files that ``image`` is a mosaic of; empty where it is a file itself.
        label_parts: Files that ``label`` is a mosaic of.
        chips: Its official split where that is by parts of it, not by scenes.
    """

    name: str
    split: SplitName
    image: Path
    label: Path
    label_eroded: Path | None = None
    known_bad: bool = False
    aliases: tuple[str, ...] = ()
    extra: Mapping[str, Path] = field(default_factory=dict, hash=False)
    image_parts: tuple[Path, ...] = ()
    label_parts: tuple[Path, ...] = ()
    chips: ChipSplits | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All rasters and vector files of the scene; the parts of a mosaic, not the mosaic."""
        images = self.image_parts or (self.image,)
        labels = self.label_parts or (self.label,)
        eroded = () if self.label_eroded is None else (self.label_eroded,)
        return (*images, *labels, *eroded, *self.extra.values())

    @property
    def image_name(self) -> str:
        """Name of the image for the record: its absolute path, or those of its parts."""
        return _record(self.image_parts or (self.image,))

    @property
    def label_name(self) -> str:
        """Name of the label for the record: its absolute path, or those of its parts."""
        return _record(self.label_parts or (self.label,))


def _record(paths: tuple[Path, ...]) -> str:
    return ", ".join(shown(absolute(path)) for path in paths)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A source with its scenes.

    Args:
        root: The source: a folder or a zip archive.
        scenes: In natural order of names.
        preset: The preset that it follows, None for other folders.
        band_names: Names of the bands by the preset, empty to take the files' own.
        class_file: TOML file with the class table, None for the preset's or none.
        list_files: Lists that put scenes into splits: the preset's, then those that the options name.
    """

    root: Path
    scenes: tuple[SceneSource, ...]
    preset: Preset | None
    band_names: tuple[str, ...] = ()
    class_file: Path | None = None
    list_files: tuple[Path, ...] = ()
