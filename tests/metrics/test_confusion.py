"""Scores against naive loops; test_outside_libraries.py has those of others."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrs.errors import LabelError, UsageError
from ctrs.metrics import ConfusionMatrix, accuracy_of, f1_of, iou_of, mean_over

NAN = float("nan")


def naive_scores(truth, pred, num_classes):
    """Per-class scores by counting one pixel after the other."""
    scores = {name: [] for name in ("iou", "f1", "precision", "recall")}
    for index in range(num_classes):
        tp = fp = fn = 0
        for t, p in zip(truth.ravel().tolist(), pred.ravel().tolist(), strict=True):
            if t == 255:
                continue
            tp += t == index and p == index
            fp += t != index and p == index
            fn += t == index and p != index
        scores["iou"].append(tp / (tp + fp + fn) if tp + fp + fn else NAN)
        scores["f1"].append(2 * tp / (2 * tp + fp + fn) if tp + fp + fn else NAN)
        scores["precision"].append(tp / (tp + fp) if tp + fp else NAN)
        scores["recall"].append(tp / (tp + fn) if tp + fn else NAN)
    pairs = [(t, p) for t, p in zip(truth.ravel(), pred.ravel(), strict=True) if t != 255]
    scores["accuracy"] = sum(t == p for t, p in pairs) / len(pairs) if pairs else NAN
    return scores


masks = st.integers(1, 6).flatmap(
    lambda k: st.tuples(
        st.just(k),
        st.lists(
            st.tuples(st.sampled_from([*range(k), 255]), st.sampled_from([*range(k), 255])), min_size=0, max_size=60
        ),
    )
)


@given(masks)
def test_equals_naive_loops(drawn):
    num_classes, pairs = drawn
    truth = np.array([t for t, _ in pairs], np.uint8)
    pred = np.array([p for _, p in pairs], np.uint8)
    matrix = ConfusionMatrix(num_classes)
    matrix.update(truth, pred)
    expected = naive_scores(truth, pred, num_classes)
    for name in ("iou", "f1", "precision", "recall"):
        np.testing.assert_allclose(getattr(matrix, name), expected[name], rtol=0, atol=1e-12, err_msg=name)
    np.testing.assert_allclose(matrix.overall_accuracy(), expected["accuracy"], rtol=0, atol=1e-12)


def test_prediction_without_a_class_lowers_recall_and_accuracy():
    truth = np.array([[0, 0, 1, 1]], np.uint8)
    matrix = ConfusionMatrix(2)
    matrix.update(truth, np.array([[0, 255, 1, 1]], np.uint8))
    assert matrix.recall.tolist() == [0.5, 1.0]
    assert matrix.precision.tolist() == [1.0, 1.0]
    assert matrix.overall_accuracy() == 0.75
    assert matrix.counts[:, -1].tolist() == [1, 0]


def test_absent_classes_are_left_out_of_means_and_false_alarms_are_not():
    matrix = ConfusionMatrix(4)
    matrix.update(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 2]))  # class 2 is a false alarm, class 3 absent
    np.testing.assert_array_equal(matrix.iou, [1.0, 0.5, 0.0, NAN])
    assert matrix.mean_iou() == pytest.approx(0.5, abs=1e-15)
    assert matrix.mean_iou([0, 1, 3]) == 0.75
    assert np.isnan(matrix.mean_iou([3]))
    np.testing.assert_array_equal(matrix.recall, [1.0, 0.5, NAN, NAN])
    np.testing.assert_array_equal(matrix.precision, [1.0, 1.0, 0.0, NAN])


def test_truth_of_left_out_classes_vanishes_but_predictions_of_them_stay_errors():
    matrix = ConfusionMatrix(3)
    truth = np.array([0, 0, 1, 1, 2, 2, 2])
    matrix.update(truth, np.array([0, 2, 1, 1, 0, 1, 2]))
    scored = matrix.with_truth([0, 1])
    assert scored.counts.tolist() == [[1, 0, 1, 0], [0, 2, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(scored.iou[:2], [0.5, 1.0])
    np.testing.assert_array_equal(matrix.iou[:2], [1 / 3, 2 / 3])
    assert scored.overall_accuracy() == matrix.overall_accuracy([0, 1]) == 0.75


def test_pieces_sum_to_the_whole():
    rng = np.random.default_rng(5)
    truth, pred = rng.integers(0, 5, (2, 64, 64)).astype(np.uint8)
    whole = ConfusionMatrix(5)
    whole.update(truth, pred)
    top, bottom, both = ConfusionMatrix(5), ConfusionMatrix(5), ConfusionMatrix(5)
    top.update(truth[:20], pred[:20])
    bottom.update(truth[20:], pred[20:])
    both.merge(top)
    both.merge(bottom)
    assert top + bottom == whole == both
    assert top != whole
    assert whole.total == 64 * 64
    assert ConfusionMatrix.from_counts(whole.counts) == whole
    assert ConfusionMatrix.from_counts(whole.counts[:, :5]) == whole


def test_chunks_and_strides_do_not_matter(monkeypatch):
    rng = np.random.default_rng(6)
    truth, pred = rng.integers(0, 3, (2, 50, 70)).astype(np.uint8)
    whole, chunked = ConfusionMatrix(3), ConfusionMatrix(3)
    whole.update(truth.T, pred.T)
    monkeypatch.setattr("ctrs.metrics.confusion._CHUNK_PX", 37)
    chunked.update(truth, pred)
    assert whole == chunked


@pytest.mark.parametrize("dtype", [np.int64, np.int16, np.uint16, bool])
def test_any_integer_dtype(dtype):
    truth, pred = np.array([0, 1, 1, 0]).astype(dtype), np.array([0, 1, 0, 0], np.int32)
    matrix = ConfusionMatrix(2)
    matrix.update(truth, pred)
    assert matrix.counts.tolist() == [[2, 0, 0], [1, 1, 0]]


def test_wrong_input_is_refused_and_not_counted():
    matrix = ConfusionMatrix(3)
    good = np.zeros((2, 2), np.uint8)
    with pytest.raises(UsageError, match=r"truth \(2, 2\) and prediction \(2, 3\) differ in shape"):
        matrix.update(good, np.zeros((2, 3), np.uint8))
    with pytest.raises(LabelError, match=r"prediction: value 3 found in 1 px, expected class indices 0 to 2 or 255"):
        matrix.update(good, np.array([[0, 1], [2, 3]], np.uint8))
    with pytest.raises(LabelError, match="truth: value 7 found in 4 px"):
        matrix.update(good + 7, good)
    with pytest.raises(LabelError, match="truth: values from -1 to -1"):
        matrix.update(good.astype(np.int16) - 1, good)
    with pytest.raises(UsageError, match="dtype float64"):
        matrix.update(good.astype(float), good)
    with pytest.raises(UsageError, match="of 3 and 2 classes"):
        matrix.merge(ConfusionMatrix(2))
    with pytest.raises(UsageError, match="num_classes 0"):
        ConfusionMatrix(0)
    with pytest.raises(UsageError, match=r"shape \(2, 4\)"):
        ConfusionMatrix.from_counts(np.zeros((2, 4), np.int64))
    with pytest.raises(UsageError, match="negative"):
        ConfusionMatrix.from_counts(np.full((2, 2), -1))
    assert matrix.total == 0


def test_counts_exceed_32_bits():
    big = np.full((2, 3), 2**40, np.int64)
    total = ConfusionMatrix.from_counts(big) + ConfusionMatrix.from_counts(big)
    assert total.total == 6 * 2**41
    assert total.overall_accuracy() == pytest.approx(1 / 3, abs=1e-15)


def test_nothing_counted_has_no_scores():
    matrix = ConfusionMatrix(2)
    matrix.update(np.full((3, 3), 255, np.uint8), np.zeros((3, 3), np.uint8))
    assert matrix.total == 0
    assert np.isnan([matrix.mean_iou(), matrix.mean_f1(), matrix.overall_accuracy()]).all()
    assert np.isnan(mean_over(np.array([NAN])))


def test_a_megapixel_takes_milliseconds():
    rng = np.random.default_rng(7)
    truth, pred = rng.integers(0, 6, (2, 2000, 2000)).astype(np.uint8)
    matrix = ConfusionMatrix(6)
    start = time.perf_counter()
    matrix.update(truth, pred)
    assert time.perf_counter() - start < 2, "a 4 Mpx window should take about 20 ms"


def test_goes_to_json_and_scores_in_batches():
    rng = np.random.default_rng(0)
    matrices = []
    for _ in range(3):
        matrix = ConfusionMatrix(3, ignore_index=9)
        matrix.update(rng.choice([0, 1, 2, 9], 200), rng.choice([0, 1, 2, 9], 200))
        matrices.append(matrix)
    back = ConfusionMatrix.from_json(json.loads(json.dumps(matrices[0].to_json())))
    assert back == matrices[0]
    assert back.ignore_index == 9
    counts = np.stack([matrix.counts for matrix in matrices])
    np.testing.assert_array_equal(iou_of(counts), [matrix.iou for matrix in matrices])
    np.testing.assert_array_equal(f1_of(counts), [matrix.f1 for matrix in matrices])
    np.testing.assert_array_equal(accuracy_of(counts), [matrix.overall_accuracy() for matrix in matrices])
    assert np.isnan(accuracy_of(np.zeros((2, 3, 4), int))).all()
