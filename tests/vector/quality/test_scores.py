from __future__ import annotations

import dataclasses
import math

import geopandas
import numpy as np
import pytest
import shapely

from ctrs.errors import LabelError
from ctrs.synthetic.footprints import draw_footprints
from ctrs.vector.quality import PolygonQuality, measure_quality

SQUARE = shapely.box(0, 0, 10, 10)
L = shapely.Polygon([(0, 0), (10, 0), (10, 5), (5, 5), (5, 10), (0, 10)])
BOWTIE = shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])


def layer(*shapes: shapely.Geometry | None, crs: str | None = None) -> geopandas.GeoSeries:
    return geopandas.GeoSeries(list(shapes), crs=crs)


def moved(shape: shapely.Geometry, x: float, y: float = 0.0) -> shapely.Geometry:
    return shapely.affinity.translate(shape, x, y)


def figures(quality: PolygonQuality) -> dict[str, float]:
    return {
        field.name: getattr(quality, field.name)
        for field in dataclasses.fields(quality)
        if field.name not in ("matching", "pairs", "detections")
    }


def test_a_perfect_copy() -> None:
    footprints = draw_footprints(40, 250, 250, seed=3)
    found = measure_quality(layer(*footprints.polygons), layer(*footprints.polygons[::-1]))
    count = len(footprints.polygons)
    assert found.num_matched == found.num_truth == found.num_predicted == count
    for name in ("missed", "spurious", "split", "merged", "invalid", "overlaps", "lost_holes", "spurious_holes"):
        assert getattr(found, f"num_{name}") == 0, name
    for name in ("iou", "c_iou", "n_ratio", "corner_ratio", "exact_corner_count", "parallel_share", "corner_f1"):
        assert getattr(found, name) == pytest.approx(1.0), name
    for name in ("boundary_iou", "boundary_f", "party_wall_share"):
        assert getattr(found, name) == pytest.approx(1.0), name
    for name in ("polis_m", "hausdorff_m", "tangent_angle_error_deg", "wall_angle_error_deg", "direction_error_deg"):
        assert getattr(found, name) == pytest.approx(0.0, abs=1e-6), name
    assert all(entry.precision == entry.recall == entry.f1 == 1.0 for entry in found.detections)
    assert found.right_angle_share == found.true_right_angle_share
    assert 0.8 < found.right_angle_share < 1
    assert (found.matching.predicted + found.matching.truth == count - 1).all()


def test_a_square_moved_by_a_metre() -> None:
    found = measure_quality(layer(moved(SQUARE, 1)), layer(SQUARE))
    assert found.iou == found.c_iou == pytest.approx(9 / 11)
    assert found.polis_m == pytest.approx(0.5)  # two corners of each lie on the other, two are a metre away
    assert found.hausdorff_m == pytest.approx(1.0)
    assert found.boundary_iou == pytest.approx(18 / 54)  # rings of 36 m²: what is common are two strips of 9 m x 1 m
    assert found.boundary_f == pytest.approx(20 / 40, abs=0.03)  # 19 m of the long sides, 1 m at the ends of another
    assert found.corner_f1 == 0.0
    assert found.direction_error_deg == pytest.approx(0.0, abs=1e-9)
    assert [entry.f1 for entry in found.detections] == [1.0] * 7 + [0.0] * 3
    assert found.f1_at(0.8) == 1.0
    assert found.f1_at(0.85) == 0.0
    nearer = measure_quality(layer(moved(SQUARE, 0.4)), layer(SQUARE))
    assert nearer.corner_f1 == 1.0
    assert nearer.wall_angle_error_deg == pytest.approx(0.0, abs=1e-6)


def test_a_turned_rectangle() -> None:
    truth = shapely.box(-20, -10, 20, 10)
    turned = shapely.affinity.rotate(truth, 2.0, origin=(0, 0))
    found = measure_quality(layer(turned), layer(truth))
    assert found.direction_error_deg == pytest.approx(2.0)
    assert found.wall_angle_error_deg == pytest.approx(2.0)
    assert found.tangent_angle_error_deg > 2.0
    assert found.parallel_share < 0.05
    assert found.right_angle_share == 1.0
    tilt = math.radians(2.0)
    # The corner (20, 10) goes 10 sin t in and 20 sin t up; all corners are alike by symmetry, there and back.
    corner = (20 * math.cos(tilt) - 10 * math.sin(tilt), 20 * math.sin(tilt) + 10 * math.cos(tilt))
    other = (20 * math.cos(tilt) + 10 * math.sin(tilt), 10 * math.cos(tilt) - 20 * math.sin(tilt))
    near = [corner[1] - 10, math.hypot(max(other[0] - 20, 0), 0)]
    assert found.polis_m == pytest.approx(np.mean(near), abs=0.02)


def test_an_l_with_a_lost_corner() -> None:
    found = measure_quality(layer(SQUARE), layer(L))
    assert found.iou == pytest.approx(0.75)
    assert found.c_iou == pytest.approx(0.75 * (1 - 2 / 10))
    assert found.n_ratio == found.corner_ratio == pytest.approx(4 / 6)
    assert found.exact_corner_count == 0.0
    assert found.polis_m == pytest.approx((5 / 4 + 5 / 6) / 2)
    assert found.hausdorff_m == pytest.approx(5.0)
    assert found.corner_f1 == pytest.approx(2 * 3 / 10)
    assert found.parallel_share == pytest.approx(1.0)
    # Around the lost corner points collapse into a corner of the L, or their projections jump from one to the other.
    assert found.tangent_angle_error_deg == pytest.approx(0.0, abs=1e-6)
    assert found.right_angle_share == found.true_right_angle_share == 1.0


def test_unmatched_truth_counts_zero() -> None:
    found = measure_quality(layer(SQUARE, moved(SQUARE, 200)), layer(SQUARE, moved(SQUARE, 50), moved(SQUARE, 100)))
    assert (found.num_matched, found.num_missed, found.num_spurious) == (1, 2, 1)
    for name in ("iou", "c_iou", "boundary_iou", "exact_corner_count"):
        assert getattr(found, name) == pytest.approx(1 / 3), name
    assert found.polis_m == found.hausdorff_m == 0.0
    assert found.corner_f1 == pytest.approx(2 * 4 / 20)
    assert found.boundary_f == pytest.approx(2 * 40 / 200)
    best = found.detections[0]
    assert (best.precision, best.recall, best.f1) == pytest.approx((1 / 2, 1 / 3, 2 / 5))


def test_split_and_merged() -> None:
    truth = layer(SQUARE, moved(SQUARE, 50), moved(SQUARE, 60.5))
    found = measure_quality(
        layer(shapely.box(0, 0, 6, 10), shapely.box(7, 0, 10, 10), shapely.box(50, 0, 70.5, 10)), truth
    )
    assert (found.num_split, found.num_merged, found.num_matched, found.num_missed) == (1, 1, 1, 2)
    assert found.matching.split.tolist() == [True, False, False]
    assert found.matching.merging.tolist() == [False, False, True]


def test_broken_geometries_are_counted() -> None:
    found = measure_quality(
        layer(BOWTIE, None, shapely.Polygon(), shapely.LineString([(0, 0), (1, 1)]), moved(SQUARE, 50)),
        layer(SQUARE, moved(SQUARE, 50)),
    )
    assert found.num_invalid == 4
    assert found.num_predicted == 5
    assert found.num_matched == 2
    assert sorted(found.matching.predicted.tolist()) == [0, 4]
    assert found.iou == pytest.approx((0.5 + 1) / 2)


def test_no_polygons_at_all() -> None:
    none = layer(crs="EPSG:32633")
    empty = measure_quality(none, none)
    assert empty.num_truth == empty.num_predicted == 0
    assert empty.iou is None
    assert empty.boundary_f is None
    lost = measure_quality(none, layer(SQUARE, crs="EPSG:32633"))
    assert (lost.num_missed, lost.iou, lost.polis_m, lost.corner_f1, lost.boundary_f) == (1, 0.0, None, 0.0, 0.0)
    false = measure_quality(layer(SQUARE, crs="EPSG:32633"), none)
    assert (false.num_spurious, false.iou, false.boundary_f) == (1, None, 0.0)


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", "EPSG:32634", "EPSG:2263"])
def test_figures_are_ground_metres_in_any_crs(crs: str) -> None:
    """EPSG:2263 has feet and lies elsewhere: both layers are put there as they are, scaled."""
    truth = geopandas.GeoSeries([moved(L, 500_000, 6_600_000)], crs="EPSG:32633")
    turned = shapely.affinity.rotate(moved(L, 500_000.3, 6_600_000), 1.5)
    predicted = geopandas.GeoSeries([turned], crs="EPSG:32633")
    expected = figures(measure_quality(predicted, truth))
    if crs == "EPSG:2263":
        feet = 1 / 0.3048006096012192
        predicted, truth = (
            side.translate(-200_000, -6_530_000).scale(feet, feet, origin=(0, 0)).set_crs(crs, allow_override=True)
            for side in (predicted, truth)
        )
    found = figures(measure_quality(predicted.to_crs(crs), truth))
    for name, value in expected.items():
        # UTM 33 shrinks lengths on its central meridian by 0.04 %; zone 34, used far outside itself, turns no angles.
        assert value is found[name] is None or found[name] == pytest.approx(value, rel=2e-3, abs=2e-3), name


def test_reference_must_be_sound() -> None:
    with pytest.raises(LabelError, match=r"reference layer has 1 geometries that are invalid.*first is row 1"):
        measure_quality(layer(SQUARE), layer(SQUARE, BOWTIE))
    with pytest.raises(LabelError, match="predicted layer has no CRS"):
        measure_quality(layer(SQUARE), layer(SQUARE, crs="EPSG:32633"))
    with pytest.raises(LabelError, match="reference layer has no CRS"):
        measure_quality(layer(SQUARE, crs="EPSG:32633"), layer(SQUARE))


def test_sound_in_its_own_coordinates_is_sound() -> None:
    # Walls of 10 km along parallels are bent in other coordinates, but for their ends: a hole close to one gets out.
    x, y = 9_530_000, 3_190_000
    holes = [shapely.box(x + 5_000, y + low, x + 5_010, y + low + 10) for low in (0.01, 1_000 - 10.01)]
    whole = shapely.Polygon(shapely.box(x, y, x + 10_000, y + 1_000).exterior, [hole.exterior for hole in holes])
    layer = geopandas.GeoSeries([whole], crs="EPSG:3857")
    assert layer.is_valid.all()
    assert not layer.to_crs("EPSG:32645").is_valid.any()
    found = measure_quality(layer, layer)
    assert (found.num_invalid, found.num_matched) == (0, 1)
    assert found.iou == pytest.approx(1.0)


def test_progress_is_told() -> None:
    told: list[tuple[int, int, str]] = []
    measure_quality(layer(SQUARE), layer(SQUARE), progress=lambda *args: told.append(args))
    assert told[-1] == (5, 5, "comparing polygons")
