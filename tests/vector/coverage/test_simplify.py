"""Simplified coverages stay coverages."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ctrs.vector.coverage.simplify import simplify_coverage, touching_groups
from ctrs.vector.regions.outlines import NO_REGION, trace
from ctrs.vector.regions.runs import Runs

NONE = 255
LABELS = hnp.arrays(
    np.uint8,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=12),
    elements=st.sampled_from([0, 1, 2, NONE, NONE]),
)
FULL = hnp.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 3))


def coverage(labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.object_]:
    runs = Runs.from_array(labels)
    regions = np.where(runs.values == NONE, np.int32(NO_REGION), runs.regions())
    return trace(runs, regions, junctions=True).polygons()


def town(size: int, seed: int) -> npt.NDArray[np.uint8]:
    """Blobs of three classes with wobbling borders, at least a few pixels wide."""
    from scipy import ndimage

    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(3, size, size)), (0, 4, 4))
    labels = noise.argmax(axis=0).astype(np.uint8)
    labels[noise.max(axis=0) < 0.03] = NONE
    return labels


def overlaps(polygons: npt.NDArray[np.object_]) -> int:
    pairs = itertools.combinations(range(len(polygons)), 2)
    return sum(bool(shapely.relate_pattern(polygons[a], polygons[b], "T********")) for a, b in pairs)


@given(LABELS, st.sampled_from([0.8, 1.5, 4.0]))
def test_no_overlap_and_no_invalid_polygon(labels: npt.NDArray[np.uint8], tolerance: float) -> None:
    polygons = coverage(labels)
    result = simplify_coverage(polygons, tolerance)
    assert len(result) == len(polygons)
    assert shapely.is_valid(result).all()
    assert not shapely.is_empty(result).any()
    assert (shapely.get_type_id(result) == 3).all()
    assert overlaps(result) == 0
    assert shapely.get_num_coordinates(result).sum() <= shapely.get_num_coordinates(polygons).sum()


@given(FULL, st.sampled_from([0.8, 1.5, 4.0]))
def test_a_full_coverage_keeps_no_gap(labels: npt.NDArray[np.uint8], tolerance: float) -> None:
    result = simplify_coverage(coverage(labels), tolerance)
    assert shapely.coverage_is_valid(result)
    union = shapely.union_all(result)
    assert shapely.area(result).sum() == pytest.approx(union.area)
    assert shapely.get_num_interior_rings(shapely.get_parts(union)).sum() == 0


@pytest.mark.parametrize("seed", range(4))
def test_common_borders_stay_common(seed: int) -> None:
    polygons = coverage(town(120, seed))
    result = simplify_coverage(polygons, 1.5)
    assert shapely.coverage_is_valid(result)
    assert shapely.get_num_coordinates(result).sum() < 0.6 * shapely.get_num_coordinates(polygons).sum()
    np.testing.assert_array_equal(shapely.get_num_interior_rings(result), shapely.get_num_interior_rings(polygons))
    touching = shapely.length(shapely.intersection(result[:, None], result[None])) > 0
    before = shapely.length(shapely.intersection(polygons[:, None], polygons[None])) > 0
    np.testing.assert_array_equal(touching, before)


def test_small_polygons_keep_their_shape() -> None:
    labels = np.full((9, 9), NONE, np.uint8)
    labels[1, 1] = 1
    labels[5:7, 5:7] = 1
    result = simplify_coverage(coverage(labels), 3.0)
    assert shapely.area(result).tolist() == [1, 4]


def test_no_tolerance_leaves_the_outline() -> None:
    polygons = coverage(town(40, 0))
    assert simplify_coverage(polygons, 0) is polygons


def test_an_empty_coverage_stays_empty() -> None:
    assert len(simplify_coverage(np.empty(0, object), 1.0)) == 0


def test_a_wall_askew_to_the_pixels_becomes_straight() -> None:
    rows, cols = np.mgrid[:200, :200]
    along, across = (cols + rows / 9 - 100), (rows - cols / 9 - 85)
    labels = np.where((np.abs(along) < 70) & (np.abs(across) < 40), 1, NONE).astype(np.uint8)
    polygons = coverage(labels)
    result = simplify_coverage(polygons, 1.5)
    assert shapely.get_num_coordinates(polygons)[0] > 80
    assert shapely.get_num_coordinates(result)[0] <= 6
    assert shapely.hausdorff_distance(polygons, result, densify=0.01)[0] <= 1.5


@pytest.mark.parametrize("touching", [False, True])
def test_a_tolerance_too_large_for_a_building_does_not_bring_its_pixels_back(touching: bool) -> None:
    rows, cols = np.mgrid[:80, :80]
    along, across = (cols + rows / 3 - 50), (rows - cols / 3 - 25)
    labels = np.where((np.abs(along) < 25) & (np.abs(across) < 15), 1, 0 if touching else NONE).astype(np.uint8)
    polygons = coverage(labels)
    counts = [shapely.get_num_coordinates(simplify_coverage(polygons, tolerance)).sum() for tolerance in (1.5, 120.0)]
    assert shapely.get_num_coordinates(polygons).sum() > 100
    assert counts[1] <= counts[0]


def test_groups_hang_together_by_corners() -> None:
    labels = np.array([[1, NONE, NONE], [NONE, 1, NONE], [NONE, NONE, NONE], [NONE, 1, 2]], np.uint8)
    assert touching_groups(coverage(labels)).tolist() == [0, 0, 1, 1]


def test_polygons_of_other_batches_are_not_run_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A neat neighbour in the notch of another building, simplified apart from it, would be covered."""
    labels = np.full((30, 30), NONE, np.uint8)
    labels[2:28, 2:28] = 1
    labels[2:6, 12:16] = NONE
    labels[3:5, 13:15] = 1
    polygons = coverage(labels)
    plain = shapely.simplify(polygons, 5.0)
    assert overlaps(plain) == 1, "the case is no longer hard"
    assert overlaps(simplify_coverage(polygons, 5.0)) == 0
