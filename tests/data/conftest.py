from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio

from ctrs.raster.windows import PixelWindow
from ctrs.tiles.manifest import Tile

MakeTile = Callable[..., Tile]


@pytest.fixture
def make_tile(tmp_path: Path) -> MakeTile:
    """Write an image (C, H, W) and a mask (H, W) as the files of a tile."""
    number = 0

    def make(
        pixels: npt.NDArray[Any], mask: npt.NDArray[np.uint8], *, valid: npt.NDArray[np.bool_] | None = None
    ) -> Tile:
        nonlocal number
        number += 1
        image_path, mask_path = tmp_path / f"image_{number}.tif", tmp_path / f"mask_{number}.tif"
        _write(image_path, pixels, valid=valid)
        _write(mask_path, mask[None], nodata=255)
        return Tile(
            scene="scene",
            split="train",
            window=PixelWindow(col_off=0, row_off=0, width=mask.shape[1], height=mask.shape[0]),
            image=image_path,
            mask=mask_path,
            valid_fraction=1.0,
            class_counts=(0, 0),
        )

    return make


def _write(
    path: Path, array: npt.NDArray[Any], *, nodata: int | None = None, valid: npt.NDArray[np.bool_] | None = None
) -> None:
    count, height, width = array.shape
    transform = rasterio.Affine(0.1, 0, 500000, 0, -0.1, 5800000)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=array.dtype, nodata=nodata,
        crs="EPSG:32633", transform=transform, photometric="minisblack",  # else the fourth of four bytes is alpha
    ) as dataset:  # fmt: skip
        dataset.write(array)
        if valid is not None:
            dataset.write_mask(valid)
