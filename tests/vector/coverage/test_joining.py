"""Straight buildings put among other polygons: no gap, no overlap, nothing lost."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import geopandas
import numpy as np
import numpy.typing as npt
import pytest
import shapely
from affine import Affine
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from ctrs.config import VectorizeConfig
from ctrs.synthetic.scene import Town, render_scene
from ctrs.vector import vectorize
from ctrs.vector.coverage.joining import join_coverage
from ctrs.vector.layers.part import LayerPart
from ctrs.vector.regions.class_mask import open_class_mask
from ctrs.vector.regions.outlines import NO_REGION, trace
from ctrs.vector.regions.runs import Runs
from ctrs.vector.vectorize import choose_classes, draw_parts

PIXEL_M = (0.25, 0.5)


def coverage(labels: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.uint8]]:
    runs = Runs.from_array(labels)
    regions = np.where(runs.values == 255, np.int32(NO_REGION), runs.regions())
    outlines = trace(runs, regions, junctions=True)
    first = np.array([int(np.flatnonzero(regions == region)[0]) for region in outlines.regions], np.int64)
    return outlines.polygons(PIXEL_M), runs.values[first]


def moved(polygons: npt.NDArray[np.object_], dx: float, dy: float, angle: float) -> npt.NDArray[np.object_]:
    """Stand-ins for straight walls: buildings moved and turned a little, overlaps cut."""
    result = [
        shapely.affinity.translate(shapely.affinity.rotate(shape, angle), dx, dy).simplify(0.3) for shape in polygons
    ]
    for place in range(1, len(result)):
        taken = shapely.buffer(shapely.union_all(result[:place]), 1e-3)
        parts = shapely.get_parts(shapely.difference(result[place], taken))
        parts = [part for part in parts if part.area > 0.05]
        result[place] = max(parts, key=shapely.area) if parts else shapely.Polygon()
    return np.array(result, object)


@settings(deadline=None)
@example(np.array([[0, 0], [1, 0]], np.uint8), 0.0, 0.375, 0.0, 0.0)  # no walls at all
@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(2, 12), st.integers(2, 12)), elements=st.sampled_from([0, 0, 1, 1, 2])),
    st.floats(-0.4, 0.4),
    st.floats(-0.4, 0.4),
    st.sampled_from([0.0, 3.0, -10.0]),
    st.sampled_from([0.0, 0.3]),
)
def test_random_buildings_moved_a_little(labels, dx, dy, angle, min_area) -> None:
    polygons, values = coverage(labels)
    height, width = labels.shape
    walls = moved(polygons[values == 1], dx, dy, angle)
    frame = shapely.box(0, 0, width * PIXEL_M[0], height * PIXEL_M[1])
    inside = shapely.area(shapely.intersection(walls, frame)) > 0.01
    walls, sources = walls[inside], np.flatnonzero(values == 1)[inside]
    joined = join_coverage(
        polygons, values == 1, walls, sources, pixel_m=PIXEL_M, frame_px=(width, height), min_area_m2=min_area
    )
    assert shapely.is_valid(joined.polygons).all()
    assert shapely.coverage_is_valid(joined.polygons)
    assert (shapely.get_type_id(joined.polygons) == shapely.GeometryType.POLYGON).all()
    assert (np.diff(joined.sources) >= 0).all()
    total = shapely.area(joined.polygons).sum()
    if (values != 1).any() or len(walls):
        # A building that lost its walls altogether leaves no owner where nothing else adjoins.
        assert total == pytest.approx(frame.area) or not inside.all()
    for number, wall in enumerate(walls):
        kept = shapely.union_all(joined.polygons[joined.walls == number])
        assert shapely.area(shapely.difference(shapely.intersection(wall, frame), kept)) < 0.02


@settings(deadline=None)
@given(
    hnp.arrays(
        np.uint8, st.tuples(st.integers(2, 12), st.integers(2, 12)), elements=st.sampled_from([0, 1, 1, 2, 255])
    ),
    st.floats(-0.4, 0.4),
    st.floats(-0.4, 0.4),
    st.sampled_from([0.0, -10.0]),
    st.sampled_from([0.0, 0.3]),
    st.integers(1, 5),
)
def test_nodata_stays_free_and_nothing_else(labels, dx, dy, angle, min_area, every) -> None:
    """Buildings move, and all but every so many vanish; what is covered stays covered, to the rounding of nodes."""
    labels[0, 0] = 1
    polygons, values = coverage(labels)
    height, width = labels.shape
    walls = moved(polygons[values == 1], dx, dy, angle)
    stays = (shapely.area(walls) > 0.01) & (np.arange(len(walls)) % every == 0)
    joined = join_coverage(
        polygons,
        values == 1,
        walls[stays],
        np.flatnonzero(values == 1)[stays],
        pixel_m=PIXEL_M,
        frame_px=(width, height),
        min_area_m2=min_area,
        whole=True,
    )
    assert shapely.is_valid(joined.polygons).all()
    assert shapely.coverage_is_valid(joined.polygons)
    assert shapely.area(joined.polygons).sum() == pytest.approx(shapely.area(polygons).sum(), rel=1e-3)
    apart = shapely.symmetric_difference(shapely.union_all(joined.polygons), shapely.union_all(polygons))
    assert shapely.is_empty(shapely.buffer(apart, -1e-3))


@pytest.mark.parametrize("gap_m", [1.0, 3.0])
def test_a_crumb_between_buildings_goes_to_the_one_with_the_longer_border(gap_m: float) -> None:
    """Two houses leave a bit of the garden between them, in a recess of the one."""
    labels = np.full((20, 40), 1, np.uint8)
    labels[8:12, 12:28] = 0
    polygons, values = coverage(labels)
    walls = np.array(
        [
            shapely.difference(shapely.box(0, 0, 10, 4.5), shapely.box(4, 4.5 - gap_m, 6, 4.5)),
            shapely.box(0, 4.5, 10, 10),
        ],
        object,
    )
    joined = join_coverage(
        polygons,
        values == 1,
        walls,
        np.flatnonzero(values == 1).repeat(2),
        pixel_m=PIXEL_M,
        frame_px=(40, 20),
        min_area_m2=5.0,
        whole=True,
    )
    garden = shapely.area(joined.polygons[joined.walls < 0])
    assert shapely.area(joined.polygons).sum() == pytest.approx(100.0)
    if gap_m == 1.0:  # 2 m2 are left of 8 m2
        assert not len(garden)
        assert shapely.area(joined.polygons[joined.walls == 0]) == pytest.approx([45.0])
    else:  # 6 m2
        assert garden == pytest.approx([6.0])


@pytest.mark.parametrize("pixel_m", [0.25, 1.0])
@pytest.mark.parametrize("nodata", [False, True])
def test_blobs_are_covered_as_without_straight_walls(write_mask, pixel_m: float, nodata: bool) -> None:
    check_blobs(write_mask, 500, pixel_m, nodata)


@pytest.mark.slow
def test_many_blobs_are_covered_as_without_straight_walls(write_mask) -> None:
    check_blobs(write_mask, 3000, 0.25, True)


def check_blobs(write_mask, size: int, pixel_m: float, nodata: bool) -> None:
    noise = np.random.default_rng(0).normal(size=(4, size, size))
    labels = ndimage.gaussian_filter(noise, (0, 6, 6)).argmax(axis=0).astype(np.uint8)
    if nodata:
        labels[ndimage.gaussian_filter(noise[0], 12) > 0.03] = 255
    path = write_mask(labels, transform=Affine(pixel_m, 0, 400_000, 0, -pixel_m, 5_000_000))
    covered: list[float] = []
    counts: list[int] = []
    for regularize in ("none", "full"):
        config = VectorizeConfig(classes=("all",), regularize=regularize, min_area_m2=8.0, min_hole_m2=4.0)
        with open_class_mask(path) as file:
            part = LayerPart.joined(list(draw_parts(file, choose_classes(file.classes, ("all",), path), config)))
        assert shapely.coverage_is_valid(part.polygons)
        covered.append(shapely.area(part.polygons).sum())
        counts.append(len(part))
    assert (part.columns["method"] == "walls").sum() > 5
    assert counts[1] < 1.2 * counts[0]
    # Where nodata lies, nodes are rounded along its border.
    assert covered[1] == pytest.approx(covered[0], rel=1e-6)
    if not nodata:
        assert covered[1] == pytest.approx(size**2 * pixel_m**2, rel=1e-9)


def test_what_walls_give_up_goes_to_both_neighbors() -> None:
    """A house in front of a border between two gardens draws back by one pixel; the border follows it."""
    labels = np.zeros((20, 40), np.uint8)
    labels[:, 20:] = 2
    labels[5:15, 10:30] = 1
    polygons, values = coverage(labels)
    wall = shapely.box(2.75, 3.0, 7.25, 7.0)
    joined = join_coverage(
        polygons, values == 1, np.array([wall], object), np.flatnonzero(values == 1), pixel_m=PIXEL_M, frame_px=(40, 20)
    )
    area = {int(values[source]): shapely.area(joined.polygons[joined.sources == source]).sum() for source in (0, 1, 2)}
    assert area == pytest.approx({1: 18.0, 0: 41.0, 2: 41.0})
    house = joined.polygons[joined.walls == 0][0]
    assert shapely.equals(house, wall)


def test_a_building_at_the_edge_ends_there() -> None:
    labels = np.zeros((20, 40), np.uint8)
    labels[0:10, 10:30] = 1
    polygons, values = coverage(labels)
    for top in (0.3, -0.3):
        joined = join_coverage(
            polygons,
            values == 1,
            np.array([shapely.box(2.5, top, 7.5, 5.0)], object),
            np.flatnonzero(values == 1),
            pixel_m=PIXEL_M,
            frame_px=(40, 20),
        )
        assert shapely.area(joined.polygons).sum() == pytest.approx(100.0)
        assert joined.polygons[joined.walls == 0][0].bounds == pytest.approx((2.5, 0.0, 7.5, 5.0))


@pytest.mark.parametrize("classes", [("all",), ("building", "tree")])
def test_a_synthetic_town(write_mask, tmp_path: Path, classes: tuple[str, ...]) -> None:
    _, labels = render_scene(Town(0), 2, 10, 400, 0.5)
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(6, 400, 400)), (0, 1.5, 1.5))
    soft = np.stack([ndimage.gaussian_filter((labels == value).astype(float), 1) for value in range(6)])
    mask = (soft + 0.1 * noise / noise.std()).argmax(axis=0).astype(np.uint8)
    names = ("pavement", "building", "grass", "tree", "car", "clutter")
    config = VectorizeConfig(classes=classes, regularize="full", smooth_m=3.0)
    vectorize(write_mask(mask, classes=names), tmp_path / "town.gpkg", config)
    layer = geopandas.read_file(tmp_path / "town.gpkg")
    shapes = layer.geometry.to_numpy()
    assert shapely.is_valid(shapes).all()
    assert shapely.coverage_is_valid(shapes)
    if classes == ("all",):
        assert layer.area.sum() == pytest.approx(mask.size * 0.25, rel=1e-9)
    houses = layer[layer["class"] == "building"]
    assert (houses["method"] == "walls").mean() > 0.5
    assert houses["regularization_iou"].notna().all()
    others = layer[layer["class"] != "building"]
    assert set(others["method"]) == {"outline"}
    assert others["regularization_iou"].isna().all()


@pytest.mark.parametrize("regularize", ["none", "full"])
def test_rows_read_at_a_time_leave_no_trace(write_mask, regularize: Literal["none", "full"]) -> None:
    """Houses, each with a tree beside it, far enough apart to be drawn in blocks of their own."""
    labels = np.zeros((240, 60), np.uint8)
    noise = np.random.default_rng(5).random(labels.shape)
    for row in range(5, 240, 60):
        labels[row : row + 24, 10:40] = 1
        labels[row + 4 : row + 18, 38:50] = 2
    labels[(noise < 0.02) & (labels == 1)] = 0
    config = VectorizeConfig(
        classes=("building", "tree"), regularize=regularize, smooth_m=3.0, opening_m=1.0, closing_m=1.0
    )
    with open_class_mask(write_mask(labels)) as file:
        wanted = choose_classes(file.classes, config.classes, file.path)
        found = []
        for rows in (7, 50, 240):
            parts = list(draw_parts(file, wanted, config, band_rows=rows))
            found.append(LayerPart.joined(parts))
    assert len(found[0]) >= 8
    for other in found[1:]:
        assert shapely.to_wkb(other.polygons).tolist() == shapely.to_wkb(found[0].polygons).tolist()
        assert other.columns["class"].tolist() == found[0].columns["class"].tolist()
