"""Figures of polygons against a reference layer: whole buildings, outlines, corners, angles, topology.

``measure_quality`` gives them all. The way of the layers: ``frames`` brings them to ground metres, ``matching`` pairs
them, ``outlines`` takes them apart, ``distances``, ``angles`` and ``topology`` compare, ``scores`` sums up.
"""

from ctrs.vector.quality.matching import Matching, match_polygons
from ctrs.vector.quality.scores import Detection, PolygonQuality, measure_quality

__all__ = ["Detection", "Matching", "PolygonQuality", "match_polygons", "measure_quality"]
