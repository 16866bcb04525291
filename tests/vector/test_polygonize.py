"""Masks on disk to exact polygons and back."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import shapely
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rasterio.features import rasterize

from ctrs.config import Connectivity
from ctrs.errors import LabelError
from ctrs.vector.polygonize import polygonize, polygonize_runs
from ctrs.vector.regions.runs import Runs

LABELS = hnp.arrays(
    np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=14), elements=st.sampled_from([0, 1, 2, 3, 255])
)
QUICK = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(LABELS, st.sampled_from([4, 8]))
def test_rasterized_polygons_are_the_mask(labels: npt.NDArray[np.uint8], connectivity: Connectivity) -> None:
    values, polygons = polygonize_runs(Runs.from_array(labels), connectivity=connectivity)
    assert shapely.is_valid(polygons).all()
    back = np.full(labels.shape, 255, np.uint8)
    if len(polygons):
        back = rasterize(zip(polygons, values, strict=True), labels.shape, fill=255, dtype="uint8")
    np.testing.assert_array_equal(back, labels)
    assert shapely.area(polygons).sum() == (labels != 255).sum()


@given(LABELS)
def test_eight_connected_polygons_hang_together_and_apart_from_others(labels: npt.NDArray[np.uint8]) -> None:
    values, polygons = polygonize_runs(Runs.from_array(labels), connectivity=8)
    for value in np.unique(values):
        same = polygons[values == value]
        assert shapely.disjoint(same[:, None], same[None]).sum() == len(same) * (len(same) - 1)


@pytest.mark.parametrize(
    "transform",
    [
        Affine(0.5, 0, 4e5, 0, -0.5, 5e6),
        Affine(0.5, 0, 4e5, 0, 0.5, 5e6),
        Affine.translation(4e5, 5e6) @ Affine.rotation(30) @ Affine.scale(0.5, -0.25),
    ],
    ids=["north up", "south up", "rotated"],
)
@QUICK
@given(labels=LABELS, rows=st.integers(1, 14))
def test_polygons_on_the_grid_are_the_mask_for_any_band_height(write_mask, transform, labels, rows) -> None:
    path = write_mask(labels, transform=transform)
    whole, banded = polygonize(path), polygonize(path, band_rows=rows)
    assert [g.wkb for g in whole.geometry] == [g.wkb for g in banded.geometry]
    assert whole["value"].tolist() == banded["value"].tolist()
    assert whole.crs.to_epsg() == 32633
    assert all(shape.exterior.is_ccw for shape in whole.geometry)
    back = np.full(labels.shape, 255, np.uint8)
    if len(whole):
        pairs = zip(whole.geometry, whole["value"], strict=True)
        back = rasterize(pairs, labels.shape, fill=255, transform=transform, dtype="uint8")
    np.testing.assert_array_equal(back, labels)


def test_polygons_come_by_first_pixel(write_mask) -> None:
    labels = np.array([[1, 2, 1], [1, 1, 1], [3, 3, 2]], np.uint8)
    assert polygonize(write_mask(labels))["value"].tolist() == [1, 2, 3, 2]


def test_other_integers_are_accepted_and_nodata_is_left_out(write_mask) -> None:
    labels = np.array([[-9999, 4], [7, 4]], np.int16)
    found = polygonize(write_mask(labels, nodata=-9999, classes=None))
    assert found["value"].tolist() == [4, 7]


def test_values_beyond_a_byte_are_refused(write_mask) -> None:
    labels = np.array([[0, 300], [8192, 1]], np.int32)
    with pytest.raises(LabelError, match=r"values 300, 8192 found, expected class values from 0 to 254"):
        polygonize(write_mask(labels, nodata=None))
