"""Bands that a file calls alpha: what is transparent, or infrared that GDAL takes for it since it is the fourth."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.windows import Window

from ctrs.errors import RasterError
from ctrs.raster.geotiff import color_bands, error_line
from ctrs.raster.names import shown

MAX_ALPHA_VALUES = 32
"""Different values above which an alpha band is suspected to be something else."""

_MIDDLE_PX = 256


def bands_for(dataset: rasterio.DatasetReader, count: int) -> tuple[int, ...]:
    """Return the numbers, from 1, of the bands that a network of so many takes, where nobody names them.

    All but alpha; but where the network has as many as the file, alpha is one of them unless it is plainly a mask.

    Raises:
        RasterError: The alpha band cannot be read.
    """
    colors = color_bands(dataset)
    if len(colors) == count or dataset.count != count:
        return colors
    (number,) = set(dataset.indexes) - set(colors) if len(colors) == count - 1 else (0,)
    if not number or _is_plain_mask(_middle(dataset, number)):
        return colors
    return tuple(dataset.indexes)


def odd_alpha(dataset: rasterio.DatasetReader) -> int | None:
    """Return the number of an alpha band with many values: near infrared is often marked so by mistake.

    Raises:
        RasterError: It cannot be read.
    """
    for number, color in zip(dataset.indexes, dataset.colorinterp, strict=True):
        if color is ColorInterp.alpha and len(np.unique(_middle(dataset, number))) > MAX_ALPHA_VALUES:
            return int(number)
    return None


def _is_plain_mask(values: npt.NDArray[Any]) -> bool:
    """Tell whether values are those of a mask alone: 0, and 1 or the greatest that there is."""
    full = [1, np.iinfo(values.dtype).max] if values.dtype.kind in "iu" else [1, 255]
    return bool(np.isin(values, [0, *full]).all())


def _middle(dataset: rasterio.DatasetReader, number: int) -> npt.NDArray[Any]:
    width, height = min(dataset.width, _MIDDLE_PX), min(dataset.height, _MIDDLE_PX)
    place = Window((dataset.width - width) // 2, (dataset.height - height) // 2, width, height)
    try:
        values: npt.NDArray[Any] = dataset.read(number, window=place)
    except RasterioError as error:
        raise RasterError(
            f"{shown(dataset.name)}: alpha band {number} not readable in the middle ({error_line(error)}); the file "
            "is damaged or cut short: get it again, or name the bands with --bidx"
        ) from error
    return values
