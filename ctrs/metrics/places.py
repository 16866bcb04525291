"""Where on a scene the errors are: counted cell by cell, so that the worst and best places can be shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ctrs.errors import UsageError
from ctrs.metrics.blocks import ScoredBlock

_MIN_LABELLED = 0.5
"""Least share of a cell that must count, for the cell to be a place at all."""

_MIN_OTHER = 0.05
"""Least share of the counted pixels that do not belong to the commonest class, for a place to be among the best."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A cell of a scene.

    Args:
        scene: Name of the scene.
        row_off: Its first row.
        col_off: Its first column.
        height: Rows; fewer than the cells' edge at the far border of the scene.
        width: Columns.
        errors: Pixels predicted as another class than the true one, or not at all.
        counted: Pixels that count.
        others: Counted pixels that do not belong to the cell's commonest class.
    """

    scene: str
    row_off: int
    col_off: int
    height: int
    width: int
    errors: int
    counted: int
    others: int

    @property
    def error_rate(self) -> float:
        """Share of the counted pixels that are wrong; NaN where none counts."""
        return self.errors / self.counted if self.counted else float("nan")


class PlaceCounts:
    """Counts errors by square cells of a scene.

    Blocks may end anywhere in a cell. Three numbers are kept for each cell that is finished, and one for each class
    besides only for cells of rows that are still to come.

    Args:
        cell_px: Edge of the cells.
        num_classes: Number of classes K.
        counted: Classes whose true pixels count; None: all.

    >>> counts = PlaceCounts(2, num_classes=2)
    >>> truth = np.array([[0, 0, 1, 1], [0, 1, 1, 255]], np.uint8)
    >>> pred = np.array([[0, 1, 1, 1], [0, 1, 1, 0]], np.uint8)
    >>> everything = (slice(0, 2), slice(0, 4))
    >>> counts.update(
    ...     ScoredBlock(truth=truth, pred=pred, core=everything, row_off=0, col_off=0, scene_shape=(2, 4)))
    >>> counts.errors.tolist(), counts.counted.tolist(), counts.others.tolist()
    ([[1, 0]], [[4, 3]], [[1, 0]])
    """

    def __init__(self, cell_px: int, *, num_classes: int, counted: Sequence[int] | None = None) -> None:
        if cell_px < 1 or not 1 <= num_classes <= 255:
            raise UsageError(
                f"places: cell_px {cell_px} and num_classes {num_classes} found, expected 1 or more and 1 to 255"
            )
        self.cell_px = cell_px
        self.num_classes = num_classes
        self._counts_class = np.zeros(256, bool)
        self._counts_class[list(range(num_classes) if counted is None else counted)] = True
        self._scene_shape: tuple[int, int] | None = None
        self._errors = self._counted = self._others = np.zeros((0, 0), np.int64)
        self._open: dict[int, npt.NDArray[np.int64]] = {}
        """Pixels by class (cols, K) of the rows of cells that are not finished."""

    def update(self, block: ScoredBlock) -> None:
        """Count the pixels of the next block; all blocks belong to one scene.

        Raises:
            UsageError: The block belongs to another scene, by its size.
        """
        if self._scene_shape is None:
            self._scene_shape = block.scene_shape
            height, width = block.scene_shape
            shape = (-(-height // self.cell_px), -(-width // self.cell_px))
            self._errors, self._counted, self._others = (np.zeros(shape, np.int64) for _ in range(3))
        elif self._scene_shape != block.scene_shape:
            raise UsageError(f"places: block of a scene {block.scene_shape} found, expected one of {self._scene_shape}")
        self._finish(before=block.row_off // self.cell_px)
        truth, pred = block.core_truth, block.core_pred
        rows = _cuts(block.row_off, truth.shape[0], self.cell_px)
        cols = _cuts(block.col_off, truth.shape[1], self.cell_px)
        for row, top, bottom in rows:
            by_class = self._open.setdefault(row, np.zeros((self._errors.shape[1], self.num_classes), np.int64))
            for col, left, right in cols:
                true = truth[top:bottom, left:right]
                # One count of the 256 values tells the classes, another one of those that are wrong.
                found = np.bincount(true.ravel(), minlength=256) * self._counts_class
                wrong = np.bincount(true[true != pred[top:bottom, left:right]], minlength=256) * self._counts_class
                by_class[col] += found[: self.num_classes]
                self._errors[row, col] += wrong.sum()
                self._counted[row, col] += found.sum()

    def _finish(self, before: int | None = None) -> None:
        """Sum up rows of cells to which no more pixels come."""
        for row in [row for row in self._open if before is None or row < before]:
            by_class = self._open.pop(row)
            self._others[row] = by_class.sum(axis=1) - by_class.max(axis=1)

    @property
    def errors(self) -> npt.NDArray[np.int64]:
        """Wrong pixels by cell, (rows, cols)."""
        return self._errors

    @property
    def counted(self) -> npt.NDArray[np.int64]:
        """Pixels by cell that count, (rows, cols)."""
        return self._counted

    @property
    def others(self) -> npt.NDArray[np.int64]:
        """Counted pixels by cell that do not belong to the cell's commonest class, (rows, cols)."""
        shown = self._others.copy()
        for row, by_class in self._open.items():
            shown[row] = by_class.sum(axis=1) - by_class.max(axis=1)
        return shown

    def places(self, scene: str) -> list[Place]:
        """Return the cells of which at least half counts, row by row.

        Args:
            scene: Name of the scene.
        """
        if self._scene_shape is None:
            return []
        height, width = self._scene_shape
        others = self.others
        found = []
        for row, col in zip(*np.nonzero(self._counted), strict=True):
            top, left = int(row) * self.cell_px, int(col) * self.cell_px
            place = Place(
                scene=scene,
                row_off=top,
                col_off=left,
                height=min(self.cell_px, height - top),
                width=min(self.cell_px, width - left),
                errors=int(self._errors[row, col]),
                counted=int(self._counted[row, col]),
                others=int(others[row, col]),
            )
            # A sliver at the border is no place, unless the scene itself is one.
            whole = min(self.cell_px, height) * min(self.cell_px, width)
            if place.counted >= _MIN_LABELLED * whole:
                found.append(place)
        return found


def worst_places(places: Sequence[Place], number: int) -> list[Place]:
    """Return the places with the greatest share of errors, the worst first; among equal ones, the first come first.

    Places without errors are never among them.
    """
    wrong = [place for place in places if place.errors]
    return sorted(wrong, key=lambda place: -place.error_rate)[:number]


def best_places(places: Sequence[Place], number: int) -> list[Place]:
    """Return the places with the least share of errors, the best first; among equal ones, those of many classes.

    Only places in which more than one class is true are among them, lest all be empty fields.
    """
    varied = [place for place in places if place.others >= _MIN_OTHER * place.counted]
    return sorted(varied, key=lambda place: (place.error_rate, -place.others / place.counted))[:number]


def pooled_places(runs: Sequence[Sequence[Place]]) -> list[Place]:
    """Return the places of one truth under several predictions, with the sums of their pixels.

    Args:
        runs: Places of each prediction, of the same cells in the same order.
    """
    return [
        replace(
            of_runs[0],
            errors=sum(place.errors for place in of_runs),
            counted=sum(place.counted for place in of_runs),
            others=sum(place.others for place in of_runs),
        )
        for of_runs in zip(*runs, strict=True)
    ]


def _cuts(offset: int, length: int, cell_px: int) -> list[tuple[int, int, int]]:
    """Return the cells that a line of pixels lies in, each with its first pixel and the one after its last.

    >>> _cuts(3, 4, 5)
    [(0, 0, 2), (1, 2, 4)]
    """
    cells = range(offset // cell_px, (offset + length - 1) // cell_px + 1)
    return [(cell, max(0, cell * cell_px - offset), min(length, (cell + 1) * cell_px - offset)) for cell in cells]
