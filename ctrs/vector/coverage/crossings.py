"""Where moved arcs spoil a coverage: which of them cross, and which polygons are invalid, overlap or gape."""

from __future__ import annotations

import re

import numpy as np
import shapely

from ctrs.vector.coverage.arcs import Arcs, Flags, FloatArray, Geometries, IntArray

_APART_BUT_FOR_ENDS = "FF*F*****"
_LOCATION = re.compile(r"\[(\S+) (\S+)\]")


def collapsed_arcs(arcs: Arcs, lines: Geometries) -> Flags:
    """Return the arcs of rings that are none any more, and those that lie on each other; shape (A,)."""
    counts = shapely.get_num_coordinates(lines)
    few = np.add.reduceat(counts[arcs.pieces] - 1, arcs.ring_pieces[:-1]) < 3
    bad = np.zeros(arcs.count, bool)
    bad[arcs.pieces[np.repeat(few, np.diff(arcs.ring_pieces))]] = True
    straight = np.flatnonzero(counts == 2)
    ends = shapely.get_coordinates(lines[straight]).reshape(-1, 2, 2) @ np.array([1, 1j])
    ends.sort(axis=1)
    _, same, count = np.unique(ends, axis=0, return_inverse=True, return_counts=True)
    bad[straight[count[same.ravel()] > 1]] = True
    return bad


def spoilt_polygons(polygons: Geometries, areas: FloatArray, max_area_change: float) -> tuple[Flags, Geometries]:
    """Return which polygons of a coverage are spoilt, and where the fault lies as far as that is known.

    Args:
        polygons: Of a coverage, after their arcs were moved; shape (P,).
        areas: Their areas before; shape (P,).
        max_area_change: Largest relative change of an area.

    Returns:
        True for spoilt polygons, and the places of the faults, None elsewhere; both of shape (P,).
    """
    valid = shapely.is_valid(polygons)
    edges = shapely.coverage_invalid_edges(polygons)
    overlapping = ~shapely.is_empty(edges)
    changed = np.abs(shapely.area(polygons) - areas) > max_area_change * areas
    places: Geometries = np.full(len(polygons), None, object)
    places[overlapping] = edges[overlapping]
    for number in np.flatnonzero(~valid).tolist():
        found = _LOCATION.search(str(shapely.is_valid_reason(polygons[number])))
        places[number] = shapely.Point(float(found[1]), float(found[2])) if found else None
    return np.asarray(~valid | overlapping | changed), places


def crossing_arcs(lines: Geometries, among: IntArray) -> IntArray:
    """Return those among some arcs that cross themselves or each other, or touch elsewhere than at common ends."""
    chosen = lines[among]
    bad = ~shapely.is_simple(chosen)
    first, second = shapely.STRtree(chosen).query(chosen, predicate="intersects")
    once = first < second
    first, second = first[once], second[once]
    meet = ~shapely.relate_pattern(chosen[first], chosen[second], _APART_BUT_FOR_ENDS)
    first, second = first[meet], second[meet]
    # Arcs that return to their own beginning have no ends in the sense of relate: there points are compared.
    ends = shapely.union(_ends(chosen[first]), _ends(chosen[second]))
    beyond = shapely.difference(shapely.intersection(chosen[first], chosen[second]), ends)
    crossing = ~shapely.is_empty(beyond)
    bad[first[crossing]] = True
    bad[second[crossing]] = True
    found: IntArray = among[bad]
    return found


def _ends(lines: Geometries) -> Geometries:
    ends = np.column_stack([shapely.get_point(lines, 0), shapely.get_point(lines, -1)])
    return np.asarray(shapely.union_all(ends, axis=1), object)
