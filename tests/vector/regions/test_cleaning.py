"""Specks, pinholes and the graph of regions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pyproj import Geod
from rasterio.crs import CRS
from scipy import ndimage

from ctrs.raster.geotiff import Grid
from ctrs.vector.regions.cleaning import RegionGraph, clean, pixel_areas_m2
from ctrs.vector.regions.runs import Runs

NONE = 255
LABELS = hnp.arrays(
    np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.sampled_from([0, 1, 2, NONE])
)


def metre_grid(labels: npt.NDArray[np.uint8]) -> Grid:
    transform = Affine(1, 0, 4e5, 0, -1, 5e6)
    return Grid(crs=CRS.from_epsg(32633), transform=transform, width=labels.shape[1], height=labels.shape[0])


def cleaned(
    labels: npt.NDArray[np.uint8], min_area: float, min_hole: float, *, spare_none: bool = False
) -> npt.NDArray[np.uint8]:
    runs = Runs.from_array(labels)
    graph = clean(
        RegionGraph.of(runs, metre_grid(labels)),
        min_area_m2=min_area,
        min_hole_m2=min_hole,
        none=NONE,
        spare_none=spare_none,
    )
    return np.repeat(graph.classes[graph.members], runs.lengths).reshape(labels.shape).astype(np.uint8)


def blobs(text: str) -> npt.NDArray[np.uint8]:
    """Draw labels: a dot is nothing, digits are classes."""
    rows = [[NONE if c == "." else int(c) for c in line.strip()] for line in text.strip().splitlines()]
    return np.array(rows, np.uint8)


@given(LABELS)
def test_limits_of_zero_change_nothing(labels: npt.NDArray[np.uint8]) -> None:
    np.testing.assert_array_equal(cleaned(labels, 0, 0), labels)


@given(LABELS, st.integers(0, 8), st.integers(0, 8), st.booleans())
def test_no_speck_and_no_pinhole_remains(
    labels: npt.NDArray[np.uint8], min_area: int, min_hole: int, spare_none: bool
) -> None:
    result = cleaned(labels, min_area, min_hole, spare_none=spare_none)
    for value in (0, 1, 2):
        regions, _ = ndimage.label(result == value)
        assert (np.bincount(regions.ravel())[1:] >= min_area).all()
        for number in range(1, regions.max() + 1):
            outside, count = ndimage.label(np.pad(regions != number, 1, constant_values=True))
            for hole in range(1, count + 1):
                inside = (outside == hole)[1:-1, 1:-1]
                if hole != outside[0, 0] and (result[inside] == NONE).all():
                    assert inside.sum() >= min_hole
    np.testing.assert_array_equal(cleaned(result, min_area, min_hole, spare_none=spare_none), result)


@given(LABELS.filter(lambda labels: bool((labels != NONE).all())), st.integers(0, 8))
def test_a_full_coverage_stays_full(labels: npt.NDArray[np.uint8], min_area: int) -> None:
    result = cleaned(labels, min(min_area, labels.size), 2, spare_none=True)
    assert (result != NONE).all()


def test_a_speck_goes_to_the_longest_border() -> None:
    labels = blobs("""
        00000
        00012
        00022
        22222""")
    assert cleaned(labels, 2, 0)[1, 3] == 0, "of equal borders that of the larger region"
    labels[1, 2] = 2
    labels[2, 2] = 2
    assert cleaned(labels, 2, 0)[1, 3] == 2


def test_the_smallest_speck_moves_first_and_may_save_its_neighbour() -> None:
    labels = blobs("""
        00000
        01220
        00000""")
    labels[0, 1] = labels[2, 1] = 2  # the single 1 borders on 2 most
    labels[0, 2] = labels[2, 2] = 2
    labels = np.pad(labels, 3, constant_values=0)
    assert (cleaned(labels, 7, 0) == 2).sum() == 7
    assert (cleaned(labels, 8, 0) == 2).sum() == 0


def test_a_lone_speck_vanishes_and_its_hole_closes() -> None:
    labels = blobs("""
        11111
        1...1
        1.1.1
        1...1
        11111""")
    assert (cleaned(labels, 2, 10) == 1).all()
    assert (cleaned(labels, 2, 9)[1:4, 1:4] == NONE).all()


def test_a_hole_is_filled_before_its_polygon_is_judged() -> None:
    labels = np.pad(blobs("111\n1.1\n111"), 2, constant_values=NONE)
    assert (cleaned(labels, 9, 2) == 1).sum() == 9
    assert (cleaned(labels, 9, 0) == 1).sum() == 0


def test_a_hole_with_a_large_polygon_inside_stays() -> None:
    labels = blobs("""
        11111
        1...1
        1.2.1
        1...1
        11111""")
    assert (cleaned(labels, 1, 20)[1:4, 1:4] != 1).sum() == 9


def test_a_notch_at_the_edge_of_the_raster_is_no_hole() -> None:
    labels = blobs("1.1\n111")
    np.testing.assert_array_equal(cleaned(labels, 0, 5), labels)


def test_specks_prefer_a_class_to_nothing_where_a_coverage_is_drawn() -> None:
    labels = blobs("...\n.1.\n222\n222")
    assert cleaned(labels, 2, 0, spare_none=True)[1, 1] == 2
    assert cleaned(labels, 2, 0, spare_none=False)[1, 1] == NONE


@pytest.mark.parametrize(
    ("epsg", "transform"),
    [
        (4326, Affine(1e-5, 0, 85.5, 0, -1e-5, 27.6)),
        (3857, Affine(0.15, 0, 9_520_000, 0, -0.15, 3_200_000)),
        (3857, Affine(500, 0, 0, 0, -500, 11_000_000)),
    ],
    ids=["degrees", "Web Mercator", "Web Mercator over many latitudes"],
)
def test_pixels_are_measured_on_the_ground(epsg: int, transform: Affine) -> None:
    from pyproj import Transformer

    grid = Grid(crs=CRS.from_epsg(epsg), transform=transform, width=3000, height=8000)
    to_degrees = Transformer.from_crs(epsg, 4326, always_xy=True)
    areas = pixel_areas_m2(grid)
    for row in (0, 1234, 7999):
        corners = [transform @ (1500 + c, row + r) for c, r in ((0, 0), (1, 0), (1, 1), (0, 1))]
        lon, lat = to_degrees.transform(*zip(*corners, strict=True))
        expected = abs(Geod(ellps="WGS84").polygon_area_perimeter(lon, lat)[0])
        assert areas[row] == pytest.approx(expected, rel=2e-3)
