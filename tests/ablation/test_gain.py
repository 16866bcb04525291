"""The gain of a setting: differences by hand, and the interval over scenes and seeds against one drawn plainly."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from ctrs.ablation.gain import CONFIDENCE, paired_gain
from ctrs.classes import BUILDING_CLASSES
from ctrs.evaluation.scene_score import SceneScore
from ctrs.evaluation.score_report import EvaluationReport
from ctrs.metrics import ConfusionMatrix

Counts = npt.NDArray[np.int64]


def report_of(counts: Counts) -> EvaluationReport:
    """A report on scenes with the given confusion matrices, (S, 2, 2)."""
    unscored = np.zeros((len(counts), 2, 1), np.int64)
    scenes = tuple(
        SceneScore(name=f"scene{number}", confusions={"strict": ConfusionMatrix.from_counts(matrix)}, mask="")
        for number, matrix in enumerate(np.concatenate([counts, unscored], axis=2))
    )
    return EvaluationReport(scenes=scenes, classes=BUILDING_CLASSES, data=Path("data"))


def mean_iou(matrix: npt.NDArray[np.float64]) -> float:
    hits = np.diag(matrix)
    return float(np.mean(hits / (matrix.sum(0) + matrix.sum(1) - hits)))


def some_counts(seed: int, hits: int) -> Counts:
    rng = np.random.default_rng(seed)
    return rng.integers(50, 150, (5, 2, 2)) + hits * np.eye(2, dtype=np.int64)


def test_differences_of_seeds_by_hand() -> None:
    ours = {seed: report_of(some_counts(seed, 400)) for seed in (0, 1, 2, 9)}
    reference = {seed: report_of(some_counts(seed, 300)) for seed in (2, 1, 0, 7)}
    expected = [mean_iou(some_counts(seed, 400).sum(0)) - mean_iou(some_counts(seed, 300).sum(0)) for seed in (0, 1, 2)]
    gain = paired_gain(ours, reference)
    assert gain.spread.count == 3
    assert gain.spread.mean == pytest.approx(np.mean(expected))
    assert gain.spread.sd == pytest.approx(np.std(expected, ddof=1))
    assert gain.low < gain.spread.mean < gain.high
    assert paired_gain(reference, ours).spread.mean == pytest.approx(-gain.spread.mean)


def test_the_interval_is_that_of_scenes_and_seeds_drawn_one_by_one() -> None:
    ours, reference = ({seed: some_counts(seed, hits + 30 * seed) for seed in range(4)} for hits in (400, 300))
    gain = paired_gain(
        {seed: report_of(counts) for seed, counts in ours.items()},
        {seed: report_of(counts) for seed, counts in reference.items()},
        samples=4000,
    )
    rng, means = np.random.default_rng(123), []
    for _ in range(4000):
        scenes, seeds = rng.integers(0, 5, 5), rng.integers(0, 4, 4)
        means.append(
            np.mean([mean_iou(ours[s][scenes].sum(0)) - mean_iou(reference[s][scenes].sum(0)) for s in seeds.tolist()])
        )
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    width = high - low
    assert gain.low == pytest.approx(low, abs=0.06 * width)
    assert gain.high == pytest.approx(high, abs=0.06 * width)


def test_scenes_that_differ_widen_the_interval() -> None:
    alike = {seed: np.repeat(some_counts(seed, 400)[:1], 5, axis=0) for seed in range(3)}
    base = {seed: np.repeat(some_counts(seed, 300)[:1], 5, axis=0) for seed in range(3)}
    mixed = {seed: some_counts(seed, 400) * np.array([1, 1, 1, 9, 1])[:, None, None] for seed in range(3)}
    narrow, wide = (
        paired_gain(
            {seed: report_of(counts) for seed, counts in side.items()},
            {seed: report_of(counts) for seed, counts in base.items()},
        )
        for side in (alike, mixed)
    )
    # Without differences between scenes only seeds are left: the means of three seeds' gains.
    single = [mean_iou(alike[s].sum(0)) - mean_iou(base[s].sum(0)) for s in range(3)]
    assert narrow.low == pytest.approx(min(single), abs=1e-9)
    assert narrow.high == pytest.approx(max(single), abs=1e-9)
    assert wide.high - wide.low > narrow.high - narrow.low


def test_why_there_is_no_interval() -> None:
    five, one = report_of(some_counts(0, 400)), report_of(some_counts(0, 400)[:1])
    assert paired_gain({0: five}, {0: five}).reason == "one seed"
    assert paired_gain({0: five}, {1: five}).reason == "no seed in common"
    assert paired_gain({0: one, 1: one}, {0: one, 1: one}).reason == "one scene"
    other = dataclasses.replace(five, scenes=five.scenes[1:])
    assert paired_gain({0: five, 1: five}, {0: five, 1: other}).reason == "other scenes were scored"
    assert paired_gain({0: five}, {0: five}).describe() == "+0.0000 (n = 1)"
    assert paired_gain({}, {}).to_json()["low"] is None
