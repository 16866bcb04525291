"""Intervals against resampling in a loop, and by how often they hold."""

from __future__ import annotations

import numpy as np
import pytest

from ctrs.errors import UsageError
from ctrs.metrics import bootstrap_interval, iou_of, paired_bootstrap
from ctrs.metrics.bootstrap import _resampled


def scene_counts(seed, num_scenes, num_classes=3, quality=0.7):
    """Confusion matrices (S, K, K + 1) of scenes whose errors differ."""
    rng = np.random.default_rng(seed)
    counts = np.zeros((num_scenes, num_classes, num_classes + 1), np.int64)
    for scene in counts:
        share = rng.beta(20 * quality, 20 * (1 - quality))
        spread = np.full((num_classes, num_classes + 1), (1 - share) / num_classes)
        np.fill_diagonal(spread, share)
        scene[:] = rng.poisson(spread * rng.integers(500, 5000, (num_classes, 1)))
    return counts


def mean_iou(counts):
    return iou_of(counts).mean(axis=-1)


def test_equals_a_loop_over_samples():
    """The same draws, scene by scene."""
    counts = scene_counts(0, 9)
    interval = bootstrap_interval(counts, mean_iou, samples=300, confidence=0.9, seed=4)
    rng = np.random.default_rng(4)
    scores = []
    for _ in range(300):
        weights = rng.multinomial(9, np.full(9, 1 / 9))
        total = sum(weight * scene for weight, scene in zip(weights, counts, strict=True))
        scores.append(mean_iou(total))
    assert interval.estimate == mean_iou(counts.sum(axis=0))
    np.testing.assert_allclose([interval.low, interval.high], np.quantile(scores, [0.05, 0.95]), rtol=0, atol=1e-12)
    assert interval.low < interval.estimate < interval.high
    assert (interval.num_scenes, interval.samples, interval.reason) == (9, 300, None)


def test_the_seed_decides_the_draws(monkeypatch):
    counts = scene_counts(0, 9)
    runs = [bootstrap_interval(counts, iou_of, seed=seed).low.tolist() for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]
    monkeypatch.setattr("ctrs.metrics.bootstrap._CHUNK_VALUES", 100)
    assert len(list(_resampled([counts], 1000, 0))) > 10
    assert bootstrap_interval(counts, iou_of, seed=0).low.tolist() == runs[0]


def test_resamples_scenes_each_equally_often():
    totals = np.concatenate([part[0] for part in _resampled([np.eye(6)], 20_000, 0)])
    assert (totals.sum(axis=1) == 6).all()
    np.testing.assert_allclose(totals.mean(axis=0), 1, atol=0.03)
    np.testing.assert_allclose(totals.var(axis=0), 5 / 6, atol=0.04)


def test_scores_of_any_shape():
    counts = scene_counts(1, 5)
    interval = bootstrap_interval(counts, iou_of, samples=200)
    assert interval.estimate.shape == interval.low.shape == interval.high.shape == interval.defined.shape == (3,)
    assert bootstrap_interval(counts, mean_iou, samples=200).low.shape == ()


def test_scenes_without_the_class():
    """A sample without a score has no part in the interval, and is told."""
    counts = np.zeros((3, 2, 3), np.int64)
    counts[:, 0, 0] = 100
    counts[0, 1] = (40, 60, 0)
    interval = bootstrap_interval(counts, iou_of, samples=2000)
    assert interval.low[1] == interval.high[1] == 0.6 or interval.low[1] < interval.high[1]
    np.testing.assert_allclose(interval.defined, [1, 1 - (2 / 3) ** 3], atol=0.03)
    counts[0, 1] = 0
    none = bootstrap_interval(counts, iou_of, samples=50)
    assert np.isnan(none.estimate[1])
    assert np.isnan([none.low[1], none.high[1]]).all()
    assert none.defined.tolist() == [1, 0]


def test_a_single_scene_has_no_interval():
    counts = scene_counts(0, 1)
    interval = bootstrap_interval(counts, mean_iou)
    assert (interval.low, interval.high, interval.defined) == (None, None, None)
    assert interval.estimate == mean_iou(counts[0])
    assert "a single scene" in interval.reason
    assert bootstrap_interval(scene_counts(0, 4), mean_iou, samples=0).reason == "no samples were asked for"
    paired = paired_bootstrap(counts, counts, mean_iou)
    assert paired.difference.low is None
    assert paired.two_sided is None


@pytest.mark.parametrize(("num_scenes", "least"), [(14, 0.87), (40, 0.91)])
def test_intervals_hold_about_as_often_as_they_say(num_scenes, least):
    """The score of very many scenes lies in the interval of a few in about 95 % of the cases, less often for few."""
    truth = mean_iou(scene_counts(99, 4000).sum(axis=0))
    held = 0
    for seed in range(300):
        interval = bootstrap_interval(scene_counts(seed, num_scenes), mean_iou, samples=400, seed=seed)
        held += interval.low <= truth <= interval.high
    print(f"{num_scenes} scenes: {held / 300:.3f}")
    assert least <= held / 300 <= 0.98


def test_paired_differences_see_what_scenes_have_in_common():
    """A run a little better on every scene is told apart, though both vary widely from scene to scene."""
    worse = scene_counts(3, 14)
    better = worse.copy()
    moved = worse[:, 0, 1] // 10 + 1
    better[:, 0, 0] += moved
    better[:, 0, 1] -= moved
    paired = paired_bootstrap(better, worse, mean_iou)
    assert paired.difference.low > 0
    assert (paired.share_above, paired.share_below, paired.two_sided) == (1, 0, 0)
    alone = [bootstrap_interval(run, mean_iou) for run in (better, worse)]
    assert alone[0].low < alone[1].high
    back = paired_bootstrap(worse, better, mean_iou)
    np.testing.assert_allclose(back.difference.low, -paired.difference.high, rtol=0, atol=1e-12)
    assert back.share_below == 1


def test_equal_runs_do_not_differ():
    counts = scene_counts(3, 14)
    paired = paired_bootstrap(counts, counts, iou_of)
    assert paired.difference.low.tolist() == paired.difference.high.tolist() == [0, 0, 0]
    assert paired.two_sided.tolist() == [1, 1, 1]
    assert (paired.share_above + paired.share_below == 0).all()


def test_runs_of_the_same_quality_are_seldom_told_apart():
    told = 0
    for seed in range(200):
        a, b = scene_counts(seed, 20), scene_counts(seed + 1000, 20)
        told += paired_bootstrap(a, b, mean_iou, samples=400, seed=seed).two_sided < 0.05
    assert 0.02 <= told / 200 <= 0.12


def test_refuses_what_cannot_be_resampled():
    counts = scene_counts(0, 4)
    with pytest.raises(UsageError, match="compare runs on the same scenes and classes"):
        paired_bootstrap(counts, counts[:3], mean_iou)
    with pytest.raises(UsageError, match="expected those of one scene or more"):
        bootstrap_interval(counts[:0], mean_iou)
    for options in ({"samples": -1}, {"confidence": 1}):
        with pytest.raises(UsageError, match="above 0 below 1"):
            bootstrap_interval(counts, mean_iou, **options)
