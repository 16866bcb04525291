"""Outlines against the authors' way of erosion, loops over single pixels, and brute force distances."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from ctrs.errors import LabelError, UsageError
from ctrs.metrics import BoundaryCounts, boundary_f1_of, boundary_iou_of, scored_blocks
from tests.metrics.scenes import Scene, random_scene, read, scenes

NAN = float("nan")


def authors_band(mask, width):
    """Mask less its erosion, as in mask_to_boundary of Cheng et al.: padded by 0, 3 x 3, ``width`` times."""
    eroded = ndimage.binary_erosion(np.pad(mask, 1), np.ones((3, 3)), iterations=width, border_value=1)
    return mask & ~eroded[1:-1, 1:-1]


def known_values(scene):
    """What stands at each pixel: a class, "none" where nothing was predicted, None where the truth is ignored."""
    H, W = scene.truth.shape
    truth, pred = {}, {}
    for y in range(H):
        for x in range(W):
            ignored = scene.truth[y, x] == 255
            truth[y, x] = None if ignored else int(scene.truth[y, x])
            pred[y, x] = None if ignored else ("none" if scene.pred[y, x] == 255 else int(scene.pred[y, x]))
    return truth, pred


def naive_band(values, width, index):
    """Pixels of the class with a known pixel of another value, or the outside, in the square around them."""
    band = set()
    for (y, x), value in values.items():
        if value != index:
            continue
        around = [
            values.get((y + dy, x + dx), "outside")
            for dy in range(-width, width + 1)
            for dx in range(-width, width + 1)
        ]
        if any(other is not None and other != index for other in around):
            band.add((y, x))
    return band


def naive_outline(values, index):
    found = set()
    for (y, x), value in values.items():
        if value != index:
            continue
        around = [values.get((y + dy, x + dx)) for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0))]
        if any(other is not None and other != index for other in around):
            found.add((y, x))
    return found


def near(points, others, distance):
    return sum(any(math.sqrt((y - v) ** 2 + (x - u) ** 2) <= distance for v, u in others) for y, x in points)


def naive_f1(found_pred, pred, found_true, true):
    if not pred and not true:
        return NAN
    precision, recall = (found_pred / pred if pred else 0), (found_true / true if true else 0)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@given(scenes, st.integers(1, 4))
def test_boundary_iou_equals_the_authors_definition(scene, width):
    """On whole images without ignored ground, class by class."""
    truth = np.where(scene.truth == 255, 0, scene.truth)
    counts = read(BoundaryCounts(scene.num_classes, boundary_px=width), scene._replace(truth=truth))
    for index in range(scene.num_classes):
        true, pred = authors_band(truth == index, width), authors_band(scene.pred == index, width)
        union = (true | pred).sum()
        expected = (true & pred).sum() / union if union else NAN
        np.testing.assert_allclose(counts.boundary_iou[index], expected, rtol=0, atol=1e-12)


@given(scenes, st.integers(1, 3), st.lists(st.sampled_from([0, 1, 2**0.5, 2, 2.5, 3, 5**0.5, 6]), max_size=3))
def test_equals_naive_loops(scene, width, distances):
    counts = read(BoundaryCounts(scene.num_classes, boundary_px=width, distances_px=distances), scene)
    truth, pred = known_values(scene)
    for index in range(scene.num_classes):
        bands = [naive_band(values, width, index) for values in (truth, pred)]
        expected = [len(bands[0] & bands[1]), len(bands[0]), len(bands[1])]
        assert counts.band_counts[:, index].tolist() == expected
        lines = [naive_outline(values, index) for values in (truth, pred)]
        for number, distance in enumerate(distances):
            expected = [near(lines[1], lines[0], distance), len(lines[1]), near(*lines, distance), len(lines[0])]
            assert counts.outline_counts[number, :, index].tolist() == expected
            np.testing.assert_allclose(counts.boundary_f1[number, index], naive_f1(*expected), rtol=0, atol=1e-12)


@given(
    scenes, st.integers(1, 30), st.integers(1, 5), st.lists(st.sampled_from([0, 1, 2.5, 4, 9]), max_size=3), st.data()
)
def test_blocks_of_any_size_give_the_whole_scene(scene, block_px, width, distances, data):
    def create():
        return BoundaryCounts(scene.num_classes, boundary_px=width, distances_px=distances)

    halo_px = create().halo_px + data.draw(st.integers(0, 3))
    assert read(create(), scene, block_px, halo_px) == read(create(), scene)


def test_more_classes_than_bits_of_a_byte():
    """Classes share arrays by eights; each is scored as if it were alone."""
    scene = random_scene(3, (40, 50), 19, grain=3, ignored=0.1)
    counts = read(BoundaryCounts(19, distances_px=(0, 2)), scene, 16)
    assert (counts.outline_counts[0, 3] > 0).sum() > 16
    for index in range(19):
        alone = Scene(
            *(np.where(mask == 255, 255, mask == index).astype(np.uint8) for mask in (scene.truth, scene.pred)),
            scene.confidence,
            2,
        )
        single = read(BoundaryCounts(2, distances_px=(0, 2)), alone)
        assert counts.band_counts[:, index].tolist() == single.band_counts[:, 1].tolist()
        assert counts.outline_counts[:, :, index].tolist() == single.outline_counts[:, :, 1].tolist()


def test_what_is_predicted_on_ignored_ground_has_no_effect():
    scene = random_scene(5, (60, 60), 3, grain=5, ignored=0.3)
    noise = random_scene(6, (60, 60), 3, grain=0)
    other = scene._replace(pred=np.where(scene.truth == 255, noise.pred, scene.pred))
    assert (other.pred != scene.pred).any()
    assert read(BoundaryCounts(3), scene) == read(BoundaryCounts(3), other)


def test_a_border_against_ignored_ground_is_no_outline():
    truth = np.full((9, 20), 255, np.uint8)
    truth[:, :8] = 1
    truth[:, 12:] = 0
    counts = read(BoundaryCounts(2, boundary_px=1), Scene(truth, truth, np.ones_like(truth, np.float32), 2))
    assert counts.outline_counts.sum() == 0
    assert counts.band_counts[0].tolist() == [8 * 2 + 7, 8 * 2 + 7]  # scene edges only
    assert np.isnan(counts.boundary_f1).all()


def test_a_shift_is_found_from_its_width_on():
    truth = np.zeros((40, 40), np.uint8)
    truth[10:30, 10:30] = 1
    scene = Scene(truth, np.roll(truth, 3, axis=1), None, 2)
    counts = read(BoundaryCounts(2, distances_px=(0, 1, 2, 3)), scene)
    f1 = counts.boundary_f1[:, 1]
    assert (np.diff(f1) >= 0).all()
    assert f1[2] < 1 == f1[3]
    np.testing.assert_allclose(counts.mean_boundary_f1()[3], 1)
    assert 0 < counts.mean_boundary_iou() < 1
    assert counts.boundary_precision[3].tolist() == counts.boundary_recall[3].tolist() == [1, 1]


def test_a_missing_class():
    """Neither true nor predicted: no score; only predicted: 0."""
    truth = np.zeros((10, 10), np.uint8)
    pred = truth.copy()
    pred[4, 4] = 1
    counts = read(BoundaryCounts(3, distances_px=(1,)), Scene(truth, pred, None, 3))
    np.testing.assert_array_equal(counts.boundary_f1, [[0, 0, NAN]])
    np.testing.assert_array_equal(counts.boundary_iou[1:], [0, NAN])
    assert counts.mean_boundary_f1() == [0]


def test_adds_and_goes_to_json():
    one, two = (read(BoundaryCounts(4, distances_px=(1, 2.5)), random_scene(s, (30, 20), 4)) for s in (1, 2))
    total = one + two
    np.testing.assert_array_equal(total.band_counts, one.band_counts + two.band_counts)
    assert BoundaryCounts.from_json(json.loads(json.dumps(total.to_json()))) == total != one
    both = np.stack([one.outline_counts, two.outline_counts])
    np.testing.assert_array_equal(boundary_f1_of(both)[1], two.boundary_f1)
    np.testing.assert_array_equal(boundary_iou_of(total.band_counts), total.boundary_iou)
    none = read(BoundaryCounts(4, distances_px=()), random_scene(1, (30, 20), 4))
    assert none.boundary_f1.shape == (0, 4)
    assert BoundaryCounts.from_json(none.to_json()) == none
    with pytest.raises(UsageError, match="score both with the same options"):
        total.merge(BoundaryCounts(4, boundary_px=2))


def test_refuses_what_it_cannot_count():
    scene = random_scene(1, (30, 20), 4)
    counts = BoundaryCounts(4)
    with pytest.raises(UsageError, match="cut blocks with a halo of 6 px"):
        read(counts, scene, block_px=8, halo_px=5)
    with pytest.raises(LabelError, match="prediction: value 9 found, expected class indices 0 to 3 or 255"):
        read(counts, scene._replace(pred=np.full_like(scene.pred, 9)))
    with pytest.raises(UsageError, match="differ in shape"):
        next(scored_blocks(scene.truth, scene.pred[1:]))
    assert counts == BoundaryCounts(4)
    for options in ({"boundary_px": 0}, {"distances_px": (-1,)}, {"ignore_index": 3}):
        with pytest.raises(UsageError, match="boundary scores"):
            BoundaryCounts(4, **options)
