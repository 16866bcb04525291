"""Validation by place: compact, about the share asked for, and never the ground of a training tile."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from ctrs.raster.geotiff import Grid
from ctrs.raster.windows import sliding_windows
from ctrs.tiles.footprints import tile_footprints
from ctrs.tiles.ground import Place
from ctrs.tiles.splits import choose_validation, shared_ground, tie_overlapping

UTM = CRS.from_epsg(32633)


def make_grid(width: int, height: int, *, x: float = 0.0, pixel: float = 1.0, crs: CRS | None = UTM) -> Grid:
    return Grid(crs=crs, transform=Affine(pixel, 0, 400000 + x, 0, -pixel, 5800000), width=width, height=height)


def cut(name: str, grid: Grid, size: int = 64) -> list[Place]:
    rng = np.random.default_rng(len(name))
    return [
        Place(scene=name, grid=grid, window=window, class_counts=tuple(rng.integers(0, 99, 3).tolist()))
        for window in sliding_windows(grid.height, grid.width, size, size)
    ]


def shared_area(places: list[Place], chosen: list[bool]) -> float:
    shapes = tile_footprints([(place.grid, place.window) for place in places], None)
    flags = np.array(chosen)
    return float(
        shapely.area(shapely.intersection(shapely.union_all(shapes[flags]), shapely.union_all(shapes[~flags])))
    )


@settings(max_examples=60)
@given(st.integers(10, 900), st.integers(10, 900), st.integers(0, 5), st.floats(0.05, 0.5))
def test_no_ground_lies_on_both_sides(width: int, height: int, seed: int, fraction: float) -> None:
    places = cut("a", make_grid(width, height))
    chosen = choose_validation(places, val_fraction=fraction, seed=seed)
    assert not all(chosen)
    assert shared_area(places, chosen) == 0


def test_the_share_is_about_what_was_asked_for_and_compact() -> None:
    places = cut("a", make_grid(640, 640))
    chosen = choose_validation(places, val_fraction=0.2, seed=1)
    assert sum(chosen) == 20
    shapes = tile_footprints([(place.grid, place.window) for place in places], None)
    block = shapely.union_all(shapes[np.array(chosen)])
    assert block.geom_type == "Polygon"
    # The border with training ground is that of a block, not of 20 tiles strewn about (some 70 edges).
    inner = block.boundary.intersection(shapely.union_all(shapes[~np.array(chosen)]).boundary)
    assert inner.length / 64 <= 20


def test_seed_and_scene_alone_decide() -> None:
    first = cut("a", make_grid(640, 640))
    second = cut("bb", make_grid(640, 640, x=10000))
    alone = choose_validation(first, val_fraction=0.15, seed=0)
    together = choose_validation([*second, *first], val_fraction=0.15, seed=0)
    assert together[len(second) :] == alone
    others = {tuple(choose_validation(first, val_fraction=0.15, seed=seed)) for seed in range(6)}
    assert len(others) > 1


def test_validation_has_the_classes_of_the_scene() -> None:
    grid = make_grid(640, 640)
    places = [
        Place(scene="a", grid=grid, window=window, class_counts=(4096, 4096) if window.row_off < 128 else (8192, 0))
        for window in sliding_windows(640, 640, 64, 64)
    ]
    for seed in range(5):
        chosen = choose_validation(places, val_fraction=0.15, seed=seed)
        assert sum(place.class_counts[1] for place, flag in zip(places, chosen, strict=True) if flag) > 0


def test_training_keeps_each_class() -> None:
    grid = make_grid(640, 640)
    places = [
        Place(scene="a", grid=grid, window=window, class_counts=(9, 9 * (window.row_off < 64 and window.col_off < 128)))
        for window in sliding_windows(640, 640, 64, 64)
    ]
    for seed in range(5):
        chosen = choose_validation(places, val_fraction=0.15, seed=seed)
        assert sum(place.class_counts[1] for place, flag in zip(places, chosen, strict=True) if not flag) > 0


def test_the_same_ground_at_two_resolutions_moves_as_one() -> None:
    coarse = cut("z20", make_grid(512, 256, pixel=2.0))
    fine = cut("z21", make_grid(1024, 512, pixel=1.0))
    places = coarse + fine
    chosen = choose_validation(places, val_fraction=0.2, seed=0)
    assert any(chosen)
    assert shared_area(places, chosen) == 0
    assert {place.scene for place, flag in zip(places, chosen, strict=True) if flag} == {"z20", "z21"}


def test_overlapping_scenes_off_the_grid_stay_together() -> None:
    places = cut("a", make_grid(200, 64)) + cut("b", make_grid(200, 64, x=170.3))
    pieces = tie_overlapping(places).tolist()
    assert pieces[2] == pieces[3] == pieces[4]  # a's shifted edge and b's first tile
    assert len(set(pieces)) == 5
    assert shared_area(places, choose_validation(places, val_fraction=0.3, seed=0)) == 0


def test_neighbouring_files_with_rounded_grids_are_no_overlap() -> None:
    places = cut("a", make_grid(64, 64)) + cut("b", make_grid(64, 64, x=63.7))
    assert len(set(tie_overlapping(places))) == 2


def test_scenes_too_small_to_divide_stay_in_training_beside_larger_ones() -> None:
    places = cut("small", make_grid(64, 64)) + cut("large", make_grid(640, 640, x=10000))
    chosen = choose_validation(places, val_fraction=0.15, seed=0)
    assert chosen[0] is False
    assert sum(chosen) == 15


def test_whole_scenes_are_taken_where_none_can_be_divided() -> None:
    places = [place for number in range(20) for place in cut(f"s{number:02}", make_grid(64, 64, x=64 * number))]
    chosen = np.array(choose_validation(places, val_fraction=0.15, seed=0))
    assert chosen.sum() == 3
    assert np.ptp(np.flatnonzero(chosen)) == 2  # neighbours


def test_whole_scenes_without_georeference_follow_the_order_of_names() -> None:
    grid = Grid(crs=None, transform=Affine.identity(), width=100, height=90)
    places = [place for number in range(12) for place in cut(f"t{number:02}", grid)]
    chosen = choose_validation(places, val_fraction=0.15, seed=0)
    names = sorted({place.scene for place, flag in zip(places, chosen, strict=True) if flag})
    assert len(names) == 2
    assert int(names[1][1:]) - int(names[0][1:]) == 1


def test_a_lone_small_scene_gives_one_tile() -> None:
    assert sum(choose_validation(cut("a", make_grid(128, 64)), val_fraction=0.15, seed=0)) == 1


@pytest.mark.parametrize(("size", "fraction"), [(64, 0.15), (640, 0.0)])
def test_nothing_to_divide(size: int, fraction: float) -> None:
    assert not any(choose_validation(cut("a", make_grid(size, size)), val_fraction=fraction, seed=0))
    assert choose_validation([], val_fraction=0.15, seed=0) == []


def test_shared_ground_is_found_between_splits_only() -> None:
    first, second = make_grid(100, 100), make_grid(100, 50, x=90)
    assert shared_ground([("a", "train", first), ("b", "train", second)]) == []
    (found,) = shared_ground([("a", "train", first), ("b", "test", second)])
    assert (found.first, found.second) == ("a", "b")
    assert found.share == pytest.approx(0.1, abs=0.01)
    assert shared_ground([("a", "train", first), ("b", "test", make_grid(100, 50, x=100))]) == []


def test_scenes_without_georeference_share_no_ground() -> None:
    grid = Grid(crs=None, transform=Affine.identity(), width=100, height=90)
    assert shared_ground([("a", "train", grid), ("b", "test", grid)]) == []


def test_ground_is_compared_across_crs() -> None:
    here = Grid(crs=UTM, transform=Affine(1, 0, 500000, 0, -1, 5800000), width=1000, height=1000)
    left, top = 15.0, 52.35
    there = Grid(crs=CRS.from_epsg(4326), transform=Affine(1e-5, 0, left, 0, -1e-5, top), width=1000, height=1000)
    assert shared_ground([("a", "train", here), ("b", "test", there)])
