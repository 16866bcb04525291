import threading

import geopandas
import numpy as np
import pytest
import rasterio
import rasterio.shutil
import shapely
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.vrt import WarpedVRT

from ctrs.config import PredictConfig
from ctrs.errors import BandMismatchError, DataError, InputNotFoundError, OptionWarning, RasterError, UsageError
from ctrs.inference.pixels import FileBlocks
from ctrs.inference.scene_place import gsd_factor, window_of_bounds
from ctrs.inference.scene_source import open_scene
from ctrs.raster.bands import Bands
from ctrs.raster.damage import DamageReader
from ctrs.raster.geotiff import GDAL_CACHE_BYTES, Grid, options_beside_others
from ctrs.raster.row_bands import RowBands
from ctrs.raster.windows import PixelWindow

UTM = Affine(0.2, 0, 5e5, 0, -0.2, 5.4e6)
ROTATED = Affine.translation(5e5, 5.4e6) @ Affine.rotation(30) @ Affine.scale(0.2, -0.2)
SOUTH_UP = Affine(0.2, 0, 5e5, 0, 0.2, 5.4e6)


def bands_of(count, dtype="uint8"):
    names = tuple(f"b{i}" for i in range(count))
    return Bands(
        names=names, dtype=dtype, low=(0.0,) * count, high=(255.0,) * count, mean=(99.0,) * count, std=(9.0,) * count
    )


@pytest.fixture
def pixels():
    return np.random.default_rng(5).integers(1, 255, (3, 70, 90)).astype(np.uint8)


def window(row, col, height, width):
    return PixelWindow(col_off=col, row_off=row, width=width, height=height)


def test_a_scene_is_read_as_it_is(write_scene, pixels):
    path = write_scene(pixels)
    with open_scene(path, bands_of(3)) as source:
        found, valid = source.read(window(10, 20, 30, 40))
        assert source.grid.shape == (70, 90)
        assert source.grid.transform == UTM
        assert (source.name, source.bidx, source.gsd_factor) == ("scene.tif", (1, 2, 3), 1.0)
        assert source.pixel_size_m == pytest.approx(0.2)
        assert source.unreadable == []
        assert source.files == (path,)
        assert source.area_or_point == "Area"
    assert valid.all()
    np.testing.assert_array_equal(found, pixels[:, 10:40, 20:60])


@pytest.mark.parametrize(("block", "width", "expected_mib"), [(256, 6144, 16), (1024, 6144, 25), (1024, 40_000, 64)])
def test_the_cache_holds_a_row_of_blocks_where_it_can(tmp_path, monkeypatch, block, width, expected_mib):
    path, caches = tmp_path / "scene.tif", []
    profile = {"width": width, "height": 1024, "count": 3, "dtype": "uint8", "crs": "EPSG:32633", "transform": UTM}
    blocks = {"tiled": True, "blockxsize": block, "blockysize": block, "sparse_ok": True}
    with rasterio.open(path, "w", driver="GTiff", **profile, **blocks):
        pass

    def read(_reader, part):
        caches.append(rasterio.env.get_gdal_config("GDAL_CACHEMAX"))
        return np.zeros((3, part.height, part.width), np.uint8), np.ones((part.height, part.width), bool)

    monkeypatch.setattr("ctrs.raster.damage.DamageReader.read", read)
    with open_scene(path, bands_of(3)) as source:
        source.read(window(0, 0, 10, 10))
        with source.own_cache():
            assert rasterio.env.get_gdal_config("GDAL_CACHEMAX") == source.cache_bytes
        assert rasterio.env.get_gdal_config("GDAL_CACHEMAX") == GDAL_CACHE_BYTES
    assert caches == [expected_mib * 2**20] == [source.cache_bytes]


def test_while_a_scene_is_mapped_no_thread_changes_the_size_of_the_cache(edges, write_scene, tmp_path, monkeypatch):
    """It belongs to the process: rows that are written beside the reader leave it alone."""
    scene = write_scene(np.zeros((3, 1200, 90), np.uint8))
    asked = {"written": [], "read": []}
    written, read = RowBands._add, DamageReader.read

    def add(bands, *arguments):
        asked["written"].append(rasterio.env.get_gdal_config("GDAL_CACHEMAX"))
        return written(bands, *arguments)

    def ask(reader, part):
        if threading.current_thread() is not threading.main_thread():
            asked["read"].append(rasterio.env.get_gdal_config("GDAL_CACHEMAX"))
        return read(reader, part)

    monkeypatch.setattr(RowBands, "_add", add)
    monkeypatch.setattr(DamageReader, "read", ask)
    edges.predict_raster(scene, tmp_path / "m.tif")
    assert len(asked["written"]) > 2
    assert len(asked["read"]) > 2
    assert {size for sizes in asked.values() for size in sizes} == {16 * 2**20}


def test_rows_alone_are_written_with_the_usual_cache():
    assert options_beside_others()["GDAL_CACHEMAX"] == GDAL_CACHE_BYTES
    with rasterio.Env(GDAL_CACHEMAX=9 * 2**20):
        assert options_beside_others()["GDAL_CACHEMAX"] == 9 * 2**20


def test_bands_can_be_chosen_and_alpha_is_none(write_scene, pixels):
    alpha = np.full((1, 70, 90), 255, np.uint8)
    alpha[0, :10] = 0
    path = write_scene(np.concatenate([pixels, alpha]), photometric="RGB", alpha="YES")
    with open_scene(path, bands_of(3)) as source:
        assert source.bidx == (1, 2, 3)
        valid = source.read(window(0, 0, 70, 90))[1]
    assert valid[10:].all()
    assert not valid[:10].any()
    with open_scene(path, bands_of(3), PredictConfig(bidx=(3, 1, 4))) as source:
        found, valid = source.read(window(0, 0, 70, 90))
    np.testing.assert_array_equal(found, [pixels[2], pixels[0], alpha[0]])
    assert valid.all(), "a band that is asked for is data, whatever it is called"


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("count", [1, 2, 20])
def test_any_number_of_bands_and_dtype(write_scene, dtype, count):
    raw = np.random.default_rng(2).integers(0, 200, (count, 9, 11)).astype(dtype)
    if dtype == "float32":
        raw[0, 3, 4] = np.nan
    path = write_scene(raw, photometric="MINISBLACK")
    with open_scene(path, bands_of(count, dtype), PredictConfig(bidx=tuple(range(1, count + 1)))) as source:
        found, valid = source.read(window(0, 0, 9, 11))
    np.testing.assert_array_equal(found, raw)
    assert (~valid).sum() == (dtype == "float32")


def test_other_bands_and_dtypes_are_refused(write_scene, pixels, tmp_path):
    path = write_scene(pixels)
    with (
        pytest.raises(BandMismatchError, match=r"scene\.tif: 3 bands found, expected 4"),
        open_scene(path, bands_of(4)),
    ):
        pass
    with (
        pytest.raises(BandMismatchError, match=r"dtype uint8 found, expected uint16"),
        open_scene(path, bands_of(3, "uint16")),
    ):
        pass
    with (
        pytest.raises(RasterError, match=r"band 7 asked for, expected numbers from 1 to 3"),
        open_scene(path, bands_of(3), PredictConfig(bidx=(1, 2, 7))),
    ):
        pass
    with (
        pytest.raises(InputNotFoundError, match=r"gone\.tif: not found"),
        open_scene(tmp_path / "gone.tif", bands_of(3)),
    ):
        pass


@pytest.mark.parametrize("transform", [UTM, ROTATED, SOUTH_UP], ids=["north up", "rotated", "south up"])
def test_bounds_are_the_pixels_that_they_touch(write_scene, pixels, transform):
    path = write_scene(pixels, transform=transform)
    corners = [transform @ place for place in ((20, 10), (60, 10), (20, 40), (60, 40))]
    xs, ys = zip(*corners, strict=True)
    bounds = (min(xs), min(ys), max(xs), max(ys))
    # The corners of the rectangle itself, not of the window, decide.
    back = [~transform @ (x, y) for x in bounds[::2] for y in bounds[1::2]]
    rows, cols = [row for _, row in back], [col for col, _ in back]
    top, left = max(0, int(np.floor(min(rows) + 1e-6))), max(0, int(np.floor(min(cols) + 1e-6)))
    bottom, right = min(70, int(np.ceil(max(rows) - 1e-6))), min(90, int(np.ceil(max(cols) - 1e-6)))
    with open_scene(path, bands_of(3), PredictConfig(bounds=bounds)) as source:
        assert source.window == window(top, left, bottom - top, right - left)
        assert source.grid.transform == transform @ Affine.translation(left, top)
        found, _ = source.read(window(1, 2, 3, 4))
        described = source.describe()
    if transform != ROTATED:
        assert (top, left, bottom, right) == (10, 20, 40, 60)
    np.testing.assert_array_equal(found, pixels[:, top + 1 : top + 4, left + 2 : left + 6])
    with open_scene(path, bands_of(3)) as source:
        assert described != source.describe()


def test_blocks_are_counted_from_the_part_that_is_mapped(write_scene, pixels, tmp_path):
    tiled = write_scene(pixels, tiled=True, blockxsize=32, blockysize=16)
    with open_scene(tiled, bands_of(3)) as source:
        assert source.blocks() == FileBlocks(height=16, width=32)
    left, top = UTM @ (40, 20)
    with open_scene(tiled, bands_of(3), PredictConfig(bounds=(left, top - 4, left + 6, top))) as source:
        assert source.window == window(20, 40, 20, 30)
        assert source.blocks() == FileBlocks(height=16, width=32, row_offset=-4, col_offset=-8)
    striped = write_scene(pixels, "striped.tif", blockysize=16)
    with open_scene(striped, bands_of(3)) as source:
        assert source.blocks() == FileBlocks(height=16)
    with rasterio.open(tiled) as file, WarpedVRT(file) as virtual:
        rasterio.shutil.copy(virtual, tmp_path / "scene.vrt", driver="VRT")
    with open_scene(tmp_path / "scene.vrt", bands_of(3)) as source:
        assert source.blocks().width is None


def test_bounds_may_hang_over_and_may_be_small(write_scene, pixels):
    grid = Grid(crs=None, transform=UTM, width=90, height=70)
    x, y = UTM @ (0.0, 0.0)
    assert window_of_bounds(grid, (x - 50, y - 1, x + 1, y + 50), "scene.tif") == window(0, 0, 5, 5)
    assert window_of_bounds(grid, (x + 1.01, y - 1.03, x + 1.02, y - 1.02), "scene.tif") == window(5, 5, 1, 1)


def test_bounds_beside_the_scene_are_refused_with_both_rectangles(write_scene, pixels):
    path = write_scene(pixels)
    message = (
        r"scene\.tif: --bounds 0,0,1,1 lie beside the scene, which covers 500000,5399986,500018,5400000 in EPSG:32633"
    )
    with pytest.raises(RasterError, match=message), open_scene(path, bands_of(3), PredictConfig(bounds=(0, 0, 1, 1))):
        pass


def test_ground_control_points_keep_their_place_and_have_no_bounds(tmp_path, pixels):
    path = tmp_path / "gcp.tif"
    points = [GroundControlPoint(row, col, 5e5 + col, 5.4e6 - row) for row, col in ((0, 0), (0, 90), (70, 0), (70, 90))]
    profile = {"driver": "GTiff", "width": 90, "height": 70, "count": 3, "dtype": "uint8"}
    with rasterio.open(path, "w", **profile, gcps=points, crs="EPSG:32633") as file:
        file.write(pixels)
    with open_scene(path, bands_of(3)) as source:
        assert len(source.grid.ground_control.points) == 4
        assert source.pixel_size_m is None
    with (
        pytest.raises(RasterError, match=r"ground control points and no transform found"),
        open_scene(path, bands_of(3), PredictConfig(bounds=(0, 0, 9, 9))),
    ):
        pass


@pytest.fixture
def write_area(tmp_path):
    def write(shapes, crs="EPSG:32633", name="area.gpkg"):
        path = tmp_path / name
        geopandas.GeoDataFrame(geometry=list(shapes), crs=crs).to_file(path)
        return path

    return write


def box_of(transform, top, left, bottom, right):
    return shapely.Polygon(
        [transform @ place for place in ((left, top), (right, top), (right, bottom), (left, bottom))]
    )


@pytest.mark.parametrize("transform", [UTM, ROTATED, SOUTH_UP], ids=["north up", "rotated", "south up"])
def test_only_pixels_whose_centre_lies_in_the_area_are_wanted(write_scene, write_area, pixels, transform):
    valid = np.ones((70, 90), bool)
    valid[:, 30:32] = False
    path = write_scene(pixels, transform=transform, valid=valid)
    area = write_area([box_of(transform, 10.4, 20.6, 40.4, 60.6)])
    expected = np.zeros((70, 90), bool)
    expected[10:40, 21:61] = True
    with open_scene(path, bands_of(3), PredictConfig(aoi=area)) as source:
        wanted = [source.wanted(window(row, 0, 35, 90)) for row in (0, 35)]
        found, known = source.read(window(0, 0, 70, 90))
    np.testing.assert_array_equal(np.concatenate(wanted), expected)
    np.testing.assert_array_equal(known, valid)
    np.testing.assert_array_equal(found, pixels)
    with open_scene(path, bands_of(3)) as source:
        assert source.wanted is None


def test_an_area_of_another_crs_is_brought_to_the_scene(write_scene, write_area, pixels):
    path = write_scene(pixels)
    there = geopandas.GeoSeries([box_of(UTM, 10.4, 20.6, 40.4, 60.6)], crs="EPSG:32633").to_crs("EPSG:4326")
    area = write_area(there, crs="EPSG:4326", name="area.geojson")
    with open_scene(path, bands_of(3), PredictConfig(aoi=area)) as source:
        wanted = source.wanted(window(0, 0, 70, 90))
    assert wanted[10:40, 21:61].all()
    assert wanted.sum() == 30 * 40


def test_the_area_determines_the_job_and_not_its_file(write_scene, write_area, pixels):
    path = write_scene(pixels)
    shapes = [box_of(UTM, 10, 20, 40, 60)]
    described = []
    for config in (
        PredictConfig(),
        PredictConfig(aoi=write_area(shapes)),
        PredictConfig(aoi=write_area(shapes, name="again.gpkg")),
        PredictConfig(aoi=write_area([box_of(UTM, 10, 20, 40, 61)], name="other.gpkg")),
    ):
        with open_scene(path, bands_of(3), config) as source:
            described.append(source.describe())
    assert described[1] == described[2] != described[3]
    assert described[0] != described[1]


def test_an_area_without_place_on_the_scene_is_refused(write_scene, write_area, pixels):
    path, lost = write_scene(pixels), write_scene(pixels, "lost.tif", crs=None)
    beside = write_area([box_of(UTM, 100, 200, 110, 210)])
    with (
        pytest.raises(DataError, match=r"area\.gpkg: its 1 polygons lie beside .*scene\.tif"),
        open_scene(path, bands_of(3), PredictConfig(aoi=beside)),
    ):
        pass
    with (
        pytest.raises(RasterError, match=r"lost\.tif: no CRS found, so that the area of interest"),
        open_scene(lost, bands_of(3), PredictConfig(aoi=beside)),
    ):
        pass


def test_bounds_and_area_together(write_scene, write_area, pixels):
    path = write_scene(pixels)
    x, y = UTM @ (0.0, 0.0)
    config = PredictConfig(bounds=(x + 2, y - 10, x + 10, y - 4), aoi=write_area([box_of(UTM, 0, 0, 30, 30)]))
    with open_scene(path, bands_of(3), config) as source:
        assert source.window == window(20, 10, 30, 40)
        found, _ = source.read(window(0, 0, 30, 40))
        wanted = source.wanted(window(0, 0, 30, 40))
    assert wanted[:10, :20].all()
    assert wanted.sum() == 200
    np.testing.assert_array_equal(found[:, :10, :20], pixels[:, 20:30, 10:30])


def test_the_ground_pixel_of_the_network(write_scene, pixels):
    path = write_scene(pixels)
    with open_scene(path, bands_of(3), PredictConfig(gsd=0.1)) as source:
        assert source.gsd_factor == pytest.approx(2.0)
        assert source.describe()["gsd_factor"] == source.gsd_factor
    with open_scene(path, bands_of(3), PredictConfig(gsd="model"), model_gsd=0.8) as source:
        assert source.gsd_factor == pytest.approx(0.25)
    with open_scene(path, bands_of(3), PredictConfig(gsd=0.2)) as source:
        assert source.gsd_factor == 1.0
    with (
        pytest.raises(UsageError, match=r"--gsd model: the checkpoint does not say"),
        open_scene(path, bands_of(3), PredictConfig(gsd="model")),
    ):
        pass
    with pytest.raises(UsageError, match=r"--gsd 20: .*scene\.tif has pixels of 0\.2 m, .* by 0\.01, expected 1/16"):
        gsd_factor(Grid(crs=rasterio.CRS.from_epsg(32633), transform=UTM, width=9, height=9), 20, None, path)
    with pytest.raises(RasterError, match=r"scene\.tif: no CRS found, so that the ground size"):
        gsd_factor(Grid(crs=None, transform=UTM, width=9, height=9), 1, None, path)


def test_ground_metres_of_a_web_mercator_scene(write_scene, pixels):
    transform = Affine(0.3, 0, 9.5e6, 0, -0.3, 3.2e6)
    path = write_scene(pixels, crs="EPSG:3857", transform=transform)
    with open_scene(path, bands_of(3), PredictConfig(gsd=0.266)) as source:
        assert source.pixel_size_m == pytest.approx(0.2656, abs=1e-3)
        assert source.gsd_factor == pytest.approx(1.0, abs=5e-3)


def test_a_sample_is_of_raw_pixels_from_all_over_the_scene(write_scene):
    rows, cols = np.mgrid[:300, :400]
    raw = np.stack([rows % 256, cols % 256, rows // 256 + 2 * (cols // 256)]).astype(np.uint8)
    valid = rows < 290
    path = write_scene(raw, valid=valid, tiled=True, blockxsize=64, blockysize=64)
    with open_scene(path, bands_of(3)) as source:
        found, known = source.sample(64 * 64)
        whole, _ = source.sample(10**6)
    assert found.shape == (3, 64, 64)
    assert known.shape == (64, 64)
    assert set(np.unique(found[2])) == {0, 1, 2, 3}
    here = {tuple(value) for value in np.moveaxis(raw, 0, -1)[valid]}
    assert {tuple(value) for value in found[:, known].T} <= here
    np.testing.assert_array_equal(whole, raw)


def test_a_sample_lies_in_the_area(write_scene, write_area, pixels):
    path = write_scene(pixels)
    with open_scene(path, bands_of(3), PredictConfig(aoi=write_area([box_of(UTM, 10, 20, 12, 22)]))) as source:
        found, valid = source.sample()
    assert valid.all()
    np.testing.assert_array_equal(found, pixels[:, 10:12, 20:22])


def test_pixel_is_point(write_scene, pixels):
    path = write_scene(pixels)
    with rasterio.open(path, "r+") as file:
        file.update_tags(AREA_OR_POINT="Point")
    with open_scene(path, bands_of(3)) as source:
        assert source.area_or_point == "Point"


def test_a_colour_table_is_told_as_such(write_scene, pixels, make_identity):
    scene = write_scene(pixels[:1] % 4, photometric="palette")
    with rasterio.open(scene, "r+") as file:
        file.write_colormap(1, {value: (value, 9, 9, 255) for value in range(4)})
    bands = make_identity().bands
    with (
        pytest.raises(BandMismatchError, match=r"one band with a colour table found, expected 3 bands .*-expand rgb"),
        open_scene(scene, bands),
    ):
        pass


def test_a_virtual_raster_of_two_zones_is_refused(write_scene, pixels, make_identity, tmp_path):
    for name, crs in (("a.tif", "EPSG:32633"), ("b.tif", "EPSG:32634")):
        write_scene(pixels, name, crs=crs)
    rasterio.shutil.copy(tmp_path / "a.tif", tmp_path / "city.vrt", driver="VRT")
    text = (tmp_path / "city.vrt").read_text()
    second = text.index("a.tif", text.index('band="2"'))  # the zones need not lie side by side
    (tmp_path / "city.vrt").write_text(f"{text[:second]}b{text[second + 1 :]}")
    with (
        pytest.raises(RasterError, match="files of several CRSs"),
        open_scene(tmp_path / "city.vrt", make_identity().bands),
    ):
        pass


@pytest.mark.parametrize("gsd", [None, 0.5])
def test_a_window_that_would_be_mostly_padding_is_told(write_scene, make_identity, gsd):
    scene = write_scene(np.zeros((3, 20, 30), np.uint8), transform=Affine(1, 0, 5e5, 0, -1, 5.4e6))
    factor = 1 if gsd is None else 2
    told = rf"window 256 px is larger than .* \({20 * factor} x {30 * factor} px\).* --window {30 * factor} covers"
    bands = make_identity().bands
    with pytest.warns(OptionWarning, match=told), open_scene(scene, bands, PredictConfig(window_px=256, gsd=gsd)):
        pass
    for config in (PredictConfig(window_px=60 * factor, gsd=gsd), PredictConfig(gsd=gsd)):
        with open_scene(scene, bands, config):  # warnings are errors
            pass
