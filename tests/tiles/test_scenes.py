"""Imagery of any kind on the grid of its tiles: what is read is what the files hold, and what is invalid stays so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas
import numpy as np
import pytest
import rasterio
import rasterio.warp
import shapely
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning

from ctrs.config import PrepareConfig
from ctrs.errors import (
    BandMismatchError,
    CtrsError,
    DataError,
    GridMismatchError,
    RasterError,
    UsageError,
)
from ctrs.raster.geotiff import open_raster, read_window
from ctrs.raster.units import ground_pixel_size_m
from ctrs.raster.windows import PixelWindow
from ctrs.tiles import Manifest, prepare_tiles
from ctrs.tiles.findings import Findings
from ctrs.tiles.imagery import DTYPES, MIN_SCENE_PX
from ctrs.tiles.layout import Layout, SceneSource
from ctrs.tiles.scenes import ReadySource, check_source

if TYPE_CHECKING:
    from tests.tiles.conftest import Maker

UTM = "EPSG:32633"
TRANSFORM = Affine(0.5, 0, 400000, 0, -0.5, 5800000)
PLACED: dict[str, Any] = {"transform": TRANSFORM, "crs": UTM}
H, W = 96, 128

# Tests of geometry use noise as imagery and look at no statistics.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*saturated:ctrs.errors.DataWarning"),
    pytest.mark.filterwarnings("ignore:.*histogram:ctrs.errors.DataWarning"),
]


def scene(folder: Path, name: str = "a", *, extra: dict[str, Path] | None = None, suffix: str = "tif") -> SceneSource:
    return SceneSource(
        name=name, split="train", image=folder / f"images/{name}.{suffix}", label=folder / f"labels/{name}.tif",
        extra=extra or {},
    )  # fmt: skip


def check(*scenes: SceneSource, **options: Any) -> tuple[ReadySource, Findings]:
    findings = Findings(issues_warnings=False)
    layout = Layout(root=scenes[0].image.parent.parent, scenes=scenes, preset=None)
    ready = check_source(layout, PrepareConfig(**options), findings)
    return ready, findings


def pixels_of(ready: ReadySource, number: int = 0) -> tuple[np.ndarray, np.ndarray]:
    imagery = ready.scenes[number].imagery
    with imagery.reader() as read:
        return read(PixelWindow(col_off=0, row_off=0, width=imagery.grid.width, height=imagery.grid.height))


def mask_of(ready: ReadySource, number: int = 0) -> np.ndarray:
    found = ready.scenes[number]
    with found.label.reader() as read:
        return read(PixelWindow(col_off=0, row_off=0, width=found.grid.width, height=found.grid.height)).mask


def fault(findings: Findings) -> str:
    (error,) = findings.faults
    assert "\n" not in str(error)
    return str(error)


@pytest.fixture
def folder(make: Maker, tmp_path: Path) -> Path:
    """One image and its label."""
    make.raster(tmp_path / "src/images/a.tif", make.noise(H, W), **PLACED)
    make.raster(tmp_path / "src/labels/a.tif", make.indices(H, W, num=3), **PLACED)
    return tmp_path / "src"


# Bands, types and validity


@pytest.mark.parametrize("count", [1, 4, 8, 20])
@pytest.mark.parametrize(
    ("dtype", "validity"),
    [
        (dtype, validity)
        for dtype in DTYPES
        for validity in ("all", "nodata", "mask", "nan")
        if validity != "nan" or dtype.startswith("f")
    ],
)
def test_tiles_hold_what_the_image_holds(make: Maker, tmp_path: Path, dtype: str, count: int, validity: str) -> None:
    pixels = make.noise(40, 48, count=count, dtype=dtype)
    valid = np.ones((40, 48), bool)
    options: dict[str, Any] = {}
    if validity != "all":
        valid[5:20, 10:30] = False
        pixels[:, ~valid] = np.nan if validity == "nan" else 0
        options = {"nodata": {"nodata": 0}, "mask": {"mask": valid}, "nan": {}}[validity]
        pixels[0, 25, 25] = 0  # one band of a valid pixel may be the nodata value
        valid[25, 25] = count > 1 or validity != "nodata"
    # Left to itself, GDAL marks the fourth of four 8-bit bands as alpha.
    make.raster(tmp_path / "src/images/a.tif", pixels, photometric="MINISBLACK", **PLACED, **options)
    make.raster(tmp_path / "src/labels/a.tif", make.indices(40, 48, num=2), **PLACED)
    manifest = prepare_tiles(tmp_path / "src", tmp_path / "out", PrepareConfig(val_fraction=0, tile_px=32))
    assert len(manifest.bands.names) == count
    assert manifest.bands.dtype == dtype
    for tile in manifest.tiles:
        with open_raster(tile.image) as dataset:
            window = PixelWindow(col_off=0, row_off=0, width=tile.window.width, height=tile.window.height)
            found, found_valid = read_window(dataset, window, bidx=list(dataset.indexes))
            assert dataset.dtypes[0] == dtype
            assert ColorInterp.alpha not in dataset.colorinterp
        assert np.array_equal(found_valid, valid[tile.window.slices])
        assert np.array_equal(found, pixels[(slice(None), *tile.window.slices)], equal_nan=dtype.startswith("f"))
        with open_raster(tile.mask) as dataset:
            assert np.array_equal(dataset.read(1) == 255, ~found_valid)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_infinite_values_are_no_imagery(make: Maker, folder: Path, tmp_path: Path, value: float) -> None:
    pixels = make.noise(H, W, dtype="float32")
    pixels[1, 10:20, 5:9] = value
    make.raster(folder / "images/a.tif", pixels, nodata=-9999, **PLACED)
    _, valid = pixels_of(check(scene(folder))[0])
    assert (~valid).sum() == 40
    manifest = prepare_tiles(folder, tmp_path / "out", PrepareConfig(val_fraction=0))
    assert np.isfinite([*manifest.bands.mean, *manifest.bands.std, *manifest.bands.high]).all()
    assert manifest.tiles[0].valid_fraction == pytest.approx(1 - 40 / (H * W))


@pytest.mark.parametrize("kind", ["alpha", "mask file"])
def test_alpha_and_mask_files_say_what_is_valid(make: Maker, folder: Path, kind: str) -> None:
    valid = np.ones((H, W), bool)
    valid[20:50, 30:70] = False
    pixels = make.noise(H, W)
    if kind == "alpha":
        make.raster(folder / "images/a.tif", np.concatenate([pixels, valid[None] * np.uint8(255)]), **PLACED,
                    photometric="RGB", alpha="YES")  # fmt: skip
    else:
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(folder / "images/a.tif", "r+") as dataset:
            dataset.write_mask(valid)
        assert (folder / "images/a.tif.msk").is_file()
    found, found_valid = pixels_of(check(scene(folder))[0])
    assert found.shape == (3, H, W)
    assert np.array_equal(found_valid, valid)


def test_an_alpha_band_asked_for_by_number_is_data(make: Maker, folder: Path, tmp_path: Path) -> None:
    pixels = make.noise(H, W, count=4)
    pixels[3, :30] = 0
    make.raster(folder / "images/a.tif", pixels, photometric="RGB", alpha="YES", **PLACED)
    ready, findings = check(scene(folder), bidx=(4, 1, 2, 3))
    found, valid = pixels_of(ready)
    assert valid.all()
    assert np.array_equal(found, pixels[[3, 0, 1, 2]])
    assert ready.band_names == ("band_4", "red", "green", "blue")
    assert not [entry for entry in findings.entries if "alpha" in entry.message]
    manifest = prepare_tiles(folder, tmp_path / "out", PrepareConfig(val_fraction=0, bidx=(1, 2, 3, 4)))
    with open_raster(manifest.tiles[0].image) as dataset:
        assert dataset.mask_flag_enums[3] == [rasterio.enums.MaskFlags.all_valid]
        assert np.array_equal(dataset.read(), pixels)
    with pytest.raises(RasterError, match=r"band 5 asked for, expected numbers from 1 to 4; choose with --bidx"):
        prepare_tiles(folder, tmp_path / "other", PrepareConfig(bidx=(5,)))


def test_a_color_table_is_read_as_its_colors(make: Maker, folder: Path) -> None:
    positions = make.indices(H, W, num=4)
    table = {0: (9, 8, 7, 255), 1: (1, 2, 3, 255), 2: (200, 100, 50, 255), 3: (0, 0, 0, 0)}
    make.raster(folder / "images/a.png", positions, colormap=table)
    (folder / "images/a.png.aux.xml").unlink(missing_ok=True)
    ready, _ = check(scene(folder, suffix="png"))
    pixels, valid = pixels_of(ready)
    assert ready.band_names == ("red", "green", "blue")
    assert np.array_equal(valid, positions != 3)
    expected = np.array([table[value][:3] for value in range(4)], np.uint8)[positions].transpose(2, 0, 1)
    assert np.array_equal(pixels[:, valid], expected[:, valid])


def test_more_bands_than_a_tile_has(make: Maker, folder: Path) -> None:
    make.raster(folder / "images/a.tif", make.noise(H, W, count=21), **PLACED)
    with pytest.raises(RasterError, match=r"a\.tif: 21 bands found, expected at most 20; choose .* --bidx"):
        check(scene(folder))
    ready, _ = check(scene(folder), bidx=tuple(range(2, 22)))
    assert len(ready.band_names) == 20


def test_all_images_of_another_kind_are_named(make: Maker, folder: Path) -> None:
    kinds = {"b": ("uint8", 3), "c": ("uint16", 3), "d": ("uint8", 3), "e": ("uint8", 4)}
    for name, (dtype, count) in kinds.items():
        make.raster(
            folder / f"images/{name}.tif",
            make.noise(H, W, count=count, dtype=dtype),
            photometric="MINISBLACK",
            **PLACED,
        )
        make.raster(folder / f"labels/{name}.tif", make.indices(H, W, num=3), **PLACED)
    ready, findings = check(*(scene(folder, name) for name in "cabde"))
    assert [ready_scene.name for ready_scene in ready.scenes] == ["a", "b", "d"]
    first, second = findings.faults
    assert isinstance(first, BandMismatchError)
    assert re.search(r"c\.tif: 3 bands of uint16 found, but 3 bands of uint8 in .*a\.tif; prepare", str(first))
    assert re.search(r"e\.tif: 4 bands of uint8 found, but 3 bands of uint8 in .*a\.tif; prepare", str(second))


@pytest.mark.parametrize(("height", "width"), [(1, 300), (300, 1), (MIN_SCENE_PX - 1, 300)])
def test_slivers_are_named_with_their_size(make: Maker, folder: Path, height: int, width: int) -> None:
    make.raster(folder / "images/b.tif", make.noise(height, width), **PLACED)
    make.raster(folder / "labels/b.tif", make.indices(height, width), **PLACED)
    ready, findings = check(scene(folder), scene(folder, "b"))
    assert len(ready.scenes) == 1
    assert re.search(rf"b\.tif: {width} x {height} px found, expected at least {MIN_SCENE_PX} px", fault(findings))


@pytest.mark.parametrize("kind", ["images", "labels"])
def test_files_cut_short_are_named_before_anything_is_read(make: Maker, folder: Path, kind: str) -> None:
    file = folder / kind / "a.tif"
    pixels = make.noise(H, W) if kind == "images" else make.indices(H, W, num=3)
    make.raster(file, pixels, tiled=True, blockxsize=32, blockysize=32, **PLACED)
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(RasterError, match=rf"{kind}/a\.tif: not readable at rows .*damaged or cut short: get it again"):
        check(scene(folder))[1].raise_faults()


# Other grids


def smooth_scene(make: Maker, folder: Path, *, height: int = 300, width: int = 400, **profile: Any) -> None:
    """An image whose values give away the place: its first two bands are x and y of the ground."""
    rows, cols = np.mgrid[:height, :width] + 0.5
    pixels = np.stack([cols, rows, cols * 0 + 7]).astype(np.float32)
    make.raster(folder / "images/a.tif", pixels, **{**PLACED, **profile})
    make.raster(folder / "labels/a.tif", make.indices(height, width, num=3), **{**PLACED, **profile})


@pytest.mark.parametrize(
    "options", [{"gsd_m": 0.2}, {"gsd_m": 1.7}, {"crs": "EPSG:3857"}, {"crs": "EPSG:4326", "gsd_m": 0.8}]
)
def test_each_pixel_shows_its_own_ground(make: Maker, tmp_path: Path, options: dict[str, Any]) -> None:
    smooth_scene(make, tmp_path)
    ready, _ = check(scene(tmp_path), **options)
    grid = ready.scenes[0].grid
    pixels, valid = pixels_of(ready)
    for edge in ground_pixel_size_m(grid):
        assert edge == pytest.approx(options.get("gsd_m", 0.5), rel=2e-3)
    cols, rows = np.meshgrid(np.arange(grid.width) + 0.5, np.arange(grid.height) + 0.5)
    xs, ys = grid.transform.a * cols + grid.transform.c, grid.transform.e * rows + grid.transform.f
    xs, ys = (np.array(values) for values in rasterio.warp.transform(grid.crs, UTM, xs.ravel(), ys.ravel()))
    x, y = (xs - 4e5).reshape(grid.shape) / 0.5, (5.8e6 - ys).reshape(grid.shape) / 0.5
    inside = (x > 0) & (y > 0) & (x < 400) & (y < 300)
    coarse = options.get("gsd_m", 0) >= 0.8  # averaged: valid where at least half is
    assert (valid != inside).sum() <= (0 if not coarse else grid.width + grid.height)
    core = (x > 4) & (y > 4) & (x < 396) & (y < 296)
    assert np.abs(pixels[0] - x)[core].max() < (0.3 if coarse else 0.01 + 0.06)
    assert np.abs(pixels[1] - y)[core].max() < (0.3 if coarse else 0.01 + 0.06)
    label = make.indices(300, 400, num=3)
    mask = mask_of(ready)
    assert np.array_equal(mask != 255, inside)
    near = (np.abs(x - np.round(x)) > 0.06) & (np.abs(y - np.round(y)) > 0.06) & inside
    assert np.array_equal(mask[near], label[y[near].astype(int), x[near].astype(int)])


def test_no_options_no_resampling(make: Maker, folder: Path) -> None:
    for options in ({}, {"crs": UTM}, {"gsd_m": 0.5}, {"crs": UTM, "gsd_m": 0.5}):
        ready, findings = check(scene(folder), **options)
        assert np.array_equal(pixels_of(ready)[0], make.noise(H, W))
        assert np.array_equal(mask_of(ready), make.indices(H, W, num=3))
        assert not findings.entries


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        (Affine.rotation(30), "rotated by -30 degrees"),
        (Affine.scale(1, -1), "stored south up"),
        (Affine.rotation(90), "rotated by -90 degrees"),
        (Affine.shear(20, 0), "sheared, its rows turned by 0 degrees"),
    ],
)
def test_tilted_images_are_straightened(make: Maker, tmp_path: Path, matrix: Affine, words: str) -> None:
    smooth_scene(make, tmp_path, transform=TRANSFORM @ matrix)
    ready, findings = check(scene(tmp_path))
    (entry,) = findings.entries
    assert entry.level == "warning"
    assert re.search(rf"images/a\.tif: {words}, which tiles are not; resampled to a north-up grid", entry.message)
    grid = ready.scenes[0].grid
    assert (grid.transform.b, grid.transform.d) == (0, 0)
    pixels, valid = pixels_of(ready)
    assert valid.sum() == pytest.approx(
        300 * 400 * abs(TRANSFORM.determinant * matrix.determinant / grid.transform.determinant), rel=0.01
    )
    row, col = np.argwhere(valid)[valid.sum() // 2]
    x, y = ~(TRANSFORM @ matrix) @ (grid.transform @ (col + 0.5, row + 0.5))
    assert pixels[:2, row, col] == pytest.approx((x, y), abs=0.02)
    mask = mask_of(ready)
    assert np.array_equal(mask != 255, valid)
    if abs(x - round(x)) > 0.01 and abs(y - round(y)) > 0.01:
        assert mask[row, col] == make.indices(300, 400, num=3)[int(y), int(x)]


def test_flipped_images_keep_each_value(make: Maker, tmp_path: Path) -> None:
    pixels, label = make.noise(H, W, dtype="float32"), make.indices(H, W, num=3)
    flipped = {"transform": Affine(0.5, 0, 400000, 0, 0.5, 5800000 - H / 2), "crs": UTM}
    make.raster(tmp_path / "images/a.tif", pixels[:, ::-1], **flipped)
    make.raster(tmp_path / "labels/a.tif", label[::-1], **flipped)
    ready, _ = check(scene(tmp_path))
    assert ready.scenes[0].grid.transform == TRANSFORM
    assert np.array_equal(pixels_of(ready)[0], pixels)
    assert np.array_equal(mask_of(ready), label)


def test_ground_control_points_are_a_place(make: Maker, tmp_path: Path) -> None:
    smooth_scene(make, tmp_path, transform=None, crs=None)
    truth = TRANSFORM @ Affine.rotation(10)
    points = [
        GroundControlPoint(row=row, col=col, x=x, y=y)
        for row in (0, 150, 300)
        for col in (0, 200, 400)
        for x, y in [truth @ (col, row)]
    ]
    with pytest.warns(NotGeoreferencedWarning), rasterio.open(tmp_path / "images/a.tif", "r+") as dataset:
        dataset.gcps = points, rasterio.crs.CRS.from_string(UTM)
    ready, findings = check(scene(tmp_path))
    assert "placed by 9 ground control points" in findings.entries[0].message
    pixels, valid = pixels_of(ready)
    row, col = np.argwhere(valid)[valid.sum() // 3]
    place = ~truth @ (ready.scenes[0].grid.transform @ (col + 0.5, row + 0.5))
    assert pixels[:2, row, col] == pytest.approx(place, abs=0.1)
    assert mask_of(ready)[row, col] == make.indices(300, 400, num=3)[int(place[1]), int(place[0])]


def test_invalid_pixels_do_not_bleed(make: Maker, tmp_path: Path) -> None:
    pixels = np.full((3, H, W), 200, np.uint8)
    pixels[:, 30:60, 40:80] = 0
    make.raster(tmp_path / "images/a.tif", pixels, nodata=0, **PLACED)
    make.raster(tmp_path / "labels/a.tif", make.indices(H, W, num=3), **PLACED)
    for gsd_m in (0.3, 1.3):
        ready, _ = check(scene(tmp_path), gsd_m=gsd_m)
        found, valid = pixels_of(ready)
        assert set(np.unique(found[:, valid])) == {200}
        assert ready.nodata is None
        assert (~valid)[:-1, :-1].sum() == pytest.approx(30 * 40 * (0.5 / gsd_m) ** 2, rel=0.15)


def test_labels_must_lie_on_their_image(make: Maker, folder: Path) -> None:
    make.raster(
        folder / "labels/a.tif", make.indices(H, W, num=3), transform=TRANSFORM @ Affine.translation(3, 0), crs=UTM
    )
    with pytest.raises(GridMismatchError, match=r"labels/a\.tif: does not lie on the grid of its image"):
        check(scene(folder))[1].raise_faults()


def test_labels_of_another_grid_are_resampled_where_images_are(make: Maker, tmp_path: Path) -> None:
    smooth_scene(make, tmp_path)
    label = make.indices(300, 400, num=3)
    fine = {"transform": TRANSFORM @ Affine.scale(0.5), "crs": UTM}
    make.raster(tmp_path / "labels/a.tif", label.repeat(2, 0).repeat(2, 1), **fine)
    assert "600 px found" in fault(check(scene(tmp_path))[1])
    ready, findings = check(scene(tmp_path), gsd_m=0.51)
    mask = mask_of(ready)
    make.raster(tmp_path / "labels/a.tif", label, **PLACED)
    assert np.array_equal(mask, mask_of(check(scene(tmp_path), gsd_m=0.51)[0]))
    assert not findings.entries


def test_labels_elsewhere_and_labels_of_a_part(make: Maker, tmp_path: Path) -> None:
    smooth_scene(make, tmp_path)
    make.raster(tmp_path / "labels/a.tif", make.indices(300, 400, num=3), transform=TRANSFORM, crs="EPSG:32634")
    assert "lies elsewhere than its image" in fault(check(scene(tmp_path), gsd_m=1.0)[1])
    make.raster(tmp_path / "labels/a.tif", make.indices(150, 400, num=3), **PLACED)
    ready, findings = check(scene(tmp_path), gsd_m=1.0)
    assert re.search(r"the label of a covers 50\.\d% of its image; the rest is ignored", findings.entries[0].message)
    assert (mask_of(ready)[76:] == 255).all()
    make.raster(tmp_path / "labels/a.tif", make.indices(150, 400, num=3))
    assert "expected the 400 x 300 px of its image" in fault(check(scene(tmp_path), gsd_m=1.0)[1])


@pytest.mark.parametrize("crs", [None, "EPSG:3857"])
def test_polygons_and_masks_agree_on_any_grid(make: Maker, tmp_path: Path, crs: str | None) -> None:
    height, width = 400, 500
    make.raster(tmp_path / "src/images/a.tif", make.noise(height, width), **PLACED)
    rng = np.random.default_rng(0)
    shapes = [
        shapely.affinity.rotate(shapely.box(x, y, x + 70, y + 45), angle)
        for x, y, angle in zip(
            4e5 + rng.uniform(0, 220, 9), 5.8e6 - rng.uniform(10, 190, 9), rng.uniform(0, 90, 9), strict=True
        )
    ]
    frame = geopandas.GeoDataFrame(geometry=shapes, crs=UTM)
    (tmp_path / "src/labels").mkdir()
    frame.to_file(tmp_path / "src/labels/a.gpkg")
    own = prepared(tmp_path, "own", label_kind="polygons")
    assert own.any()
    direct = prepared(tmp_path, "direct", label_kind="polygons", crs=crs, gsd_m=0.6)
    (tmp_path / "src/labels/a.gpkg").unlink()
    make.raster(tmp_path / "src/labels/a.tif", own, **PLACED)
    warped = prepared(tmp_path, "warped", crs=crs, gsd_m=0.6)
    both = (warped != 255) & (direct != 255)
    intersection, union = ((warped == 1) & (direct == 1) & both).sum(), (((warped == 1) | (direct == 1)) & both).sum()
    assert intersection / union > 0.98
    assert abs(int((warped == 1).sum()) - int((direct == 1).sum())) < 0.01 * union


def prepared(tmp_path: Path, name: str, **options: Any) -> np.ndarray:
    manifest = prepare_tiles(tmp_path / "src", tmp_path / name, PrepareConfig(val_fraction=0, tile_px=128, **options))
    return mosaic(manifest, "mask")


def mosaic(manifest: Manifest, kind: str) -> np.ndarray:
    grid = manifest.scenes[0].grid
    whole = np.full(grid.shape, 255, np.uint8)
    for tile in manifest.tiles:
        with rasterio.open(getattr(tile, kind)) as dataset:
            whole[tile.window.slices] = dataset.read(1)
    return whole


def test_a_crs_of_the_file_wins(make: Maker, folder: Path) -> None:
    ready, findings = check(scene(folder), src_crs="EPSG:3857")
    assert ready.scenes[0].grid.crs.to_epsg() == 32633
    (entry,) = findings.entries
    assert entry.level == "warning"
    assert entry.message == (
        "--src-crs EPSG:3857 is not used for a: the image names a CRS itself (EPSG:32633), which counts"
    )


def test_metres_of_images_without_crs(make: Maker, tmp_path: Path) -> None:
    make.raster(tmp_path / "images/a.tif", make.noise(H, W), transform=TRANSFORM)
    make.raster(tmp_path / "labels/a.tif", make.indices(H, W, num=3))
    for options, words in (
        ({"gsd_m": 1.0}, "a ground pixel of 1 m cannot be had; name the image's CRS with --src-crs"),
        ({"crs": UTM}, "a place in EPSG:32633 cannot be had; name the image's CRS with --src-crs"),
        ({"tile_m": 50.0}, "so --tile in metres says nothing of its pixels; name the CRS with --src-crs"),
    ):
        with pytest.raises(CtrsError, match=words):
            check(scene(tmp_path), **options)[1].raise_faults()
        ready, findings = check(scene(tmp_path), src_crs=UTM, **options)
        assert ready.scenes[0].grid.crs.to_epsg() == 32633
        assert not findings.faults
    with pytest.raises(UsageError, match=r"--src-crs: 'EPSG:1' names no CRS that is known"):
        check(scene(tmp_path), src_crs="EPSG:1")


def test_too_coarse_for_a_tile(folder: Path) -> None:
    with pytest.raises(RasterError, match=r"a\.tif: 8 x 6 px on the grid of its tiles, .* choose a finer --gsd"):
        check(scene(folder), gsd_m=8.0)


# Lengths of tiles


def test_tiles_in_metres(make: Maker, folder: Path) -> None:
    make.raster(folder / "images/b.tif", make.noise(H, W), transform=Affine(0.3, 0, 6e5, 0, -0.3, 5.8e6), crs=UTM)
    make.raster(folder / "labels/b.tif", make.indices(H, W, num=3))
    ready, _ = check(scene(folder), scene(folder, "b"), tile_m=24.1, stride_m=12.0)
    assert [(each.tile_px, each.stride_px) for each in ready.scenes] == [(48, 24), (80, 40)]
    ready, _ = check(scene(folder), scene(folder, "b"), tile_m=24.0, gsd_m=0.4)
    assert [(each.tile_px, each.stride_px) for each in ready.scenes] == [(60, 60), (60, 60)]
    ready, _ = check(scene(folder), tile_px=64, stride_px=32)
    assert [(each.tile_px, each.stride_px) for each in ready.scenes] == [(64, 32)]


def test_tiles_of_no_sensible_length(folder: Path) -> None:
    assert re.search(
        r"a\.tif: --tile 10m is 20 px there, expected 32 to 8192", fault(check(scene(folder), tile_m=10.0)[1])
    )
    assert "is 10000 px there" in fault(check(scene(folder), tile_m=5000.0)[1])
    for options in ({"tile_px": 64, "stride_m": 32.5}, {"tile_m": 32.0, "stride_px": 80}, {"stride_px": 600}):
        with pytest.raises(
            UsageError, match=r"--stride: \d+ px found, expected at most the \d+ px of a tile of scene a"
        ):
            check(scene(folder), **options)


# Further files


def test_further_files_become_bands(make: Maker, folder: Path, tmp_path: Path) -> None:
    height = np.linspace(0, 50, H * W, dtype=np.float32).reshape(1, H, W)
    height[0, :10] = -9999
    dsm = make.raster(tmp_path / "dsm.tif", height, nodata=-9999)
    ready, _ = check(scene(folder, extra={"dsm": dsm}))
    pixels, valid = pixels_of(ready)
    assert ready.band_names == ("red", "green", "blue", "dsm")
    assert ready.dtype == "float32"
    assert ready.nodata is None
    assert np.array_equal(pixels[:3], make.noise(H, W))
    assert np.array_equal(pixels[3:], height)
    assert np.array_equal(valid, np.broadcast_to(np.arange(H)[:, None] >= 10, (H, W)))


def test_further_files_of_another_grid_are_resampled(make: Maker, folder: Path, tmp_path: Path) -> None:
    rows, cols = np.mgrid[: H // 2 + 4, : W // 2 + 4] + 0.5
    coarse = (cols * 2 + 1000 * rows * 2).astype(np.float32)[None]
    dsm = make.raster(tmp_path / "dsm.tif", coarse, transform=TRANSFORM @ Affine.scale(2))
    ready, _ = check(scene(folder, extra={"dsm": dsm}))
    pixels, valid = pixels_of(ready)
    assert np.array_equal(pixels[:3], make.noise(H, W))
    assert valid.all()
    rows, cols = np.mgrid[:H, :W] + 0.5
    assert np.abs(pixels[3] - cols - 1000 * rows)[2:, 2:].max() < 0.1
    ready, _ = check(scene(folder, extra={"dsm": dsm}), gsd_m=1.0)
    assert np.array_equal(pixels_of(ready)[0][3], coarse[0, : H // 2, : W // 2])


def test_further_files_that_fit_nowhere(make: Maker, folder: Path, tmp_path: Path) -> None:
    dsm = make.raster(tmp_path / "dsm.tif", make.noise(H - 1, W, count=1))
    with pytest.raises(GridMismatchError, match=r"dsm\.tif: 128 x 95 px without georeference found, .* 128 x 96 px of"):
        check(scene(folder, extra={"dsm": dsm}))
    many = make.raster(tmp_path / "many.tif", make.noise(H, W, count=18))
    with pytest.raises(RasterError, match=r"a\.tif: 21 bands found, expected at most 20"):
        check(scene(folder, extra={"many": many}))
    ready, _ = check(scene(folder, extra={"ms": make.raster(tmp_path / "ms.tif", make.noise(H, W, count=2))}))
    assert ready.band_names == ("red", "green", "blue", "ms_1", "ms_2")


# Area of interest


def area(path: Path, *shapes: shapely.Geometry, crs: str | None = UTM) -> Path:
    geopandas.GeoDataFrame(geometry=list(shapes), crs=crs).to_file(path)
    return path


@pytest.mark.parametrize("crs", [UTM, "EPSG:4326", "EPSG:3857"])
@pytest.mark.parametrize("gsd_m", [None, 0.25])
def test_ground_outside_the_area_is_no_imagery(
    make: Maker, folder: Path, tmp_path: Path, crs: str, gsd_m: float | None
) -> None:
    shape = shapely.Polygon([(400005.137, 5799990.21), (400050.03, 5799995.4), (400040.7, 5799960.33)])
    frame = geopandas.GeoDataFrame(geometry=[shapely.segmentize(shape, 1)], crs=UTM).to_crs(crs)
    frame.to_file(tmp_path / "area.gpkg")
    ready, _ = check(scene(folder), aoi=tmp_path / "area.gpkg", gsd_m=gsd_m)
    grid = ready.scenes[0].grid
    pixels, valid = pixels_of(ready)
    cols, rows = np.meshgrid(np.arange(grid.width) + 0.5, np.arange(grid.height) + 0.5)
    inside = shapely.contains_xy(shape, *(grid.transform @ (cols, rows)))
    assert (valid != inside).sum() <= (0 if crs == UTM else 10)
    assert ready.nodata is None
    if gsd_m is None:
        assert np.array_equal(pixels, make.noise(H, W))


def test_scenes_outside_the_area_are_left_out(make: Maker, folder: Path, tmp_path: Path) -> None:
    for number, name in enumerate("bc"):
        there = {"transform": TRANSFORM @ Affine.translation(1000 * (number + 1), 0), "crs": UTM}
        make.raster(folder / f"images/{name}.tif", make.noise(H, W), **there)
        make.raster(folder / f"labels/{name}.tif", make.indices(H, W, num=3), **there)
    scenes = [scene(folder, name) for name in "abc"]
    here = area(tmp_path / "area.geojson", shapely.box(400010, 5799960, 400020, 5799990))
    ready, findings = check(*scenes, aoi=here)
    assert [each.name for each in ready.scenes] == ["a"]
    assert re.search(
        r"2 of 3 scenes lie outside the area of interest .* are left out: b, c", findings.entries[0].message
    )
    nowhere = area(tmp_path / "nowhere.geojson", shapely.box(410010, 5799960, 410020, 5799990))
    with pytest.raises(DataError, match=r"--aoi: .*nowhere\.geojson: its 1 polygons lie on none of the 3 scenes"):
        check(*scenes, aoi=nowhere)


def test_areas_that_nobody_can_place(make: Maker, folder: Path, tmp_path: Path) -> None:
    box = shapely.box(400010, 5799960, 400020, 5799990)
    with pytest.warns(UserWarning, match="'crs' was not provided"):
        unknown = area(tmp_path / "unknown.gpkg", box, crs=None)
    with pytest.raises(DataError, match=r"--aoi: .*unknown\.gpkg: no CRS found, so nobody knows where it lies"):
        check(scene(folder), aoi=unknown)
    with pytest.raises(DataError, match=r"--aoi: .*points\.gpkg: no polygon found"):
        check(scene(folder), aoi=area(tmp_path / "points.gpkg", shapely.Point(400010, 5799960)))
    with pytest.raises(CtrsError, match=r"missing\.gpkg: not found"):
        check(scene(folder), aoi=tmp_path / "missing.gpkg")
    make.raster(folder / "images/a.tif", make.noise(H, W))
    with pytest.raises(RasterError, match=r"a\.tif: no transform .*, so the area of interest has no place .*--src-crs"):
        check(scene(folder), aoi=area(tmp_path / "area.gpkg", box))


# End to end


def test_tiles_of_an_area_on_another_grid(make: Maker, folder: Path, tmp_path: Path) -> None:
    here = area(tmp_path / "area.gpkg", shapely.box(400010, 5799960, 400050, 5799990))
    config = PrepareConfig(val_fraction=0, tile_px=32, stride_px=16, gsd_m=0.4, crs="EPSG:32632", aoi=here, workers=2)
    manifest = prepare_tiles(folder, tmp_path / "out", config)
    assert manifest.pixel_size_m == pytest.approx(0.4, rel=1e-3)
    assert {tile.window.width for tile in manifest.tiles} == {32}
    whole = np.zeros(manifest.scenes[0].grid.shape, bool)
    for tile in manifest.tiles:
        with open_raster(tile.image) as dataset:
            assert dataset.crs.to_epsg() == 32632
            _, valid = read_window(dataset, PixelWindow(col_off=0, row_off=0, width=32, height=32))
        whole[tile.window.slices] |= valid
    assert whole.sum() * 0.16 == pytest.approx(40 * 30, rel=0.03)
    again = prepare_tiles(folder, tmp_path / "again", PrepareConfig(**{**vars(config), "workers": 1}))
    for one, other in zip(manifest.tiles, again.tiles, strict=True):
        assert one.image.read_bytes() == other.image.read_bytes()
        assert one.mask.read_bytes() == other.mask.read_bytes()


@pytest.mark.parametrize("options", [{"gsd_m": 1e-4}, {"stride_px": 1, "gsd_m": 0.01}])
def test_more_tiles_than_anybody_wants_are_refused_at_once(
    make: Maker, tmp_path: Path, options: dict[str, Any]
) -> None:
    """Before a label is read: that alone would take hours."""
    make.raster(tmp_path / "images/a.tif", make.noise(H, W), **PLACED)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.tif").write_bytes(b"never read")
    with pytest.raises(UsageError, match=r"\d{8} tiles, most of them of scene a .*; choose a coarser --gsd or larger"):
        check(scene(tmp_path), tile_px=64, **options)
