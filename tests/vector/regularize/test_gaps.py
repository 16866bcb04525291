from __future__ import annotations

import numpy as np
import pytest
import shapely

from ctrs.vector.regularize.gaps import STEP_M, _profile, find_gaps, split_at_gaps


def runs_of(mask: np.ndarray) -> tuple[np.ndarray, ...]:
    """Rows, begins, ends, offsets of a mask that shows one building."""
    edges = np.diff(np.pad(mask.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    rows, begins = np.nonzero(edges == 1)
    _, ends = np.nonzero(edges == -1)
    return rows, begins, ends, np.array([0, len(rows)])


def gaps_of(mask: np.ndarray, main_deg: float = 0.0, pixel_m: float = 0.2) -> np.ndarray:
    return find_gaps(*runs_of(mask), 0, 1, pixel_m, pixel_m, np.array([main_deg]))


@pytest.fixture
def fused() -> np.ndarray:
    """Two houses of 10 x 10 m, 1.2 m apart, joined by a bridge of 3 m."""
    mask = np.zeros((60, 120), bool)
    mask[5:55, 5:55] = mask[5:55, 61:111] = True
    mask[20:35, 55:61] = True
    return mask


@pytest.mark.parametrize("turned", [False, True])
def test_the_gap_of_a_fused_pair(fused: np.ndarray, turned: bool) -> None:
    ((polygon, angle, start, end),) = gaps_of(fused.T if turned else fused)
    assert polygon == 0
    assert angle == pytest.approx(np.pi / 2 if turned else 0)
    assert start == pytest.approx(11.0, abs=0.3)
    assert end == pytest.approx(12.2, abs=0.3)


def test_no_gap_where_the_bridge_is_wide(fused: np.ndarray) -> None:
    fused[15:45, 55:61] = True
    assert not len(gaps_of(fused))


@pytest.mark.parametrize("main_deg", [0.0, 0.7, 45.0])
@pytest.mark.parametrize("pixel_m", [0.2, 0.4, 0.5, 1.0, 2.0, 5.0])
def test_no_gap_between_large_pixels(pixel_m: float, main_deg: float) -> None:
    mask = np.zeros((70, 80), bool)
    mask[5:65, 5:75] = True
    assert not len(gaps_of(mask, main_deg, pixel_m))


@pytest.mark.parametrize("main_deg", [0.0, 30.0, 90.0, 200.0])
@pytest.mark.parametrize("pixel_m", [0.2, 0.7, 3.0])
def test_the_profile_holds_all_of_the_foreground(pixel_m: float, main_deg: float) -> None:
    mask = np.zeros((30, 40), bool)
    mask[3:25, 5:31] = True
    mask[10:12, 8:20] = False
    rows, begins, ends, _ = runs_of(mask)
    values, _ = _profile(rows, begins, ends, pixel_m, pixel_m, np.radians(main_deg))
    assert values.sum() * STEP_M == pytest.approx(mask.sum() * pixel_m**2)


def test_no_gap_at_a_bite_a_notch_or_a_shed(fused: np.ndarray) -> None:
    house = np.zeros((60, 120), bool)
    house[5:55, 5:105] = True
    house[5:14, 50:59] = False  # a tree of 1.8 m
    assert not len(gaps_of(house))
    house[5:40, 40:64] = False  # a U whose court is 4.8 m wide
    assert not len(gaps_of(house))
    house = np.zeros((70, 80), bool)
    house[4:69, 4:69] = True
    house[4:46, 26:46] = False  # a U whose court is 4 m wide, with legs of 13 m and a floor of 4.6 m
    assert not len(gaps_of(house))
    fused[:, 80:] = False  # beside the gap stands less than 20 square metres
    fused[:30] = False
    assert not len(gaps_of(fused))


def test_parts_keep_their_order_and_source() -> None:
    first, bridge, last = shapely.box(0, 0, 5, 5), shapely.box(10, 0, 31.2, 10), shapely.box(40, 0, 45, 5)
    given = np.array([first, bridge, last], object)
    parts, sources = split_at_gaps(given, np.array([[1.0, 0.0, 20.0, 21.2]]))
    assert sources.tolist() == [0, 1, 1, 2]
    assert parts[0] is first
    assert parts[3] is last
    assert sorted(shapely.area(parts[1:3]).round(6)) == [100.0, 100.0]
    assert shapely.distance(parts[1], parts[2]) == pytest.approx(1.2)


def test_no_building_is_parted_into_smaller_ones_than_asked_for() -> None:
    given = np.array([shapely.box(0, 0, 21.2, 10)], object)
    gaps = np.array([[0.0, 0.0, 10.0, 11.2]])
    assert len(split_at_gaps(given, gaps, min_area_m2=99.0)[0]) == 2
    assert len(split_at_gaps(given, gaps, min_area_m2=101.0)[0]) == 1


def test_a_cut_that_leaves_one_building_is_none() -> None:
    given = np.array([shapely.box(0, 0, 20, 10)], object)
    parts, sources = split_at_gaps(given, np.array([[0.0, 0.0, 19.5, 20.5]]))
    assert parts[0] is given[0]
    assert sources.tolist() == [0]
