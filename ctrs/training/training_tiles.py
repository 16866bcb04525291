"""Which tiles a run learns from: all training tiles of its data, or a share of them drawn with its seed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from ctrs.config import TrainConfig
from ctrs.errors import DataError
from ctrs.tiles.manifest import Manifest, Tile


def training_tiles(manifest: Manifest, config: TrainConfig) -> tuple[Tile, ...]:
    """Return the tiles that a run learns from, in the order of the data.

    A smaller share with the same seed is part of a larger one, whatever else differs between the runs, so that runs
    over shares and losses can be compared in pairs. The rank of a tile depends on the seed and its name alone.

    Args:
        manifest: The prepared data, as the run's fold divides them.
        config: ``train_share`` and ``seed`` count.

    Raises:
        DataError: None of the tiles of the share has a labelled pixel.
    """
    tiles = manifest.split("train")
    if config.train_share == 1 or not tiles:
        return tiles
    ranks = sorted(range(len(tiles)), key=lambda index: _rank(config.seed, tiles[index]))
    kept = sorted(ranks[: max(1, round(config.train_share * len(tiles)))])
    share = tuple(tiles[index] for index in kept)
    if not any(class_counts(share)):
        raise DataError(
            f"{manifest.root}: no labelled pixel in {len(share)} of {len(tiles)} training tiles; raise --train-share "
            f"above {config.train_share:g}, or choose another --seed"
        )
    return share


def class_counts(tiles: Sequence[Tile]) -> tuple[int, ...]:
    """Return the pixels of each class over tiles; ground in two tiles counts twice."""
    return tuple(sum(counts) for counts in zip(*(tile.class_counts for tile in tiles), strict=True))


def _rank(seed: int, tile: Tile) -> bytes:
    return hashlib.blake2b(f"{seed} {tile.image.name}".encode()).digest()
