"""From the runs of a mask to a layer: cleaned, outlined, straightened or simplified, measured."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import geopandas
import numpy as np
import numpy.typing as npt
import shapely

from ctrs.classes import IGNORE_INDEX
from ctrs.config import VectorizeConfig
from ctrs.progress import Progress, no_progress
from ctrs.raster.cog import MaskClass
from ctrs.raster.geotiff import Grid
from ctrs.raster.units import geometry_area_m2, geometry_length_m
from ctrs.vector.class_mask import ClassMask
from ctrs.vector.cleaning import RegionGraph, clean, ground_pixel_size
from ctrs.vector.outlines import NO_REGION, trace
from ctrs.vector.polygonize import Geometries, crs_text, place_on_grid
from ctrs.vector.regularize.pixels import PixelRuns
from ctrs.vector.runs import Runs
from ctrs.vector.simplify import simplify_coverage

logger = logging.getLogger(__name__)

DEFAULT_TOLERANCE_PX = 1.5


def draw_polygons(
    source: ClassMask,
    wanted: Sequence[MaskClass],
    config: VectorizeConfig,
    *,
    progress: Progress = no_progress,
) -> geopandas.GeoDataFrame:
    """Return the polygons of a mask as a layer: cleaned, simplified, measured.

    Args:
        source: The mask.
        wanted: Classes to draw; the others count as nothing.
        config: Smallest areas and tolerance.
        progress: Told after each unit of work.
    """
    drawn = np.isin(source.runs.values, [entry.value for entry in wanted])
    runs = source.runs.with_values(np.where(drawn, source.runs.values, np.uint8(IGNORE_INDEX)))
    graph = clean(
        RegionGraph.of(runs, source.grid),
        min_area_m2=config.smallest_polygon_m2,
        min_hole_m2=config.smallest_hole_m2,
        none=IGNORE_INDEX,
        spare_none=len(wanted) == len(source.classes),
    )
    # Along the pixel axes in ground metres: there a tolerance is metres in any CRS.
    scale = ground_pixel_size(source.grid)
    polygons, values = _outline(runs, graph, scale)
    tolerance = DEFAULT_TOLERANCE_PX * float(np.sqrt(scale[0] * scale[1]))
    if config.tolerance_m is not None:
        tolerance = config.tolerance_m
    if config.regularize != "none":
        # Compiled modules load their compiler: nobody else has to wait for it.
        from ctrs.vector.regularize.buildings import regularize_buildings

        straight = regularize_buildings(
            polygons,
            pixel_m=scale,
            tolerance_m=tolerance,
            right_angles_only=config.regularize == "fast",
            pixels=PixelRuns.of(runs, graph, IGNORE_INDEX),
            progress=progress,
        )
        layer = _as_layer(straight.polygons, values[straight.sources], source.grid, scale, wanted)
        layer.insert(4, "method", straight.methods)
        layer.insert(5, "regularization_iou", straight.iou)
        return layer
    simplified = simplify_coverage(polygons, tolerance, progress=progress)
    return _as_layer(simplified, values, source.grid, scale, wanted)


def _outline(runs: Runs, graph: RegionGraph, scale: tuple[float, float]) -> tuple[Geometries, npt.NDArray[np.uint8]]:
    """Trace the regions of a cleaned mask; returns polygons, by first pixel, and their class values."""
    values = graph.classes[graph.members]
    regions = np.where(values == IGNORE_INDEX, np.int32(NO_REGION), graph.members)
    merged = runs.with_values(regions)
    outlines = trace(merged, merged.values, junctions=True)
    return outlines.polygons(scale), graph.classes[outlines.regions]


def _as_layer(
    geometries: Geometries,
    values: npt.NDArray[np.uint8],
    grid: Grid,
    scale: tuple[float, float],
    wanted: Sequence[MaskClass],
) -> geopandas.GeoDataFrame:
    placed = place_on_grid(geometries, grid, scale)
    invalid = int((~shapely.is_valid(placed)).sum())
    if invalid:
        logger.warning("%d polygons are invalid after rounding to coordinates of the CRS", invalid)
    names = np.full(256, "", object)
    for entry in wanted:
        names[entry.value] = entry.name
    series = geopandas.GeoSeries(placed, crs=crs_text(grid))
    return geopandas.GeoDataFrame(
        {
            "id": np.arange(1, len(placed) + 1, dtype=np.int64),
            "class": names[values],
            "area_m2": geometry_area_m2(series),
            "perimeter_m": geometry_length_m(series),
        },
        geometry=series,
    )
