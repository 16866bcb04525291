"""Overlapping windows become one map: weights, and an accumulator that rolls down the scene.

Memory is a function of the classes, the window and the scene's width, never of its height. K classes, h x w a window,
W the scene's width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ctrs.config import Blend


def window_weights(size: int, stride: int, blend: Blend = "hann", *, device: torch.device | None = None) -> Tensor:
    """Return the weight of each row (or column) of a window; a pixel's weight is the product of both.

    ``hann`` rises as sin² over the overlap and is 1 inside, so that neighbours cross-fade where networks see least
    context. No weight is 0, so that the scene's border, which only one window covers, is a result like any other.

    Args:
        size: Window edge in pixels.
        stride: Step between windows in pixels.
        blend: ``hann``, or ``constant`` for the plain mean.
        device: Where the weights live.

    Returns:
        float32 (size,), each above 0 and at most 1.

    >>> [round(w, 3) for w in window_weights(8, 4).tolist()]
    [0.038, 0.309, 0.691, 0.962, 0.962, 0.691, 0.309, 0.038]
    """
    if blend == "constant":
        return torch.ones(size, device=device)
    position = torch.arange(size, dtype=torch.float64) + 0.5
    to_border = torch.minimum(position, size - position)
    ramp = (to_border / max(size - stride, 1)).clamp(max=1.0)
    return torch.sin(ramp * (torch.pi / 2)).square().float().to(device)


class RowBandAccumulator:
    """Weighted sum of overlapping windows, kept for one row of windows at a time.

    Windows arrive row of windows by row of windows. Once a row is complete, ``finish_row`` returns the scene rows that
    no later window touches and makes room for the next. The sums are not divided by the weights, which are the same
    for all classes: the largest class is the same (``normalize`` divides for those who need the values).

    Args:
        num_classes: K.
        width: Scene columns.
        height: Scene rows.
        row_starts: First scene row of each row of windows.
        col_starts: First scene column of each column of windows.
        weights: From ``window_weights``.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        width: int,
        height: int,
        row_starts: Sequence[int],
        col_starts: Sequence[int],
        weights: Tensor,
    ) -> None:
        size = len(weights)
        self.row_starts = tuple(row_starts)
        self.height = height
        self._window_height, self._window_width = min(size, height), min(size, width)
        column_weights, self._row_weights = weights[: self._window_width], weights[: self._window_height]
        self._weights = self._row_weights[:, None] * column_weights  # h w
        self._weighted = weights.new_empty((num_classes, self._window_height, self._window_width))
        self._column_sums = weights.new_zeros(width)
        for start in col_starts:
            self._column_sums[start : start + self._window_width] += column_weights
        self.sums = weights.new_zeros((num_classes, self._window_height, width))  # K h W

    def add(self, logits: Tensor, col_off: int) -> None:
        """Add a window (K, h, w) of the current row of windows; parts beyond a small scene are cut off."""
        logits = logits[:, : self._window_height, : self._window_width]
        # Two steps, not addcmul: a fused multiply-add may round equal classes differently and break ties at random.
        torch.mul(logits, self._weights, out=self._weighted)
        self.sums[:, :, col_off : col_off + self._window_width] += self._weighted

    def finish_row(self, row: int) -> Tensor:
        """Return the finished scene rows of a row of windows, (K, n, W), and roll on.

        Args:
            row: Number of the row of windows; the rows are finished in order.
        """
        top = self.row_starts[row]
        below = self.row_starts[row + 1] if row + 1 < len(self.row_starts) else self.height
        num_rows = below - top
        finished = self.sums[:, :num_rows].clone()
        kept = self._window_height - num_rows
        if kept > 0:
            self.sums[:, :kept] = self.sums[:, num_rows:].clone()
        self.sums[:, kept:] = 0
        return finished

    def normalize(self, finished: Tensor, row: int, rows: slice = slice(None)) -> Tensor:
        """Divide what ``finish_row`` returned, or some of its rows, by the sum of the weights: the mean logits."""
        top = self.row_starts[row]
        row_sums = finished.new_zeros(finished.shape[1])
        for start in self.row_starts[: row + 1]:
            reached = start + self._window_height - top
            if reached > 0:
                count = min(reached, len(row_sums))
                row_sums[:count] += self._row_weights[top - start : top - start + count]
        return finished[:, rows] / (row_sums[rows, None] * self._column_sums)


def largest_class(sums: Tensor) -> Tensor:
    """Return the index of the largest of K values at each pixel, the first of equals.

    A loop of comparisons, since on the CPU ``torch.argmax`` over a leading axis takes many times as long, and so does
    ``masked_fill_``.

    Args:
        sums: (K, h, W), K at most 255.

    Returns:
        uint8 (h, W).

    >>> largest_class(torch.tensor([[[1.0, 2.0, 0.0]], [[1.0, 3.0, -1.0]]]))
    tensor([[0, 1, 0]], dtype=torch.uint8)
    """
    best = sums[0].clone()
    indices = torch.zeros(best.shape, dtype=torch.uint8, device=sums.device)
    for index in range(1, len(sums)):
        larger = (sums[index] > best).view(torch.uint8).mul_(index)
        torch.maximum(indices, larger, out=indices)
        torch.maximum(best, sums[index], out=best)
    return indices


def confidence_of_largest(logits: Tensor) -> Tensor:
    """Return the probability (softmax) of the largest of K logits at each pixel.

    A loop of exponentials over the classes, as in ``largest_class``: no (K, h, w) copy is made.

    Args:
        logits: (K, h, w).

    Returns:
        float32 (h, w), from 1 / K to 1.

    >>> confidence_of_largest(torch.tensor([[[0.0]], [[0.0]]])).item()
    0.5
    """
    best = logits[0].clone()
    for one in logits[1:]:
        torch.maximum(best, one, out=best)
    total = torch.zeros_like(best)
    for one in logits:
        total += (one - best).exp_()
    return total.reciprocal_()
