"""How sure a network was of each pixel of a mask: a raster beside it.

Stored as uint16: probability of the predicted class times 65535, rounded; 0 is nodata, which no probability of a
largest class is (it is at least 1 / number of classes). The file's scale says so, and QGIS shows 0 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import rasterio

from ctrs import __version__
from ctrs.errors import RasterError
from ctrs.raster.cog import VERSION_TAG, RowBands, add_tags, write_cog
from ctrs.raster.geotiff import Grid, read_window
from ctrs.raster.mosaic import add_sources, dataset_element
from ctrs.raster.windows import PixelWindow

STEPS = 65535
"""Stored value of probability 1."""

CONFIDENCE_TAG = "CTRS_CONFIDENCE"
"""Tag that marks such a raster."""

_MASK_SUFFIX, _SUFFIX = "_mask", "_confidence"


def confidence_path(mask: Path) -> Path:
    """Return where the confidence of a mask stands.

    >>> confidence_path(Path("city/scene_mask.tif")).as_posix(), confidence_path(Path("map.tif")).as_posix()
    ('city/scene_confidence.tif', 'map_confidence.tif')
    """
    return mask.with_name(f"{mask.stem.removesuffix(_MASK_SUFFIX)}{_SUFFIX}{mask.suffix}")


def to_steps(confidence: npt.NDArray[np.floating[Any]], valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint16]:
    """Return probabilities as they are stored; 0 where they are not valid.

    Args:
        confidence: In [0, 1].
        valid: Of the same shape, True = valid.

    >>> to_steps(np.array([1.0, 0.5, 0.5]), np.array([True, True, False])).tolist()
    [65535, 32768, 0]
    """
    steps = np.rint(confidence * confidence.dtype.type(STEPS)).astype(np.uint16)
    steps[~valid] = 0
    return steps


def write_confidence_cog(staged: Path, bands: RowBands, grid: Grid, tags: Mapping[str, str]) -> Path:
    """Write confidences as COG with overviews by average.

    Args:
        staged: The file to write, in a folder for unfinished work.
        bands: Rows from ``to_steps``, as many as the grid has.
        grid: CRS, transform and size.
        tags: Further tags, names beginning with ``CTRS_``.

    Returns:
        ``staged``.

    Raises:
        OutputError: The file cannot be written.
    """
    if bands.num_rows != grid.height:
        raise ValueError(f"{bands.num_rows} rows found, expected {grid.height}")
    root = dataset_element(grid)
    add_tags(root, {**tags, VERSION_TAG: __version__, CONFIDENCE_TAG: f"probability of the predicted class, 1/{STEPS}"})
    band = ElementTree.SubElement(root, "VRTRasterBand", dataType="UInt16", band="1")
    ElementTree.SubElement(band, "NoDataValue").text = "0"
    ElementTree.SubElement(band, "Scale").text = repr(1 / STEPS)
    ElementTree.SubElement(band, "ColorInterp").text = "Gray"
    add_sources(band, bands.sources(), "1", staged.parent)
    # Level 1: the low bits are noise, on which higher levels spend time for nothing.
    write_cog(staged, root, grid, overview_resampling="AVERAGE", predictor="YES", level="1")
    return staged


def check_confidence(dataset: rasterio.DatasetReader) -> None:
    """Refuse a raster that is no confidence of ctrs.

    Raises:
        RasterError: With what was found.
    """
    if CONFIDENCE_TAG not in dataset.tags() or dataset.count != 1 or dataset.dtypes[0] != "uint16":
        raise RasterError(
            f"{dataset.name}: {dataset.count} bands of {dataset.dtypes[0]} without tag {CONFIDENCE_TAG} found, "
            "expected the confidence that ctrs predict --confidence writes"
        )


def read_confidence(dataset: rasterio.DatasetReader, window: PixelWindow) -> npt.NDArray[np.float32]:
    """Return the confidence of a window, float32 (h, w) in [0, 1]; 0 where there is none."""
    pixels, _ = read_window(dataset, window, bidx=(1,))
    confidence: npt.NDArray[np.float32] = pixels[0].astype(np.float32) * np.float32(1 / STEPS)
    return confidence
