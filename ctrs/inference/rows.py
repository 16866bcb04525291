"""Windows in, finished scene rows out: the loop between reader, network and accumulator.

K classes, P classes whose probabilities are wanted, n x m finished pixels, W columns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ctrs.classes import IGNORE_INDEX, Mask
from ctrs.config import Blend
from ctrs.inference.blending import StripAccumulator, axis_weights
from ctrs.inference.pixels import ValidRows, WindowBatch
from ctrs.inference.products import Products
from ctrs.inference.window_plan import WindowPlan

_MOST_BYTES_AT_ONCE = 2**29
"""Mean logits of a row of windows that a GPU may hold, for its classes to be compared at once."""


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
    windows: Generator[ValidRows | WindowBatch],
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
        forward: Returns the logits (B, K, h, w) of a batch.
        windows: From ``read_windows``; closed at the end.
        plan: The windows.
        products: What is made of the logits.
        blend: Weights of overlapping windows.
        device: Where the logits live.
        first_row: Row of windows that ``windows`` begins with.
        report: Called after each batch.
    """
    size = plan.window_px
    scene_col_weights = axis_weights(plan.scene_col_starts, size, plan.width, blend, device=device)
    first_col = plan.scene_col_starts.index(plan.col_starts[0])
    accumulator = StripAccumulator(
        num_classes=products.classes.num_classes,
        row_edges=plan.row_edges,
        col_edges=plan.col_edges,
        row_weights=axis_weights(plan.row_starts, size, plan.height, blend, device=device),
        col_weights=scene_col_weights[first_col : first_col + len(plan.col_starts)],
    )
    valid: dict[int, npt.NDArray[np.bool_]] = {}
    places = ((row, col) for row in range(first_row, len(plan.row_starts)) for col in range(len(plan.col_starts)))
    rows = _RowsBeingMade(plan, first_row, products, device)
    made: deque[_RowsOnTheirWay] = deque()

    def put(place: tuple[int, int], logits: Tensor | None) -> None:
        row, col = place
        with torch.inference_mode():
            for top, sums in accumulator.put(row, col, logits):
                if col >= plan.num_repeated:
                    rows.place(top, col, sums)
            if col + 1 == len(plan.col_starts):
                made.append(rows.finish(valid.pop(row)))

    # While a GPU's rows are on their way to memory, it goes on with the next.
    behind = 1 if device.type == "cuda" else 0
    with closing(windows) as items:
        for item in items:
            if isinstance(item, ValidRows):
                valid[item.row] = item.valid
                continue
            for logits, seen in zip(forward(item), item.places, strict=True):
                for place in places:
                    put(place, logits if place == seen else None)
                    if place == seen:
                        break
                while len(made) > behind:
                    yield made.popleft().arrived()
            item.done()
            if report is not None:
                report(item)
    for place in places:
        put(place, None)
        while len(made) > behind:
            yield made.popleft().arrived()
    while made:
        yield made.popleft().arrived()


@dataclass(frozen=True, kw_only=True)
class _RowsOnTheirWay:
    """Finished rows that a GPU may still be copying to memory."""

    row_off: int
    valid: npt.NDArray[np.bool_]
    parts: dict[str, Tensor]
    copied: torch.cuda.Event | None

    def arrived(self) -> FinishedRows:
        """Wait for the copies and return the rows."""
        if self.copied is not None:
            self.copied.synchronize()
        arrays = {name: part.numpy() for name, part in self.parts.items()}
        if not self.valid.all():
            np.copyto(arrays["mask"], IGNORE_INDEX, where=~self.valid)
        return FinishedRows(row_off=self.row_off, valid=self.valid, **arrays)


class _RowsBeingMade:
    """Products of one row of windows, put together from left to right."""

    def __init__(self, plan: WindowPlan, first_row: int, products: Products, device: torch.device) -> None:
        self._plan = plan
        self._row = first_row
        self._products = products
        self._num_classes = products.classes.num_classes
        self._device = device
        example = products.make(torch.zeros((self._num_classes, 1, 1), device=device))
        self._example = {name: part for name, part in vars(example).items() if part is not None}
        self._made: dict[str, Tensor] = {}
        # A GPU is asked once for a row of windows rather than for each window: starting its work takes time.
        num_cols = plan.columns.stop - plan.columns.start
        row_bytes = 4 * self._num_classes * min(plan.window_px, plan.height) * num_cols
        self._at_once = device.type == "cuda" and row_bytes <= _MOST_BYTES_AT_ONCE
        self._sums: Tensor | None = None

    def place(self, top: int, col: int, sums: Tensor) -> None:
        """Put in mean logits (K, n, m): from a row on, counted from the first, of what a column of windows finishes."""
        offset = self._plan.col_edges[col] - self._plan.columns.start
        rows, columns = slice(top, top + sums.shape[1]), slice(offset, offset + sums.shape[2])
        if self._at_once:
            if self._sums is None:
                self._sums = sums.new_zeros((self._num_classes, *self._size()))
            self._sums[:, rows, columns] = sums
            return
        block = self._products.make(sums)
        if not self._made:
            self._begin()
        for name, whole in self._made.items():
            whole[..., rows, columns] = getattr(block, name)

    def finish(self, valid: npt.NDArray[np.bool_]) -> _RowsOnTheirWay:
        """Return the rows and go on with the next."""
        if self._sums is not None:
            block = self._products.make(self._sums)
            self._made = {name: getattr(block, name) for name in self._example}
        elif not self._made:
            self._begin()
        parts, copied = self._made, None
        if self._device.type == "cuda":
            parts = {
                name: torch.empty(part.shape, dtype=part.dtype, pin_memory=True).copy_(part, non_blocking=True)
                for name, part in self._made.items()
            }
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record(torch.cuda.current_stream(self._device))
        row_off = self._plan.row_starts[self._row]
        self._row += 1
        self._made, self._sums = {}, None
        return _RowsOnTheirWay(row_off=row_off, valid=valid, parts=parts, copied=copied)

    def _begin(self) -> None:
        size = self._size()
        self._made = {name: part.new_zeros((*part.shape[:-2], *size)) for name, part in self._example.items()}

    def _size(self) -> tuple[int, int]:
        plan = self._plan
        return plan.row_edges[self._row + 1] - plan.row_edges[self._row], plan.columns.stop - plan.columns.start
