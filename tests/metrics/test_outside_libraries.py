"""Scores equal those of scikit-learn and torchmetrics to 1e-12; test_confusion.py has the loops that need neither."""

from __future__ import annotations

import numpy as np
import pytest

from ctrs.metrics import ConfusionMatrix

ATOL = 1e-12


def random_pixels(seed, num_classes, *, absent=()):
    """Return a truth with ignored pixels and a prediction, both without the absent classes."""
    rng = np.random.default_rng(seed)
    classes = np.array([index for index in range(num_classes) if index not in absent])
    truth = rng.choice(classes, (3, 61, 47)).astype(np.uint8)
    pred = np.where(rng.random(truth.shape) < 0.6, truth, rng.choice(classes, truth.shape)).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.1] = 255
    return truth, pred


def matrix_of(truth, pred, num_classes):
    matrix = ConfusionMatrix(num_classes)
    matrix.update(truth, pred)
    return matrix


@pytest.mark.parametrize("num_classes", [2, 6, 40])
@pytest.mark.parametrize("seed", range(3))
def test_equals_scikit_learn(seed, num_classes):
    metrics = pytest.importorskip("sklearn.metrics")
    truth, pred = random_pixels(seed, num_classes)
    matrix = matrix_of(truth, pred, num_classes)
    t, p = truth[truth != 255], pred[truth != 255]
    labels = list(range(num_classes))
    expected = {
        "iou": metrics.jaccard_score(t, p, labels=labels, average=None),
        "f1": metrics.f1_score(t, p, labels=labels, average=None),
        "precision": metrics.precision_score(t, p, labels=labels, average=None),
        "recall": metrics.recall_score(t, p, labels=labels, average=None),
    }
    for name, scores in expected.items():
        np.testing.assert_allclose(getattr(matrix, name), scores, rtol=0, atol=ATOL, err_msg=name)
    np.testing.assert_array_equal(matrix.counts[:, :-1], metrics.confusion_matrix(t, p, labels=labels))
    np.testing.assert_allclose(matrix.overall_accuracy(), metrics.accuracy_score(t, p), rtol=0, atol=ATOL)
    macro = metrics.jaccard_score(t, p, labels=labels, average="macro"), metrics.f1_score(t, p, average="macro")
    np.testing.assert_allclose((matrix.mean_iou(), matrix.mean_f1()), macro, rtol=0, atol=ATOL)
    without = labels[:-1]
    kept = t != num_classes - 1
    np.testing.assert_allclose(
        (matrix.overall_accuracy(without), matrix.mean_iou(without)),
        (metrics.accuracy_score(t[kept], p[kept]), metrics.jaccard_score(t, p, labels=without, average="macro")),
        rtol=0,
        atol=ATOL,
    )


@pytest.mark.parametrize("num_classes", [2, 6, 40])
@pytest.mark.parametrize("seed", range(3))
def test_equals_torchmetrics(seed, num_classes):
    """To 1e-12 from torchmetrics' whole counts; its own quotients are float32, and equal to the last digit of that."""
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchmetrics.functional.classification")
    truth, pred = random_pixels(seed, num_classes)
    matrix = matrix_of(truth, pred, num_classes)
    t, p = (torch.from_numpy(values.astype(np.int64)) for values in (truth, pred))
    options = {"num_classes": num_classes, "average": "none", "ignore_index": 255}
    tp, fp, _, fn, _ = functional.multiclass_stat_scores(p, t, **options).double().T
    for name, expected, function in (
        ("iou", tp / (tp + fp + fn), functional.multiclass_jaccard_index),
        ("f1", 2 * tp / (2 * tp + fp + fn), functional.multiclass_f1_score),
        ("precision", tp / (tp + fp), functional.multiclass_precision),
        ("recall", tp / (tp + fn), functional.multiclass_recall),
    ):
        scores = getattr(matrix, name)
        np.testing.assert_allclose(scores, expected.numpy(), rtol=0, atol=ATOL, err_msg=name)
        np.testing.assert_allclose(scores, function(p, t, **options).numpy(), rtol=0, atol=1.2e-7, err_msg=name)
    np.testing.assert_allclose(matrix.overall_accuracy(), (tp.sum() / (tp + fn).sum()).item(), rtol=0, atol=ATOL)
    micro = functional.multiclass_accuracy(p, t, num_classes=num_classes, average="micro", ignore_index=255)
    np.testing.assert_allclose(matrix.overall_accuracy(), micro.item(), rtol=0, atol=1.2e-7)


def test_classes_nowhere_to_be_seen():
    """scikit-learn gives them 0 and a warning; here they have no score, and the mean is over those that have."""
    metrics = pytest.importorskip("sklearn.metrics")
    truth, pred = random_pixels(0, 5, absent=(1, 3))
    matrix = matrix_of(truth, pred, 5)
    t, p = truth[truth != 255], pred[truth != 255]
    assert np.isnan(matrix.iou).tolist() == [False, True, False, True, False]
    present = metrics.jaccard_score(t, p, labels=[0, 2, 4], average=None)
    np.testing.assert_allclose(matrix.iou[[0, 2, 4]], present, rtol=0, atol=ATOL)
    np.testing.assert_allclose(matrix.mean_iou(), present.mean(), rtol=0, atol=ATOL)
