"""Scenes on disk: grids, nodata, provenance, jobs that stop and go on, and faults."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rio_cogeo import cog_validate
from torch import nn

from ctrs import __version__
from ctrs.classes import IGNORE_INDEX
from ctrs.config import PredictConfig
from ctrs.errors import (
    BandMismatchError,
    CheckpointError,
    DataWarning,
    InputNotFoundError,
    MissingCrsWarning,
    OutputError,
    OutputExistsError,
    RasterError,
    UsageError,
)
from ctrs.jobs import partial_dir
from ctrs.raster.cog import read_class_tag
from ctrs.raster.geotiff import Grid, open_raster, read_window
from ctrs.raster.mosaic import mosaic_vrt
from ctrs.raster.windows import PixelWindow

LIMIT_S = 600
"""How long a process may take that takes seconds by itself: other work may keep the machine busy."""

UNREFERENCED = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def random_scene(height=150, width=110, seed=0, count=3):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width)).astype(np.uint8)


def read_mask(path):
    with open_raster(path) as dataset:
        return dataset.read(1), Grid.of(dataset)


def read_scene(path):
    with open_raster(path) as dataset:
        window = PixelWindow(col_off=0, row_off=0, width=dataset.width, height=dataset.height)
        return (*read_window(dataset, window), Grid.of(dataset))


def expected_mask(pixels, valid):
    return np.where(valid, pixels.argmax(axis=0), IGNORE_INDEX)


def test_mask_of_a_scene(make_identity, write_scene, tmp_path):
    pixels = random_scene(600, 530)
    scene = write_scene(pixels)
    calls = []
    out = tmp_path / "new" / "scene_mask.tif"
    predictor = make_identity()
    returned = predictor.predict_raster(
        scene, out, progress=lambda done, total, what: calls.append((done, total, what))
    )
    assert returned == out
    mask, grid = read_mask(out)
    np.testing.assert_array_equal(mask, pixels.argmax(axis=0))
    assert grid == read_scene(scene)[2]
    assert cog_validate(out, strict=True) == (True, [], [])
    beside = sorted(path.name for path in out.parent.iterdir())
    assert beside == ["scene_mask.json", "scene_mask.tif", "scene_mask.tif.aux.xml"]
    assert [entry.name for entry in read_class_tag(out)] == list(predictor.classes.names)
    with open_raster(out) as dataset:
        tags = dataset.tags()
        assert dataset.nodata == 255
        assert dataset.colormap(1)[2][:3] == predictor.classes.colors[2]
    assert tags["CTRS_VERSION"] == __version__
    assert tags["CTRS_MODEL"] == predictor.model_hash
    assert tags["CTRS_SOURCE"] == "scene.tif"
    assert json.loads(tags["CTRS_OPTIONS"])["window_px"] == 64
    assert len(tags["CTRS_JOB"]) == 32
    assert calls[-1] == (13 * 11, 13 * 11, "predicting scene.tif")
    assert [done for done, _, _ in calls] == sorted(done for done, _, _ in calls)


@UNREFERENCED
@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:3857", Affine(0.1, 0.03, 9e6, 0.03, -0.1, 3e6)),
        ("EPSG:2056", Affine(0.1, 0, 2.6e6, 0, 0.1, 1.2e6)),
        ("+proj=ob_tran +o_proj=longlat +o_lat_p=40 +o_lon_p=0 +lon_0=10", Affine(0.1, 0, 5, 0, -0.1, 4)),
        ("EPSG:7415", Affine(0.1, 0, 1.5e5, 0, -0.1, 4.5e5)),
    ],
)
def test_grids_are_kept(make_identity, write_scene, tmp_path, crs, transform):
    scene = write_scene(random_scene(40, 30), crs=CRS.from_string(crs), transform=transform)
    _, grid = read_mask(make_identity().predict_raster(scene, tmp_path / "m.tif"))
    assert grid == read_scene(scene)[2]
    assert grid.crs is not None


@UNREFERENCED
@pytest.mark.parametrize("transform", [Affine.identity(), Affine(0.05, 0, 100, 0, -0.05, 200)])
def test_without_crs_it_warns_once_and_goes_on(make_identity, write_scene, tmp_path, transform):
    pixels = random_scene(40, 30)
    scene = write_scene(pixels, crs=None, transform=transform)
    with pytest.warns(MissingCrsWarning, match=r"scene.tif: no CRS found; going on in pixel coordinates") as caught:
        out = make_identity().predict_raster(scene, tmp_path / "m.tif")
    assert len([entry for entry in caught if entry.category is MissingCrsWarning]) == 1
    mask, grid = read_mask(out)
    assert (grid.crs, grid.transform) == (None, transform)
    np.testing.assert_array_equal(mask, pixels.argmax(axis=0))


@UNREFERENCED
def test_ground_control_points_are_kept(make_identity, tmp_path):
    points = [GroundControlPoint(row=r, col=c, x=10 + c, y=50 - r, z=0) for r in (0, 40) for c in (0, 30)]
    scene = tmp_path / "gcps.tif"
    profile = {"driver": "GTiff", "width": 30, "height": 40, "count": 3, "dtype": "uint8"}
    with rasterio.open(scene, "w", **profile, gcps=points, crs="EPSG:4326") as file:
        file.write(random_scene(40, 30))
    _, grid = read_mask(make_identity().predict_raster(scene, tmp_path / "m.tif"))
    assert grid.ground_control is not None
    assert grid == read_scene(scene)[2]


@pytest.mark.parametrize("kind", ["nodata", "internal mask", "alpha"])
def test_nodata_is_exactly_where_the_scene_has_it(make_identity, write_scene, tmp_path, kind):
    pixels = np.maximum(random_scene(130, 140), 1)
    pixels[:, 10, 10] = [0, 0, 9]  # two bands at nodata: valid
    valid = np.random.default_rng(1).random((130, 140)) > 0.4
    valid[10, 10] = True
    valid[:70, 60:] = False
    if kind == "nodata":
        pixels[:, ~valid] = 0
        scene = write_scene(pixels, nodata=0)
    elif kind == "internal mask":
        scene = write_scene(pixels, valid=valid)
    else:
        scene = write_scene(np.concatenate([pixels, valid[None] * np.uint8(255)]))  # GDAL calls a fourth band alpha
    mask, _ = read_mask(make_identity().predict_raster(scene, tmp_path / "m.tif"))
    np.testing.assert_array_equal(mask == IGNORE_INDEX, ~valid)
    np.testing.assert_array_equal(mask, expected_mask(pixels, valid))


@pytest.mark.parametrize(
    "layout",
    [
        {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"},
        {"tiled": True, "blockxsize": 256, "blockysize": 128, "compress": "lzw", "interleave": "band"},
        {"blockysize": 1},
        {"blockysize": 150},
    ],
)
def test_the_files_layout_does_not_matter(edges, write_scene, tmp_path, layout):
    pixels = random_scene()
    mask, _ = read_mask(edges.predict_raster(write_scene(pixels, **layout), tmp_path / "m.tif"))
    np.testing.assert_array_equal(mask, edges.predict_array(pixels))


def test_a_mosaic_of_tiles_gives_the_scenes_mask(edges, write_scene, tmp_path):
    pixels = random_scene()
    whole, grid = read_mask(edges.predict_raster(write_scene(pixels), tmp_path / "whole.tif"))
    tiles = []
    for number, (row, col) in enumerate([(0, 0), (0, 60), (70, 0), (70, 60)]):
        window = PixelWindow(col_off=col, row_off=row, width=50 if col else 60, height=80 if row else 70)
        rows, cols = window.slices
        tiles.append((write_scene(pixels[:, rows, cols], f"{number}.tif"), window))
    vrt = mosaic_vrt(tiles, grid, tmp_path / "mosaic.vrt")
    found, found_grid = read_mask(edges.predict_raster(vrt, tmp_path / "mosaic_mask.tif"))
    np.testing.assert_array_equal(found, whole)
    assert found_grid == grid


def test_bands_can_be_chosen(make_identity, write_scene, tmp_path):
    pixels = random_scene(40, 30, count=5)
    scene = write_scene(pixels)
    with pytest.raises(BandMismatchError, match=r"scene.tif: [45] bands found, expected 3.*--bidx"):
        make_identity().predict_raster(scene, tmp_path / "m.tif")
    with pytest.raises(RasterError, match="band 6 asked for, expected numbers from 1 to 5"):
        make_identity().predict_raster(scene, tmp_path / "m.tif", PredictConfig(bidx=(6, 1, 2)))
    mask, _ = read_mask(make_identity().predict_raster(scene, tmp_path / "m.tif", PredictConfig(bidx=(5, 1, 3))))
    np.testing.assert_array_equal(mask, pixels[[4, 0, 2]].argmax(axis=0))


def test_another_dtype_is_refused(make_identity, write_scene, tmp_path):
    scene = write_scene(random_scene(40, 30).astype(np.uint16))
    with pytest.raises(BandMismatchError, match=r"scene.tif: dtype uint16 found, expected uint8"):
        make_identity().predict_raster(scene, tmp_path / "m.tif")
    assert not partial_dir(tmp_path / "m.tif").exists()


class TestJobs:
    def test_a_finished_identical_output_is_skipped(self, make_identity, write_scene, tmp_path, caplog):
        scene, out = write_scene(random_scene(40, 30)), tmp_path / "m.tif"
        make_identity().predict_raster(scene, out)
        before = out.stat()
        predictor = make_identity()
        predictor.model.register_forward_hook(lambda *_: pytest.fail("the network ran"))
        with caplog.at_level(logging.INFO, "ctrs.inference"):
            assert predictor.predict_raster(scene, out) == out
        assert "m.tif: exists and is the result of the same job; nothing to do" in caplog.text
        found = out.stat()
        assert (found.st_ino, found.st_mtime_ns, found.st_size) == (before.st_ino, before.st_mtime_ns, before.st_size)

    def test_a_different_output_is_refused_until_overwrite(self, make_identity, write_scene, tmp_path):
        scene, out = write_scene(random_scene(40, 30)), tmp_path / "m.tif"
        make_identity().predict_raster(scene, out)
        told = r"m.tif: exists and is the result of other options: blend hann \(asked for: gaussian\), overlap 0.25 "
        told += r"\(asked for: 0.5\); pass --overwrite"
        with pytest.raises(OutputExistsError, match=told):
            make_identity().predict_raster(scene, out, PredictConfig(overlap=0.5, blend="gaussian"))
        other = make_identity()
        other.model_hash = "of another network"
        with pytest.raises(OutputExistsError, match=r"result of another network; pass --overwrite"):
            other.predict_raster(scene, out)
        pixels = random_scene(40, 30, seed=5)
        write_scene(pixels)
        with pytest.raises(OutputExistsError, match=r"result of another scene, a changed one, or other creation opt"):
            make_identity().predict_raster(scene, out)
        make_identity().predict_raster(scene, out, PredictConfig(overwrite=True))
        np.testing.assert_array_equal(read_mask(out)[0], pixels.argmax(axis=0))

    def test_statistics_that_a_viewer_leaves_beside_the_scene_change_nothing(
        self, make_identity, write_scene, tmp_path
    ):
        scene, out = write_scene(random_scene(40, 30)), tmp_path / "m.tif"
        make_identity().predict_raster(scene, out)
        sidecar = scene.with_name("scene.tif.aux.xml")
        sidecar.write_text("<PAMDataset><Metadata><MDI key='SEEN'>yes</MDI></Metadata></PAMDataset>")
        assert make_identity().predict_raster(scene, out) == out

    def test_a_foreign_file_is_not_replaced(self, make_identity, write_scene, tmp_path):
        out = tmp_path / "m.tif"
        out.write_text("somebody's notes")
        with pytest.raises(OutputExistsError):
            make_identity().predict_raster(write_scene(random_scene(40, 30)), out)
        with pytest.raises(OutputExistsError, match="was not written by ctrs predict, so it is not replaced"):
            make_identity().predict_raster(write_scene(random_scene(40, 30)), out, PredictConfig(overwrite=True))
        assert out.read_text() == "somebody's notes"

    @pytest.mark.parametrize("named", ["path", "text", "link", "vrt"])
    def test_the_scene_itself_is_never_the_output(self, make_identity, write_scene, tmp_path, named):
        scene = write_scene(random_scene(40, 30))
        source, out = scene, scene
        if named == "link":
            out = tmp_path / "linked.tif"
            out.hardlink_to(scene)
        elif named == "vrt":
            source = tmp_path / "scene.vrt"
            rasterio.shutil.copy(scene, source, driver="VRT")
        else:
            source = scene if named == "path" else str(scene)
        with pytest.raises(UsageError, match="is the scene itself, or a part of it"):
            make_identity().predict_raster(source, out, PredictConfig(overwrite=True))
        assert read_scene(scene)[0].shape == (3, 40, 30)

    @pytest.mark.parametrize("overlap", [0.0, 0.25, 0.6])
    def test_interrupted_work_goes_on_and_ends_with_the_same_bytes(self, edges, write_scene, tmp_path, overlap, caplog):
        scene = write_scene(random_scene(1000, 90))
        config = PredictConfig(overlap=overlap, batch_size=2)
        whole = edges.predict_raster(scene, tmp_path / "whole.tif", config)
        out = tmp_path / "m.tif"
        seen = []
        for share in (0.4, 0.4, 0.8):

            def interrupt(done, total, what, share=share):
                seen.append(done / total)
                if done > share * total:
                    raise KeyboardInterrupt

            with pytest.raises(KeyboardInterrupt):
                edges.predict_raster(scene, out, config, progress=interrupt)
            assert not out.exists()
            assert list((partial_dir(out) / "rows").glob("rows_*.tif"))
        seen.clear()
        with caplog.at_level(logging.INFO, "ctrs.inference"):
            edges.predict_raster(scene, out, config, progress=lambda done, total, what: seen.append(done / total))
        assert "going on at row" in caplog.text
        assert seen[0] > 0.3
        assert out.read_bytes() == whole.read_bytes()
        assert not partial_dir(out).exists()

    def test_unfinished_work_of_another_job_is_refused_until_overwrite(self, edges, write_scene, tmp_path):
        scene, out = write_scene(random_scene(900, 70)), tmp_path / "m.tif"

        def interrupt(done, total, what):
            if done > total / 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            edges.predict_raster(scene, out, progress=interrupt)
        with pytest.raises(OutputExistsError, match=r"holds unfinished work of a job with other inputs .* or options"):
            edges.predict_raster(scene, out, PredictConfig(blend="constant"))
        edges.predict_raster(scene, out, PredictConfig(blend="constant", overwrite=True))
        assert out.exists()

    @pytest.mark.slow
    def test_a_killed_process_leaves_work_that_goes_on(self, tmp_path, write_scene):
        write_scene(random_scene(3000, 70))
        command = [sys.executable, "-c", SLOW_PREDICTION, str(tmp_path / "scene.tif")]
        subprocess.run([*command, str(tmp_path / "whole.tif"), "0"], check=True, timeout=LIMIT_S)
        out = tmp_path / "m.tif"
        process = subprocess.Popen([*command, str(out), "0.05"])
        rows = partial_dir(out) / "rows"
        deadline = time.monotonic() + LIMIT_S
        while len(list(rows.glob("rows_*.tif"))) < 4 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not out.exists()
        assert list(rows.glob("rows_*.tif"))
        done = subprocess.run([*command, str(out), "0"], check=True, timeout=LIMIT_S, capture_output=True, text=True)
        assert int(done.stdout) > 0  # where it went on
        assert out.read_bytes() == (tmp_path / "whole.tif").read_bytes()


SLOW_PREDICTION = """
import sys, time
from pathlib import Path
import torch
from torch import nn
from ctrs.classes import BUILDING_CLASSES
from ctrs.inference import Predictor
from ctrs.raster.bands import Bands
torch.manual_seed(0)
scene, out, pause = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
bands = Bands(names=("r", "g", "b"), dtype="uint8", low=(0,) * 3, high=(255,) * 3, mean=(99,) * 3, std=(50,) * 3)
network = nn.Conv2d(3, 2, 5, padding=2)
predictor = Predictor(network, classes=BUILDING_CLASSES, bands=bands, window_px=64, device="cpu")
begun = []
def progress(done, total, what):
    begun.append(done)
    time.sleep(pause)
predictor.predict_raster(scene, out, progress=progress)
print(begun[0])
"""


class TestFaults:
    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_values_that_are_not_finite_are_no_mask(self, make_predictor, write_scene, tmp_path, value):
        class Broken(nn.Module):
            def forward(self, images):
                logits = images.clone()
                logits[..., 3, 5] = value
                return logits

        with pytest.raises(CheckpointError, match=r"values that are not finite, computing in .*--precision fp32"):
            make_predictor(Broken()).predict_raster(write_scene(random_scene(90, 90)), tmp_path / "m.tif")
        assert not (tmp_path / "m.tif").exists()

    def test_work_stopped_by_damage_goes_on_without_the_damaged_blocks(
        self, make_identity, write_scene, tmp_path, caplog
    ):
        scene, out = write_scene(random_scene(1500, 200), blockysize=10), tmp_path / "m.tif"
        whole = make_identity().predict_raster(scene, tmp_path / "whole.tif")
        scene.write_bytes(scene.read_bytes()[: 600 * 600])
        with pytest.raises(RasterError, match="--skip-unreadable"):
            make_identity().predict_raster(scene, out)
        with caplog.at_level(logging.INFO, "ctrs.inference"), pytest.warns(DataWarning, match="blocks are unreadable"):
            make_identity().predict_raster(scene, out, PredictConfig(skip_unreadable=True))
        assert "going on at row" in caplog.text
        mask, expected = read_mask(out)[0], read_mask(whole)[0]
        assert (mask[:590] == expected[:590]).all()
        assert (mask[600:] == 255).all()
        assert json.loads((tmp_path / "m.json").read_text())["unreadable"]

    def test_what_stood_beside_a_replaced_mask_goes_with_it(self, make_identity, write_scene, tmp_path):
        scene, out = write_scene(random_scene(40, 30)), tmp_path / "a_mask.tif"
        first = PredictConfig(confidence="margin", probabilities="uint8", style=True, stac=True)
        make_identity().predict_raster(scene, out, first)
        assert {"a_confidence.tif", "a_probabilities.tif"} <= {path.name for path in tmp_path.iterdir()}
        assert "class 2" in out.with_suffix(".qml").read_text()
        make_identity().predict_raster(scene, out, PredictConfig(classes=("class 1",), overwrite=True))
        assert not {"a_confidence.tif", "a_probabilities.tif"} & {path.name for path in tmp_path.iterdir()}
        style = out.with_suffix(".qml").read_text()
        assert "other" in style
        assert "class 2" not in style
        assets = json.loads((tmp_path / "a_mask.stac.json").read_text())["assets"]
        assert not {"confidence", "probabilities"} & set(assets)

    def test_a_truncated_scene_is_named_and_finished_rows_are_kept(self, make_identity, write_scene, tmp_path):
        scene = write_scene(random_scene(1500, 200), blockysize=10)
        scene.write_bytes(scene.read_bytes()[: 600 * 600])
        out = tmp_path / "m.tif"
        with pytest.raises(
            RasterError, match=r"scene.tif: block of 200 x 10 px at row \d+.* not readable.*damaged or cut short"
        ):
            make_identity().predict_raster(scene, out)
        assert not out.exists()
        assert list((partial_dir(out) / "rows").glob("rows_*.tif"))

    def test_a_missing_scene(self, make_identity, tmp_path):
        with pytest.raises(InputNotFoundError, match=r"none.tif: not found"):
            make_identity().predict_raster(tmp_path / "none.tif", tmp_path / "m.tif")

    def test_a_folder_that_cannot_be_made(self, make_identity, write_scene, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(OutputError, match=r"not writable .*choose another place with -o"):
            make_identity().predict_raster(write_scene(random_scene(40, 30)), tmp_path / "file" / "m.tif")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_a_read_only_folder(self, make_identity, write_scene, tmp_path):
        scene, folder = write_scene(random_scene(40, 30)), tmp_path / "closed"
        folder.mkdir(mode=0o500)
        with pytest.raises(OutputError, match=r"closed: not writable"):
            make_identity().predict_raster(scene, folder / "m.tif")


@UNREFERENCED
class TestRealImagery:
    """An identity network on real scenes: the mask must be the largest band on exactly the same grid."""

    @pytest.mark.parametrize(
        "name",
        ["oam_banepa_urban/chips/*.tif", "oam_fair_buildings/scenes/kampala_b_z20.tif", "dubai_*/images/t2_004.jpg"],
    )
    def test_scene(self, make_identity, real_data, tmp_path, name):
        scene = sorted(real_data.glob(name))[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MissingCrsWarning)
            out = make_identity(window_px=256).predict_raster(scene, tmp_path / "m.tif")
        pixels, valid, grid = read_scene(scene)
        mask, mask_grid = read_mask(out)
        assert mask_grid == grid
        np.testing.assert_array_equal(mask, expected_mask(pixels, valid))
        assert cog_validate(out, strict=True)[0]


PEAK_MEMORY = """
import re, sys
from pathlib import Path
import numpy as np, rasterio
from affine import Affine
from rasterio.windows import Window
from torch import nn
from ctrs.classes import BUILDING_CLASSES
from ctrs.inference import Predictor
from ctrs.raster import geotiff
from ctrs.raster.bands import Bands
geotiff.GDAL_OPTIONS["GDAL_CACHEMAX"] = 8 * 2**20  # so that a small scene fills it
scene, height = Path(sys.argv[1]), int(sys.argv[2])
rows = np.random.default_rng(0).integers(0, 255, (3, 250, 1500)).astype(np.uint8)
profile = {"driver": "GTiff", "width": 1500, "height": height, "count": 3, "dtype": "uint8", "crs": "EPSG:32633"}
with rasterio.open(scene, "w", **profile, transform=Affine(1, 0, 5e5, 0, -1, 5e6), blockysize=50) as file:
    for row in range(0, height, 250):
        file.write(rows, window=Window(0, row, 1500, 250))
bands = Bands(names=("r", "g", "b"), dtype="uint8", low=(0,) * 3, high=(255,) * 3, mean=(99,) * 3, std=(50,) * 3)
network = nn.Conv2d(3, 2, 1)
predictor = Predictor(network, classes=BUILDING_CLASSES, bands=bands, window_px=256, device="cpu")
predictor.predict_raster(scene, scene.with_name("m.tif"))
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads peak memory from /proc")
def test_memory_does_not_grow_with_the_scenes_height(tmp_path):
    peaks = {}
    for height in (2000, 20_000):  # 9 and 90 MB of pixels, 24 and 240 MB of logits
        command = [sys.executable, "-c", PEAK_MEMORY, str(tmp_path / f"{height}.tif"), str(height)]
        (tmp_path / "m.tif").unlink(missing_ok=True)
        run = subprocess.run(command, check=True, timeout=300, capture_output=True, text=True)
        peaks[height] = int(run.stdout) / 1024
    assert peaks[20_000] - peaks[2000] < 40, peaks
