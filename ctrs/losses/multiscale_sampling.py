"""Which cells multi-scale contrast takes as anchors: equally many of each class, spread over images.

The random numbers (*keys*, one for each cell) are drawn outside and passed in. Two sorts of integers do the rest: no
loop over images or classes, no host synchronisation, static shapes.

Dimension letters: B images, h x w cells of a stage, N = B * h * w cells, K classes, n room for anchors of a class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ctrs.config import MultiscaleGroup, MultiscaleLabels
from ctrs.losses.patches import CLASSES_PER_WORD, check_sizes, patch_bits

_SMALL_ROOM = 256
"""Anchors of a class up to which a stage's number of cells sets no limit."""

_KEY_BITS = 24
"""Random bits of a float32 in [0, 1)."""

_SCRAMBLE = 0x9E3779
"""Odd, so that it permutes numbers of 24 bits; 2**24 divided by the golden ratio, so that it spreads them."""


class AnchorSamples(NamedTuple):
    """Sampled cells of one stage; of each row only the first ``counts`` entries mean anything."""

    cells: Tensor
    """(K, n) int64."""
    counts: Tensor
    """(K,) int64."""
    quota: Tensor
    """() int64, anchors of each class that has any (of each class in an image with ``group="image_class"``)."""


def cell_labels(
    labels: Tensor,
    sizes: Sequence[tuple[int, int]],
    *,
    num_classes: int,
    strides: Sequence[int],
    ignore_index: int = 255,
    mode: MultiscaleLabels = "nearest",
) -> list[Tensor]:
    """Give each cell of each stage one class, K where it is void.

    Args:
        labels: (B, H, W) integer class indices; ``ignore_index`` and everything outside 0..K-1 is void.
        sizes: (h, w) of each stage's feature map, as `patch_bits` expects them. Cells outside the image are void.
        num_classes: K.
        strides: Stride of each stage.
        ignore_index: Label value that belongs to no class.
        mode: A cell's label is that of its window's top left pixel (``"nearest"``, as nearest interpolation takes it),
            of the pixel at its ``"center"`` (that after the middle, as nearest-exact interpolation), or the one class
            that the window holds (``"homogeneous"``; windows that hold more are void).

    Returns:
        For each stage (B, h, w) int64.

    Raises:
        UsageError: A feature map's size does not belong to the labels.

    Examples:
        >>> labels = torch.tensor([[[0, 0, 1, 2], [0, 0, 1, 255]]])
        >>> [
        ...     cell_labels(labels, [(1, 2)], num_classes=3, strides=[2], mode=mode)[0].tolist()
        ...     for mode in ("nearest", "center", "homogeneous")
        ... ]
        [[[[0, 1]]], [[[0, 3]]], [[[0, 3]]]]
    """
    if mode == "homogeneous":
        levels = patch_bits(labels, sizes, num_classes=num_classes, strides=strides, ignore_index=ignore_index)
        return [_only_class(bits, num_classes) for bits in levels]
    check_sizes(labels, sizes, strides)
    maps = []
    for (h, w), stride in zip(sizes, strides, strict=True):
        first = stride // 2 if mode == "center" else 0
        picked = labels[:, first::stride, first::stride].long()
        void = (picked < 0) | (picked >= num_classes) | (picked == ignore_index)
        known = torch.where(void, num_classes, picked)
        maps.append(F.pad(known, (0, w - known.shape[2], 0, h - known.shape[1]), value=num_classes))
    return maps


def _only_class(bits: Tensor, num_classes: int) -> Tensor:
    """Return (B, h, w) int64: the class of windows with one class, else K, of (G, B, h, w) bit sets."""
    label = torch.full(bits.shape[1:], num_classes, dtype=torch.int64, device=bits.device)
    for index, word in enumerate(bits.unbind(0)):
        first = index * CLASSES_PER_WORD
        single = ((word & (word - 1)) == 0) & (word < 1 << min(CLASSES_PER_WORD, num_classes - first))
        # The position of the only bit: powers of two have exact logarithms, and rounding is for those who differ.
        position = word.float().log2().round().long()
        label = torch.where(single, first + position, label)
    return label


def sample_anchors(
    labels: Tensor,
    keys: Tensor,
    *,
    num_classes: int,
    max_anchors: int = 4096,
    max_per_class: int = 2500,
    min_views: int = 5,
    group: MultiscaleGroup = "class",
) -> AnchorSamples:
    """Sample equally many cells of each class without replacement.

    A class has room for n = min(max_per_class, max_anchors // K, N) anchors, and in stages with few cells for its
    share of them, N // K, but at least 256: where all classes occur, the rarest has no more than that anyway.

    ``group="class"`` (paper): each class with at least ``min_views`` cells in the batch gets as many anchors as the
    rarest of them has cells, at most n. They are filled like water over the images: first one cell of each image that
    has the class, then a second one, until the anchors are used up. Images take turns in random order.

    ``group="image_class"`` (code): each class of each image with at least ``min_views`` cells there gets as many
    anchors as the rarest of these pairs has cells, at most ``max_anchors`` shared out among all pairs, and no more
    than the room of the class with most pairs allows. If there is no room for one anchor of each image, random images
    get one.

    Args:
        labels: (B, h, w) int64 in 0..K, K where void.
        keys: (N,) float32 in [0, 1).
        num_classes: K.
        max_anchors: Cap on all anchors.
        max_per_class: Cap on the anchors of a class.
        min_views: Fewer cells: no anchors.
        group: Who gets equally many.
    """
    B, N, K = labels.shape[0], labels.numel(), num_classes
    device = labels.device
    plane = N // B
    room = min(max_per_class, max_anchors // K, max(N // K, _SMALL_ROOM), N)
    key = (keys * 2**_KEY_BITS).long()
    image = torch.arange(N, device=device) // plane
    pair = torch.where(labels.reshape(-1) < K, labels.reshape(-1) * B + image, K * B)
    ordered, by_pair = ((pair << _KEY_BITS) + key).sort(stable=True)
    pair = ordered >> _KEY_BITS
    bounds = torch.searchsorted(pair, torch.arange(K * B + 1, device=device))  # first entry of each pair, then of void
    cells = (bounds[1:] - bounds[:-1]).view(K, B)
    if group == "class":
        total = cells.sum(1)
        enough = total >= min_views  # (K,)
        quota = torch.where(enough, total, N).min().clamp_max(room)
        quota = torch.where(enough.any(), quota, 0)
        counts = torch.where(enough, quota, 0)
        taken = enough[:, None].expand(K, B)
    else:
        taken = cells >= min_views  # (K, B)
        images = taken.sum(1)  # (K,)
        fair = torch.minimum(max_anchors // images.sum().clamp_min(1), room // images.max().clamp_min(1)).clamp_min(1)
        quota = torch.minimum(torch.where(taken, cells, N).min(), fair)
        quota = torch.where(taken.any(), quota, 0)
        counts = (quota * images).clamp_max(room)
    # Water filling: each class's cells by their rank inside the image, images of one rank in random order.
    rank = torch.arange(N, device=device) - bounds.index_select(0, pair)
    # One number for each image, from the key of its first cell, but in another order than the keys.
    turns = (key.view(B, plane)[:, 0] * _SCRAMBLE) & ((1 << _KEY_BITS) - 1)
    turn = turns.index_select(0, pair % B)
    drawn_from = F.pad(taken.reshape(-1), (0, 1), value=False).index_select(0, pair)
    level = torch.where(drawn_from, torch.div(pair, B, rounding_mode="floor") * plane + rank, K * plane)
    by_level = ((level << _KEY_BITS) + turn).sort(stable=True).indices
    available = torch.where(taken, cells, 0).sum(1)
    start = available.cumsum(0) - available  # (K,)
    entries = (start[:, None] + torch.arange(room, device=device)).clamp_max(N - 1).reshape(-1)
    chosen = by_pair.index_select(0, by_level.index_select(0, entries))
    return AnchorSamples(chosen.view(K, room), counts, quota)
