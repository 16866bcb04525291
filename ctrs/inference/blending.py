"""Overlapping windows become one map: weights that add up to 1, and an accumulator of strips.

Only what a later window still touches is kept: K x overlap x W for the rows below, K x h x overlap for the columns
beside. Where one window alone lies, its logits are the result as they are. All lies in memory with the classes of a
pixel beside each other, as networks leave their logits. K classes, h x w a window, W the width of the scene or of a
block of its columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

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


_CACHED_VALUES = 2**20
"""Logits that are blended at a time on the CPU: what stays in its caches takes less time."""


class StripAccumulator:
    """Mean of overlapping windows; keeps only the strips that later windows touch.

    Windows come row of windows by row of windows, each row from the left. A window finishes the pixels from its own
    first row and column to those of the next window: ``put`` yields them. The sum of a pixel has its terms in one
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
        self._rows = _Axis(row_edges, row_weights)
        self._cols = _Axis(col_edges, col_weights)
        like, height, width = col_weights[0], self._rows.size, self._cols.size
        step = height if like.device.type != "cpu" else rows_at_a_time(num_classes, height, width)
        self._piece = _classes_last(like, num_classes, step, width)
        self._below = _classes_last(like, num_classes, self._rows.most_shared, col_edges[-1] - col_edges[0])
        self._beside = _classes_last(like, num_classes, height, self._cols.most_shared)
        self._factors = _classes_last(like, num_classes, 1, width)
        self._is_above = [False] * len(col_weights)
        self._is_beside = False

    def put(self, row: int, col: int, logits: Tensor | None) -> Iterator[tuple[int, Tensor]]:
        """Add the next window; yield the mean logits of the pixels that it finishes.

        Args:
            row: Row of windows.
            col: Column of windows.
            logits: (K, h, w); parts beyond a small scene are cut off. None for a window without a valid pixel: what
                others say of its pixels is dropped, since all of them are invalid.

        Yields:
            Some rows at a time, which stay in a CPU's caches: the first one, counted from the window's first, and
            float32 (K, n, m), classes last in memory, good until the next is asked for.
        """
        rows, cols = self._rows, self._cols
        is_beside, is_above = self._is_beside and col > 0, self._is_above[col]
        self._is_beside = self._is_above[col] = logits is not None
        if logits is None:
            return
        num_rows, num_cols = rows.finished(row), cols.finished(col)
        offset = cols.edges[col] - cols.edges[0]
        strip = self._below[:, :, offset : offset + num_cols]
        # The same for each class, so that a row of pixels with all their classes is multiplied in one go.
        factors = self._factors.copy_(cols.weights[col].expand_as(self._factors))
        for top in range(0, rows.size, self._piece.shape[1]):
            end = min(top + self._piece.shape[1], rows.size)
            piece = self._piece[:, : end - top]
            piece.copy_(logits[:, top:end, : cols.size])
            beside = self._beside[:, top:end]
            # Two steps, not addcmul: a fused multiply-add may round equal classes differently and break ties at random.
            if (reach := cols.reach(col)) > 0:
                left = piece[:, :, :reach]
                left *= factors[:, :, :reach]
                if is_beside:
                    left += beside[:, :, :reach]
            if (shared := cols.shared(col)) > 0:
                first = max(num_cols, reach)
                torch.mul(piece[:, :, first:], factors[:, :, first:], out=beside[:, :, first - num_cols : shared])
                if first > num_cols:
                    beside[:, :, : first - num_cols] = piece[:, :, num_cols:first]
            part = piece[:, :, :num_cols]
            if (reach := min(rows.reach(row), end)) > top:
                upper = part[:, : reach - top]
                upper *= rows.weights[row][top:reach, None]
                if is_above:
                    upper += strip[:, top:reach]
            if (first := max(num_rows, top)) < end and rows.shared(row) > 0:
                middle = min(max(first, reach), end)
                kept = strip[:, first - num_rows : end - num_rows]
                kept[:, : middle - first] = part[:, first - top : middle - top]
                torch.mul(part[:, middle - top :], rows.weights[row][middle:end, None], out=kept[:, middle - first :])
            if top < num_rows:
                yield top, part[:, : num_rows - top]


def rows_at_a_time(num_classes: int, height: int, width: int) -> int:
    """Return how many rows of a window of logits are blended at a time on the CPU."""
    return min(height, max(1, _CACHED_VALUES // (num_classes * width)))


def _classes_last(like: Tensor, num_classes: int, height: int, width: int) -> Tensor:
    """Return memory for (K, h, w) in which a pixel's classes are beside each other."""
    return like.new_empty((height, width, num_classes)).permute(2, 0, 1)


class _Axis:
    """Windows along one axis: where they lie on each other.

    Args:
        edges: First pixel of each window, and where the last one's finished pixels end.
        weights: Of each window.
    """

    def __init__(self, edges: Sequence[int], weights: Sequence[Tensor]) -> None:
        self.edges = tuple(edges)
        self.weights = tuple(weights)
        self.size = len(weights[0])
        self.most_shared = max(self.shared(number) for number in range(len(weights)))

    def finished(self, number: int) -> int:
        """Return how many pixels, from its first on, a window finishes."""
        return self.edges[number + 1] - self.edges[number]

    def shared(self, number: int) -> int:
        """Return how many pixels behind those later windows touch too."""
        return self.size - self.finished(number) if number + 1 < len(self.weights) else 0

    def reach(self, number: int) -> int:
        """Return how many pixels of a window, from its first on, earlier windows touch too."""
        return self.shared(number - 1) if number > 0 else 0
