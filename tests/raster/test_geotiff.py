"""Opening, grids, valid masks, and what is said when a raster cannot be read."""

import warnings

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp

from ctrs.errors import InputNotFoundError, MissingCrsWarning, RasterError
from ctrs.raster.geotiff import (
    GDAL_CACHE_BYTES,
    Grid,
    check_end,
    color_bands,
    crs_name,
    open_raster,
    read_window,
    warn_missing_crs,
)
from ctrs.raster.windows import PixelWindow

UNREFERENCED = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
UTM = CRS.from_epsg(32633)


def whole(dataset):
    return PixelWindow(col_off=0, row_off=0, width=dataset.width, height=dataset.height)


def grid(**changes):
    values = {"crs": UTM, "transform": Affine(0.2, 0, 5e5, 0, -0.2, 5.4e6), "width": 100, "height": 50}
    return Grid(**{**values, **changes})


class TestGrid:
    def test_of_a_file(self, write_raster):
        path = write_raster(np.zeros((1, 50, 100), np.uint8))
        with open_raster(path) as dataset:
            found = Grid.of(dataset)
        assert found == grid()
        assert found.shape == (50, 100)
        assert found.same_as(grid())

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"width": 99}, "size 99 x 50 instead of 100 x 50"),
            ({"crs": None}, "CRS none instead of EPSG:32633"),
            ({"crs": CRS.from_epsg(32634)}, "CRS EPSG:32634 instead of EPSG:32633"),
            ({"transform": Affine(0.2, 0, 5e5 + 0.1, 0, -0.2, 5.4e6)}, "corners up to 0.5 pixels apart"),
            ({"transform": Affine(0.2001, 0, 5e5, 0, -0.2, 5.4e6)}, "corners up to 0.05 pixels apart"),
        ],
    )
    def test_difference(self, changes, words):
        assert not grid().same_as(grid(**changes))
        assert grid().difference(grid(**changes)) == words

    def test_rounding_of_coordinates_is_no_difference(self):
        assert grid().same_as(grid(transform=Affine(0.2, 0, 5e5 + 0.001, 0, -0.2, 5.4e6)))

    def test_window(self):
        part = grid().window(PixelWindow(col_off=10, row_off=20, width=30, height=5))
        assert part == grid(transform=Affine(0.2, 0, 5e5 + 2, 0, -0.2, 5.4e6 - 4), width=30, height=5)

    @UNREFERENCED
    def test_ground_control_points(self, tmp_path):
        points = [GroundControlPoint(row=r, col=c, x=10 + c, y=50 - r, z=0) for r in (0, 50) for c in (0, 100)]
        path = tmp_path / "gcps.tif"
        profile = {"driver": "GTiff", "width": 100, "height": 50, "count": 1, "dtype": "uint8"}
        with rasterio.open(path, "w", **profile, gcps=points, crs="EPSG:4326") as file:
            file.write(np.zeros((1, 50, 100), np.uint8))
        with open_raster(path) as dataset:
            found = Grid.of(dataset)
        assert found.crs is None
        assert found.ground_control.crs == CRS.from_epsg(4326)
        assert found.ground_control.points[3] == (50, 100, 110, 0, 0)
        assert found.difference(Grid(crs=None, transform=Affine.identity(), width=100, height=50)) == (
            "other ground control points"
        )
        moved = found.window(PixelWindow(col_off=10, row_off=20, width=5, height=5))
        assert moved.ground_control.points[3] == (30, 90, 110, 0, 0)

    def test_long_crs_names_are_cut(self):
        name = crs_name(CRS.from_string("+proj=laea +lat_0=10 +lon_0=20 +ellps=bessel +units=m"))
        assert len(name) == 60
        assert name.endswith("...")


class TestReadWindow:
    def test_part_of_the_bands_of_a_part(self, write_raster, rng):
        array = rng.integers(0, 999, (3, 40, 60)).astype(np.uint16)
        with open_raster(write_raster(array)) as dataset:
            window = PixelWindow(col_off=7, row_off=3, width=20, height=11)
            pixels, valid = read_window(dataset, window, bidx=(3, 1))
        np.testing.assert_array_equal(pixels, array[[2, 0], 3:14, 7:27])
        assert pixels.dtype == np.uint16
        assert valid.shape == (11, 20)
        assert valid.all()

    def test_nodata_is_invalid_only_where_all_read_bands_hold_it(self, write_raster):
        array = np.full((3, 1, 4), 9, np.uint8)
        array[:, 0, 0] = 255  # all bands
        array[:2, 0, 1] = 255  # bright, but valid
        with open_raster(write_raster(array, nodata=255)) as dataset:
            assert read_window(dataset, whole(dataset))[1].tolist() == [[False, True, True, True]]
            assert read_window(dataset, whole(dataset), bidx=(1, 2))[1].tolist() == [[False, False, True, True]]

    @pytest.mark.parametrize(("dtype", "nodata"), [("float32", -3.4028234663852886e38), ("int16", -9999)])
    def test_nodata_of_other_dtypes(self, write_raster, dtype, nodata):
        array = np.array([[[nodata, 1, 2]]]).astype(dtype)
        with open_raster(write_raster(array, nodata=nodata)) as dataset:
            assert read_window(dataset, whole(dataset))[1].tolist() == [[False, True, True]]

    def test_nan_is_invalid_in_any_band_declared_or_not(self, write_raster):
        array = np.ones((2, 1, 3), np.float32)
        array[:, 0, 0] = np.nan
        array[1, 0, 1] = np.nan
        for nodata in (None, np.nan):
            with open_raster(write_raster(array, nodata=nodata)) as dataset:
                assert read_window(dataset, whole(dataset))[1].tolist() == [[False, False, True]]

    def test_alpha_is_the_mask_and_no_pixel_band(self, write_raster):
        array = np.full((4, 1, 3), 7, np.uint8)
        array[3, 0] = [0, 1, 255]
        colors = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
        with open_raster(write_raster(array, colorinterp=colors)) as dataset:
            assert color_bands(dataset) == (1, 2, 3)
            pixels, valid = read_window(dataset, whole(dataset))
            assert pixels.shape == (3, 1, 3)
            assert valid.tolist() == [[False, True, True]]
            pixels, valid = read_window(dataset, whole(dataset), bidx=(1, 2, 3, 4))  # an infrared band called alpha
            assert pixels[3].tolist() == [[0, 1, 255]]
            assert valid.all()

    def test_internal_mask(self, write_raster):
        mask = np.array([[255, 0, 255]], np.uint8)
        with open_raster(write_raster(np.zeros((3, 1, 3), np.uint8), mask=mask)) as dataset:
            assert read_window(dataset, whole(dataset))[1].tolist() == [[True, False, True]]

    @pytest.mark.parametrize(
        "window",
        [
            PixelWindow(col_off=0, row_off=0, width=61, height=1),
            PixelWindow(col_off=-1, row_off=0, width=5, height=5),
            PixelWindow(col_off=0, row_off=38, width=5, height=3),
        ],
    )
    def test_windows_beyond_the_raster_are_refused(self, write_raster, window):
        with (
            open_raster(write_raster(np.zeros((1, 40, 60), np.uint8))) as dataset,
            pytest.raises(RasterError, match="expected it inside the raster's 60 x 40 px"),
        ):
            read_window(dataset, window)

    def test_bands_that_do_not_exist_are_refused(self, write_raster):
        with (
            open_raster(write_raster(np.zeros((2, 4, 4), np.uint8))) as dataset,
            pytest.raises(RasterError, match="band 3 asked for, expected numbers from 1 to 2"),
        ):
            read_window(dataset, whole(dataset), bidx=(1, 3))

    def test_a_truncated_file_is_named_with_the_place(self, write_raster, rng):
        array = rng.integers(0, 255, (1, 600, 600)).astype(np.uint8)
        path = write_raster(array, tiled=True, blockxsize=256, blockysize=256, compress="deflate")
        path.write_bytes(path.read_bytes()[:200_000])
        with (
            open_raster(path) as dataset,
            pytest.raises(RasterError, match=r"scene.tif: not readable at rows 0 to 599.*damaged or cut short"),
        ):
            read_window(dataset, whole(dataset))

    def test_masks_of_all_real_rasters_are_gdals(self, real_data):
        paths = [path for path in sorted(real_data.rglob("*.tif")) if "scenes" in path.parts or "nrcan" in str(path)]
        assert paths
        for path in paths:
            with open_raster(path) as dataset:
                part = PixelWindow(col_off=0, row_off=0, width=dataset.width, height=min(dataset.height, 256))
                if dataset.count > 1 or dataset.nodata is None:
                    expected = dataset.dataset_mask(window=((0, part.height), (0, part.width))) > 0
                    np.testing.assert_array_equal(read_window(dataset, part)[1], expected, err_msg=path.name)


class TestOpenRaster:
    def test_cache_is_small(self, write_raster):
        with open_raster(write_raster(np.zeros((1, 4, 4), np.uint8))):
            assert rasterio.env.get_gdal_config("GDAL_CACHEMAX") == GDAL_CACHE_BYTES

    def test_missing_files_and_folders(self, tmp_path):
        with pytest.raises(InputNotFoundError, match=r"none.tif: not found"), open_raster(tmp_path / "none.tif"):
            pass
        with pytest.raises(RasterError, match="is a folder"), open_raster(tmp_path):
            pass

    def test_files_that_are_no_rasters(self, tmp_path):
        path = tmp_path / "notes.tif"
        path.write_text("not a raster")
        with pytest.raises(RasterError, match=r"notes.tif: not readable as a raster \(.+\); check"), open_raster(path):
            pass

    def test_without_georeference_nothing_is_said_until_the_caller_does(self, write_raster, tmp_path):
        path = tmp_path / "photo.png"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            write_raster(np.zeros((3, 4, 4), np.uint8), "photo.png", driver="PNG", crs=None)
        with open_raster(path) as dataset:
            found = Grid.of(dataset)
        assert found.crs is None
        assert found.transform == Affine.identity()
        with pytest.warns(MissingCrsWarning, match=r"photo.png: no CRS found; going on in pixel coordinates"):
            warn_missing_crs(path)

    def test_crs_from_a_sidecar(self, real_data):
        path = sorted((real_data / "oam_banepa_urban" / "chips").glob("*.tif"))[0]
        with open_raster(path) as dataset:
            assert dataset.driver == "JPEG"
            assert Grid.of(dataset).crs == CRS.from_epsg(4326)


@pytest.mark.parametrize(("driver", "suffix"), [("PNG", "png"), ("JPEG", "jpg"), ("GTiff", "tif"), ("WEBP", "webp")])
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_whole_files_cut_short_are_never_read_as_if_complete(write_raster, rng, driver: str, suffix: str) -> None:
    path = write_raster(rng.integers(0, 255, (3, 90, 80)).astype(np.uint8), f"a.{suffix}", driver=driver, crs=None)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    whole = PixelWindow(col_off=0, row_off=0, width=80, height=90)
    with pytest.raises(RasterError, match=r"damaged or cut short: get it again"), open_raster(path) as dataset:
        read_window(dataset, whole)
    if driver == "GTiff":
        with pytest.raises(RasterError, match=r"not readable at rows 89 to 89"), open_raster(path) as dataset:
            check_end(dataset)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_not_valid(write_raster, value: float) -> None:
    pixels = np.ones((2, 20, 30), np.float32)
    pixels[1, 3, 4] = value
    with open_raster(write_raster(pixels)) as dataset:
        _, valid = read_window(dataset, PixelWindow(col_off=0, row_off=0, width=30, height=20))
    assert np.argwhere(~valid).tolist() == [[3, 4]]
