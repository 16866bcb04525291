"""Class masks as COGs: valid, whole, and telling what their values mean."""

import os
import resource
import subprocess
import sys

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.crs import CRS
from rio_cogeo import cog_validate

from ctrs import __version__
from ctrs.classes import ClassMap, LandClass
from ctrs.errors import LabelError, OutputError
from ctrs.jobs import partial_work
from ctrs.raster.cog import (
    class_tag,
    publish_class_cog,
    read_class_tag,
    read_job_tag,
    sidecar_path,
    write_class_cog,
)
from ctrs.raster.geotiff import Grid, GroundControl, open_raster
from ctrs.raster.row_bands import RowBands

UNREFERENCED = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
UTM = Affine(0.2, 0, 5e5, 0, -0.2, 5.4e6)
CLASSES = ClassMap(
    classes=(
        LandClass(value=0, name="impervious surface", color=(255, 255, 255)),
        LandClass(value=7, name="void", color=(1, 1, 1), ignored=True),
        LandClass(value=1, name='low "vegetation" & <grass>', color=(0, 255, 255)),
        LandClass(value=2, name="Bäume", color=(0, 255, 0)),
    )
)


def some_mask(height, width):
    mask = np.random.default_rng(height).integers(0, 3, (height, width)).astype(np.uint8)
    mask[: height // 3] = 255
    return mask


def category_names(path, tmp_path):
    """Names as GDAL itself reads them (rasterio has no call)."""
    from xml.etree import ElementTree

    described = tmp_path / "description.vrt"
    rasterio.shutil.copy(path, described, driver="VRT")
    return [entry.text for entry in ElementTree.parse(described).iterfind(".//CategoryNames/Category")]


@UNREFERENCED
@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32633", UTM),
        ("EPSG:4326", Affine(1e-6, 0, 85.5, 0, -1e-6, 27.6)),
        ("EPSG:3857", Affine(0.1, 0.03, 9e6, 0.03, -0.1, 3e6)),  # rotated
        ("EPSG:2056", Affine(0.1, 0, 2.6e6, 0, 0.1, 1.2e6)),  # south up
        ("+proj=laea +lat_0=10 +lon_0=20 +ellps=bessel +units=m", UTM),  # no EPSG code
        ("+proj=ob_tran +o_proj=longlat +o_lat_p=40 +o_lon_p=0 +lon_0=10", UTM),  # only WKT2 can say it
        ("EPSG:7415", UTM),  # with heights
        (None, UTM),  # a world file without CRS
        (None, Affine.identity()),
    ],
)
def test_grid_pixels_and_meaning_come_back(tmp_path, crs, transform):
    grid = Grid(crs=CRS.from_string(crs) if crs else None, transform=transform, width=130, height=70)
    mask, path = some_mask(70, 130), tmp_path / "m.tif"
    with partial_work(path, "job") as work:
        staged = write_class_cog(work.folder / path.name, [mask[:33], mask[33:]], grid, CLASSES, {"CTRS_JOB": "<j&>"})
        assert not path.exists()
        publish_class_cog(work, staged)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["m.tif", "m.tif.aux.xml"]
    with open_raster(path) as dataset:
        assert Grid.of(dataset) == grid
        np.testing.assert_array_equal(dataset.read(1), mask)
        assert dataset.nodata == 255
        assert [dataset.colormap(1)[value][:3] for value in range(3)] == list(CLASSES.colors)
        assert dataset.tags()["CTRS_VERSION"] == __version__
        assert [(c.value, c.name, c.color) for c in read_class_tag(dataset)] == [
            (index, entry.name, entry.color) for index, entry in enumerate(CLASSES.learnt)
        ]
    assert read_job_tag(path) == "<j&>"
    assert category_names(path, tmp_path) == list(CLASSES.names)


@pytest.mark.parametrize(
    ("width", "height", "num_overviews"),
    [(1, 1, 0), (300, 200, 0), (512, 513, 1), (512, 512, 0), (513, 512, 1), (1031, 77, 2), (3, 1700, 2)],
)
def test_valid_cog_with_overviews_by_majority(tmp_path, width, height, num_overviews):
    grid = Grid(crs=CRS.from_epsg(32633), transform=UTM, width=width, height=height)
    mask = np.zeros((height, width), np.uint8)
    mask[:, ::3] = 2
    path = write_class_cog(tmp_path / "m.tif", (mask[r : r + 100] for r in range(0, height, 100)), grid, CLASSES)
    assert cog_validate(path, strict=True) == (True, [], [])
    with rasterio.open(path) as dataset:
        assert len(dataset.overviews(1)) == num_overviews
        np.testing.assert_array_equal(dataset.read(1), mask)
        if num_overviews:
            small = dataset.read(1, out_shape=(-(-height // 2), -(-width // 2)))
            assert set(np.unique(small)) <= {0, 2}  # a mean would be 1


def test_ignored_pixels_do_not_vote_in_overviews(tmp_path):
    grid = Grid(crs=CRS.from_epsg(32633), transform=UTM, width=1024, height=1024)
    mask = np.full((1024, 1024), 255, np.uint8)
    mask[::2, ::2] = 1
    with rasterio.open(write_class_cog(tmp_path / "m.tif", [mask], grid, CLASSES)) as dataset:
        assert (dataset.read(1, out_shape=(512, 512)) == 1).all()


@UNREFERENCED
def test_ground_control_points_are_kept(tmp_path):
    points = tuple((float(r), float(c), 10.0 + c, 50.0 - r, 0.0) for r in (0, 50) for c in (0, 100))
    control = GroundControl(crs=CRS.from_epsg(4326), points=points)
    grid = Grid(crs=None, transform=Affine.identity(), width=100, height=50, ground_control=control)
    path = write_class_cog(tmp_path / "m.tif", [some_mask(50, 100)], grid, CLASSES)
    with open_raster(path) as dataset:
        assert Grid.of(dataset) == grid


def test_pixel_is_point_keeps_the_grid(tmp_path):
    grid = Grid(crs=CRS.from_epsg(32633), transform=UTM, width=10, height=10)
    path = write_class_cog(tmp_path / "m.tif", [some_mask(10, 10)], grid, CLASSES, {"AREA_OR_POINT": "Point"})
    with open_raster(path) as dataset:
        assert Grid.of(dataset) == grid
        assert dataset.tags()["AREA_OR_POINT"] == "Point"


def test_the_tag_survives_without_the_sidecar(tmp_path):
    grid = Grid(crs=CRS.from_epsg(32633), transform=UTM, width=10, height=10)
    path = write_class_cog(tmp_path / "m.tif", [some_mask(10, 10)], grid, CLASSES)
    sidecar_path(path).unlink()
    assert [entry.name for entry in read_class_tag(path)] == list(CLASSES.names)


def test_the_largest_class_table_fits(tmp_path):
    many = ClassMap(
        classes=tuple(LandClass(value=i, name=f"class {i} " + "x" * 40, color=(i, 0, 0)) for i in range(250))
    )
    grid = Grid(crs=CRS.from_epsg(32633), transform=UTM, width=10, height=10)
    path = write_class_cog(tmp_path / "m.tif", [np.full((10, 10), 249, np.uint8)], grid, many)
    sidecar_path(path).unlink()
    assert len(read_class_tag(path)) == 250


def test_other_rasters_are_refused_with_what_to_do(write_raster):
    path = write_raster(np.zeros((1, 4, 4), np.uint8))
    with pytest.raises(LabelError, match=r"scene.tif: no tag CTRS_CLASSES found.*expected a mask written by ctrs"):
        read_class_tag(path)
    with rasterio.open(path, "r+") as file:
        file.update_tags(CTRS_CLASSES='[{"value": 0}]')
    with pytest.raises(LabelError, match=r"tag CTRS_CLASSES is damaged"):
        read_class_tag(path)
    assert read_job_tag(path) is None


def test_class_tag_skips_ignored_classes():
    assert '"value": 1, "name": "low' in class_tag(CLASSES)
    assert "void" not in class_tag(CLASSES)


class TestRowBands:
    def test_taken_over_up_to_the_first_gap(self, tmp_path):
        bands = RowBands(tmp_path / "rows", 20)
        for height in (5, 7, 9):
            bands.append(some_mask(height, 20))
        assert bands.num_rows == 21
        assert RowBands(tmp_path / "rows", 20).num_rows == 21
        (tmp_path / "rows" / "rows_000000005_7.tif").unlink()
        (tmp_path / "rows" / ".rows_000000005_7.tif.new").write_bytes(b"half a file")
        assert RowBands(tmp_path / "rows", 20).num_rows == 5

    def test_rows_must_be_complete(self, tmp_path):
        grid = Grid(crs=None, transform=Affine.identity(), width=20, height=9)
        with pytest.raises(ValueError, match="5 rows found, expected 9"):
            write_class_cog(tmp_path / "m.tif", [some_mask(5, 20)], grid, CLASSES)
        with pytest.raises(ValueError, match="rows of 19 pixels found, expected 20"):
            RowBands(tmp_path / "rows", 20).append(some_mask(5, 19))

    def test_same_pixels_same_bytes_whatever_the_bands(self, tmp_path):
        grid = Grid(crs=CRS.from_epsg(32633), transform=UTM, width=700, height=900)
        mask = some_mask(900, 700)
        one = write_class_cog(tmp_path / "one.tif", [mask], grid, CLASSES)
        two = write_class_cog(tmp_path / "two.tif", [mask[:1], mask[1:512], mask[512:]], grid, CLASSES)
        assert one.read_bytes() == two.read_bytes()


FULL_DISK = """
import os, resource, signal, sys
import numpy as np
from pathlib import Path
from affine import Affine
from ctrs.classes import BUILDING_CLASSES
from ctrs.errors import OutputError
from ctrs.raster.cog import write_class_cog
from ctrs.raster.row_bands import RowBands
from ctrs.raster.geotiff import Grid, open_raster
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
mask = np.random.default_rng(0).integers(0, 2, (1500, 700)).astype(np.uint8)
grid = Grid(crs=None, transform=Affine.identity(), width=700, height=1500)
for limit in range(10_000, 350_000, 20_000):
    if os.fork() == 0:
        folder = Path(sys.argv[1]) / str(limit)
        bands = RowBands(folder / "rows", 700)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            for row in range(0, 1500, 250):
                bands.append(mask[row : row + 250])
            write_class_cog(folder / "m.tif", bands, grid, BUILDING_CLASSES)
            print(limit, "written", flush=True)
        except OutputError as error:
            assert "not writable" in str(error)
            print(limit, "refused", flush=True)
        finally:
            sys.stdout.flush()
            os._exit(0)
    os.wait()
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs limits on file sizes")
def test_on_a_full_disk_a_file_is_whole_or_refused(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=True, timeout=120
    )
    outcomes = dict(line.split() for line in run.stdout.splitlines())
    assert len(outcomes) == len(range(10_000, 350_000, 20_000)), run.stderr
    assert set(outcomes.values()) == {"written", "refused"}
    mask = np.random.default_rng(0).integers(0, 2, (1500, 700)).astype(np.uint8)
    for limit, outcome in outcomes.items():
        path = tmp_path / limit / "m.tif"
        assert path.exists() == (outcome == "written")
        if outcome == "written":
            with open_raster(path) as dataset:
                np.testing.assert_array_equal(dataset.read(1), mask)
        bands = RowBands(tmp_path / limit / "rows", 700)
        row = 0
        for source in bands.sources():
            with open_raster(source.path) as dataset:
                np.testing.assert_array_equal(dataset.read(1), mask[row : row + source.height])
            row += source.height


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    grid = Grid(crs=None, transform=Affine.identity(), width=20, height=5)
    try:
        with pytest.raises(OutputError, match="not writable"):
            write_class_cog(tmp_path / "m.tif", [some_mask(5, 20)], grid, CLASSES)
    finally:
        tmp_path.chmod(0o700)


def test_a_disk_that_is_full_before_the_copy_names_the_folder(tmp_path, monkeypatch):
    def fail(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ctrs.raster.cog.ElementTree.ElementTree.write", fail)
    grid = Grid(crs=None, transform=Affine.identity(), width=20, height=5)
    with pytest.raises(OutputError, match=r"not writable \(.*[Nn]o space left.*\); free space there"):
        write_class_cog(tmp_path / "m.tif", [some_mask(5, 20)], grid, CLASSES)
    assert list(tmp_path.iterdir()) == []


FINISHING = """
import sys
import numpy as np
from pathlib import Path
from affine import Affine
from ctrs.classes import BUILDING_CLASSES
from ctrs.raster.cog import write_class_cog
from ctrs.raster.geotiff import Grid
from ctrs.raster.row_bands import RowBands
folder, height, width = Path(sys.argv[1]), int(sys.argv[2]), 6000
bands = RowBands(folder / "rows", width)
rows = (np.arange(width) // 90 % 2 * np.ones((384, 1))).astype(np.uint8)
for top in range(0, height, 384):
    bands.append(rows[: height - top])
grid = Grid(crs=None, transform=Affine(1, 0, 0, 0, -1, 1), width=width, height=height)
write_class_cog(folder / "m.tif", bands, grid, BUILDING_CLASSES)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads peak memory from /proc")
def test_memory_does_not_grow_with_the_mask(tmp_path):
    peaks = {}
    for height in (6000, 60_000):
        command = [sys.executable, "-c", FINISHING, str(tmp_path / str(height)), str(height)]
        run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
        peaks[height] = int(run.stdout) / 1024
    assert peaks[60_000] - peaks[6000] <= 50, peaks
