"""The piece of a scene that accumulators of scores are given at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


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
