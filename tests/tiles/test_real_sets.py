"""Real imagery with all its flaws, prepared as a user would."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import geopandas
import numpy as np
import pytest
import rasterio

from ctrs.config import PrepareConfig
from ctrs.errors import BandMismatchError, DataError, DataWarning, LabelWarning, MissingCrsWarning, UnknownColorError
from ctrs.raster.geotiff import open_raster
from ctrs.tiles import Manifest, prepare_tiles

if TYPE_CHECKING:
    from tests.tiles.conftest import Maker

LEGEND = """
class = [
    { name = "water", color = [226, 169, 41] },
    { name = "land", color = [132, 41, 246] },
    { name = "road", color = [110, 193, 228] },
    { name = "building", color = [60, 16, 152] },
    { name = "vegetation", color = [254, 221, 58] },
    { name = "unlabelled", color = [155, 155, 155], ignored = true },
EXTRA]
"""


def link(folder: Path, *files: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        (folder / file.name).symlink_to(file)


def link_scenes(root: Path, folder: Path, *scenes: str) -> Path:
    for scene in scenes:
        link(root / "scenes", folder / f"scenes/{scene}_z20.tif")
        link(root / "labels", folder / f"labels/{scene}.geojson")
    return root


def whole_mask(manifest: Manifest, scene: str, kind: str = "mask") -> np.ndarray:
    grid = manifest.scene(scene).grid
    mask = np.full(grid.shape, 254, np.uint8)
    for tile in manifest.tiles:
        if tile.scene == scene:
            with rasterio.open(getattr(tile, kind)) as dataset:
                mask[tile.window.slices] = dataset.read(1)
    return mask


def test_buildings_of_three_places(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "oam_fair_buildings"
    source = link_scenes(tmp_path / "oam", folder, "kampala_a", "kampala_b", "catanduanes_a", "catanduanes_b")
    config = PrepareConfig(test=("catanduanes_*",))
    with pytest.warns(LabelWarning, match=r"kampala_a\.geojson: 1 of 108 polygons were invalid and have been repaired"):
        manifest = prepare_tiles(source, tmp_path / "out", config)
    assert {scene.name: scene.split for scene in manifest.scenes} == {
        "catanduanes_a_z20": "test", "catanduanes_b_z20": "test",
        "kampala_a_z20": "train+val", "kampala_b_z20": "train",
    }  # fmt: skip
    assert manifest.pixel_size_m == pytest.approx(0.147, abs=0.003)
    for scene in ("kampala_a", "catanduanes_a"):
        with (
            open_raster(folder / f"masks/{scene}_z20_mask.tif") as dataset,
            open_raster(folder / f"scenes/{scene}_z20.tif") as image,
        ):
            expected, valid = dataset.read(1), image.dataset_mask() > 0
        found = whole_mask(manifest, f"{scene}_z20")
        assert np.array_equal(found == 255, ~valid)  # holes in bright roofs
        assert (found != expected)[valid].sum() <= 30
    frame = geopandas.read_parquet(tmp_path / "out/manifest.parquet")
    assert frame.crs.to_epsg() == 3857


def test_two_resolutions_of_one_place_stay_on_one_side(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "oam_fair_buildings"
    source = link_scenes(tmp_path / "oam", folder, "kampala_a")
    link(source / "scenes", folder / "scenes/kampala_a_z21.tif")
    shared = r"kampala_a_z20 \(test\) and kampala_a_z21 \(train\) share 100 % of"
    with pytest.warns(LabelWarning, match="repaired"), pytest.raises(DataError, match=shared):
        prepare_tiles(source, tmp_path / "out", PrepareConfig(test=("kampala_a_z20",)))
    with pytest.warns((LabelWarning, DataWarning)):
        prepare_tiles(source, tmp_path / "out")
    frame = geopandas.read_parquet(tmp_path / "out/manifest.parquet")
    val, train = (frame[frame.split == split].geometry.union_all() for split in ("val", "train"))
    assert val.area > 0
    assert val.intersection(train).area < 1e-6 * val.area
    assert set(frame[frame.split == "val"].scene) == {"kampala_a_z20", "kampala_a_z21"}


def test_jpegs_named_tif_keep_their_crs_from_the_sidecar(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "oam_banepa_urban"
    for path in sorted(folder.glob("chips/OAM-38669[01]-*.tif*")):
        link(tmp_path / "src/chips", path)
    link(tmp_path / "src/labels", folder / "labels/buildings.geojson")
    manifest = prepare_tiles(tmp_path / "src", tmp_path / "out")
    assert len(manifest.tiles) == 16
    assert len(manifest.split("val")) == 2
    tile = manifest.tiles[3]
    with rasterio.open(tile.image) as image, rasterio.open(tile.mask) as mask:
        assert image.driver == "GTiff"
        assert image.crs.to_epsg() == 4326
        with (
            open_raster(folder / f"chips/{tile.scene}.tif") as chip,
            open_raster(folder / f"chip_masks/{tile.scene}.tif") as chip_mask,
        ):
            assert image.transform.almost_equals(chip.transform)
            assert np.array_equal(image.read(), chip.read())
            assert (mask.read(1) != chip_mask.read(1)).sum() <= 20
    frame = geopandas.read_parquet(tmp_path / "out/manifest.parquet")
    val, train = (frame[frame.split == split].geometry.union_all() for split in ("val", "train"))
    assert val.buffer(1e-6).intersects(train)
    assert val.buffer(1e-6).geom_type == "Polygon"  # the two validation chips are neighbours


def test_dubai_with_a_table_of_its_colors(real_data: Path, tmp_path: Path) -> None:
    folder, source = real_data / "dubai_mbrsc_landcover", tmp_path / "dubai"
    for name in ("t1_001", "t2_003", "t4_002", "t3_006", "t5_003"):
        link(source / "images", folder / f"images/{name}.jpg")
        link(source / "masks", folder / f"masks/{name}.png")
    (source / "classes.toml").write_text(LEGEND.replace("EXTRA", ""))
    with (
        pytest.warns(MissingCrsWarning),
        pytest.raises(
            UnknownColorError,
            match=r"t3_006\.png: unknown label colour \(0, 0, 0\) in 302 px, first at row 0, column 0; ",
        ),
    ):
        prepare_tiles(source, tmp_path / "out")
    extra = '    { name = "stray", color = [0, 0, 0], ignored = true },\n'
    (source / "classes.toml").write_text(LEGEND.replace("EXTRA", extra))
    with pytest.warns(MissingCrsWarning, match=r"t1_001\.jpg and 4 more: no CRS found"):
        manifest = prepare_tiles(source, tmp_path / "out", PrepareConfig(val=("t5*",), test=("t3*",)))
    assert manifest.splits == ("train", "val", "test")
    from PIL import Image

    legend = np.array([entry.color for entry in manifest.classes.learnt])
    for name in ("t1_001", "t2_003", "t4_002"):  # RGB, palette, palette
        rgb = np.asarray(Image.open(folder / f"masks/{name}.png").convert("RGB"))
        mask = whole_mask(manifest, name)
        assert (mask != 254).all()
        learnt = mask != 255
        assert np.array_equal(legend[mask[learnt]], rgb[learnt])
        assert set(map(tuple, rgb[~learnt].tolist())) <= {(155, 155, 155), (0, 0, 0)}


def test_geopackage_with_four_classes(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "nrcan_gdl_fixtures/new_brunswick_aerial_0.5m"
    config = PrepareConfig(class_field="Quatreclasses", tile_px=128)
    with pytest.warns(LabelWarning, match="255 in 1 polygons is taken as ignored|classes overlap on 286"):
        manifest = prepare_tiles(source, tmp_path / "out", config)
    assert manifest.classes.names == ("background", "class_1", "class_2", "class_3", "class_4")
    assert min(manifest.class_counts("train")) > 0
    with rasterio.open(manifest.tiles[0].image) as tile:
        assert tile.crs.to_epsg() == 2953


def test_sixteen_bits_with_nodata(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "nrcan_gdl_fixtures/massachusetts_1m"
    with pytest.raises(BandMismatchError, match="3 bands of uint16 found, but 3 bands of uint8 in"):
        prepare_tiles(folder, tmp_path / "both")
    link(tmp_path / "src", folder / "23429155_15_uint16.tif", folder / "23429155_15.gpkg")
    manifest = prepare_tiles(tmp_path / "src", tmp_path / "out", PrepareConfig(tile_px=256))
    assert manifest.bands.dtype == "uint16"
    assert manifest.bands.nodata == 255
    assert all(high < 255 for high in manifest.bands.high)
    assert manifest.class_counts("train")[1] > 0
    pan = real_data / "solaris_spacenet_atlanta_pan16"
    link(tmp_path / "pan", pan / "sample_geotiff.tif", pan / "geotiff_labels.geojson")
    manifest = prepare_tiles(tmp_path / "pan", tmp_path / "pan_out", PrepareConfig(tile_px=256))
    assert manifest.bands.names == ("gray",)
    assert 1000 < manifest.bands.high[0] < 4000


def test_label_whose_nodata_is_a_class(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "nrcan_gdl_fixtures/quebec_aerial_chips"
    link(tmp_path / "src", folder / "image_15cm.tif", folder / "label_15cm.tif")
    with pytest.warns(LabelWarning, match="declared nodata value is that of class background; it is read as the class"):
        manifest = prepare_tiles(tmp_path / "src", tmp_path / "out", PrepareConfig(tile_px=256))
    counts = np.sum([manifest.class_counts(split) for split in manifest.splits], axis=0)
    with open_raster(folder / "label_15cm.tif") as dataset:
        assert counts.tolist() == np.bincount(dataset.read(1).ravel()).tolist()


def test_near_infrared_marked_as_alpha(make: Maker, real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "chesapeake_naip_rgbn_wv"
    for kind in ("images", "masks"):
        for path in sorted((folder / kind).glob("*-[12].tif")):
            (tmp_path / "src" / kind).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, tmp_path / "src" / kind)
    with pytest.warns((DataWarning, MissingCrsWarning)) as caught:
        manifest = prepare_tiles(tmp_path / "src", tmp_path / "out")
    assert any("and 3 more: band 4 is marked as alpha" in str(entry.message) for entry in caught)
    assert manifest.bands.count == 3
    for path in (tmp_path / "src/images").iterdir():
        with open_raster(path) as dataset:
            pixels = dataset.read()
        make.raster(path, pixels, alpha="NO", photometric="MINISBLACK")
    with pytest.warns(MissingCrsWarning):
        manifest = prepare_tiles(tmp_path / "src", tmp_path / "four")
    assert manifest.bands.count == 4
    with open_raster(manifest.tiles[0].image) as tile:
        assert tile.count == 4
