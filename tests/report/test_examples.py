from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from ctrs.classes import IGNORE_INDEX, ClassMap, LandClass
from ctrs.errors import OutputError, UsageError
from ctrs.report.examples import ERROR_COLORS, Example, error_color, error_image, examples_picture, strip_image

CLASSES = ClassMap(
    classes=(
        LandClass(value=0, name="ground", color=(10, 200, 30)),
        LandClass(value=1, name="building", color=(200, 10, 220)),
    )
)


def example(height: int = 40, width: int = 60) -> Example:
    truth = np.zeros((height, width), np.uint8)
    truth[:20, :30] = 1
    truth[-5:] = IGNORE_INDEX
    predicted = np.zeros_like(truth)
    predicted[:20, :20] = 1
    image = np.random.default_rng(0).integers(0, 255, (3, height, width)).astype(np.uint8)
    return Example(name="town_000_001", image=image, truth=truth, predicted=predicted)


def test_wrong_are_labelled_pixels_of_another_class() -> None:
    found = example()
    assert found.wrong.sum() == 20 * 10
    assert found.accuracy == 1 - 200 / (35 * 60)
    errors = error_image(found, (1, 2, 3))
    assert (errors[:, 5, 25] == (1, 2, 3)).all()
    assert (errors[:, 5, 5] != (1, 2, 3)).any()
    unlabelled = Example(
        name="a", image=found.image, truth=np.full_like(found.truth, IGNORE_INDEX), predicted=found.predicted
    )
    assert math.isnan(unlabelled.accuracy)


def test_strip_holds_image_truth_and_prediction() -> None:
    strip = strip_image(example(), CLASSES)
    assert strip.shape == (3, 40, 3 * 60 + 8)
    assert strip.dtype == np.uint8
    assert (strip[:, 5, 64 + 25] == (200, 10, 220)).all()  # truth: building
    assert (strip[:, 5, 128 + 25] == (10, 200, 30)).all()  # predicted: ground
    np.testing.assert_array_equal(strip[:, :, :60], example().image)


def test_picture_shows_each_example_with_a_legend(tmp_path: Path) -> None:
    examples_picture(tmp_path / "examples.png", [example(), example(60, 60)], CLASSES, title="epoch 3")
    with Picture.open(tmp_path / "examples.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[1] == 4 * 320 + 5 * 12
    for color in (*CLASSES.colors, error_color(CLASSES)):
        assert (pixels == color).all(-1).sum() > 500
    assert [entry.name for entry in tmp_path.iterdir()] == ["examples.png"]


def test_sizes_must_agree_and_there_must_be_one(tmp_path: Path) -> None:
    found = example()
    with pytest.raises(UsageError, match=r"example a: image \(40, 60\), truth \(40, 60\) and prediction \(2, 2\)"):
        Example(name="a", image=found.image, truth=found.truth, predicted=np.zeros((2, 2), np.uint8))
    with pytest.raises(UsageError, match="no examples to draw"):
        examples_picture(tmp_path / "a.png", [], CLASSES)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"examples\.png: picture not written"):
        examples_picture(tmp_path / "file" / "examples.png", [example()], CLASSES)


def test_wrong_pixels_have_a_colour_that_no_class_has() -> None:
    assert error_color(CLASSES) == ERROR_COLORS[0]
    red = ClassMap(classes=(LandClass(value=0, name="building", color=(255, 0, 0)),))
    assert error_color(red) == (255, 0, 200)
    taken = tuple(LandClass(value=n, name=str(n), color=color) for n, color in enumerate(ERROR_COLORS))
    assert error_color(ClassMap(classes=taken)) in ERROR_COLORS
