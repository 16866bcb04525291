from __future__ import annotations

import numpy as np
import pytest
import shapely

from ctrs.vector.quality.angles import direction_errors, main_directions, parallel_share, tangent_angle_errors
from ctrs.vector.quality.distances import matched_corners, outline_distances, polis
from ctrs.vector.quality.outlines import Outlines
from tests.vector.quality import slow_geometry


def building(rng: np.random.Generator, *, moved: float = 0.0) -> shapely.Polygon:
    """A polygon of 5 to 12 corners with a hole, walls of 2 to 12 m."""
    count = int(rng.integers(5, 13))
    angle = np.sort(rng.uniform(0, 2 * np.pi, count))
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False) + 0.3 * (angle - angle.mean()) / count
    shell = rng.uniform(7, 11, count)[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
    hole = 0.3 * shell[:: -max(1, count // 5)]
    return shapely.Polygon(shell + moved, [hole + moved])


@pytest.fixture(scope="module")
def pairs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    truth = [building(rng) for _ in range(12)]
    predicted = [shapely.affinity.rotate(shapely.segmentize(shape, 4.0), 3.0) for shape in truth[:6]]
    predicted += [building(rng, moved=0.4) for _ in range(6)]
    return np.array(predicted, object), np.array(truth, object)


def test_outlines_take_rings_apart() -> None:
    square = shapely.Polygon([(0, 0), (4, 0), (4, 4), (0, 4)], [[(1, 1), (1, 2), (2, 2)]])
    two = shapely.MultiPolygon([shapely.box(10, 0, 11, 1), shapely.box(20, 0, 21, 1)])
    outlines = Outlines.of(np.array([square, two], object))
    assert outlines.corner_counts.tolist() == [7, 8]
    assert outlines.owners.tolist() == [0] * 7 + [1] * 8
    assert outlines.following.tolist() == [1, 2, 3, 0, 5, 6, 4, 8, 9, 10, 7, 12, 13, 14, 11]
    assert outlines.wall_lengths[:4].tolist() == [4, 4, 4, 4]


def test_no_outlines() -> None:
    outlines = Outlines.of(np.empty(0, object))
    assert len(outlines.corners) == len(outlines.following) == outlines.count == 0
    assert len(polis(outlines, outlines)) == 0
    assert len(tangent_angle_errors(outlines, outlines)[0]) == 0
    assert matched_corners(outlines, outlines, 0.5) == 0


def test_distances_equal_those_of_a_slow_loop(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    predicted, truth = (Outlines.of(side) for side in pairs)
    both = list(zip(*pairs, strict=True))
    assert polis(predicted, truth) == pytest.approx([slow_geometry.polis(a, b) for a, b in both])
    there, _ = outline_distances(predicted, truth)
    back, _ = outline_distances(truth, predicted)
    expected = [slow_geometry.hausdorff(a, b, 0.25) for a, b in both]
    assert np.maximum(there, back) == pytest.approx(expected)
    assert matched_corners(predicted, truth, 0.8) == sum(slow_geometry.matched_corners(a, b, 0.8) for a, b in both)
    assert 0 < matched_corners(predicted, truth, 0.8) < len(predicted.corners)


def test_angles_equal_those_of_a_slow_loop(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    predicted, truth = (Outlines.of(side) for side in pairs)
    both = list(zip(*pairs, strict=True))
    errors, wall_errors = tangent_angle_errors(predicted, truth, spacing=0.4, corner_free=1.2)
    expected = np.array([slow_geometry.tangent_angle_errors(a, b, 0.4, 1.2) for a, b in both])
    assert errors == pytest.approx(expected[:, 0], abs=1e-6)
    assert wall_errors == pytest.approx(expected[:, 1], abs=1e-6)
    assert (wall_errors < errors).any()
    lengths = np.array([shape.length for shape in pairs[0]])
    shares = [slow_geometry.parallel_share(a, b, 5.0, 0.25) for a, b in both]
    assert parallel_share(predicted, truth, within_deg=5.0) == pytest.approx(np.average(shares, weights=lengths))
    assert 0.1 < np.average(shares, weights=lengths) < 0.9


def test_nearest_wall_is_found_on_every_ring(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    outlines = Outlines.of(pairs[1])
    rng = np.random.default_rng(1)
    points, owners = rng.uniform(-12, 12, (300, 2)), rng.integers(0, len(pairs[1]), 300)
    places, walls = outlines.nearest(points, owners)
    for point, owner, place, wall in zip(points, owners, places, walls, strict=True):
        expected, expected_wall = slow_geometry.nearest((point[0], point[1]), pairs[1][owner])
        assert tuple(place) == pytest.approx(expected)
        assert outlines.owners[wall] == owner
        if min(np.hypot(*(place - corner)) for corner in outlines.corners) > 1e-6:
            assert tuple(outlines.corners[wall]) == pytest.approx(expected_wall[0])


def test_where_a_ring_begins_the_ring_before_it_is_not_taken() -> None:
    rng = np.random.default_rng(2)
    shapes = np.array([building(rng, moved=1e6 * rng.random()) for _ in range(200)], object)
    holes = [np.array(shape.interiors[0].coords) for shape in shapes]
    outlines = Outlines.of(shapes)
    # Just outside the hole's first corner, that corner is nearest.
    points = np.array([hole[0] + 0.05 * (hole[0] - hole[:-1].mean(axis=0)) for hole in holes])
    places, _ = outlines.nearest(points, np.arange(200))
    expected = outlines.distances(points, np.arange(200))
    np.testing.assert_allclose(np.hypot(*(places - points).T), expected, atol=1e-6)


@pytest.mark.parametrize("turn", [0.0, 12.0, 44.0, 46.0, 89.5])
def test_main_direction(turn: float) -> None:
    shape = shapely.affinity.rotate(shapely.box(0, 0, 20, 5), turn)
    angle, agreement = main_directions(Outlines.of(np.array([shape], object)))
    assert angle[0] == pytest.approx(turn)
    assert agreement[0] == pytest.approx(1.0)


def test_direction_errors_leave_round_buildings_out() -> None:
    round_one = shapely.Point(50, 0).buffer(5)
    truth = Outlines.of(np.array([shapely.box(0, 0, 8, 5), round_one], object))
    turned = Outlines.of(np.array([shapely.affinity.rotate(shapely.box(0, 0, 8, 5), -3), round_one], object))
    assert direction_errors(turned, truth) == pytest.approx([3.0])
