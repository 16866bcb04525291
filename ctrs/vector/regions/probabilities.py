"""The class probabilities that stand beside a mask: found, checked against it, and read in blocks of its rows."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ctrs.config import VectorizeConfig
from ctrs.errors import DataWarning, InputNotFoundError, LabelError, RasterError
from ctrs.raster.cog import JOB_TAG, MaskClass
from ctrs.raster.geotiff import Grid, open_raster
from ctrs.raster.probabilities import check_probabilities, probabilities_path, read_probabilities
from ctrs.raster.windows import PixelWindow

logger = logging.getLogger(__name__)

Probabilities = npt.NDArray[np.float32]

NO_BAND = -1
"""Of a class whose probability is not known."""

_BAND_VALUES = 2**22
"""Values that are read at a time."""


@dataclass(frozen=True, kw_only=True)
class ClassProbabilities:
    """Probabilities on the grid of a mask.

    Args:
        path: The raster.
        grid: Its grid, the mask's.
        names: Class of each band.
        band_of_value: Band, from 0, of each mask value; ``NO_BAND`` where there is none. One class alone that has no
            band is what the others lack to 1: its band is ``len(names)``, which the raster does not hold.
    """

    path: Path
    grid: Grid
    names: tuple[str, ...]
    band_of_value: npt.NDArray[np.int64]

    @property
    def complete(self) -> bool:
        """Whether the bands are of all classes, so that they add up to 1."""
        return not bool((self.band_of_value == len(self.names)).any())

    def read(self, first_row: int, last_row: int, values: Sequence[int] | None = None) -> Probabilities:
        """Return the probabilities of the rows from ``first_row`` up to ``last_row``.

        Args:
            first_row: First row.
            last_row: The row after the last.
            values: Mask values of the classes; None: the bands as they stand in the raster.

        Returns:
            float32 (classes, rows, columns), NaN where they are not known.
        """
        rows = PixelWindow(col_off=0, row_off=first_row, width=self.grid.width, height=last_row - first_row)
        return self.window(rows, values)

    def window(self, window: PixelWindow, values: Sequence[int] | None = None) -> Probabilities:
        """Return the probabilities of a window, as ``read`` does."""
        with open_raster(self.path) as dataset:
            if values is None:
                return read_probabilities(dataset, window)
            bands = [int(self.band_of_value[value]) for value in values]
            if all(0 <= band < len(self.names) for band in bands):
                return read_probabilities(dataset, window, bidx=[band + 1 for band in bands])
            stored = read_probabilities(dataset, window)
        chosen = np.full((len(bands), *stored.shape[1:]), np.nan, np.float32)
        for place, band in enumerate(bands):
            if band == len(self.names):
                chosen[place] = 1 - stored.sum(axis=0)
            elif band != NO_BAND:
                chosen[place] = stored[band]
        return chosen

    def blocks(
        self, first_row: int = 0, last_row: int | None = None, *, block_rows: int | None = None
    ) -> Iterator[tuple[int, Probabilities]]:
        """Yield blocks of rows with their first row of the mask.

        Each block holds one row of the next one too, so that what lies between two rows is in one block.

        Args:
            first_row: First row of the mask.
            last_row: The row after the last; None: all.
            block_rows: Rows to read at a time; None: some 4 million values.
        """
        end = self.grid.height if last_row is None else last_row
        step = block_rows or max(1, _BAND_VALUES // (self.grid.width * len(self.names)))
        for row in range(first_row, end, step):
            yield row, self.read(row, min(row + step + 1, end))


def find_probabilities(mask: Path, config: VectorizeConfig) -> Path | None:
    """Return the raster of probabilities that a job is to use: the one named, or the one beside the mask.

    Raises:
        InputNotFoundError: The one named is not there.
    """
    if not config.use_probabilities:
        return None
    if config.probabilities is not None:
        if not config.probabilities.exists():
            raise InputNotFoundError(
                f"--probabilities {config.probabilities}: not found; name the raster that ctrs predict --probabilities "
                "wrote, or none"
            )
        return config.probabilities
    beside = probabilities_path(mask)
    return beside if beside.is_file() and beside != mask else None


def open_probabilities(
    path: Path, mask: Path, grid: Grid, classes: Sequence[MaskClass], *, named: bool
) -> ClassProbabilities | None:
    """Check that a raster holds the probabilities of a mask.

    Args:
        path: From ``find_probabilities``.
        mask: The mask.
        grid: Its grid.
        classes: Its classes.
        named: The user named the raster: what is wrong with it is an error. One that merely stands beside the mask is
            left alone, with a warning.

    Returns:
        None where it is left alone.

    Raises:
        RasterError: It is not readable, holds no probabilities, or stands on another grid.
        LabelError: It holds none of the mask's classes.
    """
    try:
        return _opened(path, mask, grid, classes, same_job=not named)
    except (RasterError, LabelError) as error:
        if named:
            raise
        warnings.warn(
            f"{error}; going on without these probabilities (leave them alone with --probabilities none)",
            DataWarning,
            stacklevel=3,
        )
        return None


def _opened(path: Path, mask: Path, grid: Grid, classes: Sequence[MaskClass], *, same_job: bool) -> ClassProbabilities:
    with open_raster(path) as dataset:
        names = check_probabilities(dataset)
        found = Grid.of(dataset)
        job = dataset.tags().get(JOB_TAG)
    different = grid.difference(found)
    if different:
        raise RasterError(f"{path}: {different} found, expected the grid of {mask}; predict both in one run")
    if same_job:
        with open_raster(mask) as dataset:
            wanted = dataset.tags().get(JOB_TAG)
        if None not in (job, wanted) and job != wanted:
            raise RasterError(f"{path}: is of another prediction than {mask}; predict both in one run")
    band_of_value = np.full(256, NO_BAND, np.int64)
    for entry in classes:
        if entry.name in names:
            band_of_value[entry.value] = names.index(entry.name)
    lacking = [entry.value for entry in classes if entry.name not in names]
    if len(lacking) == len(classes):
        listed = ", ".join(entry.name for entry in classes)
        raise LabelError(f"{path}: probabilities of {', '.join(names)} found, expected those of {mask}: {listed}")
    if len(lacking) == 1 and set(names) <= {entry.name for entry in classes}:
        band_of_value[lacking[0]] = len(names)
    logger.info("%s: probabilities of %s", path, ", ".join(names))
    return ClassProbabilities(path=path, grid=found, names=names, band_of_value=band_of_value)
