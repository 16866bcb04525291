"""Overlapping windows become one map: weights that add up to 1, and an accumulator of strips.

Only what a later window still touches is kept: K x overlap x W for the rows below, K x h x overlap for the columns
beside. Where one window alone lies, its logits are the result as they are. K classes, h x w a window, W the width of
the scene or of a block of its columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ctrs.config import Blend

_GAUSSIAN_REACH = 3.0
"""Standard deviations from the inner to the outer end of a Gaussian's flank."""


def axis_weights(
    starts: Sequence[int], size: int, length: int, blend: Blend = "hann", *, device: torch.device | None = None
) -> list[Tensor]:
    """Return the weights of each window along one axis; at each pixel those of all windows over it add up to 1.

    A pixel's weight is the product of both axes', so the weighted sum of logits is their mean already. Before they are
    divided by their sum, weights fall off towards a neighbour over the pixels shared with it, t from 0 at the border
    to 1: ``hann`` as sin²(π t / 2), ``gaussian`` as exp(-(3 (1 - t))² / 2), ``constant`` not at all. None is 0, and
    where no neighbour lies, as at the scene's border, they stay 1: such a pixel is a result like any other.

    Args:
        starts: First pixel of each window.
        size: Window edge in pixels.
        length: Pixels of the axis; one shorter than a window has one window, cut off.
        blend: How weights fall off.
        device: Where the weights live.

    Returns:
        float32 (min(size, length),) for each window, above 0 and at most 1.

    >>> [[round(w, 3) for w in weights.tolist()] for weights in axis_weights([0, 4], 6, 10)]
    [[1.0, 1.0, 1.0, 1.0, 0.854, 0.146], [0.146, 0.854, 1.0, 1.0, 1.0, 1.0]]
    """
    size = min(size, length)
    raw: list[Tensor] = []
    for number, start in enumerate(starts):
        weights = torch.ones(size, dtype=torch.float64)
        if number > 0:
            shared = starts[number - 1] + size - start
            weights[:shared] = torch.minimum(weights[:shared], _flank(shared, blend))
        if number + 1 < len(starts):
            shared = start + size - starts[number + 1]
            weights[size - shared :] = torch.minimum(weights[size - shared :], _flank(shared, blend).flip(0))
        raw.append(weights)
    total = torch.zeros(length, dtype=torch.float64)
    for start, weights in zip(starts, raw, strict=True):
        total[start : start + size] += weights
    return [
        (weights / total[start : start + size]).float().to(device) for start, weights in zip(starts, raw, strict=True)
    ]


def _flank(num_px: int, blend: Blend) -> Tensor:
    """Return weights that rise from a window's border over the pixels shared with a neighbour, float64 (num_px,)."""
    rise = (torch.arange(num_px, dtype=torch.float64) + 0.5) / max(num_px, 1)
    if blend == "hann":
        return torch.sin(rise * (math.pi / 2)).square()
    if blend == "gaussian":
        return torch.exp(-0.5 * (_GAUSSIAN_REACH * (1 - rise)).square())
    return torch.ones_like(rise)


class StripAccumulator:
    """Mean of overlapping windows; keeps only the strips that later windows touch.

    Windows come row of windows by row of windows, each row from the left. A window finishes the pixels from its own
    first row and column to those of the next window: ``put`` returns them. The sum of a pixel has its terms in one
    fixed order (first along each row of windows, then from row to row), whatever is read or written at a time.

    Args:
        num_classes: K.
        row_edges: First scene row of each row of windows, and the scene's height.
        col_edges: First scene column of each column of windows, and the scene's width (or a block's end).
        row_weights: Of each row of windows, from ``axis_weights``.
        col_weights: Of each column of windows.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        row_edges: Sequence[int],
        col_edges: Sequence[int],
        row_weights: Sequence[Tensor],
        col_weights: Sequence[Tensor],
    ) -> None:
        self.row_edges, self.col_edges = tuple(row_edges), tuple(col_edges)
        self._row_weights = [weights[:, None] for weights in row_weights]
        self._col_weights = tuple(col_weights)
        self._window_height, self._window_width = len(row_weights[0]), len(col_weights[0])
        self._num_cols = len(col_weights)
        height = max((self._shared(self.row_edges, self._window_height, i) for i in range(len(row_weights))), default=0)
        self._below = col_weights[0].new_empty((num_classes, height, self.col_edges[-1] - self.col_edges[0]))
        self._is_above = [False] * self._num_cols
        self._beside: Tensor | None = None
        self._following = (0, 0)

    def put(self, row: int, col: int, logits: Tensor | None) -> Tensor | None:
        """Add the next window; return the mean logits of the pixels that it finishes.

        Args:
            row: Row of windows.
            col: Column of windows.
            logits: (K, h, w), written to; parts beyond a small scene are cut off. None for a window without a valid
                pixel: what others say of its pixels is dropped, since all of them are invalid.

        Returns:
            float32 (K, n, m), good until the next call; None where ``logits`` is None.
        """
        top, left = self.row_edges[row], self.col_edges[col]
        num_rows, num_cols = self.row_edges[row + 1] - top, self.col_edges[col + 1] - left
        beside = self._beside if col > 0 else None
        if logits is None:
            self._beside, self._is_above[col] = None, False
            return None
        logits = logits[:, : self._window_height, : self._window_width]
        # Two steps, not addcmul: a fused multiply-add may round equal classes differently and break ties at random.
        self._scale(logits, self._col_weights[col], self._reach(self.col_edges, self._window_width, col), num_cols)
        if beside is not None:
            logits[:, :, : beside.shape[2]] += beside
        self._beside = logits[:, :, num_cols:] if col + 1 < self._num_cols else None
        part = logits[:, :, :num_cols]
        weights = self._row_weights[row]
        reach = self._reach(self.row_edges, self._window_height, row)
        offset = left - self.col_edges[0]
        strip = self._below[:, :, offset : offset + num_cols]
        if reach > 0:
            upper = part[:, :reach]
            upper *= weights[:reach]
            if self._is_above[col]:
                upper += strip[:, :reach]
        if (kept := self._window_height - num_rows) > 0 and row + 2 < len(self.row_edges):
            first = max(num_rows, reach)
            strip[:, : first - num_rows] = part[:, num_rows:first]
            torch.mul(part[:, first:], weights[first:], out=strip[:, first - num_rows : kept])
            self._is_above[col] = True
        return part[:, :num_rows]

    @staticmethod
    def _shared(edges: Sequence[int], size: int, number: int) -> int:
        """Return how many pixels behind those that a window finishes later windows touch too."""
        return edges[number] + size - edges[number + 1] if number + 2 < len(edges) else 0

    @classmethod
    def _reach(cls, edges: Sequence[int], size: int, number: int) -> int:
        """Return how many pixels of a window the one before reaches into."""
        return cls._shared(edges, size, number - 1) if number > 0 else 0

    @staticmethod
    def _scale(logits: Tensor, weights: Tensor, reach: int, num_finished: int) -> None:
        """Multiply columns by their weights, where these are not 1."""
        if reach < num_finished:
            logits[:, :, :reach] *= weights[:reach]
            logits[:, :, num_finished:] *= weights[num_finished:]
        else:
            logits *= weights
