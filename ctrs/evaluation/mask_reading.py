"""Masks on disk as arrays of class indices, window by window, whoever wrote them and on whatever grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio

from ctrs.classes import IGNORE_INDEX, ClassMap, Mask
from ctrs.errors import UnknownColorError
from ctrs.raster.cog import CLASSES_TAG
from ctrs.raster.confidence import check_confidence, read_confidence
from ctrs.raster.geotiff import GDAL_OPTIONS, Grid, open_raster, read_window
from ctrs.raster.warp import GridWarp
from ctrs.raster.windows import PixelWindow
from ctrs.tiles.decoding import decode_values, unknown_message

_ROWS = 512
"""Rows read at once to count a value."""

ReadMask = Callable[[PixelWindow], Mask]
"""Returns the class indices (h, w) of a window, 255 where ignored or not predicted."""

ReadConfidence = Callable[[PixelWindow], npt.NDArray[np.float32]]
"""Returns the confidence (h, w) of a window, in [0, 1]."""


@contextmanager
def index_reader(path: Path) -> Iterator[tuple[ReadMask, Grid]]:
    """Read a mask of class indices, as prepare and predict write them; what is invalid is ignored."""
    with open_raster(path) as dataset:

        def read(window: PixelWindow) -> Mask:
            with rasterio.Env(**GDAL_OPTIONS):  # GDAL's settings belong to a thread
                pixels, valid = read_window(dataset, window, bidx=(1,))
            mask: Mask = pixels[0]
            mask[~valid] = IGNORE_INDEX
            return mask

        yield read, Grid.of(dataset)


@contextmanager
def confidence_reader(path: Path) -> Iterator[ReadConfidence]:
    """Read the confidence that belongs to a mask.

    Raises:
        RasterError: The file is no confidence of ctrs.
    """
    with open_raster(path) as dataset:
        check_confidence(dataset)

        def read(window: PixelWindow) -> npt.NDArray[np.float32]:
            with rasterio.Env(**GDAL_OPTIONS):
                return read_confidence(dataset, window)

        yield read


@contextmanager
def value_reader(path: Path, classes: ClassMap, warp: GridWarp | None = None) -> Iterator[ReadMask]:
    """Read a raster of class values as a mask; nodata is what the file declares.

    In a mask that ctrs wrote 255 is nodata even where a copy has lost the declaration.

    Args:
        path: The raster.
        classes: Class table.
        warp: From the pixels that are asked for to those of the file, taken as they are (nearest); None where they are
            the same. What lies outside the file is not predicted.

    Raises:
        UnknownColorError: From the reader, where it meets a value outside the class table.
    """
    with open_raster(path) as dataset:
        own = CLASSES_TAG in dataset.tags()
        nodata = IGNORE_INDEX if dataset.nodata is None and own else dataset.nodata
        stored = partial(_stored_values, dataset)

        def read(window: PixelWindow) -> Mask:
            if warp is None:
                pixels, valid = stored(window)
            else:
                dtype = np.dtype(dataset.dtypes[0])
                pixels, valid = warp.read(window, stored, method="nearest", count=1, dtype=dtype)
            decoded = decode_values(pixels[0], classes, valid=valid, nodata=nodata)
            if decoded.first_unknown is not None:
                if dataset.nodata is None and set(decoded.unknown) == {str(IGNORE_INDEX)}:
                    raise UnknownColorError(_undeclared_message(path, dataset, classes))
                row, col = decoded.first_unknown
                first = (window.row_off + row, window.col_off + col)
                raise UnknownColorError(unknown_message(path, "value", decoded.unknown, first, classes, options=False))
            return decoded.mask

        yield read


def _undeclared_message(path: Path, dataset: rasterio.DatasetReader, classes: ClassMap) -> str:
    """Say that 255 may mean nodata or a class, with its number in the whole file."""
    number = 0
    for row_off in range(0, dataset.height, _ROWS):
        height = min(_ROWS, dataset.height - row_off)
        pixels, valid = _stored_values(
            dataset, PixelWindow(col_off=0, row_off=row_off, width=dataset.width, height=height)
        )
        number += int((valid & (pixels[0] == IGNORE_INDEX)).sum())
    legend = ", ".join(f"{row.name} {row.value}" for row in classes.classes)
    return (
        f"{path}: value {IGNORE_INDEX} in {number} px ({number / (dataset.width * dataset.height):.1%}) is neither in "
        f"the class table ({legend}) nor declared nodata; declare it with gdal_edit.py -a_nodata {IGNORE_INDEX}, or "
        f"pass --classes FILE with a class of value {IGNORE_INDEX}"
    )


def _stored_values(
    dataset: rasterio.DatasetReader, window: PixelWindow
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Read values of the file; nodata values stay valid here, because a class may have that value."""
    with rasterio.Env(**GDAL_OPTIONS):
        pixels, valid = read_window(dataset, window, bidx=(1,))
    return pixels, valid if dataset.nodata is None else np.ones_like(valid)


def only_class(read: ReadMask, index: int) -> ReadMask:
    """Return a reader of masks with 1 for one class, 0 for all others."""

    def read_binary(window: PixelWindow) -> Mask:
        mask = read(window)
        known = mask != IGNORE_INDEX
        mask[known] = mask[known] == index
        return mask

    return read_binary
