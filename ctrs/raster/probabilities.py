"""The probability of each class at each pixel of a mask: a raster beside it, one band a class.

Stored as uint8, probability times 254, rounded, with nodata 255 and a scale that says so; or rounded to float16, with
nodata NaN, and held as Float32. GDAL's own 16 bits (``NBITS``) leave what memory happened to hold in the blocks at the
right and lower edge, so that no two files are alike; they would be a tenth smaller. Bands carry the names of their
classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import rasterio

from ctrs import __version__
from ctrs.config import ProbabilityFormat
from ctrs.errors import RasterError
from ctrs.raster.cog import VERSION_TAG, add_tags, write_cog
from ctrs.raster.creation_options import CreationOptions
from ctrs.raster.geotiff import Grid, read_window
from ctrs.raster.mosaic import add_sources, dataset_element
from ctrs.raster.row_bands import BLOCK_PX, RowBands, check_whole
from ctrs.raster.windows import PixelWindow

UINT8_STEPS = 254
"""Stored value of probability 1 in uint8."""

UINT8_NODATA = 255

PROBABILITIES_TAG = "CTRS_PROBABILITIES"
"""Tag that marks such a raster; it holds the number format."""

_MASK_SUFFIX, _SUFFIX = "_mask", "_probabilities"
_MOST_BLOCK_BYTES = 32 * 2**20
"""All bands of a block stand in memory together."""


def probabilities_path(mask: Path) -> Path:
    """Return where the probabilities of a mask stand.

    >>> probabilities_path(Path("city/scene_mask.tif")).as_posix()
    'city/scene_probabilities.tif'
    """
    return mask.with_name(f"{mask.stem.removesuffix(_MASK_SUFFIX)}{_SUFFIX}{mask.suffix}")


def mask_path(probabilities: Path) -> Path | None:
    """Return where the mask of probabilities stands; None where their name does not tell.

    >>> mask_path(Path("city/scene_probabilities.tif")).as_posix(), mask_path(Path("p.tif"))
    ('city/scene_mask.tif', None)
    """
    stem = probabilities.stem
    if not stem.endswith(_SUFFIX):
        return None
    return probabilities.with_name(f"{stem.removesuffix(_SUFFIX)}{_MASK_SUFFIX}{probabilities.suffix}")


def set_nodata(probabilities: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> None:
    """Make nodata of what is not valid, in place.

    Args:
        probabilities: As stored, uint8 or float16 (P, h, w).
        valid: (h, w), True = valid.
    """
    if not valid.all():
        np.copyto(probabilities, UINT8_NODATA if probabilities.dtype == np.uint8 else np.nan, where=~valid)


def write_probabilities_cog(
    staged: Path,
    bands: RowBands | Iterable[RowBands],
    grid: Grid,
    names: Sequence[str],
    number_format: ProbabilityFormat,
    tags: Mapping[str, str],
    creation_options: CreationOptions = (),
) -> Path:
    """Write probabilities as COG with overviews by average.

    Args:
        staged: The file to write, in a folder for unfinished work.
        bands: Rows (P, h, W) of this format, nodata set, as many as the grid has; blocks of columns beside each other.
        grid: CRS, transform and size.
        names: Names of the P classes.
        number_format: ``uint8`` or ``float16``.
        tags: Further tags, names beginning with ``CTRS_``.
        creation_options: For GDAL's COG driver, checked by ``check_creation_options``.

    Returns:
        ``staged``.

    Raises:
        OutputError: The file cannot be written.
    """
    blocks = check_whole(bands, grid)
    root = dataset_element(grid)
    add_tags(root, {**tags, VERSION_TAG: __version__, PROBABILITIES_TAG: number_format})
    as_bytes = number_format == "uint8"
    for number, name in enumerate(names, 1):
        kind = "Byte" if as_bytes else "Float32"
        band = ElementTree.SubElement(root, "VRTRasterBand", dataType=kind, band=str(number))
        ElementTree.SubElement(band, "Description").text = name
        ElementTree.SubElement(band, "NoDataValue").text = str(UINT8_NODATA) if as_bytes else "nan"
        if as_bytes:
            ElementTree.SubElement(band, "Scale").text = repr(1 / UINT8_STEPS)
        ElementTree.SubElement(band, "ColorInterp").text = "Gray" if number == 1 else "Undefined"
        for block in blocks:
            add_sources(band, block.sources(), str(number), staged.parent)
    defaults = {"OVERVIEW_RESAMPLING": "AVERAGE", "COMPRESS": "DEFLATE", "PREDICTOR": "YES", "LEVEL": "1"}
    block_px = BLOCK_PX
    while block_px > 128 and block_px**2 * len(names) * (1 if as_bytes else 4) > _MOST_BLOCK_BYTES:
        block_px //= 2
    if block_px != BLOCK_PX:
        defaults["BLOCKSIZE"] = str(block_px)
    write_cog(staged, root, grid, creation_options, **defaults)
    return staged


def check_probabilities(dataset: rasterio.DatasetReader) -> tuple[str, ...]:
    """Return the names of the classes whose probabilities a raster of ctrs holds, in the order of its bands.

    Raises:
        RasterError: It is none, with what was found.
    """
    names = tuple(name for name in dataset.descriptions if name)
    if PROBABILITIES_TAG not in dataset.tags() or len(names) != dataset.count:
        raise RasterError(
            f"{dataset.name}: {dataset.count} bands of {dataset.dtypes[0]}, {len(names)} of them named, "
            f"{'with' if PROBABILITIES_TAG in dataset.tags() else 'without'} tag {PROBABILITIES_TAG} found, "
            "expected the probabilities that ctrs predict --probabilities writes"
        )
    return names


def read_probabilities(
    dataset: rasterio.DatasetReader, window: PixelWindow, *, bidx: Sequence[int] | None = None
) -> npt.NDArray[np.float32]:
    """Return the probabilities of a window, float32 (P, h, w) in [0, 1]; NaN where there are none.

    Args:
        dataset: Accepted by ``check_probabilities``.
        window: A window inside the raster.
        bidx: Band numbers from 1; None for all.
    """
    pixels, _ = read_window(dataset, window, bidx=bidx or dataset.indexes)
    if pixels.dtype != np.uint8:
        return pixels.astype(np.float32, copy=False)
    table = np.arange(256, dtype=np.float32) / np.float32(UINT8_STEPS)
    table[UINT8_NODATA] = np.nan
    probabilities: npt.NDArray[np.float32] = table[pixels]
    return probabilities
