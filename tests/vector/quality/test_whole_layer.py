"""All figures of a layer at once, told again building by building."""

from __future__ import annotations

import itertools

import geopandas
import numpy as np
import pytest
import shapely

from ctrs.synthetic.footprints import draw_footprints
from ctrs.vector.quality import measure_quality
from tests.vector.quality import slow_geometry as slow


def length_near(one: shapely.Polygon, other: shapely.Polygon, within: float) -> float:
    """Length of pieces of 0.25 m that begin within a distance."""
    return sum(
        float(np.hypot(*np.subtract(end, start)))
        for start, end in slow.cut(one, 0.25)
        if slow.distance(start, other) <= within
    )


def right_angles(shapes: list[shapely.Polygon]) -> float:
    right = []
    for shape in shapes:
        for ring in slow.rings(shape):
            for before, corner, after in zip(ring[-1:] + ring[:-1], ring, ring[1:] + ring[:1], strict=True):
                turn = slow.direction(before, corner) - slow.direction(corner, after)
                right.append(abs(abs((turn + 180) % 360 - 180) - 90) <= 1)
    return float(np.mean(right))


def strip(shape: shapely.Polygon) -> shapely.Geometry:
    """What lies within a metre of the outline, inside."""
    return shape.intersection(shape.boundary.buffer(1.0, quad_segs=64))


def iou(a: shapely.Geometry, b: shapely.Geometry) -> float:
    return float(a.intersection(b).area / a.union(b).area)


@pytest.fixture(scope="module")
def layers() -> tuple[list[shapely.Polygon], list[shapely.Polygon]]:
    """Buildings turned, moved, cut or swollen; some lost, some that are none."""
    rng = np.random.default_rng(3)
    truth = list(draw_footprints(26, 200, 200, seed=11).merged().polygons)
    drawn = [shapely.box(300, 300, 310, 308), shapely.box(330, 300, 333, 304)]
    for place, shape in enumerate(truth[3:]):
        turned = shapely.affinity.rotate(shape, rng.normal(0, 2.0))
        moved = shapely.affinity.translate(turned, *rng.normal(0, 0.4, 2))
        if place % 4 == 1:
            moved = moved.buffer(0.5, join_style="mitre")
        if place % 4 == 2:
            x, y = moved.exterior.coords[0]
            moved = max(shapely.get_parts(moved - shapely.box(x - 2, y - 2, x + 2, y + 2)), key=shapely.area)
        drawn.append(moved)
    return drawn, truth


def test_figures_of_a_layer_equal_those_told_one_by_one(
    layers: tuple[list[shapely.Polygon], list[shapely.Polygon]],
) -> None:
    drawn, truth = layers
    found = measure_quality(geopandas.GeoSeries(drawn), geopandas.GeoSeries(truth))
    candidates = sorted(
        ((iou(a, b), i, j) for (i, a), (j, b) in itertools.product(enumerate(drawn), enumerate(truth))), reverse=True
    )
    pairs: list[tuple[float, int, int]] = []
    for value, i, j in candidates:
        if value > 0 and i not in {pair[1] for pair in pairs} and j not in {pair[2] for pair in pairs}:
            pairs.append((value, i, j))
    for level in found.detections:
        count = sum(value >= level.iou for value, _, _ in pairs)
        assert (level.precision, level.recall) == pytest.approx((count / len(drawn), count / len(truth))), level.iou
    pairs = [pair for pair in pairs if pair[0] >= 0.5]
    assert len(truth) > len(pairs) > 15
    both = [(drawn[i], truth[j]) for _, i, j in pairs]
    corners = [(len(slow.corners(a)), len(slow.corners(b))) for a, b in both]

    def over_true(values: list[float]) -> float:
        return sum(values) / len(truth)

    def over_pairs(values: list[float]) -> float:
        return sum(values) / len(pairs)

    angles = [slow.tangent_angle_errors(a, b, 0.75, 1.0) for a, b in both]
    all_corners = sum(len(slow.corners(shape)) for shape in (*drawn, *truth))
    precision = sum(length_near(a, b, 0.5) for a, b in both) / sum(shape.length for shape in drawn)
    recall = sum(length_near(b, a, 0.5) for a, b in both) / sum(shape.length for shape in truth)
    lengths = [a.length for a, _ in both]
    parallel = [slow.parallel_share(a, b, 1.0, 0.25) * length for (a, b), length in zip(both, lengths, strict=True)]
    expected = {
        "iou": over_true([value for value, _, _ in pairs]),
        "c_iou": over_true(
            [value * (1 - abs(n - m) / (n + m)) for (value, _, _), (n, m) in zip(pairs, corners, strict=True)]
        ),
        "n_ratio": over_pairs([n / m for n, m in corners]),
        "corner_ratio": sum(n for n, _ in corners) / sum(m for _, m in corners),
        "exact_corner_count": over_true([float(n == m) for n, m in corners]),
        "polis_m": over_pairs([slow.polis(a, b) for a, b in both]),
        "hausdorff_m": over_pairs([slow.hausdorff(a, b, 0.25) for a, b in both]),
        "tangent_angle_error_deg": over_pairs([whole for whole, _ in angles]),
        "wall_angle_error_deg": over_pairs([walls for _, walls in angles]),
        "parallel_share": sum(parallel) / sum(lengths),
        "corner_f1": 2 * sum(slow.matched_corners(a, b, 0.5) for a, b in both) / all_corners,
        "boundary_f": 2 * precision * recall / (precision + recall),
        "right_angle_share": right_angles(drawn),
        "true_right_angle_share": right_angles(truth),
    }
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-6, abs=1e-6), name
    # Corners of the strips inside are round here and sharp or round there, by how they are buffered.
    assert found.boundary_iou == pytest.approx(over_true([iou(strip(a), strip(b)) for a, b in both]), abs=0.01)
