"""An area of interest: ground outside it is no imagery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import shapely

from ctrs.errors import CtrsError, DataError, LabelError, RasterError
from ctrs.raster.geotiff import Grid
from ctrs.raster.names import shown
from ctrs.tiles.composed_imagery import INSIDE, MaskedImagery
from ctrs.tiles.findings import Findings
from ctrs.tiles.images import SceneImage
from ctrs.tiles.target_grid import place_advice, place_lack
from ctrs.vector.rasterize import GridPolygons, PolygonLayer, place_polygons, read_polygons

_SHOWN = 5


def within_area(images: Sequence[SceneImage], path: Path, findings: Findings) -> list[SceneImage]:
    """Return the images that touch an area of interest, valid only within it.

    Args:
        images: Images on the grids of their tiles.
        path: Vector file with the polygons of the area, in any CRS.
        findings: Takes the names of the scenes that lie outside, and the faults of those that have no place.

    Raises:
        DataError: The file holds no polygon or names no CRS, or no scene touches the area.
    """
    try:
        layer = read_polygons(path)
    except LabelError as error:
        raise DataError(f"--aoi: {error}") from error
    if not len(layer.frame):
        raise DataError(f"--aoi: {path}: no polygon found, expected those of the area of interest")
    if layer.frame.crs is None:
        raise DataError(f"--aoi: {path}: no CRS found, so nobody knows where it lies; save it with its CRS")
    inside: list[SceneImage] = []
    outside: list[str] = []
    num_faults = len(findings.faults)
    for image in images:
        with findings.gathering("georeference", scene=image.source.name):
            area = _area_on(layer, image)
            if area is None:
                outside.append(image.source.name)
            else:
                inside.append(replace(image, imagery=MaskedImagery(base=image.imagery, area=area)))
    if outside and not inside and len(findings.faults) == num_faults:
        raise DataError(
            f"--aoi: {path}: its {len(layer.frame)} polygons lie on none of the {len(outside)} scenes; check the CRS "
            "and the place of both"
        )
    if outside:
        more = f" and {len(outside) - _SHOWN} more" if len(outside) > _SHOWN else ""
        findings.note(
            "files",
            f"{len(outside)} of {len(images)} scenes lie outside the area of interest {path} and are left out: "
            f"{', '.join(outside[:_SHOWN])}{more}",
            items=outside,
        )
    return inside


def _area_on(layer: PolygonLayer, image: SceneImage) -> GridPolygons | None:
    """Return the area on the grid of an image, None where it does not touch it."""
    grid: Grid = image.imagery.grid
    if grid.crs is None:
        raise RasterError(
            f"{shown(image.own.path)}: {place_lack(grid)} found, so the area of interest has no place on it; "
            f"{place_advice(grid)}"
        )
    try:
        placed = place_polygons(layer, grid, np.full(len(layer.frame), INSIDE, np.uint8))
    except LabelError as error:
        raise _as_data_error(error) from error
    scene = shapely.box(0, 0, grid.width, grid.height)
    touched = shapely.area(shapely.intersection(placed.shapes, scene)).sum() if len(placed.shapes) else 0.0
    return placed if touched > 0 else None


def _as_data_error(error: CtrsError) -> DataError:
    return DataError(f"--aoi: {error}")
