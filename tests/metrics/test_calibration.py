"""Calibration against loops over pixels and torchmetrics."""

from __future__ import annotations

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrs.errors import DataError, UsageError
from ctrs.metrics import CalibrationCounts, ece_of
from tests.metrics.scenes import Scene, random_scene, read, scenes


def naive_ece(scene, bins):
    """Pixel after pixel, with exact fractions until the end."""
    count, right, total = [0] * bins, [0] * bins, [Fraction(0)] * bins
    for t, p, c in zip(scene.truth.flat, scene.pred.flat, scene.confidence.flat, strict=True):
        if 255 in (t, p):
            continue
        exact = Fraction(float(c))
        place = max(math.ceil(exact * bins) - 1, 0)
        count[place] += 1
        right[place] += int(t == p)
        total[place] += exact
    if not sum(count):
        return float("nan"), count
    gaps = [Fraction(n) * abs(Fraction(r, n) - s / n) for n, r, s in zip(count, right, total, strict=True) if n]
    return float(sum(gaps) / sum(count)), count


@given(scenes, st.sampled_from([1, 2, 10, 15, 1000]))
def test_equals_naive_loop(scene, bins):
    calibration = read(CalibrationCounts(bins), scene)
    expected, pixels = naive_ece(scene, bins)
    np.testing.assert_allclose(calibration.ece, expected, rtol=0, atol=1e-12)
    assert [row.pixels for row in calibration.table] == pixels


@given(scenes, st.integers(1, 30))
def test_blocks_of_any_size_give_the_whole_scene(scene, block_px):
    assert read(CalibrationCounts(15), scene, block_px) == read(CalibrationCounts(15), scene)


@pytest.mark.parametrize("bins", [10, 15])
def test_equals_torchmetrics(bins):
    """At the precision of torchmetrics, which adds in float32."""
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchmetrics.functional.classification")
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, 5))
    probability = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)
    pred = probability.argmax(axis=1).astype(np.uint8)
    truth = np.where(rng.random(pred.shape) < 0.5, pred, rng.integers(0, 5, pred.shape)).astype(np.uint8)
    truth[::17] = 255
    scene = Scene(truth[None], pred[None], probability.max(axis=1)[None], 5)
    theirs = functional.multiclass_calibration_error(
        torch.from_numpy(probability), torch.from_numpy(truth.astype(np.int64)), 5, n_bins=bins, ignore_index=255
    )
    ours = read(CalibrationCounts(bins), scene).ece
    assert ours > 0.05
    np.testing.assert_allclose(ours, theirs.item(), rtol=0, atol=2e-6)


def test_edges_belong_to_the_bin_below():
    confidence = np.array([[0.0, 0.5, np.nextafter(np.float32(0.5), np.float32(1)), 1.0]], np.float32)
    ones = np.ones((1, 4), np.uint8)
    table = read(CalibrationCounts(2), Scene(ones, ones, confidence, 2)).table
    assert [row.pixels for row in table] == [2, 2]
    assert [(row.low, row.high) for row in table] == [(0, 0.5), (0.5, 1)]
    assert [row.accuracy for row in table] == [1, 1]
    assert table[0].confidence == 0.25


def test_an_honest_network_has_no_error():
    """Right in as many cases as it says."""
    rng = np.random.default_rng(1)
    confidence = rng.random((500, 800), np.float32)
    truth = np.ones(confidence.shape, np.uint8)
    honest = (rng.random(confidence.shape) < confidence).astype(np.uint8)
    assert read(CalibrationCounts(), Scene(truth, honest, confidence, 2)).ece < 0.005
    assert read(CalibrationCounts(), Scene(truth, 1 - honest, confidence, 2)).ece > 0.3


def test_adds_and_goes_to_json():
    one, two = (read(CalibrationCounts(15), random_scene(seed, (40, 30), 3)) for seed in (1, 2))
    total = one + two
    assert CalibrationCounts.from_json(json.loads(json.dumps(total.to_json()))) == total != one
    np.testing.assert_allclose(ece_of(np.stack([one.bin_counts, two.bin_counts])), [one.ece, two.ece], rtol=0)
    np.testing.assert_allclose(total.bin_counts, one.bin_counts + two.bin_counts, rtol=1e-15)
    with pytest.raises(UsageError, match="15 and 10 bins"):
        total.merge(CalibrationCounts(10))
    empty = CalibrationCounts()
    assert np.isnan(empty.ece)
    assert np.isnan(empty.table[0].accuracy)


def test_refuses_what_is_no_confidence():
    scene = random_scene(1, (20, 20), 3)
    with pytest.raises(DataError, match="predict them with confidences"):
        read(CalibrationCounts(), scene._replace(confidence=None))
    for wrong in (1.5, -0.1, np.nan):
        with pytest.raises(DataError, match="found, expected 0 to 1"):
            read(CalibrationCounts(), scene._replace(confidence=np.full((20, 20), wrong, np.float32)))
    with pytest.raises(UsageError, match="bins 0 found"):
        CalibrationCounts(0)
