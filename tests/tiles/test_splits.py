"""Splits by place: compact, about the share asked for, and never the same ground, or ground nearby, on two sides."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from ctrs.config import SplitName
from ctrs.raster.geotiff import Grid
from ctrs.raster.windows import sliding_windows
from ctrs.tiles.footprints import tile_footprints
from ctrs.tiles.ground import Length, Place
from ctrs.tiles.splits import (
    Parcels,
    deal_by_place,
    near_other_splits,
    shared_ground,
)

UTM = CRS.from_epsg(32633)


def make_grid(
    width: int, height: int, *, x: float = 0.0, y: float = 0.0, pixel: float = 1.0, crs: CRS | None = UTM
) -> Grid:
    return Grid(crs=crs, transform=Affine(pixel, 0, 400000 + x, 0, -pixel, 5800000 + y), width=width, height=height)


def cut(name: str, grid: Grid, size: int = 64, stride: int | None = None) -> list[Place]:
    rng = np.random.default_rng(len(name))
    return [
        Place(scene=name, grid=grid, window=window, class_counts=tuple(rng.integers(0, 99, 3).tolist()))
        for window in sliding_windows(grid.height, grid.width, size, stride or size)
    ]


def choose_validation(places: list[Place], *, val_fraction: float, seed: int) -> list[bool]:
    dealt = deal_by_place(places, val_fraction=val_fraction, test_fraction=0.0, seed=seed)
    return [split == "val" for split in dealt]


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
    pieces = Parcels.of(places).numbers.tolist()
    assert pieces[2] == pieces[3] == pieces[4]  # a's shifted edge and b's first tile
    assert len(set(pieces)) == 5
    assert shared_area(places, choose_validation(places, val_fraction=0.3, seed=0)) == 0


def test_neighbouring_files_with_rounded_grids_are_no_overlap() -> None:
    places = cut("a", make_grid(64, 64)) + cut("b", make_grid(64, 64, x=63.7))
    assert len(set(Parcels.of(places).numbers.tolist())) == 2


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


def corners_of(place: Place) -> list[tuple[float, float]]:
    """Corners on the ground, worked out here without the code under test."""
    window, transform = place.window, place.grid.transform
    left, top = window.col_off, window.row_off
    right, bottom = left + window.width, top + window.height
    return [transform @ corner for corner in ((left, top), (right, top), (right, bottom), (left, bottom))]


def seam(first: Place, second: Place) -> float:
    """Width up to which two tiles may overlap and still count as neighbours: half a pixel of each."""
    return 0.5 * (first.grid.transform.a + second.grid.transform.a)


def kept_sides(
    places: list[Place], dealt: list[SplitName], buffer: Length | None
) -> tuple[list[Place], list[SplitName]]:
    left_out = near_other_splits(places, dealt, buffer)
    kept = [number for number, guarded in enumerate(left_out) if guarded is None]
    return [places[number] for number in kept], [dealt[number] for number in kept]


@st.composite
def surveys(draw: st.DrawFn) -> list[Place]:
    """One to three scenes of one or two resolutions that may overlap, in tiles that may overlap too."""
    size = draw(st.sampled_from([16, 32]))
    places: list[Place] = []
    for name in ("a", "b", "c")[: draw(st.integers(1, 3))]:
        crs = draw(st.sampled_from([UTM, UTM, None]))
        width, height = draw(st.integers(10, 150)), draw(st.integers(10, 150))
        if crs is None:
            grid = Grid(crs=None, transform=Affine.identity(), width=width, height=height)
        else:
            pixel = draw(st.sampled_from([1.0, 2.0]))
            grid = make_grid(width, height, x=4.0 * draw(st.integers(0, 60)), pixel=pixel)
        places += cut(name, grid, size, draw(st.sampled_from([size // 4, size // 2, size - 3, size])))
    return places


@settings(max_examples=80)
@given(
    places=surveys(),
    seed=st.integers(0, 3),
    fractions=st.tuples(st.sampled_from([0.0, 0.2, 0.5]), st.sampled_from([0.0, 0.2, 0.5])),
    block=st.sampled_from([None, Length(px=24), Length(px=64)]),
    buffer=st.sampled_from([None, Length(px=0), Length(px=5), Length(px=30)]),
)
def test_no_ground_lies_within_the_buffer_of_two_splits(
    places: list[Place], seed: int, fractions: tuple[float, float], block: Length | None, buffer: Length | None
) -> None:
    val_fraction, test_fraction = fractions
    dealt = deal_by_place(places, val_fraction=val_fraction, test_fraction=test_fraction, seed=seed, block=block)
    kept, splits = kept_sides(places, dealt, buffer)
    for space in ("ground", "a", "b", "c"):
        own = [n for n, place in enumerate(kept) if space == ("ground" if place.grid.crs else place.scene)]
        shapes = [shapely.Polygon(corners_of(kept[number])) for number in own]
        for first, one in enumerate(own):
            for second, other in enumerate(own[:first]):
                if splits[one] == splits[other]:
                    continue
                shared = shapely.intersection(shapes[first], shapes[second])
                if shared.area > 0:  # a strip as wide as grids of neighbouring files are rounded by, never more
                    assert kept[one].scene != kept[other].scene
                    west, south, east, north = shared.bounds
                    assert min(east - west, north - south) < seam(kept[one], kept[other])
                if buffer is not None and buffer.px is not None:
                    pixel = max(kept[one].grid.transform.a, kept[other].grid.transform.a)
                    assert shapely.distance(shapes[first], shapes[second]) >= (buffer.px - 0.02) * pixel


@settings(max_examples=20)
@given(places=surveys(), seed=st.integers(0, 3), buffer=st.sampled_from([None, Length(px=9)]))
def test_no_tile_is_left_out_without_need(places: list[Place], seed: int, buffer: Length | None) -> None:
    dealt = deal_by_place(places, val_fraction=0.3, test_fraction=0.2, seed=seed, block=Length(px=32))
    for number, guarded in enumerate(near_other_splits(places, dealt, buffer)):
        if guarded is None:
            continue
        own = shapely.Polygon(corners_of(places[number]))
        space = places[number].grid.crs, places[number].grid.crs or places[number].scene
        others = [
            (shapely.Polygon(corners_of(place)), place.grid.transform.a)
            for place, split in zip(places, dealt, strict=True)
            if split == guarded and (place.grid.crs, place.grid.crs or place.scene) == space
        ]
        assert any(
            own.intersection(other).area > 0
            or (buffer is not None and own.distance(other) < 9 * max(pixel, places[number].grid.transform.a))
            for other, pixel in others
        )


def test_overlapping_tiles_are_divided_in_blocks_and_those_on_the_border_left_out() -> None:
    places = cut("a", make_grid(640, 640), stride=32)
    dealt = deal_by_place(places, val_fraction=0.15, test_fraction=0.15, seed=0, block=Length(px=64))
    kept, splits = kept_sides(places, dealt, None)
    assert shared_area(kept, [split == "train" for split in splits]) == 0
    assert len(places) == 361
    shares = [splits.count(split) / len(splits) for split in ("val", "test")]
    assert all(0.1 <= share <= 0.25 for share in shares)
    # A strip of one tile along the borders of two compact places, not more.
    assert 10 <= len(places) - len(kept) <= 80


def test_shares_of_training_validation_and_test() -> None:
    places = cut("a", make_grid(640, 640))
    dealt = deal_by_place(places, val_fraction=0.2, test_fraction=0.1, seed=3)
    assert [dealt.count(split) for split in ("train", "val", "test")] == [70, 20, 10]
    assert kept_sides(places, dealt, None)[1] == dealt


def test_the_test_does_not_move_with_the_share_of_validation() -> None:
    places = cut("a", make_grid(640, 640))
    tests = [
        [split == "test" for split in deal_by_place(places, val_fraction=share, test_fraction=0.2, seed=1)]
        for share in (0.0, 0.1, 0.3)
    ]
    assert tests[0] == tests[1] == tests[2]


def test_the_same_seed_deals_the_same_whatever_the_order() -> None:
    places = cut("a", make_grid(640, 320, x=6.0), stride=40) + cut("b", make_grid(320, 320, x=500.0), stride=48)
    options = {"val_fraction": 0.2, "test_fraction": 0.2, "seed": 4, "block": Length(px=80)}
    assert deal_by_place(places, **options) == deal_by_place(places, **options)
    others = {tuple(deal_by_place(places, **{**options, "seed": seed})) for seed in range(4)}
    assert len(others) > 1


def test_blocks_are_the_same_ground_in_overlapping_scenes() -> None:
    first, second = make_grid(512, 512), make_grid(512, 512, x=128.0)
    places = cut("a", first) + cut("b", second)
    parcels = Parcels.of(places, Length(m=128))
    assert parcels.are_blocks
    blocks: dict[tuple[float, float], set[int]] = {}
    for place, number in zip(places, parcels.numbers.tolist(), strict=True):
        blocks.setdefault(corners_of(place)[0], set()).add(number)
    shared = [numbers for corner, numbers in blocks.items() if 400128 <= corner[0] < 400512]
    assert len(shared) == 6 * 8
    assert all(len(numbers) == 1 for numbers in shared)
    # Blocks of 128 m hold four tiles of 64 m, but the grid starts at the origin of the CRS.
    assert 25 <= len(set(parcels.numbers.tolist())) <= 54


def test_blocks_in_metres_are_ground_metres() -> None:
    mercator = Grid(
        crs=CRS.from_epsg(3857), transform=Affine(2, 0, 1_600_000, 0, -2, 8_400_000), width=400, height=400
    )  # 60 degrees north: a unit is half a metre
    places = cut("a", mercator, 16)
    parcels = Parcels.of(places, Length(m=100))
    # 800 units are 400 m: four blocks along each axis, one more where the grid does not start at a border.
    assert 16 <= len(set(parcels.numbers.tolist())) <= 25
    near = near_other_splits(
        [places[0], places[12]], ["train", "test"], Length(m=12 * 16 - 16 + 5)
    )  # 176 px of 2 units, 1 m each, lie between them
    assert near == ["test", None]
    assert near_other_splits([places[0], places[12]], ["train", "test"], Length(m=12 * 16 - 16 - 5)) == [None, None]


def test_scenes_that_overlap_throughout_are_dealt_out_in_blocks() -> None:
    grids = [make_grid(256, 256, x=37.0 * number, y=23.0 * number) for number in range(30)]
    places = [place for number, grid in enumerate(grids) for place in cut(f"s{number:02}", grid)]
    assert Parcels.of(places).are_blocks
    dealt = deal_by_place(places, val_fraction=0.2, test_fraction=0.0, seed=0)
    kept, splits = kept_sides(places, dealt, None)
    assert splits.count("val") > 30
    assert shared_area(kept, [split == "val" for split in splits]) < 1e-6


def test_a_buffer_counts_across_scenes() -> None:
    here, there = cut("a", make_grid(64, 64)), cut("b", make_grid(64, 64, x=84.0))
    assert near_other_splits(here + there, ["train", "test"], Length(m=20)) == [None, None]
    assert near_other_splits(here + there, ["train", "test"], Length(m=21)) == ["test", None]
    assert near_other_splits(here + there, ["val", "train"], Length(px=21)) == [None, "val"]


def test_scenes_too_small_for_a_buffer_are_dealt_out_as_a_whole() -> None:
    grid = Grid(crs=None, transform=Affine.identity(), width=128, height=128)
    places = [place for number in range(40) for place in cut(f"t{number:02}", grid)]
    options = {"val_fraction": 0.25, "test_fraction": 0.25, "seed": 0}
    dealt = deal_by_place(places, **options, buffer=Length(px=10))
    assert near_other_splits(places, dealt, Length(px=10)) == [None] * 160
    assert [dealt.count(split) for split in ("train", "val", "test")] == [80, 40, 40]
    # Without a buffer nothing is lost, so each scene gives its share.
    assert (
        len(
            {
                place.scene
                for place, split in zip(places, deal_by_place(places, **options), strict=True)
                if split == "val"
            }
        )
        == 40
    )


def test_thousands_of_scenes_without_georeference_take_no_time() -> None:
    grid = Grid(crs=None, transform=Affine.identity(), width=128, height=128)
    places = [place for number in range(600) for place in cut(f"t{number:04}", grid)]
    dealt = deal_by_place(places, val_fraction=0.25, test_fraction=0.25, seed=0)
    assert near_other_splits(places, dealt).count(None) == len(places)
    assert dealt.count("test") == 600
