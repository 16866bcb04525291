"""Figures of polygons against a reference layer: whole buildings, outlines, corners, angles, topology.

``measure_quality`` gives them all, ``judge_polygons`` also what became of each building. The way of the layers:
``frames`` brings them to ground metres, ``matching`` pairs them, ``outlines`` takes them apart, ``distances``,
``angles`` and ``topology`` compare, ``pairs`` and ``scores`` sum up, ``verdicts`` tells building from building.
"""

from ctrs.vector.quality.matching import Matching, match_polygons
from ctrs.vector.quality.pairs import PairScores
from ctrs.vector.quality.scores import DEFINITIONS_VERSION, Detection, PolygonQuality, measure_quality
from ctrs.vector.quality.verdicts import VERDICTS, Judgement, Verdict, judge_polygons

__all__ = [
    "DEFINITIONS_VERSION",
    "VERDICTS",
    "Detection",
    "Judgement",
    "Matching",
    "PairScores",
    "PolygonQuality",
    "Verdict",
    "judge_polygons",
    "match_polygons",
    "measure_quality",
]
