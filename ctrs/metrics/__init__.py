"""Scores of class masks: from pixels, outlines, objects, areas and confidences (numpy and scipy only).

``ConfusionMatrix`` counts pixels wherever they are. The other accumulators read a scene in ``ScoredBlock``s, in the
order of ``ctrs.training`` 's pass over it, so that memory does not grow with the scene.
"""

from ctrs.metrics.blocks import ScoredBlock
from ctrs.metrics.confusion import ConfusionMatrix, mean_over

__all__ = ["ConfusionMatrix", "ScoredBlock", "mean_over"]
