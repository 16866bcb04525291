"""Windows in, finished scene rows out: the loop between reader, network and accumulator.

K classes, h x w a window, W the scene's width.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ctrs.classes import IGNORE_INDEX, Mask
from ctrs.config import Blend
from ctrs.inference.blending import RowBandAccumulator, confidence_of_largest, largest_class, window_weights
from ctrs.inference.pixels import ValidRows, WindowBatch, WindowPlan
from ctrs.inference.prefetch import read_ahead

_CACHED_ROWS = 32
"""Rows whose logits are divided at a time on the CPU: what stays in its caches takes less time."""


@dataclass(frozen=True, kw_only=True)
class FinishedRows:
    """Scene rows that no window touches any more.

    Args:
        row_off: First scene row.
        sums: (K, n, W) weighted sums of logits; the largest is the class.
        valid: (n, W), True = valid.
        mean_logits: Returns the sums divided by the weights, for a slice of these rows.
    """

    row_off: int
    sums: Tensor
    valid: npt.NDArray[np.bool_]
    mean_logits: Callable[[slice], Tensor]

    def mask(self) -> Mask:
        """Return the class of each pixel (n, W), ``IGNORE_INDEX`` where the scene is invalid."""
        mask: Mask = largest_class(self.sums).cpu().numpy()
        mask[~self.valid] = IGNORE_INDEX
        return mask

    def confidence(self) -> npt.NDArray[np.float32]:
        """Return the probability of each pixel's class by its mean logits (n, W), also where the scene is invalid."""
        if self.sums.device.type != "cpu":
            on_device: npt.NDArray[np.float32] = confidence_of_largest(self.mean_logits(slice(None))).cpu().numpy()
            return on_device
        confidence = torch.empty(self.sums.shape[1:])
        for top in range(0, len(confidence), _CACHED_ROWS):
            rows = slice(top, top + _CACHED_ROWS)
            confidence[rows] = confidence_of_largest(self.mean_logits(rows))
        values: npt.NDArray[np.float32] = confidence.numpy()
        return values


def finished_rows(
    forward: Callable[[WindowBatch], Tensor],
    windows: Iterator[ValidRows | WindowBatch],
    plan: WindowPlan,
    *,
    num_classes: int,
    blend: Blend,
    device: torch.device,
    first_row: int = 0,
    report: Callable[[WindowBatch], None] | None = None,
) -> Generator[FinishedRows]:
    """Run the network over windows and yield blended rows from the top down.

    Args:
        forward: Returns the logits (B, K, h, w) of a batch.
        windows: From ``read_windows``, run in another thread.
        plan: The windows.
        num_classes: K.
        blend: Weights of overlapping windows.
        device: Where the logits live.
        first_row: Row of windows that ``windows`` begins with.
        report: Called after each batch.
    """
    weights = window_weights(plan.window_px, plan.stride_px, blend, device=device)
    accumulator = RowBandAccumulator(
        num_classes=num_classes,
        width=plan.width,
        height=plan.height,
        row_starts=plan.row_starts,
        col_starts=plan.col_starts,
        weights=weights,
    )
    valid: dict[int, npt.NDArray[np.bool_]] = {}
    row = first_row

    def finish(row: int) -> FinishedRows:
        sums = accumulator.finish_row(row)
        return FinishedRows(
            row_off=plan.row_starts[row],
            sums=sums,
            valid=valid.pop(row),
            mean_logits=lambda rows: accumulator.normalize(sums, row, rows),
        )

    with closing(read_ahead(windows)) as items:
        for item in items:
            if isinstance(item, ValidRows):
                valid[item.row] = item.valid
                continue
            logits = forward(item)
            for window_logits, (window_row, col) in zip(logits, item.places, strict=True):
                while row < window_row:
                    yield finish(row)
                    row += 1
                accumulator.add(window_logits, plan.col_starts[col])
            if report is not None:
                report(item)
    while row < len(plan.row_starts):
        yield finish(row)
        row += 1
