"""What one pass over a scene counted, each pixel once: what the proof that nothing was lost is made of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

PREVIEW_PX = 256
"""Longest edge of a scene's preview."""

PREVIEW_BYTES = 64 * 2**20
"""Most bytes of the previews of all scenes."""


@dataclass(frozen=True, kw_only=True)
class Preview:
    """Every n-th pixel of a scene, from pixel (0, 0) on.

    Args:
        step: n.
        pixels: (C, h, w), raw values.
        valid: (h, w), True = valid.
        mask: (h, w), class indices, 255 where ignored.
    """

    step: int
    pixels: npt.NDArray[Any]
    valid: npt.NDArray[np.bool_]
    mask: npt.NDArray[np.uint8]


def preview_edge(num_scenes: int, pixel_bytes: int) -> int:
    """Return the longest edge of each scene's preview: shorter where scenes are many or have many bands.

    >>> preview_edge(24, 5), preview_edge(6000, 5)
    (256, 47)
    """
    return max(16, min(PREVIEW_PX, math.isqrt(PREVIEW_BYTES // (num_scenes * pixel_bytes))))


def preview_step(height: int, width: int, edge: int = PREVIEW_PX) -> int:
    """Return the step of the preview of a scene of this size.

    >>> preview_step(6000, 6000), preview_step(100, 100)
    (24, 1)
    """
    return max(1, -(-max(height, width) // edge))


@dataclass(frozen=True, kw_only=True)
class SceneFacts:
    """Counts over a scene's grid.

    Ground that no tile holds, because of ``min_valid`` or because its tiles are in no split, is counted as left out.
    Ground in several tiles is counted in the first.

    Args:
        num_px: Pixels of the grid.
        valid_px: Pixels with imagery.
        label_counts: Valid pixels by class index, as the label has them, before anything is cut.
        ignored_px: Valid pixels whose label is ignored or unknown.
        tiled_counts: Valid pixels by class index, as the masks of the kept tiles have them, each pixel once.
        left_out_counts: The same in tiles that were not kept; ``tiled + left_out == label`` proves that nothing
            is lost.
        coverage: Valid pixels by the number of kept tiles that hold them, from 0 on.
        source_counts: Where the label is resampled: its pixels by class index as the file has them, where the imagery
            is valid; None elsewhere.
        source_px: Pixels of the file that lie on the image.
        source_px_area: Ground of one of them, in pixels of the tiles' grid.
        polygon_counts: Polygons of each class that touch the scene; None where the label is a raster.
        num_changed: Label pixels whose colour was read as a legend colour near it; counted in the file, as the unknown
            ones are.
        unknown: Label pixels of each value or colour that the class table does not hold.
        first_unknown: Row and column of the first of them.
        eroded_unknown: The same as ``unknown`` in the label with eroded borders.
        eroded_first_unknown: Row and column of the first of these.
        low_px: Valid pixels of each band at the least value that the dtype can hold (integers; 0 for floats).
        high_px: The same at the greatest value.
        preview: Every n-th pixel.
    """

    num_px: int
    valid_px: int
    label_counts: tuple[int, ...]
    ignored_px: int
    tiled_counts: tuple[int, ...]
    left_out_counts: tuple[int, ...]
    coverage: tuple[int, ...]
    source_counts: tuple[int, ...] | None = None
    source_px: int | None = None
    source_px_area: float | None = None
    polygon_counts: tuple[int, ...] | None = None
    num_changed: int = 0
    unknown: Mapping[str, int] = field(default_factory=dict)
    first_unknown: tuple[int, int] | None = None
    eroded_unknown: Mapping[str, int] = field(default_factory=dict)
    eroded_first_unknown: tuple[int, int] | None = None
    low_px: tuple[int, ...]
    high_px: tuple[int, ...]
    preview: Preview

    @property
    def given_counts(self) -> tuple[int, ...]:
        """Pixels by class index as the label has them before it is resampled, if it is."""
        return self.label_counts if self.source_counts is None else self.source_counts

    @property
    def given_px_area(self) -> float:
        """Ground of one of these pixels, in pixels of the tiles' grid."""
        return 1.0 if self.source_px_area is None else self.source_px_area
