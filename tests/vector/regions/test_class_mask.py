"""A mask is read band by band, and no more of it is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
from rasterio.env import get_gdal_config

from ctrs.raster.geotiff import GDAL_CACHE_BYTES
from ctrs.vector.regions.class_mask import open_class_mask, rows_at_a_time


def test_gdal_keeps_little_of_what_was_read(write_mask: Callable[..., Path]) -> None:
    with open_class_mask(write_mask(np.zeros((600, 500), np.uint8))) as file:
        assert get_gdal_config("GDAL_CACHEMAX") == 8 * 2**20
        assert sum(runs.height for runs in file.checked_runs()) == 600


def test_a_band_stays_until_its_nodata_is_read(tmp_path: Path) -> None:
    path = tmp_path / "wide.tif"
    sparse = {"SPARSE_OK": True, "tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"}
    for width, expected in ((20_000, 2 * 512 * 20_000), (200_000, GDAL_CACHE_BYTES)):
        profile = {"driver": "GTiff", "width": width, "height": 2000, "count": 1, "dtype": "uint8", "crs": "EPSG:32633"}
        with rasterio.open(path, "w", transform=rasterio.Affine(0.5, 0, 0, 0, -0.5, 0), **profile, **sparse):
            pass
        with open_class_mask(path) as file:
            assert rows_at_a_time(file.dataset) == 512
            assert get_gdal_config("GDAL_CACHEMAX") == expected
