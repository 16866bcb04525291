"""Which windows of a scene the network sees, in which batches, and in which blocks of columns."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

from ctrs.raster.windows import spread_starts, stride_for_overlap

_BATCHES_IN_GROUP = 4


@dataclass(frozen=True, kw_only=True)
class WindowPlan:
    """Which windows of a scene the network sees, and in which batches.

    Windows are spread evenly over the scene. Batches run across rows of windows within a group of rows and never cross
    its end. A run that goes on after a stop begins at a group, so it forms the same batches, and a batch's rounding is
    the same, as if it had never stopped.

    A wide scene may be mapped in blocks of columns (``in_blocks``), each over the whole height. A block sees again
    the windows left of it that reach into it, so that its sums have the same terms as those of the whole.

    Args:
        height: Scene rows.
        width: Scene columns.
        window_px: Window edge in scene pixels.
        overlap: Share of the window that neighbours have in common, at least.
        batch_size: Windows in a batch.
        network_px: Edge that windows are resized to for the network; None: as they are.
        antialias: Whether every pixel counts where that makes fewer of them.
        block: First column of windows of a block of columns, and the one after its last; None: the whole width.
    """

    height: int
    width: int
    window_px: int
    overlap: float
    batch_size: int
    network_px: int | None = None
    antialias: bool = False
    block: tuple[int, int] | None = None

    @property
    def stride_px(self) -> int:
        """Largest step between windows."""
        return stride_for_overlap(self.window_px, self.overlap)

    @cached_property
    def row_starts(self) -> list[int]:
        """First scene row of each row of windows."""
        return spread_starts(self.height, self.window_px, self.stride_px)

    @cached_property
    def scene_col_starts(self) -> list[int]:
        """First scene column of each column of windows of the whole scene."""
        return spread_starts(self.width, self.window_px, self.stride_px)

    @cached_property
    def num_repeated(self) -> int:
        """Columns of windows left of a block that reach into it."""
        starts, (first, _) = self.scene_col_starts, self._columns
        return sum(start + self.window_px > starts[first] for start in starts[:first])

    @cached_property
    def col_starts(self) -> list[int]:
        """First scene column of each column of windows of this block, repeated ones included."""
        first, end = self._columns
        return self.scene_col_starts[first - self.num_repeated : end]

    @cached_property
    def row_edges(self) -> list[int]:
        """Scene rows where the part that is finished by a row of windows begins, and the scene's height."""
        return [*self.row_starts, self.height]

    @cached_property
    def col_edges(self) -> list[int]:
        """Scene columns where the part that is finished by a column of windows begins, and where the block ends."""
        end = self._columns[1]
        return [*self.col_starts, *self.scene_col_starts[end : end + 1]] + (
            [self.width] if end == len(self.scene_col_starts) else []
        )

    @property
    def columns(self) -> slice:
        """Scene columns that this block writes."""
        return slice(self.col_starts[self.num_repeated], self.col_edges[-1])

    @property
    def columns_read(self) -> slice:
        """Scene columns that the windows of this block see."""
        return slice(self.col_starts[0], min(self.col_starts[-1] + self.window_px, self.width))

    @property
    def rows_in_group(self) -> int:
        """Rows of windows in a group: enough for some batches, so that few are not full."""
        return math.ceil(_BATCHES_IN_GROUP * self.batch_size / len(self.col_starts))

    @property
    def num_windows(self) -> int:
        """Windows of this block."""
        return len(self.row_starts) * len(self.col_starts)

    def first_row_for(self, scene_row: int) -> int:
        """Return the row of windows to begin with so that all scene rows from ``scene_row`` on come out complete."""
        touching = next(i for i, start in enumerate(self.row_starts) if start + self.window_px > scene_row)
        return touching // self.rows_in_group * self.rows_in_group

    def in_blocks(self, count: int) -> tuple[WindowPlan, ...]:
        """Return the plans of ``count`` blocks of columns, of about as many windows each; fewer if there are fewer."""
        columns = len(self.scene_col_starts)
        count = max(1, min(count, columns))
        if count == 1:
            return (self,)
        edges = [columns * number // count for number in range(count + 1)]
        return tuple(replace(self, block=pair) for pair in pairwise(edges))

    @property
    def _columns(self) -> tuple[int, int]:
        return self.block or (0, len(self.scene_col_starts))
