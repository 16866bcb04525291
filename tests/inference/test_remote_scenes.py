"""Scenes on other machines, read through GDAL: web servers and object stores, and those that hang up."""

import json

import numpy as np
import pytest
import rasterio
from affine import Affine

from ctrs.classes import IGNORE_INDEX
from ctrs.config import PredictConfig
from ctrs.errors import DataWarning, RasterError
from ctrs.inference import mask_paths, predict_mosaic
from ctrs.inference.pixels import FileBlocks
from ctrs.inference.scene_source import open_scene
from ctrs.jobs import partial_dir
from ctrs.raster.geotiff import open_raster
from ctrs.raster.names import source_path
from tests.inference.conftest import UTM
from tests.inference.range_server import range_server

TILED = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}


@pytest.fixture
def server(monkeypatch, tmp_path):
    # What GDAL read from an address and port it keeps for the life of the process.
    monkeypatch.setenv("CPL_VSIL_CURL_NON_CACHED", "/vsicurl/http://127.0.0.1")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "served").mkdir()
    with range_server(tmp_path / "served") as found:
        yield found


@pytest.fixture
def scene(write_scene):
    """A scene of several blocks, and its pixels."""
    pixels = np.random.default_rng(2).integers(0, 256, (3, 300, 260)).astype(np.uint8)
    return write_scene(pixels, **TILED), pixels


def read(path):
    with rasterio.open(path) as file:
        return file.read(1), file.tags(), file.crs, file.transform


def test_a_scene_on_a_web_server(server, scene, edges, tmp_path, monkeypatch):
    path, _ = scene
    server.add("maps/scene.tif", path.read_bytes())
    local, _, *place = read(edges.predict_raster(path, tmp_path / "local_mask.tif"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")  # a scene on the network has no folder of its own
    url = server.url("maps/scene.tif?signature=secret")
    ((source, out),) = mask_paths([url])
    mask = edges.predict_raster(source, out)
    found, tags, *found_place = read(tmp_path / "work" / "scene_mask.tif")
    assert mask.absolute() == tmp_path / "work" / "scene_mask.tif"
    np.testing.assert_array_equal(found, local)
    assert found_place == place
    assert tags["CTRS_SOURCE"] == "scene.tif"
    assert tags["CTRS_INPUT"].startswith("etag:")
    assert "secret" not in str(tags)
    log = (tmp_path / "work" / "scene_mask.json").read_text()
    assert "secret" not in log
    assert json.loads(log)["scene"] == server.url("maps/scene.tif?...")
    assert json.loads(log)["files"] == [{"path": server.url("maps/scene.tif?..."), "hash": tags["CTRS_INPUT"]}]
    assert any("bytes=" in line for line in server.asked)


def test_rows_on_a_web_server_are_asked_for_at_once(server, scene, edges):
    path, _ = scene
    server.add("maps/scene.tif", path.read_bytes())
    with open_scene(path, edges.bands) as source:
        assert source.blocks() == FileBlocks(height=64, width=64)
    with open_scene(source_path(server.url("maps/scene.tif")), edges.bands) as source:
        assert source.blocks() == FileBlocks(height=64)


def test_a_virtual_raster_of_files_on_a_web_server(server, scene, edges, tmp_path):
    path, _ = scene
    server.add("scene.tif", path.read_bytes())
    with rasterio.open(path) as file:
        vrt = tmp_path / "local.vrt"
        rasterio.shutil.copy(file, vrt, driver="VRT")
    text = vrt.read_text()
    assert 'relativeToVRT="1">scene.tif<' in text
    server.add("scene.vrt", text.encode())
    expected = read(edges.predict_raster(path, tmp_path / "local_mask.tif"))[0]
    found = read(edges.predict_raster(server.url("scene.vrt"), tmp_path / "mask.tif"))[0]
    np.testing.assert_array_equal(found, expected)


def test_scenes_of_a_mosaic_on_a_web_server(server, scene, edges, tmp_path):
    path, _ = scene
    expected = read(edges.predict_raster(path, tmp_path / "whole.tif"))[0]
    for name, left, width in (("west", 0, 130), ("east", 130, 130)):
        window = rasterio.windows.Window(left, 0, width, 300)
        with rasterio.open(path) as file:
            profile = {**file.profile, "width": width, "transform": file.transform @ Affine.translation(left, 0)}
            with rasterio.open(tmp_path / f"{name}.tif", "w", **profile) as part:
                part.write(file.read(window=window))
        server.add(f"{name}.tif", (tmp_path / f"{name}.tif").read_bytes())
    urls = [server.url("west.tif"), server.url("east.tif")]
    (mask,) = predict_mosaic(edges, urls, tmp_path / "city.tif")
    np.testing.assert_array_equal(read(mask)[0], expected)


def test_a_scene_in_an_object_store(server, scene, edges, tmp_path, monkeypatch):
    path, _ = scene
    server.add("imagery/city/scene.tif", path.read_bytes())
    settings = {
        "AWS_S3_ENDPOINT": server.host,
        "AWS_HTTPS": "NO",
        "AWS_VIRTUAL_HOSTING": "FALSE",
        "AWS_NO_SIGN_REQUEST": "YES",
        "CPL_VSIL_CURL_NON_CACHED": "/vsis3/imagery",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    expected = read(edges.predict_raster(path, tmp_path / "local_mask.tif"))[0]
    monkeypatch.chdir(tmp_path)
    ((source, out),) = mask_paths(["s3://imagery/city/scene.tif"])
    found, tags, *_ = read(edges.predict_raster(source, out))
    np.testing.assert_array_equal(found, expected)
    assert str(out) == "scene_mask.tif"
    assert tags["CTRS_INPUT"].startswith("name:")  # stores tell GDAL alone, which does not hand it on


@pytest.fixture
def breaking(server, scene, monkeypatch):
    """A scene of which the server hangs up from the middle on."""
    path, pixels = scene
    server.add("scene.tif", path.read_bytes())
    server.hang_up_from(path.stat().st_size // 2)
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    return server.url("scene.tif"), pixels


def test_a_server_that_hangs_up_in_the_middle(server, breaking, edges, tmp_path):
    url, pixels = breaking
    out = tmp_path / "mask.tif"
    seen = []
    with pytest.raises(RasterError) as caught:
        edges.predict_raster(url, out, progress=lambda done, *_: seen.append(done))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{url}: block of 64 x 64 px at row ")
    assert "the connection was lost, or the file is damaged: run the same command again" in message
    assert max(seen) > 0  # the beginning was mapped
    assert not out.exists()
    server.hang_up_from(None)
    np.testing.assert_array_equal(read(edges.predict_raster(url, out))[0], edges.predict_array(pixels))
    assert not partial_dir(out).exists()


def test_what_a_server_does_not_hand_out_can_be_left_out(breaking, edges, tmp_path):
    url, _ = breaking
    with pytest.warns(DataWarning, match="blocks are unreadable and nodata in mask.tif"):
        mask = edges.predict_raster(url, tmp_path / "mask.tif", PredictConfig(skip_unreadable=True))
    found = read(mask)[0]
    assert (found[:64] != IGNORE_INDEX).all()
    assert (found[256:] == IGNORE_INDEX).all()


def test_a_scene_that_is_not_there(server, edges, tmp_path):
    out = tmp_path / "mask.tif"
    with pytest.raises(RasterError, match=r"nowhere\.tif: not readable as a raster .*check the address") as caught:
        edges.predict_raster(server.url("nowhere.tif"), out)
    assert "\n" not in str(caught.value)
    assert not out.exists()


def test_a_server_of_whole_files_only(server, scene, edges, tmp_path):
    server.add("scene.tif", scene[0].read_bytes())
    server.serve_whole_files()
    with pytest.raises(RasterError, match=r"scene\.tif: .*hands out whole files only: download it") as caught:
        edges.predict_raster(server.url("scene.tif"), tmp_path / "mask.tif")
    assert "\n" not in str(caught.value)


@pytest.mark.timeout(120)  # without end, GDAL would ask on
@pytest.mark.parametrize("driver", ["GTiff", "VRT"])
def test_a_server_that_answers_whatever_is_asked_for(server, scene, edges, tmp_path, driver):
    path, _ = scene
    content = path.read_bytes()
    if driver == "VRT":
        server.add("scene.tif", content)
        with rasterio.open(path) as file:
            rasterio.shutil.copy(file, tmp_path / "local.vrt", driver="VRT")
        text = (tmp_path / "local.vrt").read_text()
        # Its source is a file that another server would hold.
        content = text.replace('relativeToVRT="1">scene.tif<', f'relativeToVRT="0">{path}<').encode()
    server.add("answer", content)
    server.answer_always_with("answer")
    expected = read(edges.predict_raster(path, tmp_path / "local_mask.tif"))[0]
    found = read(edges.predict_raster(server.url("maps/17"), tmp_path / "mask.tif"))[0]
    np.testing.assert_array_equal(found, expected)
    assert len(server.asked) < 40  # overviews of masks of overviews of masks have no end


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_what_stands_beside_a_scene_on_a_server_is_read(server, write_scene, tmp_path):
    pixels = np.random.default_rng(4).integers(0, 256, (3, 40, 50)).astype(np.uint8)
    valid = np.random.default_rng(5).random((40, 50)) > 0.3
    plain = write_scene(pixels, "plain.tif", crs=None, transform=None)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(plain, "r+") as file:
        file.write_mask(valid)
    rasterio.shutil.copy(write_scene(pixels), tmp_path / "placed.tif", driver="PNG")  # its place stands beside it
    for name in ("plain.tif", "plain.tif.msk", "placed.tif", "placed.tif.aux.xml"):
        server.add(name, (tmp_path / name).read_bytes())
    server.add("plain.tfw", b"0.5\n0\n0\n-0.5\n100.25\n199.75\n")
    with open_raster(server.url("plain.tif")) as file:
        assert file.transform == Affine(0.5, 0, 100, 0, -0.5, 200)
        np.testing.assert_array_equal(file.read_masks(1) > 0, valid)
    with open_raster(server.url("placed.tif")) as file:
        assert (file.crs.to_epsg(), file.transform) == (32633, UTM)
