"""What became of each building: found, missed, in pieces, fused with others, or drawn where none is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import geopandas
import numpy as np
import numpy.typing as npt
import pandas as pd

from ctrs.progress import Progress, no_progress
from ctrs.raster.units import geometry_area_m2
from ctrs.vector.quality.frames import in_ground_metres
from ctrs.vector.quality.matching import Overlaps
from ctrs.vector.quality.scores import PolygonQuality, measure_quality, sound_areas

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

Verdict = Literal["matched", "split", "merged", "missed", "spurious"]
Side = Literal["truth", "drawn"]

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A layer of polygons judged against a reference.

    Args:
        quality: All figures.
        buildings: The buildings of both, each with its verdict, in the CRS of the layer that was judged. Columns:
            ``id``, from 1; ``layer``, ``truth`` or ``drawn``; ``source_id``, the row in its own layer, from 1;
            ``verdict``; ``partner``, the ``id`` of the matched building of the other layer, or else of the one with the
            largest common area, none where there is none; ``iou`` with the partner; ``polis_m`` and ``hausdorff_m`` of
            matched pairs; ``parts``, how many buildings of the other layer lie in this one with more than half of
            their area; ``area_m2``. Geometries of the layer that are no polygons are left out.
    """

    quality: PolygonQuality
    buildings: geopandas.GeoDataFrame

    def count(self, layer: Side) -> dict[Verdict, int]:
        """Return how many buildings of one layer have each verdict that they can have."""
        verdicts = self.buildings["verdict"][self.buildings["layer"] == layer]
        absent = "spurious" if layer == "truth" else "missed"
        return {verdict: int((verdicts == verdict).sum()) for verdict in VERDICTS if verdict != absent}


def judge_polygons(
    drawn: geopandas.GeoDataFrame | geopandas.GeoSeries,
    truth: geopandas.GeoDataFrame | geopandas.GeoSeries,
    *,
    progress: Progress = no_progress,
) -> Judgement:
    """Judge a layer of buildings against a reference, building by building.

    A true building is matched (one to one, with an IoU of at least 0.5), or else split (two drawn ones or more lie in
    it with more than half of their area), or else merged (it lies so in a drawn one in which others lie too), or else
    missed. A drawn one is matched, or else merged (two true ones or more lie so in it), or else split (it is one of the
    pieces of a true one), or else spurious.

    Args:
        drawn: The layer to judge, in any CRS.
        truth: The reference: valid polygons in any CRS.
        progress: Told after each part of the comparison.

    Raises:
        LabelError: The reference has geometries that are invalid, empty or no polygons, or one of the two lacks a CRS.
    """
    quality = measure_quality(drawn, truth, progress=progress)
    shapes, reference = in_ground_metres(drawn.geometry, truth.geometry)
    rows, areas = sound_areas(shapes)
    _, reference = sound_areas(reference)
    overlaps = Overlaps.of(areas, reference)
    own_rows = np.full(len(shapes), -1, np.int64)
    own_rows[rows] = np.arange(len(rows))
    pairs = quality.matching
    ours, theirs = own_rows[pairs.predicted], pairs.truth
    verdicts, true_verdicts = _verdicts(overlaps, ours, theirs, len(rows), len(reference))
    partners, iou = _partners(overlaps.predicted, overlaps.truth, overlaps, ours, theirs, len(rows))
    true_partners, true_iou = _partners(overlaps.truth, overlaps.predicted, overlaps, theirs, ours, len(reference))
    # The truth lies below in a map, so it comes first; ids go on from one layer to the other.
    partner = np.concatenate([true_partners + np.where(true_partners < 0, 0, len(reference)), partners])
    distances = np.full((2, len(reference) + len(rows)), np.nan)
    for places in (theirs, len(reference) + ours):
        distances[:, places] = quality.pairs.polis_m, quality.pairs.hausdorff_m
    geometries = geopandas.GeoSeries(
        np.concatenate([_in_crs_of(truth, drawn).to_numpy(), drawn.geometry.to_numpy()[rows]]), crs=drawn.crs
    )
    buildings = geopandas.GeoDataFrame(
        {
            "id": np.arange(1, len(geometries) + 1, dtype=np.int64),
            "layer": np.repeat(np.array(["truth", "drawn"], object), [len(reference), len(rows)]),
            "source_id": np.concatenate([np.arange(len(reference)), rows]).astype(np.int64) + 1,
            "verdict": np.concatenate([true_verdicts, verdicts]),
            "partner": pd.array(np.where(partner < 0, 0, partner + 1), dtype="Int64"),
            "iou": np.concatenate([true_iou, iou]),
            "polis_m": distances[0],
            "hausdorff_m": distances[1],
            "parts": np.concatenate([overlaps.parts, overlaps.members]),
            "area_m2": geometry_area_m2(geometries),
        },
        geometry=geometries,
    )
    buildings.loc[partner < 0, "partner"] = pd.NA
    return Judgement(quality=quality, buildings=buildings)


def _verdicts(
    overlaps: Overlaps, ours: IntArray, theirs: IntArray, num_drawn: int, num_truth: int
) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.object_]]:
    """Return the verdicts of the drawn and of the true polygons; ``ours`` and ``theirs`` are the matched ones."""
    split, merging = overlaps.parts > 1, overlaps.members > 1
    piece = _marked(overlaps.predicted[overlaps.in_truth & split[overlaps.truth]], num_drawn)
    member = _marked(overlaps.truth[overlaps.in_predicted & merging[overlaps.predicted]], num_truth)
    drawn = np.full(num_drawn, "spurious", object)
    drawn[piece] = "split"
    drawn[merging] = "merged"
    drawn[ours] = "matched"
    truth = np.full(num_truth, "missed", object)
    truth[member] = "merged"
    truth[split] = "split"
    truth[theirs] = "matched"
    return drawn, truth


def _partners(
    own: IntArray, other: IntArray, overlaps: Overlaps, matched: IntArray, match: IntArray, count: int
) -> tuple[IntArray, npt.NDArray[np.float64]]:
    """Return the partner of each polygon of one layer, -1 for none, and the IoU with it, 0 for none."""
    partner, iou = np.full(count, -1, np.int64), np.zeros(count)
    order = np.lexsort((-other, overlaps.common))  # the last one stays: the largest, of equals the lowest index
    rank = overlaps.common.copy()
    rank[_is_pair(own, other, matched, match)] = np.inf
    order = order[np.argsort(rank[order], kind="stable")]
    partner[own[order]] = other[order]
    iou[own[order]] = overlaps.iou[order]
    return partner, iou


def _is_pair(own: IntArray, other: IntArray, matched: IntArray, match: IntArray) -> BoolArray:
    """Tell which overlaps are matched pairs."""
    if not len(own):
        return np.zeros(0, bool)
    partner = np.full(int(own.max()) + 1, -1, np.int64)
    partner[matched] = match
    return np.asarray(partner[own] == other)


def _marked(places: IntArray, count: int) -> BoolArray:
    result = np.zeros(count, bool)
    result[places] = True
    return result


def _in_crs_of(
    layer: geopandas.GeoDataFrame | geopandas.GeoSeries, other: geopandas.GeoDataFrame | geopandas.GeoSeries
) -> geopandas.GeoSeries:
    series = layer.geometry
    return series if other.crs is None or series.crs == other.crs else series.to_crs(other.crs)
