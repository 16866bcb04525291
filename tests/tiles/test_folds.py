"""Folds by place: equal in size and classes, compact, and no ground of a fold is trained on when it validates."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from ctrs.errors import DataError
from ctrs.raster.geotiff import Grid
from ctrs.raster.windows import sliding_windows
from ctrs.tiles.folds import deal_into_folds, near_folds
from ctrs.tiles.footprints import tile_footprints
from ctrs.tiles.ground import Length, Place

UTM = CRS.from_epsg(32633)


def cut(name: str, width: int, height: int, *, x: float = 0.0, stride: int = 64, crs: CRS | None = UTM) -> list[Place]:
    transform = Affine.identity() if crs is None else Affine(1, 0, 400000 + x, 0, -1, 5800000)
    grid = Grid(crs=crs, transform=transform, width=width, height=height)
    rng = np.random.default_rng(len(name))
    return [
        Place(scene=name, grid=grid, window=window, class_counts=tuple(rng.integers(50, 99, 3).tolist()))
        for window in sliding_windows(height, width, 64, stride)
    ]


def polygons(places: list[Place]) -> np.ndarray:
    return tile_footprints([(place.grid, place.window) for place in places], None)


@settings(max_examples=25)
@given(
    width=st.integers(200, 500),
    height=st.integers(200, 500),
    stride=st.sampled_from([24, 32, 64]),
    num_folds=st.integers(2, 4),
    buffer=st.sampled_from([None, Length(px=20)]),
    x=st.sampled_from([0.0, 100.0, 1000.0]),
)
def test_what_trains_lies_apart_from_what_validates(
    width: int, height: int, stride: int, num_folds: int, buffer: Length | None, x: float
) -> None:
    places = cut("a", width, height, stride=stride) + cut("b", height, width, x=x, stride=stride)
    folds = deal_into_folds(places, num_folds, seed=1, block=Length(px=64), buffer=buffer)
    near = near_folds(places, folds, num_folds, buffer)
    shapes = polygons(places)
    assert set(folds) == set(range(num_folds))
    for fold in range(num_folds):
        own = np.array([number == fold for number in folds])
        training = np.array([not is_own and fold not in others for is_own, others in zip(own, near, strict=True)])
        if not training.any():
            continue
        ground, seen = shapely.union_all(shapes[own]), shapely.union_all(shapes[training])
        assert ground.intersection(seen).area == 0
        if buffer is not None:
            assert ground.distance(seen) >= 19.98
        left_out = ~own & ~training
        reach = 20 if buffer else 0
        assert all(shape.distance(ground) < max(reach, 1e-9) for shape in shapes[left_out])


def test_folds_are_equal_in_size_and_compact() -> None:
    places = cut("a", 640, 640)
    folds = deal_into_folds(places, 5, seed=0)
    assert sorted(Counter(folds).values()) == [20] * 5
    shapes = polygons(places)
    for fold in range(5):
        place = shapely.union_all(shapes[np.array(folds) == fold])
        # 20 tiles that lie anywhere have some 70 edges of 64 px around them.
        assert place.length / 64 <= 34
    assert near_folds(places, folds, 5) == [()] * 100


def test_folds_have_the_classes_in_equal_shares() -> None:
    grid = Grid(crs=UTM, transform=Affine(1, 0, 400000, 0, -1, 5800000), width=640, height=640)
    places = [
        Place(scene="a", grid=grid, window=window, class_counts=(4000, 96 * (window.row_off < 128)))
        for window in sliding_windows(640, 640, 64, 64)
    ]
    folds = deal_into_folds(places, 4, seed=0)
    rare = [sum(p.class_counts[1] for p, own in zip(places, folds, strict=True) if own == fold) for fold in range(4)]
    assert min(rare) > 0


def test_several_scenes_fill_the_same_folds_evenly() -> None:
    places = [place for n, width in enumerate((640, 384, 448)) for place in cut(f"s{n}", width, 320, x=5000.0 * n)]
    sizes = Counter(deal_into_folds(places, 3, seed=0))
    assert max(sizes.values()) - min(sizes.values()) <= 2
    assert deal_into_folds(places, 3, seed=0) == deal_into_folds(places, 3, seed=0)
    assert len({tuple(deal_into_folds(places, 3, seed=seed)) for seed in range(4)}) > 1


def test_small_scenes_go_to_folds_as_a_whole() -> None:
    places = [place for number in range(20) for place in cut(f"t{number:02}", 128, 64, crs=None)]
    folds = deal_into_folds(places, 5, seed=0)
    of_scene: dict[str, set[int]] = {}
    for place, fold in zip(places, folds, strict=True):
        of_scene.setdefault(place.scene, set()).add(fold)
    assert all(len(numbers) == 1 for numbers in of_scene.values())
    assert sorted(Counter(folds).values()) == [8] * 5


def test_a_small_scene_beside_a_large_one_goes_to_the_smallest_fold() -> None:
    places = cut("large", 640, 640) + cut("small", 128, 64, x=9000.0)
    folds = deal_into_folds(places, 3, seed=0)
    assert len(set(folds[100:])) == 1
    assert max(Counter(folds).values()) - min(Counter(folds).values()) <= 2


def test_ground_that_cannot_be_divided_is_refused() -> None:
    with pytest.raises(DataError, match=r"5 folds asked for, .* has 4 pieces that share no ground"):
        deal_into_folds(cut("a", 128, 128), 5, seed=0)
    with pytest.raises(DataError, match=r"has 1 block; choose fewer --folds, a smaller --block or smaller tiles"):
        deal_into_folds(cut("a", 128, 128), 2, seed=0, block=Length(px=100000))
    assert deal_into_folds([], 5, seed=0) == []
    assert near_folds([], [], 5) == []
