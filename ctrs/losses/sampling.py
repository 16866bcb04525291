"""Random positives and negatives for each class: no loop over images, no host synchronisation, static shapes.

The random numbers (*keys*, one for each cell) are drawn outside and passed in: the largest keys inside a pool are the
sample, in random order, which is the random permutation of the paper at once. Equal keys give equal samples.

Dimension letters: N cells of a stage over the whole batch, K classes, n sampled cells for each class, G words of bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ctrs.config import VoidMode
from ctrs.losses.patches import classes_of_word, negative_mask, positive_mask


class Samples(NamedTuple):
    """Sampled cells of one stage; of each row only the first ``count`` entries mean anything."""

    positives: Tensor
    """(K, n) int64 cells that see only the class."""
    positive_count: Tensor
    """(K,) int64, at most n."""
    negatives: Tensor
    """(K, n) int64 cells that do not see the class."""
    negative_count: Tensor
    """(K,) int64, at most n."""


def draw_keys(
    shapes: Sequence[tuple[int, ...]],
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> tuple[Tensor, ...]:
    """Draw one uniform random key for each cell.

    Args:
        shapes: Shapes of the stages' feature maps (B, C, h, w).
        generator: Where the numbers come from; the global one of ``device`` if None.
        device: Where the keys shall live; the generator's device if None.

    Returns:
        For each stage (B * h * w,) float32 in [0, 1).
    """
    source = generator.device if generator is not None else device
    keys = [torch.rand(shape[0] * shape[-2] * shape[-1], generator=generator, device=source) for shape in shapes]
    return tuple(key if device is None else key.to(device, non_blocking=True) for key in keys)


def sample_cells(pool: Tensor, keys: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Sample up to ``count`` cells of each pool without replacement, in random order.

    Args:
        pool: (k, N) bool, True for cells that may be drawn.
        keys: (N,) float32 in [0, 1).
        count: n, at most N.

    Returns:
        (k, n) int64 cells and (k,) int64 numbers of valid entries, which stand first.
    """
    values, cells = torch.where(pool, keys, -1.0).topk(count, dim=1)  # (k, n)
    return cells, (values >= 0).sum(1)


def sample_classes(bits: Tensor, keys: Tensor, *, num_classes: int, count: int, void: VoidMode = "exclude") -> Samples:
    """Sample positives and negatives of every class in one stage.

    Args:
        bits: (G, B, h, w) int32 patch bits.
        keys: (N,) float32 in [0, 1).
        num_classes: K.
        count: Wanted cells for each class and kind; fewer where the stage has fewer cells.
        void: Whether windows with void pixels may be negatives.
    """
    size = min(count, keys.numel())
    parts = []
    for index, word in enumerate(bits.unbind(0)):
        flat = word.reshape(-1)  # (N,)
        classes = classes_of_word(index, num_classes, bits.device)
        positives = sample_cells(positive_mask(flat, classes), keys, size)
        negatives = sample_cells(negative_mask(flat, classes, void), keys, size)
        parts.append(Samples(*positives, *negatives))
    return parts[0] if len(parts) == 1 else Samples(*(torch.cat(column) for column in zip(*parts, strict=True)))


def gather_rows(features: Tensor, cells: Tensor, valid: Tensor) -> Tensor:
    """Pick the feature vectors of single cells; what stands in other cells, NaN included, can't enter.

    Elements are picked one by one, channel after channel, because picking rows needs a copy of the whole map with
    channels last. index_select is used because its backward adds up in a fixed order on the CPU; that of advanced
    indexing does not.

    Args:
        features: (B, C, h, w), any memory format.
        cells: (R,) int64 in 0..N-1.
        valid: (R,) bool; rows that are not valid become zero.

    Returns:
        (R, C).
    """
    C = features.shape[1]
    plane = features.shape[2] * features.shape[3]
    image = torch.div(cells, plane, rounding_mode="floor")
    first = cells + image * ((C - 1) * plane)  # (R,) position of each cell's channel 0
    channels = torch.arange(C, device=cells.device) * plane
    elements = (channels[:, None] + first).reshape(-1)  # (C R,)
    columns = features.reshape(-1).index_select(0, elements).view(C, -1)
    return torch.where(valid, columns, 0.0).t()  # (R, C)


def all_rows(features: Tensor, used: Tensor) -> Tensor:
    """Return the feature vectors of all cells, zero where a cell is not used.

    Args:
        features: (B, C, h, w), any memory format.
        used: (N,) bool.

    Returns:
        (N, C).
    """
    rows = features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])
    return torch.where(used[:, None], rows, 0.0)
