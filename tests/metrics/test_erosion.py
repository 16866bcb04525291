"""Eroded labels against erosion class by class, loops over pixels and the synthetic town."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from ctrs.errors import UsageError
from ctrs.metrics import erode_labels, scored_blocks
from ctrs.synthetic.town import erode_label
from tests.metrics.scenes import random_scene, scenes


@given(scenes, st.sampled_from([0, 1, 1.5, 2, 3, 4]))
def test_equals_naive_loop(scene, radius):
    mask = scene.truth
    expected = mask.copy()
    H, W = mask.shape
    reach = math.floor(radius)
    for y in range(H):
        for x in range(W):
            for v in range(max(y - reach, 0), min(y + reach + 1, H)):
                for u in range(max(x - reach, 0), min(x + reach + 1, W)):
                    near = math.sqrt((v - y) ** 2 + (u - x) ** 2) <= radius
                    if near and mask[v, u] != 255 and mask[v, u] != mask[y, x]:
                        expected[y, x] = 255
    np.testing.assert_array_equal(erode_labels(mask, radius), expected)


def test_equals_erosion_of_each_class_by_a_disc():
    mask = random_scene(1, (80, 90), 6, grain=11).truth
    y, x = np.mgrid[-3:4, -3:4]
    disc = x * x + y * y <= 9
    expected = np.full(mask.shape, 255, np.uint8)
    for index in range(6):
        expected[ndimage.binary_erosion(mask == index, disc, border_value=1)] = index
    eroded = erode_labels(mask)
    np.testing.assert_array_equal(eroded, expected)
    assert 0.05 < (eroded == 255).mean() < 0.95


def test_equals_the_town_s_eroded_labels():
    mask = random_scene(2, (80, 90), 6, grain=11).truth
    np.testing.assert_array_equal(erode_labels(mask) == 255, erode_label(mask, 3))


def test_a_straight_border_is_6_px_wide_and_scene_edges_stay():
    mask = np.zeros((20, 30), np.uint8)
    mask[:, 12:] = 4
    eroded = erode_labels(mask)
    assert (eroded == 255).sum(axis=1).tolist() == [6] * 20
    assert (eroded[:, :9] == 0).all()
    assert (eroded[:, 15:] == 4).all()


def test_a_car_narrower_than_the_disc_vanishes():
    mask = np.zeros((30, 30), np.uint8)
    mask[10:16, 10:16] = 5
    assert 5 not in erode_labels(mask)
    mask[10:17, 10:17] = 5
    assert (erode_labels(mask) == 5).sum() == 1


def test_ignored_ground_stays_and_erodes_nothing():
    mask = np.zeros((9, 9), np.uint8)
    mask[3:6, 3:6] = 255
    np.testing.assert_array_equal(erode_labels(mask), mask)
    other = np.where(mask == 255, np.uint8(7), mask)
    np.testing.assert_array_equal(erode_labels(other, ignore_index=7), other)


def test_pieces_with_what_surrounds_them_give_the_whole():
    mask = random_scene(4, (70, 50), 4, grain=9, ignored=0.1).truth
    pieces = np.empty_like(mask)
    for block in scored_blocks(mask, mask, block_px=16, halo_px=3):
        h, w = block.core_truth.shape
        pieces[block.row_off : block.row_off + h, block.col_off : block.col_off + w] = erode_labels(block.truth)[
            block.core
        ]
    np.testing.assert_array_equal(pieces, erode_labels(mask))


def test_refuses_a_negative_radius():
    with pytest.raises(UsageError, match="radius_px -1 found"):
        erode_labels(np.zeros((3, 3), np.uint8), -1)
