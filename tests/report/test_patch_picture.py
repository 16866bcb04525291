"""Patches over a tile: the colours of known patches at known pixels."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.image import imread

from ctrs.classes import IGNORE_INDEX, ClassMap, LandClass
from ctrs.report.patch_picture import (
    ClassPatches,
    PatchKind,
    StagePatches,
    paint_class,
    paint_patches,
    patch_picture,
)

CLASSES = ClassMap(
    classes=(
        LandClass(value=0, name="ground", color=(0, 0, 0)),
        LandClass(value=1, name="building", color=(255, 0, 0)),
    )
)
GREY = 100
BLUE = (0.4 * GREY, 0.4 * GREY + 0.6 * 110, 0.4 * GREY + 0.6 * 255)
ORANGE = (0.58 * GREY + 0.42 * 255, 0.58 * GREY + 0.42 * 140, 0.58 * GREY)
DARK = (0.38 * GREY,) * 3


def stage(stride=16, size=64):
    """Positive at the left, negative at the right, discarded between, void below."""
    kinds = np.full((size // stride, size // stride), PatchKind.NEGATIVE, np.uint8)
    kinds[:, 0] = PatchKind.POSITIVE
    kinds[:, 1] = PatchKind.DISCARDED
    kinds[-1] = PatchKind.VOID
    return StagePatches(stride=stride, kinds=kinds)


def test_each_patch_is_painted_where_it_lies():
    image = np.full((3, 64, 64), GREY, np.uint8)
    painted = paint_patches(image, stage())
    assert painted.shape == (3, 64, 64)
    for col, color in ((0, BLUE), (15, BLUE), (16, DARK), (31, DARK), (32, ORANGE), (63, ORANGE)):
        for row in (0, 47):
            np.testing.assert_allclose(painted[:, row, col], color, atol=1)
    void = painted[:, 48:].reshape(3, -1).T
    assert {tuple(color) for color in void.tolist()} == {(216,) * 3, (108,) * 3}  # white veil, grey stripes


def test_patches_that_reach_beyond_the_tile_are_cut():
    image = np.full((3, 40, 50), GREY, np.uint8)
    kinds = np.full((2, 2), PatchKind.NEGATIVE, np.uint8)
    kinds[1, 1] = PatchKind.POSITIVE
    painted = paint_patches(image, StagePatches(stride=32, kinds=kinds))
    assert painted.shape == (3, 40, 50)
    np.testing.assert_allclose(painted[:, 39, 49], BLUE, atol=1)
    np.testing.assert_allclose(painted[:, 39, 31], ORANGE, atol=1)


def test_the_class_alone_keeps_its_colours():
    image = np.random.default_rng(0).integers(0, 256, (3, 64, 64)).astype(np.uint8)
    mask = np.zeros((64, 64), np.uint8)
    mask[:32] = 1
    mask[:, 60:] = IGNORE_INDEX
    painted = paint_class(image, mask, 1)
    assert (painted[:, :32, :60] == image[:, :32, :60]).all()
    assert (painted[:, 32:, :60] == np.rint(image[:, 32:, :60] * np.float32(0.35))).all()
    assert painted[:, :, 60:].min() > 80


def picture(tmp_path, *classes, stages=4):
    image = np.full((3, 64, 64), GREY, np.uint8)
    mask = np.zeros((64, 64), np.uint8)
    patches = [
        ClassPatches(class_index=index, stages=tuple(stage(4 * 2**number) for number in range(stages)))
        for index in classes
    ]
    path = patch_picture(tmp_path / "a.png", image, mask, patches, CLASSES, title="tile")
    return path, np.rint(imread(path)[..., :3] * 255).astype(int)


def near(pixels, color):
    return (np.abs(pixels - np.array(color)) <= 2).all(axis=-1)


def test_one_class_is_drawn_in_six_large_panels(tmp_path):
    path, pixels = picture(tmp_path, 1)
    panel = (2000 - 4 * 14) / 3
    assert pixels.shape[1] == 2000
    assert pixels.shape[0] == pytest.approx(40 + 2 * (50 + panel + 14) + 48, abs=2)
    # The second panel of the second row is that of stride 16, whose four columns of patches have known colours.
    left, top = 14 + (panel + 14), 40 + (50 + panel + 14) + 50
    for number, color in enumerate((BLUE, DARK, ORANGE, ORANGE)):
        row, col = int(top + panel * 1.4 / 4), int(left + panel * (number + 0.4) / 4)
        assert near(pixels[row, col], color), (number, pixels[row, col])
    again = picture(tmp_path, 1)[0].read_bytes()
    assert again == path.read_bytes()


def test_several_classes_stand_in_rows(tmp_path):
    _, one = picture(tmp_path, 0, 1)
    panel = (2000 - 6 * 14) / 5
    assert one.shape[0] == pytest.approx(40 + 2 * (50 + panel + 14) + 48, abs=2)
    positive = 15 / 256 + 7 / 64 + 3 / 16 + 1 / 4  # of each stage's panel; borders of patches take a little
    assert near(one, BLUE).sum() == pytest.approx(2 * panel**2 * positive, rel=0.08)
    for row in range(2):  # each row has stride 32 at its right: void below, the rest positive and discarded
        top, left = 40 + row * (50 + panel + 14) + 50, 14 + 4 * (panel + 14)
        assert near(one[int(top + panel * 0.2), int(left + panel * 0.2)], BLUE)
        assert near(one[int(top + panel * 0.2), int(left + panel * 0.8)], DARK)


def test_void_is_explained_only_where_there_is_some(tmp_path):
    def legend(kinds):
        one = ClassPatches(class_index=0, stages=(StagePatches(stride=32, kinds=np.array(kinds, np.uint8)),))
        image, mask = np.full((3, 64, 64), GREY, np.uint8), np.zeros((64, 64), np.uint8)
        patch_picture(tmp_path / "a.png", image, mask, [one], CLASSES, title="")
        pixels = np.rint(imread(tmp_path / "a.png")[-48:, :, :3] * 255).astype(int)
        return np.flatnonzero((pixels < 200).any(axis=(0, 2)))

    without, with_void = legend([[0, 1], [1, 2]]), legend([[0, 1], [1, 3]])
    assert np.ptp(with_void) > np.ptp(without) + 300


def test_counts_of_a_stage():
    assert stage(16).counts == {
        PatchKind.POSITIVE: 3, PatchKind.NEGATIVE: 6, PatchKind.DISCARDED: 3, PatchKind.VOID: 4,
    }  # fmt: skip
