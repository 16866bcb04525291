"""Reading around damage: blocks of a raster that cannot be decoded, found one by one."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import rasterio

from ctrs.errors import RasterError
from ctrs.raster.geotiff import SEQUENTIAL_DRIVERS, error_line, open_dataset, open_raster, read_window
from ctrs.raster.names import is_remote, shown
from ctrs.raster.rectangles import overlap
from ctrs.raster.windows import PixelWindow

_MAX_CELLS = 2**24
"""Cells of a lattice beyond which a virtual raster's own blocks are taken for those of its files."""

Edges = npt.NDArray[np.intp]


class BlockLattice:
    """The cells in which a raster can be read on its own: its blocks, or the parts of them that lie in it.

    Args:
        rows: First rows of the cells from 0 on, then the raster's height.
        cols: First columns of the cells from 0 on, then the raster's width.
    """

    def __init__(self, rows: Edges, cols: Edges) -> None:
        self.rows = rows
        self.cols = cols

    @classmethod
    def of(cls, dataset: rasterio.DatasetReader) -> BlockLattice:
        """Return the blocks of a dataset; those of its files where it is a virtual one that shows them unscaled."""
        height, width = dataset.block_shapes[0]
        rows, cols = _edges(dataset.height, height), _edges(dataset.width, width)
        if dataset.driver == "VRT":
            parts = _virtual_edges(dataset)
            if parts is not None and len(parts[0]) * len(parts[1]) <= _MAX_CELLS:
                rows, cols = parts
        return cls(rows, cols)

    def span(self, window: PixelWindow) -> tuple[slice, slice]:
        """Return the rows and columns of cells that a window touches."""
        return (
            _touched(self.rows, window.row_off, window.height),
            _touched(self.cols, window.col_off, window.width),
        )

    def cell(self, row: int, col: int) -> PixelWindow:
        """Return the pixels of a cell."""
        top, bottom = self.rows[row : row + 2].tolist()
        left, right = self.cols[col : col + 2].tolist()
        return PixelWindow(col_off=left, row_off=top, width=right - left, height=bottom - top)


class DamageReader:
    """Reads windows of a raster; where a block of it cannot be decoded, that block alone is left out, or named.

    Args:
        dataset: From ``open_raster`` or ``open_dataset``, in whose ``rasterio.Env`` it is read.
        bidx: Band numbers from 1.
        skip: Whether broken blocks are left out; else they are an error.
    """

    def __init__(self, dataset: rasterio.DatasetReader, bidx: tuple[int, ...], *, skip: bool) -> None:
        self._dataset = dataset
        self._bidx = bidx
        self._skip = skip
        self._dtype = np.result_type(*(dataset.dtypes[number - 1] for number in bidx))
        self._sequential = dataset.driver in SEQUENTIAL_DRIVERS
        self._found = False

    @cached_property
    def _lattice(self) -> BlockLattice:
        return BlockLattice.of(self._dataset)

    @cached_property
    def _broken(self) -> npt.NDArray[np.bool_]:
        """Cells that are known to be broken."""
        return np.zeros((len(self._lattice.rows) - 1, len(self._lattice.cols) - 1), bool)

    @property
    def unreadable(self) -> list[PixelWindow]:
        """The blocks, whole, that were found to be broken so far, from the top down."""
        if not self._found:
            return []
        return [self._lattice.cell(int(row), int(col)) for row, col in np.argwhere(self._broken)]

    def read(self, window: PixelWindow) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Return pixels (C, h, w) and the valid mask (h, w), True = valid, as ``read_window`` does.

        Raises:
            RasterError: A block cannot be decoded and is not to be left out; it is named with its place.
        """
        if not self._found:
            try:
                return read_window(self._dataset, window, bidx=self._bidx)
            except RasterError as error:
                if error.__cause__ is None:  # not GDAL's: the window or the bands are wrong
                    raise
                if self._sequential:
                    self._leave_out(self._first_broken_row(window.row_off), 0, error)
        pixels = np.zeros((len(self._bidx), window.height, window.width), self._dtype)
        valid = np.zeros((window.height, window.width), bool)
        rows, cols = self._lattice.span(window)
        self._fill(rows, cols, window, pixels, valid)
        return pixels, valid

    def _fill(
        self, rows: slice, cols: slice, window: PixelWindow, pixels: npt.NDArray[Any], valid: npt.NDArray[np.bool_]
    ) -> None:
        """Read the part of a window that lies in a rectangle of cells, splitting it until only whole cells fail."""
        known = self._broken[rows, cols]
        if known.all():
            return
        num_rows, num_cols = rows.stop - rows.start, cols.stop - cols.start
        if not known.any():
            inner = overlap(self._cells(rows, cols), window) or window  # they touch
            try:
                found, found_valid = read_window(self._dataset, inner, bidx=self._bidx)
            except RasterError as error:
                if num_rows == num_cols == 1:
                    self._leave_out(rows.start, cols.start, error)
                    return
            else:
                top, left = inner.row_off - window.row_off, inner.col_off - window.col_off
                place = slice(top, top + inner.height), slice(left, left + inner.width)
                pixels[:, *place], valid[place] = found, found_valid
                return
        if num_rows >= num_cols:
            middle = rows.start + num_rows // 2
            parts = [(slice(rows.start, middle), cols), (slice(middle, rows.stop), cols)]
        else:
            middle = cols.start + num_cols // 2
            parts = [(rows, slice(cols.start, middle)), (rows, slice(middle, cols.stop))]
        for part_rows, part_cols in parts:
            self._fill(part_rows, part_cols, window, pixels, valid)

    def _first_broken_row(self, expected: int) -> int:
        """Return the first row of a file without blocks that cannot be decoded.

        It is opened anew: GDAL complains of a JPEG that was cut short once, and makes up the rest of it.

        Args:
            expected: The row to return if all can be decoded after all.
        """
        with open_dataset(Path(self._dataset.name)) as again:
            for row in range(again.height):
                line = PixelWindow(col_off=0, row_off=row, width=again.width, height=1)
                try:
                    read_window(again, line, bidx=self._bidx)
                except RasterError:
                    return row
        return expected

    def _leave_out(self, row: int, col: int, error: RasterError) -> None:
        """Note a cell that cannot be read.

        Raises:
            RasterError: Such cells are not to be left out.
        """
        if not self._skip:
            cell = self._lattice.cell(row, col)
            reason = error_line(error.__cause__ or error)
            remedy = "the file is damaged or cut short: get it again"
            if is_remote(self._dataset.name):
                remedy = "the connection was lost, or the file is damaged: run the same command again"
            raise RasterError(
                f"{shown(self._dataset.name)}: block of {cell.width} x {cell.height} px at row {cell.row_off}, column "
                f"{cell.col_off} not readable ({reason}); {remedy}, or leave such blocks nodata with --skip-unreadable"
            ) from error
        self._found = True
        self._broken[row, col] = True
        if self._sequential:  # what comes after the damage cannot be decoded either
            self._broken[row:] = True

    def _cells(self, rows: slice, cols: slice) -> PixelWindow:
        top, bottom = int(self._lattice.rows[rows.start]), int(self._lattice.rows[rows.stop])
        left, right = int(self._lattice.cols[cols.start]), int(self._lattice.cols[cols.stop])
        return PixelWindow(col_off=left, row_off=top, width=right - left, height=bottom - top)


def _edges(length: int, step: int, *, start: int = 0) -> Edges:
    """Return first pixels of blocks of a length, and its end."""
    return np.append(np.arange(0, length, max(1, step)), length) + start


def _touched(edges: Edges, start: int, length: int) -> slice:
    first = int(np.searchsorted(edges, start, side="right")) - 1
    last = int(np.searchsorted(edges, start + length, side="left"))
    return slice(first, last)


def _virtual_edges(dataset: rasterio.DatasetReader) -> tuple[Edges, Edges] | None:
    """Return the edges of the blocks of all files of a virtual raster; None where it resamples or derives."""
    try:
        root = ElementTree.fromstring(dataset.tags(ns="xml:VRT").get("xml:VRT", ""))
    except ElementTree.ParseError:
        return None
    rows, cols = [np.array([0, dataset.height])], [np.array([0, dataset.width])]
    blocks: dict[str, tuple[int, int, int, int]] = {}
    for source in root.iterfind(".//VRTRasterBand/*"):
        if not source.tag.endswith("Source"):
            continue
        places = [_rectangle(source.find(name)) for name in ("SrcRect", "DstRect")]
        if None in places:
            return None
        (col, row, width, height), (left, top, shown_width, shown_height) = (place for place in places if place)
        if (width, height) != (shown_width, shown_height):
            return None
        name = source.findtext("SourceFilename", "")
        element = source.find("SourceFilename")
        if element is not None and element.get("relativeToVRT") == "1":
            name = str(Path(dataset.name).parent / name)
        if name not in blocks:
            blocks[name] = _block_of(name)
        block_height, block_width, file_height, file_width = blocks[name]
        rows.append(_within(_edges(file_height, block_height), row, height, top))
        cols.append(_within(_edges(file_width, block_width), col, width, left))
    return _inside(rows, dataset.height), _inside(cols, dataset.width)


def _block_of(name: str) -> tuple[int, int, int, int]:
    """Return the block size and the size of a file; a single block where it does not open."""
    try:
        with open_raster(Path(name)) as dataset:
            height, width = dataset.block_shapes[0]
            return height, width, dataset.height, dataset.width
    except (RasterError, FileNotFoundError):
        return 2**30, 2**30, 2**30, 2**30


def _within(edges: Edges, start: int, length: int, moved_to: int) -> Edges:
    """Return the edges inside a stretch, moved to where it is shown, with its two ends."""
    inner = edges[(edges > start) & (edges < start + length)] - start
    return np.concatenate([[0], inner, [length]]) + moved_to


def _inside(edges: Iterable[Edges], length: int) -> Edges:
    joined = np.unique(np.concatenate(list(edges)))
    return joined[(joined >= 0) & (joined <= length)]


def _rectangle(element: ElementTree.Element | None) -> tuple[int, int, int, int] | None:
    """Return column, row, width and height; None where they are no whole pixels."""
    if element is None:
        return None
    values = [float(element.get(key, "nan")) for key in ("xOff", "yOff", "xSize", "ySize")]
    if not all(value.is_integer() for value in values):
        return None
    col, row, width, height = (int(value) for value in values)
    return col, row, width, height
