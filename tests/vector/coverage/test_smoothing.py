"""Smoothed coverages stay coverages, and wobble leaves them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from ctrs.vector.coverage.arcs import Arcs
from ctrs.vector.coverage.simplify import simplify_coverage
from ctrs.vector.coverage.smoothing import smooth_arcs
from ctrs.vector.regions.outlines import NO_REGION, trace
from ctrs.vector.regions.runs import Runs

FULL = hnp.arrays(np.uint8, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.integers(0, 3))


def coverage(labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.object_]:
    runs = Runs.from_array(labels)
    regions = np.where(runs.values == 255, np.int32(NO_REGION), runs.regions())
    return trace(runs, regions, junctions=True).polygons()


@settings(deadline=None)
@given(FULL, st.sampled_from([0.0, 0.8, 3.0]), st.sampled_from([2.0, 6.0, 30.0]))
def test_no_gap_no_overlap_and_the_edge_stays(labels, tolerance: float, wave: float) -> None:
    height, width = labels.shape
    result = simplify_coverage(coverage(labels), tolerance, smooth=wave, frame=(0.0, 0.0, width, height))
    assert shapely.is_valid(result).all()
    assert shapely.coverage_is_valid(result)
    assert shapely.area(result).sum() == pytest.approx(labels.size)
    union = shapely.union_all(result)
    assert shapely.equals(shapely.normalize(union.simplify(0)), shapely.normalize(shapely.box(0, 0, width, height)))


@pytest.mark.parametrize(("wave", "left"), [(5.0, (0.0, 0.2)), (20.0, (0.4, 0.75)), (80.0, (0.85, 1.05))])
def test_half_of_a_wave_of_the_length_stays(wave: float, left: tuple[float, float]) -> None:
    """A border with waves of 20, 5 or 80 pixels under a smoothing of 20."""
    cols = np.arange(640)
    rows = np.arange(60)[:, None]
    labels = (rows > 30 + 2 * np.sin(2 * np.pi * cols / wave)).astype(np.uint8)
    polygons = coverage(labels)
    largest = polygons[np.argsort(shapely.area(polygons))[-2:]]
    arcs = Arcs.of(largest, (0.0, 0.0, 640.0, 60.0))
    common = (arcs.sides >= 0).all(axis=1)
    smooth = smooth_arcs(arcs, 20.0, ~arcs.on_frame)[common]

    def height(lines: npt.NDArray[np.object_]) -> float:
        xy = shapely.get_coordinates(shapely.segmentize(lines, 0.25))
        inner = xy[(xy[:, 0] > 100) & (xy[:, 0] < 540), 1]
        return float(np.ptp(np.quantile(inner, [0.02, 0.98])))

    share = height(smooth) / height(arcs.lines()[common])
    # Along the wavy border waves are somewhat longer than across it.
    assert left[0] <= share <= left[1]
    ends = shapely.get_coordinates(smooth)[[0, -1]]
    np.testing.assert_array_equal(ends, shapely.get_coordinates(arcs.lines()[common])[[0, -1]])


def test_a_pond_keeps_its_area_and_straight_borders_stay() -> None:
    rows, cols = np.mgrid[:80, :80]
    labels = (np.hypot(rows - 40, cols - 40) < 15).astype(np.uint8)
    labels[:, 70:] = 2
    arcs = Arcs.of(coverage(labels), (0.0, 0.0, 80.0, 80.0))
    smooth = smooth_arcs(arcs, 10.0, ~arcs.on_frame)
    pond = shapely.Polygon(shapely.get_coordinates(smooth[arcs.closed]))
    assert pond.area == pytest.approx((labels == 1).sum())
    assert pond.length == pytest.approx(2 * np.pi * np.sqrt(pond.area / np.pi), rel=0.01)
    straight = ~arcs.on_frame & ~arcs.closed
    assert shapely.hausdorff_distance(smooth[straight], arcs.lines()[straight]).max() < 1e-9


def test_borders_of_straight_polygons_are_not_smoothed() -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(3).normal(size=(3, 100, 100)), (0, 4, 4))
    labels = noise.argmax(axis=0).astype(np.uint8)
    polygons = coverage(labels)
    straight = np.arange(len(polygons)) == np.argmax(shapely.area(polygons))
    plain = simplify_coverage(polygons, 0.5, frame=(0.0, 0.0, 100.0, 100.0))
    result = simplify_coverage(polygons, 0.5, smooth=8.0, straight=straight, frame=(0.0, 0.0, 100.0, 100.0))
    assert shapely.equals_exact(shapely.normalize(result[straight]), shapely.normalize(plain[straight])).all()
    assert not shapely.equals(result, plain)[~straight].all()


def test_where_the_data_end_nothing_is_smoothed() -> None:
    labels = np.ones((100, 100), np.uint8)
    rows, cols = np.mgrid[:100, :100]
    labels[cols > 60 + 6 * np.sin(rows / 4)] = 2
    polygons, size = coverage(labels), (0.0, 0.0, 100.0, 100.0)
    hole = shapely.box(20, 30, 50, 70)
    polygons[0] = shapely.difference(polygons[0], hole)  # a rectangle without data
    kept = simplify_coverage(polygons, 0.5, smooth=20.0, frame=size, whole=True)
    assert shapely.union_all(kept).symmetric_difference(shapely.box(*size).difference(hole)).area < 1e-6
    assert shapely.get_num_coordinates(kept).sum() < shapely.get_num_coordinates(polygons).sum()  # but the border is
    rounded = simplify_coverage(polygons, 0.5, smooth=20.0, frame=size)
    assert shapely.intersection(shapely.union_all(rounded), hole).area > 1
