"""Windows in, finished scene rows out: the loop between reader, network and accumulator.

K classes, P classes whose probabilities are wanted, n x m finished pixels, W columns.
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
from ctrs.inference.blending import StripAccumulator, axis_weights
from ctrs.inference.pixels import ValidRows, WindowBatch, WindowPlan
from ctrs.inference.prefetch import read_ahead
from ctrs.inference.products import ProductBlock, Products


@dataclass(frozen=True, kw_only=True)
class FinishedRows:
    """Scene rows that no window touches any more, in the columns that the plan writes; all arrays are the receiver's.

    Args:
        row_off: First scene row.
        valid: (n, W), True = valid.
        mask: uint8 (n, W), ``IGNORE_INDEX`` where the scene is invalid.
        confidence: float32 (n, W), any value where the scene is invalid; None unless wanted.
        probabilities: (P, n, W) as ``ProductBlock`` has them, likewise.
        logits: Mean logits, float32 (K, n, W), likewise.
    """

    row_off: int
    valid: npt.NDArray[np.bool_]
    mask: Mask
    confidence: npt.NDArray[np.float32] | None = None
    probabilities: npt.NDArray[np.uint8] | npt.NDArray[np.float16] | None = None
    logits: npt.NDArray[np.float32] | None = None


def finished_rows(
    forward: Callable[[WindowBatch], Tensor],
    windows: Iterator[ValidRows | WindowBatch],
    plan: WindowPlan,
    *,
    products: Products,
    blend: Blend,
    device: torch.device,
    first_row: int = 0,
    report: Callable[[WindowBatch], None] | None = None,
) -> Generator[FinishedRows]:
    """Run the network over windows and yield blended rows from the top down.

    Args:
        forward: Returns the logits (B, K, h, w) of a batch, which are written to.
        windows: From ``read_windows``, run in another thread.
        plan: The windows.
        products: What is made of the logits.
        blend: Weights of overlapping windows.
        device: Where the logits live.
        first_row: Row of windows that ``windows`` begins with.
        report: Called after each batch.
    """
    size = plan.window_px
    all_columns = axis_weights(plan.scene_col_starts, size, plan.width, blend, device=device)
    first_col = plan.scene_col_starts.index(plan.col_starts[0])
    accumulator = StripAccumulator(
        num_classes=products.classes.num_classes,
        row_edges=plan.row_edges,
        col_edges=plan.col_edges,
        row_weights=axis_weights(plan.row_starts, size, plan.height, blend, device=device),
        col_weights=all_columns[first_col : first_col + len(plan.col_starts)],
    )
    valid: dict[int, npt.NDArray[np.bool_]] = {}
    places = ((row, col) for row in range(first_row, len(plan.row_starts)) for col in range(len(plan.col_starts)))
    example = products.make(torch.zeros((products.classes.num_classes, 1, 1), device=device))
    rows = _RowsBeingMade(plan, first_row, example)

    def put(place: tuple[int, int], logits: Tensor | None) -> FinishedRows | None:
        with torch.inference_mode():
            sums = accumulator.put(*place, logits)
            if sums is not None and place[1] >= plan.num_repeated:
                rows.place(place[1], products.make(sums))
        return rows.finish(valid.pop(place[0])) if place[1] + 1 == len(plan.col_starts) else None

    with closing(read_ahead(windows)) as items:
        for item in items:
            if isinstance(item, ValidRows):
                valid[item.row] = item.valid
                continue
            for logits, seen in zip(forward(item), item.places, strict=True):
                for place in places:
                    finished = put(place, logits if place == seen else None)
                    if finished is not None:
                        yield finished
                    if place == seen:
                        break
            if report is not None:
                report(item)
    for place in places:
        if (finished := put(place, None)) is not None:
            yield finished


class _RowsBeingMade:
    """Products of one row of windows, put together from left to right."""

    def __init__(self, plan: WindowPlan, first_row: int, example: ProductBlock) -> None:
        self._plan = plan
        self._row = first_row
        self._example = {name: part for name, part in vars(example).items() if part is not None}
        self._made: dict[str, Tensor] = {}

    def place(self, col: int, block: ProductBlock) -> None:
        """Put in what was made of the pixels that a column of windows finishes."""
        if not self._made:
            self._begin()
        offset = self._plan.col_edges[col] - self._plan.columns.start
        for name, rows in self._made.items():
            part = getattr(block, name)
            rows[..., offset : offset + part.shape[-1]] = part

    def finish(self, valid: npt.NDArray[np.bool_]) -> FinishedRows:
        """Return the rows and go on with the next."""
        if not self._made:
            self._begin()
        arrays = {name: rows.cpu().numpy() for name, rows in self._made.items()}
        if not valid.all():
            np.copyto(arrays["mask"], IGNORE_INDEX, where=~valid)
        finished = FinishedRows(row_off=self._plan.row_starts[self._row], valid=valid, **arrays)
        self._row += 1
        self._made = {}
        return finished

    def _begin(self) -> None:
        plan = self._plan
        size = (plan.row_edges[self._row + 1] - plan.row_edges[self._row], plan.columns.stop - plan.columns.start)
        self._made = {name: part.new_zeros((*part.shape[:-2], *size)) for name, part in self._example.items()}
