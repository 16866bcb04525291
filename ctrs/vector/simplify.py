"""Fewer vertices without gaps, overlaps or invalid polygons: common borders are simplified once, for both sides.

A polygon that touches no other is simplified by distance (Douglas-Peucker), which straightens the staircase of a wall
that lies askew to the pixels. Groups that touch go through ``shapely.coverage_simplify`` (Visvalingam-Whyatt over the
borders of a coverage), which keeps common borders common but measures areas, so that long shallow steps stay. Neither
sees all other polygons, and a tolerance may be large against a small polygon; both are checked afterwards, and what
fails is simplified less.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from ctrs.progress import Progress, no_progress
from ctrs.vector.polygonize import Geometries
from ctrs.vector.runs import IntArray, RegionIds, join

logger = logging.getLogger(__name__)

_SHARES = (1.0, 0.5, 0.25, 0.0)
"""Shares of the tolerance that are tried one after the other; the last keeps the exact outline."""

_MAX_AREA_CHANGE = 0.1
"""Largest relative change of the area of a polygon that touches no other."""

_BATCH = 128
"""Polygons simplified together: the index over a coverage's borders makes large batches slow."""

_PHASE = "simplifying"
_INTERIORS_MEET = "T********"


def simplify_coverage(polygons: Geometries, tolerance: float, *, progress: Progress = no_progress) -> Geometries:
    """Simplify polygons whose interiors are disjoint, and keep them so.

    Args:
        polygons: A coverage: neighbours have all vertices of their common border in common.
        tolerance: In coordinate units: the distance by which the outline of a polygon that stands alone may move; where
            polygons touch, triangles of consecutive vertices whose area is below its square vanish.
        progress: Told after each batch.

    Returns:
        Valid polygons with disjoint interiors, in the same order; common borders stay common.
    """
    if tolerance <= 0 or not len(polygons):
        return polygons
    groups = touching_groups(polygons)
    alone = (np.bincount(groups) == 1)[groups]
    level = np.zeros(int(groups.max()) + 1, np.int64)
    result = polygons.copy()
    pending = np.ones(len(polygons), bool)
    while pending.any():
        for number, share in enumerate(_SHARES):
            chosen = np.flatnonzero(pending & (level[groups] == number))
            lone, touching = chosen[alone[chosen]], chosen[~alone[chosen]]
            result[lone] = shapely.simplify(polygons[lone], tolerance * share)
            if len(lone):
                progress(len(lone), len(chosen), _PHASE)
            _simplify_touching(result, polygons, touching, groups, tolerance * share, len(chosen), progress)
        spoilt = np.flatnonzero(pending)[_is_spoilt(result[pending], polygons[pending], alone[pending])]
        retried = np.union1d(groups[spoilt], _overlapping_groups(result, groups, pending))
        retried = retried[level[retried] < len(_SHARES) - 1]
        level[retried] += 1
        pending = np.isin(groups, retried)
    reduced = int((level[groups] > 0).sum())
    if reduced:
        logger.info("%d of %d polygons simplified less, to stay valid, apart and in shape", reduced, len(polygons))
    return result


def touching_groups(polygons: Geometries) -> RegionIds:
    """Return which polygons hang together by common vertices, numbered from 0 in the order of first members."""
    xy, owner = shapely.get_coordinates(polygons, return_index=True)
    points = xy[:, 0] + 1j * xy[:, 1]
    order = np.argsort(points, kind="stable")
    same = points[order[1:]] == points[order[:-1]]
    return join(len(polygons), owner[order[1:]][same], owner[order[:-1]][same])


def _simplify_touching(
    result: Geometries,
    polygons: Geometries,
    chosen: IntArray,
    groups: RegionIds,
    tolerance: float,
    total: int,
    progress: Progress,
) -> None:
    """Simplify the chosen polygons, whole groups and last of ``total``, into ``result``."""
    if not len(chosen):
        return
    if tolerance == 0:
        result[chosen] = polygons[chosen]
        return
    chosen = chosen[np.argsort(groups[chosen], kind="stable")]
    begins = np.flatnonzero(np.diff(groups[chosen], prepend=-1))
    cuts = begins[np.flatnonzero(np.diff(begins // _BATCH, prepend=-1))]
    done = total - len(chosen)
    for batch in np.split(chosen, cuts[1:]):
        result[batch] = shapely.coverage_simplify(polygons[batch], tolerance)
        done += len(batch)
        progress(done, total, _PHASE)


def _is_spoilt(simplified: Geometries, polygons: Geometries, alone: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    exact = shapely.area(polygons)
    changed = alone & (np.abs(shapely.area(simplified) - exact) > _MAX_AREA_CHANGE * exact)
    spoilt: npt.NDArray[np.bool_] = changed | ~shapely.is_valid(simplified) | shapely.is_empty(simplified)
    return spoilt


def _overlapping_groups(polygons: Geometries, groups: RegionIds, wanted: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """Groups with a polygon that overlaps one of another group, where one of the two is wanted."""
    valid = shapely.is_valid(polygons)
    first = np.flatnonzero(wanted & valid)
    pairs = shapely.STRtree(polygons).query(polygons[first], predicate="intersects")
    a, b = first[pairs[0]], pairs[1]
    apart = (groups[a] != groups[b]) & valid[b]
    a, b = a[apart], b[apart]
    overlap = shapely.relate_pattern(polygons[a], polygons[b], _INTERIORS_MEET)
    return np.union1d(groups[a[overlap]], groups[b[overlap]])
