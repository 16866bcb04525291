from __future__ import annotations

import numpy as np
import shapely
from hypothesis import given
from hypothesis import strategies as st

from ctrs.vector.quality import match_polygons
from ctrs.vector.quality.matching import pair_off


def boxes(*bounds: tuple[float, float, float, float]) -> np.ndarray:
    return np.array([shapely.box(*each) for each in bounds], object)


def test_pairs_come_by_falling_iou() -> None:
    truth = boxes((0, 0, 10, 10), (10, 0, 20, 10), (40, 0, 50, 10))
    predicted = boxes((4, 0, 14, 10), (9, 0, 20, 10), (60, 0, 70, 10))
    matching = match_polygons(predicted, truth)
    assert matching.predicted.tolist() == [1, 0]
    assert matching.truth.tolist() == [1, 0]
    np.testing.assert_allclose(matching.iou, [100 / 110, 60 / 140])
    assert matching.above(0.5).truth.tolist() == [1]


def test_a_predicted_polygon_is_used_once() -> None:
    truth = boxes((0, 0, 10, 10), (10, 0, 20, 10))
    matching = match_polygons(boxes((0, 0, 20, 10)), truth)
    assert matching.truth.tolist() == [0]
    assert matching.merging.tolist() == [True]
    assert matching.split.tolist() == [False, False]


def test_split_needs_two_parts_that_lie_mostly_inside() -> None:
    truth = boxes((0, 0, 10, 10), (20, 0, 30, 10))
    predicted = boxes((0, 0, 4, 10), (6, 0, 10, 10), (20, 0, 29, 10), (29, 0, 35, 10))
    assert match_polygons(predicted, truth).split.tolist() == [True, False]


def test_merging_needs_two_buildings_that_lie_mostly_inside() -> None:
    truth = boxes((0, 0, 10, 10), (10, 0, 20, 10))
    assert match_polygons(boxes((0, 0, 14, 10)), truth).merging.tolist() == [False]
    assert match_polygons(boxes((0, 0, 16, 10)), truth).merging.tolist() == [True]


def test_touching_is_no_overlap() -> None:
    assert len(match_polygons(boxes((0, 0, 1, 1)), boxes((1, 0, 2, 1))).iou) == 0


def test_nothing_to_match() -> None:
    none = np.empty(0, object)
    assert len(match_polygons(none, boxes((0, 0, 1, 1))).iou) == 0
    assert len(match_polygons(boxes((0, 0, 1, 1)), none).iou) == 0
    assert match_polygons(none, none).split.tolist() == []


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 9)), max_size=25, unique_by=lambda c: c[:2])
)
def test_pairing_off_is_one_to_one_and_greedy(candidates: list[tuple[int, int, int]]) -> None:
    first, second, cost = (np.array([c[k] for c in candidates], np.int64) for k in range(3))
    chosen = pair_off(cost.astype(np.float64), first, second)
    left = sorted(candidates, key=lambda c: (c[2], c[0], c[1]))
    expected = []
    while left:
        best = left[0]
        expected.append(best)
        left = [c for c in left if c[0] != best[0] and c[1] != best[1]]
    assert [(first[k], second[k], cost[k]) for k in chosen] == expected
