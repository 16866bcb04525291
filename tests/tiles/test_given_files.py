"""Images and labels that the options name: patterns, files, folders, URLs; what is not named is found by layout."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS

from ctrs.config import PrepareConfig
from ctrs.errors import CtrsError, InputNotFoundError, LabelError, LabelWarning, OutputExistsError, RasterError
from ctrs.raster.geotiff import Grid, open_raster
from ctrs.raster.mosaic import mosaic_vrt
from ctrs.raster.names import gdal_name, shown
from ctrs.raster.windows import PixelWindow
from ctrs.tiles import Manifest, prepare_tiles, remote_files
from ctrs.tiles.findings import Findings
from ctrs.tiles.given_files import glob_pattern
from ctrs.tiles.layout import find_layout

if TYPE_CHECKING:
    from tests.tiles.conftest import Maker


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


def pairs(
    source: Path, images: tuple[str, ...] = (), labels: tuple[str, ...] = (), **options: object
) -> dict[str, tuple[str, str]]:
    findings = Findings()
    layout = find_layout(source, PrepareConfig(images=images, labels=labels, **options), findings)  # type: ignore[arg-type]
    findings.raise_faults()
    root = f"{source}/"
    return {
        scene.name: (shown(scene.image).removeprefix(root), shown(scene.label).removeprefix(root))
        for scene in layout.scenes
    }


def test_patterns_below_the_source(tmp_path: Path) -> None:
    touch(
        tmp_path, "flight/a/x_1.tif", "flight/b/x_2.tif", "flight/b/x_2.tfw", "flight/b/.x_3.tif", "truth/x_1.png",
        "truth/x_2.png", "truth/notes.txt",
    )  # fmt: skip
    expected = {"a_x_1": ("flight/a/x_1.tif", "truth/x_1.png"), "b_x_2": ("flight/b/x_2.tif", "truth/x_2.png")}
    assert pairs(tmp_path, ("flight/**/*",), ("truth/*",)) == expected
    assert pairs(tmp_path, ("flight/?/x_[12].tif",), ("**/x*.png",)) == expected
    assert pairs(tmp_path, ("flight",), ("truth",)) == expected
    assert pairs(tmp_path, (f"{tmp_path}/flight/**",), ("truth/x_1.png", "truth/x_2.png")) == expected
    assert list(pairs(tmp_path, ("flight/b/x_2.tif",), ("truth/x_2.png",))) == ["x_2"]


def test_the_same_names_in_subfolders_are_paired_by_subfolder(tmp_path: Path) -> None:
    touch(tmp_path, "i/a/1.tif", "i/b/1.tif", "l/a/1.tif", "l/b/1.tif")
    assert pairs(tmp_path, ("i/**/*.tif",), ("l/**/*.tif",)) == {
        "a_1": ("i/a/1.tif", "l/a/1.tif"), "b_1": ("i/b/1.tif", "l/b/1.tif"),
    }  # fmt: skip


def test_patterns_below_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "data/x/a.tif", "here/labels.gpkg")
    monkeypatch.chdir(tmp_path)
    assert pairs(Path(), ("data/*/*.tif",), ("here/labels.gpkg",)) == {"a": ("data/x/a.tif", "here/labels.gpkg")}
    assert pairs(Path("data"), ("x/*.tif",), ("here/labels.gpkg",)) == {"a": ("x/a.tif", "here/labels.gpkg")}


def test_labels_for_all_or_one(tmp_path: Path) -> None:
    touch(tmp_path, "a.tif", "b.tif", "roads.gpkg", "truth.vrt", "a.geojson", "b.geojson")
    both = ("[ab].tif",)
    assert {label for _, label in pairs(tmp_path, both, ("roads.gpkg",)).values()} == {"roads.gpkg"}
    assert pairs(tmp_path, both, ("*.geojson",)) == {"a": ("a.tif", "a.geojson"), "b": ("b.tif", "b.geojson")}
    assert pairs(tmp_path, ("a.tif",), ("truth.vrt",)) == {"a": ("a.tif", "truth.vrt")}
    with pytest.raises(
        LabelError, match=r"2 images without a label: a\.tif, b\.tif; looked for the same stem in truth"
    ):
        pairs(tmp_path, both, ("truth.vrt",))


def test_labels_among_the_images_are_no_images(tmp_path: Path) -> None:
    touch(tmp_path, "a.tif", "a_mask.tif")
    assert pairs(tmp_path, ("*.tif",), ("*_mask.tif",)) == {"a": ("a.tif", "a_mask.tif")}


def test_only_images_or_only_labels_named(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.tif", "images/b.tif", "labels/a.tif", "labels/b.tif", "new/a.gpkg", "new/b.gpkg")
    assert pairs(tmp_path, ("images/a.tif",)) == {"a": ("images/a.tif", "labels/a.tif")}
    assert pairs(tmp_path, labels=("new/*",)) == {
        "a": ("images/a.tif", "new/a.gpkg"), "b": ("images/b.tif", "new/b.gpkg"),
    }  # fmt: skip
    touch(tmp_path / "s", "x.tif", "x_mask.tif", "y.png")
    assert pairs(tmp_path / "s", ("x.tif", "x_mask.tif")[:1]) == {"x": ("x.tif", "x_mask.tif")}
    with pytest.raises(LabelError, match=r"y\.png; looked for the same stem in folders of labels beside the images"):
        pairs(tmp_path / "s", ("y.png",))


def test_what_matches_nothing_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.tif", "a.gpkg")
    with pytest.raises(InputNotFoundError, match=r"--images 'x/\*\*/\*\.tif': matches no file below .*; check the pat"):
        pairs(tmp_path, ("x/**/*.tif",))
    with pytest.raises(InputNotFoundError, match=r"--labels '/none/b\.gpkg': matches no file"):
        pairs(tmp_path, ("a.tif",), ("/none/b.gpkg",))
    with pytest.raises(InputNotFoundError, match="nowhere: not found"):
        pairs(tmp_path / "nowhere", ("a.tif",))
    touch(tmp_path, "b.tif", "b.gpkg")
    with pytest.warns(LabelWarning, match=r"1 label has no image and is left out: a\.gpkg"):
        pairs(tmp_path, ("b.tif",), ("*.gpkg",))


def test_a_preset_gives_named_files_ids_and_splits(tmp_path: Path) -> None:
    touch(tmp_path, "mine/top_potsdam_2_13_RGB.tif", "mine/top_potsdam_02_13_label.tif")
    touch(tmp_path, "mine/top_potsdam_2_10_RGB.tif", "mine/top_potsdam_2_10_label.tif")
    config = PrepareConfig(preset="potsdam", images=("mine/*_2_10_RGB.tif",), labels=("mine/*_2_10_label.tif",))
    layout = find_layout(tmp_path, config, Findings())
    assert [(scene.name, scene.split) for scene in layout.scenes] == [("potsdam_2_10", "train")]
    assert layout.band_names == ("red", "green", "blue")
    other = PrepareConfig(preset="potsdam", images=("mine/*_2_13_RGB.tif",), labels=("mine/*02_13_label.tif",))
    assert [(scene.name, scene.split) for scene in find_layout(tmp_path, other, Findings()).scenes] == [
        ("potsdam_2_13", "test")
    ]


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("*.tif", ["a.tif"], ["x/a.tif", "a.tiff"]),
        ("**/*.tif", ["a.tif", "x/y/a.tif"], ["a.png"]),
        ("x/**", ["x/a", "x/y/a"], ["y/a"]),
        ("[!a]?.t+f", ["bc.t+f"], ["ab.t+f", "bc.ttf", "b/.t+f"]),
    ],
)
def test_patterns(pattern: str, yes: list[str], no: list[str]) -> None:
    expression = glob_pattern(pattern)
    assert [name for name in yes if not expression.fullmatch(name)] == []
    assert [name for name in no if expression.fullmatch(name)] == []


def test_a_vrt_is_an_image_and_its_sources_count(make: Maker, tmp_path: Path) -> None:
    place = Affine(0.5, 0, 400000, 0, -0.5, 5800000)
    pixels = make.noise(64, 128)
    for number in range(2):
        part = pixels[:, :, number * 64 : number * 64 + 64]
        path = tmp_path / f"parts/{number}.tif"
        make.raster(path, part, transform=place @ Affine.translation(number * 64, 0), crs="EPSG:32633")
    windows = [PixelWindow(row_off=0, col_off=start, width=64, height=64) for start in (0, 64)]
    grid = Grid(crs=CRS.from_epsg(32633), transform=place, width=128, height=64)
    mosaic_vrt([(tmp_path / f"parts/{n}.tif", windows[n]) for n in range(2)], grid, tmp_path / "images/town.vrt")
    make.raster(tmp_path / "labels/town.tif", make.indices(64, 128), transform=place, crs="EPSG:32633")
    config = PrepareConfig(tile_px=64, val_fraction=0.0)
    manifest = prepare_tiles(tmp_path, tmp_path / "out", config)
    for tile, start in zip(manifest.tiles, (0, 64), strict=True):
        with open_raster(tile.image) as dataset:
            np.testing.assert_array_equal(dataset.read(), pixels[:, :, start : start + 64])
    assert prepare_tiles(tmp_path, tmp_path / "out", config).fingerprint == manifest.fingerprint
    os.utime(tmp_path / "parts/1.tif", ns=(0, 0))
    with pytest.raises(OutputExistsError, match="is the result of other inputs or options"):
        prepare_tiles(tmp_path, tmp_path / "out", config)


SERVER = """
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

class Ranges(SimpleHTTPRequestHandler):
    def do_GET(self):
        path = Path(self.translate_path(self.path.partition("?")[0]))
        wanted = self.headers.get("Range")
        if wanted is None or not path.is_file():
            return super().do_GET()
        data = path.read_bytes()
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        part = data[int(first) : int(last or len(data)) + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}")
        self.end_headers()
        self.wfile.write(part)

server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranges, directory=sys.argv[1]))
print(server.server_port, flush=True)
server.serve_forever()
"""
"""Serves files, whole or in part, as servers of imagery do."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server in a process of its own: rasterio holds Python's lock while it opens a file."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "web").mkdir()
    command = [sys.executable, "-c", SERVER, str(tmp_path / "web")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.kill()


def test_images_and_labels_of_a_server(make: Maker, tmp_path: Path, server: str) -> None:
    place = Affine(0.5, 0, 400000, 0, -0.5, 5800000)
    pixels, labels = make.noise(96, 96), make.indices(96, 96, num=2)
    make.raster(tmp_path / "web/town.tif", pixels, transform=place, crs="EPSG:32633")
    make.raster(tmp_path / "web/town_mask.tif", labels, transform=place, crs="EPSG:32633")
    config = PrepareConfig(
        images=(f"{server}/town.tif?sig=a.b",), labels=(f"{server}/town_mask.tif",), tile_px=32, val_fraction=0.0
    )
    (tmp_path / "empty").mkdir()
    manifest = prepare_tiles(tmp_path / "empty", tmp_path / "out", config)
    assert len(manifest.tiles) == 9
    assert manifest.scenes[0].name == "town"
    counts = np.sum([tile.class_counts for tile in manifest.tiles], axis=0)
    assert counts.tolist() == np.bincount(labels.ravel(), minlength=2).tolist()


def serve_town(make: Maker, folder: Path) -> np.ndarray:
    """Write an image and a label; returns the label."""
    place = Affine(0.5, 0, 400000, 0, -0.5, 5800000)
    labels = make.indices(96, 96, num=2)
    make.raster(folder / "town.tif", make.noise(96, 96), transform=place, crs="EPSG:32633")
    make.raster(folder / "town_mask.tif", labels, transform=place, crs="EPSG:32633")
    return labels


def test_a_label_that_was_replaced_on_its_server_is_another_source(
    make: Maker, tmp_path: Path, server: str, caplog: pytest.LogCaptureFixture
) -> None:
    serve_town(make, tmp_path / "web")
    label = tmp_path / "web/town_mask.tif"
    os.utime(label, (10**9, 10**9))
    urls = (f"{server}/town.tif?sig=a.b", f"{server}/town_mask.tif")
    config = PrepareConfig(images=urls[:1], labels=urls[1:], tile_px=32, val_fraction=0.0)
    (tmp_path / "empty").mkdir()
    manifest = prepare_tiles(tmp_path / "empty", tmp_path / "out", config)
    assert list(manifest.remote_sources) == list(urls)
    assert manifest.remote_sources[urls[1]] == {
        "size": label.stat().st_size, "last_modified": "Sun, 09 Sep 2001 01:46:40 GMT",
    }  # fmt: skip
    with caplog.at_level("INFO", logger="ctrs"):
        assert prepare_tiles(tmp_path / "empty", tmp_path / "out", config).fingerprint == manifest.fingerprint
    assert "already prepared" in caplog.text
    assert "cannot be compared" not in caplog.text
    os.utime(label, (10**9 + 1, 10**9 + 1))
    with pytest.raises(OutputExistsError, match="is the result of other inputs or options"):
        prepare_tiles(tmp_path / "empty", tmp_path / "out", config)


def test_sources_of_which_no_server_tells_anything_are_said_to_be_taken_as_they_were(
    make: Maker, tmp_path: Path, server: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_town(make, tmp_path / "web")
    config = PrepareConfig(
        images=(f"{server}/town.tif",), labels=(f"{server}/town_mask.tif",), tile_px=32, val_fraction=0.0
    )
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(remote_files, "_WEB", ())
    manifest = prepare_tiles(tmp_path / "empty", tmp_path / "out", config)
    assert manifest.remote_sources == {f"{server}/town.tif": {}, f"{server}/town_mask.tif": {}}
    assert "cannot be compared" not in caplog.text
    prepare_tiles(tmp_path / "empty", tmp_path / "out", config)
    assert (
        f"remote sources cannot be compared ({server}/town.tif and 1 more: neither entity tag nor time of change is "
        "known), and are taken as unchanged; prepared again only with --overwrite"
    ) in caplog.text


S3_TOWN = """
import sys
from pathlib import Path
from ctrs.config import PrepareConfig
from ctrs.tiles import prepare_tiles

config = PrepareConfig(
    images=("s3://imagery/2020/town.tif",), labels=("s3://truth/town_mask.tif",), tile_px=32, val_fraction=0.0
)
for _ in range(2):
    manifest = prepare_tiles(Path(sys.argv[1]), Path(sys.argv[2]), config)
"""


def test_images_and_labels_of_cloud_storage(make: Maker, tmp_path: Path, server: str) -> None:
    labels = serve_town(make, tmp_path / "web")
    for name, bucket in (("town.tif", "imagery/2020"), ("town_mask.tif", "truth")):
        (tmp_path / "web" / bucket).mkdir(parents=True)
        (tmp_path / "web" / name).rename(tmp_path / "web" / bucket / name)
    (tmp_path / "empty").mkdir()
    storage = {
        "AWS_S3_ENDPOINT": server.removeprefix("http://"),
        "AWS_HTTPS": "NO",
        "AWS_VIRTUAL_HOSTING": "FALSE",
        "AWS_NO_SIGN_REQUEST": "YES",
    }
    # In a process of its own: GDAL keeps what it knows of cloud storage.
    done = subprocess.run(
        [sys.executable, "-c", S3_TOWN, str(tmp_path / "empty"), str(tmp_path / "out")],
        env=os.environ | storage,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "remote sources cannot be compared (s3://imagery/2020/town.tif and 1 more: " in done.stderr
    manifest = Manifest.open(tmp_path / "out")
    assert len(manifest.tiles) == 9
    counts = np.sum([tile.class_counts for tile in manifest.tiles], axis=0)
    assert counts.tolist() == np.bincount(labels.ravel(), minlength=2).tolist()
    assert manifest.scenes[0].source_image == "s3://imagery/2020/town.tif"
    assert manifest.remote_sources == {"s3://imagery/2020/town.tif": {}, "s3://truth/town_mask.tif": {}}


def test_what_a_server_does_not_have_is_said_at_once(make: Maker, tmp_path: Path, server: str) -> None:
    make.raster(tmp_path / "label.tif", make.indices(96, 96))
    begin = time.monotonic()
    config = PrepareConfig(images=(f"{server}/none.tif",), labels=("label.tif",))
    with pytest.raises(RasterError, match=rf"{server}/none\.tif: not readable as a raster \(.*404.*\); check the addr"):
        prepare_tiles(tmp_path, tmp_path / "out", config)
    closed = server.rpartition(":")[0] + ":9"
    config = PrepareConfig(images=(f"{closed}/town.tif",), labels=("label.tif",))
    with pytest.raises(
        CtrsError, match=rf"{closed}/town\.tif: not readable as a raster .*; check the address"
    ) as caught:
        prepare_tiles(tmp_path, tmp_path / "out", config)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - begin < 10


def test_names_in_cloud_storage(tmp_path: Path) -> None:
    config = PrepareConfig(images=("s3://imagery/2020/town.tif",), labels=("gs://truth/town.geojson",))
    (scene,) = find_layout(tmp_path, config, Findings()).scenes
    assert (scene.name, gdal_name(scene.image), gdal_name(scene.label)) == (
        "town", "/vsis3/imagery/2020/town.tif", "/vsigs/truth/town.geojson",
    )  # fmt: skip
    assert shown(scene.image) == "s3://imagery/2020/town.tif"
