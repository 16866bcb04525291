"""Pixels of a label raster become a mask: by class value, by colour, or through the raster's colour table.

What the class table does not hold becomes 255 and is counted by its text, ``"17"`` or ``"(254, 0, 3)"``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import rasterio

from ctrs.classes import IGNORE_INDEX, ClassMap
from ctrs.errors import LabelError
from ctrs.tiles.color_table import ColorTable, color_table
from ctrs.tiles.labels import DecodedLabel

Coding = Literal["values", "colors", "palette"]
"""Whether bands hold class values, colours, or positions in a colour table."""

Noun = Literal["value", "colour"]

Decode = Callable[[npt.NDArray[Any], npt.NDArray[np.bool_]], DecodedLabel]
"""Turns pixels (C, h, w) and their valid mask (h, w) into a mask; what is not valid is ignored and not counted."""

MAX_UNKNOWN_KINDS = 200
"""Unknown values or colours of a window that are counted by name; rarer ones are counted together."""

_UNKNOWN_MASK = 254
"""Stands for unknown in look-up tables of masks: above all class indices, beside 255."""

_MAX_SPAN = 1 << 20
"""Largest range of class values that is decoded through a look-up table."""

_MAX_WHOLE = 2.0**53
"""Floats from here on are all whole numbers, because they lack the bits for fractions."""


def decode_colors(
    rgb: npt.NDArray[np.uint8],
    classes: ClassMap,
    *,
    valid: npt.NDArray[np.bool_] | None = None,
    tolerance: int = 0,
    nearest: bool = False,
    nodata: float | None = None,
    where: str = "label",
) -> DecodedLabel:
    """Turn a colour-coded label into a mask.

    Args:
        rgb: Array (3, h, w).
        classes: Class table.
        valid: (h, w); what is not valid is ignored and not counted. None: all is.
        tolerance: As in ``color_table``.
        nearest: As in ``color_table``.
        nodata: Level of all three channels that means ignored.
        where: Name of the raster for messages.

    Raises:
        LabelError: The array is no RGB image.
        ConfigError: Legend colours lie too close together for the tolerance.
    """
    if rgb.ndim != 3 or rgb.shape[0] != 3 or rgb.dtype != np.uint8:
        raise LabelError(
            f"{where}: label of shape {rgb.shape} and dtype {rgb.dtype} found, "
            "expected three bands of uint8 (red, green, blue); class rasters are read with --label-kind values"
        )
    table = color_table(classes, tolerance=tolerance, nearest=nearest)
    codes = table.look_up(rgb)
    if valid is not None and not valid.all():
        codes[~valid] = table.ignored
    if nodata is not None:
        codes[(rgb == nodata).all(axis=0)] = table.ignored
    return _decode_codes(table, codes, lambda unknown: _count_colors(rgb[:, unknown]))


def _decode_codes(
    table: ColorTable, codes: npt.NDArray[Any], count_unknown: Callable[[npt.NDArray[np.bool_]], Counter[str]]
) -> DecodedLabel:
    """Return the mask of codes (h, w); ``count_unknown`` is given where the unknown ones are, if there are any."""
    num_changed = int(np.count_nonzero(table.is_near(codes)))
    unknown = codes == table.unknown
    if codes.dtype == np.uint8 and not num_changed and not unknown.any():
        return DecodedLabel(mask=codes)  # codes of legend colours are mask values
    return _label(table.masks[codes], unknown, count_unknown, num_changed=num_changed)


def _count_colors(rgb: npt.NDArray[np.uint8]) -> Counter[str]:
    packed = (rgb[0].astype(np.int32) << 16) | (rgb[1].astype(np.int32) << 8) | rgb[2]
    values, numbers = np.unique(packed, return_counts=True)
    return _by_text(values, numbers, lambda value: str((int(value) >> 16, int(value) >> 8 & 255, int(value) & 255)))


def _by_text(values: npt.NDArray[Any], numbers: npt.NDArray[np.int64], text: Callable[[Any], str]) -> Counter[str]:
    """Count by text; the rarest of too many kinds are counted together."""
    order = np.argsort(-numbers, kind="stable")
    counts = Counter[str]()
    for place in order[:MAX_UNKNOWN_KINDS].tolist():
        counts[text(values[place])] += int(numbers[place])
    if len(order) > MAX_UNKNOWN_KINDS:
        counts["others"] += int(numbers[order[MAX_UNKNOWN_KINDS:]].sum())
    return counts


def _label(
    mask: npt.NDArray[np.uint8],
    unknown: npt.NDArray[np.bool_],
    count_unknown: Callable[[npt.NDArray[np.bool_]], Counter[str]],
    *,
    num_changed: int = 0,
) -> DecodedLabel:
    if not unknown.any():
        return DecodedLabel(mask=mask, num_changed=num_changed)
    row, col = divmod(int(unknown.argmax()), unknown.shape[1])
    return DecodedLabel(mask=mask, num_changed=num_changed, unknown=count_unknown(unknown), first_unknown=(row, col))


def decode_values(
    values: npt.NDArray[Any],
    classes: ClassMap,
    *,
    valid: npt.NDArray[np.bool_] | None = None,
    nodata: float | None = None,
) -> DecodedLabel:
    """Turn a class raster into a mask.

    Args:
        values: Whole numbers (h, w) of any dtype.
        classes: Class table.
        valid: (h, w); what is not valid is ignored and not counted. None: all is.
        nodata: A further value that means ignored, unless the table names it as a class.
    """
    mask = _small_values(values, classes) if values.dtype.itemsize <= 2 else _large_values(values, classes)
    if valid is not None and not valid.all():
        mask[~valid] = IGNORE_INDEX
    unknown = mask == _UNKNOWN_MASK
    if not unknown.any():
        return DecodedLabel(mask=mask)
    if nodata is not None:
        unknown &= ~np.isnan(values) if math.isnan(nodata) else values != nodata
    mask[mask == _UNKNOWN_MASK] = IGNORE_INDEX
    return _label(mask, unknown, lambda unknown: _count_values(values[unknown]))


def _small_values(values: npt.NDArray[Any], classes: ClassMap) -> npt.NDArray[np.uint8]:
    """Look integers of 8 and 16 bit up; negative ones under the bits that they have in common with great ones."""
    if values.dtype.kind == "f":
        return _large_values(values.astype(np.float32), classes)
    unsigned = np.dtype(f"u{values.dtype.itemsize}")
    limits = np.iinfo(values.dtype) if values.dtype.kind != "b" else np.iinfo(np.uint8)
    table = np.full(int(np.iinfo(unsigned).max) + 1, _UNKNOWN_MASK, np.uint8)
    for entry, index in zip(classes.classes, classes.row_indices, strict=True):
        if limits.min <= entry.value <= limits.max:
            table[entry.value % len(table)] = index
    return table.take(values.view(unsigned), mode="clip")


def _large_values(values: npt.NDArray[Any], classes: ClassMap) -> npt.NDArray[np.uint8]:
    """Look numbers of other dtypes up within the range of the class values, or search them where that is wide."""
    if values.dtype.kind == "f":
        exact = np.abs(values) < _MAX_WHOLE  # False for NaN
        whole = np.where(exact, values, 0).astype(np.int64)
        exact &= whole == values
    else:
        exact = values <= np.iinfo(np.int64).max
        whole = values.astype(np.int64)
    table = dict(zip((entry.value for entry in classes.classes), classes.row_indices, strict=True))
    keys = np.array(sorted(table), np.int64)
    indices = np.array([table[key] for key in keys.tolist()], np.uint8)
    first, span = int(keys[0]), int(keys[-1]) - int(keys[0]) + 1
    if span <= _MAX_SPAN:
        dense = np.full(span + 2, _UNKNOWN_MASK, np.uint8)  # one more on either side for all that is beyond
        dense[keys - first + 1] = indices
        mask = dense.take(whole.clip(first - 1, first + span) - (first - 1))
    else:
        place = np.searchsorted(keys, whole).clip(0, len(keys) - 1)
        mask = np.where(keys[place] == whole, indices[place], np.uint8(_UNKNOWN_MASK))
    mask[~exact] = _UNKNOWN_MASK
    return mask


def _count_values(values: npt.NDArray[Any]) -> Counter[str]:
    kinds, numbers = np.unique(values, return_counts=True)
    return _by_text(kinds, numbers, _value_text)


def _value_text(value: Any) -> str:
    whole = isinstance(value, np.floating) and abs(value) < _MAX_WHOLE and float(value).is_integer()
    return str(int(value) if whole else value)


def label_decoder(
    dataset: rasterio.DatasetReader, coding: Coding, classes: ClassMap, *, tolerance: int, nearest: bool = False
) -> Decode:
    """Return the function that decodes the pixels of an open label.

    Args:
        dataset: The label.
        coding: What its bands hold.
        classes: Class table.
        tolerance: As in ``color_table``.
        nearest: As in ``color_table``.
    """
    if coding == "palette":
        return _palette_decoder(dataset, classes, tolerance=tolerance, nearest=nearest)
    if coding == "colors":
        nodata, where = _nodata_color(dataset, classes), str(dataset.name)
        return lambda pixels, valid: decode_colors(
            pixels, classes, valid=valid, tolerance=tolerance, nearest=nearest, nodata=nodata, where=where
        )
    return lambda pixels, valid: decode_values(pixels[0], classes, valid=valid, nodata=dataset.nodata)


def _nodata_color(dataset: rasterio.DatasetReader, classes: ClassMap) -> float | None:
    if dataset.nodata is None or any(set(entry.color) == {dataset.nodata} for entry in classes.classes):
        return None
    return float(dataset.nodata)


def _palette_decoder(dataset: rasterio.DatasetReader, classes: ClassMap, *, tolerance: int, nearest: bool) -> Decode:
    table = color_table(classes, tolerance=tolerance, nearest=nearest)
    colors = {position: tuple(color[:3]) for position, color in dataset.colormap(1).items()}
    codes = np.full(65536, table.unknown, table.codes.dtype)
    codes[list(colors)] = table.look_up(np.array(list(colors.values()), np.uint8).T[:, None])[0]
    if dataset.nodata is not None and 0 <= dataset.nodata < len(codes):
        position = int(dataset.nodata)
        if colors.get(position) not in {entry.color for entry in classes.classes}:
            codes[position] = table.ignored

    def count(positions: npt.NDArray[Any]) -> Counter[str]:
        kinds, numbers = np.unique(positions, return_counts=True)
        return _by_text(kinds, numbers, lambda kind: str(colors.get(int(kind), f"position {kind} without a colour")))

    def from_palette(pixels: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> DecodedLabel:
        found = codes.take(pixels[0], mode="clip")
        if not valid.all():
            found[~valid] = table.ignored
        return _decode_codes(table, found, lambda unknown: count(pixels[0][unknown]))

    return from_palette


def known_positions(dataset: rasterio.DatasetReader, classes: ClassMap, *, tolerance: int) -> npt.NDArray[np.bool_]:
    """Return which positions (65536) of a colour table have a colour of the class table, or are nodata."""
    table = color_table(classes, tolerance=tolerance)
    known = np.zeros(65536, bool)
    for position, color in dataset.colormap(1).items():
        red, green, blue = color[:3]
        known[position] = table.codes[red << 16 | green << 8 | blue] != table.unknown
    if dataset.nodata is not None and 0 <= dataset.nodata < len(known):
        known[int(dataset.nodata)] = True
    return known


def unknown_noun(counts: Mapping[str, int]) -> Noun:
    """Return whether what is counted are colours or values.

    >>> unknown_noun({"(254, 0, 3)": 2}), unknown_noun({"17": 1})
    ('colour', 'value')
    """
    return "colour" if any(text.startswith(("(", "position")) for text in counts) else "value"


def unknown_message(
    path: Path | str,
    noun: Noun,
    counts: Mapping[str, int],
    first: tuple[int, int] | None,
    classes: ClassMap,
    *,
    options: bool = True,
    shown: int = 5,
) -> str:
    """Say what a label holds that the class table does not.

    Args:
        path: The label.
        noun: What the counts are of; ``unknown_noun`` tells it.
        counts: Pixels by text.
        first: Row and column of the first of them.
        classes: Class table.
        options: Name the options of ``ctrs prepare`` that help.
        shown: Most kinds to name.
    """
    ranked = sorted(counts.items(), key=lambda item: (item[0] == "others", -item[1]))
    found = ", ".join(f"{text} in {number} px" for text, number in ranked[:shown])
    more = f" and {len(ranked) - shown} more" if len(ranked) > shown else ""
    place = f", first at row {first[0]}, column {first[1]}" if first is not None else ""
    legend = ", ".join(f"{row.name} {row.value if noun == 'value' else row.color}" for row in classes.classes)
    remedies = [f"add the {noun} to the class table (classes.toml) or mark it ignored = true there"]
    if options and noun == "colour":
        remedies.append("read lossy or anti-aliased colours as the nearest of the legend with --nearest-color")
    if options:
        remedies.append("ignore such pixels up to a share of the label with --max-unknown SHARE")
    return f"{path}: unknown label {noun} {found}{more}{place}; expected {legend}; {', or '.join(remedies)}"
