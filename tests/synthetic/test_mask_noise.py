from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.features import rasterize
from scipy.ndimage import label

from ctrs.raster.geotiff import Grid
from ctrs.synthetic.footprints import draw_footprints
from ctrs.synthetic.mask_noise import NOISE_LEVELS, MaskNoise, NoisyMask

SIZE_M = 100.0


def grid(pixel_m: float = 0.2, size_m: float = SIZE_M) -> Grid:
    side = round(size_m / pixel_m)
    return Grid(crs=CRS.from_epsg(32633), transform=Affine(pixel_m, 0, 0, 0, -pixel_m, size_m), width=side, height=side)


def whole(noisy: NoisyMask) -> np.ndarray:
    return noisy.distance(0, noisy.grid.height)


BUILDING = shapely.affinity.rotate(shapely.box(30, 40, 60, 60), 20)
COURT = BUILDING.difference(shapely.affinity.rotate(shapely.box(40, 46, 50, 54), 20, origin=BUILDING.centroid))


@pytest.mark.parametrize("shape", [BUILDING, COURT])
@pytest.mark.parametrize("pixel_m", [0.1, 0.25])
def test_distance_without_noise_is_exact(shape: shapely.Polygon, pixel_m: float) -> None:
    noisy = NoisyMask(np.array([shape], object), grid(pixel_m), MaskNoise())
    found = whole(noisy)
    rng = np.random.default_rng(0)
    rows, columns = rng.integers(0, found.shape[0], (2, 4000))
    points = shapely.points((columns + 0.5) * pixel_m, SIZE_M - (rows + 0.5) * pixel_m)
    away = shapely.distance(points, shape.boundary)
    expected = np.where(shapely.intersects(points, shape), -away, away).clip(-1, 1)
    np.testing.assert_allclose(found[rows, columns], expected, atol=1e-4)


def test_clean_mask_is_the_rasterized_footprints() -> None:
    shapes = draw_footprints(10, SIZE_M, SIZE_M, seed=2).polygons
    place = grid()
    noisy = NoisyMask(shapes, place, NOISE_LEVELS["clean"])
    expected = rasterize([(shape, 1) for shape in shapes], out_shape=place.shape, transform=place.transform)
    wrong = (noisy.probability(0, place.height) > 0.5) != (expected > 0)
    assert wrong.sum() <= 3  # pixels whose centre lies on a wall but for rounding
    assert (np.abs(whole(noisy)[wrong]) < 1e-5).all()


@pytest.mark.parametrize("level", ["low", "high"])
def test_bands_leave_no_trace(level: str) -> None:
    shapes = draw_footprints(10, SIZE_M, SIZE_M, seed=2).polygons
    noisy = NoisyMask(shapes, grid(), NOISE_LEVELS[level], seed=3)
    expected = noisy.probability(0, 500)
    assert ((expected > 0.5).mean() > 0.05) & (expected.dtype == np.float32)
    for rows in (64, 333):
        bands = list(noisy.bands(rows))
        assert [start for start, _ in bands] == list(range(0, 500, rows))
        np.testing.assert_allclose(np.concatenate([band for _, band in bands]), expected, atol=2e-5)


def test_the_seed_decides() -> None:
    shapes = np.array([BUILDING], object)
    medium = NOISE_LEVELS["medium"]
    one, again, other = (whole(NoisyMask(shapes, grid(), medium, seed=seed)) for seed in (0, 0, 1))
    assert (one == again).all()
    assert (one != other).any()


def test_levels_are_those_of_the_targets() -> None:
    names = ("psf_m", "bias_m", "wobble_m", "bite_probability", "pinholes_per_100m2", "blobs_per_ha")
    found = {level: tuple(getattr(noise, name) for name in names) for level, noise in NOISE_LEVELS.items()}
    assert found == {
        "clean": (0.0, 0.0, (), 0.0, 0.0, 0.0),
        "low": (0.25, 0.05, ((0.06, 1.5), (0.05, 0.3)), 0.03, 0.05, 1.0),
        "medium": (0.5, 0.12, ((0.18, 1.5), (0.10, 0.3)), 0.12, 0.2, 4.0),
        "high": (0.8, 0.2, ((0.30, 2.0), (0.15, 0.3)), 0.25, 0.6, 12.0),
    }
    assert {noise.pinhole_radius_m for noise in NOISE_LEVELS.values()} == {(0.15, 0.6)}
    assert {noise.blob_radius_m for noise in NOISE_LEVELS.values()} == {(0.3, 1.2)}
    assert {noise.bite_radius_m for noise in NOISE_LEVELS.values()} == {(0.6, 1.8)}


@pytest.mark.parametrize("pixel_m", [0.1, 0.3])
@pytest.mark.parametrize("length", [0.3, 1.5])
def test_wobble_has_its_size_and_length_at_any_pixel_size(pixel_m: float, length: float) -> None:
    noise = MaskNoise(wobble_m=((0.2, length),))
    none = NoisyMask(np.empty(0, object), grid(pixel_m, 120.0), noise)
    field = whole(none) - whole(NoisyMask(np.empty(0, object), grid(pixel_m, 120.0), MaskNoise())).max()
    field -= field.mean()
    assert field.std() == pytest.approx(0.2, rel=0.05)
    step = round(2 * length / pixel_m)
    for ahead, behind in ((field[:, step:], field[:, :-step]), (field[step:], field[:-step])):
        expected = np.exp(-((step * pixel_m / (2 * length)) ** 2))
        assert (ahead * behind).mean() / field.var() == pytest.approx(expected, abs=0.08)


def test_psf_rounds_corners_and_closes_gaps() -> None:
    pair = np.array([shapely.box(30, 30, 50, 50), shapely.box(50.6, 30, 70, 50)], object)
    sharp, blurred = (whole(NoisyMask(pair, grid(), MaskNoise(psf_m=psf))) < 0 for psf in (0.0, 0.5))
    assert label(sharp)[1] == 2
    assert label(blurred)[1] == 1
    corner = np.s_[round((SIZE_M - 30) / 0.2) - 1, 150]
    assert sharp[corner]
    assert not blurred[corner]


def test_bias_moves_all_walls_of_a_building_alike() -> None:
    shapes = np.array([shapely.box(x, y, x + 10, y + 10) for x, y in itertools.product((5, 35, 65), repeat=2)], object)
    field = whole(NoisyMask(shapes, grid(), MaskNoise(bias_m=0.3))) - whole(NoisyMask(shapes, grid(), MaskNoise()))
    shifts = []
    for shape in shapes:
        left, bottom, right, top = (shape.bounds / np.float64(0.2)).round().astype(int)
        middle, height = (left + right) // 2, 500 - (bottom + top) // 2
        walls = field[[height, height, 500 - bottom, 500 - top], [left, right, middle, middle]]
        assert np.ptp(walls) < 1e-4
        shifts.append(walls[0])
    assert 0.1 < np.std(shifts) < 0.6


def test_bites_pinholes_and_blobs_are_as_many_as_stated() -> None:
    big = np.array([shapely.box(0, 0, 100, 200)], object)
    place = grid(0.2, 200.0)
    noise = MaskNoise(pinholes_per_100m2=0.5, blobs_per_ha=60.0, blob_radius_m=(0.5, 0.5), pinhole_radius_m=(0.4, 0.4))
    mask = whole(NoisyMask(big, place, noise)) < 0
    assert label(~mask[:, :495])[1] == pytest.approx(100, abs=30)
    assert label(mask[:, 505:])[1] == pytest.approx(120, abs=33)
    holes = ~mask[:, 10:490]
    assert holes.sum() * 0.04 / max(label(holes)[1], 1) == pytest.approx(np.pi * 0.4**2, rel=0.15)
    boxes = np.array(
        [shapely.box(x, y, x + 10, y + 10) for x, y in itertools.product(range(5, 190, 15), repeat=2)], object
    )
    exact = whole(NoisyMask(boxes, place, MaskNoise())) < 0
    bitten = whole(NoisyMask(boxes, place, MaskNoise(bite_probability=0.25))) < 0
    assert not (bitten & ~exact).any()
    assert label(exact & ~bitten)[1] == pytest.approx(len(boxes) / 4, abs=18)


def test_probability_follows_distance() -> None:
    noisy = NoisyMask(np.array([BUILDING], object), grid(), dataclasses.replace(NOISE_LEVELS["medium"], tau_m=0.5))
    distance, probability = whole(noisy), noisy.probability(0, 500)
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(distance.astype(np.float64) / 0.5)), atol=1e-6)


def test_ground_metres_also_in_degrees() -> None:
    """A square of 20 m at 60 degrees north, on a grid of half as many metres for a degree of longitude."""
    from ctrs.raster.units import ground_pixel_size_m

    place = Grid(crs=CRS.from_epsg(4326), transform=Affine(4e-6, 0, 20.0, 0, -2e-6, 60.0), width=250, height=250)
    width, height = ground_pixel_size_m(place)
    size = np.array([20 / width * 4e-6, 20 / height * 2e-6])
    corner = np.array([20.0 + 50 * 4e-6, 60.0 - 200 * 2e-6])
    noisy = NoisyMask(np.array([shapely.box(*corner, *(corner + size))], object), place, MaskNoise(bias_m=0.0))
    assert (whole(noisy) < 0).sum() * width * height == pytest.approx(400, rel=0.01)
