"""A class mask as vectorizing sees it: runs of class values, the grid they stand on, and what the values mean."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio

from ctrs.classes import BUILDING_CLASSES, IGNORE_INDEX, Mask
from ctrs.errors import LabelError, LabelWarning
from ctrs.progress import Progress, no_progress
from ctrs.raster.cog import CLASSES_TAG, MaskClass, read_class_tag
from ctrs.raster.geotiff import GDAL_CACHE_BYTES, Grid, color_bands, open_raster, read_window, warn_missing_crs
from ctrs.raster.probabilities import PROBABILITIES_TAG, mask_path
from ctrs.raster.windows import PixelWindow
from ctrs.vector.regions.runs import Runs

_BAND_PIXELS = 2**22
_LEAST_CACHE_BYTES = 8 * 2**20


@dataclass(frozen=True, kw_only=True)
class ClassMask:
    """A class mask in memory.

    Args:
        runs: Runs of class values; ``IGNORE_INDEX`` is nodata.
        grid: The mask's grid.
        classes: What the values mean.
        tagged: True if the file says so; else 0 is taken for background and 1 for building.
    """

    runs: Runs
    grid: Grid
    classes: tuple[MaskClass, ...]
    tagged: bool


@dataclass(frozen=True, kw_only=True)
class MaskFile:
    """A class mask that is open, to be read in bands of rows.

    Args:
        path: The file.
        dataset: Open.
        grid: The mask's grid.
        classes: What the values mean.
        tagged: True if the file says so; else 0 is taken for background and 1 for building.
    """

    path: Path
    dataset: rasterio.DatasetReader
    grid: Grid
    classes: tuple[MaskClass, ...]
    tagged: bool

    def bands(self, band_rows: int | None = None, progress: Progress = no_progress) -> Iterator[Mask]:
        """Read consecutive bands of rows (h, W); None: some 4 million pixels at a time.

        Raises:
            LabelError: Values are no class values.
            RasterError: They cannot be read.
        """
        bands = _read_bands(self.dataset, self.path, band_rows or rows_at_a_time(self.dataset), progress)
        return bands if self.tagged else _without_white(bands, self)

    def checked_runs(self, band_rows: int | None = None, progress: Progress = no_progress) -> Iterator[Runs]:
        """Read the runs of each band, and refuse values without a meaning; warn last where the meaning is assumed.

        Raises:
            LabelError: With the values of the first band that has such.
            RasterError: They cannot be read.
        """
        for band in self.bands(band_rows, progress):
            runs = Runs.from_array(band)
            _check_found(np.flatnonzero(np.bincount(runs.values, minlength=256)), self)
            yield runs
        _warn_untagged(self)


@contextmanager
def open_class_mask(mask: Path) -> Iterator[MaskFile]:
    """Open a class mask.

    Args:
        mask: Raster with one band of integers from 0 to 254; nodata may have any value.

    Raises:
        InputNotFoundError: There is no such file.
        LabelError: It is no class mask.
        RasterError: It cannot be read.
    """
    with open_raster(mask) as dataset:
        _check_bands(dataset, mask)
        tagged = CLASSES_TAG in dataset.tags()
        with rasterio.Env(GDAL_CACHEMAX=_cache_bytes(dataset)):
            yield MaskFile(
                path=mask, dataset=dataset, grid=Grid.of(dataset), classes=named_classes(dataset), tagged=tagged
            )


def read_class_mask(mask: Path, *, band_rows: int | None = None, progress: Progress = no_progress) -> ClassMask:
    """Read a class mask in bands of rows; the bands leave no trace in the result.

    Args:
        mask: Raster with one band of integers from 0 to 254; nodata may have any value.
        band_rows: Rows to read at a time; None: some 4 million pixels.
        progress: Told after each band.

    Raises:
        LabelError: It is no class mask.
        RasterError: It cannot be read.
    """
    with open_class_mask(mask) as file:
        grid = file.grid
        runs = Runs.from_bands(file.bands(band_rows, progress), height=grid.height, width=grid.width)
    if grid.crs is None:
        warn_missing_crs(mask, stacklevel=3)
    return ClassMask(runs=runs, grid=grid, classes=file.classes, tagged=file.tagged)


def named_classes(dataset: rasterio.DatasetReader) -> tuple[MaskClass, ...]:
    """Return the classes that a mask names, or background and building for a raster that names none."""
    if CLASSES_TAG in dataset.tags():
        return read_class_tag(dataset)
    return tuple(
        MaskClass(value=index, name=entry.name, color=entry.color)
        for index, entry in enumerate(BUILDING_CLASSES.learnt)
    )


def _check_found(found: npt.NDArray[Any], mask: MaskFile) -> None:
    """Refuse values without a meaning."""
    path = mask.path
    known = [IGNORE_INDEX, *(entry.value for entry in mask.classes)]
    unknown = found[~np.isin(found, known)]
    if len(unknown) and not mask.tagged:
        raise LabelError(
            f"{path}: no tag {CLASSES_TAG} and values {_listing(found)} found, so their meaning is unknown; expected "
            "a mask written by ctrs predict, or a raster of 0 (background) and 1 (building); where values number "
            "buildings, say --instances"
        )
    if len(unknown):
        names = ", ".join(f"{entry.value} {entry.name}" for entry in mask.classes)
        raise LabelError(
            f"{path}: values {_listing(unknown)} found that its class table lacks, expected {names} or "
            f"{IGNORE_INDEX} (nodata); write the mask again"
        )


def _warn_untagged(mask: MaskFile) -> None:
    if not mask.tagged:
        warnings.warn(
            f"{mask.path}: no class names found; 0 counts as background and 1 as building", LabelWarning, stacklevel=3
        )


def _check_bands(dataset: rasterio.DatasetReader, path: Path) -> None:
    if PROBABILITIES_TAG in dataset.tags():
        masks = mask_path(path)
        raise LabelError(
            f"{path}: probabilities of classes found, expected the mask; vectorize {masks.name if masks else 'that'}, "
            "and name these with --probabilities (beside their mask they are found without)"
        )
    bands = color_bands(dataset)
    if len(bands) != 1:
        raise LabelError(
            f"{path}: {len(bands)} bands found, expected one band of class values; "
            "vectorize the mask that ctrs predict wrote, not the scene"
        )
    kind = np.dtype(dataset.dtypes[bands[0] - 1]).kind
    if kind not in "iub":
        raise LabelError(
            f"{path}: dtype {dataset.dtypes[bands[0] - 1]} found, expected integer class values; of probabilities give "
            "the mask drawn from them, and those that ctrs predict wrote with --probabilities; class values that were "
            f"stored as fractions are made whole by gdal_translate -ot Byte {path.name} NEW.tif"
        )


def rows_at_a_time(dataset: rasterio.DatasetReader) -> int:
    """Return the rows of some 4 million pixels, whole blocks of the file."""
    block = int(dataset.block_shapes[0][0])
    blocks = max(1, _BAND_PIXELS // (int(dataset.width) * block))
    return blocks * block


def _cache_bytes(dataset: rasterio.DatasetReader) -> int:
    """Return the size of GDAL's block cache in which a band stays until its nodata is read: no band is read twice."""
    of_band: int = rows_at_a_time(dataset) * int(dataset.width) * int(np.dtype(dataset.dtypes[0]).itemsize)
    return min(GDAL_CACHE_BYTES, max(_LEAST_CACHE_BYTES, 2 * of_band))


def _read_bands(dataset: rasterio.DatasetReader, path: Path, band_rows: int, progress: Progress) -> Iterator[Mask]:
    for row in range(0, dataset.height, band_rows):
        height = min(band_rows, dataset.height - row)
        pixels, valid = read_window(dataset, PixelWindow(col_off=0, row_off=row, width=dataset.width, height=height))
        yield _as_mask(pixels[0], valid, path)
        progress(row + height, dataset.height, f"reading {path.name}")


def _without_white(bands: Iterator[Mask], mask: MaskFile) -> Iterator[Mask]:
    """Refuse an unnamed mask that says building with 255, which other tools do and which is nodata here."""
    white, building = False, False
    for band in bands:
        building = building or bool((band == 1).any())
        white = white or bool((band == IGNORE_INDEX).any())
        yield band
    if white and not building and _has_valid_white(mask.dataset):
        raise LabelError(
            f"{mask.path}: 255 found and no 1, expected a mask written by ctrs predict, or a raster of 0 (background) "
            f"and 1 (building); write buildings as 1 (gdal_calc.py -A {mask.path.name} --calc 'A==255' --outfile "
            "NEW.tif), or, where 255 means no data, say so (gdal_edit.py -a_nodata 255)"
        )


def _has_valid_white(dataset: rasterio.DatasetReader) -> bool:
    """Tell whether a raster holds 255 where it does not say nodata."""
    step = rows_at_a_time(dataset)
    for row in range(0, dataset.height, step):
        height = min(step, dataset.height - row)
        pixels, valid = read_window(dataset, PixelWindow(col_off=0, row_off=row, width=dataset.width, height=height))
        if (valid & (pixels[0] == IGNORE_INDEX)).any():
            return True
    return False


def _as_mask(values: npt.NDArray[Any], valid: npt.NDArray[np.bool_], path: Path) -> Mask:
    if values.dtype != np.uint8:
        odd = valid & ((values < 0) | (values >= IGNORE_INDEX))
        if odd.any():
            raise LabelError(
                f"{path}: values {_listing(np.unique(values[odd]))} found, expected class values from 0 to "
                f"{IGNORE_INDEX - 1}; is it a class mask? Where values number buildings, say --instances"
            )
        values = values.astype(np.uint8)
    if not valid.all():
        values = np.where(valid, values, np.uint8(IGNORE_INDEX))
    return values


def _listing(values: npt.NDArray[Any], *, shown: int = 8) -> str:
    text = ", ".join(str(value) for value in values[:shown].tolist())
    return f"{text}, ..." if len(values) > shown else text
