from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
import shapely
import shapely.affinity

from ctrs.vector.coverage.simplify import simplify_coverage
from ctrs.vector.regularize.neighbors import regularize_neighbors
from ctrs.vector.regularize.wall_arcs import straighten_arcs

PIXEL = 0.2
Polygons = npt.NDArray[np.object_]


def stairs(shapes: Sequence[shapely.Geometry], degrees: float) -> tuple[Polygons, Polygons]:
    """Shapes, turned, and the outlines of their pixels: a coverage with all vertices of common borders in common."""
    turned = [shapely.affinity.rotate(shape, degrees, origin=(20, 20)) for shape in shapes]
    rows, columns = np.mgrid[0:200, 0:200]
    x, y = (columns + 0.5) * PIXEL, (rows + 0.5) * PIXEL
    exact = np.empty(len(shapes), object)
    for number, shape in enumerate(turned):
        inside = shapely.contains_xy(shape, x, y)
        left, bottom = np.round(columns[inside] * PIXEL, 6), np.round(rows[inside] * PIXEL, 6)
        right, top = np.round((columns[inside] + 1) * PIXEL, 6), np.round((rows[inside] + 1) * PIXEL, 6)
        exact[number] = shapely.coverage_union_all(shapely.box(left, bottom, right, top))
    return np.array(turned, object), exact


def options(**changed: float) -> dict[str, float]:
    return {"pixel_m": PIXEL, "tolerance_m": 0.3, "max_area_change": 0.2, "min_iou": 0.75} | changed


def iou(shapes: Polygons, others: Polygons) -> npt.NDArray[np.float64]:
    return np.asarray(shapely.area(shapely.intersection(shapes, others)) / shapely.area(shapely.union(shapes, others)))


def common_sides(one: shapely.Polygon, other: shapely.Polygon) -> float:
    def sides(shape: shapely.Polygon) -> set[tuple[tuple[float, ...], ...]]:
        xy = shapely.get_coordinates(shape.exterior).tolist()
        return {tuple(sorted((tuple(start), tuple(end)))) for start, end in pairwise(xy)}

    return sum(float(np.hypot(*np.subtract(start, end))) for start, end in sides(one) & sides(other))


@pytest.mark.parametrize("step", [0.0, 3.0])
def test_houses_of_a_row_have_straight_walls_and_share_one(step: float) -> None:
    truth, exact = stairs([shapely.box(10, 12, 18, 24), shapely.box(18, 12 + step, 27, 24 + step)], 17.0)
    found, straight = straighten_arcs(exact, np.array([[17.0, np.nan], [18.5, np.nan]]), **options())
    assert straight.all()
    assert shapely.coverage_is_valid(found)
    assert shapely.is_valid(found).all()
    assert iou(found, truth).min() > 0.95
    assert common_sides(*found) == pytest.approx(12 - step, abs=0.5)
    assert (shapely.get_num_coordinates(found) - 1).max() <= 6


def test_a_house_askew_follows_its_own_direction() -> None:
    askew = shapely.Polygon([(19, 12), (28, 16), (25, 25), (19, 23)])
    truth, exact = stairs([shapely.box(9, 12, 19, 23), askew], 0.0)
    found, straight = straighten_arcs(exact, np.array([[0.0, np.nan], [24.0, np.nan]]), **options())
    assert straight.all()
    assert iou(found, truth).min() > 0.95
    assert (shapely.get_num_coordinates(found) - 1).max() <= 7


def test_fronts_that_are_offset_by_three_pixels_are_two_walls() -> None:
    truth, exact = stairs([shapely.box(10, 12, 18, 24), shapely.box(18, 12.6, 27, 24.6)], 0.0)
    found, straight = straighten_arcs(exact, np.array([[0.0, np.nan]] * 2), **options())
    assert straight.all()
    assert iou(found, truth).min() > 0.965  # 0.949 where both fronts are one wall
    assert shapely.bounds(found)[0, 1] == pytest.approx(12.0, abs=0.05)


def test_a_step_of_some_decimetres_is_drawn() -> None:
    stepped = shapely.Polygon([(10, 12.8), (13, 12.8), (13, 12), (18, 12), (18, 24), (10, 24)])
    truth, exact = stairs([stepped, shapely.box(18, 12, 27, 24)], 17.0)
    found, straight = straighten_arcs(exact, np.array([[17.0, np.nan]] * 2), **options())
    assert straight.all()
    assert iou(found, truth).min() > 0.97
    assert shapely.get_num_coordinates(found[0]) - 1 >= 6


def test_what_is_too_far_off_gets_simplified_arcs() -> None:
    _, exact = stairs([shapely.box(10, 12, 18, 24), shapely.box(18, 12, 27, 24)], 17.0)
    found, straight = straighten_arcs(exact, np.array([[17.0, np.nan]] * 2), **options(max_area_change=0.0))
    assert not straight.any()
    assert shapely.equals(found, simplify_coverage(exact, 0.3)).all()


def test_a_building_within_another_costs_their_neighbours_no_walls() -> None:
    inner = shapely.box(13, 14, 18, 19)
    shapes = [shapely.difference(shapely.box(8, 10, 23, 24), inner), inner, shapely.box(23, 10, 31, 24)]
    truth, exact = stairs(shapes, 11.0)
    found = regularize_neighbors(exact, pixel_m=(PIXEL, PIXEL), tolerance_m=0.3)
    assert found.methods.tolist() == ["walls", "outline", "walls"]
    assert shapely.coverage_is_valid(found.polygons)
    assert shapely.get_num_coordinates(found.polygons[2]) - 1 <= 5
    assert iou(found.polygons, truth).min() > 0.9
    assert common_sides(found.polygons[0], found.polygons[2]) == pytest.approx(14, abs=0.5)
