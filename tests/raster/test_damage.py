import numpy as np
import pytest
import rasterio
from affine import Affine

from ctrs.errors import RasterError
from ctrs.raster.damage import BlockLattice, DamageReader
from ctrs.raster.geotiff import Grid, open_raster
from ctrs.raster.mosaic import mosaic_vrt
from ctrs.raster.windows import PixelWindow

UTM = Affine(0.2, 0, 5e5, 0, -0.2, 5.4e6)


@pytest.fixture
def pixels():
    return np.random.default_rng(5).integers(1, 255, (3, 200, 300)).astype(np.uint8)


def write(path, pixels, **options):
    count, height, width = pixels.shape
    profile = {"driver": "GTiff", "width": width, "height": height, "count": count, "dtype": pixels.dtype}
    with rasterio.open(path, "w", **profile, crs="EPSG:32633", transform=UTM, **options) as file:
        file.write(pixels)
    return path


def block_place(path, row, col, band=1):
    """Return offset and size in bytes of a block of a GeoTIFF."""
    with rasterio.open(path) as file:
        offset = file.get_tag_item(f"BLOCK_OFFSET_{col}_{row}", "TIFF", bidx=band)
        size = file.get_tag_item(f"BLOCK_SIZE_{col}_{row}", "TIFF", bidx=band)
    return int(offset), int(size)


def break_block(path, row, col, band=1):
    offset, size = block_place(path, row, col, band)
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * size)


def whole(height=200, width=300):
    return PixelWindow(col_off=0, row_off=0, width=width, height=height)


def window(row, col, height, width):
    return PixelWindow(col_off=col, row_off=row, width=width, height=height)


LAYOUTS = {
    "tiles": ({"tiled": True, "blockxsize": 64, "blockysize": 64}, (1, 2), window(64, 128, 64, 64)),
    "edge tile": ({"tiled": True, "blockxsize": 64, "blockysize": 64}, (3, 4), window(192, 256, 8, 44)),
    "strips": ({"blockysize": 16}, (5, 0), window(80, 0, 16, 300)),
    "planes": (
        {"tiled": True, "blockxsize": 64, "blockysize": 64, "interleave": "band"},
        (2, 1),
        window(128, 64, 64, 64),
    ),
}


@pytest.mark.parametrize("compress", ["deflate", "lzw", "zstd"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_exactly_the_broken_block_is_left_out(tmp_path, pixels, layout, compress):
    options, place, expected = LAYOUTS[layout]
    path = write(tmp_path / "scene.tif", pixels, compress=compress, **options)
    break_block(path, *place, band=2 if layout == "planes" else 1)
    with open_raster(path) as dataset:
        reader = DamageReader(dataset, (1, 2, 3), skip=True)
        found, valid = reader.read(whole())
        again, valid_again = reader.read(window(70, 100, 120, 100))
        assert reader.unreadable == [expected]
    broken = np.zeros((200, 300), bool)
    broken[expected.slices] = True
    np.testing.assert_array_equal(valid, ~broken)
    np.testing.assert_array_equal(found, np.where(broken, 0, pixels))
    np.testing.assert_array_equal(again, found[:, 70:190, 100:200])
    np.testing.assert_array_equal(valid_again, valid[70:190, 100:200])


def test_a_block_read_in_part_is_told_whole_and_once(tmp_path, pixels):
    path = write(tmp_path / "scene.tif", pixels, compress="deflate", tiled=True, blockxsize=64, blockysize=64)
    break_block(path, 1, 1)
    with open_raster(path) as dataset:
        reader = DamageReader(dataset, (1,), skip=True)
        for row in range(0, 200, 20):
            reader.read(window(row, 0, 20, 300))
        assert reader.unreadable == [window(64, 64, 64, 64)]


@pytest.mark.parametrize("options", [{"tiled": True, "blockxsize": 64, "blockysize": 64}, {"blockysize": 1}])
def test_a_file_that_was_cut_short_is_read_as_far_as_it_goes(tmp_path, pixels, options):
    path = write(tmp_path / "scene.tif", pixels, compress="deflate", **options)
    row = 2 if "tiled" in options else 130
    offset, _ = block_place(path, row, 0)
    with path.open("r+b") as file:
        file.truncate(offset)
    with open_raster(path) as dataset:
        reader = DamageReader(dataset, (1, 2, 3), skip=True)
        found, valid = reader.read(whole())
        first = 128 if "tiled" in options else 130
        assert reader.unreadable[0].row_off == first
        assert len(reader.unreadable) == (2 * 5 if "tiled" in options else 70)
    assert valid[:first].all()
    assert not valid[first:].any()
    np.testing.assert_array_equal(found[:, :first], pixels[:, :first])


def test_without_leave_the_block_is_named(tmp_path, pixels):
    path = write(tmp_path / "scene.tif", pixels, compress="deflate", tiled=True, blockxsize=64, blockysize=64)
    break_block(path, 1, 2)
    message = r"scene\.tif: block of 64 x 64 px at row 64, column 128 not readable \(.+\); .*--skip-unreadable"
    with open_raster(path) as dataset:
        reader = DamageReader(dataset, (1, 2, 3), skip=False)
        with pytest.raises(RasterError, match=message):
            reader.read(whole())
        reader.read(window(0, 0, 64, 300))


def test_a_window_outside_is_no_damage(tmp_path, pixels):
    path = write(tmp_path / "scene.tif", pixels)
    with open_raster(path) as dataset, pytest.raises(RasterError, match="expected it inside the raster"):
        DamageReader(dataset, (1,), skip=True).read(window(0, 0, 300, 300))


def test_damage_below_a_virtual_raster_is_found_in_the_blocks_of_its_files(tmp_path, pixels):
    options = {"compress": "deflate", "tiled": True, "blockxsize": 64, "blockysize": 64}
    left = write(tmp_path / "left.tif", pixels[:, :, :150], **options)
    right = write(tmp_path / "right.tif", pixels[:, :, 150:], **options)
    break_block(right, 1, 0)
    grid = Grid(crs=rasterio.CRS.from_epsg(32633), transform=UTM, width=300, height=200)
    places = [(left, window(0, 0, 200, 150)), (right, window(0, 150, 200, 150))]
    path = mosaic_vrt(places, grid, tmp_path / "both.vrt")
    with open_raster(path) as dataset:
        reader = DamageReader(dataset, (1, 2, 3), skip=True)
        found, valid = reader.read(whole())
        assert reader.unreadable == [window(64, 150, 64, 64)]
    broken = np.zeros((200, 300), bool)
    broken[64:128, 150:214] = True
    np.testing.assert_array_equal(valid, ~broken)
    np.testing.assert_array_equal(found, np.where(broken, 0, pixels))


def test_a_png_that_was_cut_short(tmp_path, pixels):
    path = tmp_path / "scene.png"
    profile = {"driver": "PNG", "width": 300, "height": 200, "count": 3, "dtype": "uint8", "transform": UTM}
    with rasterio.open(path, "w", **profile) as file:
        file.write(pixels)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with open_raster(path) as dataset:
        reader = DamageReader(dataset, (1, 2, 3), skip=True)
        found, valid = reader.read(whole())
    good = int(valid[:, 0].sum())
    assert 80 < good < 110
    assert valid[:good].all()
    assert not valid[good:].any()
    np.testing.assert_array_equal(found[:, :good], pixels[:, :good])


def test_of_a_jpeg_that_was_cut_short_nothing_is_made_up(tmp_path, pixels):
    path = tmp_path / "scene.jpg"
    profile = {"driver": "JPEG", "width": 300, "height": 200, "count": 3, "dtype": "uint8", "transform": UTM}
    with rasterio.open(path, "w", **profile) as file:
        file.write(pixels)
    with rasterio.open(path) as file:
        expected = file.read()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with open_raster(path) as dataset:
        reader = DamageReader(dataset, (1, 2, 3), skip=True)
        parts = [reader.read(window(row, 0, 50, 300)) for row in range(0, 200, 50)]
    found, valid = (np.concatenate([part[at] for part in parts], axis=axis) for at, axis in ((0, 1), (1, 0)))
    good = int(valid[:, 0].sum())
    assert 80 < good < 110
    assert not valid[good:].any()
    np.testing.assert_array_equal(found[:, :good], expected[:, :good])
    with open_raster(path) as dataset:
        strict = DamageReader(dataset, (1, 2, 3), skip=False)
        strict.read(window(0, 0, 50, 300))
        with pytest.raises(RasterError, match=rf"scene\.jpg: block of 300 x 1 px at row {good}, column 0 not readable"):
            strict.read(window(50, 0, 100, 300))


def test_cells_that_a_window_touches(tmp_path, pixels):
    path = write(tmp_path / "scene.tif", pixels, tiled=True, blockxsize=64, blockysize=32)
    with open_raster(path) as dataset:
        lattice = BlockLattice.of(dataset)
    assert lattice.span(window(32, 63, 32, 2)) == (slice(1, 2), slice(0, 2))
    assert lattice.span(window(199, 299, 1, 1)) == (slice(6, 7), slice(4, 5))
    assert lattice.cell(6, 4) == window(192, 256, 8, 44)
