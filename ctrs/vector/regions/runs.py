"""A class raster as runs: each row cut into stretches of equal value. Exact, and small where polygons are large.

Everything that vectorizing asks of pixels (connected regions, their areas, who borders on whom and how far) is answered
from runs with whole-array operations; memory grows with the length of all outlines, not with the number of pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components

from ctrs.config import Connectivity

IntArray = npt.NDArray[np.int64]
RegionIds = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Runs in row-major order; each row begins with a run of its own, so that they tile the raster without gaps.

    Args:
        height: Raster rows.
        width: Raster columns.
        firsts: First pixel of each run, as ``row * width + column``; shape (N,), rising.
        values: Value of each run; shape (N,).
    """

    height: int
    width: int
    firsts: IntArray
    values: npt.NDArray[Any]

    @classmethod
    def from_bands(cls, bands: Iterable[npt.NDArray[Any]], *, height: int, width: int) -> Runs:
        """Join consecutive row bands, each (rows, width); how the rows are cut into bands leaves no trace."""
        firsts: list[IntArray] = []
        values: list[npt.NDArray[Any]] = []
        offset = 0
        for band in bands:
            flat = np.ascontiguousarray(band).reshape(-1)
            begins = np.empty(flat.size, bool)
            np.not_equal(flat[1:], flat[:-1], out=begins[1:])
            begins[::width] = True
            places = np.flatnonzero(begins)
            firsts.append(places + offset)
            values.append(flat[places])
            offset += flat.size
        if offset != height * width:
            raise ValueError(f"bands hold {offset} pixels, expected {height} x {width}")
        return cls(height=height, width=width, firsts=np.concatenate(firsts), values=np.concatenate(values))

    @classmethod
    def from_array(cls, labels: npt.NDArray[Any]) -> Runs:
        """Take a class raster (height, width) that is in memory."""
        height, width = labels.shape
        return cls.from_bands([labels], height=height, width=width)

    @property
    def count(self) -> int:
        """Number of runs."""
        return len(self.firsts)

    @cached_property
    def ends(self) -> IntArray:
        """The pixel after the last of each run."""
        return np.append(self.firsts[1:], self.height * self.width)

    @cached_property
    def lengths(self) -> IntArray:
        """Pixels in each run."""
        return self.ends - self.firsts

    @cached_property
    def rows(self) -> IntArray:
        """Row of each run."""
        return self.firsts // self.width

    def with_values(self, values: npt.NDArray[Any]) -> Runs:
        """Return the runs of the same raster with other values; neighbours that became equal are one run."""
        begins = np.empty(self.count, bool)
        begins[0] = True
        np.not_equal(values[1:], values[:-1], out=begins[1:])
        begins |= self.firsts % self.width == 0
        return Runs(height=self.height, width=self.width, firsts=self.firsts[begins], values=values[begins])

    def to_array(self) -> npt.NDArray[Any]:
        """Return the raster (height, width)."""
        return np.repeat(self.values, self.lengths).reshape(self.height, self.width)

    @cached_property
    def stacked(self) -> tuple[IntArray, IntArray, IntArray]:
        """Pairs of runs one above the other: upper run, lower run, and how many columns they share."""
        # A pair's common stretch begins where the lower or the upper run begins: two look-ups find each pair once.
        lower = np.arange(np.searchsorted(self.firsts, self.width), self.count)
        upper = self.run_at(self.firsts[lower] - self.width)
        shared = np.minimum(self.ends[lower], self.ends[upper] + self.width) - self.firsts[lower]
        over = np.arange(np.searchsorted(self.firsts, (self.height - 1) * self.width))
        under = self.run_at(self.firsts[over] + self.width)
        later = self.firsts[under] != self.firsts[over] + self.width
        over, under = over[later], under[later]
        more = np.minimum(self.ends[over] + self.width, self.ends[under]) - self.firsts[over] - self.width
        return np.concatenate([upper, over]), np.concatenate([lower, under]), np.concatenate([shared, more])

    @cached_property
    def beside(self) -> IntArray:
        """Runs that have a right neighbour in their row; that neighbour is the next run."""
        return np.flatnonzero(self.firsts[1:] % self.width)

    def run_at(self, pixels: IntArray) -> IntArray:
        """Return the run that holds each pixel (``row * width + column``)."""
        found: IntArray = np.searchsorted(self.firsts, pixels, side="right") - 1
        return found

    def regions(self, connectivity: Connectivity = 4) -> RegionIds:
        """Return the connected region of each run, numbered from 0 in the order of first pixels."""
        upper, lower, _ = self.stacked
        same = self.values[upper] == self.values[lower]
        pairs = [(upper[same], lower[same])]
        if connectivity == 8:
            pairs.extend(self.diagonals())
        first = np.concatenate([pair[0] for pair in pairs])
        second = np.concatenate([pair[1] for pair in pairs])
        return join(self.count, first, second)

    def diagonals(self) -> Iterator[tuple[IntArray, IntArray]]:
        """Pairs of equal runs in neighbouring rows that touch at a corner only."""
        inner = np.flatnonzero((self.ends % self.width != 0) & (self.firsts >= self.width))
        above = self.run_at(self.ends[inner] - self.width)
        hit = (self.firsts[above] == self.ends[inner] - self.width) & (self.values[above] == self.values[inner])
        yield above[hit], inner[hit]
        inner = np.flatnonzero((self.firsts % self.width != 0) & (self.firsts >= self.width))
        above = self.run_at(self.firsts[inner] - self.width - 1)
        hit = (self.ends[above] == self.firsts[inner] - self.width) & (self.values[above] == self.values[inner])
        yield above[hit], inner[hit]


def join(count: int, first: npt.NDArray[Any], second: npt.NDArray[Any]) -> RegionIds:
    """Return the connected set of each of ``count`` nodes, numbered from 0 in the order of their first members.

    >>> join(4, np.array([3]), np.array([1])).tolist()
    [0, 1, 2, 1]
    """
    graph = coo_matrix((np.ones(len(first), np.int8), (first, second)), shape=(count, count))
    num_sets, labels = connected_components(csr_matrix(graph), directed=False)
    leader = np.empty(num_sets, np.int64)
    leader[labels[::-1]] = np.arange(count - 1, -1, -1)
    rank = np.empty(num_sets, np.int32)
    rank[np.argsort(leader)] = np.arange(num_sets, dtype=np.int32)
    ids: RegionIds = rank[labels]
    return ids
