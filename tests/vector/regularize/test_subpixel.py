from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import contourpy
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from scipy.ndimage import gaussian_filter

from ctrs.raster.geotiff import Grid
from ctrs.synthetic.mask_noise import MaskNoise, NoisyMask
from ctrs.vector.outlines import NO_REGION, Outlines, trace
from ctrs.vector.regularize.subpixel import SubpixelOutlines, read_probability_bands, refine_outlines
from ctrs.vector.runs import Runs


def outlines_of(mask: np.ndarray) -> Outlines:
    runs = Runs.from_array(mask.astype(np.uint8))
    regions = runs.regions(4)
    return trace(runs, np.where(runs.values > 0, regions, np.int32(NO_REGION)))


def bands_of(probabilities: np.ndarray, rows: int) -> Iterator[tuple[int, np.ndarray]]:
    for row in range(0, probabilities.shape[1], rows):
        yield row, probabilities[:, row : row + rows + 1]


def refined(field: np.ndarray, rows: int = 7) -> SubpixelOutlines:
    """Refine the outlines of ``field > 0``, which counts as the margin of one class over the other."""
    outlines = outlines_of(field > 0)
    both = np.stack([0.5 - field / 2, 0.5 + field / 2]).astype(np.float32)
    return refine_outlines(outlines, np.ones(len(outlines.regions), int), bands_of(both, rows))


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
    expected = np.concatenate(contourpy.contour_generator(z=field).lines(0.0))
    expected = np.unique((expected + 0.5).round(3), axis=0)
    np.testing.assert_allclose(np.unique(found.points.round(3), axis=0), expected, atol=2e-3)


def test_rings_follow_the_zero_level() -> None:
    field = smooth_field(1)
    found = refined(field)
    total = shapely.area(found.polygons()).sum()
    lines = contourpy.contour_generator(z=field).lines(0.0)
    expected = abs(sum(_shoelace(line) for line in lines))
    assert total == pytest.approx(expected, rel=0.02)
    steps = [
        np.hypot(*(np.roll(ring, -1, axis=0) - ring).T).max()
        for ring in np.split(found.points, found.ring_offsets[1:-1])
    ]
    assert max(steps) < 1.5


def _shoelace(line: np.ndarray) -> float:
    x, y = line.T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


@given(seed=st.integers(0, 2**20))
@settings(max_examples=25, deadline=None)
def test_without_probabilities_points_are_middles_of_edges(seed: int) -> None:
    mask = np.random.default_rng(seed).random((9, 11)) < 0.6
    outlines = outlines_of(mask)
    found = refine_outlines(outlines, np.zeros(len(outlines.regions), int))
    assert not found.located.any()
    edges = set()
    padded = np.pad(mask, 1)
    for row, column in np.argwhere(padded):
        for down, right in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            if not padded[row + down, column + right]:
                edges.add((column - 0.5 + right / 2, row - 0.5 + down / 2))
    assert sorted(map(tuple, found.points.tolist())) == sorted(edges)
    assert np.array_equal(found.regions, outlines.regions)
    assert len(found.polygon_of_point) == len(found.points)


def test_neighbours_of_two_classes_meet_in_the_same_points() -> None:
    field = gaussian_filter(np.random.default_rng(3).normal(size=(3, 30, 30)), (0, 3, 3)).astype(np.float64)
    shares = np.exp(25 * field) / np.exp(25 * field).sum(axis=0)
    labels = shares.argmax(axis=0).astype(np.uint8)
    runs = Runs.from_array(labels)
    outlines = trace(runs, runs.regions(4))
    region_class = np.array([runs.values[np.flatnonzero(runs.regions(4) == region)[0]] for region in outlines.regions])
    found = refine_outlines(outlines, region_class, bands_of(shares.astype(np.float32), 8))
    inner = found.located & (found.points > 1).all(axis=1) & (found.points < 29).all(axis=1)
    _, counts = np.unique(found.points[inner].round(5), axis=0, return_counts=True)
    assert (counts == 2).mean() > 0.8  # where a third class comes between, each stays with its own rival


def test_cleaned_pixels_and_unknown_ones_leave_the_middle() -> None:
    field = np.full((6, 6), -0.8, np.float32)
    field[1:5, 1:5] = 0.2
    field[2, 2] = -0.3
    outlines = outlines_of(np.pad(np.ones((4, 4), bool), 1))  # the pinhole was filled, so it has no outline
    both = np.stack([0.5 - field / 2, 0.5 + field / 2])
    both[:, 3, 0] = np.nan
    found = refine_outlines(outlines, np.array([1]), [(0, both)])
    assert found.located.sum() == 15
    assert found.points[~found.located].tolist() == [[1.0, 3.5]]
    # From 0.2 inside to -0.8 outside the zero lies 0.2 pixels from the centres of the outermost pixels inside.
    assert np.isclose(found.points[found.located], 1.3).any(axis=1).sum() == 7
    assert np.isclose(found.points[found.located], 4.7).any(axis=1).sum() == 8


def test_a_tie_on_both_sides_leaves_the_middle() -> None:
    outlines = outlines_of(np.pad(np.ones((2, 2), bool), 1))
    found = refine_outlines(outlines, np.array([1]), [(0, np.full((2, 4, 4), 0.5, np.float32))])
    assert not found.located.any()
    assert np.array_equal(found.points, refine_outlines(outlines, np.array([1])).points)


def test_one_stored_class_stands_against_the_rest() -> None:
    field = smooth_field(4)
    outlines = outlines_of(field > 0)
    one = (0.5 + field / 2)[None]
    found = refine_outlines(outlines, np.zeros(len(outlines.regions), int), bands_of(one, 50), complete=False)
    np.testing.assert_allclose(found.points, refined(field).points, atol=1e-4)


def test_smoothing_straightens_a_staircase_and_keeps_its_place() -> None:
    size, pixel = 300, 0.2
    place = Grid(crs=CRS.from_epsg(32633), transform=Affine(pixel, 0, 0, 0, -pixel, 60), width=size, height=size)
    truth = shapely.affinity.rotate(shapely.box(15, 20, 45, 40), 23)
    noisy = NoisyMask(np.array([truth], object), place, MaskNoise())
    outlines = outlines_of(noisy.probability(0, size) > 0.5)
    exact = refine_outlines(outlines, np.zeros(1, int))
    smooth = exact.smooth(0.45, (pixel, pixel))
    located = refined(2 * noisy.probability(0, size) - 1)

    def errors(found: SubpixelOutlines) -> tuple[float, float]:
        points = found.points * [pixel, -pixel] + [0, 60]
        corners = shapely.MultiPoint(truth.exterior.coords)
        walls = points[shapely.distance(shapely.points(points), corners) > 2]
        away = shapely.distance(shapely.points(walls), truth.boundary)
        signed = np.where(shapely.contains_xy(truth, walls), -away, away)
        return float(signed.mean()), float(signed.std())

    assert errors(exact)[1] > 0.04
    assert abs(errors(smooth)[0]) < 0.005
    assert errors(smooth)[1] < 0.015
    assert abs(errors(located)[0]) < 0.001
    assert errors(located)[1] < 0.003
    assert smooth.polygons((pixel, pixel))[0].is_valid
    assert exact.smooth(0.0) is exact


def test_bands_are_read_from_a_stored_raster(tmp_path: Path) -> None:
    field = smooth_field(6)
    both = np.stack([0.5 - field / 2, 0.5 + field / 2])
    path = tmp_path / "scene_probabilities.tif"
    profile = {"width": 50, "height": 40, "count": 2, "dtype": "uint8", "nodata": 255, "crs": "EPSG:32633"}
    with rasterio.open(path, "w", driver="GTiff", transform=Affine(0.2, 0, 0, 0, -0.2, 0), **profile) as dataset:
        stored = np.round(254 * both).astype(np.uint8)
        stored[:, 5, 5] = 255
        dataset.write(stored)
    with rasterio.open(path) as dataset:
        bands = list(read_probability_bands(dataset, band_rows=16))
    assert [(row, values.shape) for row, values in bands] == [(0, (2, 17, 50)), (16, (2, 17, 50)), (32, (2, 8, 50))]
    assert np.isnan(bands[0][1][:, 5, 5]).all()
    outlines = outlines_of(field > 0)
    found = refine_outlines(outlines, np.ones(len(outlines.regions), int), bands)
    near = found.located & (np.abs(found.points - 5.5) > 1.1).any(axis=1)
    assert near.mean() > 0.9
    shift = np.hypot(*(found.points - refined(field).points)[near].T)
    assert np.median(shift) < 0.02


def test_nothing_to_refine() -> None:
    found = refine_outlines(
        outlines_of(np.zeros((3, 3), bool)), np.empty(0, int), [(0, np.zeros((2, 3, 3), np.float32))]
    )
    assert len(found.points) == len(found.polygons()) == 0
    assert len(found.smooth(1.0).points) == 0
