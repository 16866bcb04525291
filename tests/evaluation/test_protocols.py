"""Protocols: which pixels count and over which classes means go, on a matrix small enough to do by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ctrs.classes import BUILDING_CLASSES, ClassMap
from ctrs.evaluation.protocols import score_protocols
from ctrs.metrics import ConfusionMatrix

TOWN = ClassMap.from_json([{"name": "ground"}, {"name": "building"}, {"name": "clutter", "scored": False}])
COUNTS = np.array([[60, 10, 5, 5], [8, 30, 2, 0], [4, 6, 10, 0]])


def by_name(entries):
    return {entry.name: entry for entry in entries}


def test_three_ways_to_treat_clutter():
    scores = by_name(score_protocols({"strict": ConfusionMatrix.from_counts(COUNTS)}, TOWN))
    assert list(scores) == ["strict, without clutter", "strict, clutter as error", "strict, all classes"]
    without, error, everything = scores.values()
    assert without.mean_iou == pytest.approx((60 / 88 + 30 / 50) / 2, abs=1e-12)
    assert error.mean_iou == pytest.approx((60 / 92 + 30 / 56) / 2, abs=1e-12)
    assert everything.mean_iou == pytest.approx((60 / 92 + 30 / 56 + 10 / 27) / 3, abs=1e-12)
    assert without.overall_accuracy == pytest.approx(90 / 120, abs=1e-12)
    assert error.overall_accuracy == everything.overall_accuracy == pytest.approx(100 / 140, abs=1e-12)
    assert without.mean_recall == error.mean_recall == pytest.approx((60 / 80 + 30 / 40) / 2, abs=1e-12)
    assert without.mean_precision == pytest.approx((60 / 68 + 30 / 40) / 2, abs=1e-12)
    assert (without.num_pixels, error.num_pixels) == (120, 140)
    building = without.class_score("building")
    assert (building.truth_px, building.predicted_px) == (40, 40)
    assert building.f1 == pytest.approx(60 / 80, abs=1e-12)
    with pytest.raises(KeyError):
        without.class_score("clutter")


def test_tables_without_unscored_classes_have_one_way():
    matrices = {"strict": ConfusionMatrix.from_counts(COUNTS[:2, :2]), "isprs": ConfusionMatrix(2)}
    scores = score_protocols(matrices, BUILDING_CLASSES)
    assert [score.name for score in scores] == ["strict, all classes", "isprs, all classes"]
    assert math.isnan(scores[1].mean_iou)
    assert scores[1].to_json()["mean_iou"] is None
    assert scores[1].to_json()["classes"][0]["iou"] is None


def test_a_table_of_unscored_classes_only_still_has_scores():
    classes = ClassMap.from_json([{"name": "ground", "scored": False}, {"name": "building", "scored": False}])
    scores = score_protocols({"strict": ConfusionMatrix.from_counts(COUNTS[:2, :2])}, classes)
    assert [score.name for score in scores] == ["strict, all classes"]
