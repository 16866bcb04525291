"""prepare_tiles from sources to disk: nothing lost, nothing twice, nothing incomplete, the same bytes each time."""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctrs.config import PrepareConfig
from ctrs.errors import DataError, DataWarning, LabelWarning, MissingCrsWarning, OutputError, OutputExistsError
from ctrs.raster.geotiff import Grid, open_raster, read_window
from ctrs.raster.windows import PixelWindow
from ctrs.tiles import audit_source, prepare_tiles, scene_mosaics, source_audit, tiling
from ctrs.tiles.cutting import cut_tile
from ctrs.tiles.manifest import Manifest
from ctrs.tiles.scan import Scan, scan
from ctrs.workspace import newest_prepared

if TYPE_CHECKING:
    from tests.tiles.conftest import Maker

UTM = "EPSG:32633"
TRANSFORM = Affine(0.5, 0, 400000, 0, -0.5, 5800000)
SMALL = PrepareConfig(tile_px=64)


def digest(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def forbidden(*args: object, **kwargs: object) -> None:
    raise AssertionError("this tile is there already")


def generic(make: Maker, root: Path, sizes: dict[str, tuple[int, int]], **profile: object) -> dict[str, np.ndarray]:
    """Write images and 0/1 class rasters side by side on the ground; returns the labels."""
    truth = {}
    for number, (name, (height, width)) in enumerate(sizes.items()):
        transform = TRANSFORM @ Affine.translation(5000 * number, 0)
        truth[name] = make.indices(height, width, num=2, seed=number)
        image = make.noise(height, width, seed=number)
        make.raster(root / f"images/{name}.tif", image, transform=transform, crs=UTM, **profile)
        make.raster(root / f"labels/{name}.tif", truth[name], transform=transform, crs=UTM)
    return truth


def test_potsdam_as_unzipped(make: Maker, tmp_path: Path) -> None:
    truth = make.potsdam(tmp_path / "potsdam", ("2_10", "6_7", "2_13"), size=256)
    manifest = prepare_tiles(tmp_path / "potsdam", tmp_path / "out", PrepareConfig(tile_px=64))
    assert manifest.preset == "potsdam"
    assert manifest.has_eroded
    assert {scene.name: scene.split for scene in manifest.scenes} == {
        "potsdam_2_10": "train+val", "potsdam_2_13": "test", "potsdam_6_7": "train+val",
    }  # fmt: skip
    assert manifest.bands.names == ("red", "green", "blue")
    assert manifest.pixel_size_m == pytest.approx(0.05, abs=1e-4)
    assert len(manifest.tiles) == 48
    tile = manifest.tiles[1]
    assert tile.image == tmp_path / f"out/images/{tile.split}/potsdam_2_10_000_001.tif"
    with (
        rasterio.open(tile.image) as image,
        rasterio.open(tile.mask) as mask,
        rasterio.open(tile.mask_eroded) as eroded,
    ):
        assert image.crs.to_epsg() == 32633
        assert image.transform == mask.transform
        assert mask.nodata == 255
        assert mask.colormap(1)[1] == (0, 0, 255, 255)
        assert np.array_equal(image.read(), make.noise(256, 256)[:, :64, 64:128])
        expected = truth["2_10"][:64, 64:128]
        assert np.array_equal(mask.read(1), expected)
        border = (expected != eroded.read(1)) & (eroded.read(1) == 255)
        assert 0 < border.sum() == (expected != eroded.read(1)).sum()


def test_labels_in_are_labels_out(make: Maker, tmp_path: Path) -> None:
    truth = make.potsdam(tmp_path / "potsdam", ("2_10", "2_13"), size=256)
    manifest = prepare_tiles(tmp_path / "potsdam", tmp_path / "out", SMALL)
    counts = np.sum([manifest.class_counts(split) for split in manifest.splits], axis=0)
    expected = sum(np.bincount(labels.ravel(), minlength=6) for labels in truth.values())
    assert counts.tolist() == expected.tolist()


def test_isprs_defaults(make: Maker, tmp_path: Path) -> None:
    make.potsdam(tmp_path / "potsdam", ("2_10", "7_10"), size=64, eroded=False)
    with pytest.warns(LabelWarning, match="scene potsdam_7_10: labels are known to be wrong; leave out with"):
        manifest = prepare_tiles(tmp_path / "potsdam", tmp_path / "out", PrepareConfig(val=("*7_10",)))
    assert manifest.tile_px == 500
    assert not manifest.has_eroded
    assert not (tmp_path / "out/masks_eroded").exists()
    assert manifest.scene("potsdam_7_10").known_bad
    assert any("labels are known to be wrong" in note for note in manifest.notes)


def test_world_file_and_the_presets_crs(make: Maker, tmp_path: Path) -> None:
    make.potsdam(tmp_path / "flat", ("6_7", "2_11"), size=192, crs=None, flat=True, padded=True)
    manifest = prepare_tiles(tmp_path / "flat", tmp_path / "out", SMALL)
    with rasterio.open(manifest.tiles[0].image) as image:
        assert image.crs.to_epsg() == 32633
        assert image.transform.c == pytest.approx(366000 + 11 * 192 * 0.05)
    assert geopandas.read_parquet(tmp_path / "out/manifest.parquet").crs.to_epsg() == 32633


def test_colors_a_little_off_are_counted(make: Maker, tmp_path: Path) -> None:
    make.potsdam(tmp_path / "p", ("2_10", "2_13"), size=192, eroded=False)
    path = tmp_path / "p/5_Labels_all/top_potsdam_2_10_label.tif"
    with open_raster(path) as dataset:
        pixels = dataset.read()
    off = (pixels[0] == 255) & (pixels[1] == 255) & (pixels[2] == 255)
    off[100:] = False
    pixels[:, off] = 252
    make.raster(path, pixels)
    said = f"label.tif: {off.sum()} px have colours that the legend does not hold"
    with pytest.warns(LabelWarning, match=said) as caught:
        manifest = prepare_tiles(tmp_path / "p", tmp_path / "out", SMALL)
    assert any(str(caught[0].message) == note for note in manifest.notes)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(20, 200), st.integers(20, 200), st.integers(0, 3))
def test_each_pixel_in_a_tile_and_no_ground_in_two_splits(
    make: Maker, tmp_path_factory: pytest.TempPathFactory, height: int, width: int, seed: int
) -> None:
    root = tmp_path_factory.mktemp("cover")
    truth = generic(make, root / "src", {"a": (height, width), "b": (64, 64)})
    manifest = prepare_tiles(root / "src", root / "out", PrepareConfig(tile_px=32, seed=seed, workers=1))
    covered = {split: np.zeros((height, width), bool) for split in ("train", "val")}
    for split in covered:
        for tile in manifest.scene_tiles("a", split):
            covered[split][tile.window.slices] = True
            with rasterio.open(tile.mask) as mask:
                assert np.array_equal(mask.read(1), truth["a"][tile.window.slices])
    assert (covered["train"] | covered["val"]).all()
    assert not (covered["train"] & covered["val"]).any()


def test_nodata_alpha_and_holes_are_ignored_in_masks(make: Maker, tmp_path: Path) -> None:
    truth = generic(make, tmp_path / "src", {"a": (64, 256)})
    image = make.noise(64, 256)
    hole = np.full((64, 256), 255, np.uint8)
    hole[:, 64:128] = 0  # a whole tile
    hole[5:9, 3:20] = 0
    path = tmp_path / "src/images/a.tif"
    make.raster(path, image, transform=TRANSFORM, crs=UTM, mask=hole)
    manifest = prepare_tiles(tmp_path / "src", tmp_path / "out", PrepareConfig(tile_px=64, val_fraction=0))
    assert [tile.window.col_off for tile in manifest.tiles] == [0, 128, 192]
    assert [tile.image.name for tile in manifest.tiles][1] == "a_000_002.tif"
    first = manifest.tiles[0]
    assert first.valid_fraction == pytest.approx(1 - 4 * 17 / 64**2)
    with rasterio.open(first.mask) as mask, open_raster(first.image) as tile:
        assert np.array_equal(mask.read(1) == 255, hole[:, :64] == 0)
        _, valid = read_window(tile, PixelWindow(col_off=0, row_off=0, width=64, height=64))
        assert np.array_equal(valid, hole[:, :64] > 0)
    assert sum(first.class_counts) == 64**2 - 4 * 17
    inside = truth["a"][:, :64][hole[:, :64] > 0]
    assert first.class_counts == tuple(np.bincount(inside, minlength=2))


def test_alpha_and_nodata_values(make: Maker, tmp_path: Path) -> None:
    generic(make, tmp_path / "src", {"a": (64, 128)})
    pixels = make.noise(64, 128, count=4)
    pixels[3] = 255
    pixels[3, :, :10] = 0
    make.raster(tmp_path / "src/images/a.tif", pixels, transform=TRANSFORM, crs=UTM, photometric="RGB", alpha="YES")
    manifest = prepare_tiles(tmp_path / "src", tmp_path / "out", PrepareConfig(tile_px=64, val_fraction=0))
    assert manifest.bands.names == ("red", "green", "blue")
    with rasterio.open(manifest.tiles[0].image) as tile:
        assert tile.count == 3
        assert (tile.dataset_mask() == 0).sum() == 640
    pixels = pixels[:3]
    pixels[:, :, 20:30] = 7
    make.raster(tmp_path / "src/images/a.tif", pixels, transform=TRANSFORM, crs=UTM, nodata=7)
    config = PrepareConfig(tile_px=64, val_fraction=0, overwrite=True)
    manifest = prepare_tiles(tmp_path / "src", tmp_path / "out", config)
    assert manifest.bands.nodata == 7
    with rasterio.open(manifest.tiles[0].image) as tile:
        assert tile.nodata == 7
    assert manifest.tiles[0].valid_fraction == pytest.approx(1 - 10 / 64)


@pytest.mark.parametrize(
    ("count", "dtype"), [(1, "uint16"), (4, "uint8"), (8, "int16"), (2, "float32"), (20, "uint16")]
)
def test_bands_and_dtypes_are_kept(make: Maker, tmp_path: Path, count: int, dtype: str) -> None:
    generic(make, tmp_path / "src", {"a": (96, 64)})
    pixels = make.noise(96, 64, count=count, dtype=dtype)
    if dtype == "float32":
        pixels[0, 3, 5] = np.nan
    extra = {"alpha": "NO", "photometric": "MINISBLACK"}
    make.raster(tmp_path / "src/images/a.tif", pixels, transform=TRANSFORM, crs=UTM, **extra)
    manifest = prepare_tiles(tmp_path / "src", tmp_path / "out", PrepareConfig(tile_px=32, val_fraction=0))
    assert (manifest.bands.count, manifest.bands.dtype) == (count, dtype)
    tile = manifest.tiles[0]
    with open_raster(tile.image) as image:
        found, valid = read_window(image, PixelWindow(col_off=0, row_off=0, width=32, height=32))
    np.testing.assert_array_equal(found, pixels[:, :32, :32])
    assert (~valid).sum() == (1 if dtype == "float32" else 0)
    with rasterio.open(tile.mask) as mask:
        assert (mask.read(1)[3, 5] == 255) is np.bool_(dtype == "float32")
    values = pixels[:, ~np.isnan(pixels).any(axis=0)].astype(float)
    np.testing.assert_allclose(manifest.bands.mean, values.mean(axis=1), rtol=1e-6)


def test_band_statistics_are_of_training_tiles_alone(make: Maker, tmp_path: Path) -> None:
    make.potsdam(tmp_path / "p", ("2_10", "2_11", "2_13"), size=128, eroded=False)
    pixels = {}
    for name, gain in (("2_10", 0.3), ("2_11", 0.7), ("2_13", 1.0)):  # validation is brighter, the test brighter still
        with rasterio.open(tmp_path / f"p/2_Ortho_RGB/top_potsdam_{name}_RGB.tif", "r+") as dataset:
            pixels[name] = (100 * (gain == 1.0) + dataset.read() * gain).clip(0, 250).astype(np.uint8)
            dataset.write(pixels[name])
    config = PrepareConfig(tile_px=64, val=("potsdam_2_11",))
    bands = prepare_tiles(tmp_path / "p", tmp_path / "out", config).bands
    train = pixels["2_10"].reshape(3, -1).astype(float)
    np.testing.assert_allclose(bands.mean, train.mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(bands.std, train.std(axis=1), rtol=1e-6)


def test_near_infrared_beside_red_green_blue_stays_a_band(make: Maker, tmp_path: Path) -> None:
    generic(make, tmp_path / "src", {"a": (64, 64)})
    pixels = make.noise(64, 64, count=4)
    path = tmp_path / "src/images/a.tif"
    make.raster(path, pixels, transform=TRANSFORM, crs=UTM, photometric="RGB", alpha="NO")
    manifest = prepare_tiles(tmp_path / "src", tmp_path / "out", PrepareConfig(tile_px=64, val_fraction=0))
    assert manifest.bands.names == ("red", "green", "blue", "band_4")
    with open_raster(manifest.tiles[0].image) as tile:
        found, valid = read_window(tile, PixelWindow(col_off=0, row_off=0, width=64, height=64))
    assert np.array_equal(found, pixels)
    assert valid.all()


def test_a_mask_beside_a_nodata_value_decides(make: Maker, tmp_path: Path) -> None:
    generic(make, tmp_path / "src", {"a": (64, 64)})
    pixels, mask = make.noise(64, 64), np.full((64, 64), 255, np.uint8)
    pixels[:, :5], mask[:, :9] = 7, 0
    path = tmp_path / "src/images/a.tif"
    make.raster(path, pixels, transform=TRANSFORM, crs=UTM, nodata=7, mask=mask)
    manifest = prepare_tiles(tmp_path / "src", tmp_path / "out", PrepareConfig(tile_px=64, val_fraction=0))
    with open_raster(path) as image, open_raster(manifest.tiles[0].image) as tile:
        window = PixelWindow(col_off=0, row_off=0, width=64, height=64)
        _, expected = read_window(image, window)
        _, found = read_window(tile, window)
    assert not expected.all()
    assert np.array_equal(found, expected)


def test_rotated_geotransform(make: Maker, tmp_path: Path) -> None:
    generic(make, tmp_path / "src", {"a": (64, 128)})
    rotated = TRANSFORM @ Affine.rotation(30)
    for kind, pixels in (("images", make.noise(64, 128)), ("labels", make.indices(64, 128, num=2))):
        make.raster(tmp_path / f"src/{kind}/a.tif", pixels, transform=rotated, crs=UTM)
    config = PrepareConfig(tile_px=64, val_fraction=0)
    with pytest.warns(DataWarning, match=r"images/a\.tif: rotated by -30 degrees, .* resampled to a north-up grid"):
        manifest = prepare_tiles(tmp_path / "src", tmp_path / "out", config)
    assert manifest.pixel_size_m == pytest.approx(0.5)
    for tile in manifest.tiles:
        with rasterio.open(tile.image) as image:
            assert tuple(image.transform)[:2] == (0.5, 0)
    frame = geopandas.read_parquet(tmp_path / "out/manifest.parquet")
    assert all(shapely.equals(shape, shapely.box(*shape.bounds)) for shape in frame.geometry)


def test_no_crs_means_pixel_coordinates(make: Maker, tmp_path: Path) -> None:
    for number in range(8):
        make.raster(tmp_path / f"src/images/t{number}.jpg", make.noise(40, 50, seed=number))
        make.raster(tmp_path / f"src/labels/t{number}.png", make.indices(40, 50, num=2, seed=number))
    with pytest.warns(MissingCrsWarning, match=r"t0.jpg and 7 more: no CRS found; going on in pixel coordinates"):
        manifest = prepare_tiles(tmp_path / "src", tmp_path / "out")
    assert manifest.pixel_size_m is None
    assert manifest.splits == ("train", "val")
    assert [scene.split for scene in manifest.scenes].count("val") == 1
    assert manifest.tiles[0].window == PixelWindow(col_off=0, row_off=0, width=50, height=40)
    assert geopandas.read_parquet(tmp_path / "out/manifest.parquet").crs is None


def test_mosaics_are_the_scene_again(make: Maker, tmp_path: Path) -> None:
    truth = generic(make, tmp_path / "src", {"a": (100, 130)})
    manifest = prepare_tiles(tmp_path / "src", tmp_path / "out", PrepareConfig(tile_px=32))
    seen = np.zeros((100, 130), bool)
    for split in ("train", "val"):
        (mosaic,) = scene_mosaics(manifest, split, tmp_path / f"vrt_{split}")
        with open_raster(mosaic.image) as image, open_raster(mosaic.mask) as mask:
            assert Grid.of(image).same_as(manifest.scene("a").grid)
            pixels, valid = read_window(image, PixelWindow(col_off=0, row_off=0, width=130, height=100))
            labels = mask.read(1)
        assert np.array_equal(pixels[:, valid], make.noise(100, 130)[:, valid])
        assert np.array_equal(labels[valid], truth["a"][valid])
        assert (labels[~valid] == 255).all()
        assert not (seen & valid).any()
        seen |= valid
    assert seen.all()
    with pytest.raises(DataError, match="split 'test' has no tiles; expected one of: train, val"):
        scene_mosaics(manifest, "test", tmp_path / "vrt")


def test_second_run_does_nothing_and_says_so(
    make: Maker, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    generic(make, tmp_path / "src", {"a": (64, 128)})
    first = prepare_tiles(tmp_path / "src", tmp_path / "out", SMALL)
    before = digest(tmp_path / "out")
    monkeypatch.setattr("ctrs.tiles.crew.cut_tile", forbidden)
    with caplog.at_level(logging.INFO):
        second = prepare_tiles(tmp_path / "src", tmp_path / "out", PrepareConfig(tile_px=64, workers=3))
    assert second == first
    assert "already prepared" in caplog.text
    assert digest(tmp_path / "out") == before


def test_data_that_are_prepared_again_become_the_newest(make: Maker, tmp_path: Path) -> None:
    generic(make, tmp_path / "src", {"a": (64, 128)})
    for name in ("first", "second"):
        prepare_tiles(tmp_path / "src", tmp_path / "prepared" / name, SMALL)
        os.utime(tmp_path / "prepared" / name / "prepared.json", (100, 100))
    assert newest_prepared(tmp_path).name == "second"
    prepare_tiles(tmp_path / "src", tmp_path / "prepared/first", SMALL)
    assert newest_prepared(tmp_path).name == "first"


def test_a_different_result_is_not_replaced_silently(make: Maker, tmp_path: Path) -> None:
    generic(make, tmp_path / "src", {"a": (64, 128)})
    prepare_tiles(tmp_path / "src", tmp_path / "out", SMALL)
    with pytest.raises(
        OutputExistsError, match=r"out: exists and is the result of other inputs or options; pass --over"
    ):
        prepare_tiles(tmp_path / "src", tmp_path / "out", PrepareConfig(tile_px=32))
    os.utime(tmp_path / "src/labels/a.tif", (1, 1))
    with pytest.raises(OutputExistsError):
        prepare_tiles(tmp_path / "src", tmp_path / "out", SMALL)
    manifest = prepare_tiles(tmp_path / "src", tmp_path / "out", PrepareConfig(tile_px=32, overwrite=True))
    assert manifest.tile_px == 32
    assert not list(tmp_path.glob(".*.partial"))


def test_a_kill_while_replacing_loses_nothing(make: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generic(make, tmp_path / "src", {"a": (64, 128)})
    out = tmp_path / "out"
    first = prepare_tiles(tmp_path / "src", out, SMALL)
    other = PrepareConfig(tile_px=32, overwrite=True)
    rename = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if Path(target) == out:
            raise KeyboardInterrupt
        return rename(self, target)

    for again in (lambda: Manifest.open(out), lambda: prepare_tiles(tmp_path / "src", out, SMALL)):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", killed)
            with pytest.raises(KeyboardInterrupt):
                prepare_tiles(tmp_path / "src", out, other)
        assert not out.exists()
        assert again() == first
    assert prepare_tiles(tmp_path / "src", out, other).tile_px == 32
    assert not list(tmp_path.glob(".*.partial"))


def test_a_folder_of_something_else_is_never_replaced(make: Maker, tmp_path: Path) -> None:
    generic(make, tmp_path / "src", {"a": (64, 128)})
    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis.txt").write_text("years of work")
    with pytest.raises(OutputExistsError, match="exists and is not prepared data; choose another place with -o"):
        prepare_tiles(tmp_path / "src", tmp_path / "home", PrepareConfig(tile_px=64, overwrite=True))
    assert (tmp_path / "home/thesis.txt").read_text() == "years of work"


def test_output_inside_the_source(make: Maker, tmp_path: Path) -> None:
    make.potsdam(tmp_path / "p", ("2_10", "2_13"), size=192)
    first = prepare_tiles(tmp_path / "p", tmp_path / "p/prepared/p", SMALL)
    assert prepare_tiles(tmp_path / "p", tmp_path / "p/prepared/p", SMALL) == first


def test_the_same_bytes_for_any_number_of_workers(make: Maker, tmp_path: Path) -> None:
    make.potsdam(tmp_path / "p", ("2_10", "3_10", "2_13"), size=200)
    for number in (1, 4):
        prepare_tiles(tmp_path / "p", tmp_path / f"{number}/out", PrepareConfig(tile_px=64, workers=number))
    assert digest(tmp_path / "1/out") == digest(tmp_path / "4/out")


def test_interrupted_work_goes_on_with_the_same_bytes(
    make: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make.potsdam(tmp_path / "p", ("2_10", "2_13"), size=256)
    prepare_tiles(tmp_path / "p", tmp_path / "whole/out", SMALL)
    calls = []

    def stop_in_fifth_row(*args: object, **kwargs: object) -> object:
        calls.append(args)
        if len(calls) == 18:
            raise KeyboardInterrupt
        return cut_tile(*args, **kwargs)  # type: ignore[arg-type]

    config = PrepareConfig(tile_px=64, workers=1)
    monkeypatch.setattr("ctrs.tiles.crew.cut_tile", stop_in_fifth_row)
    with pytest.raises(KeyboardInterrupt):
        prepare_tiles(tmp_path / "p", tmp_path / "stopped/out", config)
    assert not (tmp_path / "stopped/out").exists()
    partial = tmp_path / "stopped/.out.partial"
    kept = {path: path.stat().st_mtime_ns for path in (partial / "images").iterdir()}
    assert 16 <= len(kept) < 32  # a thread may have begun the next row
    with (partial / "journal.jsonl").open("a") as stream:
        stream.write('{"task": "potsdam_2_13_000_000", "ti')  # a line cut short by the kill
    (partial / "images/potsdam_2_10_000_000.tif").write_bytes(b"cut short")
    calls.clear()
    monkeypatch.setattr("ctrs.tiles.crew.cut_tile", lambda *a, **k: (calls.append(a), cut_tile(*a, **k))[1])
    prepare_tiles(tmp_path / "p", tmp_path / "stopped/out", config)
    assert len(calls) <= 32 - 16 + 4
    assert digest(tmp_path / "stopped/out") == digest(tmp_path / "whole/out")


def test_a_kill_while_tiles_are_moved_is_harmless(make: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make.potsdam(tmp_path / "p", ("2_10", "2_13"), size=256)
    prepare_tiles(tmp_path / "p", tmp_path / "whole/out", SMALL)
    move, moved = Path.replace, []

    def stop_at_tenth(self: Path, target: Path) -> Path:
        moved.append(self)
        if len(moved) == 10:
            raise KeyboardInterrupt
        return move(self, target)

    monkeypatch.setattr(Path, "replace", stop_at_tenth)
    with pytest.raises(KeyboardInterrupt):
        prepare_tiles(tmp_path / "p", tmp_path / "stopped/out", SMALL)
    monkeypatch.setattr(Path, "replace", move)
    monkeypatch.setattr("ctrs.tiles.crew.cut_tile", forbidden)
    prepare_tiles(tmp_path / "p", tmp_path / "stopped/out", SMALL)
    assert digest(tmp_path / "stopped/out") == digest(tmp_path / "whole/out")


@pytest.mark.slow
def test_killed_process_goes_on(make: Maker, tmp_path: Path) -> None:
    make.potsdam(tmp_path / "p", ("2_10", "2_11", "2_12", "2_13"), size=700)
    code = (
        "import sys; from pathlib import Path; from ctrs.tiles import prepare_tiles; "
        "from ctrs.config import PrepareConfig; "
        "prepare_tiles(Path('p'), Path(sys.argv[1]), PrepareConfig(tile_px=64, workers=1))"
    )
    subprocess.run([sys.executable, "-c", code, "whole/out"], cwd=tmp_path, check=True, timeout=300)
    process = subprocess.Popen([sys.executable, "-c", code, "killed/out"], cwd=tmp_path)
    images = tmp_path / "killed/.out.partial/images"
    deadline = time.monotonic() + 120
    while len(list(images.glob("*.tif"))) < 60:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed/out").exists()
    subprocess.run([sys.executable, "-c", code, "killed/out"], cwd=tmp_path, check=True, timeout=300)
    assert digest(tmp_path / "killed/out") == digest(tmp_path / "whole/out")


def test_unwritable_output(make: Maker, tmp_path: Path) -> None:
    generic(make, tmp_path / "src", {"a": (64, 64)})
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="not writable"):
        prepare_tiles(tmp_path / "src", tmp_path / "file/out", SMALL)


def test_shared_ground_between_splits(make: Maker, tmp_path: Path) -> None:
    generic(make, tmp_path / "src", {"a": (64, 256), "b": (64, 256)})
    for kind, pixels in (("images", make.noise(64, 256, seed=9)), ("labels", make.indices(64, 256, num=2))):
        make.raster(tmp_path / f"src/{kind}/b.tif", pixels, transform=TRANSFORM @ Affine.translation(200, 0), crs=UTM)
    with pytest.raises(
        DataError, match=r"scenes a \(train\) and b \(test\) share 2\d\.\d % of the smaller one's ground; put"
    ):
        prepare_tiles(tmp_path / "src", tmp_path / "out", PrepareConfig(tile_px=64, test=("b",)))
    for kind, pixels in (("images", make.noise(64, 256, seed=9)), ("labels", make.indices(64, 256, num=2))):
        make.raster(tmp_path / f"src/{kind}/b.tif", pixels, transform=TRANSFORM @ Affine.translation(254, 0), crs=UTM)
    with pytest.warns(DataWarning, match="a little too good"):
        prepare_tiles(tmp_path / "src", tmp_path / "out", PrepareConfig(tile_px=64, test=("b",)))


def test_nothing_to_validate_is_said(make: Maker, tmp_path: Path) -> None:
    generic(make, tmp_path / "src", {"a": (64, 64)})
    with pytest.warns(DataWarning, match="no validation split: the training ground cannot be divided"):
        prepare_tiles(tmp_path / "src", tmp_path / "out", SMALL)


def test_only_test_scenes(make: Maker, tmp_path: Path) -> None:
    generic(make, tmp_path / "src", {"a": (64, 64)})
    with pytest.warns(DataWarning, match="no training tiles: this data set can only be scored on"):
        manifest = prepare_tiles(tmp_path / "src", tmp_path / "out", PrepareConfig(tile_px=64, test=("*",)))
    assert manifest.splits == ("test",)


def test_imagery_without_a_valid_pixel(make: Maker, tmp_path: Path) -> None:
    generic(make, tmp_path / "src", {"a": (64, 64)})
    path = tmp_path / "src/images/a.tif"
    make.raster(path, np.zeros((3, 64, 64), np.uint8), transform=TRANSFORM, crs=UTM, nodata=0)
    with pytest.raises(DataError, match="no valid pixel in any scene; check nodata and alpha"):
        prepare_tiles(tmp_path / "src", tmp_path / "out", SMALL)


def test_progress_counts_tiles(make: Maker, tmp_path: Path) -> None:
    generic(make, tmp_path / "src", {"a": (128, 128)})
    calls: list[tuple[int, int, str]] = []
    prepare_tiles(
        tmp_path / "src", tmp_path / "out", SMALL, progress=lambda done, total, what: calls.append((done, total, what))
    )
    tiling = [call for call in calls if call[2] == "tiling"]
    assert tiling[0] == calls[0] == (0, 4, "tiling")
    assert tiling[-1] == (4, 4, "tiling")
    assert all(done <= total for done, total, _ in calls)


@pytest.mark.parametrize("checks", [False, True])
@pytest.mark.parametrize(("workers", "threads"), [(None, 7), (2, 2)])
def test_all_cores_work_unless_told_otherwise(
    make: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checks: bool, workers: int | None, threads: int
) -> None:
    generic(make, tmp_path / "src", {"a": (64, 128)})
    seen: list[int] = []

    def counted(*args: Any, workers: int, **options: Any) -> Scan:
        seen.append(workers)
        return scan(*args, workers=workers, **options)

    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    monkeypatch.setattr(source_audit if checks else tiling, "scan", counted)
    config = PrepareConfig(tile_px=64, workers=workers)
    if checks:
        audit_source(tmp_path / "src", tmp_path / "look.html", config)
    else:
        prepare_tiles(tmp_path / "src", tmp_path / "out", config)
    assert seen == [threads]


def test_different_ground_pixels_are_warned_of(make: Maker, tmp_path: Path) -> None:
    generic(make, tmp_path / "src", {"a": (64, 128), "b": (64, 128)})
    for kind, pixels in (("images", make.noise(64, 128, seed=9)), ("labels", make.indices(64, 128, num=2))):
        make.raster(tmp_path / f"src/{kind}/b.tif", pixels, transform=Affine(1, 0, 500000, 0, -1, 5800000), crs=UTM)
    with pytest.warns(DataWarning, match="ground pixels differ: 0.5 m in a, 1 m in b"):
        prepare_tiles(tmp_path / "src", tmp_path / "out", PrepareConfig(tile_px=32))
