"""Scores of objects: the connected areas of one class, matched between truth and prediction.

An object is a connected area of the class's pixels: by default of pixels that share an edge (4-connectivity, as GDAL
polygonizes by default), in the whole scene, however it was cut. Scenes do not join.

IoU of a true and a predicted object is counted over pixels whose truth is known. Matching at a threshold pairs objects
whose IoU is at least that; each object belongs to at most one pair. From 0.5 on there is nothing to choose: two
predicted objects that cover half of a true one each would touch, and be one. (A predicted one that joins two true ones
across ignored ground, half of it each, is one match whichever is taken.) Below, pairs with the greatest IoU are taken
first.

    precision = matched / predicted objects      recall = matched / true objects
    F1 = 2 matched / (predicted + true objects)

Average precision is that of COCO (Lin et al., Microsoft COCO, ECCV 2014; cocoeval): predicted objects of all scenes,
most confident first, are right if they match; precision, made monotone from the right, is read at 101 recalls from 0
to 1 and averaged. ``average_precision`` is its mean over the thresholds 0.50, 0.55, ..., 0.95. An object's confidence
is the mean over its pixels. Departures: no limit on objects per image, and equal confidences are ordered by scene and
first pixel.

What is left out, as in COCO (crowds, and objects outside the range of sizes): a predicted object is neither right nor
wrong if most of its pixels lie on ignored ground, or if fewer than ``min_px`` of them do not, unless it matches a true
object that counts. A true object of fewer than ``min_px`` is never missed, and what matches nothing but it is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ctrs.errors import UsageError
from ctrs.metrics.blocks import ScoredBlock
from ctrs.metrics.confusion import Counts, Scores, ratio
from ctrs.metrics.scene_objects import SceneObjects, SceneObjectsReader

AP_THRESHOLDS = tuple(number / 100 for number in range(50, 100, 5))
"""IoU thresholds of COCO's average precision."""

_RECALLS = np.linspace(0.0, 1.0, 101)


class ObjectCounts:
    """Collects the objects of a class.

    Memory grows with the number of objects and blocks, not with the area of the scene.

    Args:
        class_index: The class.
        iou: IoU from which a predicted object matches a true one, above 0 and at most 1.
        min_px: Objects of fewer pixels are left out.
        connectivity: 4: pixels of an object share edges; 8: or corners.
        ignore_index: Mask value of ignored pixels.

    >>> from ctrs.metrics import scored_blocks
    >>> truth = np.array([[1, 1, 0, 1], [1, 1, 0, 0]], np.uint8)
    >>> pred = np.array([[1, 1, 0, 0], [1, 0, 0, 0]], np.uint8)
    >>> objects = ObjectCounts(1)
    >>> for block in scored_blocks(truth, pred, block_px=2):
    ...     objects.update(block)
    >>> objects.counts.tolist(), objects.precision, objects.recall, objects.average_precision
    ([1, 1, 2], 1.0, 0.5, None)
    """

    halo_px = 0
    """Width of the halo that blocks must have."""

    def __init__(
        self, class_index: int, *, iou: float = 0.5, min_px: int = 1, connectivity: int = 4, ignore_index: int = 255
    ) -> None:
        if not (0 <= class_index < 255 and class_index < ignore_index <= 255):
            raise UsageError(
                f"objects: class_index {class_index} and ignore_index {ignore_index} found, "
                "expected 0 <= class_index < ignore_index <= 255"
            )
        if not 0 < iou <= 1 or min_px < 1 or connectivity not in (4, 8):
            raise UsageError(
                f"objects: iou {iou}, min_px {min_px} and connectivity {connectivity} found, "
                "expected above 0 up to 1, 1 or more, and 4 or 8"
            )
        self.class_index = class_index
        self.iou = float(iou)
        self.min_px = min_px
        self.connectivity = connectivity
        self.ignore_index = ignore_index
        self._scenes: list[SceneObjects] = []
        self._reader: SceneObjectsReader | None = None

    def update(self, block: ScoredBlock) -> None:
        """Read a block; a scene begins with its upper left one.

        Raises:
            UsageError: Blocks are not in order.
        """
        if self._reader is None:
            self._reader = SceneObjectsReader(
                self.class_index, connectivity=self.connectivity, ignore_index=self.ignore_index
            )
        if self._reader.update(block):
            self._scenes.append(self._reader.finish(self.min_px, min(self.iou, *AP_THRESHOLDS)))
            self._reader = None

    @property
    def scenes(self) -> tuple[SceneObjects, ...]:
        """Objects of each scene.

        Raises:
            UsageError: Blocks of a scene are still missing.
        """
        if self._reader is not None:
            raise UsageError("objects: blocks of the last scene are missing; give all of them first")
        return tuple(self._scenes)

    @property
    def counts(self) -> Counts:
        """Matched, predicted and true objects at ``iou``, int64 (3,): what scenes add up."""
        total: Counts = np.zeros(3, np.int64)
        for scene in self.scenes:
            matches = scene.match(self.iou, self.min_px)
            total += np.array([matches.matched.sum(), matches.counted.sum(), matches.num_true], np.int64)
        return total

    @property
    def precision(self) -> float:
        """Share of the predicted objects that match, NaN without any."""
        matched, predicted, _ = self.counts
        return float(ratio(matched, predicted))

    @property
    def recall(self) -> float:
        """Share of the true objects that are matched, NaN without any."""
        matched, _, true = self.counts
        return float(ratio(matched, true))

    @property
    def f1(self) -> float:
        """F1 of the objects, NaN without any."""
        return float(object_f1_of(self.counts))

    @property
    def average_precision(self) -> float | None:
        """Mean of ``average_precisions``; NaN without true objects, None where a prediction has no confidences."""
        each = self.average_precisions
        return None if each is None else float(each.mean())

    @property
    def average_precisions(self) -> Scores | None:
        """Average precision at each of ``AP_THRESHOLDS``, (10,); NaN without true objects, None without confidences."""
        if not self.has_confidence:
            return None
        return np.array([self._average_precision(threshold) for threshold in AP_THRESHOLDS])

    @property
    def has_confidence(self) -> bool:
        """Whether each scene came with confidences, so that its objects can be ranked."""
        return all(scene.confidence is not None for scene in self.scenes)

    def _average_precision(self, threshold: float) -> float:
        ranks, hits = [np.zeros(0)], [np.zeros(0, np.bool_)]
        num_true = 0
        for scene in self.scenes:
            matches = scene.match(threshold, self.min_px)
            if scene.confidence is not None:
                ranks.append(scene.confidence[matches.counted])
            hits.append(matches.matched[matches.counted])
            num_true += matches.num_true
        return interpolated_precision(np.concatenate(ranks), np.concatenate(hits), num_true)

    def merge(self, other: ObjectCounts) -> None:
        """Add the objects of other scenes.

        Raises:
            UsageError: They were collected with other options, or a scene is not complete.
        """
        if self._options() != other._options():
            raise UsageError(
                f"objects collected with {self._options()} and {other._options()} cannot be added; "
                "score both with the same options"
            )
        self._scenes = [*self.scenes, *other.scenes]

    def __add__(self, other: ObjectCounts) -> ObjectCounts:
        total = ObjectCounts(**self._options())
        total.merge(self)
        total.merge(other)
        return total

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ObjectCounts):
            return NotImplemented
        return self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]  # objects are added

    def _options(self) -> dict[str, Any]:
        return {
            "class_index": self.class_index,
            "iou": self.iou,
            "min_px": self.min_px,
            "connectivity": self.connectivity,
            "ignore_index": self.ignore_index,
        }

    def to_json(self) -> dict[str, Any]:
        """Return options and objects as values that JSON holds exactly."""
        return self._options() | {"scenes": [scene.to_json() for scene in self.scenes]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ObjectCounts:
        """Read what ``to_json`` gave."""
        objects = cls(**{name: value for name, value in values.items() if name != "scenes"})
        objects._scenes = [SceneObjects.from_json(scene) for scene in values["scenes"]]
        return objects


def object_f1_of(counts: npt.NDArray[Any]) -> Scores:
    """Return the F1, (...), of ``ObjectCounts.counts`` (..., 3)."""
    return ratio(2 * counts[..., 0], counts[..., 1] + counts[..., 2])


def interpolated_precision(confidence: Scores, hits: npt.NDArray[np.bool_], num_true: int) -> float:
    """Return COCO's average precision of ranked detections.

    Args:
        confidence: float64 (N,); equal ones stay in their order.
        hits: bool (N,), True for matched detections.
        num_true: Objects to be found.

    Returns:
        Mean of the interpolated precision at 101 recalls; NaN if there is nothing to be found.

    >>> interpolated_precision(np.array([0.9, 0.8]), np.array([True, False]), 2)
    0.504950495049505
    """
    if num_true == 0:
        return float("nan")
    order = np.argsort(-confidence, kind="stable")
    found = np.cumsum(hits[order])
    precision = found / np.arange(1, len(found) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(found / num_true, _RECALLS, side="left")
    return float(np.append(envelope, 0.0)[np.minimum(places, len(envelope))].mean())
