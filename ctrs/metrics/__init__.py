"""Scores of class masks: from pixels, outlines, objects, areas and confidences (numpy and scipy only).

``ConfusionMatrix`` counts pixels wherever they are. The other accumulators read a scene in ``ScoredBlock``s, in the
order of ``ctrs.training`` 's pass over it, so that memory does not grow with the scene. All of them add over scenes
(``merge``, ``+``) and go to JSON and back without loss (``to_json``, ``from_json``).
"""

from ctrs.metrics.area import AreaCounts
from ctrs.metrics.blocks import ScoredBlock, scored_blocks
from ctrs.metrics.bootstrap import Interval, PairedDifference, bootstrap_interval, paired_bootstrap
from ctrs.metrics.boundary import BoundaryCounts, boundary_f1_of, boundary_iou_of
from ctrs.metrics.calibration import CalibrationCounts, ReliabilityRow, ece_of
from ctrs.metrics.confusion import ConfusionMatrix, accuracy_of, f1_of, iou_of, mean_over
from ctrs.metrics.erosion import erode_labels
from ctrs.metrics.objects import ObjectCounts, object_f1_of

__all__ = [
    "AreaCounts",
    "BoundaryCounts",
    "CalibrationCounts",
    "ConfusionMatrix",
    "Interval",
    "ObjectCounts",
    "PairedDifference",
    "ReliabilityRow",
    "ScoredBlock",
    "accuracy_of",
    "bootstrap_interval",
    "boundary_f1_of",
    "boundary_iou_of",
    "ece_of",
    "erode_labels",
    "f1_of",
    "iou_of",
    "mean_over",
    "object_f1_of",
    "paired_bootstrap",
    "scored_blocks",
]
