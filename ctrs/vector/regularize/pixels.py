"""The foreground of each polygon as the mask had it before cleaning: where gaps between neighbours still show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ctrs.vector.regions.cleaning import RegionGraph
from ctrs.vector.regions.runs import IntArray, Runs


@dataclass(frozen=True, kw_only=True)
class PixelRuns:
    """Foreground pixels of polygons, as stretches of rows.

    Args:
        rows: Row of each run; shape (N,).
        begins: First column; shape (N,).
        ends: Column after the last; shape (N,).
        offsets: First run of each polygon, and N; shape (P + 1,).
    """

    rows: IntArray
    begins: IntArray
    ends: IntArray
    offsets: IntArray

    @classmethod
    def of(cls, runs: Runs, cleaned: RegionGraph, none: int, *, row_off: int = 0) -> PixelRuns:
        """Take the runs of a mask that are foreground and lie in a region of its cleaned form that is foreground too.

        Args:
            runs: Of the mask, before cleaning.
            cleaned: Regions after cleaning; those of a class make the polygons, in their order.
            none: Value of what is no class.
            row_off: Number of the first row.
        """
        wanted = cleaned.classes != none
        polygon = np.cumsum(wanted) - 1
        found = np.flatnonzero((runs.values != none) & wanted[cleaned.members])
        owner = polygon[cleaned.members[found]]
        order = np.argsort(owner, kind="stable")
        found, owner = found[order], owner[order]
        begins = runs.firsts[found] - runs.rows[found] * runs.width
        return cls(
            rows=runs.rows[found] + row_off,
            begins=begins,
            ends=begins + runs.lengths[found],
            offsets=np.searchsorted(owner, np.arange(int(wanted.sum()) + 1)).astype(np.int64),
        )

    def take(self, polygons: IntArray) -> PixelRuns:
        """Return the foreground of chosen polygons, in the given order; of -1 there is none."""
        begins, ends = self.offsets[:-1][polygons], self.offsets[1:][polygons]
        sizes = np.where(polygons < 0, 0, ends - begins)
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        runs = np.repeat(begins - offsets[:-1], sizes) + np.arange(offsets[-1])
        return PixelRuns(rows=self.rows[runs], begins=self.begins[runs], ends=self.ends[runs], offsets=offsets)
