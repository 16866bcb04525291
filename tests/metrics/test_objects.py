"""Objects against labelling of the whole scene, and average precision against COCO's procedure step by step."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import ndimage

from ctrs.errors import UsageError
from ctrs.metrics import ObjectCounts, ScoredBlock, object_f1_of, scored_blocks
from ctrs.metrics.objects import AP_THRESHOLDS, interpolated_precision
from tests.metrics.scenes import Scene, random_scene, read, scenes

NAN = float("nan")

options = st.fixed_dictionaries(
    {
        "iou": st.sampled_from([0.1, 1 / 3, 0.5, 0.75, 1.0]),
        "min_px": st.sampled_from([1, 2, 5]),
        "connectivity": st.sampled_from([4, 8]),
    }
)


def whole_objects(flags, connectivity):
    """Each object's pixels as a set, by the first pixel."""
    structure = np.ones((3, 3)) if connectivity == 8 else None
    labels, number = ndimage.label(flags, structure)
    objects = [set(np.flatnonzero(labels.ravel() == label).tolist()) for label in range(1, number + 1)]
    return sorted(objects, key=min)


class NaiveScene:
    """A scene's objects as lists, and COCO's matching written out."""

    def __init__(self, scene, index, *, iou, min_px, connectivity):
        known = set(np.flatnonzero(scene.truth.ravel() != 255).tolist())
        confidence = scene.confidence.ravel().astype(np.float64)
        self.true = whole_objects(scene.truth == index, connectivity)
        found = whole_objects(scene.pred == index, connectivity)
        self.scores = [float(np.mean([confidence[p] for p in pixels])) for pixels in found]
        self.pred = [pixels & known for pixels in found]
        self.crowd = [len(pixels & known) < len(pixels) / 2 for pixels in found]
        self.large = [len(pixels) >= min_px for pixels in self.true]
        self.min_px = min_px

    def iou(self, t, p):
        shared = len(self.true[t] & self.pred[p])
        return shared / (len(self.true[t]) + len(self.pred[p]) - shared)

    def outcome(self, partner):
        """Matched and counted for each predicted object, given the true object that each has."""
        matched = [t is not None and self.large[t] for t in partner]
        counted = []
        for p, t in enumerate(partner):
            left_out = t is not None or self.crowd[p] or len(self.pred[p]) < self.min_px
            counted.append(matched[p] or not left_out)
        return matched, counted

    def coco(self, threshold):
        """Detections by score; each takes the best free object that counts, else the best of the others."""
        partner, taken = [None] * len(self.pred), set()
        for p in sorted(range(len(self.pred)), key=lambda p: -self.scores[p]):
            for counts in (True, False):
                best, best_iou = None, 0.0
                for t in range(len(self.true)):
                    if t in taken or self.large[t] != counts or self.iou(t, p) < threshold:
                        continue
                    if self.iou(t, p) > best_iou:
                        best, best_iou = t, self.iou(t, p)
                if best is not None:
                    partner[p] = best
                    taken.add(best)
                    break
        return self.outcome(partner)

    def greedy(self, threshold):
        """The greatest IoU first, objects that count before others."""
        pairs = [
            (not self.large[t], -self.iou(t, p), p, t) for t in range(len(self.true)) for p in range(len(self.pred))
        ]
        partner, taken = [None] * len(self.pred), set()
        for _, minus_iou, p, t in sorted(pairs):
            if -minus_iou >= threshold and partner[p] is None and t not in taken:
                partner[p] = t
                taken.add(t)
        return self.outcome(partner)


def naive_average_precision(scenes, threshold):
    """Precision at 101 recalls, as in cocoeval's accumulate, without its epsilon."""
    ranked, num_true = [], 0
    for scene in scenes:
        matched, counted = scene.coco(threshold)
        ranked += [(score, hit) for score, hit, keep in zip(scene.scores, matched, counted, strict=True) if keep]
        num_true += sum(scene.large)
    if not num_true:
        return NAN
    ranked.sort(key=lambda entry: -entry[0])
    recalls, precisions, hits = [], [], 0
    for number, (_, hit) in enumerate(ranked, 1):
        hits += hit
        recalls.append(hits / num_true)
        precisions.append(hits / number)
    total = 0.0
    for recall in np.linspace(0, 1, 101):
        total += max((p for r, p in zip(recalls, precisions, strict=True) if r >= recall), default=0.0)
    return total / 101


@given(st.lists(scenes, min_size=1, max_size=3), options)
def test_equals_naive_matching(drawn, chosen):
    objects = ObjectCounts(0, **chosen)
    for scene in drawn:
        read(objects, scene, 7)
    naive = [NaiveScene(scene, 0, **chosen) for scene in drawn]
    expected = np.zeros(3, int)
    for scene in naive:
        matched, counted = scene.greedy(chosen["iou"])
        expected += (sum(matched), sum(counted), sum(scene.large))
    assert objects.counts.tolist() == expected.tolist()
    each = [naive_average_precision(naive, threshold) for threshold in AP_THRESHOLDS]
    np.testing.assert_allclose(objects.average_precisions, each, rtol=0, atol=1e-12)
    np.testing.assert_allclose(objects.average_precision, np.mean(each), rtol=0, atol=1e-12)


@given(scenes, options, st.integers(1, 30))
def test_blocks_of_any_size_give_the_whole_scene(scene, chosen, block_px):
    assert read(ObjectCounts(0, **chosen), scene, block_px) == read(ObjectCounts(0, **chosen), scene)


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("block_px", [1, 2, 3, 5, 64])
def test_a_spiral_is_one_object_however_it_is_cut(connectivity, block_px):
    mask = np.zeros((41, 41), np.uint8)
    y = x = 20
    dy, dx, step = 0, 1, 2
    mask[y, x] = 1
    while step < 40:
        for _ in range(2):
            for _ in range(step):
                y, x = y + dy, x + dx
                if 0 <= y < 41 and 0 <= x < 41:
                    mask[y, x] = 1
            dy, dx = dx, -dy
        step += 2
    scene = Scene(mask, mask, np.ones(mask.shape, np.float32), 2)
    objects = read(ObjectCounts(1, connectivity=connectivity), scene, block_px)
    assert objects.counts.tolist() == [1, 1, 1]
    assert objects.scenes[0].true_px.tolist() == [int(mask.sum())]


def test_corners_join_with_8_neighbours_only():
    mask = np.eye(12, dtype=np.uint8)
    mask = mask | mask[:, ::-1]
    for block_px in (1, 2, 3, 4, 12):
        joined = {
            connectivity: read(ObjectCounts(1, connectivity=connectivity), Scene(mask, mask, None, 2), block_px)
            for connectivity in (4, 8)
        }
        assert joined[8].counts.tolist() == [1, 1, 1]
        assert joined[4].counts.tolist() == [21, 21, 21]


def mask_of(text):
    return np.array([[int(c) if c.isdigit() else 255 for c in row] for row in text.split()], np.uint8)


def score(truth, pred, confidence=None, **chosen):
    truth, pred = mask_of(truth), mask_of(pred)
    return read(ObjectCounts(1, **chosen), Scene(truth, pred, confidence, 2))


def test_predictions_on_ignored_ground_are_left_out():
    objects = score("1100___ 1100___", "1100110 1100110")
    assert objects.counts.tolist() == [1, 1, 1]
    half = score("00__ 00__", "0110 0110")  # half of it on known ground: a false alarm
    assert half.counts.tolist() == [0, 1, 0]
    assert half.precision == 0
    assert np.isnan(half.recall)
    found = score("11______", "11111111")  # most of it on ignored ground, but all that is known is right
    assert found.counts.tolist() == [1, 1, 1]


def test_small_objects_are_left_out():
    assert score("1101 1100", "1101 1100", min_px=2).counts.tolist() == [1, 1, 1]
    assert score("11110", "11100", min_px=4).counts.tolist() == [1, 1, 1]  # a small one that matches one that counts
    assert score("11100", "11110", min_px=4).counts.tolist() == [0, 0, 0]  # a large one that matches only a small one
    assert score("00000", "01110", min_px=4).counts.tolist() == [0, 0, 0]
    assert score("00000", "01110", min_px=3).counts.tolist() == [0, 1, 0]


def test_one_true_object_is_matched_once():
    """Two halves of IoU 0.5 each: one is right, the other a false alarm."""
    objects = score("1111", "1011", iou=0.25)
    assert objects.counts.tolist() == [1, 2, 1]
    two = score("111111 000000 111111", "101111 100000 111011", iou=0.3)
    assert two.counts.tolist() == [2, 3, 2]


def test_a_bridge_over_ignored_ground_matches_once():
    """One predicted object, half of it on each of two true ones."""
    objects = score("11_11", "11111")
    assert objects.counts.tolist() == [1, 1, 2]


def test_average_precision_ranks_by_confidence():
    """Two true objects; a false alarm ranked first costs more than one ranked last."""
    truth, pred = "11000 00000 00011", "11000 00011 00000"
    scores = {}
    for low, high in ((0.6, 0.9), (0.9, 0.6)):
        confidence = np.full((3, 5), low, np.float32)
        confidence[1] = high
        scores[high] = score(truth, pred, confidence).average_precision
    np.testing.assert_allclose([scores[0.6], scores[0.9]], [51 / 101, 51 / 101 / 2], rtol=0, atol=1e-12)
    without = score(truth, pred)
    assert without.average_precision is None
    assert without.average_precisions is None
    assert not without.has_confidence


def test_average_precision_without_true_or_predicted_objects():
    confidence = np.ones((1, 4), np.float32)
    assert np.isnan(score("0000", "0110", confidence).average_precision)
    assert np.isnan(score("0000", "0000", confidence).average_precision)
    assert score("0110", "0000", confidence).average_precision == 0
    assert score("0110", "0110", confidence).average_precision == 1
    assert np.isnan(score("0000", "0000").f1)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=12), st.integers(0, 3))
@example([], 1)
def test_interpolation_equals_the_greatest_precision_further_right(ranked, missed):
    confidence, hits = np.array([c / 5 for c, _ in ranked]), np.array([hit for _, hit in ranked], bool)
    num_true = int(hits.sum()) + missed
    got = interpolated_precision(confidence, hits, num_true)
    if not num_true:
        assert np.isnan(got)
        return
    order = sorted(range(len(ranked)), key=lambda place: -confidence[place])
    curve = [(sum(hits[order[: n + 1]]) / num_true, sum(hits[order[: n + 1]]) / (n + 1)) for n in range(len(order))]
    expected = np.mean([max((p for r, p in curve if r >= recall), default=0.0) for recall in np.linspace(0, 1, 101)])
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


def test_adds_and_goes_to_json():
    one, two = (read(ObjectCounts(1), random_scene(seed, (40, 30), 2), 16) for seed in (1, 2))
    total = one + two
    assert len(total.scenes) == 2
    assert total.counts.tolist() == (one.counts + two.counts).tolist()
    back = ObjectCounts.from_json(json.loads(json.dumps(total.to_json())))
    assert back == total != one
    assert back.average_precisions.tolist() == total.average_precisions.tolist()
    f1 = 2 / (1 / total.precision + 1 / total.recall)
    np.testing.assert_allclose([total.f1, object_f1_of(np.stack([total.counts] * 2))[1]], f1, rtol=1e-12)
    with pytest.raises(UsageError, match="score both with the same options"):
        one.merge(ObjectCounts(1, min_px=2))
    empty = ObjectCounts.from_json(ObjectCounts(1).to_json())
    assert empty.counts.tolist() == [0, 0, 0]


def test_refuses_blocks_out_of_order():
    scene = random_scene(1, (20, 20), 2)
    blocks = list(scored_blocks(scene.truth, scene.pred, block_px=8))
    objects = ObjectCounts(1)
    objects.update(blocks[0])
    with pytest.raises(UsageError, match="expected that at row 0, column 8"):
        objects.update(blocks[2])
    with pytest.raises(UsageError, match="blocks of the last scene are missing"):
        objects.counts  # noqa: B018
    other = ScoredBlock(
        truth=scene.truth[:8, 8:16],
        pred=scene.pred[:8, 8:16],
        core=(slice(None), slice(None)),
        row_off=0,
        col_off=8,
        scene_shape=(30, 30),
    )
    with pytest.raises(UsageError, match="give the blocks of a scene row by row"):
        objects.update(other)
    for chosen in ({"iou": 0}, {"min_px": 0}, {"connectivity": 6}, {"ignore_index": 1}):
        with pytest.raises(UsageError, match="objects: "):
            ObjectCounts(1, **chosen)
