"""Fewer vertices without gaps, overlaps or invalid polygons: common borders are simplified once, for both sides.

All is simplified by distance (Douglas-Peucker), which straightens the staircase of a wall that lies askew to the
pixels: a polygon that touches no other as a whole, the others arc by arc (``arcs``), the ends of arcs in place. Neither
sees what lies beside it, and a tolerance may be large against a small polygon; all is checked afterwards, and what
fails is simplified less.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from ctrs.progress import Progress, no_progress
from ctrs.vector.coverage.arcs import Arcs
from ctrs.vector.coverage.crossings import collapsed_arcs, crossing_arcs, spoilt_polygons
from ctrs.vector.coverage.smoothing import smooth_arcs
from ctrs.vector.polygonize import Geometries
from ctrs.vector.regions.runs import IntArray, RegionIds, join

logger = logging.getLogger(__name__)

_SHARES = (1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125, 0.0)
"""Shares of the tolerance that are tried one after the other; the last keeps the exact outline.

Small ones matter where the tolerance is large: without them a building too small for it got all its pixels back."""

_MAX_AREA_CHANGE = 0.1
"""Largest relative change of the area of a polygon that touches no other."""

_MAX_AREA_CHANGE_TOUCHING = 0.25
"""The same where polygons touch: they change places with each other."""

_SMOOTHED_TOLERANCE = 1 / 3
"""Share of the tolerance for smoothed arcs: no staircase is left to be cut off, and curves shall look like curves."""

_PHASE = "simplifying"
_INTERIORS_MEET = "T********"


def simplify_coverage(
    polygons: Geometries,
    tolerance: float,
    *,
    smooth: float = 0.0,
    straight: npt.NDArray[np.bool_] | None = None,
    frame: tuple[float, float, float, float] | None = None,
    whole: bool = False,
    progress: Progress = no_progress,
) -> Geometries:
    """Simplify polygons whose interiors are disjoint, and keep them so.

    Args:
        polygons: A coverage: neighbours have all vertices of their common border in common.
        tolerance: In coordinate units: the distance by which an outline may move.
        smooth: Wave length, in coordinate units, below which arcs are evened out before they are simplified; 0: none.
        straight: Polygons whose borders are not smoothed (buildings); None: none of them; shape (P,).
        frame: Least x, least y, greatest x, greatest y of the raster: what lies on its edge stays there. None: no edge.
        whole: The polygons are all that the raster shows: where they end there are no data, and nothing is smoothed.
        progress: Told after each round.

    Returns:
        Valid polygons with disjoint interiors, in the same order; common borders stay common.
    """
    if not len(polygons) or (tolerance <= 0 and smooth <= 0):
        return polygons
    groups = touching_groups(polygons)
    alone = (np.bincount(groups) == 1)[groups]
    if smooth > 0 or frame is not None:
        alone[:] = False
    result = polygons.copy()
    level = np.zeros(len(polygons), np.int64)
    touching = _Touching(polygons, np.flatnonzero(~alone), tolerance, smooth, straight, frame, whole)
    pending = np.ones(len(polygons), bool)
    while pending.any():
        for number, share in enumerate(_SHARES):
            chosen = np.flatnonzero(pending & alone & (level == number))
            result[chosen] = shapely.simplify(polygons[chosen], tolerance * share)
        touching.draw(result)
        again = pending & alone & _is_spoilt(result, polygons)
        again[_overlapping(result, alone, groups, pending)] = True
        again[touching.members[touching.lower(again[touching.members])]] = True
        again &= ~alone | (level < len(_SHARES) - 1)
        level[again] += 1
        pending = again
        progress(len(polygons) - int(pending.sum()), len(polygons), _PHASE)
    reduced = int((level > 0).sum())
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


class _Touching:
    """Polygons that touch, drawn from their arcs, each arc simplified as far as its surroundings allow."""

    def __init__(
        self,
        polygons: Geometries,
        members: IntArray,
        tolerance: float,
        smooth: float,
        straight: npt.NDArray[np.bool_] | None,
        frame: tuple[float, float, float, float] | None,
        whole: bool,
    ) -> None:
        self.members = members
        if not len(members):
            return
        self.tolerance, self.smooth = tolerance, smooth
        self.areas = shapely.area(polygons[members])
        self.arcs = Arcs.of(polygons[members], frame)
        self.smoothed = np.zeros(self.arcs.count, bool)
        if smooth > 0:
            kept = np.zeros(len(members), bool) if straight is None else straight[members]
            self.smoothed = ~self.arcs.on_frame & ~self.arcs.of_polygons(kept)
            if whole:
                self.smoothed &= ~self.arcs.is_outer
        self.level = np.zeros(self.arcs.count, np.int64)
        self.lines = self.arcs.lines()
        self.stale = np.ones(self.arcs.count, bool)

    def draw(self, result: Geometries) -> None:
        """Put the polygons as they are now into ``result``."""
        if not len(self.members) or not self.stale.any():
            return
        while self.stale.any():
            for number, share in enumerate(_SHARES):
                chosen = self.stale & (self.level == number)
                if not chosen.any():
                    continue
                lines = smooth_arcs(self.arcs, self.smooth * share, chosen & self.smoothed)[chosen]
                tolerance = np.where(self.smoothed[chosen], _SMOOTHED_TOLERANCE, 1.0) * self.tolerance * share
                self.lines[chosen] = shapely.simplify(lines, tolerance, preserve_topology=False)
            self.stale[:] = collapsed_arcs(self.arcs, self.lines) & (self.level < len(_SHARES) - 1)
            self.level[self.stale] += 1
        result[self.members] = self.arcs.polygons(self.lines)
        self.drawn = result[self.members]

    def lower(self, marked: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Choose arcs to be drawn closer to the pixels; returns the polygons that change thereby.

        Args:
            marked: Polygons that overlap others than these; shape as ``members``.
        """
        if not len(self.members):
            return marked
        spoilt, places = spoilt_polygons(self.drawn, self.areas, _MAX_AREA_CHANGE_TOUCHING)
        bad = np.zeros(self.arcs.count, bool)
        if spoilt.any() or marked.any():
            among = np.flatnonzero(self.arcs.of_polygons(spoilt))
            bad[crossing_arcs(self.lines, among)] = True
            # What jumped over a neighbour crosses nothing: then all arcs near the fault, or else of the polygon.
            unclear = spoilt & ~self._has_open(bad)
            for number in np.flatnonzero(unclear).tolist():
                bad |= self._near(number, places[number])
            bad |= self.arcs.of_polygons(marked | (spoilt & ~self._has_open(bad)))
        bad &= self.level < len(_SHARES) - 1
        self.level[bad] += 1
        self.stale = bad
        changed = np.zeros(len(self.members) + 1, bool)
        changed[self.arcs.sides[bad]] = True
        return changed[:-1]

    def _has_open(self, bad: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Polygons with a bad arc that can be drawn closer still."""
        found = np.zeros(len(self.members) + 1, bool)
        found[self.arcs.sides[bad & (self.level < len(_SHARES) - 1)]] = True
        return found[:-1]

    def _near(self, number: int, place: Any) -> npt.NDArray[np.bool_]:
        near = np.zeros(self.arcs.count, bool)
        if place is None:
            return near
        candidates = np.flatnonzero((self.arcs.sides == number).any(axis=1))
        reach = self.tolerance + self.smooth / 4
        near[candidates] = shapely.dwithin(self.lines[candidates], place, reach)
        return near


def _is_spoilt(simplified: Geometries, polygons: Geometries) -> npt.NDArray[np.bool_]:
    exact = shapely.area(polygons)
    changed = np.abs(shapely.area(simplified) - exact) > _MAX_AREA_CHANGE * exact
    spoilt: npt.NDArray[np.bool_] = changed | ~shapely.is_valid(simplified) | shapely.is_empty(simplified)
    return spoilt


def _overlapping(
    polygons: Geometries, alone: npt.NDArray[np.bool_], groups: RegionIds, wanted: npt.NDArray[np.bool_]
) -> npt.NDArray[Any]:
    """Polygons that overlap one of another group, where one of the two is wanted and one stands alone."""
    valid = shapely.is_valid(polygons)
    first = np.flatnonzero(wanted & valid)
    pairs = shapely.STRtree(polygons).query(polygons[first], predicate="intersects")
    a, b = first[pairs[0]], pairs[1]
    apart = (groups[a] != groups[b]) & valid[b] & (alone[a] | alone[b])
    a, b = a[apart], b[apart]
    overlap = shapely.relate_pattern(polygons[a], polygons[b], _INTERIORS_MEET)
    return np.union1d(a[overlap], b[overlap])
