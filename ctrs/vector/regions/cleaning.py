"""Specks and pinholes leave a mask by ground area, before any outline is drawn; the rest keeps its pixels exactly.

Regions are the nodes of a graph whose edges carry the length of common borders. A speck takes the class of the
neighbour with which it shares the longest border, a hole that of the polygon around it; regions that thereby become one
are joined. This goes on until nothing changes, smallest first, so that the outcome depends on the mask alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ctrs.config.choices import Connectivity
from ctrs.raster.geotiff import Grid
from ctrs.raster.units import ground_pixel_size_m
from ctrs.raster.windows import PixelWindow
from ctrs.vector.regions.runs import IntArray, Runs, join

FloatArray = npt.NDArray[np.float64]

_SAMPLED_ROWS = 65
_JUST_BELOW = 1 - 1e-9
"""Sums of pixel areas carry rounding; what has a limit's area is not below it."""


@dataclass(frozen=True, kw_only=True)
class RegionGraph:
    """Regions and who borders on whom.

    Args:
        classes: Class value of each region; shape (N,).
        areas_m2: Ground area of each region; shape (N,).
        at_edge: True for regions that reach the raster's edge; shape (N,).
        borders: Pairs of neighbours, each once, the lower number first; shape (E, 2).
        border_lengths: Length of each common border; shape (E,).
        members: Region of each of the things (runs, at first) that the graph was made from.
    """

    classes: npt.NDArray[Any]
    areas_m2: FloatArray
    at_edge: npt.NDArray[np.bool_]
    borders: IntArray
    border_lengths: FloatArray
    members: npt.NDArray[np.int32]

    @classmethod
    def of(cls, runs: Runs, grid: Grid, *, row_off: int = 0, connectivity: Connectivity = 4) -> RegionGraph:
        """Build the graph of the connected regions of a raster, or of its rows from ``row_off`` on.

        Args:
            runs: Class values of the rows.
            grid: Of the whole raster.
            row_off: First of the rows.
            connectivity: 8: pixels of a class that share a corner are one region too.
        """
        width, height = ground_pixel_size(grid)
        upper, lower, shared = runs.stacked
        left = runs.beside
        column = runs.firsts - runs.rows * runs.width
        at_edge = (runs.rows == 0) | (runs.rows == runs.height - 1) | (column == 0) | (runs.ends % runs.width == 0)
        each_run = cls(
            classes=runs.values,
            areas_m2=runs.lengths * pixel_areas_m2(grid)[runs.rows + row_off],
            at_edge=at_edge,
            borders=np.column_stack([np.concatenate([upper, left]), np.concatenate([lower, left + 1])]),
            border_lengths=np.concatenate([shared * width, np.full(len(left), height)]),
            members=np.arange(runs.count, dtype=np.int32),
        )
        if connectivity == 8:
            corners = np.concatenate([np.column_stack(pair) for pair in runs.diagonals()])
            borders = np.concatenate([each_run.borders, corners])
            lengths = np.concatenate([each_run.border_lengths, np.zeros(len(corners))])
            each_run = replace(each_run, borders=borders, border_lengths=lengths)
        return each_run.joined()

    @property
    def count(self) -> int:
        """Number of regions."""
        return len(self.classes)

    def joined(self) -> RegionGraph:
        """Return the graph in which neighbours of the same class are one region."""
        first, second = self.borders[:, 0], self.borders[:, 1]
        same = self.classes[first] == self.classes[second]
        region = join(self.count, first[same], second[same])
        count = int(region.max()) + 1
        classes = np.empty(count, self.classes.dtype)
        classes[region] = self.classes
        pairs = np.sort(region[self.borders[~same]].astype(np.int64), axis=1)
        keys, where = np.unique(pairs[:, 0] * count + pairs[:, 1], return_inverse=True)
        return RegionGraph(
            classes=classes,
            areas_m2=_sums(region, self.areas_m2, count),
            at_edge=_sums(region, self.at_edge, count) > 0,
            borders=np.column_stack(np.divmod(keys, count)),
            border_lengths=_sums(where, self.border_lengths[~same], len(keys)),
            members=region[self.members],
        )

    def neighbors(self) -> tuple[IntArray, IntArray, FloatArray]:
        """Return each border from both sides: region, neighbour, length."""
        first, second = self.borders[:, 0], self.borders[:, 1]
        lengths = np.concatenate([self.border_lengths, self.border_lengths])
        return np.concatenate([first, second]), np.concatenate([second, first]), lengths


def clean(graph: RegionGraph, *, min_area_m2: float, min_hole_m2: float, none: int, spare_none: bool) -> RegionGraph:
    """Remove specks and pinholes.

    Args:
        graph: Regions of a mask.
        min_area_m2: Regions of a class below this ground area go to the neighbour with the longest common border.
        min_hole_m2: Regions of ``none`` below this ground area, enclosed by one region, go to it.
        none: Class value of what is no class: nodata, and classes that were not asked for.
        spare_none: Give specks to ``none`` only where they have no other neighbour (a coverage without gaps stays one).

    Returns:
        The graph of the cleaned mask, without class regions below ``min_area_m2`` and without holes below
        ``min_hole_m2``, other than holes in which something lies that is not small.
    """
    count = graph.count + 1
    while graph.count < count:
        count = graph.count
        graph = _fill_holes(graph, min_hole_m2, none)
        graph = _absorb_specks(graph, min_area_m2, none, spare_none=spare_none)
    return graph


def _fill_holes(graph: RegionGraph, min_hole_m2: float, none: int) -> RegionGraph:
    small = (graph.classes == none) & ~graph.at_edge & (graph.areas_m2 < min_hole_m2 * _JUST_BELOW)
    if not small.any():
        return graph
    region, neighbor, _ = graph.neighbors()
    enclosed = small & (np.bincount(region, minlength=graph.count) == 1)
    fill = enclosed[region]
    classes = graph.classes.copy()
    classes[region[fill]] = graph.classes[neighbor[fill]]
    return replace(graph, classes=classes).joined()


def _absorb_specks(graph: RegionGraph, min_area_m2: float, none: int, *, spare_none: bool) -> RegionGraph:
    while True:
        speck = (graph.classes != none) & (graph.areas_m2 < min_area_m2 * _JUST_BELOW)
        if not speck.any():
            return graph
        target = _longest_border(graph, speck, none, spare_none=spare_none)
        # Smallest first: a speck waits for smaller ones beside it, which may make it large enough to stay.
        rank = np.empty(graph.count, np.int64)
        rank[np.lexsort((np.arange(graph.count), graph.areas_m2))] = np.arange(graph.count)
        between = graph.borders[speck[graph.borders].all(axis=1)]
        moves = speck.copy()
        moves[np.take_along_axis(between, rank[between].argmax(axis=1)[:, None], axis=1)] = False
        alone = target < 0
        classes = graph.classes.copy()
        classes[moves] = np.where(alone[moves], none, graph.classes[target[moves]])
        graph = replace(graph, classes=classes).joined()


def _longest_border(graph: RegionGraph, wanted: npt.NDArray[np.bool_], none: int, *, spare_none: bool) -> IntArray:
    """Neighbour with the longest common border of each wanted region; -1 where there is none.

    Of equals one of a class, then the larger, then the first: how far what is no class reaches decides nothing, so that
    a part of a mask is cleaned as the whole.
    """
    region, neighbor, length = graph.neighbors()
    chosen = wanted[region]
    region, neighbor, length = region[chosen], neighbor[chosen], length[chosen]
    is_none = graph.classes[neighbor] == none
    last_resort = is_none & spare_none
    # Lengths are sums of equal steps in varying order: rounding must not decide.
    larger_first = -graph.areas_m2[neighbor]
    order = np.lexsort((neighbor, larger_first, is_none, -np.round(length, 6), last_resort, region))
    region, neighbor = region[order], neighbor[order]
    target = np.full(graph.count, -1, np.int64)
    target[region[::-1]] = neighbor[::-1]
    return target


def _sums(bins: npt.NDArray[Any], values: npt.NDArray[Any], count: int) -> FloatArray:
    return np.asarray(np.bincount(bins, weights=values, minlength=count), np.float64)


def ground_pixel_size(grid: Grid) -> tuple[float, float]:
    """Return the width and height of a pixel in ground metres; in the units of the transform where there is no CRS."""
    if grid.crs is not None:
        return ground_pixel_size_m(grid)
    return float(np.hypot(grid.transform.a, grid.transform.d)), float(np.hypot(grid.transform.b, grid.transform.e))


@lru_cache(maxsize=8)
def pixel_areas_m2(grid: Grid) -> FloatArray:
    """Return the ground area of a pixel in each row, measured on sampled rows at the middle column."""
    rows = np.unique(np.linspace(0, grid.height - 1, _SAMPLED_ROWS).round().astype(int))
    areas = []
    for row in rows.tolist():
        strip = grid.window(PixelWindow(col_off=0, row_off=row, width=grid.width, height=1))
        width, height = ground_pixel_size(strip)
        areas.append(width * height)
    by_row = np.interp(np.arange(grid.height), rows, areas)
    by_row.flags.writeable = False
    return by_row
