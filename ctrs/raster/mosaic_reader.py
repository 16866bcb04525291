"""Windows of a mosaic, read from its files: few are open at a time, and damage is found in the file that has it."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio

from ctrs.raster.damage import DamageReader
from ctrs.raster.geotiff import open_dataset
from ctrs.raster.mosaic import MosaicSource
from ctrs.raster.mosaic_parts import Mosaic
from ctrs.raster.rectangles import counted_from, moved, overlap
from ctrs.raster.windows import PixelWindow

OPEN_FILES = 64
"""Files of a mosaic that are open at a time."""


class MosaicReader:
    """Reads windows of a mosaic; later files lie on top with their valid pixels, earlier ones show where these end.

    Args:
        mosaic: Files and their places.
        bidx: Band numbers from 1.
        dtype: Of the pixels.
        skip: Whether blocks that cannot be decoded are left out; else they are an error.
    """

    def __init__(self, mosaic: Mosaic, bidx: tuple[int, ...], dtype: np.dtype[Any], *, skip: bool) -> None:
        self._sources = mosaic.sources
        self._bidx = bidx
        self._dtype = dtype
        self._skip = skip
        self._places = np.array([(s.row_off, s.col_off, s.height, s.width) for s in mosaic.sources]).T
        self._open: OrderedDict[int, tuple[rasterio.DatasetReader, DamageReader]] = OrderedDict()
        self._broken: dict[int, list[PixelWindow]] = {}

    @property
    def unreadable(self) -> list[PixelWindow]:
        """Blocks of the files that could not be decoded so far, in pixels of the mosaic."""
        for number, (_, reader) in self._open.items():
            self._note(number, reader)
        return [
            moved(block, self._sources[number].row_off, self._sources[number].col_off)
            for number, blocks in sorted(self._broken.items())
            for block in blocks
        ]

    def read(self, window: PixelWindow) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Return pixels (C, h, w) and the valid mask (h, w), True = valid; invalid where no file is valid.

        Called in a ``rasterio.Env``.

        Raises:
            RasterError: A file cannot be read there.
        """
        pixels = np.zeros((len(self._bidx), window.height, window.width), self._dtype)
        valid = np.zeros((window.height, window.width), bool)
        for number in self._touching(window)[::-1].tolist():
            place = _place(self._sources[number])
            part = overlap(window, place)
            if part is None:
                continue
            rows, cols = counted_from(part, window).slices
            missing = ~valid[rows, cols]
            if not missing.any():
                continue
            found, found_valid = self._reader(number).read(counted_from(part, place))
            taken = missing & found_valid
            np.copyto(pixels[:, rows, cols], found, where=taken)
            valid[rows, cols] |= taken
        return pixels, valid

    def close(self) -> None:
        """Close all files."""
        while self._open:
            self._close_oldest()

    def _touching(self, window: PixelWindow) -> npt.NDArray[np.intp]:
        """Return the numbers of the files that a window touches."""
        row, col, height, width = self._places
        in_rows = (row < window.row_off + window.height) & (window.row_off < row + height)
        return np.flatnonzero(in_rows & (col < window.col_off + window.width) & (window.col_off < col + width))

    def _reader(self, number: int) -> DamageReader:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number][1]
        while len(self._open) >= OPEN_FILES:
            self._close_oldest()
        dataset = open_dataset(self._sources[number].path)
        reader = DamageReader(dataset, self._bidx, skip=self._skip)
        self._open[number] = dataset, reader
        return reader

    def _close_oldest(self) -> None:
        number, (dataset, reader) = self._open.popitem(last=False)
        self._note(number, reader)
        dataset.close()

    def _note(self, number: int, reader: DamageReader) -> None:
        if found := reader.unreadable:
            self._broken[number] = list(dict.fromkeys([*self._broken.get(number, []), *found]))


def _place(source: MosaicSource) -> PixelWindow:
    return PixelWindow(col_off=source.col_off, row_off=source.row_off, width=source.width, height=source.height)
