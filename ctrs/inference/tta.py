"""Test-time augmentation: a network's mean answer to transformed copies of the same windows.

B windows of a batch, C bands, K classes, h x w a window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from ctrs.config import TestTimeAugmentation

_Forward = Callable[[Tensor], Tensor]


def averaged(forward: _Forward, images: Tensor, tta: TestTimeAugmentation) -> Tensor:
    """Return the mean logits of a network over transformed copies of a batch, each turned back.

    The sums are taken pair by pair and their number is a power of two for ``flip`` and ``d4``, so that copies with
    equal logits have exactly these as their mean.

    Args:
        forward: Returns logits (B, K, h, w) of images (B, C, h, w), for any h and w.
        images: The batch; every copy that ``forward`` sees is channels-last in memory if this is.
        tta: Which copies.

    Returns:
        Float logits (B, K, h, w); what ``forward`` returned where there is one copy.
    """
    if tta.kind == "multiscale":
        passes: Iterator[Tensor] = (_at_scale(forward, images, scale) for scale in tta.scales)
    elif tta.kind == "none":
        return forward(images)
    else:
        passes = (_turned(forward, images, *turn) for turn in _TURNS[: tta.num_passes])
    return _pairwise_sum(passes, tta.num_passes) / tta.num_passes


_TURNS = (
    (False, ()),
    (False, (-1,)),
    (False, (-2,)),
    (False, (-2, -1)),
    (True, ()),
    (True, (-1,)),
    (True, (-2,)),
    (True, (-2, -1)),
)
"""The eight rotations and mirror images: rows and columns exchanged or not, then axes mirrored; the first four keep
rows and columns apart."""


def _turned(forward: _Forward, images: Tensor, transpose: bool, mirrored: tuple[int, ...]) -> Tensor:
    turned = images.transpose(-2, -1) if transpose else images
    if mirrored:
        turned = turned.flip(mirrored)
    if turned is not images:
        turned = turned.contiguous(memory_format=_layout(images))
    logits = forward(turned).float()
    if mirrored:
        logits = logits.flip(mirrored)
    return logits.transpose(-2, -1) if transpose else logits


def _at_scale(forward: _Forward, images: Tensor, scale: float) -> Tensor:
    size = images.shape[-2:]
    scaled = tuple(max(1, round(edge * scale)) for edge in size)
    if scaled == tuple(size):
        return forward(images).float()
    resized = _resize(images, scaled).contiguous(memory_format=_layout(images))
    return _resize(forward(resized).float(), tuple(size))


def _resize(images: Tensor, size: tuple[int, ...]) -> Tensor:
    """Resize bilinearly; every pixel counts where there are fewer afterwards."""
    shrinks = size[0] < images.shape[-2] or size[1] < images.shape[-1]
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=shrinks)


def _layout(images: Tensor) -> torch.memory_format:
    last = images.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _pairwise_sum(passes: Iterator[Tensor], count: int) -> Tensor:
    """Add the next ``count`` tensors, (a + b) + (c + d), taking each only when it is due."""
    if count == 1:
        return next(passes)
    left = count - count // 2
    first = _pairwise_sum(passes, left)
    # Not in place: a network may return its input.
    return first + _pairwise_sum(passes, count - left)
