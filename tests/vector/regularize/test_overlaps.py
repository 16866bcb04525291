from __future__ import annotations

import numpy as np
import shapely

from ctrs.vector.regularize.overlaps import GAP_M, overlapping_pairs, part_overlaps


def test_the_smaller_keeps_its_walls() -> None:
    large, small, alone = shapely.box(0, 0, 20, 20), shapely.box(19, 5, 25, 9), shapely.box(30, 0, 40, 10)
    result, changed = part_overlaps(np.array([large, small, alone], object))
    assert changed.tolist() == [0]
    assert result[1] is small
    assert result[2] is alone
    assert shapely.distance(result[0], small) >= 0.9 * GAP_M
    assert abs(result[0].area - 396) < 0.1


def test_neighbours_that_touch_stay() -> None:
    both = np.array([shapely.box(0, 0, 1, 1), shapely.box(1, 0, 2, 1)], object)
    result, changed = part_overlaps(both)
    assert not len(changed)
    assert (result == both).all()


def test_of_a_polygon_cut_in_two_the_larger_part_stays() -> None:
    bar, wall = shapely.box(0, 0, 30, 2), shapely.box(20, -5, 21, 5)
    result, _ = part_overlaps(np.array([bar, wall], object))
    assert result[0].bounds == (0, 0, 20 - GAP_M, 2)


def test_many_at_random_end_valid_and_apart() -> None:
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 60, (80, 2))
    size = rng.uniform(3, 12, (80, 2))
    result, _ = part_overlaps(shapely.box(*corner.T, *(corner + size).T))
    assert shapely.is_valid(result).all()
    assert (shapely.get_type_id(result) == shapely.GeometryType.POLYGON).all()
    assert not len(overlapping_pairs(result))
