from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import rasterio.features
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from rasterio.crs import CRS
from scipy.ndimage import gaussian_filter

from ctrs.config import VectorizeConfig
from ctrs.raster.cog import MaskClass
from ctrs.raster.geotiff import Grid
from ctrs.synthetic.footprints import Footprints, draw_footprints
from ctrs.synthetic.mask_noise import NOISE_LEVELS, NoiseLevel, NoisyMask
from ctrs.vector.drawing import draw_polygons
from ctrs.vector.quality import measure_quality
from ctrs.vector.quality.topology import count_overlaps
from ctrs.vector.regions.class_mask import ClassMask
from ctrs.vector.regions.runs import Runs
from ctrs.vector.regularize.buildings import MAX_AREA_CHANGE, MIN_IOU, regularize_buildings

BUILDING = MaskClass(value=1, name="building", color=(255, 0, 0))
CLASSES = (MaskClass(value=0, name="background", color=(0, 0, 0)), BUILDING)
FULL = VectorizeConfig(regularize="full")


def grid_of(shape: tuple[int, int], pixel_m: float = 0.2) -> Grid:
    transform = Affine(pixel_m, 0, 400_000, 0, -pixel_m, 5_000_000 + shape[0] * pixel_m)
    return Grid(crs=CRS.from_epsg(32633), transform=transform, width=shape[1], height=shape[0])


def straighten(mask: np.ndarray, config: VectorizeConfig = FULL, pixel_m: float = 0.2) -> geopandas.GeoDataFrame:
    source = ClassMask(
        runs=Runs.from_array(mask.astype(np.uint8)), grid=grid_of(mask.shape, pixel_m), classes=CLASSES, tagged=True
    )
    return draw_polygons(source, [BUILDING], config)


def noisy(
    footprints: Footprints, level: NoiseLevel, side_px: int, pixel_m: float = 0.2
) -> tuple[np.ndarray, geopandas.GeoSeries]:
    grid = grid_of((side_px, side_px), pixel_m)
    units, merged = (
        geopandas.GeoSeries(part.polygons, crs=32633).translate(grid.transform.c, 5_000_000)
        for part in (footprints, footprints.merged())
    )
    bands = NoisyMask(units.to_numpy(), grid, NOISE_LEVELS[level], seed=3).bands()
    return np.concatenate([band > 0.5 for _, band in bands]), merged


def test_rectangles_of_whole_pixels_come_back() -> None:
    mask = np.zeros((200, 300), bool)
    mask[20:90, 30:130] = mask[110:170, 150:200] = True
    layer = straighten(mask)
    exact = straighten(mask, VectorizeConfig(tolerance_m=0))
    assert layer["method"].tolist() == ["walls", "walls"]
    for found, expected in zip(layer.geometry, exact.geometry, strict=True):
        assert len(found.exterior.coords) == 5
        assert shapely.hausdorff_distance(found, expected) < 0.01
    assert layer["regularization_iou"].min() > 0.998


@pytest.mark.parametrize("turn", [10.0, 33.0])
@pytest.mark.parametrize("mode", ["fast", "full"])
def test_a_clean_l_with_a_court_comes_back_at_any_angle(turn: float, mode: str) -> None:
    shape = shapely.Polygon(
        [(12, 12), (42, 12), (42, 28), (26, 28), (26, 40), (12, 40)], [[(18, 17), (18, 23), (30, 23), (30, 17)]]
    )
    truth = shapely.affinity.translate(shapely.affinity.rotate(shape, turn, origin=(27, 26)), 400_000, 5_000_000)
    pixels = NoisyMask(np.array([truth], object), grid_of((280, 280)), NOISE_LEVELS["clean"]).probability(0, 280)
    (found,) = straighten(pixels > 0.5, VectorizeConfig(regularize=mode)).geometry  # type: ignore[arg-type]
    assert len(found.exterior.coords) == 7
    assert [len(ring.coords) for ring in found.interiors] == [5]
    assert shapely.hausdorff_distance(found, truth) < 0.15


def test_the_smallest_area_holds_for_what_is_parted_at_gaps() -> None:
    pair = np.zeros((120, 200), bool)
    pair[30:90, 20:93] = pair[30:90, 97:170] = True  # two houses of 12 m x 14.6 m, 0.8 m apart
    pair[50:56, 93:97] = True  # and a bridge that fuses them
    assert len(straighten(pair)) == 2
    (one,) = straighten(pair, VectorizeConfig(regularize="full", min_area_m2=300)).geometry
    assert one.area > 340


def test_noise_makes_no_triangles_of_small_l_shapes_and_wedges_stay() -> None:
    rng = np.random.default_rng(1)
    little = shapely.Polygon([(0, 0), (6, 0), (6, 3), (3, 3), (3, 6), (0, 6)])
    wedge = shapely.Polygon([(0, 0), (18, 0), (0, 14)])
    for shape, side_m, sharp in ((little, 13, 0), (wedge, 28, 9)):
        mask = np.zeros((600, 600), bool)
        step = side_m * 5
        for row in range(600 // step):
            for col in range(600 // step):
                turned = shapely.affinity.rotate(shape, rng.uniform(0, 90))
                x, y = turned.centroid.coords[0]
                at = shapely.affinity.translate(turned, (col + 0.5) * side_m - x, (row + 0.5) * side_m - y)
                mask |= rasterio.features.rasterize([at], (600, 600), transform=Affine.scale(0.2)).astype(bool)
        waves = gaussian_filter(rng.normal(size=mask.shape), 3)
        layer = straighten(gaussian_filter(mask * 1.0, 2) + 0.15 * waves / waves.std() > 0.5)
        triangles = shapely.get_num_coordinates(layer.geometry) == 4
        if sharp:
            assert triangles.sum() >= sharp  # of 16
            assert layer["regularization_iou"].min() > 0.88
        else:
            assert len(layer) >= 70
            assert not triangles.any()


def test_only_full_draws_chamfers_and_oblique_walls() -> None:
    chamfered = shapely.Polygon([(12, 12), (36, 12), (36, 22), (29, 29), (12, 29)])
    oblique = shapely.Polygon([(12, 12), (32, 12), (40, 27), (12, 27)])
    for shape, corners in ((chamfered, 5), (oblique, 4)):
        truth = shapely.affinity.translate(shape, 400_000, 5_000_000)
        pixels = NoisyMask(np.array([truth], object), grid_of((240, 260)), NOISE_LEVELS["low"]).probability(0, 240)
        (found,) = straighten(pixels > 0.5).geometry
        assert len(found.exterior.coords) == corners + 1
        assert found.intersection(truth).area / found.union(truth).area > 0.97
        (square,) = straighten(pixels > 0.5, VectorizeConfig(regularize="fast")).geometry
        ring = np.array(square.exterior.coords)
        walls = np.diff(np.concatenate([ring, ring[1:2]]), axis=0)
        if square.area < 1.15 * truth.area:
            turn = (walls[:-1] * walls[1:]).sum(axis=1) / np.hypot(*walls[:-1].T) / np.hypot(*walls[1:].T)
            assert np.abs(turn).max() < 1e-6 or len(ring) > 9, "right angles, or the outline"


def test_fused_neighbours_are_parted() -> None:
    mask = np.zeros((80, 160), bool)
    mask[10:60, 10:70] = mask[15:68, 77:140] = True
    mask[30:42, 70:77] = True
    layer = straighten(mask)
    assert len(layer) == 2
    assert sorted(len(shape.exterior.coords) for shape in layer.geometry) == [5, 5]
    assert 0.8 < layer.geometry.iloc[0].distance(layer.geometry.iloc[1]) < 1.6
    assert layer["id"].tolist() == [1, 2]


@pytest.mark.parametrize("shape", [(1, 1), (1, 60), (40, 60)])
def test_a_mask_that_is_all_building(shape: tuple[int, int]) -> None:
    layer = straighten(np.ones(shape, bool), VectorizeConfig(regularize="full", min_area_m2=0))
    expected = shape[0] * shape[1] * 0.04
    assert len(layer) == 1
    assert layer.geometry.iloc[0].is_valid
    assert layer["area_m2"].iloc[0] == pytest.approx(expected, rel=MAX_AREA_CHANGE)


@pytest.mark.parametrize("mode", ["fast", "full"])
def test_an_empty_mask_has_all_columns(mode: str) -> None:
    layer = straighten(np.zeros((30, 30), bool), VectorizeConfig(regularize=mode))  # type: ignore[arg-type]
    assert {"id", "class", "area_m2", "perimeter_m", "method", "regularization_iou", "geometry"} <= set(layer.columns)
    assert len(layer) == 0
    assert layer["regularization_iou"].dtype == np.float64


@settings(max_examples=60, deadline=None)
@given(st_numpy.arrays(bool, st.tuples(st.integers(1, 24), st.integers(1, 24))), st.sampled_from([0.2, 0.5, 2.0]))
def test_any_mask_gives_valid_polygons_without_overlaps(mask: np.ndarray, pixel_m: float) -> None:
    config = VectorizeConfig(regularize="full", min_area_m2=0, min_hole_m2=0)
    layer = straighten(np.kron(mask, np.ones((3, 3), bool)), config, pixel_m)
    exact = straighten(
        np.kron(mask, np.ones((3, 3), bool)), VectorizeConfig(min_area_m2=0, min_hole_m2=0, tolerance_m=0), pixel_m
    )
    assert layer.is_valid.all()
    assert (layer.geom_type == "Polygon").all()
    assert count_overlaps(layer.geometry.to_numpy()) == 0
    assert len(layer) >= len(exact)
    walls = layer[layer["method"] == "walls"]
    assert (walls["regularization_iou"] > 0.5).all()


@pytest.fixture(scope="module")
def town() -> tuple[np.ndarray, geopandas.GeoSeries]:
    return noisy(draw_footprints(60, 330, 330, seed=4), "medium", 1650)


def test_a_noisy_town_is_straight_and_right(town: tuple[np.ndarray, geopandas.GeoSeries]) -> None:
    mask, truth = town
    layer = straighten(mask)
    quality = measure_quality(layer, truth)
    assert quality.num_matched == len(layer) == len(truth)
    assert quality.iou is not None
    assert quality.iou > 0.94
    assert quality.corner_ratio == pytest.approx(1, abs=0.03)
    assert (quality.num_invalid, quality.num_overlaps) == (0, 0)
    assert (quality.num_lost_holes, quality.num_spurious_holes) == (0, 0)
    assert (quality.parallel_share or 0) > 0.8
    assert (quality.wall_angle_error_deg or 99) < 2
    plain = measure_quality(straighten(mask, VectorizeConfig(min_area_m2=8, min_hole_m2=4)), truth)
    assert plain.iou is not None
    assert quality.iou > plain.iou + 0.01, "straighter is nearer"


def test_what_is_bounded_is(town: tuple[np.ndarray, geopandas.GeoSeries]) -> None:
    layer = straighten(town[0])
    walls = layer[layer["method"] == "walls"]
    assert (walls["regularization_iou"] >= MIN_IOU).all()
    assert layer["regularization_iou"].max() < 1


@pytest.mark.parametrize("pixel_m", [0.2, 0.5, 2.0])
def test_straight_buildings_keep_their_area_and_place(pixel_m: float) -> None:
    """Sponges of pixels: each building that has walls is near to its outline, and the others say so."""
    methods: list[str] = []
    for seed in range(25):
        rng = np.random.default_rng(seed)
        mask = np.kron(rng.random((24, 24)) < rng.choice([0.3, 0.5, 0.7, 0.85]), np.ones((3, 3), bool))
        config = VectorizeConfig(tolerance_m=0, min_area_m2=0, min_hole_m2=0)
        exact = straighten(mask, config, pixel_m).geometry.to_numpy()
        exact = shapely.transform(exact, lambda xy: xy - [400_000, 5_000_000])
        found = regularize_buildings(exact, pixel_m=(pixel_m, pixel_m), tolerance_m=1.5 * pixel_m, jobs=1)
        before = exact[found.sources]
        common = shapely.area(shapely.intersection(found.polygons, before))
        iou = common / (shapely.area(found.polygons) + shapely.area(before) - common)
        assert found.iou == pytest.approx(iou, abs=0.02)
        straight = found.methods != "outline"
        assert (found.iou[straight] >= MIN_IOU).all()
        change = np.abs(shapely.area(found.polygons) / shapely.area(before) - 1)
        assert (change[straight] <= MAX_AREA_CHANGE).all()
        methods += found.methods.tolist()
    assert set(methods) == ({"walls"} if pixel_m == 2.0 else {"walls", "outline"})


def test_threads_leave_no_trace(town: tuple[np.ndarray, geopandas.GeoSeries]) -> None:
    exact = straighten(town[0], VectorizeConfig(tolerance_m=0, min_area_m2=8)).geometry.to_numpy()
    local = shapely.transform(exact, lambda xy: xy - [400_000, 5_000_000])
    one, more = (regularize_buildings(local, pixel_m=(0.2, 0.2), tolerance_m=0.3, jobs=jobs) for jobs in (1, 3))
    assert shapely.equals_exact(one.polygons, more.polygons).all()
    assert (one.iou == more.iou).all()


def test_buildings_without_straight_walls_keep_their_outline(caplog: pytest.LogCaptureFixture) -> None:
    rows, columns = np.indices((300, 300)) - 150
    spiral = (np.hypot(rows, columns) / 14 - np.arctan2(rows, columns) / (2 * np.pi)) % 1 < 0.45
    with caplog.at_level(logging.INFO):
        layer = straighten(spiral & (np.hypot(rows, columns) < 140))
    assert "outline" in set(layer["method"])
    assert layer.is_valid.all()
    assert "keep their simplified outline" in caplog.text


def test_nobody_else_waits_for_the_compiler() -> None:
    code = "import sys, ctrs.vector, ctrs.cli.app; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_real_town_is_straightened(real_data: Path) -> None:
    """Dense blocks in EPSG:3857: nothing is lost, invalid or doubled."""
    with rasterio.open(real_data / "oam_banepa_urban" / "scene" / "banepa_urban_mask.tif") as dataset:
        source = ClassMask(runs=Runs.from_array(dataset.read(1)), grid=Grid.of(dataset), classes=CLASSES, tagged=True)
    layer = draw_polygons(source, [BUILDING], FULL)
    exact = draw_polygons(source, [BUILDING], VectorizeConfig(tolerance_m=0, min_area_m2=8, min_hole_m2=4))
    assert layer.is_valid.all()
    assert count_overlaps(layer.geometry.to_numpy()) == 0
    assert len(layer) >= len(exact)
    assert layer["area_m2"].sum() == pytest.approx(exact["area_m2"].sum(), rel=0.02)
    assert layer["regularization_iou"].mean() > 0.93


@pytest.mark.parametrize(("width_m", "courts"), [(1.6, 0), (5.0, 1)])
def test_holes_too_narrow_for_how_far_the_outline_strays_are_no_courts(width_m: float, courts: int) -> None:
    """What a noisy mask tears open has an area like a court's, but no room for one."""
    court = shapely.box(24 - width_m / 2, 18, 24 + width_m / 2, 26)
    truth = shapely.affinity.translate(shapely.box(10, 10, 40, 34) - court, 400_000, 5_000_000)
    rng = np.random.default_rng(0)
    exact = NoisyMask(np.array([truth], object), grid_of((230, 260)), NOISE_LEVELS["clean"]).distance(0, 230)
    wobble = gaussian_filter(rng.normal(size=exact.shape), 8)
    (clean,), (found,) = (straighten(exact + k * wobble / wobble.std() < 0).geometry for k in (0.0, 0.3))
    assert len(clean.interiors) == 1, "the outline of a clean mask strays nowhere"
    assert len(found.interiors) == courts


@pytest.mark.slow
@pytest.mark.parametrize(
    ("level", "pixel_m", "iou", "f1", "c_iou", "polis_m", "hausdorff_m", "wall_deg", "parallel"),
    [
        ("clean", 0.2, 0.997, 0.999, 0.995, 0.01, 0.03, 0.3, 0.99),
        ("low", 0.2, 0.98, 0.995, 0.975, 0.07, 0.17, 0.7, 0.97),
        ("medium", 0.2, 0.947, 0.96, 0.94, 0.18, 0.43, 1.6, 0.8),
        ("medium", 0.3, 0.946, 0.955, 0.935, 0.185, 0.45, 2.0, 0.78),
        ("high", 0.2, 0.89, 0.66, 0.87, 0.36, 0.96, 8.0, 0.46),
    ],
)
def test_all_kinds_of_footprints(
    level: NoiseLevel,
    pixel_m: float,
    iou: float,
    f1: float,
    c_iou: float,
    polis_m: float,
    hausdorff_m: float,
    wall_deg: float,
    parallel: float,
) -> None:
    """800 objects with the errors of networks: bounds lie a little beside what was reached when this was written."""
    mask, truth = noisy(draw_footprints(800, 800, 800, seed=7), level, round(800 / pixel_m), pixel_m)
    quality = measure_quality(straighten(mask, pixel_m=pixel_m), truth)
    assert (quality.iou or 0) >= iou
    assert (quality.f1_at(0.9) or 0) >= f1
    assert (quality.c_iou or 0) >= c_iou
    assert (quality.polis_m or 9) <= polis_m
    assert (quality.hausdorff_m or 9) <= hausdorff_m
    assert (quality.wall_angle_error_deg or 99) <= wall_deg
    assert (quality.parallel_share or 0) >= parallel
    assert quality.corner_ratio == pytest.approx(1, abs=0.03)
    assert (quality.num_invalid, quality.num_overlaps, quality.num_lost_holes) == (0, 0, 0)
    assert quality.num_spurious_holes <= 2
    if level != "high":
        assert quality.right_angle_share == pytest.approx(quality.true_right_angle_share, abs=0.02)
        assert quality.num_merged <= 2
