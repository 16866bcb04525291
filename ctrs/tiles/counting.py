"""Pixels are counted while they pass by, row of tiles by row of tiles, and added up to the facts of a scene."""

from __future__ import annotations

import base64
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ctrs.classes import Mask
from ctrs.raster.windows import PixelWindow
from ctrs.tiles.decoding import MAX_UNKNOWN_KINDS
from ctrs.tiles.facts import Preview, SceneFacts
from ctrs.tiles.labels import DecodedLabel
from ctrs.tiles.tile_grid import TileGrid

Counts = npt.NDArray[np.int64]

OTHERS = "others"
"""Unknown values that are too many kinds to be counted each by its own text."""


@dataclass(frozen=True, kw_only=True)
class CountPlan:
    """What is the same for all rows of a scene: its tiles, number of classes, bands, dtype and preview step."""

    grid: TileGrid
    num_classes: int
    num_bands: int
    dtype: str
    step: int

    @property
    def width(self) -> int:
        """Columns of the scene."""
        return self.grid.cols.spans[-1][1]

    def preview_rows(self, row: int) -> range:
        """Return the pixel rows of the preview that are a row of tiles' own."""
        top, bottom = self.grid.rows.own(row)
        return range(-(-top // self.step) * self.step, bottom, self.step)


@dataclass(kw_only=True)
class LabelCounts:
    """What decoding a label changed or did not know, each pixel once."""

    num_changed: int = 0
    unknown: Counter[str] = field(default_factory=Counter)
    first_unknown: tuple[int, int] | None = None

    def add(self, decoded: DecodedLabel, window: PixelWindow) -> None:
        """Add a window."""
        self.num_changed += decoded.num_changed
        self._add_unknown(decoded.unknown)
        if decoded.first_unknown is not None:
            row, col = decoded.first_unknown
            self._come_first((window.row_off + row, window.col_off + col))

    def join(self, other: LabelCounts) -> None:
        """Add the counts of other windows."""
        self.num_changed += other.num_changed
        self._add_unknown(other.unknown)
        if other.first_unknown is not None:
            self._come_first(other.first_unknown)

    def clear(self) -> None:
        """Begin anew."""
        self.num_changed, self.unknown, self.first_unknown = 0, Counter(), None

    def _add_unknown(self, unknown: Mapping[str, int]) -> None:
        """Add counts; the rarest of too many kinds are counted together, as in each window."""
        self.unknown.update(unknown)
        if len(self.unknown) > 4 * MAX_UNKNOWN_KINDS:
            others = self.unknown.pop(OTHERS, 0)
            ranked = sorted(self.unknown.items(), key=lambda entry: (-entry[1], entry[0]))
            others += sum(number for _, number in ranked[MAX_UNKNOWN_KINDS:])
            self.unknown = Counter({**dict(ranked[:MAX_UNKNOWN_KINDS]), OTHERS: others})

    def _come_first(self, place: tuple[int, int]) -> None:
        self.first_unknown = place if self.first_unknown is None else min(self.first_unknown, place)

    def to_json(self) -> list[Any]:
        """Return plain values."""
        return [self.num_changed, dict(sorted(self.unknown.items())), self.first_unknown]

    @classmethod
    def from_json(cls, row: Sequence[Any]) -> LabelCounts:
        """Build from ``to_json`` output."""
        changed, unknown, first = row
        return cls(num_changed=changed, unknown=Counter(unknown), first_unknown=None if first is None else tuple(first))


class RowCounts:
    """Counts over the ground that a row of tiles is the first to hold.

    Args:
        plan: Of the scene.
        row: Number of the row of tiles.
    """

    def __init__(self, plan: CountPlan, row: int) -> None:
        self.row = row
        self.label = LabelCounts()
        self.eroded = LabelCounts()
        self._plan = plan
        self._by_class: Counts = np.zeros(plan.num_classes + 1, np.int64)
        self._low: Counts = np.zeros(plan.num_bands, np.int64)
        self._high: Counts = np.zeros(plan.num_bands, np.int64)
        starts = np.cumsum([0, *(len(plan.grid.cols.cells(col)) for col in range(len(plan.grid.cols.spans)))])
        self._first_cell: list[int] = starts.tolist()
        self.cells: Counts = np.zeros(
            (len(plan.grid.rows.cells(row)), self._first_cell[-1], plan.num_classes + 1), np.int64
        )
        shape = len(plan.preview_rows(row)), -(-plan.width // plan.step)
        self._pixels: npt.NDArray[Any] = np.zeros((plan.num_bands, *shape), plan.dtype)
        self._valid: npt.NDArray[np.bool_] = np.zeros(shape, bool)
        self._mask: Mask = np.zeros(shape, np.uint8)

    def count_strip(
        self, window: PixelWindow, pixels: npt.NDArray[Any], valid: npt.NDArray[np.bool_], mask: Mask
    ) -> tuple[Counts, Counts, Counts]:
        """Count pixels, which are a row's own, before they are cut.

        Returns:
            What ``add_strip`` takes; pictures are noted at once.
        """
        by_class = count_classes(np.where(valid, mask, np.uint8(255)), self._plan.num_classes, int(valid.sum()))
        low, high = count_extremes(pixels, valid)
        step = self._plan.step
        rows = self._plan.preview_rows(self.row)
        left = -(-window.col_off // step) * step
        if len(rows) and left < window.col_off + window.width:
            inside = np.s_[rows.start - window.row_off :: step, left - window.col_off :: step]
            cols = slice(left // step, left // step + len(range(left, window.col_off + window.width, step)))
            self._pixels[:, :, cols] = pixels[(slice(None), *inside)]
            self._valid[:, cols] = valid[inside]
            self._mask[:, cols] = mask[inside]
        return by_class, low, high

    def add_strip(self, counts: tuple[Counts, Counts, Counts]) -> None:
        """Add what ``count_strip`` returned; not safe in several threads at a time."""
        for total, part in zip((self._by_class, self._low, self._high), counts, strict=True):
            total += part

    def count_tile(self, col: int, own: Mask, valid: npt.NDArray[np.bool_], class_counts: Sequence[int]) -> None:
        """Count the cells of a tile that it is the first to hold, from its mask as it is written.

        Args:
            col: Column of the tile.
            own: Its mask, 255 where not valid.
            valid: Its valid mask.
            class_counts: Pixels of the whole mask by class index.
        """
        grid = self._plan.grid
        window = grid.window(self.row, col)
        rows, cols = grid.rows.cells(self.row), grid.cols.cells(col)
        if rows == (grid.rows.spans[self.row],) and cols == (grid.cols.spans[col],):
            ignored = int(np.count_nonzero(valid)) - sum(class_counts)
            self.cells[0, self._first_cell[col]] = (*class_counts, ignored)
            return
        for number, (top, bottom) in enumerate(rows):
            for place, (left, right) in enumerate(cols, start=self._first_cell[col]):
                inside = np.s_[
                    top - window.row_off : bottom - window.row_off, left - window.col_off : right - window.col_off
                ]
                self.cells[number, place] = count_classes(
                    own[inside], self._plan.num_classes, int(np.count_nonzero(valid[inside]))
                )

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "label": self.label.to_json(),
            "eroded": self.eroded.to_json(),
            "by_class": self._by_class.tolist(),
            "low": self._low.tolist(),
            "high": self._high.tolist(),
            "cells": self.cells.tolist(),
            "preview": [_pack(array) for array in (self._pixels, self._valid, self._mask)],
        }

    @classmethod
    def from_json(cls, plan: CountPlan, row: int, values: Mapping[str, Any]) -> RowCounts:
        """Build from ``to_json`` output; raises KeyError, TypeError or ValueError on anything else."""
        counts = cls(plan, row)
        counts.label, counts.eroded = LabelCounts.from_json(values["label"]), LabelCounts.from_json(values["eroded"])
        for array, key in (
            (counts._by_class, "by_class"),
            (counts._low, "low"),
            (counts._high, "high"),
            (counts.cells, "cells"),
        ):
            found = np.array(values[key], np.int64)
            if found.shape != array.shape:
                raise ValueError(key)
            array[...] = found
        for array, text in zip((counts._pixels, counts._valid, counts._mask), values["preview"], strict=True):
            array[...] = np.frombuffer(zlib.decompress(base64.b64decode(text)), array.dtype).reshape(array.shape)
        return counts


def _pack(array: npt.NDArray[Any]) -> str:
    return base64.b64encode(zlib.compress(array.tobytes(), 1)).decode()


def count_classes(own: Mask, num_classes: int, num_valid: int) -> Counts:
    """Count the pixels of each class, and last those that are valid but of no class."""
    counts = np.bincount(own.reshape(-1), minlength=256)[: num_classes + 1].astype(np.int64)
    counts[num_classes] = num_valid - counts[:num_classes].sum()
    return counts


def count_extremes(pixels: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> tuple[Counts, Counts]:
    """Count the valid pixels of each band at the least and the greatest value of an integer dtype."""
    low, high = np.zeros(len(pixels), np.int64), np.zeros(len(pixels), np.int64)
    if pixels.dtype.kind not in "iu" or not valid.any():
        return low, high
    limits = np.iinfo(pixels.dtype)
    for number, band in enumerate(pixels):
        low[number] = np.count_nonzero((band == limits.min) & valid)
        high[number] = np.count_nonzero((band == limits.max) & valid)
    return low, high


def scene_preview(plan: CountPlan, rows: Sequence[RowCounts]) -> Preview:
    """Lay the pictures of all rows below each other, and take them from the rows, which need them no more."""
    preview = Preview(
        step=plan.step,
        pixels=np.concatenate([row._pixels for row in rows], axis=1),
        valid=np.concatenate([row._valid for row in rows]),
        mask=np.concatenate([row._mask for row in rows]),
    )
    for row in rows:
        row._pixels, row._valid, row._mask = row._pixels[:, :0].copy(), row._valid[:0].copy(), row._mask[:0].copy()
    return preview


def scene_facts(
    plan: CountPlan, rows: Sequence[RowCounts], kept: npt.NDArray[np.bool_], num_px: int, preview: Preview
) -> SceneFacts:
    """Add up the rows of a scene.

    Args:
        plan: Of the scene.
        rows: Counts of all rows of tiles, from top to bottom.
        kept: (rows, columns) of tiles: whether each was kept.
        num_px: Pixels of the scene.
        preview: From ``scene_preview``.
    """
    classes = plan.num_classes
    by_class = sum((row._by_class for row in rows), np.zeros(classes + 1, np.int64))
    tiled, left_out = np.zeros(classes + 1, np.int64), np.zeros(classes + 1, np.int64)
    coverage: Counter[int] = Counter()
    col_holders = [
        plan.grid.cols.holders(col, left)
        for col in range(len(plan.grid.cols.spans))
        for left, _ in plan.grid.cols.cells(col)
    ]
    for row in rows:
        for number, (top, _) in enumerate(plan.grid.rows.cells(row.row)):
            row_holders = plan.grid.rows.holders(row.row, top)
            above = kept[row_holders.start : row_holders.stop].sum(axis=0)
            for place, holders in enumerate(col_holders):
                times = int(above[holders.start : holders.stop].sum())
                counts = row.cells[number, place]
                coverage[times] += int(counts.sum())
                if times:
                    tiled += counts
                else:
                    left_out += counts
    label, eroded = LabelCounts(), LabelCounts()
    for row in rows:
        label.join(row.label)
        eroded.join(row.eroded)
    return SceneFacts(
        num_px=num_px,
        valid_px=int(by_class.sum()),
        label_counts=tuple(by_class[:classes].tolist()),
        ignored_px=int(by_class[classes]),
        tiled_counts=tuple(tiled[:classes].tolist()),
        left_out_counts=tuple(left_out[:classes].tolist()),
        coverage=tuple(coverage[times] for times in range(max(coverage, default=0) + 1)),
        num_changed=label.num_changed,
        unknown=dict(sorted(label.unknown.items())),
        first_unknown=label.first_unknown,
        eroded_unknown=dict(sorted(eroded.unknown.items())),
        eroded_first_unknown=eroded.first_unknown,
        low_px=tuple(np.sum([row._low for row in rows], axis=0).tolist()),
        high_px=tuple(np.sum([row._high for row in rows], axis=0).tolist()),
        preview=preview,
    )
