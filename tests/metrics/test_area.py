"""Areas against sums over pixels."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrs.errors import LabelError, UsageError
from ctrs.metrics import AreaCounts, ConfusionMatrix
from tests.metrics.scenes import random_scene, read, scenes


@given(scenes, st.integers(1, 30), st.sampled_from([0.01, 0.25, 1.0, 1 / 3]))
def test_equals_sums_over_pixels(scene, block_px, pixel_area_m2):
    areas = read(AreaCounts(scene.num_classes, pixel_area_m2=pixel_area_m2), scene, block_px)
    known = scene.truth != 255
    for index in range(scene.num_classes):
        true = ((scene.truth == index) & known).sum() * pixel_area_m2
        pred = ((scene.pred == index) & known).sum() * pixel_area_m2
        assert (areas.true_m2[index], areas.pred_m2[index]) == (true, pred)
        assert areas.error_m2[index] == pred - true
        expected = (pred - true) / true if true else np.nan
        np.testing.assert_allclose(areas.relative_error[index], expected, rtol=1e-15)
    matrix = ConfusionMatrix(scene.num_classes)
    matrix.update(scene.truth, scene.pred)
    from_matrix = AreaCounts(scene.num_classes, pixel_area_m2=pixel_area_m2)
    from_matrix.add_pixels(matrix)
    assert from_matrix == areas


def test_adds_scenes_of_other_pixel_sizes_in_any_order():
    sizes = np.random.default_rng(0).uniform(0.01, 2, 12).tolist()
    parts = [
        read(AreaCounts(3, pixel_area_m2=area), random_scene(seed, (30, 20), 3))
        for seed, area in enumerate([*sizes, sizes[0]])
    ]
    one, other = parts[0], AreaCounts(3, pixel_area_m2=1)
    for part in parts[1:]:
        one = one + part
    for part in reversed(parts):
        other.merge(part)
    assert one == other != parts[0]
    assert one.true_m2.tolist() == other.true_m2.tolist()
    assert len(one.counts) == 12
    np.testing.assert_allclose(one.true_m2, sum(part.true_m2 for part in parts))
    assert AreaCounts.from_json(json.loads(json.dumps(one.to_json()))) == one


def test_refuses_what_has_no_area():
    for area in (0, -1, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="expected square metres above 0"):
            AreaCounts(2, pixel_area_m2=area)
    areas = AreaCounts(2, pixel_area_m2=1)
    with pytest.raises(LabelError, match="another class table"):
        read(areas, random_scene(1, (20, 20), 6))
    for other in (AreaCounts(3, pixel_area_m2=1), ConfusionMatrix(3)):
        with pytest.raises(UsageError, match="areas of 2 and 3 classes"):
            areas.merge(other) if isinstance(other, AreaCounts) else areas.add_pixels(other)
