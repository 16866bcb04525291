"""The class table of a data set: source values, names, colours, and strict decoding of label rasters (numpy only)."""

from __future__ import annotations

import colorsys
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ctrs.errors import ConfigError, LabelError, UnknownColorError

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

    def decode_values(self, values: npt.NDArray[Any], *, nodata: float | None = None, where: str = "label") -> Mask:
        """Turn a class raster into a mask.

        Args:
            values: Integers (any dtype), any shape.
            nodata: A further value that means ignored, unless the table names it as a class.
            where: Name of the raster for messages.

        Returns:
            Mask of the same shape.

        Raises:
            UnknownColorError: Values outside the table, with their counts and first place.
        """
        table = self._indices_by_value()
        if values.dtype.kind == "f":
            exact = np.abs(values) < 2.0**53  # False for NaN
            whole = np.where(exact, values, 0).astype(np.int64)
            known = exact & (whole == values)
        else:
            whole, known = values, np.ones(values.shape, bool)
        if whole.dtype in (np.uint8, np.uint16):  # a look-up is five times faster than a search
            size = np.iinfo(whole.dtype).max + 1
            indices = np.full(size, IGNORE_INDEX, np.uint8)
            named = np.zeros(size, bool)
            for value, index in table.items():
                if 0 <= value < size:
                    indices[value], named[value] = index, True
            mask: Mask = indices[whole]
            known &= named[whole]
        else:
            keys = np.array(sorted(table), dtype=np.int64)
            place = np.searchsorted(keys, whole).clip(0, len(keys) - 1)
            mask = np.array([table[key] for key in keys.tolist()], np.uint8)[place]
            known &= keys[place] == whole
        if nodata is not None:
            empty = (np.isnan(values) if math.isnan(nodata) else values == nodata) & ~known
            mask[empty] = IGNORE_INDEX
            known |= empty
        if not known.all():
            found = ", ".join(str(entry.value) for entry in self.classes)
            raise UnknownColorError(_unknown_message(values[..., None], known, where, "value", f"expected {found}"))
        return mask

    def decode_colors(
        self, rgb: npt.NDArray[np.uint8], *, tolerance: int = 0, where: str = "label"
    ) -> tuple[Mask, int]:
        """Turn a colour-coded label into a mask.

        Args:
            rgb: Array (3, H, W).
            tolerance: Largest difference in each channel at which a colour still counts as its legend colour
                (Potsdam holds 252 for 255). Legend colours must lie further apart than twice that.
            where: Name of the raster for messages.

        Returns:
            Mask (H, W) and the number of pixels whose colour was off by at most ``tolerance``.

        Raises:
            UnknownColorError: Colours outside the table, with their counts and first place.
            LabelError: The array is no RGB image.
        """
        if rgb.ndim != 3 or rgb.shape[0] != 3 or rgb.dtype != np.uint8:
            raise LabelError(
                f"{where}: label of shape {rgb.shape} and dtype {rgb.dtype} found, "
                "expected three bands of uint8 (red, green, blue); class rasters are read with labels = values"
            )
        packed = (rgb[0].astype(np.int32) << 16) | (rgb[1].astype(np.int32) << 8) | rgb[2].astype(np.int32)
        mask = np.zeros(packed.shape, np.uint8)
        known = np.zeros(packed.shape, bool)
        for entry, index in zip(self.classes, self._indices(), strict=True):
            hit = packed == ((entry.color[0] << 16) | (entry.color[1] << 8) | entry.color[2])
            mask[hit] = index
            known |= hit
        changed = 0
        if tolerance and not known.all():
            self._check_tolerance(tolerance)
            rows, cols = np.nonzero(~known)
            pixels = rgb[:, rows, cols].astype(np.int16)
            for entry, index in zip(self.classes, self._indices(), strict=True):
                near = (np.abs(pixels - np.array(entry.color, np.int16)[:, None]) <= tolerance).all(axis=0)
                mask[rows[near], cols[near]] = index
                known[rows[near], cols[near]] = True
                changed += int(near.sum())
        if not known.all():
            legend = "expected the legend's colours: " + ", ".join(
                f"{entry.name} {entry.color}" for entry in self.classes
            )
            raise UnknownColorError(_unknown_message(np.moveaxis(rgb, 0, -1), known, where, "colour", legend))
        return mask, changed

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

    def _indices(self) -> list[int]:
        """Mask value of each row of the table, ignored rows included."""
        indices: list[int] = []
        following = 0
        for entry in self.classes:
            indices.append(IGNORE_INDEX if entry.ignored else following)
            following += not entry.ignored
        return indices

    def _indices_by_value(self) -> dict[int, int]:
        return {entry.value: index for entry, index in zip(self.classes, self._indices(), strict=True)}

    def _check_tolerance(self, tolerance: int) -> None:
        for number, first in enumerate(self.classes):
            for second in self.classes[number + 1 :]:
                if max(abs(a - b) for a, b in zip(first.color, second.color, strict=True)) <= 2 * tolerance:
                    raise ConfigError(
                        f"colour tolerance {tolerance}: {first.name!r} {first.color} and "
                        f"{second.name!r} {second.color} lie too close together; choose a smaller tolerance"
                    )


def _unknown_message(
    pixels: npt.NDArray[Any], known: npt.NDArray[np.bool_], where: str, noun: str, expected: str, *, shown: int = 5
) -> str:
    """Name unknown values with counts and the first place; ``pixels`` is (..., C), ``known`` (...)."""
    rows = pixels[~known]
    if rows.shape[1] == 1:  # one column alone merges equal NaN
        values, counts = np.unique(rows[:, 0], return_counts=True)
        values = values[:, None]
    else:
        values, counts = np.unique(rows, axis=0, return_counts=True)
    order = np.argsort(-counts)[:shown]
    parts = [
        f"{tuple(values[i].tolist()) if values.shape[1] > 1 else values[i, 0].item()} in {int(counts[i])} px"
        for i in order
    ]
    more = f" and {len(values) - shown} more" if len(values) > shown else ""
    first = np.argwhere(~known)[0]
    place = f"row {int(first[0])}, column {int(first[1])}" if len(first) == 2 else f"position {first.tolist()}"
    return (
        f"{where}: unknown label {noun} {', '.join(parts)}{more}, first at {place}; {expected}; "
        f"add the {noun} to the class table or mark it ignored = true there"
    )


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
