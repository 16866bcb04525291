"""Which tiles training and validation see, in which order and in which batches.

The order of an epoch is a pure function of (seed, epoch), and so is the split of each batch over processes: a run that
goes on, at whichever step, sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

from ctrs.config import Sampling
from ctrs.data.tile_store import TileStore
from ctrs.errors import ConfigError
from ctrs.tiles.manifest import Tile

FEWEST_DRAWS, MOST_DRAWS = 0.25, 10.0
"""Bounds of ``class_balanced_repeats``: no tile drops out, and none is all that is seen."""

_BALANCING_STEPS = 50

Repeats = npt.NDArray[np.float64]


class SampleKey(NamedTuple):
    """Names a sample: all that its randomness depends on beside the seed.

    Args:
        epoch: Epoch, from 0.
        tile: Index of the tile.
        repetition: How often the tile was drawn before in this epoch.
    """

    epoch: int
    tile: int
    repetition: int = 0


class EpochOrder:
    """The tiles of each epoch in order, a pure function of (seed, epoch).

    Args:
        num_tiles: Tiles to draw from.
        seed: Of the order.
        repeats: Expected draws of each tile in an epoch, (num_tiles,); None: each exactly once. Each tile is drawn
            that often, rounded up or down at random (systematic sampling: one random offset into the cumulative sum
            over a random order of the tiles), so that each epoch is equally long.
    """

    def __init__(self, num_tiles: int, *, seed: int, repeats: Repeats | None = None) -> None:
        if repeats is not None and repeats.shape != (num_tiles,):
            raise ValueError(f"repeats of shape {repeats.shape} found, expected ({num_tiles},)")
        self.num_tiles = num_tiles
        self.seed = seed
        self.repeats = repeats

    def __len__(self) -> int:
        """Return the tiles drawn in each epoch."""
        return self.num_tiles if self.repeats is None else int(self.repeats.sum() + 1e-6)

    def __call__(self, epoch: int) -> list[int]:
        """Return indices of tiles."""
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, epoch]))
        tiles = rng.permutation(self.num_tiles)
        if self.repeats is not None:
            marks = np.floor(np.cumsum(self.repeats[tiles]) + rng.random())
            marks[-1] = max(marks[-1], len(self))  # where rounding of the sum would lose the last draw
            drawn = np.repeat(tiles, np.diff(marks, prepend=0).astype(np.int64))
            tiles = rng.permutation(drawn)[: len(self)]
        return [int(index) for index in tiles]


def epoch_order_of(
    tiles: Sequence[Tile], sampling: Sampling, repeat_threshold: float, seed: int, *, draws: int = 1
) -> EpochOrder:
    """Return the order in which an epoch sees tiles.

    Args:
        tiles: Training tiles; their ``class_counts`` tell which classes they hold.
        sampling: How tiles are drawn.
        repeat_threshold: Of ``repeat-factor``.
        seed: Of the order.
        draws: How often an epoch draws each tile, on average where some are drawn more often than others.
    """
    repeats = None if draws == 1 else np.full(len(tiles), float(draws))
    if sampling != "shuffle" and tiles:
        counts = np.array([tile.class_counts for tile in tiles], np.float64)
        balanced = sampling == "class-balanced"
        repeats = draws * (class_balanced_repeats(counts) if balanced else repeat_factors(counts, repeat_threshold))
    return EpochOrder(len(tiles), seed=seed, repeats=repeats)


def repeat_factors(counts: npt.ArrayLike, threshold: float) -> Repeats:
    """Return the repeat factor of each tile (Gupta et al. 2019, LVIS, section 6.1).

    With f(c) the share of tiles that hold class c, r(c) = max(1, sqrt(threshold / f(c))), and r(i) is the largest r(c)
    over the classes of tile i; 1 for a tile without labels.

    Args:
        counts: (N, K) pixels of each class in each tile.
        threshold: Share of tiles below which a class is rare.

    >>> repeat_factors([[9, 0], [9, 0], [9, 0], [9, 1]], threshold=1.0).tolist()
    [1.0, 1.0, 1.0, 2.0]
    """
    holds = np.asarray(counts) > 0
    share = np.maximum(holds.mean(axis=0), 1e-12)
    of_class = np.maximum(1.0, np.sqrt(threshold / share))
    factors: Repeats = np.where(holds, of_class, 1.0).max(axis=1)
    return factors


def class_balanced_repeats(counts: npt.ArrayLike) -> Repeats:
    """Return how often to draw each tile so that classes get about the same expected share of the labelled pixels.

    With n(i,c) the pixels of class c in tile i, draws r start at 1 and are multiplied by the mean over classes of
    n(i,c) / mean_j r(j) n(j,c), again and again; these are the EM steps that maximise the sum over classes of the
    logarithm of mean_i r(i) n(i,c), which is largest where all classes have equal shares, if any r gives them such. The
    first step alone is "draw a class, then one of its pixels, and take that pixel's tile". After each step r is brought
    back to a mean of 1 and between ``FEWEST_DRAWS`` and ``MOST_DRAWS``: shares stay unequal where a rare class comes
    with many pixels of frequent ones in every tile.

    Args:
        counts: (N, K) pixels of each class in each tile. Classes without pixels take no part.

    >>> class_balanced_repeats([[8, 0], [8, 0], [8, 0], [0, 8]]).round(2).tolist()
    [0.67, 0.67, 0.67, 2.0]
    """
    pixels = np.asarray(counts, np.float64)
    pixels = pixels[:, pixels.sum(axis=0) > 0]
    repeats: Repeats = np.ones(len(pixels))
    if pixels.shape[1] < 2:
        return repeats
    for _ in range(_BALANCING_STEPS):
        expected = (repeats[:, None] * pixels).mean(axis=0)
        repeats = _bounded(repeats * (pixels / expected).mean(axis=1))
    return repeats


def _bounded(repeats: Repeats) -> Repeats:
    """Scale to a mean of 1 within the bounds."""
    repeats = np.maximum(repeats, 1e-9)  # tiles without labels, which fill the epoch where nothing else may
    low, high = 0.0, MOST_DRAWS / repeats.min()
    factor = 1 / repeats.mean()
    for _ in range(80):  # the mean grows with the factor: halve the interval
        found = np.clip(repeats * factor, FEWEST_DRAWS, MOST_DRAWS)
        mean = found.mean()
        if abs(mean - 1) < 1e-12:
            break
        low, high = (factor, high) if mean < 1 else (low, factor)
        factor = (low + high) / 2
    bounded: Repeats = found / found.mean()
    return bounded


class TrainingBatches(Sampler[list[SampleKey]]):
    """The batches of an epoch, as one of several processes sees them.

    Set ``epoch``, and ``first_step`` where the epoch's first steps are done already, before each pass. The last
    incomplete batch is left out, unless it is the only one.

    Args:
        order: The tiles of each epoch.
        batch_size: Tiles in each optimizer step, over all processes.
        rank: Which process this is; it takes the ``rank``-th part of each batch.
        world_size: How many processes there are.
        accumulate: Parts in which a process computes its share of a step, one after the other.

    Raises:
        ConfigError: Batches cannot be shared out evenly.
    """

    def __init__(
        self, order: EpochOrder, batch_size: int, *, rank: int = 0, world_size: int = 1, accumulate: int = 1
    ) -> None:
        self.order = order
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.accumulate = accumulate
        self.epoch = 0
        self.first_step = 0
        parts = world_size * accumulate
        if batch_size % parts:
            raise ConfigError(
                f"batch_size = {batch_size} found, expected a multiple of devices x accumulate = "
                f"{world_size} x {accumulate}"
            )
        if min(batch_size, len(order)) % parts:  # the only batch, incomplete
            raise ConfigError(
                f"batch_size = {batch_size} found, but an epoch has only {len(order)} tiles, which devices x "
                f"accumulate = {world_size} x {accumulate} cannot share evenly; expected a multiple of {parts} that an "
                "epoch fills"
            )

    @property
    def num_steps(self) -> int:
        """Optimizer steps of a whole epoch."""
        return max(1, len(self.order) // self.batch_size)

    def __len__(self) -> int:
        """Return the micro-batches of this process that are still to come in the epoch."""
        return (self.num_steps - self.first_step) * self.accumulate

    def __iter__(self) -> Iterator[list[SampleKey]]:
        """Yield ``accumulate`` micro-batches for each step."""
        keys = self._keys()
        for step in range(self.first_step, self.num_steps):
            batch = keys[step * self.batch_size : (step + 1) * self.batch_size]
            each = len(batch) // (self.world_size * self.accumulate)
            for part in range(self.rank * self.accumulate, (self.rank + 1) * self.accumulate):
                yield batch[part * each : (part + 1) * each]

    def _keys(self) -> list[SampleKey]:
        drawn: Counter[int] = Counter()
        keys: list[SampleKey] = []
        for index in self.order(self.epoch):
            keys.append(SampleKey(self.epoch, index, drawn[index]))
            drawn[index] += 1
        return keys


class OrderedBatches(Sampler[list[SampleKey]]):
    """Whole tiles in order, none left out; a batch holds tiles of one shape only.

    Args:
        store: The tiles.
        batch_size: Most tiles in a batch.
        rank: Which process this is.
        world_size: How many processes there are; each tile goes to one of them. One may get a batch more than another.
    """

    def __init__(self, store: TileStore, batch_size: int, *, rank: int = 0, world_size: int = 1) -> None:
        by_shape: dict[tuple[int, int], list[SampleKey]] = {}
        for index, tile in enumerate(store.tiles):
            by_shape.setdefault((tile.window.height, tile.window.width), []).append(SampleKey(0, index))
        batches = [
            keys[first : first + batch_size] for keys in by_shape.values() for first in range(0, len(keys), batch_size)
        ]
        self._batches = batches[rank::world_size]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        return iter(self._batches)
