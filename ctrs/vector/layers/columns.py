"""The columns of a layer: which there are, in what order and of what type, and those that are measured here.

A layer has all of them whatever it was drawn with; what does not apply is null.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import rasterio
import shapely

from ctrs.raster.geotiff import Grid
from ctrs.vector.regions.outlines import NO_REGION
from ctrs.vector.regions.probabilities import NO_BAND, Probabilities
from ctrs.vector.regions.runs import IntArray, Runs

ColumnType = Literal["integer", "number", "text"]
FloatArray = npt.NDArray[np.float64]

COLUMNS: MappingProxyType[str, ColumnType] = MappingProxyType(
    {
        "id": "integer",
        "class": "text",
        "area_m2": "number",
        "perimeter_m": "number",
        "orientation_deg": "number",
        "confidence": "number",
        "regularization_iou": "number",
        "method": "text",
        "model": "text",
    }
)
"""Columns of every layer, in their order. Nulls of numbers are NaN in memory, those of text None."""

MODEL_TAG = "CTRS_MODEL"
"""Tag of masks that names the model that predicted them."""

_WALLS = "walls"


def all_columns(known: dict[str, npt.NDArray[Any]], count: int) -> dict[str, npt.NDArray[Any]]:
    """Return all columns but ``id``, those that are not known as nulls; what else is known comes last.

    >>> list(all_columns({"class": np.array(["building"], object)}, 1))[:2]
    ['class', 'area_m2']
    """
    nulls: dict[ColumnType, Any] = {"number": np.nan, "text": None}
    every = {
        name: known[name] if name in known else np.full(count, nulls[kind], float if kind == "number" else object)
        for name, kind in COLUMNS.items()
        if name != "id"
    }
    return every | {name: values for name, values in known.items() if name not in COLUMNS}


def model_of(mask: rasterio.DatasetReader) -> str | None:
    """Return the id of the model that predicted a mask, as its tags tell; None where they do not."""
    text = mask.tags().get(MODEL_TAG)
    return str(text) if text else None


class MeanProbability:
    """Mean probability of regions of their class, summed up while blocks of rows pass by."""

    def __init__(self, regions: Runs, bands: IntArray, *, row_off: int = 0) -> None:
        """Begin.

        Args:
            regions: Runs of region ids, ``NO_REGION`` where none is drawn.
            bands: Band of the class of each region id, ``NO_BAND`` where it has none; the one after the last of the
                raster stands for what all lack to 1.
            row_off: Row of the mask that is the first of the runs.
        """
        self._regions = regions
        self._bands = bands
        self._row_off = row_off
        self._sums = np.zeros(len(bands))
        self._pixels = np.zeros(len(bands))

    def watch(self, blocks: Iterable[tuple[int, Probabilities]]) -> Iterator[tuple[int, Probabilities]]:
        """Hand on blocks of rows with their first row of the mask, and count each row once."""
        done = self._row_off
        for first, values in blocks:
            last = min(first + values.shape[1], self._row_off + self._regions.height)
            if last > done:
                self._count(values[:, done - first : last - first], done - self._row_off)
                done = last
            yield first, values

    def of(self, regions: npt.NDArray[Any]) -> FloatArray:
        """Return the mean probability of regions by id, NaN where none of their pixels has one."""
        pixels = self._pixels[regions]
        mean: FloatArray = np.full(len(pixels), np.nan)
        np.divide(self._sums[regions], pixels, out=mean, where=pixels > 0)
        return mean

    def _count(self, values: Probabilities, first_row: int) -> None:
        runs = self._regions
        begin, end = np.searchsorted(
            runs.firsts, [first_row * runs.width, (first_row + values.shape[1]) * runs.width]
        ).tolist()
        region = runs.values[begin:end]
        starts = runs.firsts[begin:end] - first_row * runs.width
        band = np.where(region == NO_REGION, NO_BAND, self._bands[region])
        for number in np.unique(band[band != NO_BAND]).tolist():
            known = values[number] if number < len(values) else 1 - values.sum(axis=0)
            flat = known.reshape(-1)
            unknown = np.isnan(flat)
            lengths = runs.lengths[begin:end].astype(float)
            if unknown.any():
                lengths -= np.add.reduceat(unknown.astype(np.int64), starts)
                flat = np.where(unknown, np.float32(0), flat)
            chosen = band == number
            sums = np.add.reduceat(flat, starts, dtype=np.float64)[chosen]
            self._sums += np.bincount(region[chosen], sums, minlength=len(self._sums))
            self._pixels += np.bincount(region[chosen], lengths[chosen], minlength=len(self._pixels))


def orientation_deg(polygons: npt.NDArray[np.object_], methods: npt.NDArray[np.object_], grid: Grid) -> FloatArray:
    """Return the direction of the longer axis of polygons with straight walls, NaN for others.

    Degrees clockwise from grid north (up the y axis of the CRS; up the image where there is none), from 0 up to 180.
    Along the walls that the most length of outline follows, modulo 90 degrees; of the two axes the one along which the
    polygon reaches farther.

    Args:
        polygons: In ground metres along the pixel axes; shape (P,).
        methods: How each was drawn; shape (P,).
        grid: Of the mask.
    """
    result = np.full(len(polygons), np.nan)
    straight = np.flatnonzero(methods == _WALLS)
    if not len(straight):
        return result
    corners, owner = shapely.get_coordinates(shapely.get_exterior_ring(polygons[straight]), return_index=True)
    inner = owner[1:] == owner[:-1]
    step = np.diff(corners, axis=0)[inner] @ _to_north_up(grid).T
    main = _main_axis(step, owner[1:][inner], len(straight))
    # How far each reaches along both axes: corners are turned so that the main axis is x.
    xy = corners @ _to_north_up(grid).T
    cos, sin = np.cos(main)[owner], np.sin(main)[owner]
    first = np.flatnonzero(np.diff(owner, prepend=-1))
    spans = [
        np.maximum.reduceat(along, first) - np.minimum.reduceat(along, first)
        for along in (xy[:, 0] * cos + xy[:, 1] * sin, xy[:, 1] * cos - xy[:, 0] * sin)
    ]
    longer = np.where(spans[0] >= spans[1], main, main + np.pi / 2)
    # From counter-clockwise from east to clockwise from north; what rounds to 180 is 0.
    degrees = np.round((90 - np.degrees(longer)) % 180, 6) % 180
    result[straight] = degrees
    return result


def _main_axis(steps: FloatArray, owner: IntArray, count: int) -> FloatArray:
    """Return the direction modulo 90 degrees that most length of wall follows, radians.

    Each polygon's longest wall begins; walls within 20 degrees of it or its perpendicular, by length, refine it. So
    diagonals do not turn the others.
    """
    length, angle = np.hypot(*steps.T), np.arctan2(steps[:, 1], steps[:, 0])
    order = np.lexsort((length, owner))
    longest = order[np.searchsorted(owner[order], np.arange(count), side="right") - 1]
    main = angle[longest]
    off = (angle - main[owner] + np.pi / 4) % (np.pi / 2) - np.pi / 4
    near = np.abs(off) < np.radians(20)
    weight = np.bincount(owner[near], length[near], count)
    return main + np.bincount(owner[near], (length * off)[near], count) / weight


def _to_north_up(grid: Grid) -> FloatArray:
    """Return the matrix from steps in ground metres along the pixel axes to steps east and north."""
    transform = grid.transform
    axes = np.array([[transform.a, transform.b], [transform.d, transform.e]])
    if transform.is_identity and grid.crs is None:
        axes = np.array([[1.0, 0.0], [0.0, -1.0]])
    if grid.crs is not None and grid.crs.is_geographic:
        # A degree of longitude is shorter than one of latitude; how much does not matter where the image is north-up.
        latitude = (transform @ (grid.width / 2, grid.height / 2))[1]
        axes[0] *= np.cos(np.radians(latitude))
    unit: FloatArray = axes / np.hypot(axes[0], axes[1])
    return unit
