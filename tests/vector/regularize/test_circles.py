from __future__ import annotations

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from ctrs.raster.geotiff import Grid
from ctrs.synthetic.footprints import draw_footprints
from ctrs.synthetic.mask_noise import NOISE_LEVELS, NoiseLevel, NoisyMask
from ctrs.vector.regions.outlines import NO_REGION, trace
from ctrs.vector.regions.runs import Runs
from ctrs.vector.regularize.buildings import RegularizedBuildings, regularize_buildings
from ctrs.vector.regularize.circles import CHORD_M, circle_polygon, fit_circle

PIXEL_M = 0.2


def drawn(shapes: list[shapely.Polygon], level: NoiseLevel, *, fast: bool = False) -> RegularizedBuildings:
    """Straighten what a mask of shapes (metres, y downwards, from 5 m off the origin) looks like under noise."""
    right, bottom = shapely.bounds(shapes)[:, 2:].max(axis=0) + 5
    grid = Grid(
        crs=CRS.from_epsg(32633),
        transform=Affine(PIXEL_M, 0, 0, 0, PIXEL_M, 0),
        width=round(right / PIXEL_M),
        height=round(bottom / PIXEL_M),
    )
    noisy = NoisyMask(np.array(shapes, object), grid, NOISE_LEVELS[level], seed=1)
    runs = Runs.from_array(noisy.probability(0, grid.height) > 0.5)
    regions = np.where(runs.values, runs.regions(4), np.int32(NO_REGION))
    scale = (PIXEL_M, PIXEL_M)
    outlines = trace(runs, regions).polygons(scale)
    large = np.array([shapely.Polygon(shape.exterior, _large(shape.interiors)) for shape in outlines], object)
    return regularize_buildings(
        large[shapely.area(large) > 8], pixel_m=scale, tolerance_m=0.3, right_angles_only=fast, jobs=1
    )


def _large(rings: list[shapely.LinearRing]) -> list[shapely.LinearRing]:
    return [ring for ring in rings if shapely.Polygon(ring).area > 4]


def tanks(radii: list[float]) -> list[shapely.Polygon]:
    lefts = np.cumsum([0.0, *(2 * radius + 6 for radius in radii[:-1])])
    return [
        shapely.Point(left + radius + 5.3, 35.7).buffer(radius, quad_segs=64)
        for left, radius in zip(lefts, radii, strict=True)
    ]


@pytest.mark.parametrize("level", ["clean", "medium"])
def test_tanks_are_circles(level: NoiseLevel) -> None:
    truth = tanks([4, 6, 10, 15, 30])
    found = drawn(truth, level)
    assert found.methods.tolist() == ["circle"] * 5
    order = np.argsort(shapely.get_x(shapely.centroid(found.polygons)))
    least = 0.98 if level == "clean" else 0.92  # the mask's blur takes 3 cm of a radius of 4 m
    for shape, exact in zip(found.polygons[order], truth, strict=True):
        common = shape.intersection(exact).area
        assert common / (shape.area + exact.area - common) > least
        assert (
            len(shape.exterior.coords) - 1 == len(circle_polygon(0, 0, np.sqrt(shape.area / np.pi)).exterior.coords) - 1
        )
    assert set(drawn(truth[1:3], level, fast=True).methods) <= {"walls", "outline"}


@pytest.mark.parametrize("radius", [3.0, 4.0, 8.0])
def test_smoothing_takes_nothing_of_a_radius(radius: float) -> None:
    places = np.random.default_rng(0).uniform(0, PIXEL_M, (12, 2))
    truth = [
        shapely.affinity.translate(shape, *place) for shape, place in zip(tanks([radius] * 12), places, strict=True)
    ]
    found = drawn(truth, "clean")
    assert (found.methods == "circle").all()
    # Of a Gaussian of 0.3 m 15, 11 and 6 mm would be missing.
    assert np.sqrt(shapely.area(found.polygons) / np.pi).mean() == pytest.approx(radius, abs=0.003)


@pytest.mark.parametrize(("level", "holes"), [("clean", 1), ("medium", 0)])
def test_round_buildings_keep_no_hole_that_straight_ones_would_lose(level: NoiseLevel, holes: int) -> None:
    """A slit as wide as what noise takes away is a court only where there is no noise."""
    slit = shapely.affinity.rotate(shapely.box(13, 19.4, 25, 20.6), 20)
    found = drawn([shapely.difference(shapely.Point(20, 20).buffer(12, quad_segs=64), slit)], level)
    assert found.methods.tolist() == ["circle"]
    assert len(found.polygons[0].interiors) == holes


def test_no_footprint_with_straight_walls_becomes_round() -> None:
    footprints = draw_footprints(110, 300.0, 300.0, seed=5).merged().polygons
    found = drawn([shapely.affinity.translate(shape, 5, 5) for shape in footprints], "medium")
    assert len(found.methods) > 80
    assert (found.methods == "circle").sum() == 0


@pytest.mark.parametrize(("sides", "radius"), [(4, 3.0), (4, 8.0), (6, 7.0), (8, 8.0), (8, 15.0), (12, 20.0)])
def test_regular_polygons_stay_polygons(sides: int, radius: float) -> None:
    angles = 2 * np.pi * np.arange(sides) / sides + 0.3
    middles = [radius + 6 + number * (2 * radius + 8) for number in range(4)]
    shapes = [
        shapely.Polygon(np.column_stack([x + radius * np.cos(angles), radius + 6 + radius * np.sin(angles)]))
        for x in middles
    ]
    assert "circle" not in drawn(shapes, "medium").methods


def test_an_ellipse_is_no_circle() -> None:
    shape = shapely.affinity.scale(shapely.Point(18, 16).buffer(10, quad_segs=64), 1.1, 0.9)
    assert drawn([shape], "low").methods.tolist() != ["circle"]


@pytest.mark.parametrize("away", [0.0, 1.5])
def test_round_courts_are_circles_and_square_ones_keep_their_walls(away: float) -> None:
    shell = shapely.Point(20, 20).buffer(12, quad_segs=64)
    court = shapely.Point(20 + away, 20).buffer(6, quad_segs=64)
    found = drawn([shell.difference(court)], "low")
    assert found.methods.tolist() == ["circle"]
    hole = shapely.Polygon(found.polygons[0].interiors[0])
    assert hole.area == pytest.approx(court.area, rel=0.05)
    assert hole.centroid.distance(court.centroid) < 0.15
    square = shapely.box(15, 15, 25, 25)
    with_square = drawn([shell.difference(square)], "low")
    assert with_square.methods.tolist() == ["circle"]
    assert len(with_square.polygons[0].interiors[0].coords) - 1 == 4


@given(radius=st.floats(2, 200), x=st.floats(-1e4, 1e4))
@settings(max_examples=50, deadline=None)
def test_drawn_circles_stay_within_the_chord(radius: float, x: float) -> None:
    shape = circle_polygon(x, 0.0, radius)
    corners = shapely.get_coordinates(shape.exterior)
    corners[:, 0] -= x
    middles = (corners[1:] + corners[:-1]) / 2
    assert np.abs(np.hypot(*corners.T) - radius).max() < CHORD_M
    assert np.abs(np.hypot(*middles.T) - radius).max() < CHORD_M
    assert shape.area == pytest.approx(np.pi * radius**2, rel=1e-6)


def test_a_bite_does_not_move_the_circle_and_half_a_circle_is_none() -> None:
    angles = np.arange(0, 2 * np.pi, 0.25 / 8)
    points = 8 * np.column_stack([np.cos(angles), np.sin(angles)]) + [3.0, -2.0]
    bitten = points.copy()
    bitten[(angles > 1) & (angles < 1.3)] += [-1.0, -1.5]
    x, y, radius, cost = fit_circle(bitten, 0.25, 0.2)
    assert (x, y, radius) == pytest.approx((3, -2, 8), abs=0.01)
    assert cost == pytest.approx(0.3 * 8, rel=0.15)
    half = np.concatenate([points[angles < np.pi], np.linspace(points[angles < np.pi][-1], points[0], 60)])
    assert np.isnan(fit_circle(half, 0.25, 0.2)).all()
    assert np.isnan(fit_circle((points - [3, -2]) / 8 * 1.5, 0.25, 0.2)).all()  # too small to tell
