from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
import shapely
import shapely.affinity
from affine import Affine
from rasterio.features import rasterize
from scipy.ndimage import gaussian_filter

from ctrs.raster.geotiff import Grid
from ctrs.vector.regions.cleaning import RegionGraph, clean
from ctrs.vector.regions.instances import fill_between
from ctrs.vector.regions.outlines import NO_REGION, trace
from ctrs.vector.regions.runs import Runs
from ctrs.vector.regularize.buildings import RegularizedBuildings
from ctrs.vector.regularize.neighbors import regularize_neighbors
from ctrs.vector.regularize.party_walls import divide, touching_groups

PIXEL = 0.2
Polygons = npt.NDArray[np.object_]


def outlines(truth: Polygons, *, wobble_m: float = 0.0, seed: int = 0) -> Polygons:
    """Exact outlines of a mask that numbers buildings, its pixels moved to and fro by a smooth field."""
    height, width = 240, 300
    shapes = [(shape, number + 1) for number, shape in enumerate(truth)]
    ids = rasterize(shapes, out_shape=(height, width), transform=Affine.scale(PIXEL), dtype="int32")
    rng = np.random.default_rng(seed)
    fields = [gaussian_filter(rng.standard_normal(ids.shape), 7) for _ in range(2)]
    moved = [np.rint(field / field.std() * wobble_m / PIXEL).astype(int) for field in fields]
    rows, columns = np.indices(ids.shape)
    ids = ids[np.clip(rows + moved[0], 0, height - 1), np.clip(columns + moved[1], 0, width - 1)]
    runs = Runs.from_array(ids)
    grid = Grid(crs=None, transform=Affine.scale(PIXEL), width=width, height=height)
    graph = fill_between(RegionGraph.of(runs, grid), min_hole_m2=4.0, none=0)
    graph = clean(graph, min_area_m2=8.0, min_hole_m2=4.0, none=0, spare_none=True)
    merged = runs.with_values(np.where(graph.classes[graph.members] > 0, graph.members, np.int32(NO_REGION)))
    return trace(merged, merged.values, junctions=True).polygons((PIXEL, PIXEL))


def straight(polygons: Polygons) -> RegularizedBuildings:
    return regularize_neighbors(polygons, pixel_m=(PIXEL, PIXEL), tolerance_m=0.3)


def turned(shapes: list[shapely.Geometry], degrees: float) -> Polygons:
    whole = shapely.affinity.rotate(shapely.MultiPolygon(shapes), degrees, origin=(0, 0))
    left, top, _, _ = whole.bounds
    return np.array([shapely.affinity.translate(part, 6 - left, 6 - top) for part in whole.geoms], object)


def row(steps: list[float], *, width: float = 6.5, depth: float = 10.0) -> list[shapely.Polygon]:
    fronts = np.cumsum(steps)
    return [shapely.box(place * width, front, (place + 1) * width, front + depth) for place, front in enumerate(fronts)]


def shared(one: shapely.Polygon, other: shapely.Polygon) -> float:
    """Length of common sides: both rings have them vertex for vertex."""

    def sides(shape: shapely.Polygon) -> set[tuple[tuple[float, float], ...]]:
        xy = shapely.get_coordinates(shapely.get_exterior_ring(shape)).tolist()
        return {tuple(sorted((tuple(a), tuple(b)))) for a, b in pairwise(xy)}

    common = sides(one) & sides(other)
    return sum(float(np.hypot(*np.subtract(a, b))) for a, b in common)


def check(found: RegularizedBuildings, truth: Polygons, *, least_iou: float) -> None:
    assert shapely.is_valid(found.polygons).all()
    assert shapely.coverage_is_valid(found.polygons)
    assert set(found.methods) == {"walls"}
    common = shapely.area(shapely.intersection(found.polygons[:, None], truth[None]))
    owner = common.argmax(axis=1)
    assert sorted(owner.tolist()) == list(range(len(truth)))
    union = shapely.area(found.polygons) + shapely.area(truth[owner]) - common.max(axis=1)
    assert (common.max(axis=1) / union).min() > least_iou
    ordered = np.empty(len(truth), object)
    ordered[owner] = found.polygons
    for one in range(len(truth)):
        for other in range(one):
            wall = shapely.intersection(truth[one], truth[other], grid_size=1e-6).length
            if wall > 1:
                assert shared(ordered[one], ordered[other]) == pytest.approx(wall, abs=0.8)


@pytest.mark.parametrize("degrees", [0.0, 13.0, 31.0])
@pytest.mark.parametrize("steps", [[0.0, 0.0, 0.0], [0.0, 2.5, 0.0, -2.2]])
def test_rows_of_houses_keep_their_steps_and_share_straight_walls(steps: list[float], degrees: float) -> None:
    truth = turned(row(steps), degrees)
    found = straight(outlines(truth, wobble_m=0.25))
    check(found, truth, least_iou=0.9)
    corners = shapely.get_num_coordinates(found.polygons) - 1
    assert corners.max() <= 8
    # A party wall and the step before it are one line.
    for shape in found.polygons:
        xy = shapely.get_coordinates(shape)[:-1]
        side = np.roll(xy, -1, axis=0) - xy
        angle = np.degrees(np.arctan2(side[:, 1], side[:, 0]))
        off = (angle - angle[np.hypot(*side.T).argmax()] + 45) % 90 - 45
        assert np.abs(off).max() < 3.0


def test_three_and_four_houses_meet_in_one_corner() -> None:
    three = [shapely.box(0, 0, 16, 9), shapely.box(0, 9, 7, 20), shapely.box(7, 9, 16, 20)]
    four = [shapely.box(x, y, x + 9, y + 8) for x in (0, 9) for y in (0, 8)]
    for shapes in (three, four):
        truth = turned(shapes, 17.0)
        check(straight(outlines(truth, wobble_m=0.2)), truth, least_iou=0.9)


def test_a_party_wall_may_have_a_corner() -> None:
    left = shapely.union(shapely.box(0, 0, 8, 14), shapely.box(8, 7, 12, 14))
    right = shapely.difference(shapely.box(8, 0, 20, 14), left)
    truth = turned([left, right], 9.0)
    found = straight(outlines(truth, wobble_m=0.15))
    check(found, truth, least_iou=0.93)


def test_neighbours_that_no_straight_walls_divide_keep_a_common_outline() -> None:
    inner = shapely.box(8, 8, 14, 14)
    truth = np.array([shapely.difference(shapely.box(4, 4, 20, 20), inner), inner], object)
    found = straight(outlines(truth))
    assert found.methods.tolist() == ["outline", "outline"]
    assert shapely.coverage_is_valid(found.polygons)
    assert found.iou.min() > 0.9


def test_lone_buildings_are_drawn_as_ever() -> None:
    truth = np.array([shapely.box(4, 4, 16, 12), shapely.box(24, 20, 36, 32)], object)
    exact = outlines(truth, wobble_m=0.1)
    assert touching_groups(exact).tolist() == [0, 1]
    found = straight(exact)
    assert found.sources.tolist() == [0, 1]
    assert shapely.get_num_coordinates(found.polygons).tolist() == [5, 5]


def test_what_is_divided_has_one_part_for_each_member_or_none() -> None:
    exact = outlines(turned(row([0.0, 0.0]), 0.0))
    whole = shapely.box(*shapely.total_bounds(exact))
    parts = divide(whole, exact, pixel_m=PIXEL, max_area_change=0.2)
    assert parts is not None
    assert shapely.union_all(parts).equals(whole)
    wider = shapely.box(*(shapely.total_bounds(exact) + np.array([0, 0, 3, 0])))
    assert divide(wider, exact, pixel_m=PIXEL, max_area_change=0.2) is None
    assert divide(wider, exact, pixel_m=PIXEL, max_area_change=0.6) is not None
    elsewhere = shapely.affinity.translate(whole, 100, 0)
    assert divide(elsewhere, exact, pixel_m=PIXEL, max_area_change=0.2) is None
