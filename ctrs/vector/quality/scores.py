"""``measure_quality``: all figures of one layer against a reference, in one pass."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import geopandas
import numpy as np
import numpy.typing as npt
import shapely

from ctrs.errors import LabelError
from ctrs.progress import Progress, no_progress
from ctrs.vector.quality.angles import right_angle_share
from ctrs.vector.quality.frames import in_ground_metres
from ctrs.vector.quality.matching import MATCH_IOU, Matching, match_polygons
from ctrs.vector.quality.outlines import Outlines
from ctrs.vector.quality.pairs import PairScores
from ctrs.vector.quality.topology import count_holes, count_overlaps, party_wall_lengths

Polygons = npt.NDArray[np.object_]
FloatArray = npt.NDArray[np.float64]

IOU_LEVELS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)

DEFINITIONS_VERSION = 1
"""Raised when a figure comes to mean something else; docs/polygon_quality.md says what they mean."""

_AREAS = (3, 6)
_STEPS = 5


@dataclass(frozen=True, kw_only=True)
class Detection:
    """Precision, recall and F1 of whole buildings from an IoU on.

    Args:
        iou: Smallest IoU of a matched pair.
        precision: Matched share of the predicted polygons; None where there are none.
        recall: Matched share of the true polygons; None where there are none.
        f1: Harmonic mean, 2 matched / (predicted + true).
    """

    iou: float
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True, kw_only=True)
class PolygonQuality:
    """How well a layer of polygons agrees with a reference. Lengths in ground metres, angles in degrees.

    "Matched" means one to one with an IoU of at least 0.5. Means over true polygons count 0 where none was matched;
    means over matched pairs are None where there are none.

    Args:
        num_predicted: Polygons of the layer.
        num_truth: Polygons of the reference.
        num_matched: Pairs.
        num_missed: True polygons without match.
        num_spurious: Predicted polygons without match.
        num_split: True polygons in which two predicted ones or more lie with more than half of their area.
        num_merged: Predicted polygons in which two true ones or more lie with more than half of their area.
        num_invalid: Predicted geometries that are invalid, empty or no polygons.
        num_overlaps: Pairs of predicted polygons with common area.
        num_lost_holes: True holes for which no predicted hole stands.
        num_spurious_holes: Predicted holes that stand for no true one.
        detections: Precision, recall and F1 at IoU 0.5, 0.55, ..., 0.95.
        iou: Mean IoU over true polygons.
        c_iou: Mean over true polygons of IoU x (1 - |N - N'| / (N + N')), N corners of all rings (Zorzi 2022).
        n_ratio: Mean over matched pairs of predicted by true corners (Zorzi 2022).
        corner_ratio: Corners of the matched predicted polygons by those of their true ones.
        exact_corner_count: Share of the true polygons whose match has as many corners.
        polis_m: Mean PoLiS distance over matched pairs (Avbelj 2015).
        hausdorff_m: Mean symmetric Hausdorff distance over matched pairs, outlines densified to 0.25 m.
        tangent_angle_error_deg: Mean over matched pairs of the max tangent angle error (Girard 2021).
        wall_angle_error_deg: The same without pieces within 1 m of a true corner.
        parallel_share: Share of the matched predicted outlines within 1 degree of the nearest true wall.
        direction_error_deg: Mean angle between main directions modulo 90 degrees.
        right_angle_share: Share of all predicted corners that turn by 90 degrees, to 1 degree.
        true_right_angle_share: The same of the reference.
        corner_f1: F1 of corners, matched one to one within 0.5 m in matched pairs; all corners of both layers count.
        boundary_iou: Mean boundary IoU, 1 m wide, over true polygons (Cheng 2021).
        boundary_f: F1 of outlines: their share, by length, within 0.5 m of the matched outline; all outlines count.
        party_wall_share: Share of the true party walls that the matched polygons share exactly; None where no true
            polygons touch.
        matching: The pairs with an IoU of at least 0.5; indices into the layers as they were given.
        pairs: Figures of each of these pairs, in the same order.
    """

    num_predicted: int
    num_truth: int
    num_matched: int
    num_missed: int
    num_spurious: int
    num_split: int
    num_merged: int
    num_invalid: int
    num_overlaps: int
    num_lost_holes: int
    num_spurious_holes: int
    detections: tuple[Detection, ...]
    iou: float | None
    c_iou: float | None
    n_ratio: float | None
    corner_ratio: float | None
    exact_corner_count: float | None
    polis_m: float | None
    hausdorff_m: float | None
    tangent_angle_error_deg: float | None
    wall_angle_error_deg: float | None
    parallel_share: float | None
    direction_error_deg: float | None
    right_angle_share: float | None
    true_right_angle_share: float | None
    corner_f1: float | None
    boundary_iou: float | None
    boundary_f: float | None
    party_wall_share: float | None
    matching: Matching
    pairs: PairScores

    def f1_at(self, iou: float) -> float | None:
        """Return the F1 at one of the IoU levels."""
        return next(entry.f1 for entry in self.detections if abs(entry.iou - iou) < 1e-9)

    def figures(self) -> dict[str, Any]:
        """Return all figures of the layers as JSON values, by the names above; those of single pairs are left out."""
        plain = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        for name in ("matching", "pairs"):
            del plain[name]
        plain["detections"] = [
            {entry.name: getattr(level, entry.name) for entry in fields(level)} for level in self.detections
        ]
        return plain


def measure_quality(
    predicted: geopandas.GeoDataFrame | geopandas.GeoSeries,
    truth: geopandas.GeoDataFrame | geopandas.GeoSeries,
    *,
    progress: Progress = no_progress,
) -> PolygonQuality:
    """Compare polygons with a reference layer.

    Invalid predicted polygons are counted, and take part in areas and holes as ``shapely.make_valid`` (structure) sees
    them; empty geometries and such as are no polygons are counted as invalid and otherwise left out.

    Args:
        predicted: The layer to judge, in any CRS.
        truth: The reference: valid polygons in any CRS.
        progress: Told after each part of the comparison.

    Raises:
        LabelError: The reference has geometries that are invalid, empty or no polygons, or one of the two lacks a CRS.
    """
    shapes, reference = in_ground_metres(predicted.geometry, truth.geometry)
    rows, areas = sound_areas(shapes)
    originals, true_originals = predicted.geometry.to_numpy(), truth.geometry.to_numpy()
    broken = ~(_is_polygonal(true_originals) & shapely.is_valid(true_originals))
    if broken.any():
        raise LabelError(
            f"the reference layer has {int(broken.sum())} geometries that are invalid, empty or no polygons, expected "
            f"none; the first is row {int(np.flatnonzero(broken)[0])}; mend the layer"
        )
    # Sound in its own coordinates, a polygon may be broken by a hair in others.
    _, reference = sound_areas(reference)
    progress(1, _STEPS, "comparing polygons")
    everything = match_polygons(areas, reference)
    matching = everything.above(MATCH_IOU)
    progress(2, _STEPS, "comparing polygons")
    pairs = PairScores.of(shapes[rows], areas, reference, matching)
    progress(3, _STEPS, "comparing polygons")
    lost, spurious = count_holes(areas, reference)
    walls, shared = party_wall_lengths(areas, reference, matching)
    overlaps = count_overlaps(areas)
    progress(4, _STEPS, "comparing polygons")
    ours, theirs = Outlines.of(shapes[rows]), Outlines.of(reference)
    num_corners = len(ours.corners) + len(theirs.corners)
    length = float(ours.wall_lengths.sum() + theirs.wall_lengths.sum())
    progress(_STEPS, _STEPS, "comparing polygons")
    num_truth = len(reference)
    return PolygonQuality(
        num_predicted=len(shapes),
        num_truth=num_truth,
        num_matched=len(matching.iou),
        num_missed=num_truth - len(matching.iou),
        num_spurious=len(shapes) - len(matching.iou),
        num_split=int(matching.split.sum()),
        num_merged=int(matching.merging.sum()),
        num_invalid=len(shapes) - int(shapely.is_valid(originals[rows]).sum()),
        num_overlaps=overlaps,
        num_lost_holes=lost,
        num_spurious_holes=spurious,
        detections=tuple(_detection(everything, level, len(shapes), num_truth) for level in IOU_LEVELS),
        iou=_share(float(matching.iou.sum()), num_truth),
        c_iou=_share(float((matching.iou * pairs.complexity).sum()), num_truth),
        n_ratio=_mean(pairs.corners / np.maximum(pairs.true_corners, 1)),
        corner_ratio=_share(float(pairs.corners.sum()), float(pairs.true_corners.sum())),
        exact_corner_count=_share(float((pairs.corners == pairs.true_corners).sum()), num_truth),
        polis_m=_mean(pairs.polis_m),
        hausdorff_m=_mean(pairs.hausdorff_m),
        tangent_angle_error_deg=_mean(pairs.tangent_angle_error_deg),
        wall_angle_error_deg=_mean(pairs.wall_angle_error_deg),
        parallel_share=pairs.parallel_share,
        direction_error_deg=_mean(pairs.direction_error_deg),
        right_angle_share=right_angle_share(ours) if len(ours.corners) else None,
        true_right_angle_share=right_angle_share(theirs) if len(theirs.corners) else None,
        corner_f1=_share(2.0 * pairs.num_near_corners, num_corners),
        boundary_iou=_share(float(pairs.boundary_iou.sum()), num_truth),
        boundary_f=_harmonic(pairs.near_length, float(ours.wall_lengths.sum()), pairs.true_near_length, length),
        party_wall_share=_share(shared, walls),
        matching=Matching(
            predicted=rows[matching.predicted],
            truth=matching.truth,
            iou=matching.iou,
            split=matching.split,
            merging=_scattered(matching.merging, rows, len(shapes)),
        ),
        pairs=pairs,
    )


def sound_areas(shapes: Polygons) -> tuple[npt.NDArray[np.intp], Polygons]:
    """Return which of some shapes are polygons, and these made valid."""
    rows = np.flatnonzero(_is_polygonal(shapes))
    areas = shapes[rows]
    broken = ~shapely.is_valid(areas)
    areas[broken] = shapely.make_valid(areas[broken], method="structure", keep_collapsed=False)
    return rows, areas


def _is_polygonal(shapes: Polygons) -> npt.NDArray[np.bool_]:
    return np.asarray(np.isin(shapely.get_type_id(shapes), _AREAS) & ~shapely.is_empty(shapes))


def _detection(matching: Matching, iou: float, num_predicted: int, num_truth: int) -> Detection:
    matched = int((matching.iou >= iou).sum())
    return Detection(
        iou=iou,
        precision=_share(matched, num_predicted),
        recall=_share(matched, num_truth),
        f1=_share(2 * matched, num_predicted + num_truth),
    )


def _harmonic(near: float, length: float, true_near: float, both_lengths: float) -> float | None:
    if not both_lengths:
        return None
    precision, recall = near / length if length else 0.0, true_near / max(both_lengths - length, 1e-30)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _mean(values: FloatArray) -> float | None:
    return float(values.mean()) if len(values) else None


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _scattered(flags: npt.NDArray[np.bool_], rows: npt.NDArray[np.intp], count: int) -> npt.NDArray[np.bool_]:
    result = np.zeros(count, bool)
    result[rows] = flags
    return result
