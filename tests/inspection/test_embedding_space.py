"""Numbers and planes of vectors, against loops and known layouts."""

from __future__ import annotations

import numpy as np
import pytest

from ctrs.inspection.embedding_space import flatten, separation, unit_rows


def clouds(spread, *, n=30, seed=0):
    rng = np.random.default_rng(seed)
    centres = np.eye(3, 8)
    labels = np.arange(3).repeat((n, n // 2, n // 3))
    return unit_rows(centres[labels] + spread * rng.normal(size=(len(labels), 8))), labels


def naive(vectors, labels):
    """Silhouette and neighbours, one vector after the other."""
    distance = 1 - vectors @ vectors.T
    scores, shares = [], []
    for i, own in enumerate(labels):
        others = [j for j in range(len(labels)) if j != i]
        means = {c: np.mean([distance[i, j] for j in others if labels[j] == c]) for c in set(labels.tolist())}
        a, b = means[own], min(value for c, value in means.items() if c != own)
        scores.append((b - a) / max(a, b))
        nearest = sorted(others, key=lambda j: distance[i, j])[:10]
        shares.append(np.mean([labels[j] == own for j in nearest]))
    return np.mean(scores), np.mean(shares)


@pytest.mark.parametrize("spread", [0.1, 0.5, 3.0])
def test_numbers_equal_a_loop(spread):
    vectors, labels = clouds(spread)
    found = separation(vectors, labels)
    silhouette, purity = naive(vectors, labels)
    assert found.silhouette == pytest.approx(silhouette, abs=1e-9)
    assert found.purity == pytest.approx(purity, abs=1e-12)
    assert found.chance == pytest.approx((30 * 29 + 15 * 14 + 10 * 9) / (55 * 54))


def test_what_is_apart_scores_high_and_what_is_not_scores_like_chance():
    apart, strewn = separation(*clouds(0.02)), separation(*clouds(100.0, n=300))
    assert apart.silhouette > 0.9
    assert apart.purity > 0.95  # the smallest class has one member fewer than neighbours are asked for
    assert abs(strewn.silhouette) < 0.05
    assert strewn.purity == pytest.approx(strewn.chance, abs=0.05)


@pytest.mark.parametrize("labels", [[], [0], [0, 0, 0], [0, 1], [0, 1, 2]])
def test_too_little_to_compare_gives_no_number(labels):
    found = separation(np.eye(max(1, len(labels)), 4)[: len(labels)], np.array(labels, np.int64))
    assert (found.silhouette, found.purity, found.chance) == (None, None, None)


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_planes_repeat_themselves_and_keep_clouds_apart(method):
    vectors, labels = clouds(0.05, n=60)
    first, again = (flatten(vectors, method) for _ in range(2))
    assert first.shape == (len(labels), 2)
    assert first.tobytes() == again.tobytes()
    centres = np.stack([first[labels == c].mean(axis=0) for c in range(3)])
    own = np.linalg.norm(first[:, None] - centres, axis=2).argmin(axis=1)
    assert (own == labels).all()


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_few_or_equal_vectors_need_no_care(method):
    assert flatten(np.empty((0, 4)), method) is None
    assert flatten(np.eye(2, 4), method) is None
    assert np.isfinite(flatten(np.eye(3, 4), method)).all()
    assert np.isfinite(flatten(np.ones((12, 4)) / 2, method)).all()
    assert flatten(np.ones((5, 1)), method).shape == (5, 2)  # a single channel


def test_unit_rows_survive_zeros():
    assert unit_rows(np.zeros((2, 3), np.float32)).tolist() == [[0.0] * 3] * 2
    assert np.linalg.norm(unit_rows(np.full((1, 3), 1e-5, np.float32))) == pytest.approx(1)
