"""Cut tiles become a data set: each goes to the folder of its split; scenes and bands are described."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ctrs.config import SplitName
from ctrs.errors import LabelWarning
from ctrs.progress import Progress
from ctrs.raster.bands import Bands
from ctrs.raster.geotiff import open_raster, read_window
from ctrs.raster.units import ground_pixel_size_m
from ctrs.raster.windows import PixelWindow
from ctrs.tiles.cutting import KINDS, CutTile
from ctrs.tiles.findings import Findings
from ctrs.tiles.manifest import SPLITS, Scene, SceneSplit, Tile
from ctrs.tiles.placement import FoldPlace, Placed
from ctrs.tiles.scenes import ReadyScene, ReadySource
from ctrs.tiles.statistics import band_statistics, join

logger = logging.getLogger(__name__)


def arrange_tiles(
    placed: Sequence[Placed], folds: Sequence[FoldPlace], folder: Path, staged: Path, *, has_eroded: bool
) -> list[Tile]:
    """Move the tiles to the folders of their splits; done again after a kill, it moves what is left."""
    kinds = KINDS if has_eroded else KINDS[:2]
    for kind in kinds:
        for split in {split for _, split in placed}:
            (staged / kind / split).mkdir(parents=True, exist_ok=True)
    tiles: list[Tile] = []
    for (tile, split), fold in zip(placed, folds, strict=True):
        paths = [staged / kind / split / tile.file_name for kind in kinds]
        for kind, path in zip(kinds, paths, strict=True):
            fresh = folder / kind / tile.file_name
            if fresh.exists():
                fresh.replace(path)
        tiles.append(
            Tile(
                scene=tile.scene,
                split=split,
                window=tile.window,
                image=paths[0],
                mask=paths[1],
                mask_eroded=paths[2] if has_eroded else None,
                valid_fraction=tile.valid_fraction,
                class_counts=tile.class_counts,
                hash=tile.hash,
                fold=fold.fold,
                near_folds=fold.near,
            )
        )
    return tiles


def warn_about(cut: Sequence[CutTile], ready: ReadySource, findings: Findings) -> None:
    """Say what was left out, or is missing."""
    eroded = sum(scene.eroded is not None for scene in ready.scenes)
    if 0 < eroded < len(ready.scenes):
        findings.warn(
            "files",
            f"{eroded} of {len(ready.scenes)} scenes have labels with eroded borders; masks_eroded/ is left out, "
            "because it needs them for all",
            LabelWarning,
        )
    empty = sum(not tile.kept for tile in cut)
    if empty:
        logger.info("%d of %d tiles hold too little imagery and are left out", empty, len(cut))


def describe_scenes(ready: ReadySource, placed: Sequence[Placed], splits: dict[str, SplitName]) -> tuple[Scene, ...]:
    """Describe each scene for the manifest, with the splits that its tiles went to."""
    present: dict[str, set[SplitName]] = {}
    for tile, split in placed:
        present.setdefault(tile.scene, set()).add(split)
    scenes: list[Scene] = []
    for scene in ready.scenes:
        name = scene.name
        held = present.get(name, {splits[name]})
        scene_split = cast("SceneSplit", "+".join(split for split in SPLITS if split in held))
        a, b, c, d, e, f = tuple(scene.grid.transform)[:6]
        scenes.append(
            Scene(
                name=name,
                split=scene_split,
                width=scene.grid.width,
                height=scene.grid.height,
                crs_wkt=None if scene.grid.crs is None else scene.grid.crs.to_wkt(),
                transform=(a, b, c, d, e, f),
                source_image=scene.source.image_name,
                source_label=scene.source.label_name,
                known_bad=scene.source.known_bad,
            )
        )
    return tuple(scenes)


def measure_bands(ready: ReadySource, placed: Sequence[Placed], tiles: Sequence[Tile], progress: Progress) -> Bands:
    """Join the statistics of the training tiles; of all tiles where none is for training."""
    train = [number for number, (_, split) in enumerate(placed) if split == "train"] or list(range(len(placed)))
    moments = join(placed[number][0].moments for number in train)
    total = len(train)
    done = 0

    def read(path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        nonlocal done
        done = done % total + 1
        progress(done, total, "band statistics")
        with open_raster(path) as dataset:
            return read_window(dataset, PixelWindow(col_off=0, row_off=0, width=dataset.width, height=dataset.height))

    readers = [partial(read, tiles[number].image) for number in train]
    return band_statistics(ready.band_names, ready.dtype, ready.nodata, moments, readers)


def pixel_size_m(scenes: Sequence[ReadyScene], findings: Findings) -> float | None:
    """Return the median ground pixel, None where no scene has a CRS; warn where scenes differ much."""
    sizes = {
        scene.name: float(np.mean(ground_pixel_size_m(scene.grid))) for scene in scenes if scene.grid.crs is not None
    }
    if not sizes:
        return None
    finest, coarsest = min(sizes, key=lambda name: sizes[name]), max(sizes, key=lambda name: sizes[name])
    if sizes[coarsest] > 1.25 * sizes[finest]:
        findings.warn(
            "georeference",
            f"ground pixels differ: {sizes[finest]:.3g} m in {finest}, {sizes[coarsest]:.3g} m in {coarsest}; "
            "a model learns best from one resolution",
        )
    return float(median(sizes.values()))
