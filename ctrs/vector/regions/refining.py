"""What probabilities tell of the regions of a block: where their outlines run between pixels, and how sure they are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ctrs.vector.layers.columns import MeanProbability
from ctrs.vector.polygonize import Geometries
from ctrs.vector.regions.outlines import Outlines
from ctrs.vector.regions.probabilities import ClassProbabilities
from ctrs.vector.regions.runs import Runs
from ctrs.vector.regularize.subpixel import refine_outlines


def refine_regions(
    outlines: Outlines,
    regions: Runs,
    values: npt.NDArray[np.integer],
    probabilities: ClassProbabilities | None,
    *,
    scale: tuple[float, float],
    row_off: int = 0,
    between_pixels: bool = True,
) -> tuple[Geometries, npt.NDArray[np.float64]]:
    """Return the polygon of each region and its mean probability of its class.

    Args:
        outlines: Exact outlines of the regions.
        regions: Runs of region ids, what the outlines were traced from: rows of a mask, with all pixels of the regions.
        values: Mask value of each region id.
        probabilities: Of the mask; None: the exact outlines, and no mean.
        scale: Columns and rows are multiplied by it.
        row_off: Row of the mask that is the first of the runs.
        between_pixels: False: the exact outlines.
    """
    exact = outlines.polygons(scale, row_off=row_off)
    if probabilities is None or not len(exact):
        return exact, np.full(len(exact), np.nan)
    bands = probabilities.band_of_value[values]
    mean = MeanProbability(regions, bands, row_off=row_off)
    num_rows = probabilities.grid.height
    # One row more on each side: there end the edges on the border of the block.
    first, last = max(0, row_off - 1), min(row_off + regions.height + 1, num_rows)
    blocks = mean.watch(probabilities.blocks(first, last))
    if not between_pixels:
        for _ in blocks:
            pass
        return exact, mean.of(outlines.regions)
    complete = probabilities.complete
    refined = refine_outlines(outlines, regions, bands, blocks, complete=complete, row_off=row_off, num_rows=num_rows)
    return refined.polygons(scale, row_off=row_off), mean.of(outlines.regions)
