"""Parts of rasters that ctrs wrote: their rows, a few at a time, so that memory does not grow with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.windows import Window

from ctrs.raster.geotiff import open_raster
from ctrs.raster.windows import PixelWindow

ReadValid = Callable[[PixelWindow], npt.NDArray[np.bool_]]
"""Tells of the pixels (h, w) of a window of a part whether they are valid."""

_MOST_BYTES = 32 * 2**20
_MOST_ROWS = 512


def cut_rows(src: Path, window: PixelWindow, *, valid: ReadValid | None = None) -> Iterator[npt.NDArray[Any]]:
    """Yield the rows of a part of a raster from the top down: (h, W), of several bands (P, h, W).

    Args:
        src: Raster with a nodata value.
        window: Its part.
        valid: Which pixels stay; the others become nodata. None: all.

    Raises:
        RasterError: The raster cannot be read.
    """
    with open_raster(src) as whole:
        row_bytes = whole.count * window.width * np.dtype(whole.dtypes[0]).itemsize
        step = max(16, min(_MOST_ROWS, _MOST_BYTES // row_bytes // 16 * 16))
        bidx = 1 if whole.count == 1 else list(whole.indexes)
        for top in range(0, window.height, step):
            height = min(step, window.height - top)
            rows = whole.read(bidx, window=Window(window.col_off, window.row_off + top, window.width, height))
            if valid is not None:
                kept = valid(PixelWindow(col_off=0, row_off=top, width=window.width, height=height))
                rows[..., ~kept] = whole.nodata
            yield rows


def own_tags(src: Path) -> dict[str, str]:
    """Return the tags of a raster that only ctrs sets."""
    with open_raster(src) as dataset:
        return {key: value for key, value in dataset.tags().items() if key.startswith("CTRS_")}
