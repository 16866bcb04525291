"""Class tables."""

from __future__ import annotations

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
from ctrs.errors import ConfigError

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


def test_indices_skip_ignored_classes():
    assert TOWN.names == ("impervious surface", "building", "clutter")
    assert TOWN.num_classes == 3
    assert TOWN.scored_indices == (0, 1)
    assert TOWN.colors[2] == (255, 0, 0)
    assert TOWN.index("clutter") == 2
    assert TOWN.row_indices == (0, 1, IGNORE_INDEX, 2)
    with pytest.raises(ConfigError, match="class 'boundary' is unknown; expected one of: impervious surface, building"):
        TOWN.index("boundary")


@given(class_maps())
def test_row_indices_are_places_among_the_learnt(classes):
    learnt = [entry.name for entry in classes.classes if not entry.ignored]
    expected = [IGNORE_INDEX if entry.ignored else learnt.index(entry.name) for entry in classes.classes]
    assert list(classes.row_indices) == expected


@given(class_maps())
def test_tables_go_round_through_json(classes):
    assert ClassMap.from_json(classes.to_json()) == classes


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
