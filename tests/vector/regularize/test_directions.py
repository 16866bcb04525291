from __future__ import annotations

import numpy as np
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS

from ctrs.raster.geotiff import Grid
from ctrs.synthetic.footprints import draw_footprints
from ctrs.synthetic.mask_noise import NOISE_LEVELS, MaskNoise, NoisyMask
from ctrs.vector.quality.angles import main_directions
from ctrs.vector.quality.outlines import Outlines
from ctrs.vector.regions.outlines import NO_REGION, trace
from ctrs.vector.regions.runs import Runs
from ctrs.vector.regularize.directions import directions_of
from ctrs.vector.regularize.sampling import sample_ring

SPACING_M = 0.25


def outlines_of(
    shapes: np.ndarray, noise: MaskNoise, *, size_m: float, pixel_m: float = 0.2, min_px: int = 250
) -> np.ndarray:
    """Exact outlines of a noisy mask, in metres, y downwards."""
    side = round(size_m / pixel_m)
    place = Grid(
        crs=CRS.from_epsg(32633), transform=Affine(pixel_m, 0, 0, 0, -pixel_m, size_m), width=side, height=side
    )
    runs = Runs.from_array((NoisyMask(shapes, place, noise).probability(0, side) > 0.5).astype(np.uint8))
    regions = runs.regions(4)
    sizes = np.bincount(regions, runs.lengths)[regions]
    outlines = trace(runs, np.where((runs.values > 0) & (sizes >= min_px), regions, np.int32(NO_REGION)))
    return outlines.polygons((pixel_m, pixel_m))


def directions(polygon: shapely.Polygon, pixel_m: float = 0.2) -> tuple[float, float]:
    rings = [
        sample_ring(np.array(ring.coords)[:-1], pixel_m, 0.45, SPACING_M)
        for ring in (polygon.exterior, *polygon.interiors)
    ]
    begins = np.concatenate([[0], np.cumsum([len(ring) for ring in rings])])
    return directions_of(np.concatenate(rings), begins, SPACING_M)[:2]


def directions_in_mask(
    shape: shapely.Polygon, noise: MaskNoise = NOISE_LEVELS["clean"], pixel_m: float = 0.2
) -> tuple[float, float]:
    (outline,) = outlines_of(np.array([shape], object), noise, size_m=80, pixel_m=pixel_m)
    return directions(outline, pixel_m)


@pytest.mark.parametrize("turn", [0.0, 17.0, 45.0, 89.8])
@pytest.mark.parametrize("pixel_m", [0.1, 0.3])
def test_a_clean_rectangle(turn: float, pixel_m: float) -> None:
    main, second = directions_in_mask(shapely.affinity.rotate(shapely.box(30, 30, 50, 42), turn), pixel_m=pixel_m)
    # The frame of pixels has its y axis downwards: angles run the other way.
    assert abs((main + turn + 45) % 90 - 45) < 0.3
    assert np.isnan(second)


def test_an_oblique_wall_is_a_second_direction() -> None:
    main, second = directions_in_mask(shapely.Polygon([(25, 30), (45, 30), (53, 45), (25, 45)]))
    assert (main + 45) % 90 - 45 == pytest.approx(0, abs=0.3)
    assert second == pytest.approx(180 - np.degrees(np.arctan2(15, 8)), abs=1.0)


def test_a_chamfer_belongs_to_the_main_direction() -> None:
    _, second = directions_in_mask(shapely.Polygon([(25, 30), (50, 30), (50, 40), (44, 46), (25, 46)]))
    assert np.isnan(second)


def test_noisy_buildings_are_found_within_a_few_degrees() -> None:
    footprints = draw_footprints(60, 330, 330, seed=2).merged()
    chosen = ~np.isin(footprints.kinds.astype(str), ["pair", "oblique"])
    shapes = footprints.polygons[chosen]
    polygons = outlines_of(shapes, NOISE_LEVELS["medium"], size_m=330)
    found = np.array([directions(polygon) for polygon in polygons])
    turned = shapely.transform(polygons, lambda xy: xy * [1, -1] + [0, 330])
    nearest = shapely.STRtree(shapely.centroid(turned)).nearest(shapely.centroid(shapes))
    expected, _ = main_directions(Outlines.of(shapes))
    errors = np.abs((found[nearest, 0] + expected + 45) % 90 - 45)
    assert np.median(errors) < 0.8
    assert errors.max() < 5
    assert np.isnan(found[nearest, 1]).mean() > 0.7
