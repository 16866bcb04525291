"""Label map to patch classes: which cells of a feature map see one class only, and which do not see a class at all.

A cell of a stage with stride r looks at an r x r window of labels. The classes inside the window are kept as the bits
of one int32: an OR over 2 x 2 blocks, repeated, gives them exactly for every stage in one pass, without a one-hot map
and without floats. 29 classes share a word with two more bits, *void* (ignored or outside the class range) and
*other* (a class of another word), so any number of classes works.

Dimension letters: B images, H x W pixels, h x w cells of a stage, N = B * h * w cells, K classes, G words.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ctrs.config import VoidMode
from ctrs.errors import UsageError

CLASSES_PER_WORD = 29
VOID_BIT = 29
OTHER_BIT = 30
INPUT_MULTIPLE = 32
"""To which networks pad, whatever the strides of their stages."""


def patch_bits(
    labels: Tensor,
    sizes: Sequence[tuple[int, int]],
    *,
    num_classes: int,
    strides: Sequence[int],
    ignore_index: int = 255,
) -> list[Tensor]:
    """Collect the classes inside each cell's window, for several stages.

    Args:
        labels: (B, H, W) integer class indices; ``ignore_index`` and everything outside 0..K-1 is void.
        sizes: (h, w) of each stage's feature map: ceil(H / stride), with H and W as they are or padded to the next
            multiple of the largest stride or of 32. Labels are padded with void at the bottom and the right.
        num_classes: K.
        strides: Stride of each stage, powers of two, none below the one before (a dilated encoder repeats one).
        ignore_index: Label value that belongs to no class.

    Returns:
        For each stage (G, B, h, w) int32 bit sets.

    Raises:
        UsageError: A feature map's size does not belong to the labels (e.g. channels stand last).

    Examples:
        >>> labels = torch.tensor([[[0, 0, 1, 2], [0, 0, 1, 255]]])
        >>> patch_bits(labels, [(1, 2)], num_classes=3, strides=[2])[0].tolist()
        [[[[1, 536870918]]]]
    """
    height, width = check_sizes(labels, sizes, strides)
    multiple = max(strides[-1], INPUT_MULTIPLE)
    padded = (-(-height // multiple) * multiple, -(-width // multiple) * multiple)
    bits = _pixel_bits(labels, num_classes, ignore_index)
    if padded != (height, width):
        bits = F.pad(bits, (0, padded[1] - width, 0, padded[0] - height), value=1 << VOID_BIT)
    levels = []
    stride = 1
    for (h, w), target in zip(sizes, strides, strict=True):
        while stride < target:
            bits = bits[..., 0::2, :] | bits[..., 1::2, :]
            bits = bits[..., 0::2] | bits[..., 1::2]
            stride *= 2
        levels.append(bits[..., :h, :w])
    return levels


def check_sizes(labels: Tensor, sizes: Sequence[tuple[int, int]], strides: Sequence[int]) -> tuple[int, int]:
    """Refuse labels, strides and sizes of feature maps that do not belong together; arguments as of `patch_bits`.

    Returns:
        H and W.

    Raises:
        UsageError: See above.
    """
    if labels.ndim != 3 or labels.is_floating_point():
        raise UsageError(
            f"labels must be integers of shape (B, H, W), found {labels.dtype} of shape {tuple(labels.shape)}"
        )
    if not strides or list(strides) != sorted(strides) or any(r < 1 or r & (r - 1) for r in strides):
        raise UsageError(f"strides must be powers of two, none below the one before, found {tuple(strides)}")
    height, width = labels.shape[-2:]
    largest = strides[-1]
    multiples = (largest, max(largest, INPUT_MULTIPLE))
    for (h, w), stride in zip(sizes, strides, strict=True):
        tight = (-(-height // stride), -(-width // stride))
        padded = [
            tuple(-(-edge // multiple) * multiple // stride for edge in (height, width)) for multiple in multiples
        ]
        full = padded[-1]
        if (h, w) not in (tight, *padded):
            raise UsageError(
                f"the feature map of stride {stride} has {h} x {w} cells, but labels of {height} x {width} pixels "
                f"need {tight[0]} x {tight[1]} (or {full[0]} x {full[1]} when the input is padded); "
                "features must be (B, C, h, w)"
            )
    return height, width


def stage_labels(strides: Sequence[int]) -> tuple[str, ...]:
    """Name each stage after its stride for the log; where a stride repeats, later stages get a letter.

    Examples:
        >>> stage_labels((4, 8, 16, 32))
        ('4', '8', '16', '32')
        >>> stage_labels((4, 8, 8, 8))
        ('4', '8', '8b', '8c')
    """
    labels = []
    for index, stride in enumerate(strides):
        repeats = list(strides[:index]).count(stride)
        labels.append(f"{stride}{chr(ord('a') + repeats)}" if repeats else str(stride))
    return tuple(labels)


def _pixel_bits(labels: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Return (G, B, H, W) int32 with one bit set for each pixel and word."""
    wide = labels if labels.dtype in (torch.int32, torch.int64) else labels.to(torch.int32)
    entries = wide.clamp(-1, num_classes).to(torch.int32) + 1  # 0 and K + 1 are outside the classes
    table = _bit_table(num_classes, ignore_index, labels.device)
    return table.index_select(1, entries.reshape(-1)).view(-1, *labels.shape)


def _bit_table(num_classes: int, ignore_index: int, device: torch.device) -> Tensor:
    """Return (G, K + 2) int32 bits of the labels -1 to K in each word."""
    label = torch.arange(-1, num_classes + 1, dtype=torch.int32, device=device)
    void = (label < 0) | (label == num_classes) | (label == ignore_index)
    first = torch.arange(0, num_classes, CLASSES_PER_WORD, dtype=torch.int32, device=device)
    position = label - first[:, None]
    elsewhere = (position < 0) | (position >= CLASSES_PER_WORD)
    position = position.masked_fill(elsewhere, OTHER_BIT).masked_fill(void, VOID_BIT)
    return torch.ones_like(position) << position


def classes_of_word(word: int, num_classes: int, device: torch.device) -> Tensor:
    """Return (k, 1) int32 bits of the classes that word ``word`` holds."""
    first = word * CLASSES_PER_WORD
    count = min(CLASSES_PER_WORD, num_classes - first)
    return (
        torch.ones((count, 1), dtype=torch.int32, device=device)
        << torch.arange(count, dtype=torch.int32, device=device)[:, None]
    )


def positive_mask(word_bits: Tensor, class_bits: Tensor) -> Tensor:
    """Tell which cells see only one class.

    Args:
        word_bits: (N,) int32 bit sets.
        class_bits: (k, 1) int32, one bit each.

    Returns:
        (k, N) bool, True where the window holds nothing but the class (no void either).
    """
    return word_bits == class_bits


def negative_mask(word_bits: Tensor, class_bits: Tensor, void: VoidMode = "exclude") -> Tensor:
    """Tell which cells do not see a class.

    Args:
        word_bits: (N,) int32 bit sets.
        class_bits: (k, 1) int32, one bit each.
        void: ``"exclude"`` refuses windows with any void pixel, for it may be the class; ``"allow"`` takes them (the
            author's code).

    Returns:
        (k, N) bool, True where the window is a negative of the class.
    """
    forbidden = class_bits | (1 << VOID_BIT) if void == "exclude" else class_bits
    return (word_bits & forbidden) == 0


def present_classes(bits: Tensor, num_classes: int) -> Tensor:
    """Return (K,) bool, True for classes that occur anywhere in a stage's (G, B, h, w) bit sets."""
    present = [
        ((word.reshape(-1) & classes_of_word(index, num_classes, bits.device)) != 0).any(1)
        for index, word in enumerate(bits.unbind(0))
    ]
    return torch.cat(present)
