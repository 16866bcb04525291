"""Differences of scores paired by scene, on counts small enough to check by hand; required scores."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ctrs.classes import ClassMap
from ctrs.config import EvalConfig
from ctrs.errors import ConfigError, DataError, UsageError
from ctrs.evaluation.comparison import compare
from ctrs.evaluation.required_scores import check_requirements, unmet
from ctrs.evaluation.scene_score import SceneScore
from ctrs.evaluation.score_intervals import score_intervals
from ctrs.evaluation.score_report import EvaluationReport
from ctrs.evaluation.score_rows import headline_rows, score_rows
from ctrs.metrics import ConfusionMatrix

CLASSES = ClassMap.from_json([{"name": "ground"}, {"name": "building"}, {"name": "clutter", "scored": False}])
NUM_SCENES = 6


def report_of(name, share, *, classes=CLASSES, scenes=NUM_SCENES, seed=0, **values):
    """A report whose share of right pixels is about ``share``; the labels are the same for all."""
    rng, labels = np.random.default_rng(seed), np.random.default_rng(9)
    rows = []
    for number in range(scenes):
        true = labels.integers(500, 1000, 3)
        right = np.minimum(true, (true * (share + rng.normal(0, 0.03, 3))).astype(int))
        counts = np.zeros((3, 4), int)
        for index in range(3):
            counts[index, index] = right[index]
            counts[index, (index + 1) % 3] = true[index] - right[index]
        rows.append(SceneScore(name=f"s{number}", confusions={"strict": ConfusionMatrix.from_counts(counts)}, mask=""))
    fixed = {"split": "val", "checkpoint": Path(f"runs/{name}/best"), "data": Path("prepared/town")}
    return EvaluationReport(scenes=tuple(rows), classes=classes, **{**fixed, **values})


def test_differences_are_those_of_the_totals_and_intervals_hold_them():
    first, better, same = report_of("a", 0.8), report_of("b", 0.9, seed=1), report_of("c", 0.8)
    comparison = compare([first, better, same])
    assert comparison.names == ("a", "b", "c")
    assert list(comparison.of("b")) == ["mean_iou", "overall_accuracy", "ground", "building"]
    entry = comparison.of("b")["building"]
    values = [report.headline.class_score("building").iou for report in (first, better)]
    assert (entry.reference, entry.value) == pytest.approx(tuple(values), abs=1e-12)
    assert entry.low < entry.difference < entry.high
    assert entry.low > 0, "better in all scenes"
    assert (entry.scenes_better, entry.scenes_worse) == (6, 0)
    assert entry.two_sided < 0.01
    nothing = comparison.of("c")["mean_iou"]
    assert (nothing.difference, nothing.low, nothing.high, nothing.two_sided) == (0, 0, 0, 1)
    assert (nothing.scenes_better, nothing.scenes_worse) == (0, 0)
    tables = comparison.tables()
    assert [table.title.split(",")[0] for table in tables] == ["val split", "b against a", "c against a"]
    assert all(len(row) == len(table.header) for table in tables for row in table.rows)
    assert comparison.summary().startswith("mean IoU (strict, without clutter) against a (0.")
    assert json.loads(json.dumps(comparison.to_json(), allow_nan=False))["differences"][0]["model"] == "b"
    # The same draws for the same seed, others for another.
    assert compare([first, better, same]).differences == comparison.differences
    assert compare([first, better, same], seed=1).differences != comparison.differences


def test_pairs_are_narrower_than_two_intervals():
    """What scenes have in common cancels out: a model that is worse everywhere by as much is surely worse."""
    first, second = report_of("a", 0.8), report_of("b", 0.78)
    entry = compare([first, second]).of("b")["overall_accuracy"]
    own = score_intervals(
        [scene.confusions["strict"] for scene in first.scenes], CLASSES, samples=1000, confidence=0.95, seed=0
    ).bounds["overall_accuracy"]
    assert entry.high < 0
    assert entry.high - entry.low < 0.2 * (own[1] - own[0])


def test_a_single_scene_says_why_there_are_no_intervals():
    comparison = compare([report_of("a", 0.8, scenes=1), report_of("b", 0.9, scenes=1)])
    assert comparison.reason == "a single scene says nothing about how scores vary between scenes"
    entry = comparison.of("b")["mean_iou"]
    assert math.isnan(entry.low)
    assert math.isnan(entry.two_sided)
    assert "no intervals: a single scene" in comparison.summary()
    assert all(len(row) == len(table.header) for table in comparison.tables() for row in table.rows)


def test_reports_on_other_ground_are_refused():
    first = report_of("a", 0.8)
    other = ClassMap.from_json([{"name": "ground"}, {"name": "roof"}, {"name": "clutter", "scored": False}])
    with pytest.raises(DataError, match="b: classes ground, roof, clutter found, but a has ground, building, clutter"):
        compare([first, report_of("b", 0.8, classes=other)])
    with pytest.raises(DataError, match="b: scored on split 'test', but a on 'val'"):
        compare([first, report_of("b", 0.8, split="test")])
    with pytest.raises(DataError, match="b: scenes s0, s1 found, but a was scored on s0, s1, s2"):
        compare([first, report_of("b", 0.8, scenes=2)])
    counts = ConfusionMatrix.from_counts(first.scenes[0].confusions["strict"].counts + 1)
    moved = (replace(first.scenes[0], confusions={"strict": counts}), *first.scenes[1:])
    with pytest.raises(DataError, match=r"a \(2\): scene s0 has other labels, or other ground of it was scored"):
        compare([first, replace(first, scenes=moved)])
    with pytest.raises(UsageError, match="1 report found, expected two or more"):
        compare([first])


def test_openings_are_said_for_each():
    reports = [report_of(name, 0.8, split="test", test_openings=number) for name, number in (("a", 1), ("b", 3))]
    table = compare(reports).tables()[-1]
    assert (table.title, table.rows) == ("openings of the test split, this one included", (("a", "1"), ("b", "3")))


def test_scores_that_are_not_reached_are_named():
    report = report_of("a", 0.8)
    building, mean = report.headline.class_score("building").iou, report.mean_iou
    wanted = (("building", building + 1e-9), ("mean_iou", mean), ("overall_accuracy", 0.01), ("building.f1", 0.999))
    check_requirements(wanted, CLASSES, EvalConfig())
    lines = unmet(report, wanted)
    assert lines == [
        f"a: building iou (strict, without clutter) is {building:.6g}, below the required {building + 1e-9:g}",
        f"a: building f1 (strict, without clutter) is {report.headline.class_score('building').f1:.6g}, below the "
        "required 0.999",
    ]
    assert unmet(report, (("building.boundary_iou", 0.5),)) == [
        "a: building.boundary_iou has no value here, required 0.5"
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bulding", "score 'bulding' is unknown; expected a class for its IoU, CLASS.METRIC or METRIC: building"),
        ("clutter", "score 'clutter' is unknown"),  # no part of the headline
        ("ece", "score 'ece' is unknown as a share of which more is better; expected"),
        ("building.object_f1", "score 'building.object_f1' is unknown"),
    ],
)
def test_names_that_no_score_has_are_refused(name, message):
    options = EvalConfig(objects=())
    with pytest.raises(ConfigError, match=message):
        check_requirements(((name, 0.5),), CLASSES, options)
    with pytest.raises(ConfigError, match=r"fail_under building = 80\.0 found, expected above 0, up to 1"):
        EvalConfig(fail_under=(("building", 80.0),))


def test_rows_name_every_score_once():
    rows = score_rows(report_of("a", 0.8))
    keys = [(row.protocol, row.class_name, row.metric) for row in rows]
    assert len(keys) == len(set(keys))
    assert {row.protocol for row in rows} == {
        "strict, without clutter", "strict, clutter as error", "strict, all classes",
    }  # fmt: skip
    named = headline_rows(report_of("a", 0.8))
    assert {"building", "mean_iou", "building.precision"} <= set(named)
