from __future__ import annotations

import math

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrs.config import VectorizeConfig
from ctrs.vector.layers.part import LayerPart
from ctrs.vector.regions.class_mask import open_class_mask
from ctrs.vector.regularize import shared_directions
from ctrs.vector.regularize.directions import directions_of
from ctrs.vector.regularize.sampling import sample_ring
from ctrs.vector.regularize.shared_directions import ALIKE_DEG, ALIKE_SHARE, REACH_M, share_directions
from ctrs.vector.vectorize import choose_classes, draw_parts

SPACING_M = 0.25


def row(gaps: list[float]) -> np.ndarray:
    """Squares of 10 m side by side."""
    lefts = np.cumsum([0.0, *(10 + gap for gap in gaps)])
    return shapely.box(lefts, 0, lefts + 10, 10)


def found(*estimates: tuple[float, float]) -> np.ndarray:
    """What ``directions_of`` says: main direction and standard error are given."""
    return np.array([(main, np.nan, error) for main, error in estimates])


def off(one: float, other: float) -> float:
    return abs((one - other + 45) % 90 - 45)


def test_an_uncertain_building_leans_on_a_certain_one() -> None:
    directions = share_directions(row([1.0]), found((10, 4), (14, 0.5)))
    assert 11 < directions[0, 0] < 14
    assert off(directions[1, 0], 14) < 0.1


def test_a_building_that_stands_askew_has_no_say() -> None:
    directions = share_directions(row([1.0, 1.0]), found((10, 4), (12, 0.5), (50, 0.5)))
    without = share_directions(row([1.0]), found((10, 4), (12, 0.5)))
    assert off(directions[0, 0], without[0, 0]) < 1e-9
    assert off(directions[2, 0], 50) < 0.01


def test_lone_buildings_keep_their_own() -> None:
    given_ = found((10, 4), (14, 0.5))
    directions = share_directions(row([REACH_M + 0.1]), given_)
    np.testing.assert_allclose(directions, given_[:, :2], atol=1e-6)
    near = share_directions(row([REACH_M - 0.1]), given_)
    assert near[0, 0] > 11


def test_no_direction_without_buildings() -> None:
    directions = share_directions(np.empty(0, object), np.empty((0, 3)))
    assert directions.shape == (0, 2)


def test_directions_meet_across_the_turn() -> None:
    directions = share_directions(row([0.0]), found((89, 4), (1, 0.5)))
    assert off(directions[0, 0], 0.5) < 1


def test_nothing_travels_from_neighbour_to_neighbour() -> None:
    """What lies beyond the reach of a building decides nothing, to the last bit: blocks may leave it out."""
    estimates = found((10, 4), (13, 3), (16, 0.3))
    whole = share_directions(row([1.0, 1.0]), estimates)
    alone = share_directions(row([1.0]), estimates[:2])
    assert whole[0].tolist()[0] == alone[0].tolist()[0]
    assert whole[1, 0] != alone[1, 0]


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.floats(0, 89.9), st.floats(0.3, 8), st.floats(0, 4)),
        min_size=1,
        max_size=8,
    )
)
def test_as_written_down_neighbour_by_neighbour(houses) -> None:
    shapes = row([gap for _, _, gap in houses[1:]])
    directions = share_directions(shapes, found(*((main, error) for main, error, _ in houses)))
    for number, (main, error, _) in enumerate(houses):
        own = 0.9 * error
        precision, lean = 0.0, 0.0
        for other, (others, others_error, _) in enumerate(houses):
            if other == number or shapes[number].distance(shapes[other]) > REACH_M:
                continue
            theirs = 0.9 * others_error
            turn = (others - main + 45) % 90 - 45
            variance = own**2 + theirs**2 + 2 * ALIKE_DEG**2
            alike = ALIKE_SHARE * math.exp(-(turn**2) / 2 / variance) / math.sqrt(2 * math.pi * variance)
            odds = alike / (alike + (1 - ALIKE_SHARE) / 90)
            precision += odds / (theirs**2 + ALIKE_DEG**2)
            lean += odds / (theirs**2 + ALIKE_DEG**2) * turn
        expected = main
        if precision:
            guess = ALIKE_DEG**2 + 1 / precision
            expected += lean / precision * own**2 / (own**2 + guess)
        assert off(directions[number, 0], expected) < 1e-4


def test_standard_errors_are_those_of_the_estimates() -> None:
    """Noisy rectangles of two sizes: their errors scatter as told, within a factor of two."""
    rng = np.random.default_rng(0)
    for side in (7.0, 16.0):
        errors, told = [], []
        for _ in range(40):
            turn = rng.uniform(0, 90)
            shape = shapely.affinity.rotate(shapely.box(0, 0, side, 0.8 * side), turn)
            points = sample_ring(np.array(shape.exterior.coords)[:-1], 0.2, 0.0, SPACING_M)
            # Wobble of 0.25 m whose waves are some metres long.
            steps = np.fft.rfftfreq(len(points), SPACING_M)
            wobble = np.fft.irfft(
                np.fft.rfft(rng.normal(size=(len(points), 2)), axis=0) * np.exp(-((4 * steps) ** 2))[:, None],
                len(points),
                axis=0,
            )
            points = points + 0.25 * wobble / wobble.std()
            main, _, error = directions_of(points, np.array([0, len(points)]), SPACING_M)
            errors.append(off(main, turn))
            told.append(error)
        assert 0.5 < math.sqrt(np.mean(np.square(errors))) / np.mean(told) < 2
        if side == 7.0:
            small = np.mean(told)
    assert np.mean(told) < 0.7 * small


def street(seed: int = 0) -> np.ndarray:
    """Rows of small noisy houses, 1 to 2 m apart, nearly in one direction; the rows are far apart."""
    rng = np.random.default_rng(seed)
    pixel = 0.25
    y, x = np.mgrid[0:720, 0:360] * pixel
    mask = np.zeros(x.shape, np.uint8)
    for middle in range(12, 180, 24):
        left = 8.0
        while left < 75:
            wide = rng.uniform(5, 9)
            turn = np.radians(12 + rng.normal(0, 2))
            dx, dy = x - left - wide / 2, y - middle
            u, v = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
            mask[(np.abs(u) < wide / 2) & (np.abs(v) < 4)] = 1
            left += wide + rng.uniform(1.5, 2.2)
    # Outlines wobble: pixels along them are drawn anew.
    edge = np.zeros_like(mask, bool)
    edge[1:, :] |= mask[1:] != mask[:-1]
    edge[:, 1:] |= mask[:, 1:] != mask[:, :-1]
    mask[edge & (rng.random(mask.shape) < 0.5)] ^= 1
    return mask


@pytest.mark.parametrize("split", ["none", "watershed"])
def test_blocks_leave_no_trace(write_mask, monkeypatch, split) -> None:
    config = VectorizeConfig(jobs=1, regularize="full", split=split)
    with open_class_mask(write_mask(street(), transform=Affine(0.25, 0, 400_000, 0, -0.25, 5_000_000))) as file:
        wanted = choose_classes(file.classes, config.classes, file.path)

        def drawn(rows: int) -> list[LayerPart]:
            return list(draw_parts(file, wanted, config, band_rows=rows))

        (whole,) = drawn(720)
        parts = drawn(40)
        assert len(parts) > 3
        found = LayerPart.joined(parts)
        assert shapely.to_wkb(found.polygons).tolist() == shapely.to_wkb(whole.polygons).tolist()
        # Neighbours do have a say here.
        monkeypatch.setattr(shared_directions, "REACH_M", 0.0)
        (alone,) = drawn(720)
    assert shapely.to_wkb(alone.polygons).tolist() != shapely.to_wkb(whole.polygons).tolist()
