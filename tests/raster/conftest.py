"""Small rasters."""

import numpy as np
import pytest
import rasterio
from affine import Affine


@pytest.fixture
def write_raster(tmp_path):
    """Return a function that writes an array (C, H, W) as GeoTIFF (or another driver's file) and returns its path."""

    def write(array, name="scene.tif", *, driver="GTiff", crs="EPSG:32633", transform=None, mask=None, **options):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        count, height, width = array.shape
        georeference = {"crs": crs, "transform": transform or Affine(0.2, 0, 5e5, 0, -0.2, 5.4e6)} if crs else {}
        if crs is None and transform is not None:
            georeference = {"transform": transform}
        colors = options.pop("colorinterp", None)
        profile = {"driver": driver, "width": width, "height": height, "count": count, "dtype": array.dtype}
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(path, "w", **profile, **georeference, **options) as file,
        ):
            file.write(array)
            if colors:
                file.colorinterp = colors
            if mask is not None:
                file.write_mask(mask)
        return path

    return write


@pytest.fixture
def rng():
    return np.random.default_rng(0)
