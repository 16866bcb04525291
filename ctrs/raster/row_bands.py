"""Finished rows of a raster that is being made: small files that survive a kill, and what a COG is written from."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile
from rasterio.windows import Window

from ctrs.jobs import not_writable
from ctrs.raster.geotiff import Grid, error_line, options_beside_others
from ctrs.raster.mosaic import MosaicSource

BLOCK_PX = 512

# rasterio raises SystemError where GDAL fails without saying why, as it may on a full disk.
WRITE_ERRORS = (RasterioError, CPLE_BaseError, OSError, SystemError)
"""What may be raised where a raster cannot be written."""

# A stand-in, since GDAL warns of files that have none; the mosaic of the bands knows the true one.
_ANYWHERE = Affine(1, 0, 0, 0, -1, 1)


class RowBands:
    """Finished rows of a raster, or of a block of its columns, from the top down.

    Each band of rows is a small file in a folder, compressed where that is worth its time. It is there whole or not at
    all, so that work which was killed can go on after the last one.

    Args:
        folder: Where the bands are kept; bands of an earlier attempt that stand there are taken over.
        width: Columns.
        col_off: First column in the raster.
    """

    def __init__(self, folder: Path, width: int, *, col_off: int = 0) -> None:
        self.folder = folder
        self.width = width
        self.col_off = col_off
        self._heights: list[tuple[Path, int]] = []
        self._num_rows = 0
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.glob("rows_*.tif")):
            first, height = (int(part) for part in path.stem.split("_")[1:])
            if first == self._num_rows:
                self._add(path, height)

    @property
    def num_rows(self) -> int:
        """Number of rows, counted from the top, that are finished."""
        return self._num_rows

    def truncate(self, num_rows: int) -> None:
        """Forget bands that end after a number of rows, so that the work goes on before them."""
        while self._num_rows > num_rows:
            path, height = self._heights.pop()
            path.unlink()
            self._num_rows -= height

    def append(self, rows: npt.NDArray[Any]) -> None:
        """Add the next rows (h, W) or, of several bands, (P, h, W): uint8, uint16 or float16, all of one kind.

        Raises:
            OutputError: They cannot be written.
        """
        pixels = rows if rows.ndim == 3 else rows[None]
        height, width = pixels.shape[1:]
        if width != self.width:
            raise ValueError(f"rows of {width} pixels found, expected {self.width}")
        path = self.folder / f"rows_{self._num_rows:09d}_{height}.tif"
        staged = path.with_name(f".{path.name}.new")
        try:
            # Encoded in memory and written by Python, which says when a disk is full; GDAL may not.
            with rasterio.Env(**options_beside_others()), MemoryFile() as memory:
                with memory.open(**_profile(pixels), transform=_ANYWHERE) as file:
                    file.write(pixels.astype(np.float32) if pixels.dtype == np.float16 else pixels)
                with staged.open("wb") as stream:
                    stream.write(memory.getbuffer())
            staged.replace(path)
        except WRITE_ERRORS as error:
            staged.unlink(missing_ok=True)
            raise not_writable(self.folder.absolute(), error_line(error)) from error
        self._add(path, height)

    def sources(self) -> list[MosaicSource]:
        """Return the files with the places of their rows."""
        sources: list[MosaicSource] = []
        row = 0
        for path, height in self._heights:
            place = MosaicSource(path=path, col_off=self.col_off, row_off=row, width=self.width, height=height)
            sources.append(place)
            row += height
        return sources

    def rows(self) -> Iterator[npt.NDArray[Any]]:
        """Yield the rows (h, W) of the first band from the top down, some at a time."""
        for path, height in self._heights:
            with rasterio.open(path) as file:
                for top in range(0, height, BLOCK_PX):
                    yield file.read(1, window=Window(0, top, self.width, min(BLOCK_PX, height - top)))

    def _add(self, path: Path, height: int) -> None:
        self._heights.append((path, height))
        self._num_rows += height


def check_whole(bands: RowBands | Iterable[RowBands], grid: Grid) -> list[RowBands]:
    """Return blocks of columns beside each other that fill a grid.

    Raises:
        ValueError: They do not.
    """
    blocks = [bands] if isinstance(bands, RowBands) else sorted(bands, key=lambda block: block.col_off)
    for block in blocks:
        if block.num_rows != grid.height:
            raise ValueError(f"{block.num_rows} rows found, expected {grid.height}")
    at = 0
    for block in blocks:
        if block.col_off != at:
            raise ValueError(f"columns from {block.col_off} on found, expected from {at} on")
        at += block.width
    if at != grid.width:
        raise ValueError(f"{at} columns found, expected {grid.width}")
    return blocks


def rows_beside(blocks: Sequence[RowBands]) -> Iterator[npt.NDArray[Any]]:
    """Yield the rows (h, W) of blocks of columns beside each other from the top down, some at a time."""
    if len(blocks) == 1:
        yield from blocks[0].rows()
        return
    sources = [block.rows() for block in blocks]
    waiting = [next(source, None) for source in sources]
    while all(rows is not None for rows in waiting):
        known = [rows for rows in waiting if rows is not None]
        count = min(len(rows) for rows in known)
        yield np.concatenate([rows[:count] for rows in known], axis=1)
        waiting = [
            rows[count:] if len(rows) > count else next(source, None)
            for rows, source in zip(known, sources, strict=True)
        ]


def scratch_compression() -> dict[str, Any]:
    """Return creation options of GeoTIFFs that are soon read again and then removed."""
    return {"compress": "zstd", "zstd_level": 1} if _has_zstd() else {"compress": "deflate", "zlevel": 1}


def _profile(pixels: npt.NDArray[Any]) -> dict[str, Any]:
    count, height, width = pixels.shape
    profile: dict[str, Any] = {"driver": "GTiff", "width": width, "height": height, "count": count}
    profile |= {"dtype": str(pixels.dtype), "tiled": True, "blockxsize": BLOCK_PX, "interleave": "band"}
    # GDAL fills blocks up, which costs space where nothing shrinks them again.
    profile["blockysize"] = min(BLOCK_PX, 16 * -(-height // 16))
    profile |= scratch_compression()
    if pixels.dtype == np.float16:
        profile |= {"dtype": "float32", "nbits": 16}
    elif pixels.dtype == np.uint16 or count > 1:  # values that differ little from pixel to pixel
        profile["predictor"] = 2
    return profile


@functools.cache
def _has_zstd() -> bool:
    """Tell whether this GDAL was built with ZSTD."""
    tiny: dict[str, Any] = {"driver": "GTiff", "width": 1, "height": 1, "count": 1, "dtype": "uint8"}
    try:
        with MemoryFile() as memory:
            memory.open(**tiny, compress="zstd", transform=_ANYWHERE).close()
            with memory.open() as file:
                return bool(file.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION") == "ZSTD")
    except (RasterioError, CPLE_BaseError):
        return False
