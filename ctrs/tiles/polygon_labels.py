"""Polygons as labels: which class each is, painted window by window."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ctrs.classes import IGNORE_INDEX, ClassMap
from ctrs.errors import LabelError, UnknownColorError
from ctrs.tiles.labels import DecodedLabel, ReadLabel
from ctrs.tiles.legends import field_key
from ctrs.vector.rasterize import GridPolygons, PolygonLayer


@dataclass(frozen=True, kw_only=True)
class PolygonLabel:
    """Polygons painted on a background.

    Args:
        polygons: On the scene's grid.
        background: Mask value where no polygon lies.
    """

    polygons: GridPolygons
    background: int

    @property
    def block_px(self) -> tuple[int, int]:
        """Nothing is stored."""
        return 1, 1

    @property
    def sequential(self) -> bool:
        """Any part can be painted by itself."""
        return False

    @contextmanager
    def reader(self) -> Iterator[ReadLabel]:
        """Give a function that paints a window."""
        yield lambda window: DecodedLabel(mask=self.polygons.rasterize(window, background=self.background))


def polygon_values(layer: PolygonLayer, classes: ClassMap, class_field: str | None) -> npt.NDArray[np.uint8]:
    """Return the mask value of each polygon.

    Raises:
        LabelError: There is no class field and the table does not say which class polygons are.
        UnknownColorError: The field holds values outside the class table.
    """
    rows = class_rows(layer, classes, class_field)
    return np.array(classes.row_indices, np.uint8)[rows]


def class_rows(layer: PolygonLayer, classes: ClassMap, class_field: str | None) -> npt.NDArray[np.int64]:
    """Return the number of the class table's row of each polygon; raises as ``polygon_values`` does."""
    if class_field is None:
        for number, entry in enumerate(classes.classes):
            if entry.name.lower() == "building" and not entry.ignored:
                return np.full(len(layer.frame), number, np.int64)
        raise LabelError(
            f"{layer.path}: the class table has no class building, which polygons without class field are; "
            "name the field that holds the class with --class-field"
        )
    keys = [field_key(value) for value in layer.frame[class_field].tolist()]
    table: dict[str, int] = {}
    for number, entry in enumerate(classes.classes):
        table[entry.name.lower()] = number
    for number, entry in enumerate(classes.classes):
        table.setdefault(str(entry.value), number)
    unknown = Counter(key for key in keys if key not in table)
    if unknown:
        found = ", ".join(f"{key!r} in {number} polygons" for key, number in unknown.most_common(5))
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        legend = ", ".join(f"{entry.name} ({entry.value})" for entry in classes.classes)
        first = next(number for number, key in enumerate(keys) if key in unknown)
        raise UnknownColorError(
            f"{layer.path}: unknown label value {found}{more} in field {class_field!r}, first in polygon {first}; "
            f"expected {legend}; add the value to the class table (classes.toml) or mark it ignored = true there"
        )
    return np.array([table[key] for key in keys], np.int64)


def background_value(classes: ClassMap) -> int:
    """Return the mask value of ground without polygons: the class ``background``, or ignored where there is none."""
    return classes.index("background") if "background" in classes.names else IGNORE_INDEX
