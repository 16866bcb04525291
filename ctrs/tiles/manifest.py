"""What was prepared: tiles with their footprints, scenes, classes, bands. Written and read as GeoParquet and JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from affine import Affine
from rasterio.crs import CRS

from ctrs import __version__
from ctrs.classes import ClassMap
from ctrs.config import PrepareConfig, SplitName, from_mapping, to_plain
from ctrs.errors import ConfigError, DataError, InputNotFoundError
from ctrs.jobs import recover, write_text
from ctrs.raster.bands import Bands
from ctrs.raster.geotiff import Grid
from ctrs.raster.imagery_profile import ImageryProfile
from ctrs.raster.mosaic import mosaic_vrt
from ctrs.raster.windows import PixelWindow
from ctrs.tiles.documents import read_document
from ctrs.tiles.facts import SceneFacts
from ctrs.tiles.findings import Finding
from ctrs.tiles.tile_table import Tile as Tile
from ctrs.tiles.tile_table import read_tile_table, write_tile_table
from ctrs.tiles.training_ground import training_ground

FORMAT_VERSION = 2
MANIFEST_FILE = "manifest.parquet"
PREPARED_FILE = "prepared.json"
SPLITS: tuple[SplitName, ...] = get_args(SplitName)

SceneSplit = Literal["train", "val", "test", "train+val", "train+test", "val+test", "train+val+test"]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """An input raster and its label.

    Args:
        name: Unique name, part of the tiles' file names.
        split: Its split; several joined by ``+`` where its tiles were dealt out by place.
        width: Columns.
        height: Rows.
        crs_wkt: Coordinate reference system, None for pixel coordinates.
        transform: First six numbers of the affine transform.
        source_image: Path of the image it was made from.
        source_label: Path of the label it was made from.
        known_bad: The benchmark's users know that its labels are wrong (Potsdam 7_10).
    """

    name: str
    split: SceneSplit
    width: int
    height: int
    crs_wkt: str | None
    transform: tuple[float, float, float, float, float, float]
    source_image: str
    source_label: str
    known_bad: bool = False

    @property
    def grid(self) -> Grid:
        """Grid of the scene."""
        crs = None if self.crs_wkt is None else CRS.from_wkt(self.crs_wkt)
        return Grid(crs=crs, transform=Affine(*self.transform), width=self.width, height=self.height)


@dataclass(frozen=True, kw_only=True)
class SceneMosaic:
    """The tiles of one scene and split laid together again, as virtual rasters on the scene's full grid."""

    scene: Scene
    image: Path
    mask: Path
    mask_eroded: Path | None


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A prepared data set.

    Args:
        root: Folder that holds it.
        name: Name of the data set.
        tiles: Tiles in the order of scene, row, column.
        scenes: Scenes by name.
        classes: Class table; masks hold its indices.
        bands: Bands of the image tiles and their statistics over the valid pixels of the training tiles.
        tile_px: Edge of a tile; scenes that are smaller give smaller tiles.
        pixel_size_m: Ground pixel, median over the scenes; None without CRS.
        preset: Name of the layout preset, None for other sources.
        licence: Licence or terms of use of the data, None where nobody told.
        fingerprint: Of the job that made it.
        config: Options of the job.
        notes: What was changed or looked odd while it was made, in words with counts.
        findings: The same, with level, check and scene.
        facts: What was counted over each scene: ``SceneFacts`` as plain values, without the preview.
        source_hashes: SHA-256 of each local source file.
        remote_sources: Size, entity tag and time of change of each file on another machine, as far as its server tells.
        imagery: What values the training tiles hold; None where an older ctrs, which did not measure it, prepared them.
    """

    root: Path
    name: str
    tiles: tuple[Tile, ...]
    scenes: tuple[Scene, ...]
    classes: ClassMap
    bands: Bands
    tile_px: int
    pixel_size_m: float | None
    preset: str | None
    fingerprint: str
    config: PrepareConfig = field(default_factory=PrepareConfig)
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    source_hashes: Mapping[str, str] = field(default_factory=dict)
    remote_sources: Mapping[str, Mapping[str, str | int]] = field(default_factory=dict)
    licence: str | None = None
    imagery: ImageryProfile | None = None

    @property
    def splits(self) -> tuple[SplitName, ...]:
        """Splits that have tiles, in the order train, val, test."""
        present = {tile.split for tile in self.tiles}
        return tuple(split for split in SPLITS if split in present)

    @property
    def has_eroded(self) -> bool:
        """Whether each tile has a mask with eroded class borders."""
        return bool(self.tiles) and all(tile.mask_eroded is not None for tile in self.tiles)

    @property
    def split_hash(self) -> str:
        """Hash of which tile windows of which scenes are in which split."""
        rows = sorted(
            [tile.split, tile.scene, *(int(number) for number in asdict(tile.window).values())] for tile in self.tiles
        )
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]

    @cached_property
    def training_ground(self) -> dict[str, Any] | None:
        """Where the training tiles lie, as a GeoJSON geometry in longitude and latitude; None without CRS."""
        return training_ground(self.tiles, {scene.name: scene.grid for scene in self.scenes})

    @property
    def num_folds(self) -> int:
        """Number of folds; 0 where none were made."""
        return 1 + max((tile.fold for tile in self.tiles if tile.fold is not None), default=-1)

    def for_fold(self, number: int) -> Manifest:
        """Return the data as a fold divides them: it validates, the others train, the test stays.

        Tiles too near to the fold's ground are left out. Band statistics stay those of all folds.

        Args:
            number: The fold, from 0.

        Raises:
            DataError: There is no such fold.
        """
        if not self.num_folds:
            raise DataError(
                f"{self.root}: fold {number} asked for, but these data have no folds; leave out --fold, or make them "
                "with `ctrs prepare --folds 5`"
            )
        if not 0 <= number < self.num_folds:
            raise DataError(f"{self.root}: no fold {number}; expected 0 to {self.num_folds - 1}")
        tiles: list[Tile] = []
        for tile in self.tiles:
            if tile.fold == number:
                tiles.append(replace(tile, split="val"))
            elif number not in tile.near_folds:
                tiles.append(tile)
        return replace(self, tiles=tuple(tiles))

    def split(self, name: SplitName) -> tuple[Tile, ...]:
        """Return the tiles of a split, empty if it has none."""
        return tuple(tile for tile in self.tiles if tile.split == name)

    def scene(self, name: str) -> Scene:
        """Return a scene by name.

        Raises:
            DataError: There is no such scene.
        """
        for scene in self.scenes:
            if scene.name == name:
                return scene
        known = ", ".join(scene.name for scene in self.scenes)
        raise DataError(f"{self.root}: no scene {name!r}; expected one of: {known}")

    def scene_tiles(self, scene: str, split: SplitName) -> tuple[Tile, ...]:
        """Return the tiles that a scene has in a split."""
        return tuple(tile for tile in self.tiles if tile.scene == scene and tile.split == split)

    def class_counts(self, split: SplitName) -> tuple[int, ...]:
        """Return the pixels of each class over the tiles of a split; ground in two tiles counts twice."""
        counts = np.zeros(self.classes.num_classes, np.int64)
        for tile in self.split(split):
            counts += tile.class_counts
        return tuple(counts.tolist())

    def save(self, folder: Path) -> None:
        """Write ``manifest.parquet`` and ``prepared.json`` into a folder that holds the tiles."""
        grids = {scene.name: scene.grid for scene in self.scenes}
        write_tile_table(folder / MANIFEST_FILE, self.tiles, grids, self.classes, root=self.root)
        self.save_description(folder)

    def save_description(self, folder: Path) -> None:
        """Write ``prepared.json`` alone: the tiles stay as they are."""
        document = {
            "format_version": FORMAT_VERSION,
            "ctrs_version": __version__,
            "name": self.name,
            "fingerprint": self.fingerprint,
            "preset": self.preset,
            "licence": self.licence,
            "tile_px": self.tile_px,
            "pixel_size_m": self.pixel_size_m,
            "num_tiles": {split: len(self.split(split)) for split in self.splits},
            "classes": self.classes.to_json(),
            "class_counts": {
                split: dict(zip(self.classes.names, self.class_counts(split), strict=True)) for split in self.splits
            },
            "bands": self.bands.to_json(),
            "imagery": None if self.imagery is None else self.imagery.to_json(),
            "config": to_plain(self.config),
            "notes": list(self.notes),
            "findings": [asdict(finding) for finding in self.findings],
            "num_folds": self.num_folds,
            "source_hashes": dict(self.source_hashes),
            "remote_sources": {url: dict(facts) for url, facts in self.remote_sources.items()},
            "facts": {name: dict(facts) for name, facts in self.facts.items()},
            "scenes": [asdict(scene) for scene in self.scenes],
        }
        write_text(folder / PREPARED_FILE, json.dumps(document, indent=1) + "\n")

    @classmethod
    def open(cls, folder: Path) -> Manifest:
        """Read a prepared data set.

        Raises:
            InputNotFoundError: The folder or one of its two files is not there.
            DataError: A file is not what this version writes.
            OutputError: A killed process left the folder aside, and it cannot be put back.
        """
        recover(folder)
        for path, advice in (
            (folder, "run `ctrs prepare SOURCE` first, or name a folder that it wrote"),
            (folder / PREPARED_FILE, "it is no prepared data set; run `ctrs prepare SOURCE` and name what it wrote"),
            (folder / MANIFEST_FILE, "the prepared data set is incomplete; run `ctrs prepare` with --overwrite"),
        ):
            if not path.exists():
                raise InputNotFoundError(f"{path}: not found; {advice}")
        document = read_prepared(folder)
        try:
            classes = ClassMap.from_json(document["classes"], where=str(folder / PREPARED_FILE))
            return cls(
                root=folder.absolute(),
                name=document["name"],
                tiles=read_tile_table(folder / MANIFEST_FILE, classes),
                scenes=tuple(_scene_from_json(row) for row in document["scenes"]),
                classes=classes,
                bands=Bands.from_json(document["bands"]),
                tile_px=document["tile_px"],
                pixel_size_m=document["pixel_size_m"],
                preset=document["preset"],
                licence=document.get("licence"),
                fingerprint=document["fingerprint"],
                config=from_mapping(PrepareConfig, document["config"], where=str(folder / PREPARED_FILE)),
                notes=tuple(document["notes"]),
                findings=tuple(Finding(**{**row, "items": tuple(row["items"])}) for row in document["findings"]),
                facts=document["facts"],
                source_hashes=document["source_hashes"],
                remote_sources=document.get("remote_sources", {}),
                imagery=_imagery_from_json(document.get("imagery"), where=str(folder / PREPARED_FILE)),
            )
        except (KeyError, TypeError, ConfigError) as error:
            raise DataError(
                f"{folder / PREPARED_FILE}: {error!s} is missing or wrong; run `ctrs prepare` again with --overwrite"
            ) from error


def read_prepared(folder: Path) -> dict[str, Any]:
    """Return the contents of ``prepared.json``.

    Raises:
        DataError: It is not readable or of another format version.
    """
    return read_document(folder / PREPARED_FILE, FORMAT_VERSION)


def _scene_from_json(row: Mapping[str, Any]) -> Scene:
    return Scene(**{**row, "transform": tuple(row["transform"])})


def _imagery_from_json(row: Any, *, where: str) -> ImageryProfile | None:
    return None if row is None else ImageryProfile.from_json(row, where=where)


def plain_facts(facts: SceneFacts) -> dict[str, Any]:
    """Return what was counted over a scene as plain values, without the preview."""
    values = {entry.name: getattr(facts, entry.name) for entry in fields(facts) if entry.name != "preview"}
    return {
        key: dict(value) if isinstance(value, Mapping) else list(value) if isinstance(value, tuple) else value
        for key, value in values.items()
    }


def scene_mosaics(manifest: Manifest, split: SplitName, folder: Path) -> list[SceneMosaic]:
    """Lay the tiles of each scene together again as virtual rasters (VRT) on the scene's full grid.

    Ground that belongs to another split, or holds no imagery, is nodata.

    Args:
        manifest: The prepared data set.
        split: Split whose tiles are taken.
        folder: Folder for the VRT files; created if needed.

    Returns:
        One mosaic for each scene that has tiles in the split.

    Raises:
        DataError: The split has no tiles.
    """
    if not manifest.split(split):
        present = ", ".join(manifest.splits) or "none"
        raise DataError(f"{manifest.root}: split {split!r} has no tiles; expected one of: {present}")
    folder.mkdir(parents=True, exist_ok=True)
    by_scene: dict[str, list[Tile]] = {}
    for tile in manifest.split(split):
        by_scene.setdefault(tile.scene, []).append(tile)
    mosaics: list[SceneMosaic] = []
    for scene in manifest.scenes:
        tiles = by_scene.get(scene.name)
        if not tiles:
            continue
        eroded = [(tile.mask_eroded, tile.window) for tile in tiles if tile.mask_eroded is not None]
        mosaics.append(
            SceneMosaic(
                scene=scene,
                image=_mosaic([(tile.image, tile.window) for tile in tiles], scene, folder, ""),
                mask=_mosaic([(tile.mask, tile.window) for tile in tiles], scene, folder, "_mask"),
                mask_eroded=_mosaic(eroded, scene, folder, "_mask_eroded") if len(eroded) == len(tiles) else None,
            )
        )
    return mosaics


def _mosaic(tiles: list[tuple[Path, PixelWindow]], scene: Scene, folder: Path, suffix: str) -> Path:
    return mosaic_vrt(tiles, scene.grid, folder / f"{scene.name}{suffix}.vrt")
