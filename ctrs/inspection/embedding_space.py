"""How vectors of several classes lie in space: a plane to look at, and numbers from the full space.

Dimension letters: n vectors, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ctrs.config import MapMethod

NEIGHBOURS = 10
_PERPLEXITY = 30.0
_NO_SPREAD = 1e-9

Vectors = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Separation:
    """How well classes are apart, by cosine in the full space; None where that can't be said.

    Args:
        silhouette: Mean silhouette coefficient, -1 to 1: own class nearer than the next one.
        purity: Mean share of a vector's nearest neighbours that are of its class, 0 to 1.
        chance: What ``purity`` is where classes are strewn at random.
    """

    silhouette: float | None
    purity: float | None
    chance: float | None


def unit_rows(vectors: npt.NDArray[Any]) -> Vectors:
    """Scale each row to length 1; rows of zeros stay.

    >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    wide = vectors.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.asarray(wide / np.maximum(lengths, 1e-12))


def separation(vectors: Vectors, labels: Labels) -> Separation:
    """Measure how well classes are apart.

    Args:
        vectors: (n, D) unit vectors.
        labels: (n,) class indices.
    """
    counts = np.unique(labels, return_counts=True)[1]
    n = len(labels)
    if len(counts) < 2 or n <= len(counts):
        return Separation(silhouette=None, purity=None, chance=None)
    from sklearn.metrics import silhouette_score

    similarity = vectors @ vectors.T  # (n, n)
    distance = np.clip(1 - similarity, 0, 2)
    np.fill_diagonal(distance, 0)
    np.fill_diagonal(similarity, -np.inf)
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, : min(NEIGHBOURS, n - 1)]
    return Separation(
        silhouette=float(silhouette_score(distance, labels, metric="precomputed")),
        purity=float((labels[nearest] == labels[:, None]).mean()),
        chance=float((counts * (counts - 1)).sum() / (n * (n - 1))),
    )


def flatten(vectors: Vectors, method: MapMethod) -> Vectors | None:
    """Lay vectors out on a plane; the same vectors give the same points.

    Args:
        vectors: (n, D) unit vectors.
        method: ``pca`` or ``tsne``.

    Returns:
        (n, 2); None for fewer than three vectors.
    """
    n = len(vectors)
    if n < 3:
        return None
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    if vectors.shape[1] < 2:
        vectors = np.pad(vectors, ((0, 0), (0, 1)))
    # One thread: sums over several come out in another order each time, which t-SNE makes large.
    with threadpool_limits(1):
        # A fraction of variance is of no interest here, and 0 / 0 where all vectors are equal.
        with np.errstate(invalid="ignore", divide="ignore"):
            plane = np.asarray(PCA(2, svd_solver="full").fit_transform(vectors), np.float64)
        spread = float(plane[:, 0].std())
        if spread < _NO_SPREAD:  # a network that has collapsed; t-SNE would divide by it
            return np.zeros((n, 2))
        if method == "tsne":
            perplexity = min(_PERPLEXITY, (n - 1) / 3)
            start = (plane / spread * 1e-4).astype(np.float32)  # as scikit-learn's init="pca"
            tsne = TSNE(2, perplexity=perplexity, init=start, random_state=0, n_jobs=1)
            plane = np.asarray(tsne.fit_transform(vectors), np.float64)
    return plane
