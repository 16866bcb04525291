from __future__ import annotations

import numpy as np
import pytest
import shapely

from ctrs.vector.quality import match_polygons
from ctrs.vector.quality.topology import count_holes, count_overlaps, party_wall_lengths


def polygons(*shapes: shapely.Polygon) -> np.ndarray:
    return np.array(shapes, object)


def with_hole(*hole: float) -> shapely.Polygon:
    return shapely.box(0, 0, 20, 20).difference(shapely.box(*hole))


def test_overlaps_are_counted_once_and_common_walls_are_none() -> None:
    a, b, c = shapely.box(0, 0, 10, 10), shapely.box(10, 0, 20, 10), shapely.box(19.9, 0, 30, 10)
    assert count_overlaps(polygons(a, b)) == 0
    assert count_overlaps(polygons(a, b, c)) == 1
    assert count_overlaps(polygons(a, a, a)) == 3
    assert count_overlaps(polygons()) == 0


def test_holes() -> None:
    court = with_hole(5, 5, 15, 15)
    assert count_holes(polygons(court), polygons(court)) == (0, 0)
    assert count_holes(polygons(with_hole(5, 5, 14, 15)), polygons(court)) == (0, 0)
    assert count_holes(polygons(shapely.box(0, 0, 20, 20)), polygons(court)) == (1, 0)
    assert count_holes(polygons(with_hole(5, 5, 6, 6)), polygons(court)) == (1, 1)
    assert count_holes(polygons(court), polygons(shapely.box(0, 0, 20, 20))) == (0, 1)
    assert count_holes(polygons(court, shapely.box(30, 0, 40, 9)), polygons(court, shapely.box(50, 0, 60, 9))) == (0, 0)
    assert count_holes(polygons(), polygons()) == (0, 0)


@pytest.mark.parametrize(("gap", "shared"), [(0.0, 10.0), (1e-3, 0.0), (-1e-3, 0.0)])
def test_party_walls_are_shared_exactly_or_not(gap: float, shared: float) -> None:
    truth = polygons(shapely.box(0, 0, 10, 10), shapely.box(10, 0, 20, 10), shapely.box(40, 0, 50, 10))
    predicted = polygons(shapely.box(10.3 + gap, 0, 20, 10), shapely.box(0, 0, 10.3, 10))
    found = party_wall_lengths(predicted, truth, match_polygons(predicted, truth))
    assert found == pytest.approx((10.0, shared), abs=0.01)


def test_a_lost_house_shares_no_wall() -> None:
    truth = polygons(shapely.box(0, 0, 10, 10), shapely.box(10, 0, 20, 10))
    predicted = polygons(shapely.box(0, 0, 20, 10))
    assert party_wall_lengths(predicted, truth, match_polygons(predicted, truth)) == (10.0, 0.0)


def test_what_runs_elsewhere_than_the_true_wall_is_shared_but_not_straight() -> None:
    truth = polygons(shapely.box(0, 0, 10, 10), shapely.box(10, 0, 20, 10))
    # The wall goes 4 m straight, 2 m along a step to and fro, and 6 m straight.
    wall = [(10.0, 0.0), (10.0, 4.0), (11.0, 4.0), (11.0, 10.0)]
    left = shapely.Polygon([(0, 0), *wall, (0, 10)])
    right = shapely.Polygon([(20, 0), (20, 10), *wall[::-1]])
    predicted = polygons(left, right)
    matching = match_polygons(predicted, truth)
    assert party_wall_lengths(predicted, truth, matching) == (10.0, 10.0)
    walls = party_wall_lengths(polygons(right, left), truth, match_polygons(polygons(right, left), truth))
    assert walls == (10.0, 10.0)
    skewed = polygons(
        shapely.Polygon([(0, 0), (9, 0), (11, 10), (0, 10)]), shapely.Polygon([(9, 0), (20, 0), (20, 10), (11, 10)])
    )
    found = match_polygons(skewed, truth)
    assert party_wall_lengths(skewed, truth, found) == (10.0, 10.0)
    assert party_wall_lengths(skewed, truth, found, max_turn_deg=2.0) == (10.0, 0.0)
    stepped = party_wall_lengths(predicted, truth, matching, max_turn_deg=2.0)
    assert stepped == (10.0, 10.0)
