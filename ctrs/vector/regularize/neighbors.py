"""Buildings that share borders become straight together: their outline as one building, then their party walls.

Where no straight walls divide a group so, each stretch of outline and common border is straightened by itself
(``wall_arcs``).
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from ctrs.progress import Progress, no_progress
from ctrs.vector.regularize.buildings import (
    MAX_AREA_CHANGE,
    MIN_IOU,
    SMOOTHING_M,
    RegularizedBuildings,
    regularize_buildings,
)
from ctrs.vector.regularize.overlaps import part_overlaps
from ctrs.vector.regularize.party_walls import divide, touching_groups
from ctrs.vector.regularize.pixels import PixelRuns
from ctrs.vector.regularize.shared_directions import share_directions
from ctrs.vector.regularize.straightening import find_directions_of
from ctrs.vector.regularize.wall_arcs import straighten_arcs

logger = logging.getLogger(__name__)

Polygons = npt.NDArray[np.object_]


def regularize_neighbors(
    polygons: Polygons,
    *,
    pixel_m: tuple[float, float],
    tolerance_m: float,
    pixels: PixelRuns | None = None,
    progress: Progress = no_progress,
    **options: Any,
) -> RegularizedBuildings:
    """Give buildings straight walls; those that share borders share straight party walls afterwards.

    Args:
        polygons: Exact outlines, a coverage: neighbours have all vertices of their common border in common.
        pixel_m: Width and height of a pixel, ground metres.
        tolerance_m: Tolerance of the simplified outlines of neighbours that no straight walls part.
        pixels: As ``regularize_buildings`` takes them; neighbours are not parted further.
        progress: Told after each block of buildings.
        options: Handed on to ``regularize_buildings``.
    """
    groups = touching_groups(polygons) if len(polygons) else np.empty(0, np.int64)
    sizes = np.bincount(groups)
    options |= {"pixel_m": pixel_m, "tolerance_m": tolerance_m, "progress": progress}
    if not len(polygons) or sizes.max() == 1:
        return regularize_buildings(polygons, pixels=pixels, **options)
    order = np.argsort(groups, kind="stable")
    members = np.split(order, np.cumsum(sizes)[:-1])
    wholes = np.array([_whole(polygons[chosen]) for chosen in members], object)
    if pixels is not None:
        pixels = pixels.take(np.array([group[0] if len(group) == 1 else -1 for group in members]))
    directions = _directions([polygons[chosen] for chosen in members], pixel_m)
    own = share_directions(polygons, _directions(list(polygons[:, None]), pixel_m))
    straight = regularize_buildings(wholes, pixels=pixels, directions=directions, **options)
    alone = sizes[straight.sources] == 1
    shapes: list[Any] = list(straight.polygons[alone])
    sources = [int(members[group][0]) for group in straight.sources[alone].tolist()]
    methods: list[Any] = list(straight.methods[alone])
    kept = 0
    for place in np.flatnonzero(~alone).tolist():
        chosen = members[straight.sources[place]]
        exact = polygons[chosen]
        divided = None
        if straight.methods[place] != "outline":
            divided = divide(straight.polygons[place], exact, pixel_m=min(pixel_m), max_area_change=MAX_AREA_CHANGE)
        if divided is not None and _iou(divided, exact).min() < MIN_IOU:
            divided = None
        is_straight = np.ones(len(chosen), bool)
        if divided is None:
            divided, is_straight = straighten_arcs(
                exact,
                own[chosen],
                pixel_m=min(pixel_m),
                tolerance_m=tolerance_m,
                max_area_change=MAX_AREA_CHANGE,
                min_iou=MIN_IOU,
            )
        methods += ["walls" if by_walls else "outline" for by_walls in is_straight.tolist()]
        kept += int((~is_straight).sum())
        shapes += list(divided)
        sources += chosen.tolist()
    if kept:
        logger.info("%d neighbours keep their simplified outlines: no straight walls fit them", kept)
    in_order = np.argsort(sources, kind="stable")
    result, _ = part_overlaps(np.array(shapes, object)[in_order])
    source = np.array(sources, np.int64)[in_order]
    return RegularizedBuildings(
        polygons=result,
        sources=source,
        methods=np.array(methods, object)[in_order],
        iou=_iou_of_parts(result, polygons[source], straight, alone, in_order),
    )


def _whole(polygons: Polygons) -> Any:
    if len(polygons) == 1:
        return polygons[0]
    union = shapely.coverage_union_all(polygons)
    return shapely.get_parts(union)[0]


def _directions(groups: list[Polygons], pixel_m: tuple[float, float]) -> npt.NDArray[np.float64]:
    """Return the directions of each group of neighbours, as ``directions_of`` does: party walls have a say in them."""
    rings = [shapely.get_rings(group) for group in groups]
    corners = shapely.get_coordinates(np.concatenate(rings))
    sizes = shapely.get_num_coordinates(np.concatenate(rings))
    found = np.empty((len(groups), 3))
    find_directions_of(
        np.ascontiguousarray(corners),
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        np.concatenate([[0], np.cumsum([len(part) for part in rings])]).astype(np.int64),
        0,
        len(groups),
        min(pixel_m),
        SMOOTHING_M,
        found,
    )
    return found


def _iou(shapes: Polygons, others: Polygons) -> npt.NDArray[np.float64]:
    common = shapely.area(shapely.intersection(shapes, others))
    return np.asarray(common / (shapely.area(shapes) + shapely.area(others) - common), np.float64)


def _iou_of_parts(
    shapes: Polygons,
    exact: Polygons,
    straight: RegularizedBuildings,
    alone: npt.NDArray[np.bool_],
    in_order: npt.NDArray[np.int64],
) -> npt.NDArray[np.float64]:
    """IoU of each building with its outline: of lone ones, which gaps may have parted, as it was told."""
    told = np.concatenate([straight.iou[alone], np.full(len(in_order) - int(alone.sum()), np.nan)])[in_order]
    missing = np.flatnonzero(np.isnan(told))
    told[missing] = _iou(shapes[missing], exact[missing])
    return np.asarray(told, np.float64)
