"""From a block of a mask to polygons: cleaned, outlined, straightened or simplified, measured.

A block holds whole objects, so that what is drawn of one depends on no other block. Each step may look at what lies
within ``INFLUENCE_M`` of an object, and no farther.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import shapely

from ctrs.classes import IGNORE_INDEX
from ctrs.config import VectorizeConfig
from ctrs.config.vectorize import BUILDING
from ctrs.progress import Progress, no_progress
from ctrs.raster.cog import MaskClass
from ctrs.raster.geotiff import Grid
from ctrs.raster.units import Ruler
from ctrs.vector.coverage.joining import join_coverage
from ctrs.vector.coverage.simplify import simplify_coverage
from ctrs.vector.layers.columns import all_columns, orientation_deg
from ctrs.vector.layers.part import Columns, LayerPart
from ctrs.vector.layers.placing import place_valid
from ctrs.vector.polygonize import Geometries, crs_text, first_members
from ctrs.vector.regions.blocks import Block
from ctrs.vector.regions.class_mask import ClassMask
from ctrs.vector.regions.cleaning import RegionGraph, clean, ground_pixel_size
from ctrs.vector.regions.instances import fill_between, numbers_of
from ctrs.vector.regions.morphology import open_and_close
from ctrs.vector.regions.outlines import NO_REGION, trace
from ctrs.vector.regions.probabilities import ClassProbabilities
from ctrs.vector.regions.refining import refine_regions
from ctrs.vector.regions.runs import IntArray, Runs
from ctrs.vector.regularize.pixels import PixelRuns
from ctrs.vector.regularize.shared_directions import REACH_M
from ctrs.vector.straying import measure_straying_in_memory

if TYPE_CHECKING:
    import geopandas

DEFAULT_TOLERANCE_PX = 1.5

INFLUENCE_M = 3.0
"""Least distance in ground metres within which objects are drawn together: the walls of either may move by a metre."""


def draw_block(
    block: Block,
    wanted: Sequence[MaskClass],
    config: VectorizeConfig,
    *,
    all_wanted: bool = False,
    probabilities: ClassProbabilities | None = None,
    model: str | None = None,
    straying_m: float = 0.0,
    jobs: int | None = None,
    progress: Progress = no_progress,
) -> LayerPart:
    """Draw the objects of a block.

    Args:
        block: Whole objects.
        wanted: Classes to draw.
        config: How.
        all_wanted: The mask has no other classes, so that what is drawn covers it without gaps.
        probabilities: Of the mask's classes, for parting buildings where they dip, for outlines between pixels and for
            ``confidence``.
        model: Id of the model that predicted the mask.
        straying_m: How far the outlines of the mask's buildings stray from straight walls; 0: not known.
        jobs: Threads; None: as many as there are cores.
        progress: Told after each unit of work.

    Returns:
        Polygons in the order of their first pixels.
    """
    runs, grid = block.runs, block.grid
    graph = RegionGraph.of(runs, grid, row_off=block.row_off, connectivity=config.connectivity)
    if config.instances:
        graph = fill_between(graph, min_hole_m2=config.smallest_hole_m2, none=IGNORE_INDEX)
    graph = clean(
        graph,
        min_area_m2=config.smallest_polygon_m2,
        min_hole_m2=config.smallest_hole_m2,
        none=IGNORE_INDEX,
        spare_none=all_wanted,
    )
    if config.connectivity == 8:
        # Outlines are those of parts that share sides; what touches at corners is joined afterwards.
        graph = RegionGraph.of(replace(runs, values=graph.classes[graph.members]), grid, row_off=block.row_off)
    # Along the pixel axes in ground metres: there a tolerance is metres in any CRS.
    scale = ground_pixel_size(grid)
    tolerance = tolerance_m(config, grid)
    parted = _parted(block, graph, scale, config, wanted, probabilities)
    classes = np.full(len(parted.values), wanted[0].value) if config.instances else parted.values
    # Neighbours are divided along the pixels that both have: between pixels they would part at junctions.
    alone = config.split == "none" and not config.instances
    between_pixels = alone and (config.regularize != "none" or tolerance > 0)
    outlined = _outline(block, parted, scale, classes, probabilities, between_pixels=between_pixels)
    if config.instances:
        values = np.full(len(outlined.values), wanted[0].value, np.uint8)
        outlined = replace(outlined, values=values, numbers=numbers_of(outlined.values))
    columns: Columns = {"model": np.array([model], object)}
    is_building = _is_building(wanted)[outlined.values]
    if config.regularize != "none":
        # Compiled modules load their compiler: nobody else has to wait for it.
        from ctrs.vector.regularize.buildings import regularize_buildings
        from ctrs.vector.regularize.neighbors import regularize_neighbors

        straight = (regularize_buildings if alone else regularize_neighbors)(
            outlined.polygons[is_building],
            pixel_m=scale,
            tolerance_m=tolerance,
            right_angles_only=config.regularize == "fast",
            pixels=None if config.instances else _pixels(block, graph, wanted, outlined.regions[is_building]),
            straying_m=straying_m,
            min_area_m2=config.smallest_polygon_m2,
            jobs=jobs,
            progress=progress,
        )
        columns |= {
            "method": straight.methods,
            "regularization_iou": straight.iou,
            "orientation_deg": orientation_deg(straight.polygons, straight.methods, grid),
        }
        if not _others(wanted):
            outlined = outlined.replaced(straight.polygons, straight.sources)
            return _as_part(outlined, columns, grid, scale, wanted)
    simplified = simplify_coverage(
        outlined.polygons,
        tolerance,
        smooth=config.smooth_m if _others(wanted) else 0.0,
        straight=is_building,
        frame=(0.0, 0.0, grid.width * scale[0], grid.height * scale[1]) if _others(wanted) else None,
        whole=all_wanted,
        progress=progress,
    )
    if config.regularize == "none":
        outlined = outlined.replaced(simplified)
        if config.connectivity == 8:
            outlined = _joined_at_corners(outlined, block, graph)
        return _as_part(outlined, columns, grid, scale, wanted)
    joined = join_coverage(
        simplified,
        is_building,
        straight.polygons,
        np.flatnonzero(is_building)[straight.sources],
        pixel_m=scale,
        frame_px=(grid.width, grid.height),
        min_area_m2=config.smallest_polygon_m2,
        whole=all_wanted,
    )
    # The entry past the last stands for polygons that are no buildings.
    columns |= {
        "method": np.append(straight.methods, np.array(["outline"], object))[joined.walls],
        "regularization_iou": np.append(straight.iou, np.nan)[joined.walls],
        "orientation_deg": np.append(columns["orientation_deg"], np.nan)[joined.walls],
    }
    return _as_part(outlined.replaced(joined.polygons, joined.sources), columns, grid, scale, wanted)


def _is_building(wanted: Sequence[MaskClass]) -> npt.NDArray[np.bool_]:
    """Return for each of the 256 values whether it is the class whose walls are straight."""
    found = np.zeros(256, bool)
    found[[entry.value for entry in wanted if entry.name == BUILDING]] = True
    return found


def _others(wanted: Sequence[MaskClass]) -> bool:
    return any(entry.name != BUILDING for entry in wanted)


def _pixels(block: Block, graph: RegionGraph, wanted: Sequence[MaskClass], regions: IntArray) -> PixelRuns:
    """Return the pixels of buildings alone, by the region that each comes from; of those that were parted none."""
    is_building = _is_building(wanted)

    def alone(values: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        return np.where(is_building[values], values, np.uint8(IGNORE_INDEX))

    runs = replace(block.runs, values=alone(block.runs.values))
    buildings = replace(graph, classes=alone(graph.classes))
    found = PixelRuns.of(runs, buildings, IGNORE_INDEX, row_off=block.row_off)
    if len(np.unique(regions)) == len(regions):
        return found
    rank = np.cumsum(buildings.classes != IGNORE_INDEX) - 1
    return found.take(np.where(np.bincount(regions)[regions] == 1, rank[regions], -1))


def draw_polygons(
    source: ClassMask,
    wanted: Sequence[MaskClass],
    config: VectorizeConfig,
    *,
    progress: Progress = no_progress,
) -> geopandas.GeoDataFrame:
    """Return the polygons of a mask in memory as a layer, drawn as one block.

    Args:
        source: The mask.
        wanted: Classes to draw; the others count as nothing.
        config: Smallest areas and tolerance.
        progress: Told after each unit of work.
    """
    import geopandas

    drawn = np.isin(np.arange(256), [entry.value for entry in wanted])
    (runs,) = open_and_close([source.runs], source.grid, drawn, opening_m=config.opening_m, closing_m=config.closing_m)
    runs = runs.with_values(np.where(drawn[runs.values], runs.values, np.uint8(IGNORE_INDEX)))
    all_wanted = len(wanted) == len(source.classes)
    block = Block.of_mask(runs, source.grid)
    straying_m = measure_straying_in_memory(source, wanted, config)
    part = draw_block(
        block, wanted, config, all_wanted=all_wanted, straying_m=straying_m, jobs=config.jobs, progress=progress
    )
    ids = np.arange(1, len(part) + 1, dtype=np.int64)
    return geopandas.GeoDataFrame({"id": ids, **part.columns}, geometry=part.polygons, crs=crs_text(source.grid))


def reach_m(config: VectorizeConfig, grid: Grid) -> float:
    """Return the distance in ground metres within which polygons may have a say in how a polygon is drawn."""
    reach = max(INFLUENCE_M, 2 * tolerance_m(config, grid) + config.closing_m + config.smooth_m)
    if config.regularize == "none":
        return reach
    # Outlines between pixels lie up to half a pixel beside them, on both sides of a gap.
    return max(reach, REACH_M + max(ground_pixel_size(grid)))


def tolerance_m(config: VectorizeConfig, grid: Grid) -> float:
    """Return the tolerance of simplification in ground metres."""
    if config.tolerance_m is not None:
        return config.tolerance_m
    width, height = ground_pixel_size(grid)
    return DEFAULT_TOLERANCE_PX * float(np.sqrt(width * height))


@dataclass(frozen=True)
class _Outlined:
    """Polygons in ground metres along the pixel axes of the mask, and what is known of each."""

    polygons: Geometries
    values: npt.NDArray[Any]
    firsts: IntArray
    regions: IntArray
    confidence: npt.NDArray[np.float64]
    numbers: IntArray | None = None

    def replaced(self, polygons: Geometries, sources: IntArray | None = None) -> _Outlined:
        """Return other polygons in the place of these; ``sources`` says which of these each comes from."""
        if sources is None:
            return replace(self, polygons=polygons)
        return _Outlined(
            polygons,
            self.values[sources],
            self.firsts[sources],
            self.regions[sources],
            self.confidence[sources],
            None if self.numbers is None else self.numbers[sources],
        )


@dataclass(frozen=True)
class _Parted:
    """Regions of a cleaned block as runs, the region before parting of each, and its value."""

    runs: Runs
    sources: IntArray
    values: npt.NDArray[Any]


def _parted(
    block: Block,
    graph: RegionGraph,
    scale: tuple[float, float],
    config: VectorizeConfig,
    wanted: Sequence[MaskClass],
    probabilities: ClassProbabilities | None,
) -> _Parted:
    """Return the regions of a cleaned block, buildings parted where that is asked for."""
    none = graph.classes == IGNORE_INDEX
    regions = np.where(none[graph.members], np.int32(NO_REGION), graph.members)
    merged = block.runs.with_values(regions)
    buildings = [entry.value for entry in wanted if entry.name == BUILDING]
    if config.split == "none" or not buildings or config.instances:
        return _Parted(merged, np.arange(graph.count), graph.classes)
    # A compiled module, as below.
    from ctrs.vector.regions.splitting import probability_of, split_regions

    split = split_regions(
        merged,
        method=config.split,
        width_m=config.neck_m,
        pixel_m=scale,
        min_area_m2=config.smallest_polygon_m2,
        chosen=graph.classes == buildings[0],
        probability=None if probabilities is None else probability_of(probabilities, buildings[0], block.window),
    )
    return _Parted(split.runs, split.sources, graph.classes[split.sources])


def _outline(
    block: Block,
    parted: _Parted,
    scale: tuple[float, float],
    classes: npt.NDArray[Any],
    probabilities: ClassProbabilities | None,
    *,
    between_pixels: bool,
) -> _Outlined:
    """Trace the regions of a block; ``classes`` holds the mask value of the class of each."""
    runs = parted.runs
    outlines = trace(runs, runs.values, junctions=True)
    firsts = runs.firsts[first_members(runs.values)[outlines.regions]] + block.row_off * runs.width
    polygons, confidence = refine_regions(
        outlines,
        runs,
        classes,
        probabilities,
        scale=scale,
        row_off=block.row_off,
        between_pixels=between_pixels,
    )
    return _Outlined(
        polygons,
        parted.values[outlines.regions],
        firsts,
        parted.sources[outlines.regions],
        confidence,
    )


def _joined_at_corners(outlined: _Outlined, block: Block, graph: RegionGraph) -> _Outlined:
    """Make one multipolygon of polygons of a class whose pixels touch at corners; all become multipolygons."""
    cleaned = block.runs.with_values(graph.classes[graph.members])
    regions = cleaned.regions(8)[cleaned.run_at(outlined.firsts - block.row_off * cleaned.width)]
    _, first, group = np.unique(regions, return_index=True, return_inverse=True)
    order = np.argsort(group, kind="stable")
    joined = np.asarray(shapely.multipolygons(outlined.polygons[order], indices=group[order]), object)
    return outlined.replaced(joined, first)


def _as_part(
    outlined: _Outlined,
    columns: Columns,
    grid: Grid,
    scale: tuple[float, float],
    wanted: Sequence[MaskClass],
) -> LayerPart:
    placed = place_valid(outlined.polygons, grid, scale)
    names = np.full(256, "", object)
    for entry in wanted:
        names[entry.value] = entry.name
    ruler = Ruler.of(grid)
    measured: Columns = {
        "class": names[outlined.values],
        "area_m2": ruler.areas_m2(placed),
        "perimeter_m": ruler.lengths_m(placed),
    }
    if outlined.numbers is not None:
        measured["instance"] = outlined.numbers
    columns |= {"confidence": outlined.confidence, "model": np.repeat(columns["model"], len(placed))}
    return LayerPart(polygons=placed, columns=all_columns(measured | columns, len(placed)), firsts=outlined.firsts)
