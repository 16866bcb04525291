"""Patches drawn for maps of embeddings: one class only, capped, and the same for the same seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ctrs.classes import IGNORE_INDEX
from ctrs.inspection.patch_samples import choose_tiles, sample_patches
from ctrs.tiles.manifest import Manifest

STRIDES = (4, 8, 16, 32)


@pytest.fixture
def masks():
    rng = np.random.default_rng(3)
    found = []
    for number in range(4):
        mask = rng.integers(0, 3, (5, 6)).repeat(13, 0).repeat(13, 1).astype(np.int64)
        mask[: 4 * number] = IGNORE_INDEX
        found.append(torch.from_numpy(mask))
    return found


def cells(samples):
    return list(zip(samples.tiles, samples.rows, samples.cols, samples.classes, strict=True))


def every_cell(masks, stride):
    """All one-class windows, by looking at each."""
    found = set()
    for number, mask in enumerate(masks):
        height, width = mask.shape
        for i in range(height // stride):
            for j in range(width // stride):
                seen = mask[i * stride : (i + 1) * stride, j * stride : (j + 1) * stride].unique().tolist()
                if len(seen) == 1 and seen[0] < 3:
                    found.add((number, i, j, seen[0]))
    return found


def test_all_patches_of_one_class_are_found_where_there_are_few(masks):
    for samples, stride in zip(
        sample_patches(masks, STRIDES, num_classes=3, samples=5000, seed=0), STRIDES, strict=True
    ):
        assert samples.stride == stride
        assert len(cells(samples)) == len(set(cells(samples)))
        assert set(cells(samples)) == every_cell(masks, stride)
    assert every_cell(masks, 4)


def test_caps_hold_for_each_class_and_draws_repeat_themselves(masks):
    first, again, other = (
        sample_patches(masks, STRIDES, num_classes=3, samples=20, seed=seed)[0] for seed in (0, 0, 1)
    )
    assert first.counts(3) == (20, 20, 20)
    assert cells(first) == cells(again)
    assert set(cells(first)) != set(cells(other))
    assert set(cells(first)) <= every_cell(masks, 4)
    assert cells(first) == sorted(cells(first), key=lambda cell: (cell[3], *cell[:3]))
    assert len({cell[0] for cell in cells(first)}) == 4  # from all tiles


def test_a_stage_is_drawn_alike_whether_or_not_others_are(masks):
    alone = sample_patches(masks, (8,), num_classes=3, samples=10, seed=0)[0]
    among = sample_patches(masks, STRIDES, num_classes=3, samples=10, seed=0)[1]
    assert cells(alone) == cells(among)


def test_each_patch_has_the_same_chance():
    mask = torch.zeros(64, 64, dtype=torch.int64)
    counts = np.zeros((16, 16))
    for seed in range(300):
        found = sample_patches([mask], (4,), num_classes=1, samples=64, seed=seed)[0]
        counts[found.rows, found.cols] += 1
    assert counts.mean() == pytest.approx(300 * 64 / 256)
    assert abs(counts - counts.mean()).max() < 5 * np.sqrt(300 * 0.25 * 0.75)


def test_tiles_have_draws_of_their_own():
    mask = torch.zeros(64, 64, dtype=torch.int64)
    found = cells(sample_patches([mask, mask], (4,), num_classes=1, samples=200, seed=0)[0])
    first, second = ({cell[1:3] for cell in found if cell[0] == tile} for tile in (0, 1))
    assert len(first & second) < 0.7 * len(first)


def test_more_classes_than_a_word_holds():
    mask = torch.arange(64).view(8, 8).repeat_interleave(4, 0).repeat_interleave(4, 1)
    found = sample_patches([mask], (4,), num_classes=64, samples=2, seed=0)[0]
    assert found.counts(64) == (1,) * 64
    assert (found.rows * 8 + found.cols == found.classes).all()


def test_tiles_of_rare_classes_are_chosen(prepared):
    tiles = Manifest.open(prepared(train=6, val=0)).tiles
    common = [replace(tile, class_counts=(4096, 0)) for tile in tiles] * 10
    rare = replace(tiles[0], scene="rare", class_counts=(4000, 96))
    for seed in range(5):
        chosen = choose_tiles([*common, rare], 4, seed=seed)
        assert len(chosen) == 4
        assert rare in chosen
    assert choose_tiles(tiles, 6, seed=0) == tiles
    assert len(choose_tiles([replace(tile, class_counts=(0, 0)) for tile in tiles], 3, seed=0)) == 3
