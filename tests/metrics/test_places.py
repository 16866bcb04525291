"""Errors by place, against a loop over the cells of the whole scene."""

from __future__ import annotations

import numpy as np
import pytest

from ctrs.errors import UsageError
from ctrs.metrics.blocks import ScoredBlock
from ctrs.metrics.places import Place, PlaceCounts, best_places, pooled_places, worst_places

K = 4


def blocks_of(truth, pred, edge, halo=0):
    height, width = truth.shape
    for top in range(0, height, edge):
        for left in range(0, width, edge):
            bottom, right = min(top + edge, height), min(left + edge, width)
            up, west = max(0, top - halo), max(0, left - halo)
            around = slice(up, min(bottom + halo, height)), slice(west, min(right + halo, width))
            yield ScoredBlock(
                truth=truth[around],
                pred=pred[around],
                core=(slice(top - up, bottom - up), slice(left - west, right - west)),
                row_off=top,
                col_off=left,
                scene_shape=truth.shape,
            )


def count(truth, pred, edge, cell_px, counted=None, halo=0):
    counts = PlaceCounts(cell_px, num_classes=K, counted=counted)
    for block in blocks_of(truth, pred, edge, halo):
        counts.update(block)
    return counts


def naive(truth, pred, cell_px, counted):
    shape = tuple(-(-edge // cell_px) for edge in truth.shape)
    errors, total, others = (np.zeros(shape, int) for _ in range(3))
    for row, col in np.ndindex(*shape):
        cell = slice(row * cell_px, (row + 1) * cell_px), slice(col * cell_px, (col + 1) * cell_px)
        by_class = [0] * K
        for true, found in zip(truth[cell].ravel().tolist(), pred[cell].ravel().tolist(), strict=True):
            if true in counted:
                by_class[true] += 1
                errors[row, col] += true != found
        total[row, col] = sum(by_class)
        others[row, col] = sum(by_class) - max(by_class)
    return errors, total, others


@pytest.fixture
def masks():
    rng = np.random.default_rng(7)
    truth = np.kron(rng.integers(0, K, (7, 9)), np.ones((6, 6))).astype(np.uint8)[:40, :53]
    pred = np.where(rng.random(truth.shape) < 0.7, truth, rng.integers(0, K, truth.shape)).astype(np.uint8)
    truth[:9, :11], truth[30:, 40:], pred[20:24] = 255, 255, 255
    return truth, pred


@pytest.mark.parametrize("edge", [1, 5, 7, 10, 16, 64])
@pytest.mark.parametrize("counted", [None, (0, 2)])
def test_equals_a_naive_loop_for_any_block_size(masks, edge, counted):
    truth, pred = masks
    counts = count(truth, pred, edge, 10, counted, halo=3)
    expected = naive(truth, pred, 10, range(K) if counted is None else counted)
    for found, wanted in zip((counts.errors, counts.counted, counts.others), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_only_rows_of_cells_to_come_keep_their_classes(masks):
    truth, pred = masks
    counts = PlaceCounts(10, num_classes=K)
    for block in blocks_of(truth, pred, 10):
        counts.update(block)
        assert list(counts._open) == [block.row_off // 10]


def test_places_are_at_least_half_labelled(masks):
    truth, pred = masks
    counts = count(truth, pred, 16, 10)
    places = counts.places("town")
    assert {place.scene for place in places} == {"town"}
    corners = {(place.row_off, place.col_off) for place in places}
    labelled = naive(truth, pred, 10, range(K))[1]
    assert corners == {(r * 10, c * 10) for r, c in np.ndindex(*labelled.shape) if labelled[r, c] >= 50}
    assert (0, 0) not in corners  # ignored
    assert (0, 50) not in corners  # three columns at the border
    small = count(truth[10:16, 15:22], pred[10:16, 15:22], 16, 10).places("roof")
    assert [(place.height, place.width, place.counted) for place in small] == [(6, 7, 42)]
    assert PlaceCounts(4, num_classes=K).places("nothing") == []


def place(name, errors, others=50, counted=100):
    return Place(scene=name, row_off=0, col_off=0, height=10, width=10, errors=errors, counted=counted, others=others)


def test_order_of_places_is_fixed():
    places = [place("a", 10), place("b", 90), place("c", 90), place("d", 0, others=0), place("e", 0), place("f", 0, 60)]
    assert [entry.scene for entry in worst_places(places, 10)] == ["b", "c", "a"]
    assert [entry.scene for entry in worst_places(places, 1)] == ["b"]
    assert [entry.scene for entry in best_places(places, 3)] == ["f", "e", "a"]  # d has one class
    assert place("a", 25).error_rate == 0.25
    assert worst_places([place("clean", 0)], 5) == []


def test_runs_are_pooled():
    found = pooled_places([[place("a", 10), place("b", 0)], [place("a", 30), place("b", 50)]])
    assert [(entry.scene, entry.errors, entry.counted) for entry in found] == [("a", 40, 200), ("b", 50, 200)]
    with pytest.raises(ValueError, match="shorter"):
        pooled_places([[place("a", 1)], []])


def test_wrong_use_is_refused(masks):
    counts = count(*masks, 16, 10)
    with pytest.raises(UsageError, match=r"scene \(4, 4\) found, expected one of \(40, 53\)"):
        counts.update(next(blocks_of(np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8), 4)))
    with pytest.raises(UsageError, match="cell_px 0"):
        PlaceCounts(0, num_classes=2)
