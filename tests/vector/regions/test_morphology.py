"""Opening and closing against scipy's, on every cut of a mask into bands."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from ctrs.raster.geotiff import Grid
from ctrs.vector.regions import morphology
from ctrs.vector.regions.morphology import closed, disc_radius_m, open_and_close, opened
from ctrs.vector.regions.runs import Runs

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=20)
LABELS = hnp.arrays(np.uint8, SHAPES, elements=st.sampled_from([0, 1, 1, 1, 2, 255]))
BINARY = hnp.arrays(np.uint8, SHAPES, elements=st.sampled_from([0, 1, 1, 1]))
RADII = st.sampled_from([0.5, 1.0, 1.5, 2.3])
SAMPLINGS = st.sampled_from([(0.5, 0.5), (0.5, 0.8), (1.0, 0.4)])
BUILDINGS = np.arange(256) == 1
ALL = np.arange(256) < 3
FAR = 1e9


def disc(radius: float, sampling: tuple[float, float]) -> npt.NDArray[np.bool_]:
    rows, cols = (int(radius / side) for side in sampling)
    y, x = np.mgrid[-rows : rows + 1, -cols : cols + 1]
    return np.asarray(np.hypot(y * sampling[0], x * sampling[1]) <= radius)


@given(BINARY, RADII, SAMPLINGS)
def test_one_class_is_opened_and_closed_as_scipy_does(labels, radius, sampling) -> None:
    around = np.pad(labels == 1, 20, constant_values=True)
    expected = ndimage.binary_opening(around, disc(radius, sampling))[20:-20, 20:-20]
    found = opened(labels, BUILDINGS, radius, sampling, reach_m=FAR)
    if (labels != 1).any():
        np.testing.assert_array_equal(found == 1, expected & (labels == 1))
    around = np.pad(labels == 1, 20, constant_values=False)
    expected = ndimage.binary_closing(around, disc(radius, sampling))[20:-20, 20:-20]
    np.testing.assert_array_equal(closed(labels, BUILDINGS, radius, sampling) == 1, expected)


@given(LABELS, RADII, SAMPLINGS)
def test_twice_is_once_and_nodata_stays(labels, radius, sampling) -> None:
    for change in (
        lambda mask: opened(mask, BUILDINGS, radius, sampling, reach_m=FAR),
        lambda mask: closed(mask, BUILDINGS, radius, sampling),
        lambda mask: closed(mask, ALL & (np.arange(256) > 0), radius, sampling),
    ):
        once = change(labels)
        np.testing.assert_array_equal(once == 255, labels == 255)
        np.testing.assert_array_equal(change(once), once)


@given(LABELS, RADII)
def test_what_holds_a_disc_stays_and_closing_spares_wanted_classes(labels, radius) -> None:
    sampling = (0.5, 0.5)
    found = opened(labels, ALL, radius, sampling, reach_m=FAR)
    for value in range(3):
        around = np.pad((labels == value) | (labels == 255), 10, constant_values=True)
        solid = ndimage.binary_opening(around, disc(radius, sampling))[10:-10, 10:-10] & (labels == value)
        assert (found[solid] == value).all()
    filled = closed(labels, ALL & (np.arange(256) > 0), radius, sampling)
    assert ((filled == labels) | (labels == 0)).all()
    np.testing.assert_array_equal(closed(labels, ALL, radius, sampling), labels)


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(8, 20), st.integers(1, 4)), elements=st.sampled_from([0, 1, 1, 2, 255])),
    st.sampled_from([0.0, 1.6, 2.6]),
    st.sampled_from([0.0, 1.6, 3.6]),
    st.data(),
)
def test_bands_leave_no_trace(labels, opening, closing, data) -> None:
    labels = labels.repeat(3, axis=0).repeat(3, axis=1)
    height, width = labels.shape
    grid = Grid(
        transform=Affine(0.4, 0, 4e5, 0, -0.5, 5e6), width=width, height=height, crs=rasterio.CRS.from_epsg(32633)
    )
    cuts = sorted(data.draw(st.sets(st.integers(1, height - 1), max_size=8)))

    def run(bands: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
        runs = open_and_close(
            [Runs.from_array(band) for band in bands],
            grid,
            ALL & (np.arange(256) > 0),
            opening_m=opening,
            closing_m=closing,
        )
        return np.concatenate([part.to_array() for part in runs])

    whole = run([labels])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(morphology, "_LEAST_ROWS", 1)
        np.testing.assert_array_equal(run(np.split(labels, cuts)), whole)


def test_widths_are_ground_metres() -> None:
    """Bars of 4 and 5 pixels of 0.2 m under an opening of 1 m; a gap of 4 and one of 6 under a closing."""
    labels = np.zeros((30, 60), np.uint8)
    labels[5:25, 5:9] = 1
    labels[5:25, 20:25] = 1
    radius = disc_radius_m(1.0, (0.2, 0.2))
    found = opened(labels, BUILDINGS, radius, (0.2, 0.2), reach_m=FAR) == 1
    assert not found[:, :15].any()
    assert found[15, 20:25].all()
    labels = np.ones((30, 60), np.uint8)
    labels[:, 10:14] = 0
    labels[:, 30:36] = 0
    found = closed(labels, BUILDINGS, radius, (0.2, 0.2)) == 1
    assert found[5:25, 10:14].all()
    assert not found[:, 30:36].any()


def test_a_building_cut_by_the_scene_or_by_nodata_is_not_eaten() -> None:
    labels = np.zeros((20, 30), np.uint8)
    labels[5:15, 0:2] = 1
    labels[2:18, 20:22] = 1
    labels[2:18, 22:30] = 255
    assert (opened(labels, BUILDINGS, 1.6, (0.5, 0.5), reach_m=FAR)[8:12, :22] == labels[8:12, :22]).all()


def test_an_opened_part_goes_to_the_class_around_it() -> None:
    labels = np.zeros((20, 30), np.uint8)
    labels[:, 15:] = 2
    labels[4:16, 4:5] = 1
    labels[4:16, 24:25] = 1
    found = opened(labels, ALL, 1.0, (1.0, 1.0), reach_m=FAR)
    assert (found[:, :15] == 0).all()
    assert (found[:, 15:] == 2).all()
