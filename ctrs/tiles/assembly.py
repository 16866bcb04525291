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

from ctrs.config import PrepareConfig, SplitName
from ctrs.errors import DataError, LabelWarning
from ctrs.progress import Progress
from ctrs.raster.bands import Bands
from ctrs.raster.geotiff import open_raster, read_window
from ctrs.raster.units import ground_pixel_size_m
from ctrs.raster.windows import PixelWindow
from ctrs.tiles.cutting import KINDS, CutTile
from ctrs.tiles.findings import Findings
from ctrs.tiles.ground import Place
from ctrs.tiles.manifest import SPLITS, Scene, SceneSplit, Tile
from ctrs.tiles.scenes import ReadyScene, ReadySource
from ctrs.tiles.splits import choose_validation, shared_ground
from ctrs.tiles.statistics import band_statistics, join

logger = logging.getLogger(__name__)

LEAK_SHARE = 0.01
"""Share of a scene that may lie in another split, where neighbouring files overlap by a seam."""

Placed = tuple[CutTile, SplitName]
"""A tile and the split it belongs to."""


def scene_splits(ready: ReadySource, findings: Findings) -> dict[str, SplitName]:
    """Return the split of each scene; refuse splits that share ground."""
    for shared in shared_ground([(scene.name, scene.source.split, scene.grid) for scene in ready.scenes]):
        split_of = {scene.name: scene.source.split for scene in ready.scenes}
        message = (
            f"scenes {shared.first} ({split_of[shared.first]}) and {shared.second} ({split_of[shared.second]}) share "
            f"{100 * shared.share:.3g} % of the smaller one's ground"
        )
        if shared.share >= LEAK_SHARE:
            findings.fault("leakage", DataError(f"{message}; put both into one split (--val, --test) or leave one out"))
        else:
            findings.warn("leakage", f"{message}; scores there are a little too good")
    return {scene.name: scene.source.split for scene in ready.scenes}


def place_tiles(
    cut: Sequence[CutTile], ready: ReadySource, splits: dict[str, SplitName], config: PrepareConfig, findings: Findings
) -> list[Placed]:
    """Return the tiles that hold imagery with their splits; cut validation from training places where none is given."""
    filled = [tile for tile in cut if tile.kept]
    if not filled:
        raise DataError(f"{ready.scenes[0].source.image}: no valid pixel in any scene; check nodata and alpha")
    placed = _official_splits(filled, ready, splits, findings)
    filled = [tile for tile, _ in placed]
    if "val" in splits.values() or "val" in {split for _, split in placed} or config.val_fraction == 0:
        return placed
    grids = {scene.name: scene.grid for scene in ready.scenes}
    training = [number for number, (_, split) in enumerate(placed) if split == "train"]
    places = [
        Place(
            scene=filled[number].scene,
            grid=grids[filled[number].scene],
            window=filled[number].window,
            class_counts=filled[number].class_counts,
        )
        for number in training
    ]
    chosen = choose_validation(places, val_fraction=config.val_fraction, seed=config.seed)
    for number, is_val in zip(training, chosen, strict=True):
        if is_val:
            placed[number] = filled[number], "val"
    if training and not any(chosen):
        findings.warn(
            "splits",
            "no validation split: the training ground cannot be divided; the last epoch will be kept as the best "
            "(name scenes with --val, or choose smaller tiles)",
        )
    return placed


def _official_splits(
    tiles: Sequence[CutTile], ready: ReadySource, splits: dict[str, SplitName], findings: Findings
) -> list[Placed]:
    """Return the tiles with the splits of their scenes, or of the parts of scenes that they lie in."""
    scenes = {scene.name: scene for scene in ready.scenes}
    placed: list[Placed] = []
    for tile in tiles:
        scene = scenes[tile.scene]
        chips = scene.source.chips
        split = splits[tile.scene] if chips is None else chips.split_of(tile.window, width=scene.grid.width)
        if split is not None:
            placed.append((tile, split))
    if not placed:
        raise DataError("no tile lies in the official split, which is by chips of the scenes; choose smaller tiles")
    if len(placed) < len(tiles):
        findings.note(
            "splits",
            f"{len(tiles) - len(placed)} of {len(tiles)} tiles left out: no list names the chips that they touch, "
            "or these are of several splits",
        )
    return placed


def arrange_tiles(placed: Sequence[Placed], folder: Path, staged: Path, *, has_eroded: bool) -> list[Tile]:
    """Move the tiles to the folders of their splits; done again after a kill, it moves what is left."""
    kinds = KINDS if has_eroded else KINDS[:2]
    for kind in kinds:
        for split in {split for _, split in placed}:
            (staged / kind / split).mkdir(parents=True, exist_ok=True)
    tiles: list[Tile] = []
    for tile, split in placed:
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
            )
        )
    return tiles


def warn_about(cut: Sequence[CutTile], placed: Sequence[Placed], ready: ReadySource, findings: Findings) -> None:
    """Say what was left out, or is missing."""
    eroded = sum(scene.eroded is not None for scene in ready.scenes)
    if 0 < eroded < len(ready.scenes):
        findings.warn(
            "files",
            f"{eroded} of {len(ready.scenes)} scenes have labels with eroded borders; masks_eroded/ is left out, "
            "because it needs them for all",
            LabelWarning,
        )
    empty = len(cut) - len(placed)
    if empty:
        logger.info("%d of %d tiles hold no imagery and are left out", empty, len(cut))
    if not any(split == "train" for _, split in placed):
        findings.warn("splits", "no training tiles: this data set can only be scored on")


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
                source_image=str(scene.source.image.absolute()),
                source_label=str(scene.source.label.absolute()),
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
