"""How sure a network was of each pixel of a mask: a raster beside it.

Stored as uint16: a number from 0 to 1 times 65535, rounded, and at least 1; 0 is nodata. The file's scale says so, and
QGIS shows 0 to 1. A tag says which number it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import rasterio

from ctrs import __version__
from ctrs.config import ConfidenceKind
from ctrs.errors import RasterError
from ctrs.raster.cog import VERSION_TAG, add_tags, write_cog
from ctrs.raster.creation_options import CreationOptions
from ctrs.raster.geotiff import Grid, read_window
from ctrs.raster.mosaic import add_sources, dataset_element
from ctrs.raster.row_bands import RowBands, check_whole
from ctrs.raster.windows import PixelWindow

STEPS = 65535
"""Stored value of probability 1."""

CONFIDENCE_TAG = "CTRS_CONFIDENCE"
"""Tag that marks such a raster; its first word is the kind."""

_MEANINGS: dict[ConfidenceKind, str] = {
    "probability": "probability of the class that the mask shows",
    "margin": "margin in probability of the class that the mask shows over the next",
    "entropy": "entropy of the classes' probabilities as a share of the largest, subtracted from 1",
}

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

    >>> to_steps(np.array([1.0, 0.5, 0.0, 0.5]), np.array([True, True, True, False])).tolist()
    [65535, 32768, 1, 0]
    """
    with np.errstate(invalid="ignore"):  # anything may stand where they are not valid
        steps = np.rint(confidence * confidence.dtype.type(STEPS)).astype(np.uint16)
    np.maximum(steps, 1, out=steps)
    if not valid.all():
        steps[~valid] = 0
    return steps


def write_confidence_cog(
    staged: Path,
    bands: RowBands | Iterable[RowBands],
    grid: Grid,
    tags: Mapping[str, str],
    *,
    kind: ConfidenceKind = "probability",
    creation_options: CreationOptions = (),
) -> Path:
    """Write confidences as COG with overviews by average.

    Args:
        staged: The file to write, in a folder for unfinished work.
        bands: Rows from ``to_steps``, as many as the grid has; blocks of columns beside each other.
        grid: CRS, transform and size.
        tags: Further tags, names beginning with ``CTRS_``.
        kind: What the numbers are.
        creation_options: For GDAL's COG driver, checked by ``check_creation_options``.

    Returns:
        ``staged``.

    Raises:
        OutputError: The file cannot be written.
    """
    blocks = check_whole(bands, grid)
    root = dataset_element(grid)
    add_tags(root, {**tags, VERSION_TAG: __version__, CONFIDENCE_TAG: f"{_MEANINGS[kind]}, 1/{STEPS}"})
    band = ElementTree.SubElement(root, "VRTRasterBand", dataType="UInt16", band="1")
    ElementTree.SubElement(band, "Description").text = f"confidence ({kind})"
    ElementTree.SubElement(band, "NoDataValue").text = "0"
    ElementTree.SubElement(band, "Scale").text = repr(1 / STEPS)
    ElementTree.SubElement(band, "ColorInterp").text = "Gray"
    for block in blocks:
        add_sources(band, block.sources(), "1", staged.parent)
    # Level 1: the low bits are noise, on which higher levels spend time for nothing.
    defaults = {"OVERVIEW_RESAMPLING": "AVERAGE", "COMPRESS": "DEFLATE", "PREDICTOR": "YES", "LEVEL": "1"}
    write_cog(staged, root, grid, creation_options, **defaults)
    return staged


def confidence_kind(dataset: rasterio.DatasetReader) -> str | None:
    """Return what the numbers of a confidence are, ``probability``, ``margin`` or ``entropy``; None if it is none."""
    text: str | None = dataset.tags().get(CONFIDENCE_TAG)
    return text.split()[0] if text else None


def check_confidence(dataset: rasterio.DatasetReader, kind: ConfidenceKind | None = "probability") -> None:
    """Refuse a raster that is no confidence of ctrs, or one of another kind.

    Args:
        dataset: The raster.
        kind: What its numbers must be; None: any.

    Raises:
        RasterError: With what was found.
    """
    found = confidence_kind(dataset)
    if found is None or dataset.count != 1 or dataset.dtypes[0] != "uint16":
        raise RasterError(
            f"{dataset.name}: {dataset.count} bands of {dataset.dtypes[0]} without tag {CONFIDENCE_TAG} found, "
            "expected the confidence that ctrs predict --confidence writes"
        )
    if kind is not None and found != kind:
        raise RasterError(
            f"{dataset.name}: confidence by {found} found, expected {kind}; "
            f"write it with ctrs predict --confidence {kind} --overwrite"
        )


def read_confidence(dataset: rasterio.DatasetReader, window: PixelWindow) -> npt.NDArray[np.float32]:
    """Return the confidence of a window, float32 (h, w) in [0, 1]; 0 where there is none."""
    pixels, _ = read_window(dataset, window, bidx=(1,))
    confidence: npt.NDArray[np.float32] = pixels[0].astype(np.float32) * np.float32(1 / STEPS)
    return confidence
