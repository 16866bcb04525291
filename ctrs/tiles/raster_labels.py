"""Class rasters, colour-coded rasters and rasters with a colour table as labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio

from ctrs.classes import ClassMap
from ctrs.config import LabelKind
from ctrs.errors import GridMismatchError, LabelError
from ctrs.raster.geotiff import (
    SEQUENTIAL_DRIVERS,
    Grid,
    check_end,
    color_bands,
    crs_name,
    open_raster,
    read_window,
)
from ctrs.raster.locate import locate
from ctrs.raster.names import in_archive
from ctrs.raster.warp import GridWarp
from ctrs.raster.windows import PixelWindow
from ctrs.tiles.decoding import Coding, Decode, known_positions, label_decoder
from ctrs.tiles.labels import DecodedLabel, ReadLabel
from ctrs.tiles.legends import survey_values

GRID_TOLERANCE_PX = 0.25
"""Largest distance between the corners of an image and its label."""

ReadSource = Callable[[PixelWindow, npt.NDArray[np.bool_] | None], DecodedLabel]
"""Decodes a window of a label on its own grid; pixels that are False in (h, w) are ignored and not counted."""


@dataclass(frozen=True, kw_only=True)
class RasterLabel:
    """A class raster or colour-coded raster.

    Args:
        path: The file.
        classes: Class table.
        coding: Whether bands hold class values, colours, or positions in a colour table.
        tolerance: Largest difference in each channel at which a colour counts as its legend colour.
        nearest: Read each colour as the nearest legend colour.
        band: The band that holds class values.
        warp: From the pixels of the tiles' grid to the file's; None where they are the same. Pixels are taken as they
            are (nearest), never mixed; what lies outside the file is ignored.
    """

    path: Path
    classes: ClassMap
    coding: Coding
    tolerance: int = 0
    nearest: bool = False
    band: int = 1
    warp: GridWarp | None = None

    @property
    def block_px(self) -> tuple[int, int]:
        """Height and width of the file's blocks."""
        return (1, 1) if self.warp is not None else self._storage[0]

    @property
    def sequential(self) -> bool:
        """Whether the file can only be read well from its beginning."""
        return self._storage[1]

    @cached_property
    def _storage(self) -> tuple[tuple[int, int], bool]:
        """Blocks of the file, and whether it can only be read well from its beginning; opens it once for both."""
        with open_raster(self.path) as dataset:
            height, width = dataset.block_shapes[0]
            return (height, width), dataset.driver in SEQUENTIAL_DRIVERS or in_archive(self.path)

    @contextmanager
    def reader(self) -> Iterator[ReadLabel]:
        """Give a function that reads and decodes a window of the open file."""
        with open_raster(self.path) as dataset:
            decode = self._decoder(dataset)

            def read(window: PixelWindow) -> DecodedLabel:
                pixels, valid = self._read(dataset, window)
                return decode(pixels, valid)

            yield read

    @contextmanager
    def source_reader(self) -> Iterator[ReadSource]:
        """Give a function that decodes a window of the file on its own grid, where it is told to."""
        with open_raster(self.path) as dataset:
            decode = self._decoder(dataset)

            def read(window: PixelWindow, where: npt.NDArray[np.bool_] | None) -> DecodedLabel:
                pixels, valid = self._stored(dataset, window)
                return decode(pixels, valid if where is None else valid & where)

            yield read

    def _read(
        self, dataset: rasterio.DatasetReader, window: PixelWindow
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Read a window of the tiles' grid."""
        if self.warp is None:
            return self._stored(dataset, window)
        count, dtype = 3 if self.coding == "colors" else 1, np.dtype(dataset.dtypes[0])
        read = partial(self._stored, dataset)
        return self.warp.read(window, read, method="nearest", count=count, dtype=dtype)

    def _stored(
        self, dataset: rasterio.DatasetReader, window: PixelWindow
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Read a window of the file; nodata values stay valid here, because a class may have that value."""
        pixels, valid = read_window(dataset, window, bidx=[1, 2, 3] if self.coding == "colors" else [self.band])
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
    band: int | None = None,
) -> RasterLabel:
    """Check a raster label against its image and find out how it codes classes.

    Args:
        path: The file.
        image: Its image.
        image_grid: The image's grid.
        classes: Class table.
        kind: How it is to be read.
        tolerance: Largest difference in each channel at which a colour counts as its legend colour.
        nearest: Read each colour as the nearest legend colour.
        band: Read class values from this band, however many there are.

    Raises:
        GridMismatchError: It has another size, CRS or place.
        LabelError: Its bands cannot be read as a label of the kind asked for.
    """
    with open_raster(path) as dataset:
        _check_grid(path, Grid.of(dataset), image, image_grid)
        check_end(dataset)
        bands = len(color_bands(dataset))
        if band is not None:
            if band > dataset.count:
                raise LabelError(f"{path}: {dataset.count} bands found, expected class values in band {band}")
            return RasterLabel(path=path, classes=classes, coding="values", band=band)
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


def label_grid(path: Path, image: Path, image_grid: Grid, target: Grid) -> tuple[Grid, float]:
    """Find the grid that a raster label is brought to the tiles' grid from.

    Args:
        path: The label.
        image: Its image.
        image_grid: The image's own grid.
        target: Grid of the tiles.

    Returns:
        The image's grid for a label that lies on it, else the label's own; and the share of the image that it covers.

    Raises:
        GridMismatchError: It has no georeference and another size than its image, or lies elsewhere.
    """
    with open_raster(path) as dataset:
        grid = Grid.of(dataset)
    if not grid.transform.is_identity and grid.ground_control is None and not image_grid.transform.is_identity:
        grid = replace(grid, crs=grid.crs or image_grid.crs)
        if not image_grid.same_as(grid, tolerance_px=GRID_TOLERANCE_PX):
            share = _share_covered(grid, image_grid, target)
            if not share:
                raise GridMismatchError(
                    f"{path}: lies elsewhere than its image {image} (label {_place(grid)}; image "
                    f"{_place(image_grid)}); check the CRS and place of both"
                )
            return grid, share
    _check_grid(path, grid, image, image_grid)
    return image_grid, 1.0


def _share_covered(grid: Grid, image_grid: Grid, target: Grid, *, points: int = 65) -> float:
    """Return the share of an image that lies on another grid, by places spread over the tiles' grid."""
    along = (np.arange(points) + 0.5) / points
    cols, rows = np.meshgrid(along * target.width, along * target.height)

    def inside(source: Grid) -> npt.NDArray[np.bool_]:
        found_cols, found_rows = locate(source, target, cols, rows)
        return (found_cols >= 0) & (found_rows >= 0) & (found_cols <= source.width) & (found_rows <= source.height)

    pictured = inside(image_grid)
    return float((inside(grid) & pictured).sum() / max(1, pictured.sum()))


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
