"""The class table of a data set: source values, names, colours (numpy only)."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ctrs.errors import ConfigError

IGNORE_INDEX = 255
"""Mask value of nodata and ignored pixels, in files and in tensors."""

MAX_CLASSES = 250

Mask = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class LandClass:
    """One row of a class table.

    Args:
        value: Value of the class in class rasters of the source.
        name: Lower-case name, e.g. ``"low vegetation"``.
        color: Red, green, blue, each 0 to 255: legend colour in colour-coded labels and in outputs.
        scored: False for classes that are learnt but left out of headline scores (ISPRS clutter).
        ignored: True for pixels that are neither learnt nor scored (boundaries, void, unlabelled).
    """

    value: int
    name: str
    color: tuple[int, int, int]
    scored: bool = True
    ignored: bool = False

    def __post_init__(self) -> None:
        if not self.name or self.name != self.name.strip():
            raise ConfigError(
                f"class name {self.name!r}: expected text without surrounding blanks; give each class a name"
            )
        if len(self.color) != 3 or not all(isinstance(c, int) and 0 <= c <= 255 for c in self.color):
            raise ConfigError(f"class {self.name!r}: color {self.color!r} found, expected three integers from 0 to 255")
        object.__setattr__(self, "color", tuple(self.color))


@dataclass(frozen=True, kw_only=True)
class ClassMap:
    """A class table. Masks hold the index of a class among the classes that are not ignored, or ``IGNORE_INDEX``.

    >>> town = ClassMap(classes=(
    ...     LandClass(value=0, name="background", color=(0, 0, 0)),
    ...     LandClass(value=1, name="building", color=(0, 0, 255)),
    ...     LandClass(value=9, name="unlabelled", color=(155, 155, 155), ignored=True),
    ... ))
    >>> town.num_classes, town.names, town.index("building")
    (2, ('background', 'building'), 1)
    """

    classes: tuple[LandClass, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        if not 1 <= len(self.learnt) <= MAX_CLASSES:
            raise ConfigError(f"class table: {len(self.learnt)} classes to learn found, expected 1 to {MAX_CLASSES}")
        for field in ("value", "name", "color"):
            seen: dict[object, str] = {}
            for entry in self.classes:
                key = getattr(entry, field)
                if key in seen:
                    raise ConfigError(
                        f"class table: {field} {key!r} stands for both {seen[key]!r} and {entry.name!r}; make it unique"
                    )
                seen[key] = entry.name

    @property
    def learnt(self) -> tuple[LandClass, ...]:
        """Classes that have an index in masks and a channel in logits, in that order."""
        return tuple(entry for entry in self.classes if not entry.ignored)

    @property
    def num_classes(self) -> int:
        """Number of classes that are learnt."""
        return len(self.learnt)

    @property
    def names(self) -> tuple[str, ...]:
        """Names by class index."""
        return tuple(entry.name for entry in self.learnt)

    @property
    def colors(self) -> tuple[tuple[int, int, int], ...]:
        """Colours by class index."""
        return tuple(entry.color for entry in self.learnt)

    @property
    def row_indices(self) -> tuple[int, ...]:
        """Mask value of each row of the table: the class index, ``IGNORE_INDEX`` for ignored rows."""
        indices: list[int] = []
        following = 0
        for entry in self.classes:
            indices.append(IGNORE_INDEX if entry.ignored else following)
            following += not entry.ignored
        return tuple(indices)

    @property
    def scored_indices(self) -> tuple[int, ...]:
        """Indices of the classes that count in headline scores."""
        return tuple(index for index, entry in enumerate(self.learnt) if entry.scored)

    def index(self, name: str) -> int:
        """Return the mask index of a class.

        Raises:
            ConfigError: No learnt class has this name.
        """
        try:
            return self.names.index(name)
        except ValueError:
            raise ConfigError(f"class {name!r} is unknown; expected one of: {', '.join(self.names)}") from None

    def encode_colors(self, mask: Mask, *, ignored_color: tuple[int, int, int] = (0, 0, 0)) -> npt.NDArray[np.uint8]:
        """Paint a mask (H, W) in the table's colours; returns (3, H, W)."""
        table = np.full((256, 3), ignored_color, np.uint8)
        table[: self.num_classes] = self.colors
        return np.ascontiguousarray(np.moveaxis(table[mask], -1, 0))

    def to_json(self) -> list[dict[str, Any]]:
        """Return a list of plain dicts, one for each class."""
        return [{**asdict(entry), "color": list(entry.color)} for entry in self.classes]

    @classmethod
    def from_json(cls, rows: Iterable[Mapping[str, Any]], *, where: str = "class table") -> ClassMap:
        """Build the table from ``to_json`` output or from the ``[[class]]`` tables of a TOML file.

        Raises:
            ConfigError: A key is missing or unknown, or a value is wrong.
        """
        classes: list[LandClass] = []
        for number, row in enumerate(rows):
            if not isinstance(row, Mapping):
                raise ConfigError(f"{where}: class {number} is {row!r}, expected a table with at least a name")
            unknown = set(row) - {"value", "name", "color", "scored", "ignored"}
            if unknown:
                raise ConfigError(
                    f"{where}: class {number} holds unknown keys {', '.join(sorted(map(str, unknown)))}; "
                    "expected value, name, color, scored, ignored"
                )
            if "name" not in row:
                raise ConfigError(f'{where}: class {number} has no name; add name = "..."')
            name = _typed(row["name"], str, "name", f"{where}: class {number}")
            place = f"{where}: class {name!r}"
            color = row.get("color", default_color(number))
            if isinstance(color, str):
                color = _hex_color(color, place)
            try:
                entry = LandClass(
                    value=_typed(row.get("value", number), int, "value", place),
                    name=name,
                    color=tuple(_typed(color, list | tuple, "color", place)),
                    scored=_typed(row.get("scored", True), bool, "scored", place),
                    ignored=_typed(row.get("ignored", False), bool, "ignored", place),
                )
            except ConfigError as error:
                message = str(error)
                raise ConfigError(message if message.startswith(where) else f"{where}: {message}") from error
            classes.append(entry)
        return cls(classes=tuple(classes))


def _typed(value: Any, kind: Any, key: str, where: str) -> Any:
    """Return the value if it is of the kind; numbers are not taken for flags, nor flags or fractions for integers."""
    if isinstance(value, kind) and isinstance(value, bool) == (kind is bool):
        return value
    names = {str: "text", int: "an integer", bool: "true or false"}
    raise ConfigError(
        f"{where}: {key} = {value!r} found, expected {names.get(kind, 'three integers from 0 to 255 or #RRGGBB')}"
    )


def _hex_color(text: str, where: str) -> tuple[int, int, int]:
    if not re.fullmatch("#?[0-9a-fA-F]{6}", text):
        raise ConfigError(f'{where}: color {text!r} found, expected "#RRGGBB" or three integers from 0 to 255')
    number = int(text.removeprefix("#"), 16)
    return number >> 16, (number >> 8) & 255, number & 255


def load_class_table(path: Path) -> ClassMap:
    """Read ``[[class]]`` tables from a TOML file.

    Raises:
        ConfigError: The file is not TOML, or its class tables are missing or wrong.
    """
    import tomllib

    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable as TOML ({error}); mend the file") from error
    except OSError as error:
        raise ConfigError(f"{path}: not readable ({error.strerror}); check the path") from error
    rows = document.get("class")
    if not isinstance(rows, list) or not rows:
        raise ConfigError(f"{path}: no [[class]] tables found; add one for each class with name, value or color")
    return ClassMap.from_json(rows, where=str(path))


DEFAULT_COLORS: Sequence[tuple[int, int, int]] = (
    (120, 120, 120),
    (214, 39, 40),
    (44, 160, 44),
    (31, 119, 180),
    (255, 187, 51),
    (148, 103, 189),
    (140, 86, 75),
    (23, 190, 207),
    (227, 119, 194),
    (188, 189, 34),
)
"""Colours of the first classes of a table that gives none."""


def default_color(number: int) -> tuple[int, int, int]:
    """Return the colour of a class whose table gives none; distinct for all ``MAX_CLASSES`` numbers.

    >>> default_color(1), default_color(10)
    ((214, 39, 40), (230, 98, 41))
    """
    if number < len(DEFAULT_COLORS):
        return DEFAULT_COLORS[number]
    # Steps of the golden ratio round the colour circle never come back to the same hue.
    step = number - len(DEFAULT_COLORS)
    hue = (0.05 + step * 0.6180339887498949) % 1
    value = (0.9, 0.7, 0.5)[step % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.82, value)
    return round(red * 255), round(green * 255), round(blue * 255)


BUILDING_CLASSES = ClassMap(
    classes=(
        LandClass(value=0, name="background", color=(222, 217, 208)),
        LandClass(value=1, name="building", color=(214, 39, 40)),
    )
)
"""Class table of polygons without a class field and of 0/1 rasters."""
