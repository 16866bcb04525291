from __future__ import annotations

import numpy as np
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS

from ctrs.raster.geotiff import Grid
from ctrs.synthetic.footprints import draw_footprints
from ctrs.synthetic.mask_noise import NOISE_LEVELS, MaskNoise, NoisyMask
from ctrs.vector.outlines import NO_REGION, trace
from ctrs.vector.quality.angles import main_directions
from ctrs.vector.quality.outlines import Outlines
from ctrs.vector.regularize.directions import Directions, find_directions
from ctrs.vector.regularize.subpixel import SubpixelOutlines, refine_outlines
from ctrs.vector.runs import Runs


def outlines_of(
    shapes: np.ndarray, noise: MaskNoise, *, size_m: float, pixel_m: float = 0.2, min_px: int = 250
) -> SubpixelOutlines:
    side = round(size_m / pixel_m)
    place = Grid(
        crs=CRS.from_epsg(32633), transform=Affine(pixel_m, 0, 0, 0, -pixel_m, size_m), width=side, height=side
    )
    runs = Runs.from_array((NoisyMask(shapes, place, noise).probability(0, side) > 0.5).astype(np.uint8))
    regions = runs.regions(4)
    sizes = np.bincount(regions, runs.lengths)[regions]
    outlines = trace(runs, np.where((runs.values > 0) & (sizes >= min_px), regions, np.int32(NO_REGION)))
    found = refine_outlines(outlines, np.zeros(len(outlines.regions), int))
    return found.smooth(0.45, (pixel_m, pixel_m))


def directions_of(shape: shapely.Polygon, noise: MaskNoise, pixel_m: float = 0.2) -> Directions:
    outlines = outlines_of(np.array([shape], object), noise, size_m=80, pixel_m=pixel_m)
    assert len(outlines.regions) == 1
    return find_directions(outlines, (pixel_m, pixel_m))


@pytest.mark.parametrize("turn", [0.0, 17.0, 45.0, 89.8])
@pytest.mark.parametrize("pixel_m", [0.1, 0.3])
def test_a_clean_rectangle(turn: float, pixel_m: float) -> None:
    found = directions_of(shapely.affinity.rotate(shapely.box(30, 30, 50, 42), turn), MaskNoise(), pixel_m)
    # The frame of pixels has its y axis downwards: angles run the other way.
    off = (found.main_deg[0] + turn + 45) % 90 - 45
    assert abs(off) < 0.3
    assert np.isnan(found.second_deg[0])


def test_an_oblique_wall_is_a_second_direction() -> None:
    shape = shapely.Polygon([(25, 30), (45, 30), (53, 45), (25, 45)])
    found = directions_of(shape, MaskNoise())
    assert (found.main_deg[0] + 45) % 90 - 45 == pytest.approx(0, abs=0.3)
    assert found.second_deg[0] == pytest.approx(180 - np.degrees(np.arctan2(15, 8)), abs=1.0)


def test_a_chamfer_belongs_to_the_main_direction() -> None:
    shape = shapely.Polygon([(25, 30), (50, 30), (50, 40), (44, 46), (25, 46)])
    found = directions_of(shape, MaskNoise())
    assert np.isnan(found.second_deg[0])


def test_noisy_buildings_are_found_within_a_few_degrees() -> None:
    footprints = draw_footprints(60, 330, 330, seed=2).merged()
    chosen = ~np.isin(footprints.kinds.astype(str), ["pair", "oblique"])
    shapes = footprints.polygons[chosen]
    outlines = outlines_of(shapes, NOISE_LEVELS["medium"], size_m=330)
    found = find_directions(outlines, (0.2, 0.2))
    polygons = shapely.transform(outlines.polygons((0.2, 0.2)), lambda xy: xy * [1, -1] + [0, 330])
    nearest = shapely.STRtree(shapely.centroid(polygons)).nearest(shapely.centroid(shapes))
    expected, _ = main_directions(Outlines.of(shapes))
    errors = np.abs((found.main_deg[nearest] + expected + 45) % 90 - 45)
    assert np.median(errors) < 0.8
    assert errors.max() < 5
    assert np.isnan(found.second_deg[nearest]).mean() > 0.7


def test_no_polygons() -> None:
    found = find_directions(outlines_of(np.empty(0, object), MaskNoise(), size_m=20), (0.2, 0.2))
    assert len(found.main_deg) == len(found.second_deg) == 0
