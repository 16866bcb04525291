from __future__ import annotations

from collections.abc import Iterator

import contourpy
import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from scipy.ndimage import gaussian_filter

from ctrs.raster.geotiff import Grid
from ctrs.synthetic.mask_noise import MaskNoise, NoisyMask
from ctrs.vector.polygonize import first_members
from ctrs.vector.regions.outlines import NO_REGION, Outlines, trace
from ctrs.vector.regions.runs import Runs
from ctrs.vector.regularize.subpixel import NO_BAND, SubpixelOutlines, refine_outlines


def traced(labels: np.ndarray, *, nothing: int = 0) -> tuple[Outlines, Runs, np.ndarray]:
    """Return outlines, runs of regions, and the label of each region."""
    runs = Runs.from_array(labels.astype(np.uint8))
    regions = runs.regions(4)
    label = runs.values[first_members(regions)].astype(np.int64)
    merged = runs.with_values(np.where(runs.values == nothing, np.int32(NO_REGION), regions))
    return trace(merged, merged.values, junctions=True), merged, label


def blocks_of(probabilities: np.ndarray, rows: int) -> Iterator[tuple[int, np.ndarray]]:
    for row in range(0, probabilities.shape[1], rows):
        yield row, probabilities[:, row : row + rows + 1].astype(np.float32)


def refined(field: np.ndarray, rows: int = 7, mask: np.ndarray | None = None) -> SubpixelOutlines:
    """Refine the outlines of ``field > 0``, or of a mask; the field counts as the margin of building over ground."""
    outlines, regions, label = traced(field > 0 if mask is None else mask)
    return refine_outlines(outlines, regions, label, blocks_of(np.stack([0.5 - field / 2, 0.5 + field / 2]), rows))


def smooth_field(seed: int, height: int = 40, width: int = 50) -> np.ndarray:
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(height, width)), 2.0)
    field = 0.9 * noise / np.abs(noise).max() + 0.013
    field[[0, -1]] = field[:, [0, -1]] = -0.5
    return field.astype(np.float32)


@given(seed=st.integers(0, 2**20), rows=st.integers(1, 45))
@settings(max_examples=25, deadline=None)
def test_points_are_those_of_the_zero_level(seed: int, rows: int) -> None:
    field = smooth_field(seed)
    found = refined(field, rows)
    assert found.located.all()
    expected = np.concatenate(contourpy.contour_generator(z=field).lines(0.0)) + 0.5
    # Points keep 0.02 pixels off the centres, where the zero level need not.
    tree = shapely.STRtree(shapely.points(expected))
    _, distance = tree.query_nearest(shapely.points(found.points), return_distance=True, all_matches=False)
    assert distance.max() < 0.021
    assert np.median(distance) < 1e-4
    assert len(np.unique(found.points.round(6), axis=0)) == pytest.approx(len(np.unique(expected.round(6), axis=0)), 1)


def test_area_is_that_of_the_zero_level() -> None:
    field = smooth_field(1)
    total = shapely.area(refined(field).polygons()).sum()
    lines = contourpy.contour_generator(z=field).lines(0.0)
    assert total == pytest.approx(abs(sum(_shoelace(line) for line in lines)), rel=0.02)
    assert abs(total - (field > 0).sum()) > 1


def _shoelace(line: np.ndarray) -> float:
    x, y = line.T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


@given(seed=st.integers(0, 2**20), classes=st.integers(2, 4))
@settings(max_examples=40, deadline=None)
def test_without_probabilities_outlines_stay(seed: int, classes: int) -> None:
    labels = np.random.default_rng(seed).integers(0, classes, (9, 11))
    outlines, regions, label = traced(labels)
    found = refine_outlines(outlines, regions, label)
    assert not found.located.any()
    assert shapely.equals(found.polygons(), outlines.polygons()).all()
    without = refine_outlines(outlines, regions, np.full_like(label, NO_BAND), [(0, np.ones((4, 9, 11), np.float32))])
    np.testing.assert_array_equal(found.points, without.points)


@given(seed=st.integers(0, 2**20), classes=st.integers(2, 5), nothing=st.sampled_from([0, 99]), smooth=st.booleans())
@settings(max_examples=80, deadline=None)
def test_polygons_are_valid_and_apart_with_holes_and_neighbours_as_before(
    seed: int, classes: int, nothing: int, smooth: bool
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(classes, 14, 12))
    if smooth:
        values = gaussian_filter(values, (0, 1.2, 1.2)) * 6
    shares = np.exp(3 * values) / np.exp(3 * values).sum(axis=0)
    labels = shares.argmax(axis=0)
    # What cleaning, opening or splitting does: some pixels are not of their most probable class.
    changed = rng.random(labels.shape) < 0.1
    labels[changed] = rng.integers(0, classes, changed.sum())
    shares[:, rng.random(labels.shape) < 0.05] = np.nan
    if rng.random() < 0.5:
        shares = shares.round(1)  # ties, and points that would lie on the centres of pixels
    outlines, regions, label = traced(labels, nothing=nothing)
    found = refine_outlines(outlines, regions, label, blocks_of(shares, 5)).polygons()
    exact = outlines.polygons()
    assert shapely.is_valid(found).all()
    assert (shapely.get_num_interior_rings(found) == shapely.get_num_interior_rings(exact)).all()
    assert (shapely.area(found) > 0).all()
    first, second = shapely.STRtree(found).query(found, predicate="intersects")
    pairs = first < second
    common = shapely.area(shapely.intersection(found[first[pairs]], found[second[pairs]]))
    assert common.max(initial=0) < 1e-9
    if nothing == 99:  # all classes drawn: no gap comes between them
        assert shapely.area(shapely.union_all(found)) == pytest.approx(labels.size, abs=1e-6)
        assert shapely.coverage_is_valid(found)


def test_an_edge_of_the_raster_and_unknown_pixels_stay_exact() -> None:
    field = np.full((6, 6), 0.6, np.float32)
    field[:, 4:] = -0.2
    found = refined(field).polygons()[0]
    assert found.bounds == pytest.approx((0, 0, 4.25, 6))
    assert found.area == pytest.approx(4.25 * 6 - 2 * 0.25 * 0.5 / 2 * 1.0, abs=0.13)
    field[:, 4] = np.nan
    assert (
        refined(field, mask=np.pad(np.ones((6, 4), bool), ((0, 0), (0, 2))))
        .polygons()[0]
        .equals(shapely.box(0, 0, 4, 6))
    )


def test_cleaned_pixels_and_unknown_ones_leave_the_edge() -> None:
    field = np.full((6, 6), -0.8, np.float32)
    field[1:5, 1:5] = 0.2
    field[2, 2] = -0.3
    field[3, 0] = np.nan
    filled = np.pad(np.ones((4, 4), bool), 1)  # the pinhole was filled, so it has no outline
    found = refined(field, mask=filled)
    open_ring = slice(0, -1)
    points, located = found.points[open_ring], found.located[open_ring]
    assert located.sum() == 15
    assert points[~located].tolist() == [[1.0, 3.5]]
    # From 0.2 inside to -0.8 outside the zero lies 0.2 pixels from the centres of the outermost pixels inside.
    assert np.isclose(points[located], 1.3).any(axis=1).sum() == 7
    assert np.isclose(points[located], 4.7).any(axis=1).sum() == 8


def test_one_stored_class_stands_against_the_rest() -> None:
    field = smooth_field(4)
    outlines, regions, label = traced(field > 0)
    one = blocks_of((0.5 + field / 2)[None], 50)
    found = refine_outlines(outlines, regions, np.where(label == 1, 0, NO_BAND), one, complete=False)
    np.testing.assert_allclose(found.points, refined(field).points, atol=1e-4)


def test_points_lie_on_the_wall() -> None:
    size, pixel = 300, 0.2
    place = Grid(crs=CRS.from_epsg(32633), transform=Affine(pixel, 0, 0, 0, -pixel, 60), width=size, height=size)
    truth = shapely.affinity.rotate(shapely.box(15, 20, 45, 40), 23)
    noisy = NoisyMask(np.array([truth], object), place, MaskNoise())
    points = refined(2 * noisy.probability(0, size) - 1).points * [pixel, -pixel] + [0, 60]
    corners = shapely.MultiPoint(truth.exterior.coords)
    walls = points[shapely.distance(shapely.points(points), corners) > 2]
    away = shapely.distance(shapely.points(walls), truth.boundary)
    signed = np.where(shapely.contains_xy(truth, walls), -away, away)
    assert abs(signed.mean()) < 0.001
    assert signed.std() < 0.003


def test_nothing_to_refine() -> None:
    outlines, regions, label = traced(np.zeros((3, 3), bool))
    found = refine_outlines(outlines, regions, label, [(0, np.zeros((2, 3, 3), np.float32))])
    assert len(found.points) == len(found.polygons()) == 0


def test_rows_that_are_looked_at_alone_give_the_same_points() -> None:
    field = np.random.default_rng(0).uniform(-0.5, -0.1, (20, 12)).astype(np.float32)
    field[6:12, 3:9] = 0.3
    field[7, 4] = 0.05
    both = np.stack([0.5 - field / 2, 0.5 + field / 2])
    whole = refined(field)
    outlines, regions, label = traced(field[6:12] > 0)
    part = refine_outlines(outlines, regions, label, blocks_of(both, 4), row_off=6, num_rows=20)
    np.testing.assert_array_equal(part.points + np.array([0, 6]), whole.points)
    assert shapely.to_wkb(part.polygons((0.3, 0.3), row_off=6)[0]) == shapely.to_wkb(whole.polygons((0.3, 0.3))[0])
    assert part.located.all()
    outlines, regions, label = traced(field[6:12] > 0)
    cut = refine_outlines(outlines, regions, label, blocks_of(both[:, 6:12], 4))  # there the raster ends
    assert not cut.located.all()
