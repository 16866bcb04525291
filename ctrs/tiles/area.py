"""An area of interest: ground outside it is no imagery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ctrs.errors import DataError, RasterError
from ctrs.raster.geotiff import Grid
from ctrs.raster.names import shown
from ctrs.tiles.composed_imagery import MaskedImagery
from ctrs.tiles.findings import Findings
from ctrs.tiles.images import SceneImage
from ctrs.tiles.target_grid import place_advice, place_lack
from ctrs.vector.area import area_on, read_area
from ctrs.vector.rasterize import GridPolygons, PolygonLayer

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
    layer = read_area(path)
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
    return area_on(layer, grid)
