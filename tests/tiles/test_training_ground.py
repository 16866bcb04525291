from __future__ import annotations

from pathlib import Path

import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS

from ctrs.raster.geotiff import Grid
from ctrs.raster.windows import PixelWindow
from ctrs.tiles.tile_table import Tile
from ctrs.tiles.training_ground import MAX_POLYGONS, training_ground


def tile(scene: str, split: str = "train", col: int = 0) -> Tile:
    window = PixelWindow(col_off=col, row_off=0, width=100, height=100)
    return Tile(
        scene=scene, split=split, window=window, image=Path("i"), mask=Path("m"), valid_fraction=1.0, class_counts=(1,)
    )


def grid(west: float, north: float, crs: str | None = "EPSG:4326", edge: float = 0.00001) -> Grid:
    found = None if crs is None else CRS.from_user_input(crs)
    return Grid(crs=found, transform=Affine(edge, 0, west, 0, -edge, north), width=300, height=100)


def test_only_training_tiles_count() -> None:
    tiles = [tile("a"), tile("a", "train", 100), tile("a", "val", 200)]
    geometry = training_ground(tiles, {"a": grid(11.0, 48.0)})
    assert geometry is not None
    assert shapely.geometry.shape(geometry).bounds == pytest.approx((11.0, 47.999, 11.002, 48.0))


def test_projected_scenes_come_in_degrees() -> None:
    geometry = training_ground([tile("a")], {"a": grid(500000, 5300000, "EPSG:32633", edge=1.0)})
    assert geometry is not None
    west, south, east, north = shapely.geometry.shape(geometry).bounds
    assert west == pytest.approx(15.0, abs=1e-6)
    assert 47.8 < south < north < 47.9
    assert 15.0 < east < 15.01


def test_without_a_crs_there_is_no_ground() -> None:
    assert training_ground([tile("a")], {"a": grid(0, 0, None)}) is None
    assert training_ground([tile("a", "val")], {"a": grid(0, 0)}) is None
    assert training_ground([tile("a"), tile("b")], {"a": grid(0, 0), "b": grid(0, 0, None)}) is None


def test_apart_scenes_are_apart_and_many_become_cells() -> None:
    names = [f"s{place}" for place in range(MAX_POLYGONS)]
    grids = {name: grid(place * 0.02, 40.0005) for place, name in enumerate(names)}
    geometry = training_ground([tile(name) for name in names], grids)
    assert geometry is not None
    assert len(geometry["coordinates"]) == MAX_POLYGONS
    grids["more"] = grid(MAX_POLYGONS * 0.02, 40.0005)
    coarse = training_ground([tile(name) for name in grids], grids)
    assert coarse is not None
    ground = shapely.geometry.shape(coarse)
    assert shapely.get_num_geometries(ground) <= MAX_POLYGONS
    assert ground.covers(shapely.geometry.shape(geometry))
    assert ground.is_valid
