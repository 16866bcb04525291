from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from ctrs.vector.regions.disc_loops import distances_at, row_steps, within

RASTERS = hnp.arrays(np.bool_, st.tuples(st.integers(1, 20), st.integers(1, 20)), elements=st.booleans())
SIDES = st.sampled_from([0.2, 0.5, 0.31])


def exact(away_from: np.ndarray, row_m: float, column_m: float) -> np.ndarray:
    if not away_from.any():
        return np.full(away_from.shape, np.inf)
    return ndimage.distance_transform_edt(~away_from, (row_m, column_m))


@settings(deadline=None)
@given(RASTERS, st.floats(0.05, 6), SIDES, SIDES)
def test_discs_reach_as_far_as_the_exact_distance(away_from, radius, row_m, column_m) -> None:
    expected = exact(away_from, row_m, column_m)
    assert (within(away_from, radius, row_m, column_m) == (expected <= radius)).all()
    places = np.arange(away_from.size)
    found = distances_at(places, away_from, radius, row_m, column_m).reshape(away_from.shape)
    assert found == pytest.approx(np.where(expected <= radius, expected, np.inf))


def test_a_radius_reaches_pixels_that_are_just_as_far() -> None:
    middle = np.zeros((7, 7), bool)
    middle[3, 3] = True
    assert within(middle, 1.0, 0.5, 0.5).sum() == 13  # a disc of two pixels to each side
    assert within(middle, 0.99, 0.5, 0.5).sum() == 9


def test_rows_longer_than_the_steps_can_count() -> None:
    row = np.zeros((2, 70_000), bool)
    row[0, -1] = True
    steps = row_steps(row)
    assert steps[0, [0, 4465, -2, -1]].tolist() == [65535, 65534, 1, 0]
    assert (steps[1] == 65535).all()
    assert within(row, 5e3, 0.1, 0.1).sum(axis=1).tolist() == [50_001, 50_000]
