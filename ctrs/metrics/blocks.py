"""The piece of a scene that accumulators of scores are given at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ctrs.errors import LabelError, UsageError


@dataclass(frozen=True, kw_only=True)
class ScoredBlock:
    """A block of a scene with what surrounds it, as far as the scene reaches.

    Blocks come row by row from the upper left, each row from the left; together their cores cover the scene once, and
    all but the last of a row, or of a column, have the same size.

    Args:
        truth: uint8 (h, w), class index or ``ignore_index``, the halo included.
        pred: uint8 (h, w), likewise.
        core: Rows and columns of these arrays that are the block itself; what lies around them is the halo.
        row_off: First row of the core in the scene.
        col_off: First column of the core in the scene.
        scene_shape: (H, W) of the scene.
        confidence: float32 of the core's shape, in [0, 1]: probability of the predicted class; None where it is not
            known.
    """

    truth: npt.NDArray[np.uint8]
    pred: npt.NDArray[np.uint8]
    core: tuple[slice, slice]
    row_off: int
    col_off: int
    scene_shape: tuple[int, int]
    confidence: npt.NDArray[np.float32] | None = None

    @property
    def core_truth(self) -> npt.NDArray[np.uint8]:
        """True mask without the halo."""
        return self.truth[self.core]

    @property
    def core_pred(self) -> npt.NDArray[np.uint8]:
        """Predicted mask without the halo."""
        return self.pred[self.core]

    @property
    def is_first(self) -> bool:
        """Whether the scene begins with this block."""
        return self.row_off == 0 and self.col_off == 0

    @property
    def is_last(self) -> bool:
        """Whether the scene ends with this block."""
        h, w = self.core_truth.shape
        return (self.row_off + h, self.col_off + w) == self.scene_shape

    def reaching(self, halo_px: int) -> ScoredBlock:
        """Return the block with a halo of ``halo_px``, or as far as the scene reaches.

        Raises:
            UsageError: The halo of this block is narrower, or its arrays differ in shape.
        """
        if self.truth.shape != self.pred.shape:
            raise UsageError(f"scored block: truth {self.truth.shape} and prediction {self.pred.shape} differ in shape")
        places, cores = [], []
        for core, size, offset, scene in zip(
            self.core, self.truth.shape, (self.row_off, self.col_off), self.scene_shape, strict=True
        ):
            start, stop, _ = core.indices(size)
            before, after = min(halo_px, offset), min(halo_px, scene - offset - (stop - start))
            if start < before or size - stop < after:
                raise UsageError(
                    f"scored block at row {self.row_off}, column {self.col_off}: halo of {start} and {size - stop} px "
                    f"found, expected {before} and {after}; cut blocks with a halo of {halo_px} px"
                )
            places.append(slice(start - before, stop + after))
            cores.append(slice(before, before + stop - start))
        place = (places[0], places[1])
        return ScoredBlock(
            truth=self.truth[place],
            pred=self.pred[place],
            core=(cores[0], cores[1]),
            row_off=self.row_off,
            col_off=self.col_off,
            scene_shape=self.scene_shape,
            confidence=self.confidence,
        )

    def require_classes(self, num_classes: int, ignore_index: int) -> None:
        """Check the values of both masks.

        Raises:
            LabelError: One is neither a class index nor ``ignore_index``.
        """
        for what, mask in (("truth", self.truth), ("prediction", self.pred)):
            strange = mask >= num_classes
            strange &= mask != ignore_index
            if strange.any():
                raise LabelError(
                    f"{what}: value {mask[strange][0]} found, expected class indices 0 to {num_classes - 1} or "
                    f"{ignore_index}; is this mask made for another class table?"
                )


def scored_blocks(
    truth: npt.NDArray[np.uint8],
    pred: npt.NDArray[np.uint8],
    *,
    confidence: npt.NDArray[np.float32] | None = None,
    block_px: int = 1024,
    halo_px: int = 0,
) -> Iterator[ScoredBlock]:
    """Cut a scene that is in memory into blocks.

    Args:
        truth: uint8 (H, W), class index or ``ignore_index``.
        pred: uint8 (H, W), likewise.
        confidence: float32 (H, W) in [0, 1], or None.
        block_px: Edge of the blocks; the last ones of rows and columns are what is left.
        halo_px: As wide as the widest ``halo_px`` of the accumulators that read the blocks.

    Raises:
        UsageError: The shapes differ.

    >>> mask = np.zeros((5, 4), np.uint8)
    >>> [(cut.row_off, cut.col_off, cut.truth.shape) for cut in scored_blocks(mask, mask, block_px=3, halo_px=1)]
    [(0, 0, (4, 4)), (0, 3, (4, 2)), (3, 0, (3, 4)), (3, 3, (3, 2))]
    """
    if truth.shape != pred.shape or (confidence is not None and confidence.shape != truth.shape):
        raise UsageError(f"truth {truth.shape} and prediction {pred.shape} (or its confidence) differ in shape")
    H, W = truth.shape
    for row in range(0, H, block_px):
        for col in range(0, W, block_px):
            rows, cols = min(block_px, H - row), min(block_px, W - col)
            top, left = max(row - halo_px, 0), max(col - halo_px, 0)
            place = (slice(top, row + rows + halo_px), slice(left, col + cols + halo_px))
            yield ScoredBlock(
                truth=truth[place],
                pred=pred[place],
                core=(slice(row - top, row - top + rows), slice(col - left, col - left + cols)),
                row_off=row,
                col_off=col,
                scene_shape=(H, W),
                confidence=None if confidence is None else confidence[row : row + rows, col : col + cols],
            )
