"""Patches of one class only, drawn at random from masks alone, so that any network can be shown the same ones.

Dimension letters: n patches, h x w cells of a stage, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ctrs.classes import IGNORE_INDEX
from ctrs.losses.patches import classes_of_word, patch_bits, positive_mask
from ctrs.tiles.manifest import Tile

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class PatchSamples:
    """Cells of one stage, each (n,), in the order of class, tile, row, column.

    Args:
        stride: Edge of a cell's window in pixels.
        tiles: Number of the tile.
        rows: Row of the cell.
        cols: Column of the cell.
        classes: The only class in the cell's window.
    """

    stride: int
    tiles: Indices
    rows: Indices
    cols: Indices
    classes: Indices

    def __len__(self) -> int:
        return len(self.tiles)

    def counts(self, num_classes: int) -> tuple[int, ...]:
        """Return the number of cells of each class."""
        return tuple(np.bincount(self.classes, minlength=num_classes).tolist())


def sample_patches(
    masks: Iterable[Tensor], strides: Sequence[int], *, num_classes: int, samples: int, seed: int
) -> list[PatchSamples]:
    """Draw one-class patches, at most ``samples`` of each class and stage.

    Each cell has a random key of its own, a pure function of (seed, tile, stride, cell), and the lowest keys are taken:
    a patch's chance depends neither on its tile nor on the order of reading.

    Args:
        masks: int64 (H, W) for each tile.
        strides: Of the stages, rising.
        num_classes: K.
        samples: Cap for each class and stage.
        seed: Of the keys.

    Returns:
        The cells of each stage.
    """
    kept: list[list[npt.NDArray[np.float64]]] = [[np.empty((0, 4))] * num_classes for _ in strides]
    for number, mask in enumerate(masks):
        height, width = mask.shape
        sizes = [(-(-height // stride), -(-width // stride)) for stride in strides]
        levels = patch_bits(
            mask[None], sizes, num_classes=num_classes, strides=strides, ignore_index=IGNORE_INDEX
        )  # each (G, 1, h, w)
        for stage, (bits, (h, w)) in enumerate(zip(levels, sizes, strict=True)):
            keys = np.random.default_rng(np.random.SeedSequence([seed, number, strides[stage]])).random(h * w)
            positive = torch.cat(
                [
                    positive_mask(word.reshape(-1), classes_of_word(index, num_classes, word.device))
                    for index, word in enumerate(bits)
                ]
            ).numpy()  # (K, h w)
            for of_class in range(num_classes):
                cells = np.flatnonzero(positive[of_class])
                if len(cells):
                    found = np.stack([keys[cells], np.full(len(cells), number), cells // w, cells % w], axis=1)
                    kept[stage][of_class] = _lowest(np.concatenate([kept[stage][of_class], found]), samples)
    return [_in_order(of_stage, stride) for of_stage, stride in zip(kept, strides, strict=True)]


def _lowest(rows: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.float64]:
    return rows[np.argsort(rows[:, 0], kind="stable")[:count]]


def _in_order(by_class: Sequence[npt.NDArray[np.float64]], stride: int) -> PatchSamples:
    classes = np.concatenate([np.full(len(rows), index, np.int64) for index, rows in enumerate(by_class)])
    places = np.concatenate(by_class)[:, 1:].astype(np.int64)
    order = np.lexsort((places[:, 2], places[:, 1], places[:, 0], classes))
    tiles, rows, cols = places[order].T
    return PatchSamples(stride=stride, tiles=tiles, rows=rows, cols=cols, classes=classes[order])


def choose_tiles(tiles: Sequence[Tile], count: int, *, seed: int) -> tuple[Tile, ...]:
    """Return at most ``count`` tiles, drawn so that rare classes have their share: each class in turn names one.

    Args:
        tiles: To choose from.
        count: Cap.
        seed: Of the draw.

    Returns:
        The chosen tiles in the order in which they were given.
    """
    if len(tiles) <= count:
        return tuple(tiles)
    order = [int(index) for index in np.random.default_rng(seed).permutation(len(tiles))]
    num_classes = len(tiles[0].class_counts)
    queues = [iter([index for index in order if tiles[index].class_counts[c]]) for c in range(num_classes)]
    queues.append(iter(order))  # tiles without labels are better than none
    chosen: set[int] = set()
    while len(chosen) < count:
        for queue in queues:
            following = next((index for index in queue if index not in chosen), None)
            if following is not None and len(chosen) < count:
                chosen.add(following)
    return tuple(tiles[index] for index in sorted(chosen))
