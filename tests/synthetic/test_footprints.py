from __future__ import annotations

import itertools

import numpy as np
import pytest
import shapely

from ctrs.errors import UsageError
from ctrs.synthetic.footprints import MIN_GAP_M, SHARES, Footprints, draw_footprints

CORNERS = {"rectangle": 4, "l": 6, "t": 8, "u": 8, "z": 8, "plus": 12, "courtyard": 8, "chamfered": 5, "oblique": 4}


@pytest.fixture(scope="module")
def footprints() -> Footprints:
    return draw_footprints(200, 420, 460, seed=1)


def angles(polygon: shapely.Polygon) -> np.ndarray:
    ring = np.array(polygon.exterior.coords)
    direction = np.degrees(np.arctan2(*np.diff(ring, axis=0).T[::-1]))
    return np.abs((np.diff(direction, append=direction[0]) + 180) % 360 - 180)


def test_shares_are_exact(footprints: Footprints) -> None:
    _, first = np.unique(footprints.objects, return_index=True)
    kinds, counts = np.unique(footprints.kinds[first].astype(str), return_counts=True)
    assert dict(zip(kinds, counts, strict=True)) == {kind: 2 * share for kind, share in SHARES.items()}
    assert sum(SHARES.values()) == 100


def test_footprints_are_sound_and_apart(footprints: Footprints) -> None:
    assert shapely.is_valid(footprints.polygons).all()
    left, bottom, right, top = shapely.total_bounds(footprints.polygons)
    assert 0 < left < right < 420
    assert 0 < bottom < top < 460
    first, second = shapely.STRtree(footprints.polygons).query(footprints.polygons, "dwithin", MIN_GAP_M - 1e-9)
    strangers = footprints.objects[first] != footprints.objects[second]
    assert not strangers.any()


def test_shapes_have_their_corners(footprints: Footprints) -> None:
    for kind, count in CORNERS.items():
        shapes = footprints.polygons[footprints.kinds == kind]
        corners = {
            len(shapely.get_coordinates(shapely.get_rings(shape))) - len(shape.interiors) - 1 for shape in shapes
        }
        assert corners == {count}, kind
        assert {len(shape.interiors) for shape in shapes} == {1 if kind == "courtyard" else 0}, kind
    for kind in ("rectangle", "l", "t", "u", "z", "plus", "courtyard"):
        for shape in footprints.polygons[footprints.kinds == kind]:
            np.testing.assert_allclose(angles(shape), 90)
    for shape in footprints.polygons[footprints.kinds == "chamfered"]:
        assert sorted(angles(shape).round(6).tolist()) == [45, 45, 90, 90, 90]
    for shape in footprints.polygons[footprints.kinds == "oblique"]:
        assert (np.abs(angles(shape) - 90) > 10).sum() == 2


def test_walls_stand_at_all_angles(footprints: Footprints) -> None:
    single = footprints.polygons[footprints.kinds == "rectangle"]
    ring = np.array([shape.exterior.coords[:2] for shape in single])
    direction = np.degrees(np.arctan2(*(ring[:, 1] - ring[:, 0]).T)) % 90
    assert np.histogram(direction, bins=5, range=(0, 90))[0].min() > 3


def test_row_houses_share_walls_vertex_for_vertex(footprints: Footprints) -> None:
    rows = footprints.objects[footprints.kinds == "row_houses"]
    for number in np.unique(rows):
        units = footprints.polygons[footprints.objects == number]
        assert 3 <= len(units) <= 6
        assert shapely.coverage_is_valid(units)
        lengths = [a.intersection(b).length for a, b in itertools.pairwise(units)]
        assert min(lengths) > 5


def test_pairs_stand_apart(footprints: Footprints) -> None:
    for number in np.unique(footprints.objects[footprints.kinds == "pair"]):
        first, second = footprints.polygons[footprints.objects == number]
        assert 1.0 - 1e-9 <= first.distance(second) <= 2.4 + 1e-9


def test_merged_rows_keep_their_area_and_lose_straight_corners(footprints: Footprints) -> None:
    merged = footprints.merged()
    assert len(merged.polygons) == 200 + 10  # pairs stay two
    assert shapely.is_valid(merged.polygons).all()
    assert shapely.area(merged.polygons).sum() == pytest.approx(shapely.area(footprints.polygons).sum())
    for shape in merged.polygons[merged.kinds == "row_houses"]:
        np.testing.assert_allclose(angles(shape), 90, atol=1e-6)
    others = merged.kinds != "row_houses"
    kept = footprints.polygons[footprints.kinds != "row_houses"]
    assert (merged.polygons[others] == kept).all()
    assert (np.diff(merged.objects) >= 0).all()


def test_the_seed_decides() -> None:
    one, again, other = (draw_footprints(20, 200, 200, seed=seed).polygons for seed in (4, 4, 5))
    assert len(one) == len(again)
    assert (one == again).all()
    assert len(one) != len(other) or (one != other).any()


def test_too_little_ground_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no room left for another building on 60 x 60 m; ask for fewer"):
        draw_footprints(40, 60, 60)
    with pytest.raises(UsageError, match="on 10 x 300 m"):
        draw_footprints(1, 10, 300)
