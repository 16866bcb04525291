"""The objects of one scene, true and predicted: found block by block, and matched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ctrs.errors import UsageError
from ctrs.metrics.blocks import ScoredBlock
from ctrs.metrics.confusion import Counts, Scores

Flags = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.int64]

_UNITS = 2.0**28
"""Confidences are summed as integers of 2^-28, so that an object's mean does not depend on how the scene was cut."""

_CHUNK_PX = 1 << 24
"""Sums of so many confidences in these units stay below 2^53, so that float64 holds them exactly."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Matches:
    """Which objects of a scene belong together.

    Args:
        matched: bool (P,), predicted objects that match a true one that counts.
        counted: bool (P,), predicted objects that are not left out; all matched ones are among them.
        num_true: True objects that count.
    """

    matched: Flags
    counted: Flags
    num_true: int


@dataclass(frozen=True, kw_only=True, eq=False)
class SceneObjects:
    """The objects of a scene, each kind in the order of their first pixels.

    Args:
        true_px: int64 (T,), pixels of each true object.
        pred_px: int64 (P,), pixels of each predicted object whose truth is known.
        pred_ignored_px: int64 (P,), its pixels on ignored ground.
        confidence: float64 (P,), mean confidence over all its pixels; None where it is not known.
        pairs: int64 (N, 3): true object, predicted object, pixels they share; those that could match.
    """

    true_px: Counts
    pred_px: Counts
    pred_ignored_px: Counts
    confidence: Scores | None
    pairs: Counts

    def match(self, threshold: float, min_px: int) -> Matches:
        """Pair true and predicted objects of at least the given IoU.

        Args:
            threshold: Least IoU of a pair.
            min_px: Objects of fewer pixels are left out.
        """
        true, pred, shared = self.pairs.T
        iou = shared / (self.true_px[true] + self.pred_px[pred] - shared)
        near = iou >= threshold
        true, pred, iou = true[near], pred[near], iou[near]
        large = self.true_px >= min_px
        if threshold < 0.5:
            taken = self._choose(true, pred, iou, large)
            true, pred = true[taken], pred[taken]
        partner = np.full(len(self.pred_px), -1, np.int64)
        partner[pred] = true
        paired = partner >= 0
        matched = np.zeros(len(partner), np.bool_)
        matched[paired] = large[partner[paired]]
        left_out = (self.pred_px < min_px) | (self.pred_ignored_px > self.pred_px) | paired
        return Matches(matched=matched, counted=matched | ~left_out, num_true=int(np.count_nonzero(large)))

    def _choose(self, true: Labels, pred: Labels, iou: Scores, large: Flags) -> list[int]:
        """Return the pairs to keep, so that no object has two partners."""
        # True objects that count are taken before those too small to; then the greatest IoU; then the first pixels.
        free_true, free_pred = np.ones(len(self.true_px), np.bool_), np.ones(len(self.pred_px), np.bool_)
        taken = []
        for pair in np.lexsort([true, pred, -iou, ~large[true]]).tolist():
            if free_true[true[pair]] and free_pred[pred[pair]]:
                free_true[true[pair]] = free_pred[pred[pair]] = False
                taken.append(pair)
        return taken

    def to_json(self) -> dict[str, Any]:
        """Return the objects as values that JSON holds exactly."""
        return {
            "true_px": self.true_px.tolist(),
            "pred_px": self.pred_px.tolist(),
            "pred_ignored_px": self.pred_ignored_px.tolist(),
            "confidence": None if self.confidence is None else self.confidence.tolist(),
            "pairs": self.pairs.tolist(),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SceneObjects:
        """Read what ``to_json`` gave."""
        counts = {name: np.asarray(values[name], np.int64) for name in ("true_px", "pred_px", "pred_ignored_px")}
        confidence = values["confidence"]
        return cls(
            **counts,
            confidence=None if confidence is None else np.asarray(confidence, np.float64),
            pairs=np.asarray(values["pairs"], np.int64).reshape(-1, 3),
        )


class SceneObjectsReader:
    """Finds the objects of a scene in its blocks.

    Each block's areas are labelled apart. What touches across block edges is noted, and joined at the end; of the
    pixels only the last row of blocks' lower edge and the last block's right edge are kept.

    Args:
        class_index: The class.
        connectivity: 4 or 8.
        ignore_index: Mask value of ignored pixels.
    """

    def __init__(self, class_index: int, *, connectivity: int, ignore_index: int) -> None:
        self._class_index = class_index
        self._ignore_index = ignore_index
        self._true = _Areas(connectivity)
        self._pred = _Areas(connectivity)
        self._true_px: list[Counts] = []
        self._pred_px: list[Counts] = []  # (2, n): on known and on ignored ground
        self._units: list[Counts] | None = []  # sums of confidence
        self._pairs: list[Counts] = []
        self._next = (0, 0)  # where the next block begins
        self._scene_shape: tuple[int, int] | None = None

    def update(self, block: ScoredBlock) -> bool:
        """Read a block and return whether the scene is complete.

        Raises:
            UsageError: Another block was due.
        """
        truth, pred = block.core_truth, block.core_pred
        self._require_order(block, truth.shape)
        true_base, pred_base = self._true.count, self._pred.count
        true_labels, _, num_true = self._true.update(truth == self._class_index, block)
        pred_labels, inside, num_pred = self._pred.update(pred == self._class_index, block)
        self._true_px.append(np.bincount(true_labels, minlength=num_true + 1)[1:])
        places = pred_labels[inside].astype(np.int64) - 1
        known = truth.ravel()[inside] != self._ignore_index
        px = np.bincount(places + num_pred * ~known, minlength=2 * num_pred)[: 2 * num_pred]
        self._pred_px.append(px.reshape(2, num_pred))
        self._add_confidence(block, inside, places, num_pred)
        true_places = true_labels[inside].astype(np.int64) - 1
        both = true_places >= 0
        keys, shared = _count_runs(true_places[both] * max(num_pred, 1) + places[both])
        true, guessed = np.divmod(keys, max(num_pred, 1))
        self._pairs.append(np.stack([true + true_base, guessed + pred_base, shared], axis=1))
        return block.is_last

    def _require_order(self, block: ScoredBlock, shape: tuple[int, int]) -> None:
        if self._scene_shape is None:
            self._scene_shape = block.scene_shape
        if (block.row_off, block.col_off) != self._next or block.scene_shape != self._scene_shape:
            raise UsageError(
                f"objects: block at row {block.row_off}, column {block.col_off} of a scene of {block.scene_shape} px "
                f"found, expected that at row {self._next[0]}, column {self._next[1]} of {self._scene_shape} px; "
                "give the blocks of a scene row by row, each row from the left"
            )
        ends_row = block.col_off + shape[1] == block.scene_shape[1]
        self._next = (block.row_off + shape[0], 0) if ends_row else (block.row_off, block.col_off + shape[1])

    def _add_confidence(self, block: ScoredBlock, inside: Labels, places: Labels, num_pred: int) -> None:
        if block.confidence is None or self._units is None:
            self._units = None
            return
        units = np.zeros(num_pred, np.int64)
        confidence = block.confidence.ravel()
        for start in range(0, len(inside), _CHUNK_PX):
            piece = slice(start, start + _CHUNK_PX)
            values = np.rint(confidence[inside[piece]].astype(np.float64) * _UNITS)
            units += np.bincount(places[piece], weights=values, minlength=num_pred).astype(np.int64)
        self._units.append(units)

    def finish(self, min_px: int, least_iou: float) -> SceneObjects:
        """Join what touches across blocks, and return the objects.

        What can have no part in any score is dropped: pairs below the least IoU, and predicted objects without a pair
        that are smaller than ``min_px`` or lie mostly on ignored ground.
        """
        true_of, num_true = self._true.join()
        pred_of, num_pred = self._pred.join()
        true_px = _sum_by(true_of, np.concatenate(self._true_px), num_true)
        known, ignored = (_sum_by(pred_of, row, num_pred) for row in np.concatenate(self._pred_px, axis=1))
        confidence = None
        if self._units is not None:
            confidence = _sum_by(pred_of, np.concatenate(self._units), num_pred) / _UNITS / (known + ignored)
        pieces = np.concatenate(self._pairs)
        keys, inverse = np.unique(true_of[pieces[:, 0]] * max(num_pred, 1) + pred_of[pieces[:, 1]], return_inverse=True)
        shared = _sum_by(inverse, pieces[:, 2], len(keys))
        true, pred = np.divmod(keys, max(num_pred, 1))
        near = shared / (true_px[true] + known[pred] - shared) >= least_iou
        true, pred, shared = true[near], pred[near], shared[near]
        kept = (known >= min_px) & (ignored <= known)
        kept[pred] = True
        renumbered = np.cumsum(kept) - 1
        return SceneObjects(
            true_px=true_px,
            pred_px=known[kept],
            pred_ignored_px=ignored[kept],
            confidence=None if confidence is None else confidence[kept],
            pairs=np.stack([true, renumbered[pred], shared], axis=1),
        )


class _Areas:
    """Connected areas of a scene's flags, from those of its blocks."""

    def __init__(self, connectivity: int) -> None:
        self._diagonal = connectivity == 8
        self._structure = ndimage.generate_binary_structure(2, 2 if self._diagonal else 1)
        self._first: list[Labels] = []  # index of each piece's first pixel in the scene
        self._touching: list[Labels] = []  # (n, 2) pieces that touch across block edges
        self.count = 0
        """Pieces so far."""
        self._above = np.zeros(0, np.int64)  # piece + 1 along the lower edge of the row of blocks above; 0: none
        self._below = np.zeros(0, np.int64)  # likewise of this row of blocks, as far as it was read
        self._left = np.zeros(0, np.int64)  # likewise along the right edge of the block before

    def update(self, flags: Flags, block: ScoredBlock) -> tuple[npt.NDArray[np.int32], Labels, int]:
        """Label a block's flags.

        Returns:
            Labels of the block's pixels, row after row, 0 where there is no flag; which of them have a label; the
            number n of labels. They stand for the n pieces from the old ``count`` on.
        """
        base = self.count
        labels, number = ndimage.label(flags, self._structure)
        width = block.scene_shape[1]
        if block.col_off == 0:
            self._above, self._below = self._below, np.zeros(width, np.int64)
        flat, inside = labels.ravel(), np.flatnonzero(flags)
        first = np.zeros(number, np.int64)
        first[flat[inside[::-1]] - 1] = inside[::-1]  # of repeated places the last value stays
        rows, columns = np.divmod(first, max(flags.shape[1], 1))
        self._first.append((rows + block.row_off) * width + columns + block.col_off)
        top, bottom, left, right = (
            np.where(edge > 0, edge.astype(np.int64) + base, 0)
            for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1])
        )
        start, stop = block.col_off, block.col_off + flags.shape[1]
        if block.row_off:
            self._touch(self._above[start:stop], top)
            if self._diagonal:
                # Neighbours aslant, also those of the blocks above left and above right.
                padded = np.pad(self._above, 1)
                self._touch(padded[start:stop], top)
                self._touch(padded[start + 2 : stop + 2], top)
        if block.col_off:
            self._touch(self._left, left)
            if self._diagonal:
                self._touch(self._left[:-1], left[1:])
                self._touch(self._left[1:], left[:-1])
        self._below[start:stop] = bottom
        self._left = right
        self.count += number
        return flat, inside, number

    def _touch(self, ours: Labels, theirs: Labels) -> None:
        both = (ours > 0) & (theirs > 0)
        if both.any():
            self._touching.append(np.unique(np.stack([ours[both], theirs[both]], axis=1), axis=0) - 1)

    def join(self) -> tuple[Labels, int]:
        """Return the area of each piece, numbered by their first pixels, and the number of areas."""
        if not self.count:
            return np.zeros(0, np.int64), 0
        first = np.concatenate(self._first)
        touching = np.concatenate(self._touching) if self._touching else np.zeros((0, 2), np.int64)
        graph = coo_array(
            (np.ones(len(touching), np.bool_), (touching[:, 0], touching[:, 1])), shape=(self.count, self.count)
        )
        number, areas = connected_components(graph, directed=False)
        beginnings = np.full(number, np.iinfo(np.int64).max)
        np.minimum.at(beginnings, areas, first)
        rank = np.empty(number, np.int64)
        rank[np.argsort(beginnings)] = np.arange(number)
        return rank[areas], int(number)


def _count_runs(keys: Labels) -> tuple[Labels, Counts]:
    """Return the distinct keys and how often each is there; quick where equal ones stand side by side."""
    if not len(keys):
        return keys, keys
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    distinct, inverse = np.unique(keys[starts], return_inverse=True)
    return distinct, _sum_by(inverse, np.diff(starts, append=len(keys)), len(distinct))


def _sum_by(places: Labels, values: Counts, number: int) -> Counts:
    """Return the sums of the values that share a place, int64 (number,)."""
    sums: Counts = np.zeros(number, np.int64)
    np.add.at(sums, places, values)
    return sums
