"""Class tables in the formats that people have: TOML, JSON palettes, colour tables as text."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ctrs.classes import ClassMap, load_class_table
from ctrs.errors import ConfigError

FORMATS = "TOML with [[class]], a JSON palette, or a colour table as text (QGIS, GDAL, CSV with a header)"

_KEYS = {
    "name": ("name", "label", "title", "class", "class_name"),
    "value": ("value", "id", "index", "code", "class_id", "pixel_value"),
    "color": ("color", "colour", "rgb", "hex"),
    "ignored": ("ignored", "ignore"),
    "scored": ("scored",),
    "r": ("r", "red"),
    "g": ("g", "green"),
    "b": ("b", "blue"),
}
"""What a key or column of a class can be called."""

_NAMES = {alias: key for key, aliases in _KEYS.items() for alias in aliases}

_BESIDE = frozenset(
    {"shape", "geometry_config", "geometry_type", "description", "attributes", "type", "hotkey", "alpha"}
)
"""Keys that annotation tools write beside them and that say nothing about pixels."""


def read_class_table(path: Path) -> ClassMap:
    """Read a class table; its format is told by the file's ending and content.

    Names are taken in lower case from all formats but TOML, which is written for us.

    Args:
        path: ``.toml``: ``[[class]]`` tables. ``.json``: ``{"building": [60, 16, 152]}``, ``{"building": {"color":
            "#3C1098", "value": 3, "ignored": false}}``, ``{"3": {"name": "building", "rgb": [60, 16, 152]}}``, or a
            list of such objects, also under ``"classes"``. Anything else is text: lines of ``value R G B [A] [name]``
            (GDAL), of ``value,R,G,B,A,label`` (QGIS), or a CSV table whose first line names its columns.

    Raises:
        ConfigError: It is not readable, or is none of these.
    """
    if path.suffix.lower() == ".toml":
        return load_class_table(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not readable as text ({error}); a class table is {FORMATS}") from error
    except OSError as error:
        raise ConfigError(f"{path}: not readable ({error.strerror}); check the path") from error
    rows = _json_rows(path, text) if path.suffix.lower() == ".json" else _text_rows(path, text)
    if not rows:
        raise ConfigError(f"{path}: no classes found; a class table is {FORMATS}")
    return ClassMap.from_json(rows, where=str(path))


def _json_rows(path: Path, text: str) -> list[dict[str, Any]]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise ConfigError(f"{path}: {twice!r} stands there twice; each class needs a key of its own")
        return table

    try:
        document = json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}: not readable as JSON ({error}); mend the file") from error
    if isinstance(document, Mapping):
        lists = [document[key] for key in ("classes", "class") if isinstance(document.get(key), list)]
        if not lists:
            return [_keyed_row(path, key, value) for key, value in document.items()]
        document = lists[0]
    if not isinstance(document, list):
        raise ConfigError(f"{path}: {type(document).__name__} found, expected an object or a list of classes")
    return [_row(path, f"class {number}", item) for number, item in enumerate(document)]


def _keyed_row(path: Path, key: str, item: Any) -> dict[str, Any]:
    """Return the row of ``"building": ...`` or ``"3": ...``."""
    number = int(key) if re.fullmatch(r"-?\d+", key) else None
    row: dict[str, Any]
    if isinstance(item, Mapping):
        row = _row(path, f"class {key!r}", item)
    elif isinstance(item, list) or (isinstance(item, str) and item.startswith("#")):
        row = {"color": item}
    elif isinstance(item, str) and number is not None:
        row = {"name": item.lower()}
    elif isinstance(item, int) and not isinstance(item, bool) and number is None:
        row = {"value": item}
    else:
        raise ConfigError(
            f'{path}: class {key!r} is {item!r}, expected a colour ([60, 16, 152] or "#3C1098") or an object with one'
        )
    if number is not None:
        row.setdefault("value", number)
        row.setdefault("name", f"class_{number}")
    row.setdefault("name", key.lower())
    return row


def _row(path: Path, where: str, item: Any) -> dict[str, Any]:
    """Return a class under our keys."""
    if not isinstance(item, Mapping):
        raise ConfigError(f"{path}: {where} is {item!r}, expected an object with name and color")
    row: dict[str, Any] = {}
    for key, value in item.items():
        ours = _NAMES.get(str(key).strip().lower(), str(key))
        if ours in row:
            raise ConfigError(f"{path}: {where} says {ours} twice, the second time as {key!r}; leave one")
        if ours not in _BESIDE:
            row[ours] = value
    channels = [row.pop(key) for key in "rgb" if key in row]
    if channels and (len(channels) < 3 or "color" in row):
        raise ConfigError(f"{path}: {where} has {len(channels)} of r, g, b; give these three, or color alone")
    if channels:
        row["color"] = channels
    if isinstance(row.get("name"), str):
        row["name"] = row["name"].strip().lower()
    return row


def _text_rows(path: Path, text: str) -> list[dict[str, Any]]:
    lines = [
        (number, line)
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip() and not line.lstrip().startswith("#") and not line.upper().lstrip().startswith("INTERPOLATION:")
    ]
    if not lines:
        return []
    separator = next((mark for mark in ("\t", ";", ",") if mark in lines[0][1]), None)
    columns = [cell.strip().strip('"').lower() for cell in lines[0][1].split(separator)]
    if _NAMES.keys() & set(columns):
        return _table_rows(path, lines, columns, separator or " ")
    rows = [_plain_row(path, number, line.strip()) for number, line in lines]
    return [row for row in rows if row]


def _table_rows(
    path: Path, lines: Sequence[tuple[int, str]], columns: Sequence[str], separator: str
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    cells_of = csv.reader(io.StringIO("\n".join(line for _, line in lines[1:])), delimiter=separator)
    for (number, _), cells in zip(lines[1:], cells_of, strict=False):
        where = f"line {number}"
        if len(cells) != len(columns):
            raise ConfigError(f"{path}: {where} has {len(cells)} cells, expected the {len(columns)} of its header")
        known = {name: cell.strip() for name, cell in zip(columns, cells, strict=True) if name in _NAMES}
        row = _row(path, where, {name: cell for name, cell in known.items() if cell})
        for key in ("ignored", "scored"):
            if key in row:
                row[key] = _flag(path, where, row[key])
        if "value" in row:
            row["value"] = _whole(path, where, row["value"])
        if "color" in row:
            row["color"] = _color(path, where, row["color"])
        if "name" not in row and "value" in row:
            row["name"] = f"class_{row['value']}"
        rows.append(row)
    return rows


def _plain_row(path: Path, number: int, line: str) -> dict[str, Any]:
    """Return the row of ``value R G B [A] [name]``, separated by commas or blanks; nothing for that of nodata."""
    where = f"line {number}"
    cells = [cell.strip() for cell in (line.split(",", 5) if "," in line else line.split(None, 5))]
    if cells[0].lower() in {"nv", "nan"}:
        return {}
    if len(cells) < 4:
        raise ConfigError(
            f"{path}: {where} is {line!r}, expected value R G B [A] [name], or a first line that names the columns"
        )
    value = _whole(path, where, cells[0])
    rest = cells[4:]
    if rest and re.fullmatch(r"\d+", rest[0]):
        rest = rest[1:]
    name = (", " if "," in line else " ").join(rest).strip().strip('"').lower()
    return {"value": value, "name": name or f"class_{value}", "color": _color(path, where, cells[1:4])}


def _whole(path: Path, where: str, text: str) -> int:
    try:
        value = float(text)
    except ValueError:
        value = 0.5
    if not value.is_integer():
        raise ConfigError(f"{path}: {where}: value {text!r} found, expected a whole number")
    return int(value)


def _color(path: Path, where: str, given: str | Sequence[str]) -> str | list[int]:
    """Return a colour from ``#3C1098``, ``60 16 152`` or ``[60, 16, 152]``, or from three cells."""
    if isinstance(given, str):
        parts = re.sub(r"[\[\](),;]", " ", given).split()
        if len(parts) != 3:
            return given  # the class table says what is wrong with it
        given = parts
    if not all(re.fullmatch(r"\d+(\.0*)?", level) for level in given):
        raise ConfigError(f"{path}: {where}: colour {' '.join(given)!r} found, expected three integers from 0 to 255")
    return [int(float(level)) for level in given]


def _flag(path: Path, where: str, text: str) -> bool:
    flags = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in flags:
        raise ConfigError(f"{path}: {where}: {text!r} found, expected true or false")
    return flags[text.lower()]
