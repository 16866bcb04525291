"""Faults planted in copies of clean sources: each is found and named, by the check alone and on the way to tiles."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.features import shapes

from ctrs.config import PrepareConfig
from ctrs.errors import CtrsError, InputNotFoundError
from ctrs.raster.geotiff import open_raster, read_window
from ctrs.raster.windows import PixelWindow
from ctrs.synthetic import TownConfig, make_town
from ctrs.tiles import audit_source, prepare_tiles
from tests.tiles.planting import TILE_PX, Raster, cut_short, look, matching, prepare, refused, warned

if TYPE_CHECKING:
    from tests.tiles.conftest import Maker


SIZE = 300
PIXEL_M = 0.35
EDGE = TILE_PX
TILE = PrepareConfig(tile_px=EDGE)
SCENES = ("2_10", "2_11", "2_13")
IMAGE, LABEL, ERODED = (
    "2_Ortho_RGB/top_potsdam_{}_RGB.tif",
    "5_Labels_all/top_potsdam_{}_label.tif",
    "5_Labels_all_noBoundary/top_potsdam_{}_label_noBoundary.tif",
)
BUILDING = (0, 0, 255)
CAR = (255, 255, 0)
IMPERVIOUS = (255, 255, 255)


@pytest.fixture(scope="module")
def clean_rasters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A town in the layout of Potsdam: three scenes of 105 m, two to train on and one to test."""
    config = TownConfig(size_px=SIZE, pixel_size_m=PIXEL_M, train_ids=SCENES[:2], test_ids=SCENES[2:])
    return make_town(tmp_path_factory.mktemp("clean") / "town", config)


@pytest.fixture(scope="module")
def clean_polygons(clean_rasters: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same scenes with the outlines of their buildings."""
    root = tmp_path_factory.mktemp("clean") / "outlines"
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    for name in SCENES:
        shutil.copy(clean_rasters / IMAGE.format(name), root / f"images/{name}.tif")
        with rasterio.open(clean_rasters / LABEL.format(name)) as dataset:
            roofs = (dataset.read() == np.array(BUILDING)[:, None, None]).all(axis=0)
            outlines = [
                shapely.geometry.shape(outline)
                for outline, _ in shapes(roofs.astype(np.uint8), mask=roofs, transform=dataset.transform)
            ]
            frame = geopandas.GeoDataFrame(geometry=outlines, crs=dataset.crs.to_wkt())
        frame.to_file(root / f"labels/{name}.gpkg")
    return root


@pytest.fixture
def town(clean_rasters: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clean_rasters, tmp_path / "town"))


@pytest.fixture
def outlines(clean_polygons: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clean_polygons, tmp_path / "outlines"))


def image(town: Path, name: str) -> Raster:
    return Raster.read(town / IMAGE.format(name))


def label(town: Path, name: str) -> Raster:
    return Raster.read(town / LABEL.format(name))


def repaint(raster: Raster, old: tuple[int, int, int], new: tuple[int, int, int]) -> None:
    pixels = raster.pixels.copy()
    pixels[:, (pixels == np.array(old)[:, None, None]).all(axis=0)] = np.array(new)[:, None]
    raster.write(pixels)


def without_eroded(town: Path) -> None:
    shutil.rmtree(town / "5_Labels_all_noBoundary")


# Clean sources


@pytest.mark.parametrize("kind", ["clean_rasters", "clean_polygons"])
def test_clean_sources_have_no_fault_and_no_warning(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    source = request.getfixturevalue(kind)
    options: dict[str, Any] = {"test": ("2_13",)} if kind == "clean_polygons" else {}
    audit = audit_source(source, tmp_path / "check.html", PrepareConfig(tile_px=EDGE, **options))
    assert [finding for finding in audit.findings if finding.level != "note"] == []
    assert {scene.facts.coverage for scene in audit.scenes} == {(0, SIZE * SIZE)}
    for scene in audit.scenes:
        assert scene.facts.label_counts == scene.facts.tiled_counts
        assert scene.shift is not None
        assert np.hypot(scene.shift.cols, scene.shift.rows) < 1
    manifest = prepare_tiles(source, tmp_path / "out", PrepareConfig(tile_px=EDGE, **options))
    for split in manifest.splits:
        assert manifest.class_counts(split) == audit.class_px[split]


# Labels that lie off


@pytest.mark.parametrize(("cols", "rows"), [(3, 5), (8, -6), (12, 0)])
def test_a_shifted_label(town: Path, cols: int, rows: int) -> None:
    without_eroded(town)
    raster = label(town, "2_11")
    raster.write(np.roll(raster.pixels, (rows, cols), axis=(1, 2)))
    audit = look(town)
    assert audit.num_faults == 0
    pattern = r"potsdam_2_11: its label lies off its image: it would fit best moved \d+\.\d px left"
    assert matching(audit, "warning", "alignment", pattern).scene == "potsdam_2_11"
    shifts = {scene.name: scene.shift for scene in audit.scenes}
    assert shifts["potsdam_2_11"] is not None
    assert (shifts["potsdam_2_11"].cols, shifts["potsdam_2_11"].rows) == pytest.approx((-cols, -rows), abs=1)
    warned(town, pattern)


def test_shifted_polygons_of_all_scenes(outlines: Path) -> None:
    for path in (outlines / "labels").iterdir():
        frame = geopandas.read_file(path)
        frame.geometry = frame.translate(xoff=PIXEL_M * 6, yoff=PIXEL_M * 4)
        frame.to_file(path)
    pattern = (
        r"3 of 3 labels lie off their images: they would fit best moved: 2_10 [56]\.\d px left and [34]\.\d px down"
    )
    found = matching(look(outlines), "warning", "alignment", pattern)
    assert found.scene is None
    warned(outlines, pattern)


# Labels and images in another place


def test_a_raster_label_in_another_crs(town: Path) -> None:
    raster = label(town, "2_11")
    raster.write(crs="EPSG:32634")
    pattern = r"2_11_label\.tif: does not lie on the grid of its image .* CRS EPSG:32634 instead of EPSG:32633"
    audit = look(town)
    assert matching(audit, "fault", "alignment", pattern).scene == "potsdam_2_11"
    assert [scene.name for scene in audit.scenes] == ["potsdam_2_10", "potsdam_2_13"]
    refused(town, pattern)


def test_an_image_and_its_label_in_another_zone(town: Path) -> None:
    without_eroded(town)
    for raster in (image(town, "2_11"), label(town, "2_11")):
        raster.write(crs="EPSG:32634")
    pattern = r"2_11_RGB\.tif: lies in EPSG:32634, its neighbour by coordinates .* in EPSG:32633"
    matching(look(town), "warning", "georeference", pattern)
    warned(town, pattern)


def test_polygons_in_another_zone(outlines: Path) -> None:
    path = outlines / "labels/2_11.gpkg"
    geopandas.read_file(path).set_crs("EPSG:32733", allow_override=True).to_file(path)
    pattern = (
        r"2_11\.gpkg: none of its polygons lies on .*2_11\.tif; its CRS is EPSG:32733, they would in EPSG:32633: "
        "assign that to the label"
    )
    assert matching(look(outlines), "fault", "georeference", pattern).scene == "2_11"
    refused(outlines, pattern)


def test_polygons_with_latitude_before_longitude(outlines: Path) -> None:
    for name in SCENES:
        path = outlines / f"labels/{name}.gpkg"
        frame = geopandas.read_file(path).to_crs("EPSG:4326")
        frame.geometry = shapely.transform(frame.geometry.to_numpy(), lambda xy: xy[:, ::-1])
        path.unlink()
        frame.to_file(path)
    pattern = (
        r"2_10\.gpkg: none of its polygons lies on .*; they would with x and y swapped \(latitude before longitude"
    )
    audit = look(outlines)
    matching(audit, "fault", "georeference", pattern)
    assert audit.num_faults == 3
    refused(outlines, pattern)


def test_polygons_of_another_town(outlines: Path) -> None:
    for path in (outlines / "labels").iterdir():
        frame = geopandas.read_file(path)
        frame.geometry = frame.translate(xoff=40_000)
        frame.to_file(path)
    pattern = (
        r"2_10\.gpkg: none of its polygons lies on .*2_10\.tif and 2 more images; they lie at x 40[67]\d\d\d.* "
        "check the CRS and place of both"
    )
    matching(look(outlines), "fault", "georeference", pattern)
    refused(outlines, pattern)


# Classes and colours


def test_a_class_dropped_from_all_labels(town: Path) -> None:
    without_eroded(town)
    for name in SCENES:
        repaint(label(town, name), CAR, IMPERVIOUS)
    pattern = "the labels hold no pixel of class car, though the class table names it"
    matching(look(town), "warning", "classes", pattern)
    warned(town, pattern)


def test_a_class_dropped_from_training(town: Path) -> None:
    without_eroded(town)
    for name in SCENES[:2]:
        repaint(label(town, name), CAR, IMPERVIOUS)
    pattern = "training tiles hold no pixel of class car, which only test holds; a model cannot learn it"
    matching(look(town), "warning", "classes", pattern)
    warned(town, pattern)


def test_a_label_that_lost_all_but_one_class(town: Path) -> None:
    without_eroded(town)
    raster = label(town, "2_11")
    raster.write(np.full_like(raster.pixels, 255))
    pattern = r"1 of 3 labels hold one class: impervious surface alone in 1 \(potsdam_2_11\)"
    assert matching(look(town), "note", "classes", pattern).scene == "potsdam_2_11"


def test_an_unknown_colour(town: Path) -> None:
    raster = label(town, "2_11")
    pixels = raster.pixels.copy()
    pixels[:, 40:50, 60:90] = np.array([10, 20, 30])[:, None, None]
    raster.write(pixels)
    pattern = r"2_11_label\.tif: unknown label colour \(10, 20, 30\) in 300 px, first at row 40, column 60"
    assert matching(look(town), "fault", "colours", pattern).scene == "potsdam_2_11"
    refused(town, pattern)
    allowed = r"300 px in 1 of 3 labels have a colour that the class table does not hold \(\(10, 20, 30\) in 300 px"
    audit = look(town, max_unknown=0.01)
    assert audit.num_faults == 0
    matching(audit, "warning", "colours", allowed)
    manifest = warned(town, allowed, max_unknown=0.01)
    assert sum(sum(manifest.class_counts(split)) for split in manifest.splits) == 3 * SIZE**2 - 300


# Files


@pytest.mark.parametrize(("kind", "what"), [(IMAGE, "image"), (LABEL, "label")])
def test_a_truncated_file(town: Path, kind: str, what: str) -> None:
    path = town / kind.format("2_11")
    cut_short(path)
    pattern = rf"{path.name}: not readable (as a raster|at rows \d+ to \d+)"
    audit = look(town)
    found = [finding for finding in audit.findings if finding.level == "fault"]
    assert [finding.scene for finding in found] == ["potsdam_2_11"], what
    assert re.search(pattern, found[0].message)
    assert [scene.name for scene in audit.scenes] == ["potsdam_2_10", "potsdam_2_13"]
    refused(town, pattern)


def test_a_one_pixel_wide_raster(town: Path) -> None:
    for raster in (image(town, "2_11"), label(town, "2_11"), Raster.read(town / ERODED.format("2_11"))):
        raster.write(raster.pixels[:, :, :1])
    pattern = r"2_11_RGB\.tif: 1 x 300 px"
    assert matching(look(town), "fault", "files", pattern).scene == "potsdam_2_11"
    refused(town, pattern)


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    pattern = "empty: no images found"
    with pytest.raises(InputNotFoundError, match=pattern):
        audit_source(tmp_path / "empty", tmp_path / "check.html")
    with pytest.raises(InputNotFoundError, match=pattern):
        prepare_tiles(tmp_path / "empty", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


# Leakage


def test_the_same_image_in_two_splits(make: Maker, town: Path, tmp_path: Path) -> None:
    source = unplaced(town, tmp_path / "chips")
    for kind in ("images", "labels"):
        shutil.copy(source / kind / "2_10.tif", source / kind / "2_13.tif")
    pattern = r"2_1[03].*2_1[03].*(same|cop|equal|duplicate)"
    with_fault = look(source, test=("2_13",))
    matching(with_fault, "fault", "leakage", pattern)
    refused(source, pattern, test=("2_13",))


def test_a_recompressed_copy_in_two_splits(make: Maker, town: Path, tmp_path: Path) -> None:
    source = unplaced(town, tmp_path / "chips")
    raster = Raster.read(source / "images/2_10.tif")
    raster.write(path=source / "images/2_13.tif", compress="jpeg", photometric="YCbCr", quality=80)
    shutil.copy(source / "labels/2_10.tif", source / "labels/2_13.tif")
    audit = look(source, test=("2_13",))
    found = [finding for finding in audit.findings if finding.check == "leakage" and finding.level != "note"]
    assert any("2_10" in finding.message and "2_13" in finding.message for finding in found), audit.findings


def unplaced(town: Path, root: Path) -> Path:
    """Write the scenes as plain chips without georeference, which cannot give away that they are copies."""
    shutil.copy(town / "classes.toml", root) if (town / "classes.toml").exists() else None
    for name in SCENES:
        for kind, raster in (("images", image(town, name)), ("labels", label(town, name))):
            (root / kind).mkdir(parents=True, exist_ok=True)
            pixels = raster.pixels
            if kind == "labels":
                pixels = (pixels == np.array(BUILDING)[:, None, None]).all(axis=0)[None].astype(np.uint8)
            raster.write(pixels, root / kind / f"{name}.tif", crs=None, transform=None)
    shutil.rmtree(town)
    return root


# Special, and handled


def test_an_alpha_band_is_transparency(town: Path) -> None:
    raster = image(town, "2_11")
    alpha = np.full((1, SIZE, SIZE), 255, np.uint8)
    alpha[:, 30:130, 20:120] = 0
    raster.write(np.concatenate([raster.pixels, alpha]), photometric="RGB", alpha="YES")
    audit = look(town)
    assert [finding for finding in audit.findings if finding.level != "note"] == []
    facts = next(scene.facts for scene in audit.scenes if scene.name == "potsdam_2_11")
    assert facts.valid_px == SIZE**2 - 100 * 100
    manifest = prepare(town)
    assert manifest.bands.count == 3
    tile = next(tile for tile in manifest.tiles if tile.scene == "potsdam_2_11" and tile.window.slices[0].start == 0)
    with rasterio.open(tile.mask) as mask, open_raster(tile.image) as pixels:
        ignored = mask.read(1) == 255
        _, valid = read_window(pixels, PixelWindow(col_off=0, row_off=0, width=EDGE, height=EDGE))
    assert np.array_equal(ignored, alpha[0, :EDGE, :EDGE] == 0)
    assert np.array_equal(valid, ~ignored)


def test_near_infrared_that_is_tagged_alpha(town: Path) -> None:
    raster = image(town, "2_11")
    infrared = np.random.default_rng(0).integers(1, 256, (1, SIZE, SIZE)).astype(np.uint8)
    raster.write(np.concatenate([raster.pixels, infrared]), photometric="RGB", alpha="YES")
    pattern = r"2_11_RGB\.tif: band 4 is marked as alpha but holds more than 32 different values .* with --bidx"
    matching(look(town), "warning", "bands", pattern)
    warned(town, pattern)


def test_nan_nodata(town: Path) -> None:
    for name in SCENES:
        raster = image(town, name)
        pixels = raster.pixels.astype(np.float32) / 255
        if name == "2_11":
            pixels[:, 100:150, :] = np.nan
        raster.write(pixels, nodata=float("nan"))
    audit = look(town)
    assert [finding for finding in audit.findings if finding.level != "note"] == []
    manifest = prepare(town)
    assert all(np.isfinite(manifest.bands.mean))
    holes = [tile for tile in manifest.tiles if tile.valid_fraction < 1]
    assert {tile.scene for tile in holes} == {"potsdam_2_11"}
    for tile in holes:
        with rasterio.open(tile.mask) as mask, rasterio.open(tile.image) as pixels:
            assert np.array_equal(mask.read(1) == 255, np.isnan(pixels.read(1)))


def test_sixteen_bits_among_eight(town: Path) -> None:
    raster = image(town, "2_11")
    raster.write(raster.pixels.astype(np.uint16) * 8)
    pattern = r"2_11_RGB\.tif: 3 bands of uint16 found, but 3 bands of uint8 in .*2_10_RGB\.tif"
    assert matching(look(town), "fault", "bands", pattern).scene == "potsdam_2_11"
    refused(town, pattern)


def test_eight_bit_values_in_one_of_several_files_of_sixteen(town: Path) -> None:
    for name in SCENES:
        raster = image(town, name)
        raster.write(raster.pixels.astype(np.uint16) * (1 if name == "2_11" else 40))
    pattern = r"8-bit values \(0 to 255\) in uint16 in scene potsdam_2_11, the others use more"
    matching(look(town), "warning", "radiometry", pattern)
    warned(town, pattern)


def test_a_constant_and_a_saturated_band(town: Path) -> None:
    raster = image(town, "2_11")
    pixels = raster.pixels.copy()
    pixels[1] = 77
    pixels[2, :120] = 255
    raster.write(pixels)
    audit = look(town)
    matching(audit, "warning", "radiometry", r"band green is constant \(77\) in scene potsdam_2_11")
    matching(audit, "warning", "radiometry", r"saturated in scene potsdam_2_11: 4\d\.\d% of band blue")


def test_a_rotated_geotransform(town: Path) -> None:
    without_eroded(town)
    for raster in (image(town, "2_11"), label(town, "2_11")):
        turned = raster.profile["transform"] @ Affine.rotation(20)
        raster.write(transform=turned)
    pattern = r"2_11_RGB\.tif: rotated by .*20 degrees, which tiles are not; resampled to a north-up grid"
    audit = look(town)
    assert audit.num_faults == 0
    assert matching(audit, "warning", "georeference", pattern).scene == "potsdam_2_11"
    scene = next(scene for scene in audit.scenes if scene.name == "potsdam_2_11")
    assert (scene.grid.transform.b, scene.grid.transform.d) == (0, 0)
    assert scene.facts.label_counts == scene.facts.tiled_counts
    assert scene.facts.valid_px == pytest.approx(SIZE**2, rel=0.01)
    assert scene.shift is not None
    assert np.hypot(scene.shift.cols, scene.shift.rows) < 1
    warned(town, pattern)


# All at once


def test_several_faults_are_all_told(town: Path) -> None:
    cut_short(town / IMAGE.format("2_10"))
    raster = label(town, "2_11")
    pixels = raster.pixels.copy()
    pixels[:, :5, :5] = np.array([10, 20, 30])[:, None, None]
    raster.write(pixels)
    raster = image(town, "2_13")
    raster.write(raster.pixels.astype(np.uint16))
    audit = look(town)
    faults = {finding.scene: finding.check for finding in audit.findings if finding.level == "fault"}
    assert faults == {"potsdam_2_10": "files", "potsdam_2_11": "colours", "potsdam_2_13": "bands"}
    refused(town, r"and \d more faults?: `ctrs prepare --check` shows all in a report")


def test_a_report_is_not_written_over_other_files(clean_rasters: Path, tmp_path: Path) -> None:
    other = tmp_path / "notes.html"
    other.write_text("<p>mine</p>")
    with pytest.raises(CtrsError, match=r"notes\.html: exists and is no report of ctrs"):
        audit_source(clean_rasters, other, TILE)
    assert other.read_text() == "<p>mine</p>"
    own = tmp_path / "check.html"
    audit_source(clean_rasters, own, TILE)
    first = own.read_bytes()
    audit_source(clean_rasters, own, TILE)
    assert own.read_bytes() == first
