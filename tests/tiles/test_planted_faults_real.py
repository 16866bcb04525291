"""Faults planted in copies of real imagery: each is found and named, by the check alone and on the way to tiles.

The copies are whole small files, or windows of larger ones with all that belongs to them (mask, CRS, place).
"""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from PIL import Image
from rasterio.warp import transform_geom

from ctrs.errors import CtrsWarning, InputNotFoundError, LabelError
from ctrs.raster.geotiff import open_raster
from ctrs.raster.windows import PixelWindow
from ctrs.tiles import Audit
from tests.tiles.planting import Raster, cut_short, look, matching, prepare, refused, warned

TILE_PX = 256
WINDOWS = {
    "kampala_a": PixelWindow(col_off=512, row_off=0, width=512, height=512),
    "catanduanes_a": PixelWindow(col_off=0, row_off=0, width=1024, height=512),
    "catanduanes_b": PixelWindow(col_off=0, row_off=256, width=512, height=512),
}
BUILDINGS: dict[str, Any] = {"tile_px": TILE_PX, "val": ("catanduanes_b",), "test": ("kampala_a",)}
DUBAI = ("t2_002", "t2_005", "t2_003", "t2_008")
LAND: dict[str, Any] = {"tile_px": TILE_PX, "val": ("t2_003",), "test": ("t2_008",)}
COLORS = {
    "water": (226, 169, 41), "land": (132, 41, 246), "road": (110, 193, 228), "building": (60, 16, 152),
    "vegetation": (254, 221, 58),
}  # fmt: skip
CHIPS: dict[str, Any] = {"tile_px": 128, "class_field": "Quatreclasses"}


def crop(path: Path, window: PixelWindow, out: Path) -> None:
    """Copy a window of a raster with its CRS, its place and its mask."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with open_raster(path) as dataset:
        rows, cols = window.slices
        pixels, valid = dataset.read()[:, rows, cols], dataset.dataset_mask()[rows, cols]
        place = dataset.transform @ Affine.translation(window.col_off, window.row_off)
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(
                out, "w", driver="GTiff", width=window.width, height=window.height, count=len(pixels),
                dtype=pixels.dtype.name, crs=dataset.crs, transform=place, compress="deflate", tiled=True,
            ) as copy,
        ):  # fmt: skip
            copy.write(pixels)
            if not valid.all():
                copy.write_mask(valid)


def crop_polygons(path: Path, image: Path, out: Path) -> None:
    """Copy the polygons that touch an image."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with open_raster(image) as dataset:
        frame = geopandas.read_file(path)
        window = shapely.box(*dataset.bounds)
        touching = frame.to_crs(dataset.crs.to_wkt()).intersects(window)
    frame[touching].to_file(out, driver="GeoJSON")


@pytest.fixture(scope="module")
def clean_polygons(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three drone scenes of two towns with the outlines of their buildings (GeoJSON in degrees)."""
    root, folder = tmp_path_factory.mktemp("clean") / "outlines", real_data / "oam_fair_buildings"
    for name, window in WINDOWS.items():
        crop(folder / f"scenes/{name}_z20.tif", window, root / f"images/{name}.tif")
        crop_polygons(folder / f"labels/{name}.geojson", root / f"images/{name}.tif", root / f"labels/{name}.geojson")
    return root


@pytest.fixture(scope="module")
def clean_masks(real_data: Path, clean_polygons: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same scenes with raster masks."""
    root, folder = tmp_path_factory.mktemp("clean") / "masks", real_data / "oam_fair_buildings"
    shutil.copytree(clean_polygons / "images", root / "images")
    for name, window in WINDOWS.items():
        crop(folder / f"masks/{name}_z20_mask.tif", window, root / f"labels/{name}.tif")
    return root


@pytest.fixture(scope="module")
def clean_land(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four satellite images (JPEG, without CRS) with colour-coded masks (PNG with a colour table)."""
    root, folder = tmp_path_factory.mktemp("clean") / "dubai", real_data / "dubai_mbrsc_landcover"
    for kind, ending in (("images", "jpg"), ("masks", "png")):
        (root / kind).mkdir(parents=True)
        for name in DUBAI:
            shutil.copy(folder / f"{kind}/{name}.{ending}", root / kind)
    entries = [f'[[class]]\nname = "{name}"\ncolor = {list(color)}\n' for name, color in COLORS.items()]
    entries.append('[[class]]\nname = "unlabelled"\ncolor = [155, 155, 155]\nignored = true\n')
    (root / "classes.toml").write_text("\n".join(entries))
    return root


@pytest.fixture
def outlines(clean_polygons: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clean_polygons, tmp_path / "outlines"))


@pytest.fixture
def masks(clean_masks: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clean_masks, tmp_path / "masks"))


@pytest.fixture
def land(clean_land: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clean_land, tmp_path / "dubai"))


@pytest.fixture
def parcels(real_data: Path, tmp_path: Path) -> Path:
    """Two aerial images and one GeoPackage of polygons of four classes."""
    folder = real_data / "nrcan_gdl_fixtures/new_brunswick_aerial_0.5m"
    return Path(shutil.copytree(folder, tmp_path / "parcels"))


@pytest.fixture
def sixteen_bits(real_data: Path, tmp_path: Path) -> Path:
    """One panchromatic 16-bit image, cut into quarters, with one GeoJSON of footprints."""
    root, folder = tmp_path / "atlanta", real_data / "solaris_spacenet_atlanta_pan16"
    for number in range(4):
        window = PixelWindow(col_off=450 * (number % 2), row_off=450 * (number // 2), width=450, height=450)
        crop(folder / "sample_geotiff.tif", window, root / f"images/part_{number}.tif")
    (root / "labels").mkdir()
    shutil.copy(folder / "geotiff_labels.geojson", root / "labels")
    return root


def raster(path: Path) -> Raster:
    return Raster.read(path)


def told(audit: Audit) -> list[str]:
    return [f"{finding.level} {finding.check}: {finding.message}" for finding in audit.findings]


def loud(audit: Audit) -> list[str]:
    """Return what is more than a note."""
    return [entry for entry in told(audit) if not entry.startswith("note")]


def found_by_both(
    source: Path, check: str, pattern: str, options: dict[str, Any], *, level: str = "fault", scene: str | None = None
) -> Audit:
    """Check and prepare a source; both must name the fault."""
    audit: Audit = look(source, **options)
    found = matching(audit, level, check, pattern)
    if scene is not None:
        assert found.scene == scene
    (refused if level == "fault" else warned)(source, pattern, **options)
    return audit


def change_polygons(path: Path, **how: Any) -> None:
    """Write the polygons of a GeoJSON file anew, with changed coordinates."""
    data = json.loads(path.read_text())
    data.pop("crs", None)
    for feature in data["features"]:
        shape = shapely.geometry.shape(feature["geometry"])
        feature["geometry"] = shapely.geometry.mapping(how["change"](shape))
    path.write_text(json.dumps(data))


# Clean copies


def test_clean_copies_have_no_fault_and_no_unexpected_warning(
    clean_polygons: Path, clean_masks: Path, clean_land: Path, parcels: Path, sixteen_bits: Path, tmp_path: Path
) -> None:
    sources: Sequence[tuple[Path, dict[str, Any], str]] = (
        (clean_polygons, BUILDINGS, ""),
        (clean_masks, BUILDINGS, ""),
        (clean_land, LAND, r"no CRS found; going on in pixel coordinates"),
        (parcels, CHIPS, r"overlap|is taken as ignored"),
        (sixteen_bits, {"tile_px": TILE_PX}, r"label lies off its image"),  # footprints of leaning houses, 1 to 3 m off
    )
    for source, options, allowed in sources:
        copy = shutil.copytree(source, tmp_path / f"clean_{source.name}" / source.name)
        audit = look(copy, **options)
        unexpected = [entry for entry in loud(audit) if not allowed or not re.search(allowed, entry)]
        assert unexpected == [], source.name
        assert audit.num_faults == 0
        for scene in audit.scenes:
            assert scene.facts.label_counts == scene.facts.tiled_counts
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            manifest = prepare(copy, **options)
        issued = [str(entry.message) for entry in caught if issubclass(entry.category, CtrsWarning)]
        assert [message for message in issued if not allowed or not re.search(allowed, message)] == []
        for split in manifest.splits:
            assert manifest.class_counts(split) == audit.class_px[split]


# Labels that lie off, or elsewhere


def test_a_shifted_mask(masks: Path) -> None:
    label = raster(masks / "labels/catanduanes_a.tif")
    label.write(np.roll(label.pixels, (5, 3), axis=(1, 2)))
    pattern = r"catanduanes_a: its label lies off its image: it would fit best moved \d\.\d px left and \d\.\d px up"
    found_by_both(masks, "alignment", pattern, BUILDINGS, level="warning", scene="catanduanes_a")


def test_shifted_polygons(outlines: Path) -> None:
    east, north = 8 * 0.1493 / 111_320, 6 * 0.1493 / 111_320  # EPSG:3857 pixels near the equator, in degrees
    change_polygons(
        outlines / "labels/kampala_a.geojson", change=lambda shape: shapely.affinity.translate(shape, east, -north)
    )
    pattern = r"kampala_a: its label lies off its image: it would fit best moved [789]\.\d px left and [567]\.\d px up"
    found_by_both(outlines, "alignment", pattern, BUILDINGS, level="warning", scene="kampala_a")


def test_a_shifted_colour_mask(land: Path) -> None:
    path = land / "masks/t2_003.png"
    with Image.open(path) as mask:
        palette, pixels = mask.getpalette(), np.asarray(mask)
    moved = Image.fromarray(np.roll(pixels, (7, -6), axis=(0, 1)), "P")
    moved.putpalette(palette)
    moved.save(path)
    pattern = r"t2_003: its label lies off its image: it would fit best moved [567]\.\d px right and [678]\.\d px up"
    found_by_both(land, "alignment", pattern, LAND, level="warning", scene="t2_003")


def test_a_mask_in_another_crs(masks: Path) -> None:
    raster(masks / "labels/catanduanes_a.tif").write(crs="EPSG:32651")
    pattern = r"labels/catanduanes_a\.tif: does not lie on the grid of its image .* CRS EPSG:32651 instead of EPSG:3857"
    found_by_both(masks, "alignment", pattern, BUILDINGS, scene="catanduanes_a")


def test_polygons_in_metres_that_are_called_degrees(outlines: Path) -> None:
    def metres(shape: Any) -> Any:
        return shapely.geometry.shape(transform_geom("EPSG:4326", "EPSG:3857", shapely.geometry.mapping(shape)))

    change_polygons(outlines / "labels/catanduanes_a.geojson", change=metres)
    pattern = r"catanduanes_a\.geojson: none of its polygons lies on .*catanduanes_a\.tif; .* in EPSG:3857"
    found_by_both(outlines, "georeference", pattern, BUILDINGS, scene="catanduanes_a")


def test_polygons_in_another_zone(parcels: Path) -> None:
    path = parcels / "BakerLake_2017.gpkg"
    frame = geopandas.read_file(path)
    frame.to_crs("EPSG:32619").set_crs("EPSG:32620", allow_override=True).to_file(path)
    pattern = r"BakerLake_2017\.gpkg: none of its polygons lies on .*; its CRS is EPSG:32620, they would in EPSG:32619"
    found_by_both(parcels, "georeference", pattern, CHIPS)


def test_polygons_with_latitude_before_longitude(outlines: Path) -> None:
    change_polygons(
        outlines / "labels/kampala_a.geojson",
        change=lambda shape: shapely.transform(shape, lambda xy: xy[:, ::-1]),
    )
    pattern = (
        r"kampala_a\.geojson: none of its polygons lies on .*kampala_a\.tif; "
        r"they would with x and y swapped \(latitude before longitude"
    )
    found_by_both(outlines, "georeference", pattern, BUILDINGS, scene="kampala_a")


# Classes and colours


def recolor(path: Path, old: tuple[int, int, int], new: tuple[int, int, int]) -> int:
    """Change a colour of a mask's colour table; returns the number of pixels that have it."""
    with Image.open(path) as mask:
        pixels, table = np.asarray(mask), np.array(mask.getpalette()).reshape(-1, 3)
    numbers = np.flatnonzero((table == old).all(axis=1))
    changed = np.isin(pixels, numbers)
    table[numbers] = new
    out = Image.fromarray(pixels, "P")
    out.putpalette(table.ravel().tolist())
    out.save(path)
    return int(changed.sum())


def test_a_class_dropped_from_all_labels(land: Path) -> None:
    assert sum(recolor(land / f"masks/{name}.png", COLORS["building"], COLORS["land"]) for name in DUBAI) > 0
    pattern = "the labels hold no pixel of class building, though the class table names it"
    found_by_both(land, "classes", pattern, LAND, level="warning")


def test_a_class_dropped_from_training(land: Path) -> None:
    for name in DUBAI[:2]:
        recolor(land / f"masks/{name}.png", COLORS["building"], COLORS["land"])
    pattern = "training tiles hold no pixel of class building, which only val and test hold;"
    found_by_both(land, "classes", pattern, LAND, level="warning")


def test_a_class_dropped_from_polygons(parcels: Path, tmp_path: Path) -> None:
    path = parcels / "BakerLake_2017.gpkg"
    frame = geopandas.read_file(path)
    frame[frame["Quatreclasses"].astype(int) != 3].to_file(path)
    entries = [f'[[class]]\nname = "{name}"\nvalue = {value}\n' for value, name in enumerate(("background", *"abcd"))]
    entries.append('[[class]]\nname = "unknown"\nvalue = 255\nignored = true\n')
    (parcels / "classes.toml").write_text("\n".join(entries))
    pattern = "the labels hold no pixel of class c, though the class table names it"
    found_by_both(parcels, "classes", pattern, CHIPS, level="warning")


def test_masks_that_lost_all_but_one_class(masks: Path) -> None:
    label = raster(masks / "labels/catanduanes_a.tif")
    label.write(np.zeros_like(label.pixels))
    pattern = r"1 of 3 labels hold one class: background alone in 1 \(catanduanes_a\)"
    options = {**BUILDINGS, "val": ("catanduanes_a",)}
    assert matching(look(masks, **options), "note", "classes", pattern).scene == "catanduanes_a"
    assert [note for note in prepare(masks, **options).notes if re.search(pattern, note)]


def test_an_unknown_colour(land: Path) -> None:
    number = recolor(land / "masks/t2_003.png", COLORS["road"], (10, 20, 30))
    pattern = rf"t2_003\.png: unknown label colour \(10, 20, 30\) in {number} px, first at row \d+, column \d+"
    found_by_both(land, "colours", pattern, LAND, scene="t2_003")


# Files


@pytest.mark.parametrize("kind", ["images", "labels"])
def test_a_truncated_geotiff(masks: Path, kind: str) -> None:
    path = masks / kind / "catanduanes_a.tif"
    cut_short(path)
    found_by_both(masks, "files", rf"{kind}/{path.name}: not readable", BUILDINGS, scene="catanduanes_a")


@pytest.mark.parametrize(("kind", "name"), [("images", "t2_003.jpg"), ("masks", "t2_003.png")])
def test_a_truncated_jpeg_and_png(land: Path, kind: str, name: str) -> None:
    cut_short(land / kind / name)
    found_by_both(land, "files", rf"{kind}/{name}: not readable", LAND, scene="t2_003")


def test_truncated_polygons(outlines: Path) -> None:
    cut_short(outlines / "labels/catanduanes_a.geojson")
    audit = look(outlines, **BUILDINGS)
    assert [entry for entry in loud(audit) if "labels/catanduanes_a.geojson" in entry], told(audit)
    assert audit.num_faults == 1
    refused(outlines, r"labels/catanduanes_a\.geojson: ", **BUILDINGS)


def test_a_one_pixel_wide_raster(masks: Path) -> None:
    for kind in ("images", "labels"):
        file = raster(masks / kind / "catanduanes_b.tif")
        file.write(file.pixels[:, :, :1])
    found_by_both(masks, "files", r"images/catanduanes_b\.tif: 1 x 512 px found", BUILDINGS, scene="catanduanes_b")


@pytest.mark.parametrize("emptied", [".", "images"])
def test_an_empty_folder(masks: Path, emptied: str) -> None:
    shutil.rmtree(masks / emptied)
    (masks / emptied).mkdir(parents=True)
    for work in (look, prepare):
        with pytest.raises(InputNotFoundError, match=r"masks(/images)?: no images found"):
            work(masks, **BUILDINGS)
    assert [path.name for path in masks.parent.iterdir()] == ["masks"]


def test_an_empty_folder_of_labels(masks: Path) -> None:
    shutil.rmtree(masks / "labels")
    (masks / "labels").mkdir()
    pattern = r"masks/images: 3 images without a label: catanduanes_a\.tif, .*masks/labels; add the labels"
    for work in (look, prepare):
        with pytest.raises(LabelError, match=pattern):
            work(masks, **BUILDINGS)
    assert [path.name for path in masks.parent.iterdir()] == ["masks"]


# Leakage


@pytest.mark.parametrize("recompressed", [False, True])
def test_a_duplicate_in_two_splits(land: Path, recompressed: bool) -> None:
    original, copy = land / "images/t2_003.jpg", land / "images/t2_008.jpg"
    shutil.copy(original, copy)
    shutil.copy(land / "masks/t2_003.png", land / "masks/t2_008.png")
    if recompressed:
        with Image.open(original) as image:
            image.save(copy, quality=60)
        level, pattern = "warning", r"t2_00[38].*t2_00[38]"
    else:
        level, pattern = "fault", r"t2_00[38].*t2_00[38].*(same|cop|equal|duplicate)"
    found_by_both(land, "leakage", pattern, LAND, level=level)


def test_the_same_ground_in_two_splits(outlines: Path) -> None:
    for kind, ending in (("images", "tif"), ("labels", "geojson")):
        shutil.copy(outlines / f"{kind}/catanduanes_a.{ending}", outlines / f"{kind}/later.{ending}")
    pattern = r"(catanduanes_a|later) \((test|train)\) and (catanduanes_a|later) \((test|train)\) "
    found_by_both(outlines, "leakage", pattern, {**BUILDINGS, "test": ("kampala_a", "later")})


# Bands and values


def test_an_alpha_band_is_transparency(masks: Path) -> None:
    """Holes inside bright roofs, given as an alpha band instead of a mask, are what they were."""
    path = masks / "images/kampala_a.tif"
    before = next(scene.facts for scene in look(masks, **BUILDINGS).scenes if scene.name == "kampala_a")
    with open_raster(path) as dataset:
        alpha = dataset.dataset_mask()[None]
    assert 0 < before.valid_px < alpha.size
    image = raster(path)
    image.write(np.concatenate([image.pixels, alpha]), photometric="RGB", alpha="YES")
    audit = look(masks, **BUILDINGS)
    assert loud(audit) == []
    after = next(scene.facts for scene in audit.scenes if scene.name == "kampala_a")
    assert (after.valid_px, after.label_counts) == (before.valid_px, before.label_counts)
    assert prepare(masks, **BUILDINGS).bands.count == 3


def test_infrared_that_is_tagged_alpha(real_data: Path, tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        (tmp_path / "chips" / kind).mkdir(parents=True)
        for number in range(3):
            shutil.copy(
                real_data / f"chesapeake_naip_rgbn_wv/{kind}/train_3708020_sw_17_1-{number}.tif",
                tmp_path / "chips" / kind,
            )
    pattern = r"sw_17_1-0\.tif and 2 more: band 4 is marked as alpha but holds more than 32 .* with --bidx"
    found_by_both(tmp_path / "chips", "bands", pattern, {"tile_px": TILE_PX}, level="warning")


def test_nan_nodata(masks: Path) -> None:
    before = {scene.name: scene.facts for scene in look(masks, **BUILDINGS).scenes}
    for name in WINDOWS:
        image = raster(masks / f"images/{name}.tif")
        with open_raster(image.path) as dataset:
            valid = dataset.dataset_mask() > 0
        image.write(np.where(valid, image.pixels.astype(np.float32) / 255, np.float32("nan")), nodata=float("nan"))
    audit = look(masks, **BUILDINGS)
    assert loud(audit) == []
    for scene in audit.scenes:
        assert scene.facts.valid_px == before[scene.name].valid_px
        assert scene.facts.label_counts == before[scene.name].label_counts
    manifest = prepare(masks, **BUILDINGS)
    assert np.isfinite([*manifest.bands.mean, *manifest.bands.std]).all()
    assert {tile.scene for tile in manifest.tiles if tile.valid_fraction < 1} == {"kampala_a"}


def test_sixteen_bits_among_eight(real_data: Path, tmp_path: Path) -> None:
    shutil.copytree(real_data / "nrcan_gdl_fixtures/massachusetts_1m", tmp_path / "massachusetts")
    pattern = r"23429155_15_uint16\.tif: 3 bands of uint16 found, but 3 bands of uint8 in .*22978945_15\.tif"
    found_by_both(tmp_path / "massachusetts", "bands", pattern, {"tile_px": TILE_PX}, scene="23429155_15_uint16")


def test_eight_bit_values_among_sixteen(sixteen_bits: Path) -> None:
    image = raster(sixteen_bits / "images/part_2.tif")
    image.write((image.pixels // 16).clip(1, 255).astype(np.uint16))
    pattern = r"8-bit values \(0 to 255\) in uint16 in scene part_2, the others use more"
    found_by_both(sixteen_bits, "radiometry", pattern, {"tile_px": TILE_PX}, level="warning", scene="part_2")


def test_a_rotated_geotransform(masks: Path) -> None:
    for kind in ("images", "labels"):
        file = raster(masks / kind / "catanduanes_b.tif")
        file.write(transform=file.profile["transform"] @ Affine.rotation(20))
    pattern = r"images/catanduanes_b\.tif: rotated by .*20 degrees, which tiles are not; resampled to a north-up grid"
    audit = found_by_both(masks, "georeference", pattern, BUILDINGS, level="warning", scene="catanduanes_b")
    scene = next(scene for scene in audit.scenes if scene.name == "catanduanes_b")
    assert (scene.grid.transform.b, scene.grid.transform.d) == (0, 0)
    assert scene.facts.valid_px == pytest.approx(512 * 512, rel=0.01)


def test_a_dark_scene_among_six_is_named(clean_land: Path, real_data: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(clean_land, tmp_path / "dubai"))
    for kind in ("images/t2_005.jpg", "masks/t2_005.png"):  # half of it is sea, and dark by itself
        (source / kind).unlink()
    for name in ("t2_004", "t2_006", "t2_009"):
        shutil.copy(real_data / f"dubai_mbrsc_landcover/images/{name}.jpg", source / "images")
        shutil.copy(real_data / f"dubai_mbrsc_landcover/masks/{name}.png", source / "masks")
    assert not [entry for entry in told(look(source, **LAND)) if "from the others" in entry]
    with Image.open(source / "images/t2_006.jpg") as image:
        dark = Image.fromarray((np.asarray(image) // 8).astype(np.uint8))
    dark.save(source / "images/t2_006.jpg", quality=95)
    pattern = r"scene t2_006 differs from the others: mean of band \w+ \d+(\.\d+)? in t2_006, median of all \d+"
    found_by_both(source, "radiometry", pattern, LAND, level="warning", scene="t2_006")
