"""How far a mask's outlines stray: one figure for the mask, whatever is read at a time; it tells noisy masks apart."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.crs import CRS

from ctrs.config import VectorizeConfig
from ctrs.raster.cog import MaskClass
from ctrs.raster.geotiff import Grid
from ctrs.synthetic.footprints import draw_footprints
from ctrs.synthetic.mask_noise import NOISE_LEVELS, NoiseLevel, NoisyMask
from ctrs.vector import drawing, straying
from ctrs.vector.drawing import draw_polygons
from ctrs.vector.layers.part import LayerPart
from ctrs.vector.quality import measure_quality
from ctrs.vector.regions.class_mask import ClassMask, open_class_mask
from ctrs.vector.regions.instances import open_instance_mask
from ctrs.vector.regions.runs import Runs
from ctrs.vector.straying import measure_straying, measure_straying_in_memory
from ctrs.vector.vectorize import choose_classes, draw_parts

BUILDING = MaskClass(value=1, name="building", color=(255, 0, 0))
CLASSES = (MaskClass(value=0, name="background", color=(0, 0, 0)), BUILDING)
FULL = VectorizeConfig(regularize="full", jobs=1)
SIDE_M = 300.0


def town(level: NoiseLevel, pixel_m: float = 0.25, side_m: float = SIDE_M) -> tuple[ClassMask, geopandas.GeoSeries]:
    side = round(side_m / pixel_m)
    transform = Affine(pixel_m, 0, 400_000, 0, -pixel_m, 5_000_000 + side_m)
    grid = Grid(crs=CRS.from_epsg(32633), transform=transform, width=side, height=side)
    footprints = draw_footprints(round(1250 * (side_m / 1000) ** 2), side_m, side_m, seed=2)
    units, merged = (
        geopandas.GeoSeries(part.polygons, crs=32633).translate(400_000, 5_000_000)
        for part in (footprints, footprints.merged())
    )
    bands = NoisyMask(units.to_numpy(), grid, NOISE_LEVELS[level], seed=1).bands()
    labels = np.concatenate([band > 0.5 for _, band in bands]).astype(np.uint8)
    return ClassMask(runs=Runs.from_array(labels), grid=grid, classes=CLASSES, tagged=True), merged


def measured(source: ClassMask) -> float:
    return measure_straying_in_memory(source, [BUILDING], FULL)


@pytest.fixture(scope="module")
def noisy_town() -> tuple[ClassMask, geopandas.GeoSeries]:
    return town("high")


def test_levels_of_noise_are_told_apart_at_any_resolution(noisy_town) -> None:
    found = {
        (level, pixel_m): measured(town(level, pixel_m)[0])
        for level in ("clean", "low", "medium")
        for pixel_m in (0.25, 0.5, 1.0)
    }
    for (level, pixel_m), metres in found.items():
        low, high = {"clean": (0.0, 0.03), "low": (0.0, 0.09), "medium": (0.09, 0.155)}[level]
        assert low <= metres <= max(high, 0.1 * pixel_m), (level, pixel_m)
    assert 0.165 < measured(noisy_town[0]) < 0.22


def test_noisy_masks_are_drawn_better_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    source, truth = town("high", 0.3, 600.0)
    known = measure_quality(draw_polygons(source, [BUILDING], FULL), truth)
    monkeypatch.setattr(drawing, "measure_straying_in_memory", lambda *_: 0.0)
    unknown = measure_quality(draw_polygons(source, [BUILDING], FULL), truth)
    assert known.wall_angle_error_deg is not None
    assert unknown.wall_angle_error_deg is not None
    assert known.wall_angle_error_deg < unknown.wall_angle_error_deg - 0.5
    assert (known.right_angle_share or 0) > (unknown.right_angle_share or 1) + 0.01
    assert (known.iou or 0) > (unknown.iou or 1) - 0.001


def test_masks_of_usual_noise_are_drawn_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    source, _ = town("medium")
    known = draw_polygons(source, [BUILDING], FULL)
    monkeypatch.setattr(drawing, "measure_straying_in_memory", lambda *_: 0.0)
    assert known.geometry.equals(draw_polygons(source, [BUILDING], FULL).geometry)


@pytest.fixture
def half_noisy(noisy_town, write_mask) -> Path:
    """Noise that differs from place to place: noisy on the right, clean on the left, lest one side decide."""
    noisy, clean = noisy_town[0].runs.to_array(), town("clean")[0].runs.to_array()
    middle = noisy.shape[1] // 2
    labels = np.concatenate([clean[:, :middle], noisy[:, middle:]], axis=1)
    return write_mask(labels, transform=noisy_town[0].grid.transform)


def test_what_is_read_at_a_time_leaves_no_trace(half_noisy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A threshold amid the two halves, so that a figure of a block of its own would show."""
    with open_class_mask(half_noisy) as file:
        wanted = choose_classes(file.classes, ("building",), file.path)
        metres = measure_straying(file, wanted, FULL)
        monkeypatch.setattr("ctrs.vector.regularize.buildings._STRAYING_M", (metres - 0.01, metres + 0.01))
        whole, *cut = [
            LayerPart.joined(
                list(draw_parts(file, wanted, VectorizeConfig(regularize="full", jobs=jobs), band_rows=rows))
            )
            for rows, jobs in ((1200, 1), (64, 1), (100, 3))
        ]
        monkeypatch.setattr(sys.modules["ctrs.vector.vectorize"], "measure_straying", lambda *_: 0.0)
        unknown = LayerPart.joined(list(draw_parts(file, wanted, FULL)))
        labels = file.dataset.read(1)
        source = ClassMask(runs=Runs.from_array(labels), grid=file.grid, classes=file.classes, tagged=True)
        assert measure_straying_in_memory(source, wanted, FULL) == metres
    for found in cut:
        assert shapely.to_wkb(found.polygons).tolist() == shapely.to_wkb(whole.polygons).tolist()
    assert shapely.to_wkb(unknown.polygons).tolist() != shapely.to_wkb(whole.polygons).tolist()


def test_numbered_buildings_are_measured_like_their_foreground(noisy_town, tmp_path: Path) -> None:
    source = noisy_town[0]
    labels = source.runs.to_array()
    regions = np.where(source.runs.values, source.runs.regions() + 300, 0)
    numbers = np.repeat(regions, source.runs.lengths).reshape(labels.shape).astype(np.int32)
    mask = tmp_path / "numbers.tif"
    with rasterio.open(
        mask, "w", driver="GTiff", count=1, height=labels.shape[0], width=labels.shape[1], dtype="int32",
        crs="EPSG:32633", transform=source.grid.transform,
    ) as dataset:  # fmt: skip
        dataset.write(numbers, 1)
    config = VectorizeConfig(regularize="full", instances=True)
    with open_instance_mask(mask) as file:
        assert measure_straying(file, choose_classes(file.classes, ("building",), mask), config) == measured(source)


def test_few_buildings_are_given_the_benefit_of_the_doubt(noisy_town, caplog: pytest.LogCaptureFixture) -> None:
    source = noisy_town[0]
    few = Runs.from_array(source.runs.to_array()[:240, :240])
    grid = Grid(crs=source.grid.crs, transform=source.grid.transform, width=240, height=240)
    with caplog.at_level("INFO"):
        found = measured(ClassMask(runs=few, grid=grid, classes=CLASSES, tagged=True))
    (metres, count) = re.findall(r"stray ([0-9.]+) m .* (\d+) buildings", caplog.text)[0]
    assert 0 < int(count) < 10
    assert found == pytest.approx(float(metres) - 0.04 / int(count) ** 0.5, abs=0.006), "told to the centimetre"


def test_masks_without_buildings_do_not_stray() -> None:
    grid = Grid(crs=None, transform=Affine.identity(), width=30, height=20)
    for labels in (np.zeros((20, 30), np.uint8), np.ones((20, 30), np.uint8)):
        source = ClassMask(runs=Runs.from_array(labels), grid=grid, classes=CLASSES, tagged=True)
        assert measured(source) == 0


@pytest.mark.parametrize(("height", "width"), [(1, 1), (700, 50_000), (90_000, 120), (30_000, 30_000)])
def test_tiles_lie_apart_inside_the_mask(height: int, width: int) -> None:
    grid = Grid(crs=None, transform=Affine.identity(), width=width, height=height)
    tiles = straying._tiles(grid, (0.2, 0.2))
    assert 1 <= len(tiles) <= 16
    assert len({(tile.row_off, tile.col_off) for tile in tiles}) == len(tiles)
    for tile in tiles:
        assert 0 <= tile.row_off <= height - tile.height
        assert 0 <= tile.col_off <= width - tile.width
        assert tile.width * tile.height <= 2**21
    if height > 10_000:
        rows = sorted(tile.row_off for tile in tiles)
        assert max(np.diff([0, *rows, height])) < 0.25 * height, "from all over the mask"
