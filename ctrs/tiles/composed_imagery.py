"""Imagery made from other imagery: brought to another grid, with bands of further files, within an area of interest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.enums import ColorInterp

from ctrs.raster.geotiff import Grid
from ctrs.raster.warp import GridWarp, grid_warp
from ctrs.raster.windows import PixelWindow
from ctrs.tiles.imagery import DTYPES, Imagery, ReadPixels
from ctrs.vector.area import INSIDE
from ctrs.vector.rasterize import GridPolygons


@dataclass(frozen=True, kw_only=True)
class _DerivedImagery:
    """Imagery made from other imagery, whose bands it has; no single value says which of its pixels are valid.

    Args:
        base: The imagery that it is made from.
    """

    base: Imagery

    @property
    def grid(self) -> Grid:
        """Grid of the imagery."""
        return self.base.grid

    @property
    def names(self) -> tuple[str, ...]:
        """Band names."""
        return self.base.names

    @property
    def colors(self) -> tuple[ColorInterp, ...]:
        """What the bands are."""
        return self.base.colors

    @property
    def dtype(self) -> str:
        """Pixel type, which stays."""
        return self.base.dtype

    @property
    def nodata(self) -> float | None:
        """None, whatever the imagery declares."""
        return None

    @property
    def block_px(self) -> tuple[int, int]:
        """Blocks of the imagery."""
        return self.base.block_px

    @property
    def sequential(self) -> bool:
        """As the imagery that it is made from."""
        return self.base.sequential


@dataclass(frozen=True, kw_only=True)
class WarpedImagery(_DerivedImagery):
    """Imagery on another grid than its own: averaged where pixels become coarser, else interpolated.

    It has no nodata value: a mean of valid pixels may happen to be that of the imagery.

    Args:
        warp: From the pixels that are wanted to its own.
    """

    warp: GridWarp

    @property
    def grid(self) -> Grid:
        """Grid that it is brought to."""
        return self.warp.target

    @property
    def block_px(self) -> tuple[int, int]:
        """Nothing is stored on this grid."""
        return 1, 1

    @contextmanager
    def reader(self) -> Iterator[ReadPixels]:
        """Give a function that resamples a window."""
        count, dtype, method = len(self.names), np.dtype(self.dtype), self.warp.method
        with self.base.reader() as read:
            yield lambda window: self.warp.read(window, read, method=method, count=count, dtype=dtype)


@dataclass(frozen=True, kw_only=True)
class StackedImagery:
    """Imagery of several files on one grid as bands of one; a pixel is valid where it is in all.

    Args:
        layers: The imagery, in the order of the bands.
        names: Names of all bands.
    """

    layers: tuple[Imagery, ...]
    names: tuple[str, ...]

    @property
    def grid(self) -> Grid:
        """Their grid."""
        return self.layers[0].grid

    @property
    def colors(self) -> tuple[ColorInterp, ...]:
        """What the bands are; those of further files are no colours."""
        further = sum(len(layer.names) for layer in self.layers[1:])
        return (*self.layers[0].colors, *(ColorInterp.undefined,) * further)

    @property
    def dtype(self) -> str:
        """The type that holds the values of all."""
        return common_dtype([layer.dtype for layer in self.layers])

    @property
    def nodata(self) -> float | None:
        """None: no single value says what is valid."""
        return None

    @property
    def block_px(self) -> tuple[int, int]:
        """Blocks of the first."""
        return self.layers[0].block_px

    @property
    def sequential(self) -> bool:
        """Whether one of them is."""
        return any(layer.sequential for layer in self.layers)

    @contextmanager
    def reader(self) -> Iterator[ReadPixels]:
        """Give a function that reads a window of all."""
        dtype = np.dtype(self.dtype)
        with ExitStack() as stack:
            readers = [stack.enter_context(layer.reader()) for layer in self.layers]

            def read(window: PixelWindow) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
                found = [read(window) for read in readers]
                pixels = np.concatenate([pixels.astype(dtype, copy=False) for pixels, _ in found])
                return pixels, np.logical_and.reduce([valid for _, valid in found])

            yield read


@dataclass(frozen=True, kw_only=True)
class MaskedImagery(_DerivedImagery):
    """Imagery of which only an area is valid; values outside it stay as they are.

    Args:
        area: Polygons on its grid.
    """

    area: GridPolygons

    @contextmanager
    def reader(self) -> Iterator[ReadPixels]:
        """Give a function that reads a window and what of it lies in the area."""
        with self.base.reader() as read:

            def read_inside(window: PixelWindow) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
                pixels, valid = read(window)
                return pixels, valid & (self.area.rasterize(window, background=0) == INSIDE)

            yield read_inside


def on_grid(imagery: Imagery, grid: Grid, *, tolerance_px: float = 0.01) -> Imagery:
    """Return imagery on a grid: as it is where that is its own.

    Raises:
        RasterError: There is no way from one CRS to the other.
    """
    if imagery.grid.ground_control is None and grid.same_as(imagery.grid, tolerance_px=tolerance_px):
        return imagery
    return WarpedImagery(base=imagery, warp=grid_warp(imagery.grid, grid))


def common_dtype(dtypes: Sequence[str]) -> str:
    """Return the pixel type that holds the values of all.

    >>> common_dtype(["uint8", "float32"]), common_dtype(["uint32", "int32"])
    ('float32', 'float64')
    """
    found = reduce(np.promote_types, dtypes[1:], np.dtype(dtypes[0])).name
    return found if found in DTYPES else "float64"
