"""The pixels of a scene on the grid of its tiles, window by window."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import ColorInterp, MaskFlags

from ctrs.config.prepare import MAX_BANDS
from ctrs.errors import RasterError
from ctrs.raster.geotiff import (
    SEQUENTIAL_DRIVERS,
    Grid,
    check_bands,
    check_end,
    color_bands,
    open_raster,
    read_window,
)
from ctrs.raster.names import in_archive, shown
from ctrs.raster.windows import PixelWindow

DTYPES = ("uint8", "uint16", "int16", "uint32", "int32", "float32", "float64")
"""Pixel types that imagery may have."""

MIN_SCENE_PX = 16
"""Least edge of a scene: thinner ones, such as leftovers of a cut, hold nothing that can be learnt from."""

ReadPixels = Callable[[PixelWindow], tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]]
"""Returns the pixels (C, h, w) of a window and their valid mask (h, w), True = valid."""


class Imagery(Protocol):
    """Pixels that can be read on the grid of the tiles."""

    @property
    def grid(self) -> Grid:
        """Grid of the tiles of the scene."""

    @property
    def names(self) -> tuple[str, ...]:
        """Band names."""

    @property
    def colors(self) -> tuple[ColorInterp, ...]:
        """What the bands are."""

    @property
    def dtype(self) -> str:
        """Pixel type of what is read."""

    @property
    def nodata(self) -> float | None:
        """Nodata value, if it alone says which pixels are valid."""

    @property
    def block_px(self) -> tuple[int, int]:
        """Height and width of the blocks in which the pixels are stored; readers that align to them read each once.

        (1, 1) where pixels are computed, not stored.
        """

    @property
    def sequential(self) -> bool:
        """Whether it can only be read well from top to bottom (JPEG, PNG, archives)."""

    def reader(self) -> AbstractContextManager[ReadPixels]:
        """Return a context manager that gives a reader of windows; each thread opens its own."""


@dataclass(frozen=True, kw_only=True)
class FileImagery:
    """Bands of one file, on the file's own grid.

    Args:
        path: The file.
        grid: Its grid, with a CRS from elsewhere where it names none.
        bidx: Numbers of the bands that hold imagery.
        names: Their names.
        colors: What the file says they are.
        dtype: Their dtype.
        nodata: Nodata value, if it alone says which pixels are valid.
        block_px: Height and width of the file's blocks.
        sequential: The file can only be read from its beginning.
        palette: Red, green, blue and opacity of each value of its only band, where that is a position in a colour
            table; None for all other files.
    """

    path: Path
    grid: Grid
    bidx: tuple[int, ...]
    names: tuple[str, ...]
    colors: tuple[ColorInterp, ...]
    dtype: str
    nodata: float | None
    block_px: tuple[int, int]
    sequential: bool
    palette: tuple[tuple[int, int, int, int], ...] | None = None

    @contextmanager
    def reader(self) -> Iterator[ReadPixels]:
        """Give a function that reads a window of the open file."""
        with open_raster(self.path) as dataset:
            if self.palette is None:
                yield lambda window: read_window(dataset, window, bidx=self.bidx)
                return
            table = np.array(self.palette, np.uint8).T

            def read_colors(window: PixelWindow) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
                positions, valid = read_window(dataset, window, bidx=self.bidx)
                colors = table[:, positions[0]]
                return colors[:3], valid & (colors[3] > 0)

            yield read_colors


def open_imagery(path: Path, *, bidx: Sequence[int] = (), names: Sequence[str] = ()) -> FileImagery:
    """Find out what a file holds.

    Args:
        path: The file.
        bidx: Bands to take; empty: all that are not alpha.
        names: Their names, where the file need not be asked; taken only if there are as many as bands. Names of all
            bands of the file make all of them data: GDAL calls the infrared of many four-band files alpha.

    Raises:
        RasterError: It is not readable, or its bands cannot serve as imagery.
    """
    with open_raster(path) as dataset:
        bands = chosen_bands(dataset, bidx, names)
        if bidx:
            check_bands(dataset, bands)
        kinds = sorted({dataset.dtypes[number - 1] for number in bands})
        if not bands or len(kinds) != 1 or kinds[0] not in DTYPES:
            raise RasterError(
                f"{shown(path)}: bands of dtype {', '.join(kinds) or 'none'} found, expected the same one of "
                f"{', '.join(DTYPES)} for all; convert the image"
            )
        check_band_count(path, len(bands))
        _check_size(path, dataset)
        height, width = dataset.block_shapes[bands[0] - 1]
        imagery = FileImagery(
            path=path,
            grid=Grid.of(dataset),
            bidx=bands,
            names=_band_names(dataset, bands, names),
            colors=tuple(dataset.colorinterp[number - 1] for number in bands),
            dtype=kinds[0],
            nodata=_usable_nodata(dataset, bands),
            block_px=(height, width),
            sequential=dataset.driver in SEQUENTIAL_DRIVERS or in_archive(path),
        )
        check_end(dataset)
        if len(bands) == 1 and dataset.colorinterp[bands[0] - 1] is ColorInterp.palette:
            return _in_colors(imagery, dataset)
        return imagery


def chosen_bands(dataset: rasterio.DatasetReader, bidx: Sequence[int], names: Sequence[str]) -> tuple[int, ...]:
    """Return the numbers of the bands to take: those asked for, else all if all are named, else all but alpha."""
    if bidx:
        return tuple(bidx)
    return tuple(dataset.indexes) if len(names) == dataset.count else color_bands(dataset)


def check_band_count(path: Path, count: int) -> None:
    """Refuse more bands than a tile may have.

    Raises:
        RasterError: With the numbers.
    """
    if count > MAX_BANDS:
        raise RasterError(
            f"{shown(path)}: {count} bands found, expected at most {MAX_BANDS}; choose those to use with --bidx"
        )


def _check_size(path: Path, dataset: rasterio.DatasetReader) -> None:
    if min(dataset.width, dataset.height) < MIN_SCENE_PX:
        raise RasterError(
            f"{shown(path)}: {dataset.width} x {dataset.height} px found, expected at least {MIN_SCENE_PX} px along "
            "each edge; leave it out or join it to its neighbours"
        )


def _in_colors(imagery: FileImagery, dataset: rasterio.DatasetReader) -> FileImagery:
    """Return imagery of a file with a colour table as the colours that it shows."""
    if imagery.dtype != "uint8":
        raise RasterError(
            f"{shown(imagery.path)}: a colour table of {imagery.dtype} positions found, expected uint8; expand it "
            "(gdal_translate -expand rgb)"
        )
    entries = dataset.colormap(imagery.bidx[0])
    return replace(
        imagery,
        names=("red", "green", "blue"),
        colors=(ColorInterp.red, ColorInterp.green, ColorInterp.blue),
        nodata=None,
        palette=tuple(tuple(entries.get(value, (0, 0, 0, 0))) for value in range(256)),
    )


def _usable_nodata(dataset: rasterio.DatasetReader, bands: Sequence[int]) -> float | None:
    """Return the nodata value if it alone says which pixels are valid: no mask, no alpha, not NaN (which always is)."""
    nodata: float | None = dataset.nodata
    by_value = all(MaskFlags.nodata in dataset.mask_flag_enums[number - 1] for number in bands)
    if nodata is None or not by_value or np.isnan(nodata):
        return None
    kind = np.dtype(dataset.dtypes[0])
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        if not (float(nodata).is_integer() and limits.min <= nodata <= limits.max):
            return None
    return float(nodata)


def _band_names(dataset: rasterio.DatasetReader, bands: Sequence[int], given: Sequence[str]) -> tuple[str, ...]:
    """Names by the preset, by the file's descriptions, by what its colours are, or by number."""
    if len(given) == len(bands):
        return tuple(given)
    described = [(dataset.descriptions[number - 1] or "").strip() for number in bands]
    if all(described) and len(set(described)) == len(described):
        return tuple(described)
    colors = [dataset.colorinterp[number - 1] for number in bands]
    plain = {ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.gray}
    names = [
        color.name if color in plain and colors.count(color) == 1 else f"band_{number}"
        for number, color in zip(bands, colors, strict=True)
    ]
    return tuple(names)
