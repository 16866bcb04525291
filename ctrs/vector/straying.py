"""How far the outlines of a mask stray from straight walls: one figure for the mask, from a sample of its buildings.

One outline tells little of how noisy it is, and one mask usually comes from one network: the median of many outlines
tells noisy masks from others. The sample is the same whatever rows are read at a time: whole objects in tiles of the
mask that are chosen by their place.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from ctrs.config import VectorizeConfig
from ctrs.config.vectorize import BUILDING
from ctrs.raster.cog import MaskClass
from ctrs.raster.geotiff import Grid, read_window
from ctrs.raster.windows import PixelWindow
from ctrs.vector.regions.class_mask import ClassMask, MaskFile
from ctrs.vector.regions.cleaning import ground_pixel_size
from ctrs.vector.regions.outlines import NO_REGION, trace
from ctrs.vector.regions.runs import Runs

logger = logging.getLogger(__name__)

Flags = npt.NDArray[np.bool_]

_TILE_M = 100.0
"""Height of a tile, ground metres."""

_TILE_PIXELS = 2**21
"""Most pixels of a tile, which settle its width."""

_MOST_TILES = 16

_ENOUGH, _FROM_A_TILE = 240, 40
"""Buildings after which no further tile is read, and those that one tile gives at most."""

_MIN_AREA_M2 = 20.0
"""Smaller objects have too little wall to tell."""

_OF_PIXELS = 0.19
"""How far the outlines of a mask without noise stray for want of resolution, a share of a pixel's side."""

_SCATTER_M = 0.04
"""How much the straying of single buildings of a mask scatters (standard deviation)."""


def measure_straying(file: MaskFile, wanted: Sequence[MaskClass], config: VectorizeConfig) -> float:
    """Return how far the outlines of a mask's buildings stray from straight walls.

    Args:
        file: The mask.
        wanted: Classes that are drawn.
        config: How.

    Returns:
        Ground metres, a standard deviation, less what it may be too high for want of buildings; 0 where there are none.

    Raises:
        RasterError: The mask cannot be read.
    """
    buildings = [entry.value for entry in wanted if entry.name == BUILDING]

    def read(window: PixelWindow) -> Flags:
        pixels, valid = read_window(file.dataset, window)
        found = pixels[0] != 0 if config.instances else np.isin(pixels[0], buildings)
        return np.asarray(found & valid)

    return _measured(read, file.grid) if _is_needed(wanted, config) else 0.0


def measure_straying_in_memory(source: ClassMask, wanted: Sequence[MaskClass], config: VectorizeConfig) -> float:
    """Return the same of a mask in memory."""
    if not _is_needed(wanted, config):
        return 0.0
    labels = source.runs.to_array()
    buildings = [entry.value for entry in wanted if entry.name == BUILDING]

    def read(window: PixelWindow) -> Flags:
        return np.isin(labels[window.slices], buildings)

    return _measured(read, source.grid)


def _is_needed(wanted: Sequence[MaskClass], config: VectorizeConfig) -> bool:
    return config.regularize != "none" and any(entry.name == BUILDING for entry in wanted)


def _measured(read: Callable[[PixelWindow], Flags], grid: Grid) -> float:
    scale = ground_pixel_size(grid)
    found = np.empty(0)
    for window in _tiles(grid, scale):
        found = np.append(found, _straying_in(read(window), scale))
        if len(found) >= _ENOUGH:
            break
    if not len(found):
        return 0.0
    of_pixels = _OF_PIXELS * float(np.sqrt(scale[0] * scale[1]))
    straying = float(np.sqrt(max(0.0, float(np.median(found)) ** 2 - of_pixels**2)))
    logger.info("outlines stray %.2f m from straight walls, the median of %d buildings", straying, len(found))
    return max(0.0, straying - _SCATTER_M / float(np.sqrt(len(found))))


def _tiles(grid: Grid, scale: tuple[float, float]) -> list[PixelWindow]:
    """Return the tiles of a mask, shuffled by their numbers."""
    height = min(grid.height, max(1, round(_TILE_M / scale[1])), _TILE_PIXELS)
    width = min(grid.width, _TILE_PIXELS // height)
    rows, columns = max(1, grid.height // height), max(1, grid.width // width)
    number = np.arange(rows * columns, dtype=np.uint64)
    # Multiples of the golden ratio: near numbers come far apart (Knuth's multiplicative hash).
    order = np.argsort(number * np.uint64(2654435769) % np.uint64(2**32), kind="stable")[:_MOST_TILES]
    return [
        PixelWindow(
            col_off=int(place % columns) * width, row_off=int(place // columns) * height, width=width, height=height
        )
        for place in order
    ]


def _straying_in(building: Flags, scale: tuple[float, float]) -> npt.NDArray[Any]:
    """Return how far each of some objects strays that lie inside a tile."""
    from ctrs.vector.regularize.buildings import straying_of

    runs = Runs.from_array(building)
    regions = np.where(runs.values, runs.regions(), np.int32(NO_REGION))
    objects = np.unique(regions[runs.values])
    if not len(objects):
        return np.empty(0)
    column = runs.firsts % runs.width
    at_edge = (runs.rows == 0) | (runs.rows == runs.height - 1) | (column == 0) | (column + runs.lengths == runs.width)
    areas = np.bincount(regions[runs.values], runs.lengths[runs.values]) * scale[0] * scale[1]
    kept = areas >= _MIN_AREA_M2
    kept[regions[at_edge & runs.values]] = False
    chosen = np.flatnonzero(kept)
    if len(chosen) > _FROM_A_TILE:
        chosen = chosen[(np.arange(_FROM_A_TILE) * len(chosen)) // _FROM_A_TILE]
    if not len(chosen):
        return np.empty(0)
    outlines = trace(runs, np.where(np.isin(regions, chosen), regions, np.int32(NO_REGION)))
    shells = shapely.polygons(shapely.get_exterior_ring(outlines.polygons(scale)))
    return straying_of(np.asarray(shells, object), pixel_m=scale)
