"""Real imagery with further bands and on other grids, prepared as a user would."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
import rasterio.warp
from rasterio.enums import MaskFlags, Resampling

from ctrs.config import PrepareConfig
from ctrs.errors import DataWarning
from ctrs.raster.geotiff import open_raster
from ctrs.raster.units import ground_pixel_size_m
from ctrs.tiles import Manifest, prepare_tiles

if TYPE_CHECKING:
    from tests.tiles.conftest import Maker

# What these images are warned of otherwise is tested elsewhere.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ctrs.errors.LabelWarning"),
    pytest.mark.filterwarnings("ignore::ctrs.errors.MissingCrsWarning"),
    pytest.mark.filterwarnings("ignore::ctrs.errors.DataWarning"),
]


def link(folder: Path, file: Path, name: str | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / (name or file.name)).symlink_to(file)


def whole(manifest: Manifest, kind: str = "mask") -> np.ndarray:
    """Put the tiles of the only scene together."""
    grid = manifest.scenes[0].grid
    found: np.ndarray | None = None
    for tile in manifest.tiles:
        with open_raster(getattr(tile, kind)) as dataset:
            pixels = dataset.read()
        if found is None:
            found = np.full((len(pixels), *grid.shape), 255 if kind == "mask" else 0, pixels.dtype)
        found[(slice(None), *tile.window.slices)] = pixels
    assert found is not None
    return found[0] if kind == "mask" else found


def prepare(folder: Path, name: str, **options: Any) -> Manifest:
    return prepare_tiles(folder, folder.parent / name, PrepareConfig(val_fraction=0, tile_px=256, **options))


def iou(one: np.ndarray, other: np.ndarray, value: int) -> float:
    both = (one != 255) & (other != 255)
    return float(((one == value) & (other == value) & both).sum() / (((one == value) | (other == value)) & both).sum())


@pytest.mark.parametrize("options", [{"gsd_m": 1.0}, {"gsd_m": 0.3}, {"crs": "EPSG:32619", "gsd_m": 0.5}])
def test_land_cover_on_another_grid(make: Maker, real_data: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    """Classes painted from polygons, and the mask of these polygons resampled, say the same."""
    image = real_data / "nrcan_gdl_fixtures/new_brunswick_aerial_0.5m/23322E759967N_2of2.tif"
    for folder in ("polygons", "masks"):
        link(tmp_path / folder / "images", image)
    link(tmp_path / "polygons/labels", image.parent / "BakerLake_2017.gpkg", f"{image.stem}.gpkg")
    field = {"class_field": "Quatreclasses"}
    own = prepare(tmp_path / "polygons", "own", **field)
    with open_raster(image) as dataset:
        place = {"crs": dataset.crs, "transform": dataset.transform}
        assert np.array_equal(whole(own, "image"), dataset.read())
    make.raster(tmp_path / f"masks/labels/{image.stem}.tif", whole(own), nodata=255, **place)
    direct = prepare(tmp_path / "polygons", "direct", **field, **options)
    (tmp_path / "masks/classes.toml").write_text(classes_toml(own))
    warped = prepare(tmp_path / "masks", "warped", **options)
    assert direct.pixel_size_m == pytest.approx(options["gsd_m"], rel=1e-3)
    one, other = whole(direct), whole(warped)
    values = set(np.unique(whole(own)).tolist())
    assert set(np.unique(other).tolist()) == values | {255}
    for value in values - {255}:
        if (one == value).sum() > 5000:
            assert iou(one, other, value) > 0.95  # narrow roads: a quarter of a pixel is 2 % of them


def classes_toml(manifest: Manifest) -> str:
    rows = [f'{{ name = "{name}", value = {value} }}' for value, name in enumerate(manifest.classes.names)]
    ignored = '{ name = "none", value = 255, ignored = true }'
    return f"class = [{', '.join([*rows, ignored])}]"


def test_buildings_in_ground_metres(real_data: Path, tmp_path: Path) -> None:
    """Web Mercator imagery in UTM: true ground pixels, holes stay holes, and buildings lie on their polygons."""
    folder = real_data / "oam_fair_buildings"
    for name, label in (("polygons", "labels/kampala_a.geojson"), ("masks", "masks/kampala_a_z20_mask.tif")):
        link(tmp_path / name / "images", folder / "scenes/kampala_a_z20.tif", "kampala_a.tif")
        link(tmp_path / name / "labels", folder / label, f"kampala_a{Path(label).suffix}")
    options: dict[str, Any] = {"crs": "EPSG:32636", "gsd_m": 0.2}
    direct = prepare(tmp_path / "polygons", "direct", **options)
    (tmp_path / "masks/classes.toml").write_text(classes_toml(direct))
    warped = prepare(tmp_path / "masks", "warped", **options)
    assert ground_pixel_size_m(direct.scenes[0].grid) == pytest.approx((0.2, 0.2))
    one, other = whole(direct), whole(warped)
    assert np.array_equal(one == 255, other == 255)
    assert iou(one, other, 1) > 0.98
    with open_raster(folder / "scenes/kampala_a_z20.tif") as dataset:
        grid = direct.scenes[0].grid
        expected = np.zeros((3, *grid.shape), np.uint8)
        rasterio.warp.reproject(
            dataset.read([1, 2, 3]), expected, src_transform=dataset.transform, src_crs=dataset.crs,
            dst_transform=grid.transform, dst_crs=grid.crs, resampling=Resampling.bilinear, tolerance=0,
        )  # fmt: skip
        share = (dataset.dataset_mask() > 0).mean()
    difference = np.abs(whole(direct, "image").astype(int) - expected)[:, one != 255]
    assert difference.mean() < 4
    x, y = ground_pixel_size_m(direct.scenes[0].grid)
    own_x, own_y = ground_pixel_size_m_of(folder / "scenes/kampala_a_z20.tif")
    assert (one != 255).sum() * x * y == pytest.approx(share * 1536 * 1024 * own_x * own_y, rel=2e-3)


def ground_pixel_size_m_of(path: Path) -> tuple[float, float]:
    from ctrs.raster.geotiff import Grid

    with open_raster(path) as dataset:
        return ground_pixel_size_m(Grid.of(dataset))


def test_four_bands_the_last_marked_as_alpha(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "nrcan_gdl_fixtures/spacenet4_atlanta_rgbnir_0.5m"
    link(tmp_path / "src/images", folder / "732701_3729639.tif")
    link(tmp_path / "src/labels", folder / "732701_3729639.geojson")
    manifest = prepare(tmp_path / "src", "out", bidx=(1, 2, 3, 4))
    assert manifest.bands.names == ("red", "green", "blue", "band_4")
    with open_raster(folder / "732701_3729639.tif") as dataset:
        assert np.array_equal(whole(manifest, "image"), dataset.read())
    with open_raster(manifest.tiles[0].image) as dataset:
        assert dataset.count == 4
        assert MaskFlags.alpha not in dataset.mask_flag_enums[0]
    assert len(prepare(tmp_path / "src", "three").bands.names) == 3
    coarse = prepare(tmp_path / "src", "coarse", bidx=(3, 1), gsd_m=1.0)
    assert coarse.bands.names == ("blue", "red")
    assert coarse.bands.mean[0] == pytest.approx(manifest.bands.mean[2], rel=0.01)


def test_infrared_marked_as_alpha_without_georeference(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "chesapeake_naip_rgbn_wv"
    image = sorted((folder / "images").glob("*.tif"))[0]
    label = next(path for path in folder.rglob(f"{image.stem}*") if path.suffix == ".tif" and path != image)
    link(tmp_path / "src/images", image)
    link(tmp_path / "src/labels", label, image.name)
    manifest = prepare(tmp_path / "src", "out", bidx=(4, 3, 2))
    with open_raster(image) as dataset:
        assert np.array_equal(whole(manifest, "image"), dataset.read([4, 3, 2]))
    with pytest.warns(DataWarning, match=rf"{image.name}: band 4 is marked as alpha but holds more than 32 different"):
        assert len(prepare(tmp_path / "src", "three").bands.names) == 3
