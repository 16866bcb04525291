from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrs.vector.regularize.areas import compare_areas


def ragged(polygons: list[shapely.Geometry]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    _, corners, (rings, parts) = shapely.to_ragged_array(np.array(polygons, object), include_z=False)
    return np.ascontiguousarray(corners), rings.astype(np.int64), parts.astype(np.int64)


def compare(ours: list[shapely.Geometry], others: list[shapely.Geometry], step: float) -> np.ndarray:
    result = np.full(len(ours), np.nan)
    compare_areas(ragged(ours), ragged(others), 0, len(ours), step, result)
    return result


def test_polygons_of_whole_pixels_are_measured_exactly() -> None:
    court = shapely.box(0, 0, 10, 8) - shapely.box(3, 3, 6, 5)
    ours = [shapely.box(0, 0, 4, 4), court, shapely.box(0, 0, 1, 1), shapely.Polygon()]
    others = [shapely.box(2, 2, 6, 6), shapely.box(0, 0, 10, 8), shapely.box(5, 5, 6, 6), shapely.box(0, 0, 1, 1)]
    assert compare(ours, others, 1.0).tolist() == pytest.approx([4 / 28, 74 / 80, 0, 0])


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 360), st.floats(-3, 3), st.floats(-20, 20), st.floats(4, 15))
def test_slanted_walls_are_measured_almost_exactly(turn: float, shift: float, place: float, width: float) -> None:
    shape = shapely.box(0, 0, 12, width) - shapely.box(2, 1, 7, 2.5)
    ours = shapely.affinity.translate(shapely.affinity.rotate(shape, turn), place, place)
    other = shapely.affinity.translate(shapely.affinity.rotate(shape, turn + 7), place + shift, place)
    exact = ours.intersection(other).area / ours.union(other).area
    assert compare([ours], [other], 0.05)[0] == pytest.approx(exact, abs=0.02)
