"""Pictures of places: pixels have the colours that they should, panels the order that the page names."""

from __future__ import annotations

import base64
import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from ctrs.report.score_pictures import (
    ERROR_COLOR,
    PANEL_PX,
    PlaceMark,
    PlacePanels,
    error_uri,
    mask_uri,
    place_panels,
    scene_overview,
)

COLORS = ((255, 0, 0), (0, 0, 255))


def decode(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGBA"))


def uris(svg):
    return re.findall(r'href="(data:[^"]+)"', svg)


def titles(svg):
    return [entry.text for entry in ElementTree.fromstring(svg).iter("text")]


@pytest.fixture
def place():
    truth = np.zeros((40, 60), np.uint8)
    truth[10:20, 10:30], truth[30:] = 1, 255
    a, b = truth.copy(), np.zeros_like(truth)
    a[0, 0] = 1
    image = np.random.default_rng(0).integers(0, 255, (3, 40, 60)).astype(np.uint8)
    return PlacePanels(image=image, truth=truth, runs=[("A", a), ("B", b)], counted=truth != 255)


def test_masks_have_their_colours_and_no_more_bits_than_needed():
    mask = np.array([[0, 1], [255, 1]], np.uint8)
    found = decode(mask_uri(mask, COLORS))
    assert found[0, 0].tolist() == [255, 0, 0, 255]
    assert found[1, 1].tolist() == [0, 0, 255, 255]
    assert found[1, 0, 3] == 0  # clear: the hatched ground shows
    assert len(mask_uri(np.zeros((256, 256), np.uint8), COLORS)) < 500
    many = np.arange(250, dtype=np.uint8)[None]
    assert decode(mask_uri(many, [(i, 0, i) for i in range(250)]))[0, 249].tolist() == [249, 0, 249, 255]


def test_errors_are_coloured_where_they_are(place):
    wrong = (place.runs[1][1] != place.truth) & place.counted
    found = decode(error_uri(wrong))
    assert ((found[..., 3] > 0) == wrong).all()
    assert found[15, 20, :3].tolist() == list(ERROR_COLOR)
    assert wrong[15, 20]
    assert not wrong[35, 5]


def test_panels_of_one_run_stand_in_a_row(place):
    one = PlacePanels(image=place.image, truth=place.truth, runs=place.runs[:1], counted=place.counted)
    svg = place_panels(one, COLORS, key="worst-1", alt="Place 1")
    assert titles(svg) == ["scene", "truth", "A", "errors"]
    image, truth, pred, errors = uris(svg)
    assert image.startswith("data:image/jpeg")
    assert (decode(truth) == decode(mask_uri(place.truth, COLORS))).all()
    assert (decode(pred)[0, 0] == [0, 0, 255, 255]).all()
    assert (decode(errors)[..., 3] > 0).sum() == 1
    height = float(ElementTree.fromstring(svg).get("viewBox").split()[3])
    assert height < PANEL_PX


def test_errors_of_several_runs_stand_below_them(place):
    svg = place_panels(place, COLORS, key="w", alt="x")
    assert titles(svg) == ["scene", "truth", "A", "errors of A", "B", "errors of B"]
    groups = [entry for entry in ElementTree.fromstring(svg) if entry.tag == "g"]
    places = [tuple(map(float, re.findall(r"[\d.]+", entry.get("transform")))) for entry in groups]
    assert places[2][0] == places[3][0]
    assert places[3][1] > places[2][1]
    assert svg.count("data:image/jpeg") == 1  # the scene is held once


def test_without_imagery_the_rest_is_drawn(place):
    bare = PlacePanels(image=None, truth=place.truth, runs=place.runs[:1], counted=place.counted)
    assert titles(place_panels(bare, COLORS, key="w", alt="x")) == ["truth", "A", "errors"]


def test_overview_tints_cells_and_marks_places():
    rates = np.array([[0.0, 0.5], [np.nan, 0.25]])
    marks = [PlaceMark(label="W1", row_off=0, col_off=50, height=50, width=50, kind="worst")]
    svg = scene_overview(None, rates, marks, top=0.5, scene_shape=(100, 80), cell_px=50, alt="town", width_px=200)
    (cells,) = [decode(uri) for uri in uris(svg)]
    assert cells[..., 3].tolist() == [[0, 190], [0, 95]]
    root = ElementTree.fromstring(svg)
    (mark,) = [entry for entry in root.iter("rect") if entry.get("class") == "mark worst"]
    assert [float(mark.get(name)) for name in ("x", "y", "width", "height")] == [100, 0, 100, 100]
    assert titles(svg) == ["W1"]
