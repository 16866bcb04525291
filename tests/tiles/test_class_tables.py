"""Class tables in each format that is read, and what is said of those that are not."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ctrs.classes import ClassMap
from ctrs.errors import ConfigError
from ctrs.tiles.class_tables import read_class_table

WATER, BUILDING = (226, 169, 41), (60, 16, 152)


def table(tmp_path: Path, text: str, name: str = "classes.txt") -> ClassMap:
    (tmp_path / name).write_text(text)
    return read_class_table(tmp_path / name)


def rows(classes: ClassMap) -> list[tuple[int, str, tuple[int, int, int], bool]]:
    return [(entry.value, entry.name, entry.color, entry.ignored) for entry in classes.classes]


@pytest.mark.parametrize(
    "document",
    [
        {"water": WATER, "Building": BUILDING},
        {"water": {"color": "#E2A929"}, "building": {"color": "#3C1098", "value": 1, "ignored": False}},
        {"water": "#E2A929", "building": "#3c1098"},
        {"0": {"name": "water", "rgb": WATER}, "1": {"name": "building", "rgb": BUILDING}},
        [{"name": "water", "color": WATER}, {"name": "building", "color": BUILDING}],
        {"classes": [{"title": "Water", "shape": "polygon", "color": WATER}, {"title": "Building", "color": BUILDING}]},
        [{"label": "water", "id": 0, "r": 226, "g": 169, "b": 41}, {"label": "building", "id": 1, "rgb": BUILDING}],
    ],
)
def test_json_palettes(tmp_path: Path, document: Any) -> None:
    classes = table(tmp_path, json.dumps(document), "palette.json")
    assert rows(classes) == [(0, "water", WATER, False), (1, "building", BUILDING, False)]


def test_json_values_and_flags(tmp_path: Path) -> None:
    text = (
        '{"house": {"colour": [1, 2, 3], "value": -9999}, "void": {"value": 70000, "ignore": true, "hex": "#0000FF"}}'
    )
    assert rows(table(tmp_path, text, "p.json")) == [
        (-9999, "house", (1, 2, 3), False), (70000, "void", (0, 0, 255), True)
    ]  # fmt: skip
    assert [row[:2] for row in rows(table(tmp_path, '{"1": "Road", "4": "field"}', "p.json"))] == [
        (1, "road"), (4, "field")
    ]  # fmt: skip
    assert [row[:2] for row in rows(table(tmp_path, '{"road": 7, "field": 2}', "p.json"))] == [
        (7, "road"),
        (2, "field"),
    ]
    assert rows(table(tmp_path, '{"12": [1, 2, 3]}', "p.json")) == [(12, "class_12", (1, 2, 3), False)]


@pytest.mark.parametrize(
    "text",
    [
        "0 226 169 41 255 Water\n1 60 16 152 255 Building\n",
        "# colours\n0 226 169 41 water\n\n1 60 16 152 building\nnv 0 0 0\n",
        "# QGIS Generated Color Map\nINTERPOLATION:EXACT\n0,226,169,41,255,water\n1,60,16,152,255,building\n",
        "0\t226\t169\t41\t255\twater\n1\t60\t16\t152\t255\tbuilding\n",
        "name,r,g,b\nwater,226,169,41\nbuilding,60,16,152\n",
        "Value;Name;Color\n0;Water;#E2A929\n1;Building;60 16 152\n",
        'value,label,rgb\n0,water,"[226, 169, 41]"\n1,building,"(60,16,152)"\n',
        "\ufeffname\tred\tgreen\tblue\tnotes\nwater\t226\t169\t41\twet\nbuilding\t60\t16\t152\t\n",
    ],
)
def test_text_tables(tmp_path: Path, text: str) -> None:
    expected = [(0, "water", WATER, False), (1, "building", BUILDING, False)]
    assert rows(table(tmp_path, text)) == expected
    assert rows(table(tmp_path, text.replace("\n", "\r\n"), "colours.csv")) == expected


def test_names_with_commas_blanks_and_none(tmp_path: Path) -> None:
    assert rows(table(tmp_path, "3,1,2,3,255,Low vegetation, dry\n4,9,9,9,255,\n")) == [
        (3, "low vegetation, dry", (1, 2, 3), False), (4, "class_4", (9, 9, 9), False)
    ]  # fmt: skip
    assert rows(table(tmp_path, "3 1 2 3 255 Low vegetation\n4.0 9 9 9\n")) == [
        (3, "low vegetation", (1, 2, 3), False), (4, "class_4", (9, 9, 9), False)
    ]  # fmt: skip
    assert rows(table(tmp_path, "name,r,g,b,ignored\na,1,1,1,no\nb,2,2,2,TRUE\n"))[1][3]


def test_toml_is_read_as_ever(tmp_path: Path) -> None:
    assert rows(table(tmp_path, '[[class]]\nname = "House"\ncolor = "#010203"\n', "my.toml")) == [
        (0, "House", (1, 2, 3), False)
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{", r"a\.json: not readable as JSON .*; mend the file"),
        ("a.json", "3", "int found, expected an object or a list of classes"),
        ("a.json", "[3]", "class 0 is 3, expected an object with name and color"),
        ("a.json", "[]", "no classes found; a class table is TOML"),
        ("a.json", '{"a": true}', r"class 'a' is True, expected a colour \(\[60, 16, 152\]"),
        ("a.json", '{"a": [1, 2]}', r"class 'a': color \(1, 2\) found, expected three integers"),
        ("a.json", '{"a": "#12"}', "class 'a': color '#12' found"),
        ("a.json", '{"a": [1, 2, 3], "a": [3, 2, 1]}', "'a' stands there twice"),
        ("a.json", '{"a": [1, 2, 3], "b": [1, 2, 3]}', "stands for both 'a' and 'b'"),
        ("a.json", '{"a": {"color": [1, 2, 3], "ignord": true}}', "holds unknown keys ignord"),
        ("a.json", '[{"name": "a", "label": "b"}]', "class 0 says name twice, the second time as 'label'"),
        ("a.json", '[{"name": "a", "r": 1}]', "class 0 has 1 of r, g, b"),
        ("a.txt", "\n# nothing\n", "no classes found"),
        ("a.txt", "building\n", r"line 1 is 'building', expected value R G B \[A\] \[name\]"),
        ("a.txt", "0 1 2 3\nx 1 2 3\n", "line 2: value 'x' found, expected a whole number"),
        ("a.txt", "0.5 1 2 3\n", "line 1: value '0.5' found"),
        ("a.txt", "0 1 2 x\n", "line 1: colour '1 2 x' found, expected three integers"),
        ("a.txt", "0 1 2 256\n", r"color \(1, 2, 256\) found"),
        ("a.csv", "name,r,g,b\na,1,2\n", "line 2 has 3 cells, expected the 4 of its header"),
        ("a.csv", "name,color\na,red\n", "class 'a': color 'red' found"),
        ("a.csv", "name,ignored\na,perhaps\n", "line 2: 'perhaps' found, expected true or false"),
    ],
)
def test_files_that_do_not_serve(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        table(tmp_path, text, name)
    assert str(tmp_path / name) in str(caught.value) or "class table: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape("none.txt: not readable (No such file or directory)")):
        read_class_table(tmp_path / "none.txt")
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ConfigError, match=r"a\.txt: not readable as text"):
        read_class_table(tmp_path / "a.txt")


def test_real_palettes(real_data: Path) -> None:
    folder = real_data / "dubai_mbrsc_landcover"
    classes = read_class_table(folder / "palette.json")
    assert classes.names == ("water", "land", "road", "building", "vegetation", "unlabeled")
    assert classes.colors[3] == BUILDING
    upstream = read_class_table(folder / "classes_upstream.json")
    assert upstream.names[1] == "land (unpaved area)"
    assert upstream.colors[0] == (0x50, 0xE3, 0xC2)
