"""Maps: what lies where, how long the scale bar is."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from ctrs.report.ground_map import MapLayer, MapOutline, ground_map, path_of, round_length

SQUARE = np.array([(0, 0), (100, 0), (100, 100), (0, 100)], float)


def drawn(layers, outlines=(), **options):
    return ElementTree.fromstring(ground_map(layers, outlines, key="k", alt="a map", width_px=212.0, **options))


def corners(path):
    """Follow a path in relative steps; returns the rings in pixels."""
    rings = []
    for command, numbers in re.findall(r"([Mlhvz])([-\d ]*)", path.get("d")):
        values = [int(number) for number in numbers.split()]
        if command == "M":
            rings.append([tuple(values)])
        elif command != "z":
            x, y = rings[-1][-1]
            dx, dy = values if command == "l" else (values[0], 0) if command == "h" else (0, values[0])
            rings[-1].append((x + dx, y + dy))
    return [np.array(ring) / 10 for ring in rings]


def layer_paths(svg):
    return [path for path in svg.iter("path") if path.get("transform") and path.get("class") is None]


def test_north_is_up_and_rows_go_down():
    upper_left = MapLayer(name="a", rings=[SQUARE * 0.1 + (0, 90)], color=(1, 2, 3))
    for y_down, top in ((False, 6.0), (True, 186.0)):
        svg = drawn([upper_left], [MapOutline(name="scene", ring=SQUARE)], y_down=y_down)
        ring = corners(layer_paths(svg)[0])[0]
        assert ring.min(axis=0).tolist() == [6.0, top]
        assert np.ptp(ring, axis=0).tolist() == [20.0, 20.0]


def test_layers_have_their_colours_and_what_is_left_out_is_hatched():
    layers = [
        MapLayer(name="out", rings=[SQUARE], color=None),
        MapLayer(name="train", rings=[SQUARE], color=(255, 0, 9)),
    ]
    out, train = layer_paths(drawn([*layers, MapLayer(name="none", rings=[], color=None)]))
    assert out.get("fill") == "url(#k-hatching)"
    assert train.get("fill") == "#ff0009"
    assert [path.find("title").text for path in (out, train)] == ["out", "train"]


@pytest.mark.parametrize(
    ("extent", "unit", "text", "length_px"),
    [
        (100.0, "m", "20 m", 40.0),
        (8000.0, "m", "2 km", 50.0),
        (8000.0, "px", "2,000 px", 50.0),
        (0.5, "m", "0.1 m", 40.0),
    ],
)
def test_the_scale_bar_is_as_long_as_it_says(extent, unit, text, length_px):
    svg = drawn([], [MapOutline(name="", ring=SQUARE * extent / 100)], unit=unit)
    assert [entry.text for entry in svg.iter("text")][-1] == text
    bar = next(path for path in svg.iter("path") if path.get("class") == "axis").get("d")
    start, end = float(re.match(r"M([\d.]+)", bar)[1]), float(re.search(r"H([\d.]+)", bar)[1])
    assert end - start == pytest.approx(length_px, abs=0.11)


def test_names_are_written_where_there_is_room():
    wide = MapOutline(name="<b>wide", ring=SQUARE)
    narrow = MapOutline(name="narrow", ring=SQUARE * 0.05)
    svg = drawn([], [wide, narrow])
    assert [text.text for text in svg.iter("text") if text.get("class") == "halo"] == ["<b>wide"]
    assert [path.find("title").text for path in svg.iter("path") if path.get("class") == "outline"] == [
        "<b>wide", "narrow",
    ]  # fmt: skip


def test_names_do_not_lie_on_each_other():
    svg = drawn([], [MapOutline(name="one", ring=SQUARE), MapOutline(name="two", ring=SQUARE + 1)])
    assert [text.text for text in svg.iter("text") if text.get("class") == "halo"] == ["one"]


def test_a_map_without_extent_can_be_drawn():
    svg = drawn([], [MapOutline(name="dot", ring=SQUARE * 0)])
    assert np.isfinite([float(number) for number in svg.get("viewBox").split()]).all()


def test_paths_come_back():
    rings = [np.array([(1, 1), (5, 1), (5, 3), (1, 3)]), np.array([(-7, 2), (4, -9), (0, 0)])]
    svg = ElementTree.fromstring(f'<path d="{path_of(rings)}"/>')
    assert [(ring * 10).tolist() for ring in corners(svg)] == [ring.tolist() for ring in rings]


@pytest.mark.parametrize(("length", "rounded"), [(1.0, 1.0), (1.99, 1.0), (2.0, 2.0), (49.0, 20.0), (0.05, 0.05)])
def test_round_lengths(length, rounded):
    assert round_length(length) == pytest.approx(rounded)
