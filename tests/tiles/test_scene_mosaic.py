"""Many files as one scene: nothing of them is lost, and what does not fit is refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp

from ctrs.config import PrepareConfig
from ctrs.errors import DataError, DataWarning, LabelError, RasterError
from ctrs.raster.geotiff import Grid, open_raster, read_window
from ctrs.raster.mosaic_parts import join_parts
from ctrs.raster.windows import PixelWindow
from ctrs.tiles import prepare_tiles
from ctrs.tiles.findings import Findings
from ctrs.tiles.layout import find_layout

if TYPE_CHECKING:
    from tests.tiles.conftest import Maker

CRS = "EPSG:32633"
COLORS = np.array([(255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0)], np.uint8)
ORIGIN = Affine(0.5, 0, 400000, 0, -0.5, 5800000)


def at(col: float, row: float) -> Affine:
    return ORIGIN @ Affine.translation(col, row)


def cut(
    make: Maker, folder: Path, pixels: np.ndarray, corners: dict[str, tuple[int, int]], size: int, **profile: Any
) -> list[Path]:
    """Write square parts of a raster."""
    return [
        make.raster(
            folder / f"{name}.tif",
            pixels[..., row : row + size, col : col + size],
            transform=at(col, row),
            **{"crs": CRS, **profile},
        )
        for name, (col, row) in corners.items()
    ]


FOUR = {"nw": (0, 0), "ne": (64, 0), "sw": (0, 64), "se": (64, 64)}


def read(path: Path) -> tuple[np.ndarray, np.ndarray, Grid]:
    with open_raster(path) as dataset:
        grid = Grid.of(dataset)
        window = PixelWindow(row_off=0, col_off=0, width=grid.width, height=grid.height)
        return *read_window(dataset, window), grid


def test_parts_and_labels_are_one_scene(make: Maker, tmp_path: Path) -> None:
    pixels, labels = make.noise(128, 128), make.indices(128, 128, num=3)
    cut(make, tmp_path / "town/images", pixels, FOUR, 64)
    cut(make, tmp_path / "town/labels", labels, {"west": (0, 0), "east": (64, 0)}, 128)
    config = PrepareConfig(mosaic=True, tile_px=128, val_fraction=0.0)
    manifest = prepare_tiles(tmp_path / "town", tmp_path / "out", config)
    (tile,) = manifest.tiles
    (scene,) = manifest.scenes
    assert scene.name == "town"
    assert scene.source_label == f"{tmp_path}/town/labels/east.tif, {tmp_path}/town/labels/west.tif"
    with rasterio.open(tile.image) as image, rasterio.open(tile.mask) as mask:
        np.testing.assert_array_equal(image.read(), pixels)
        np.testing.assert_array_equal(mask.read(1), labels)
        assert (image.crs, image.transform) == (CRS, ORIGIN)
    again = prepare_tiles(tmp_path / "town", tmp_path / "out", config)
    assert again.fingerprint == manifest.fingerprint


def test_named_parts_and_a_label_that_is_larger(make: Maker, tmp_path: Path) -> None:
    labels = make.indices(160, 160)
    cut(make, tmp_path / "i", make.noise(128, 128), FOUR, 64)
    make.raster(tmp_path / "truth.tif", labels, transform=at(-16, -16), crs=CRS)
    config = PrepareConfig(images=("i/*.tif",), labels=("truth.tif",), mosaic=True)
    (scene,) = find_layout(tmp_path, config, Findings()).scenes
    assert sorted(path.name for path in scene.image_parts) == ["ne.tif", "nw.tif", "se.tif", "sw.tif"]
    found, valid, grid = read(scene.label)
    np.testing.assert_array_equal(found[0], labels[16:144, 16:144])
    assert valid.all()
    assert grid == read(scene.image)[2]
    vector = PrepareConfig(images=("i/*.tif",), labels=("x.geojson",), mosaic=True)
    (tmp_path / "x.geojson").write_text("{}")
    assert find_layout(tmp_path, vector, Findings()).scenes[0].label == tmp_path / "x.geojson"


def test_labels_without_georeference_lie_on_their_images(make: Maker, tmp_path: Path) -> None:
    labels = make.indices(128, 128)
    cut(make, tmp_path / "images", make.noise(128, 128), FOUR, 64)
    for name, (col, row) in FOUR.items():
        make.raster(tmp_path / f"labels/{name}.png", labels[row : row + 64, col : col + 64])
    (scene,) = find_layout(tmp_path, PrepareConfig(mosaic=True), Findings()).scenes
    np.testing.assert_array_equal(read(scene.label)[0][0], labels)


@pytest.mark.parametrize("kind", ["plain", "nodata", "mask", "alpha", "nan"])
def test_only_valid_pixels_cover_and_gaps_are_invalid(make: Maker, tmp_path: Path, kind: str) -> None:
    """Two parts overlap by half; each is invalid in a corner; the bounding box has two corners without part."""
    pixels = make.noise(96, 96, dtype="float32" if kind == "nan" else "uint8")
    hole = np.zeros((96, 96), bool)
    if kind != "plain":
        hole[40:56, 32:48] = True  # in the overlap, invalid in the part on top only
        hole[0:8, 0:8] = True  # in the part below only
    paths = []
    for name, start in (("below", 0), ("above", 32)):
        part = pixels[:, start : start + 64, start : start + 64].copy()
        invalid = hole[start : start + 64, start : start + 64].copy()
        if name == "below":
            invalid[32:, 32:] = False
        profile: dict[str, Any] = {}
        part[:, invalid] = 255 - part[:, invalid]  # what an invalid pixel holds must not show
        if kind in ("nodata", "nan"):
            value = 0 if kind == "nodata" else np.nan
            part[:, invalid] = value
            profile["nodata"] = value
        elif kind == "mask":
            profile["mask"] = ~invalid
        elif kind == "alpha":
            part = np.concatenate([part, np.where(invalid, 0, 255).astype(np.uint8)[None]])
            profile |= {"photometric": "RGB", "alpha": "YES"}
        paths.append(make.raster(tmp_path / f"{name}.tif", part, transform=at(start, start), crs=CRS, **profile))
    mosaic = join_parts(paths, "x").path
    found, valid, grid = read(mosaic)
    expected = np.zeros((96, 96), bool)
    expected[:64, :64] = expected[32:, 32:] = True
    expected[0:8, 0:8] &= kind == "plain"
    assert grid == Grid(crs=rasterio.CRS.from_string(CRS), transform=ORIGIN, width=96, height=96)
    np.testing.assert_array_equal(valid, expected)
    np.testing.assert_array_equal(found[:, valid], pixels[:, valid])
    with open_raster(mosaic) as dataset, open_raster(paths[0]) as part:
        assert dataset.colorinterp == part.colorinterp
        assert (ColorInterp.alpha in dataset.colorinterp) == (kind == "alpha")
        assert repr(dataset.nodatavals) == repr(part.nodatavals)
        assert dataset.dtypes == part.dtypes


@pytest.mark.parametrize(
    "options", [{"bidx": (1, 2, 3, 4)}, {"preset": "potsdam"}, {"preset": "potsdam", "images": ("**/*_RGBIR.tif",)}]
)
def test_infrared_called_alpha_hides_nothing(make: Maker, tmp_path: Path, options: dict[str, Any]) -> None:
    pixels, labels = make.noise(128, 128, count=4), make.indices(128, 128)
    pixels[3, 20:40, 50:80] = 0
    names = dict(zip(("2_10", "2_11", "3_10"), list(FOUR.values())[:3], strict=True))
    for folder, ending, bands in (("images", "RGBIR", pixels), ("labels", "label", COLORS[labels].transpose(2, 0, 1))):
        corners = {f"top_potsdam_{name}_{ending}": corner for name, corner in names.items()}
        for path in cut(make, tmp_path / "in" / folder, bands, corners, 64):
            with rasterio.open(path) as dataset:
                assert (ColorInterp.alpha in dataset.colorinterp) == (folder == "images")
    (tmp_path / "in/classes.toml").write_text(
        "".join(f"[[class]]\nname = '{color}'\ncolor = {list(color)}\n" for color in COLORS[:6].tolist())
    )
    config = PrepareConfig(mosaic=True, tile_px=128, val_fraction=0.0, **options)
    manifest = prepare_tiles(tmp_path / "in", tmp_path / "out", config)
    (tile,) = manifest.tiles
    covered = np.ones((128, 128), bool)
    covered[64:, 64:] = False
    found, valid, _ = read(tile.image)
    np.testing.assert_array_equal(valid, covered)
    np.testing.assert_array_equal(found[:, covered], pixels[:, covered])
    with rasterio.open(tile.mask) as mask:
        np.testing.assert_array_equal(mask.read(1), np.where(covered, labels, 255))


def test_colour_tables_and_band_names_are_kept(make: Maker, tmp_path: Path) -> None:
    table = {0: (0, 0, 0, 255), 1: (255, 0, 0, 255), 2: (0, 9, 0, 255)}
    paths = cut(make, tmp_path, make.indices(64, 128, num=3), {"a": (0, 0), "b": (64, 0)}, 64, colormap=table)
    for path in paths:
        with rasterio.open(path, "r+") as dataset:
            dataset.set_band_description(1, "class")
    with open_raster(join_parts(paths, "x").path) as dataset:
        assert {index: dataset.colormap(1)[index] for index in table} == table
        assert dataset.descriptions == ("class",)


def test_the_same_parts_have_the_same_name(make: Maker, tmp_path: Path) -> None:
    paths = cut(make, tmp_path, make.noise(128, 128), FOUR, 64)
    assert join_parts(paths, "x") == join_parts(paths, "x")
    assert join_parts(paths, "x") != join_parts(paths[:3], "x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crs": "EPSG:32634"}, r"b\.tif: CRS EPSG:32634 instead of EPSG:32633 as in .*a\.tif; the parts of a mosaic"),
        ({"transform": Affine(1, 0, 400032, 0, -1, 5800000)}, r"b\.tif: pixels of 1 x 1 instead of 0\.5 x 0\.5 as in"),
        ({"transform": at(64.3, 0)}, r"b\.tif: lies 0\.30 px off the pixels of .*a\.tif, expected at most 0\.05 px"),
        ({"transform": None, "crs": None}, r"b\.tif: CRS none instead of EPSG:32633"),
        ({"nodata": 0}, r"b\.tif: nodata 0 instead of none as in"),
        ({"count": 4}, r"b\.tif: 4 bands of uint8 instead of 3 bands of uint8"),
        ({"dtype": "uint16"}, r"b\.tif: 3 bands of uint16 instead of 3 bands of uint8"),
    ],
)
def test_parts_that_do_not_fit_are_refused(make: Maker, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    paths = cut(make, tmp_path, make.noise(64, 64), {"a": (0, 0)}, 64)
    pixels = make.noise(64, 64, count=change.pop("count", 3), dtype=change.pop("dtype", "uint8"))
    other = make.raster(tmp_path / "b.tif", pixels, **{"transform": at(64, 0), "crs": CRS, **change})
    with pytest.raises(RasterError, match=message) as caught:
        join_parts([*paths, other], "x")
    assert "\n" not in str(caught.value)


def test_what_cannot_be_a_mosaic(make: Maker, tmp_path: Path) -> None:
    config = PrepareConfig(mosaic=True)
    for name in ("a", "b"):
        make.raster(tmp_path / f"n/images/{name}.tif", make.noise(64, 64))
        make.raster(tmp_path / f"n/labels/{name}.tif", make.indices(64, 64))
    with pytest.raises(RasterError, match=r"a\.tif: no georeference found, so its place in the mosaic is unknown"):
        find_layout(tmp_path / "n", config, Findings())
    cut(make, tmp_path / "v/images", make.noise(128, 128), FOUR, 64)
    with pytest.raises(LabelError, match="no labels found for the mosaic; name them with --labels"):
        find_layout(tmp_path / "v", config, Findings())
    for name in ("x.geojson", "y.geojson"):
        (tmp_path / "v" / name).write_text("{}")
    with pytest.raises(LabelError, match=r"several labels found for the mosaic: x\.geojson, y\.geojson; name one"):
        find_layout(tmp_path / "v", config, Findings())
    for split in ("train", "val"):
        cut(make, tmp_path / f"s/{split}/images", make.noise(64, 64), {"a": (0, 0)}, 64)
    with pytest.raises(DataError, match="folders of the splits train, val found, but --mosaic makes one scene"):
        find_layout(tmp_path / "s", config, Findings())


def test_parts_far_from_each_other_are_refused_at_once(make: Maker, tmp_path: Path) -> None:
    """Nothing is read of a mosaic of empty ground; the two farthest parts are named."""
    corners = {"a": (0, 0), "b": (64, 0), "c": (900_000, 1_200_000), "d": (500_000, 0)}
    for kind, pixels in (("images", make.noise(64, 64)), ("labels", make.indices(64, 64))):
        for name, place in corners.items():
            make.raster(tmp_path / f"town/{kind}/{name}.tif", pixels, transform=at(*place), crs=CRS)
    message = r"a\.tif and .*c\.tif: lie 1500000 px apart, so that the parts cover 1\.5e-06 % of a mosaic of 900064 x "
    for config in (PrepareConfig(mosaic=True), PrepareConfig(mosaic=True, images=("images/*",), labels=("labels/*",))):
        with pytest.raises(RasterError, match=message):
            prepare_tiles(tmp_path / "town", tmp_path / "out", config)
    # Far, but small as a whole: that is for its owner to judge.
    paths = cut(make, tmp_path / "near", make.noise(64, 64), {"a": (0, 0)}, 64)
    paths.append(make.raster(tmp_path / "near/b.tif", make.noise(64, 64), transform=at(9000, 9000), crs=CRS))
    assert read_size(join_parts(paths, "x").path) == (9064, 9064)


def read_size(path: Path) -> tuple[int, int]:
    with open_raster(path) as dataset:
        return dataset.height, dataset.width


def test_parts_that_contradict_each_other_are_named(make: Maker, tmp_path: Path) -> None:
    """Where parts overlap, the later in natural order is taken; where they differ, a warning says so."""
    pixels, labels = make.noise(64, 96), make.indices(64, 96, num=2)
    for kind, whole in (("images", pixels), ("labels", labels)):
        cut(make, tmp_path / kind, whole, {"p2": (0, 0), "p10": (32, 0)}, 64)
    config = PrepareConfig(mosaic=True, tile_px=64, val_fraction=0.0)
    findings = Findings()
    find_layout(tmp_path, config, findings)
    assert [finding.message for finding in findings.entries] == []
    other = labels[:, 32:].copy()
    other[:16, :32] = 1 - other[:16, :32]
    make.raster(tmp_path / "labels/p10.tif", other, transform=at(32, 0), crs=CRS)
    message = (
        r"parts of the mosaic's labels overlap and differ: in 25\.0% of the pixels looked at, .*labels/p10\.tif, "
        r"which is taken, is not as .*labels/p2\.tif; leave out one"
    )
    with pytest.warns(DataWarning, match=message):
        (scene,) = find_layout(tmp_path, config, findings).scenes
    np.testing.assert_array_equal(read(scene.label)[0][0, :, 32:], other)


@pytest.mark.parametrize(
    ("folder", "name"), [("parts", "parts"), ("flight/images", "flight"), ("", "here"), ("images", "here")]
)
def test_a_mosaic_without_source_is_named_by_the_folder_of_its_parts(
    make: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, name: str
) -> None:
    cut(make, tmp_path / "here" / folder, make.noise(128, 128), FOUR, 64)
    (tmp_path / "here/x.geojson").write_text("{}")
    monkeypatch.chdir(tmp_path / "here")
    config = PrepareConfig(images=(f"{folder}/*.tif".lstrip("/"),), labels=("x.geojson",), mosaic=True)
    assert [scene.name for scene in find_layout(Path(), config, Findings()).scenes] == [name]
