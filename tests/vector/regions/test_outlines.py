"""Exact outlines against GDAL's, and the hard corner cases by hand."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rasterio.features import shapes

from ctrs.vector.regions.outlines import NO_REGION, trace
from ctrs.vector.regions.runs import Runs

LABELS = hnp.arrays(
    np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=10), elements=st.sampled_from([0, 1, 2, 255])
)


def regions_of(runs: Runs) -> npt.NDArray[np.int32]:
    return np.where(runs.values == 255, np.int32(NO_REGION), runs.regions())


@given(LABELS)
def test_outlines_equal_those_of_gdal(labels: npt.NDArray[np.uint8]) -> None:
    runs = Runs.from_array(labels)
    outlines = trace(runs, regions_of(runs))
    polygons = outlines.polygons()
    expected = [shapely.geometry.shape(part) for part, _ in shapes(labels, mask=labels != 255, connectivity=4)]
    assert shapely.is_valid(polygons).all()
    assert {shapely.normalize(p).wkt for p in polygons} == {
        shapely.normalize(shapely.transform(p, np.rint)).wkt for p in expected
    }


@given(LABELS)
def test_junctions_make_a_coverage_and_change_no_area(labels: npt.NDArray[np.uint8]) -> None:
    runs = Runs.from_array(labels)
    plain = trace(runs, regions_of(runs)).polygons()
    noded = trace(runs, regions_of(runs), junctions=True).polygons()
    assert shapely.equals(plain, noded).all()
    assert not len(noded) or shapely.coverage_is_valid(noded)


def test_a_ring_that_closes_at_a_corner_is_a_shell_and_a_hole_that_touch() -> None:
    labels = np.array([[1, 1, 1], [1, 255, 1], [1, 1, 255]], np.uint8)
    runs = Runs.from_array(labels)
    outlines = trace(runs, regions_of(runs))
    polygon = outlines.polygons()[0]
    assert polygon.is_valid
    assert len(polygon.interiors) == 1
    assert polygon.area == 7


def test_two_regions_that_meet_at_a_corner_stay_two() -> None:
    labels = np.array([[1, 255], [255, 1]], np.uint8)
    runs = Runs.from_array(labels)
    polygons = trace(runs, regions_of(runs)).polygons()
    assert [shapely.normalize(polygon).bounds for polygon in polygons] == [(0, 0, 1, 1), (1, 1, 2, 2)]
    assert shapely.area(polygons).tolist() == [1, 1]


def test_a_raster_without_regions_has_no_outlines() -> None:
    runs = Runs.from_array(np.full((3, 4), 255, np.uint8))
    outlines = trace(runs, regions_of(runs))
    assert len(outlines.polygons()) == 0


def test_scale_stretches_columns_and_rows() -> None:
    runs = Runs.from_array(np.ones((2, 3), np.uint8))
    assert trace(runs, runs.regions()).polygons((0.5, 2.0))[0].bounds == (0, 0, 1.5, 4)
