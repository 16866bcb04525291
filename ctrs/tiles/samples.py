"""Which tiles are looked at more closely: for the contact sheet, and for the estimate of displacements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ctrs.classes import ClassMap, Mask
from ctrs.config import SplitName
from ctrs.raster.geotiff import open_raster, read_window
from ctrs.raster.windows import PixelWindow
from ctrs.tiles.audit import TileSample
from ctrs.tiles.cutting import CutTile
from ctrs.tiles.manifest import SPLITS, Tile
from ctrs.tiles.placement import Placed
from ctrs.tiles.scenes import ReadyScene

MAX_SAMPLES = 24
"""Most tiles of a contact sheet."""

SAMPLE_PX = 256
"""Greatest width and height of a tile on it."""

Content = tuple[npt.NDArray[Any], npt.NDArray[np.bool_], Mask]
"""Pixels (C, h, w), valid mask and class mask (h, w) of a tile."""

OpenTiles = Callable[[ReadyScene], AbstractContextManager[Callable[[CutTile], Content]]]
"""Gives, for a scene, a function that reads its tiles: from disk where they have been written, else from the source."""


@contextmanager
def source_tiles(scene: ReadyScene) -> Iterator[Callable[[CutTile], Content]]:
    """Give a function that reads the tiles of a scene from its source."""
    with scene.imagery.reader() as read_pixels, scene.label.reader() as read_label:

        def read(tile: CutTile) -> Content:
            pixels, valid = read_pixels(tile.window)
            return pixels, valid, np.where(valid, read_label(tile.window).mask, np.uint8(255))

        yield read


def written_tiles(tiles: Sequence[Tile]) -> OpenTiles:
    """Return how tiles that have been written are read."""
    paths = {(tile.scene, tile.window): (tile.image, tile.mask) for tile in tiles}

    @contextmanager
    def open_tiles(_: ReadyScene) -> Iterator[Callable[[CutTile], Content]]:
        def read(tile: CutTile) -> Content:
            image, mask = paths[tile.scene, tile.window]
            pixels, valid = _whole(image)
            values, _ = _whole(mask)
            return pixels, valid, values[0]

        yield read

    return open_tiles


def choose_samples(placed: Sequence[Placed], classes: ClassMap) -> list[Placed]:
    """Choose tiles for the contact sheet: of each split those with most of each class, then others by chance.

    The choice depends on the tiles alone.
    """
    by_split: dict[SplitName, list[CutTile]] = {}
    for tile, split in placed:
        by_split.setdefault(split, []).append(tile)
    present = [split for split in SPLITS if split in by_split]
    chosen: list[Placed] = []
    for number, split in enumerate(present):
        room = (MAX_SAMPLES - len(chosen)) // (len(present) - number)
        chosen += [(tile, split) for tile in _varied(by_split[split], classes, room)]
    return chosen


def read_samples(
    chosen: Sequence[Placed], scenes: Mapping[str, ReadyScene], open_tiles: OpenTiles, *, workers: int
) -> tuple[TileSample, ...]:
    """Read tiles for the contact sheet, thinned to at most ``SAMPLE_PX``."""

    def read_one(placed: Placed) -> TileSample:
        tile, split = placed
        with open_tiles(scenes[tile.scene]) as read:
            pixels, valid, mask = read(tile)
        step = -(-max(mask.shape) // SAMPLE_PX)
        return TileSample(
            name=tile.file_name.removesuffix(".tif"),
            split=split,
            pixels=np.ascontiguousarray(pixels[:, ::step, ::step]),
            valid=np.ascontiguousarray(valid[::step, ::step]),
            mask=np.ascontiguousarray(mask[::step, ::step]),
        )

    with ThreadPoolExecutor(max_workers=workers) as pool:
        return tuple(pool.map(read_one, chosen))


def most_divided(tiles: Sequence[CutTile], number: int) -> list[CutTile]:
    """Return the tiles whose pixels are divided most evenly between classes, in their order."""

    def evenness(tile: CutTile) -> float:
        total = sum(tile.class_counts)
        return 1 - sum((count / total) ** 2 for count in tile.class_counts) if total else 0.0

    ranked = sorted(range(len(tiles)), key=lambda place: (-evenness(tiles[place]), place))
    return [tiles[place] for place in sorted(ranked[:number]) if evenness(tiles[place]) > 0]


def _varied(tiles: Sequence[CutTile], classes: ClassMap, room: int) -> list[CutTile]:
    chosen: list[CutTile] = []
    taken = Counter[str]()
    left = sorted(tiles, key=lambda tile: (tile.hash, tile.file_name))
    for rank in range(len(left)):
        index = rank % (classes.num_classes + 1)
        if len(chosen) >= room or not left:
            break
        # Every class in turn, then one by chance (by its hash), so that the sheet shows ordinary tiles too.
        # A scene that has given tiles already has to offer more.
        if index == classes.num_classes:
            best = min(left, key=lambda tile: taken[tile.scene])
        else:
            best = max(left, key=lambda tile: tile.class_counts[index] / (1 + taken[tile.scene]))
        left.remove(best)
        chosen.append(best)
        taken[best.scene] += 1
    return sorted(chosen, key=lambda tile: (tile.scene, tile.row, tile.col))


def _whole(path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    with open_raster(path) as dataset:
        return read_window(dataset, PixelWindow(col_off=0, row_off=0, width=dataset.width, height=dataset.height))
