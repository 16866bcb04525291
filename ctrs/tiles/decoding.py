"""Pixels of a label raster become a mask: by class value, by colour, or through the raster's colour table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import rasterio

from ctrs.classes import IGNORE_INDEX, ClassMap, Mask
from ctrs.errors import UnknownColorError

Coding = Literal["values", "colors", "palette"]
"""Whether bands hold class values, colours, or positions in a colour table."""

Decode = Callable[[npt.NDArray[Any], npt.NDArray[np.bool_]], tuple[Mask, int]]
"""Turns pixels (C, h, w) and their valid mask (h, w) into a mask and the number of pixels read as a near colour."""


def label_decoder(
    dataset: rasterio.DatasetReader, coding: Coding, classes: ClassMap, *, tolerance: int, where: str
) -> Decode:
    """Return the function that decodes the pixels of an open label.

    Args:
        dataset: The label.
        coding: What its bands hold.
        classes: Class table.
        tolerance: Largest difference in each channel at which a colour counts as its legend colour.
        where: Its name for messages.
    """
    if coding == "palette":
        table, near = palette_table(dataset, classes, tolerance=tolerance)

        def from_palette(pixels: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> tuple[Mask, int]:
            found = table[pixels[0]]
            found[~valid] = IGNORE_INDEX
            if (found < 0).any():
                raise UnknownColorError(where)
            return found.astype(np.uint8), int(near[pixels[0]][valid].sum())

        return from_palette
    if coding == "colors":
        filler = np.array(classes.classes[0].color, np.uint8)[:, None]
        nodata_color = _nodata_color(dataset, classes)

        def from_colors(pixels: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> tuple[Mask, int]:
            if nodata_color is not None:
                valid = valid & ~(pixels == nodata_color).all(axis=0)
            if not valid.all():
                pixels[:, ~valid] = filler
            mask, changed = classes.decode_colors(pixels, tolerance=tolerance, where=where)
            mask[~valid] = IGNORE_INDEX
            return mask, changed

        return from_colors

    def from_values(pixels: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> tuple[Mask, int]:
        if not valid.all():
            pixels[0][~valid] = classes.classes[0].value
        mask = classes.decode_values(pixels[0], nodata=dataset.nodata, where=where)
        mask[~valid] = IGNORE_INDEX
        return mask, 0

    return from_values


def _nodata_color(dataset: rasterio.DatasetReader, classes: ClassMap) -> float | None:
    if dataset.nodata is None or any(set(entry.color) == {dataset.nodata} for entry in classes.classes):
        return None
    return float(dataset.nodata)


def palette_table(
    dataset: rasterio.DatasetReader, classes: ClassMap, *, tolerance: int
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.bool_]]:
    """Return the mask value of each position in the colour table (-1 unknown), and which are near, not equal."""
    table, near = np.full(65536, -1, np.int16), np.zeros(65536, bool)
    for position, color in dataset.colormap(1).items():
        try:
            rgb = np.array(color[:3], np.uint8).reshape(3, 1, 1)
            mask, changed = classes.decode_colors(rgb, tolerance=tolerance)
        except UnknownColorError:
            continue
        table[position], near[position] = int(mask[0, 0]), bool(changed)
    if dataset.nodata is not None and 0 <= dataset.nodata < len(table) and table[int(dataset.nodata)] < 0:
        table[int(dataset.nodata)] = IGNORE_INDEX
    return table, near
