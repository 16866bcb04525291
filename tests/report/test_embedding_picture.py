"""Maps of patch vectors: panels where they belong, points in the colours of their classes."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.image import imread

from ctrs.classes import ClassMap, LandClass
from ctrs.report.embedding_picture import EmbeddingPanel, embedding_picture

CLASSES = ClassMap(
    classes=(
        LandClass(value=0, name="ground", color=(255, 255, 255)),
        LandClass(value=1, name="building", color=(0, 0, 255)),
        LandClass(value=2, name="car", color=(255, 255, 0)),
    )
)


def panel(points, classes, **numbers):
    given = {"silhouette": 0.5, "purity": 0.9, "chance": 0.5} | numbers
    return EmbeddingPanel(
        run="one", loss="cl", heading="stage 0", points=None if points is None else np.array(points, float),
        classes=np.array(classes, np.int64), **given,
    )  # fmt: skip


def draw(path, panels):
    embedding_picture(path, panels, CLASSES, title="town")
    return np.rint(imread(path)[..., :3] * 255).astype(int)


def places(pixels, color):
    rows, cols = np.nonzero((np.abs(pixels - np.array(color)) <= 3).all(axis=-1))
    return rows.mean(), cols.mean()


def test_a_stage_of_two_runs_stands_side_by_side(tmp_path):
    left = panel([[0, 0], [0, 4], [4, 0]], [1, 0, 0])
    right = panel([[0, 0], [0, 4], [4, 0]], [0, 0, 1])
    pixels = draw(tmp_path / "a.png", [[left], [right]])
    side = (2000 - 3 * 16) / 2
    assert pixels.shape[1] == 2000
    assert pixels.shape[0] == pytest.approx(44 + 34 + side + 54 + 36 + 16, abs=2)
    above_legend = pixels[: int(44 + 34 + side)]
    row, col = places(above_legend[:, :1000], (0, 0, 255))
    low, far = 0.5 + 0.5 / 1.08, 0.5 - 0.5 / 1.08  # a margin of 4 % on each side
    assert (row, col) == (pytest.approx(78 + side * low, abs=3), pytest.approx(16 + side * far, abs=3))
    row, col = places(above_legend[:, 1000:], (0, 0, 255))
    assert (row, col) == (pytest.approx(78 + side * low, abs=3), pytest.approx(32 + side * (1 + low) - 1000, abs=3))


def test_several_stages_of_two_runs_stand_in_two_rows(tmp_path):
    one = [panel([[0, 0], [1, 1], [2, 0]], [0, 1, 2]) for _ in range(4)]
    pixels = draw(tmp_path / "a.png", [one, one])
    side = (2000 - 5 * 16) / 4
    assert pixels.shape[0] == pytest.approx(44 + 2 * (34 + side + 54) + 36 + 16, abs=2)
    yellow = (np.abs(pixels - np.array((255, 255, 0))) <= 3).all(axis=-1)
    for row in range(2):
        top = 44 + row * (34 + side + 54) + 34
        for col in range(4):
            left = 16 + col * (side + 16)
            assert yellow[int(top) : int(top + side), int(left) : int(left + side)].any()


def test_what_cannot_be_laid_out_is_said(tmp_path):
    empty = panel(None, [1], silhouette=None, purity=None, chance=None)
    same = panel([[1, 1], [1, 1], [1, 1]], [1, 1, 1], silhouette=None, purity=None, chance=None)
    assert draw(tmp_path / "a.png", [[empty, same]]).shape[1] == 2000
    nothing = panel(None, [], silhouette=None, purity=None, chance=None)
    assert draw(tmp_path / "b.png", [[nothing]]).shape[1] == 2000


def test_the_same_points_give_the_same_bytes(tmp_path):
    one = panel(np.random.default_rng(0).normal(size=(50, 2)), np.arange(50) % 3)
    draw(tmp_path / "a.png", [[one]])
    draw(tmp_path / "b.png", [[one]])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
