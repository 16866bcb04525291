"""Random scenes with areas of some size, for the tests of scores."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st
from scipy import ndimage

from ctrs.metrics import scored_blocks


class Scene(NamedTuple):
    truth: np.ndarray
    pred: np.ndarray
    confidence: np.ndarray
    num_classes: int


def random_labels(rng, shape, num_classes, grain):
    """Return classes in areas of about ``grain`` px; 0: noise."""
    fields = rng.random((num_classes, *shape))
    if grain:
        fields = np.stack([ndimage.uniform_filter(field, grain, mode="wrap") for field in fields])
    return fields.argmax(axis=0).astype(np.uint8)


def random_scene(seed, shape, num_classes, *, grain=3, ignored=0.0, silent=0.0):
    """Return a truth and a prediction that agree in part, with ignored and not predicted ground."""
    rng = np.random.default_rng(seed)
    truth = random_labels(rng, shape, num_classes, grain)
    other = random_labels(rng, shape, num_classes, grain)
    patches = random_labels(rng, shape, 3, max(grain, 2))
    pred = np.where(patches == 0, other, truth)
    pred = np.where(patches == 1, np.roll(pred, 1, axis=int(rng.integers(2))), pred)
    truth = np.where(random_noise(rng, shape, ignored, grain), np.uint8(255), truth)
    pred = np.where(random_noise(rng, shape, silent, grain), np.uint8(255), pred)
    confidence = rng.integers(128, 257, shape).astype(np.float32) / 256 if seed % 2 else rng.random(shape, np.float32)
    return Scene(truth, pred, confidence, num_classes)


def random_noise(rng, shape, share, grain):
    """Return flags of about the given share, in patches."""
    field = ndimage.uniform_filter(rng.random(shape), max(grain, 1), mode="wrap")
    return field < np.quantile(field, share) if share else np.zeros(shape, bool)


scenes = st.builds(
    random_scene,
    st.integers(0, 10_000),
    st.tuples(st.integers(1, 24), st.integers(1, 24)),
    st.sampled_from([1, 2, 3, 6]),
    grain=st.sampled_from([0, 2, 3, 5]),
    ignored=st.sampled_from([0.0, 0.1, 0.5]),
    silent=st.sampled_from([0.0, 0.1]),
)


def read(accumulator, scene, block_px=1024, halo_px=None):
    """Give a scene to an accumulator, and return it."""
    halo_px = getattr(accumulator, "halo_px", 0) if halo_px is None else halo_px
    for block in scored_blocks(
        scene.truth, scene.pred, confidence=scene.confidence, block_px=block_px, halo_px=halo_px
    ):
        accumulator.update(block)
    return accumulator
