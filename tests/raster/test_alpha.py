"""Bands that are called alpha: masks, and infrared that GDAL takes for one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from affine import Affine

from ctrs.errors import RasterError
from ctrs.raster.alpha import MAX_ALPHA_VALUES, bands_for, odd_alpha
from ctrs.raster.geotiff import open_raster


@contextmanager
def opened(tmp_path: Path, last: npt.NDArray[np.generic], *, marked: bool = True) -> Iterator[rasterio.DatasetReader]:
    """A file of four bands, the last of which is this one."""
    path = tmp_path / "a.tif"
    height, width = last.shape
    profile = {"driver": "GTiff", "width": width, "height": height, "count": 4, "dtype": last.dtype}
    place = {"crs": "EPSG:32633", "transform": Affine(1, 0, 9, 0, -1, 9)}
    with rasterio.open(path, "w", **profile, **place, photometric="RGB", alpha="YES" if marked else "NO") as file:
        file.write(np.stack([last] * 4))
    with open_raster(path) as dataset:
        yield dataset


@pytest.mark.parametrize(("values", "expected"), [(MAX_ALPHA_VALUES, None), (MAX_ALPHA_VALUES + 1, 4)])
def test_many_values_are_odd(tmp_path: Path, values: int, expected: int | None) -> None:
    last = np.arange(400).reshape(20, 20) % values
    with opened(tmp_path, last.astype(np.uint8)) as dataset:
        assert odd_alpha(dataset) == expected
    with opened(tmp_path, last.astype(np.uint8), marked=False) as dataset:
        assert odd_alpha(dataset) is None


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_the_middle_of_the_image_counts(tmp_path: Path, dtype: str) -> None:
    last = np.zeros((600, 700), dtype)
    last[172:428, 222:478] = np.arange(256)
    with opened(tmp_path, np.minimum(last, 40)) as dataset:
        assert odd_alpha(dataset) == 4
    last[172:428, 222:478] = np.iinfo(dtype).max
    last[:100] = np.arange(700) % 100
    with opened(tmp_path, last) as dataset:
        assert odd_alpha(dataset) is None


@pytest.mark.parametrize(
    ("dtype", "others", "plain"),
    [
        ("uint8", 255, True), ("uint8", 1, True), ("uint8", 254, False), ("uint16", 65535, True),
        ("uint16", 255, False), ("float32", 1.0, True), ("float32", 0.5, False), ("uint8", 0, True),
    ],
)  # fmt: skip
def test_alpha_is_data_where_the_network_takes_as_many_bands_unless_it_is_plainly_a_mask(
    tmp_path: Path, dtype: str, others: float, plain: bool
) -> None:
    last = np.zeros((20, 30), dtype)
    last[5:] = others
    with opened(tmp_path, last) as dataset:
        assert bands_for(dataset, 4) == ((1, 2, 3) if plain else (1, 2, 3, 4))
        assert bands_for(dataset, 3) == (1, 2, 3)
        assert bands_for(dataset, 5) == (1, 2, 3)
    with opened(tmp_path, last, marked=False) as dataset:
        assert bands_for(dataset, 4) == bands_for(dataset, 3) == (1, 2, 3, 4)


def test_an_alpha_band_that_is_cut_off_is_named(tmp_path: Path) -> None:
    with opened(tmp_path, np.ones((300, 300), np.uint8)) as dataset:
        path = Path(dataset.name)
    path.write_bytes(path.read_bytes()[:90_000])
    with (
        open_raster(path) as dataset,
        pytest.raises(RasterError, match=r"a\.tif: alpha band 4 not readable"),
    ):
        odd_alpha(dataset)
