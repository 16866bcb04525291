"""Coverages cut into arcs and put together again."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import shapely
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ctrs.vector.coverage.arcs import NO_POLYGON, Arcs
from ctrs.vector.regions.outlines import NO_REGION, trace
from ctrs.vector.regions.runs import Runs

NONE = 255
LABELS = hnp.arrays(
    np.uint8,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12),
    elements=st.sampled_from([0, 1, 2, NONE]),
)


def coverage(labels: npt.NDArray[np.uint8], scale: tuple[float, float] = (1.0, 1.0)) -> npt.NDArray[np.object_]:
    runs = Runs.from_array(labels)
    regions = np.where(runs.values == NONE, np.int32(NO_REGION), runs.regions())
    return trace(runs, regions, junctions=True).polygons(scale)


@given(LABELS, st.booleans())
def test_arcs_make_the_same_polygons_again(labels: npt.NDArray[np.uint8], framed: bool) -> None:
    polygons = coverage(labels, (0.3, 0.7))
    assume(len(polygons))
    height, width = labels.shape
    arcs = Arcs.of(polygons, (0.0, 0.0, width * 0.3, height * 0.7) if framed else None)
    again = arcs.polygons(arcs.lines())
    assert shapely.equals_exact(shapely.normalize(polygons), shapely.normalize(again), 0).all()


@given(LABELS)
def test_arcs_are_each_border_once(labels: npt.NDArray[np.uint8]) -> None:
    polygons = coverage(labels)
    assume(len(polygons))
    arcs = Arcs.of(polygons)
    lines = arcs.lines()
    assert shapely.length(lines).sum() == shapely.length(shapely.union_all(shapely.boundary(polygons)))
    for line, sides in zip(lines, arcs.sides.tolist(), strict=True):
        covering = np.flatnonzero(shapely.covers(shapely.boundary(polygons), line)).tolist()
        # A polygon may border on one arc alone, or on one with another polygon.
        assert sorted(side for side in sides if side != NO_POLYGON) == covering


def test_an_island_is_one_closed_arc_and_the_frame_has_its_own() -> None:
    labels = np.zeros((9, 9), np.uint8)
    labels[3:5, 3:6] = 1
    arcs = Arcs.of(coverage(labels), (0.0, 0.0, 9.0, 9.0))
    assert arcs.count == 5
    assert arcs.closed.tolist().count(True) == 1
    assert arcs.on_frame.tolist() == (~arcs.closed).tolist()
    assert (np.sort(arcs.sides[arcs.closed]) == [[0, 1]]).all()
    assert arcs.of_polygons(np.array([False, True])).tolist() == arcs.closed.tolist()
