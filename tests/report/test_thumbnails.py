"""Small pictures: what is embedded is what was given, at the place where it belongs."""

from __future__ import annotations

import base64
import io
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from ctrs.classes import IGNORE_INDEX
from ctrs.report.thumbnails import OVERLAY_OPACITY, class_borders, data_uri, image_beside_overlay, overlay_uri, shrink

COLORS = ((255, 255, 255), (0, 0, 255), (255, 0, 0))


def decode(uri):
    kind, content = uri.split(";base64,")
    picture = Image.open(io.BytesIO(base64.b64decode(content, validate=True)))
    assert kind == f"data:image/{picture.format.lower()}"
    return picture


def test_images_of_few_colours_are_lossless():
    image = np.zeros((3, 20, 30), np.uint8)
    image[:, 5:, 7:] = [[[200]], [[10]], [[90]]]
    picture = decode(data_uri(image))
    assert picture.format == "PNG"
    np.testing.assert_array_equal(np.moveaxis(np.asarray(picture.convert("RGB")), -1, 0), image)


def test_photographs_become_small():
    rng = np.random.default_rng(0)
    image = (np.linspace(0, 200, 200)[None, :, None] + rng.normal(0, 12, (3, 200, 200))).clip(0, 255).astype(np.uint8)
    picture = decode(data_uri(image))
    assert picture.format == "JPEG"
    assert picture.size == (200, 200)
    difference = np.moveaxis(np.asarray(picture), -1, 0).astype(float) - image
    assert abs(difference.mean()) < 1
    assert len(data_uri(image)) < image.size / 2


@pytest.mark.parametrize("num_classes", [3, 250])
def test_overlays_hold_class_colours(num_classes):
    colors = COLORS if num_classes == 3 else tuple((index, 255 - index, 7) for index in range(num_classes))
    mask = np.repeat(np.arange(12, dtype=np.uint8) % num_classes, 4)[None].repeat(6, 0)
    if num_classes == 250:
        mask = np.arange(250, dtype=np.uint8)[None].repeat(9, 0).repeat(3, 1)
    mask[-2:] = IGNORE_INDEX
    mask[-1, 0] = 254  # in no class table
    picture = decode(overlay_uri(mask, colors))
    assert picture.format == "PNG"
    found = np.asarray(picture.convert("RGBA"))
    assert found.shape == (*mask.shape, 4)
    inside = mask < num_classes
    np.testing.assert_array_equal(found[inside][:, :3], np.array(colors)[mask[inside]])
    assert (found[~inside][:, 3] == 0).all()
    borders = class_borders(mask) & inside
    assert (found[borders][:, 3] == 255).all()
    assert borders.any()
    assert (found[inside & ~borders][:, 3] == round(255 * OVERLAY_OPACITY)).all()


def test_borders_lie_on_both_sides_and_not_along_ignored_pixels():
    mask = np.zeros((5, 5), np.uint8)
    mask[:2, 2:] = 1
    mask[4] = IGNORE_INDEX
    expected = np.zeros((5, 5), bool)
    expected[:2, 1:3] = True
    expected[1, 2:] = expected[2, 2:] = True
    np.testing.assert_array_equal(class_borders(mask), expected)


def test_shrinking_averages_images_and_picks_classes():
    image = np.zeros((3, 8, 4), np.uint8)
    image[:, :, ::2] = 100
    mask = np.repeat(np.array([0, 1, 2, 255], np.uint8), 2)[:, None].repeat(4, 1)
    small, classes = shrink(image, mask, 4)
    assert small.shape == (3, 4, 2)
    assert (small == 50).all()
    assert classes.tolist() == [[0, 0], [1, 1], [2, 2], [255, 255]]
    same = shrink(image, mask, 8)
    assert same[0] is image
    assert same[1] is mask


def test_a_mask_lies_on_its_image():
    image = np.full((3, 10, 20), 50, np.uint8)
    mask = np.zeros((10, 20), np.uint8)
    drawn = ElementTree.fromstring(image_beside_overlay(image, mask, COLORS, key="x-1", alt='<a> "b"', square=True))
    picture, overlay = drawn.iter("image")
    copy = drawn.find("use")
    assert copy.get("href") == "#x-1"
    assert picture.get("id") == "x-1"
    assert float(picture.get("x")) + float(copy.get("x")) == float(overlay.get("x"))
    for key in ("y", "width", "height"):
        assert picture.get(key) == overlay.get(key)
    assert float(picture.get("width")) == 2 * float(picture.get("height"))
    assert drawn.get("aria-label") == drawn.find("title").text == '<a> "b"'
    assert decode(picture.get("href")).size == decode(overlay.get("href")).size == (20, 10)
