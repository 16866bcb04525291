"""Class rasters, colour-coded rasters and rasters with a colour table as labels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio

from ctrs.classes import ClassMap
from ctrs.config import LabelKind
from ctrs.errors import GridMismatchError, LabelError
from ctrs.raster.geotiff import Grid, color_bands, crs_name, open_raster, read_window
from ctrs.raster.windows import PixelWindow
from ctrs.tiles.decoding import Coding, Decode, known_positions, label_decoder
from ctrs.tiles.labels import DecodedLabel, ReadLabel
from ctrs.tiles.legends import survey_values

GRID_TOLERANCE_PX = 0.25
"""Largest distance between the corners of an image and its label."""


@dataclass(frozen=True, kw_only=True)
class RasterLabel:
    """A class raster or colour-coded raster.

    Args:
        path: The file.
        classes: Class table.
        coding: Whether bands hold class values, colours, or positions in a colour table.
        tolerance: Largest difference in each channel at which a colour counts as its legend colour.
        nearest: Read each colour as the nearest legend colour.
    """

    path: Path
    classes: ClassMap
    coding: Coding
    tolerance: int = 0
    nearest: bool = False

    @property
    def block_px(self) -> tuple[int, int]:
        """Height and width of the file's blocks."""
        with open_raster(self.path) as dataset:
            height, width = dataset.block_shapes[0]
        return height, width

    @contextmanager
    def reader(self) -> Iterator[ReadLabel]:
        """Give a function that reads and decodes a window of the open file."""
        with open_raster(self.path) as dataset:
            decode = self._decoder(dataset)

            def read(window: PixelWindow) -> DecodedLabel:
                pixels, valid = self._read(dataset, window)
                return decode(pixels, valid)

            yield read

    def _read(
        self, dataset: rasterio.DatasetReader, window: PixelWindow
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Read a window; nodata values stay valid here, because a class may have that value."""
        pixels, valid = read_window(dataset, window, bidx=[1, 2, 3] if self.coding == "colors" else [1])
        if dataset.nodata is not None:
            valid = np.ones_like(valid)
        return pixels, valid

    def _decoder(self, dataset: rasterio.DatasetReader) -> Decode:
        return label_decoder(dataset, self.coding, self.classes, tolerance=self.tolerance, nearest=self.nearest)

    def nodata_class(self) -> str | None:
        """Return the name of the class whose value or colour the file declares to be nodata, None if there is none."""
        with open_raster(self.path) as dataset:
            if dataset.nodata is None or self.coding == "palette":
                return None
            for entry in self.classes.learnt:
                key = {entry.value} if self.coding == "values" else set(entry.color)
                if key == {dataset.nodata}:
                    return entry.name
        return None


def open_raster_label(
    path: Path,
    image: Path,
    image_grid: Grid,
    classes: ClassMap,
    *,
    kind: LabelKind,
    tolerance: int,
    nearest: bool = False,
) -> RasterLabel:
    """Check a raster label against its image and find out how it codes classes.

    Raises:
        GridMismatchError: It has another size, CRS or place.
        LabelError: Its bands cannot be read as a label of the kind asked for.
    """
    with open_raster(path) as dataset:
        _check_grid(path, Grid.of(dataset), image, image_grid)
        bands = len(color_bands(dataset))
        if bands >= 3 and kind != "values":
            if dataset.dtypes[0] != "uint8":
                raise LabelError(
                    f"{path}: colours of dtype {dataset.dtypes[0]} found, expected uint8; convert the label"
                )
            return RasterLabel(path=path, classes=classes, coding="colors", tolerance=tolerance, nearest=nearest)
        if bands != 1 and kind == "values":
            raise LabelError(
                f"{path}: {bands} bands found, expected one with class values; use --label-kind colors or auto"
            )
        if bands not in (1, 2):
            raise LabelError(f"{path}: {bands} bands found, expected one with class values or three with colours")
        if _has_palette(dataset) and kind != "values":
            label = RasterLabel(path=path, classes=classes, coding="palette", tolerance=tolerance, nearest=nearest)
            if kind == "colors" or _palette_is_legend(label, dataset):
                return label
        elif kind == "colors":
            raise LabelError(
                f"{path}: one band without colour table found, expected colours; use --label-kind values or auto"
            )
    return RasterLabel(path=path, classes=classes, coding="values")


def _has_palette(dataset: rasterio.DatasetReader) -> bool:
    try:
        return bool(dataset.colormap(1))
    except ValueError:
        return False


def _palette_is_legend(label: RasterLabel, dataset: rasterio.DatasetReader) -> bool:
    """Tell whether most pixels have colours of the class table; strays then are unknown colours, not class values."""
    known = known_positions(dataset, label.classes, tolerance=label.tolerance)
    if not known.any():
        return False
    counts = survey_values(dataset)
    return sum(number for value, number in counts.items() if known[int(value)]) > sum(counts.values()) / 2


def _check_grid(path: Path, grid: Grid, image: Path, image_grid: Grid) -> None:
    """Refuse a label that is not on its image's grid; one without georeference is if its size is equal."""
    if grid.shape != image_grid.shape:
        raise GridMismatchError(
            f"{path}: {grid.width} x {grid.height} px found, expected the {image_grid.width} x {image_grid.height} px "
            f"of its image {image}; cut or resample the label (nearest) to the image's grid"
        )
    if grid.transform.is_identity or image_grid.transform.is_identity:
        return
    placed = Grid(crs=grid.crs or image_grid.crs, transform=grid.transform, width=grid.width, height=grid.height)
    expected = Grid(
        crs=image_grid.crs or grid.crs, transform=image_grid.transform, width=grid.width, height=grid.height
    )
    difference = expected.difference(placed, tolerance_px=GRID_TOLERANCE_PX)
    if difference:
        raise GridMismatchError(
            f"{path}: does not lie on the grid of its image {image}: {difference} "
            f"(label {_place(grid)}; image {_place(image_grid)}); warp the label (nearest) to the image's grid"
        )


def _place(grid: Grid) -> str:
    a, b, c, d, e, f = tuple(grid.transform)[:6]
    return f"{crs_name(grid.crs)} origin {c:.10g}, {f:.10g} pixel {a:.6g}, {b:.6g}, {d:.6g}, {e:.6g}"
