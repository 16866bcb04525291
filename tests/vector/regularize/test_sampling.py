from __future__ import annotations

import numpy as np
import pytest
import shapely

from ctrs.vector.regularize.sampling import sample_ring


def staircase(turn: float, pixel_m: float) -> np.ndarray:
    """Corners along the pixels of a half plane's border, closed far away from it."""
    columns = np.arange(0, 400)
    heights = np.floor(columns * np.tan(np.radians(turn)) + 0.5)
    steps = np.column_stack([np.repeat(columns, 2)[1:], np.repeat(heights, 2)[:-1]])
    return np.concatenate([steps, [[399, -300], [0, -300]]]) * pixel_m


@pytest.mark.parametrize("turn", [0.0, 8.0, 30.0, 44.0])
def test_samples_lie_evenly_on_both_sides_of_a_slanted_wall(turn: float) -> None:
    samples = sample_ring(staircase(turn, 0.2), 0.2, 0.45, 0.25)
    wall = samples[(samples[:, 0] > 10) & (samples[:, 0] < 60) & (samples[:, 1] > -5)]
    off = wall[:, 1] * np.cos(np.radians(turn)) - wall[:, 0] * np.sin(np.radians(turn))
    assert len(wall) > 150
    assert abs(off - off.mean()).max() < 0.06
    # The corner that begins a step is at the left end of its column.
    assert off.mean() == pytest.approx(-0.1 * np.sin(np.radians(turn)), abs=0.02)


def test_steps_are_even_and_go_once_around() -> None:
    ring = np.array(shapely.Point(0, 0).buffer(10, quad_segs=64).exterior.coords)[:-1]
    samples = sample_ring(ring, 0.2, 0.3, 0.25)
    steps = np.hypot(*(np.roll(samples, -1, axis=0) - samples).T)
    assert steps.max() / steps.min() < 1.05
    assert len(samples) == pytest.approx(2 * np.pi * 10 / 0.25, rel=0.02)
    assert shapely.Polygon(samples).area == pytest.approx(np.pi * 100, rel=0.01)


def test_a_single_pixel_has_twelve_samples() -> None:
    assert sample_ring(np.array([[0, 0], [0.2, 0], [0.2, 0.2], [0, 0.2]]), 0.2, 0.45, 0.25).shape == (12, 2)
