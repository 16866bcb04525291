"""Class tables and strict decoding."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrs.classes import (
    BUILDING_CLASSES,
    DEFAULT_COLORS,
    IGNORE_INDEX,
    MAX_CLASSES,
    ClassMap,
    LandClass,
    default_color,
    load_class_table,
)
from ctrs.errors import ConfigError, LabelError, UnknownColorError

TOWN = ClassMap(
    classes=(
        LandClass(value=0, name="impervious surface", color=(255, 255, 255)),
        LandClass(value=3, name="building", color=(0, 0, 255)),
        LandClass(value=7, name="boundary", color=(0, 0, 0), ignored=True),
        LandClass(value=9, name="clutter", color=(255, 0, 0), scored=False),
    )
)

channel = st.integers(0, 255)


@st.composite
def class_maps(draw):
    count = draw(st.integers(1, 8))
    values = draw(st.lists(st.integers(-300, 70_000), min_size=count, max_size=count, unique=True))
    colors = draw(st.lists(st.tuples(channel, channel, channel), min_size=count, max_size=count, unique=True))
    ignored = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    ignored[draw(st.integers(0, count - 1))] = False
    scored = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    return ClassMap(
        classes=tuple(
            LandClass(value=v, name=f"class {i}", color=c, scored=s, ignored=g)
            for i, (v, c, s, g) in enumerate(zip(values, colors, scored, ignored, strict=True))
        )
    )


def naive_index(classes, row):
    """Mask value of a row of the table: its place among the rows that are learnt."""
    entry = classes.classes[row]
    return IGNORE_INDEX if entry.ignored else [e.name for e in classes.classes if not e.ignored].index(entry.name)


def test_indices_skip_ignored_classes():
    assert TOWN.names == ("impervious surface", "building", "clutter")
    assert TOWN.num_classes == 3
    assert TOWN.scored_indices == (0, 1)
    assert TOWN.colors[2] == (255, 0, 0)
    assert TOWN.index("clutter") == 2
    with pytest.raises(ConfigError, match="class 'boundary' is unknown; expected one of: impervious surface, building"):
        TOWN.index("boundary")


@given(class_maps(), st.data())
def test_values_decode_to_their_class(classes, data):
    rows = data.draw(st.lists(st.integers(0, len(classes.classes) - 1), min_size=1, max_size=30))
    values = np.array([classes.classes[row].value for row in rows]).reshape(1, -1)
    expected = [[naive_index(classes, row) for row in rows]]
    dtypes = [d for d in (np.uint8, np.int16, np.uint16, np.int32, np.int64) if (values.astype(d) == values).all()]
    for dtype in (*dtypes, np.float64):
        mask = classes.decode_values(values.astype(dtype))
        assert mask.dtype == np.uint8
        assert mask.tolist() == expected, dtype


@given(class_maps(), st.data())
def test_colors_go_round(classes, data):
    rows = data.draw(st.lists(st.integers(0, len(classes.classes) - 1), min_size=1, max_size=30))
    rgb = np.array([classes.classes[row].color for row in rows], np.uint8).T[:, None]
    mask, changed = classes.decode_colors(rgb)
    assert changed == 0
    assert mask.tolist() == [[naive_index(classes, row) for row in rows]]
    painted = classes.encode_colors(mask, ignored_color=(1, 2, 3))
    learnt = mask != IGNORE_INDEX
    np.testing.assert_array_equal(painted[:, learnt], rgb[:, learnt])
    assert (painted[:, ~learnt] == np.array([[1], [2], [3]])).all()


@given(class_maps())
def test_tables_go_round_through_json(classes):
    assert ClassMap.from_json(classes.to_json()) == classes


def test_unknown_values_are_named_with_counts_and_place():
    values = np.array([[0, 3, 9], [4, 4, 5]], np.uint8)
    message = "potsdam_1: unknown label value 4 in 2 px, 5 in 1 px, first at row 1, column 0; expected 0, 3, 7, 9"
    with pytest.raises(UnknownColorError, match=re.escape(message)):
        TOWN.decode_values(values, where="potsdam_1")
    with pytest.raises(UnknownColorError, match="unknown label value 70000 in 1 px"):
        TOWN.decode_values(np.array([[0, 70_000]], np.int32))
    with pytest.raises(UnknownColorError, match=r"unknown label value 0\.5 in 1 px"):
        TOWN.decode_values(np.array([[0, 0.5]]))
    with pytest.raises(UnknownColorError, match="unknown label value nan in 2 px"):
        TOWN.decode_values(np.array([[np.nan, np.nan, 3.0]]))
    with pytest.raises(UnknownColorError, match="and 3 more"):
        TOWN.decode_values(np.arange(10, 18, dtype=np.uint8)[None])


@pytest.mark.parametrize(
    ("values", "nodata"),
    [
        (np.array([[0, 255]], np.uint8), 255),
        (np.array([[0, -1]], np.int16), -1.0),
        (np.array([[0.0, np.nan]]), float("nan")),
        (np.array([[0.0, -3.4028234663852886e38]]), -3.4028234663852886e38),
        (np.array([[0.0, 0.5]], np.float32), 0.5),
        (np.array([[0, 255]], np.uint16), 255),
    ],
)
def test_nodata_is_ignored(values, nodata):
    assert TOWN.decode_values(values, nodata=nodata).tolist() == [[0, IGNORE_INDEX]]
    with pytest.raises(UnknownColorError):
        TOWN.decode_values(values)


def test_nodata_that_is_a_class_stays_the_class():
    assert TOWN.decode_values(np.array([[0, 3]], np.uint8), nodata=0).tolist() == [[0, 1]]
    assert TOWN.decode_values(np.array([[0, 3]], np.uint8), nodata=float("nan")).tolist() == [[0, 1]]


def test_unknown_colors_are_named_with_counts_and_place():
    rgb = np.zeros((3, 2, 3), np.uint8)
    rgb[:, 1, 1:] = np.array([[252], [255], [10]])
    rgb[:, 0, 2] = 7
    with pytest.raises(UnknownColorError) as caught:
        TOWN.decode_colors(rgb, where="label.tif")
    message = str(caught.value)
    assert message.startswith(
        "label.tif: unknown label colour (252, 255, 10) in 2 px, (7, 7, 7) in 1 px, first at row 0, column 2; "
    )
    assert "building (0, 0, 255)" in message
    assert "\n" not in message


def test_tolerance_counts_what_it_changes():
    rgb = np.array([[252, 255, 0], [255, 255, 3], [253, 255, 255]], np.uint8)[:, None]
    mask, changed = TOWN.decode_colors(rgb, tolerance=4)
    assert (mask.tolist(), changed) == ([[0, 0, 1]], 2)
    with pytest.raises(UnknownColorError, match=r"\(252, 255, 253\) in 1 px"):
        TOWN.decode_colors(rgb, tolerance=2)
    near = ClassMap(
        classes=(LandClass(value=0, name="a", color=(10, 10, 10)), LandClass(value=1, name="b", color=(10, 14, 10)))
    )
    with pytest.raises(ConfigError, match="colour tolerance 2: 'a'"):
        near.decode_colors(np.full((3, 1, 1), 11, np.uint8), tolerance=2)


@pytest.mark.parametrize(
    "label", [np.zeros((4, 2, 2), np.uint8), np.zeros((2, 2), np.uint8), np.zeros((3, 2, 2), np.uint16)]
)
def test_labels_that_are_no_rgb_image_are_refused(label):
    with pytest.raises(LabelError, match=r"scene\.tif: label of shape .* expected three bands of uint8"):
        TOWN.decode_colors(label, where="scene.tif")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"value": 1}, "t.toml: class 0 has no name"),
        ({"name": "a", "colour": [0, 0, 0]}, "t.toml: class 0 holds unknown keys colour; expected value, name, color"),
        ({"name": "a", "color": "#12345"}, "t.toml: class 'a': color '#12345' found"),
        ({"name": "a", "color": "#-12345"}, "t.toml: class 'a': color '#-12345' found"),
        ({"name": "a", "color": "#+12345"}, "t.toml: class 'a': color '#\\+12345' found"),
        ({"name": "a", "color": [0, 0, 256]}, r"t.toml: class 'a': color \(0, 0, 256\) found"),
        ({"name": "a", "color": [0, 0]}, r"t.toml: class 'a': color \(0, 0\) found"),
        ({"name": "a", "color": 5}, "t.toml: class 'a': color = 5 found"),
        ({"name": "a", "value": 1.5}, "t.toml: class 'a': value = 1.5 found, expected an integer"),
        ({"name": "a", "value": "1"}, "t.toml: class 'a': value = '1' found, expected an integer"),
        ({"name": "a", "value": True}, "t.toml: class 'a': value = True found, expected an integer"),
        ({"name": "a", "scored": "false"}, "t.toml: class 'a': scored = 'false' found, expected true or false"),
        ({"name": "a", "ignored": 1}, "t.toml: class 'a': ignored = 1 found, expected true or false"),
        ({"name": 3}, "t.toml: class 0: name = 3 found, expected text"),
        ({"name": " a"}, "t.toml: class name ' a'"),
        (7, "t.toml: class 0 is 7, expected a table"),
    ],
)
def test_wrong_rows_are_named(row, message):
    with pytest.raises(ConfigError, match=message):
        ClassMap.from_json([row], where="t.toml")


def test_rows_need_no_more_than_a_name():
    classes = ClassMap.from_json([{"name": f"class {number}"} for number in range(30)])
    assert [entry.value for entry in classes.classes] == list(range(30))
    assert classes.colors[:10] == tuple(DEFAULT_COLORS)
    assert len({default_color(number) for number in range(MAX_CLASSES)}) == MAX_CLASSES


def test_tables_must_be_unambiguous():
    with pytest.raises(ConfigError, match=r"color .* stands for both 'a' and 'b'"):
        ClassMap.from_json([{"name": "a", "color": [1, 1, 1]}, {"name": "b", "color": "#010101"}])
    with pytest.raises(ConfigError, match="value 0 stands for both"):
        ClassMap.from_json([{"name": "a"}, {"name": "b", "value": 0}])
    with pytest.raises(ConfigError, match="name 'a' stands for both"):
        ClassMap.from_json([{"name": "a"}, {"name": "a"}])
    with pytest.raises(ConfigError, match="0 classes to learn found"):
        ClassMap.from_json([{"name": "a", "ignored": True}])


def test_load_class_table(tmp_path):
    path = tmp_path / "classes.toml"
    path.write_text('[[class]]\nname = "background"\n\n[[class]]\nname = "building"\ncolor = "#D62728"\n')
    assert load_class_table(path).colors[1] == BUILDING_CLASSES.colors[1]
    path.write_text("[[class]\n")
    with pytest.raises(ConfigError, match=r"classes\.toml: not readable as TOML"):
        load_class_table(path)
    path.write_text("class = []\n")
    with pytest.raises(ConfigError, match=r"no \[\[class\]\] tables found"):
        load_class_table(path)
    path.write_text("class = [1]\n")
    with pytest.raises(ConfigError, match="class 0 is 1, expected a table"):
        load_class_table(path)
    with pytest.raises(ConfigError, match=r"none\.toml: not readable \(No such file or directory\)"):
        load_class_table(tmp_path / "none.toml")
