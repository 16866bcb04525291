"""Overviews of class masks: of four pixels, the class that most of them have.

GDAL makes them too (resampling ``MODE``), in several times the time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.windows import Window

from ctrs.classes import IGNORE_INDEX, Mask
from ctrs.raster.geotiff import open_quietly
from ctrs.raster.row_bands import BLOCK_PX, scratch_compression


def halve(mask: Mask) -> Mask:
    """Return a mask of half the size, the far row and column alone where the size is odd.

    Each pixel has the class of most of the four it stands for, the first of equals; nodata does not vote.

    Args:
        mask: (h, w), ``IGNORE_INDEX`` is nodata.

    >>> halve(np.array([[1, 2, 255, 255], [0, 2, 255, 3]], np.uint8)).tolist()
    [[2, 3]]
    """
    height, width = mask.shape
    if height % 2 or width % 2:
        mask = np.pad(mask, ((0, height % 2), (0, width % 2)), constant_values=IGNORE_INDEX)
    # Copies, not views: each is read several times, and in order.
    a, b, c, d = (np.ascontiguousarray(mask[row::2, col::2]) for row in (0, 1) for col in (0, 1))
    a_is_twice = (a == b) | (a == c) | (a == d)
    b_is_twice = (b == c) | (b == d)
    c_is_twice = c == d
    out = a.copy()
    if mask.max(initial=0) == IGNORE_INDEX:
        a_is_twice &= a != IGNORE_INDEX
        b_is_twice &= b != IGNORE_INDEX
        c_is_twice &= c != IGNORE_INDEX
        # No class is there twice: any one will do, and nodata is the largest value.
        np.copyto(out, np.minimum(np.minimum(b, c), d), where=a == IGNORE_INDEX)
    np.copyto(out, c, where=c_is_twice)
    np.copyto(out, b, where=b_is_twice)
    np.copyto(out, a, where=a_is_twice)
    return out


def write_overviews(source: Path, folder: Path, *, stop_px: int) -> list[Path]:
    """Write the overviews of a mask, each of half the size of the one before, as files for soon to be read again.

    Memory does not grow with the mask.

    Args:
        source: The mask.
        folder: Where they go; made when needed.
        stop_px: Edge of the size at which there are no further overviews.

    Returns:
        The files, the largest first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    while True:
        with open_quietly(source) as mask:
            if max(mask.shape) <= stop_px:
                return paths
            paths.append(folder / f"overview_{len(paths)}.tif")
            _write_halved(mask, paths[-1])
        source = paths[-1]


def _write_halved(mask: rasterio.DatasetReader, path: Path) -> None:
    height, width = (-(-edge // 2) for edge in mask.shape)
    profile: dict[str, Any] = {"driver": "GTiff", "width": width, "height": height, "count": 1, "dtype": "uint8"}
    profile |= {"tiled": True, "blockxsize": BLOCK_PX, "blockysize": BLOCK_PX, **scratch_compression()}
    # The transform is a stand-in, since GDAL warns of files that have none.
    with rasterio.open(path, "w", **profile, bigtiff="if_safer", transform=Affine(1, 0, 0, 0, -1, 1)) as overview:
        for top in range(0, height, BLOCK_PX):
            for left in range(0, width, BLOCK_PX):
                size = min(BLOCK_PX, height - top), min(BLOCK_PX, width - left)
                rows = min(2 * size[0], mask.height - 2 * top)
                cols = min(2 * size[1], mask.width - 2 * left)
                quarter = mask.read(1, window=Window(2 * left, 2 * top, cols, rows))
                overview.write(halve(quarter), 1, window=Window(left, top, size[1], size[0]))
