"""Masks that number buildings: each number is a building of its own, whether others touch it or not.

Numbers may be large, and 255 is one of them: while a mask is drawn they stand above all class values. Cleaning looks at
foreground first, since a pinhole on a party wall is no court of either neighbour.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ctrs.classes import IGNORE_INDEX
from ctrs.config.vectorize import BUILDING
from ctrs.errors import LabelError
from ctrs.progress import Progress, no_progress
from ctrs.raster.geotiff import read_window
from ctrs.raster.windows import PixelWindow
from ctrs.vector.regions.class_mask import MaskFile, open_class_mask, rows_at_a_time
from ctrs.vector.regions.cleaning import RegionGraph
from ctrs.vector.regions.runs import Runs

_BACKGROUND = "background"

FIRST_VALUE = IGNORE_INDEX + 1
"""Stands for number 0; a class value is below it."""


@dataclass(frozen=True, kw_only=True)
class InstanceFile(MaskFile):
    """An instance mask that is open, to be read in bands of rows."""

    def checked_runs(self, band_rows: int | None = None, progress: Progress = no_progress) -> Iterator[Runs]:
        """Read the runs of each band: numbers from ``FIRST_VALUE`` on, ``IGNORE_INDEX`` for background and nodata.

        Raises:
            LabelError: A number is negative.
            RasterError: They cannot be read.
        """
        dataset = self.dataset
        step = band_rows or rows_at_a_time(dataset)
        for row in range(0, dataset.height, step):
            height = min(step, dataset.height - row)
            window = PixelWindow(col_off=0, row_off=row, width=dataset.width, height=height)
            pixels, valid = read_window(dataset, window)
            runs = Runs.from_array(np.where(valid, pixels[0].astype(np.int64), 0))
            lowest = int(runs.values.min())
            if lowest < 0:
                raise LabelError(
                    f"{self.path}: value {lowest} found, expected numbers of buildings from 1 and 0 for background; "
                    "give nodata its value in the file, or number the buildings anew"
                )
            yield runs.with_values(np.where(runs.values == 0, IGNORE_INDEX, runs.values + FIRST_VALUE))
            progress(row + height, dataset.height, f"reading {self.path.name}")


@contextmanager
def open_instance_mask(mask: Path) -> Iterator[InstanceFile]:
    """Open a mask that numbers buildings.

    Args:
        mask: Raster with one band of whole numbers, 0 for background; nodata may have any value.

    Raises:
        InputNotFoundError: There is no such file.
        LabelError: It is no instance mask, or names classes other than background and building.
        RasterError: It cannot be read.
    """
    with open_class_mask(mask) as file:
        names = [entry.name for entry in file.classes]
        others = [name for name in names if name not in (_BACKGROUND, BUILDING)]
        if file.tagged and others:
            raise LabelError(
                f"{mask}: classes {', '.join(names)} found, expected a mask that numbers buildings; "
                "leave --instances out, since its values are classes"
            )
        building = replace(file.classes[-1], value=1, name=BUILDING)
        if BUILDING in names:
            building = file.classes[names.index(BUILDING)]
        yield InstanceFile(path=file.path, dataset=file.dataset, grid=file.grid, classes=(building,), tagged=True)


def numbers_of(values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return the numbers that values of runs stand for.

    >>> numbers_of(np.array([257, 511])).tolist()
    [1, 255]
    """
    return np.asarray(values, np.int64) - FIRST_VALUE


def fill_between(graph: RegionGraph, *, min_hole_m2: float, none: int) -> RegionGraph:
    """Fill small holes, also those between several buildings: the one with the longest border around takes it.

    Args:
        graph: Regions of an instance mask.
        min_hole_m2: Ground area from which a hole stays.
        none: Value of what is no building.
    """
    small = (graph.classes == none) & ~graph.at_edge & (graph.areas_m2 < min_hole_m2)
    if not small.any():
        return graph
    region, neighbor, length = graph.neighbors()
    chosen = small[region]
    region, neighbor, length = region[chosen], neighbor[chosen], length[chosen]
    # Lengths are sums of equal steps in varying order: rounding must not decide.
    order = np.lexsort((neighbor, -np.round(length, 6), region))
    classes = graph.classes.copy()
    classes[region[order[::-1]]] = graph.classes[neighbor[order[::-1]]]
    return replace(graph, classes=classes).joined()
