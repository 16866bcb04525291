from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrs.data.sampling import (
    FEWEST_DRAWS,
    MOST_DRAWS,
    EpochOrder,
    OrderedBatches,
    SampleKey,
    TrainingBatches,
    class_balanced_repeats,
    epoch_order_of,
    repeat_factors,
)
from ctrs.data.tile_store import TileStore
from ctrs.errors import ConfigError
from ctrs.raster.windows import PixelWindow
from ctrs.tiles.manifest import Tile


def tiles_with(counts: Sequence[tuple[int, ...]], shapes: Sequence[tuple[int, int]] = ()) -> list[Tile]:
    return [
        Tile(
            scene="scene", split="train", image=Path(f"{number}.tif"), mask=Path(f"{number}.tif"), valid_fraction=1.0,
            window=PixelWindow(col_off=0, row_off=0, width=shape[1], height=shape[0]), class_counts=count,
        )
        for number, (count, shape) in enumerate(zip(counts, shapes or [(8, 8)] * len(counts), strict=True))
    ]  # fmt: skip


def batches_of(num_tiles: int, batch_size: int, **options: Any) -> TrainingBatches:
    return TrainingBatches(EpochOrder(num_tiles, seed=0), batch_size, **options)


def test_shuffle_takes_each_tile_once_in_the_order_that_runs_have_always_had() -> None:
    order = epoch_order_of(tiles_with([(1, 1)] * 50), "shuffle", 0.1, seed=1)
    assert order(2) == np.random.default_rng(np.random.SeedSequence([1, 2])).permutation(50).tolist()
    assert sorted(order(2)) == list(range(50))
    assert order(2) == order(2) != order(3)
    assert order(2) != EpochOrder(50, seed=2)(2)
    assert len(order) == 50


def test_repeat_factors_are_those_of_the_formula() -> None:
    counts = [[5, 0, 0]] * 90 + [[5, 1, 0]] * 9 + [[0, 7, 2]] + [[0, 0, 0]]
    found = repeat_factors(counts, 0.4)
    num = len(counts)
    rare, rarest = (0.4 / (10 / num)) ** 0.5, (0.4 / (1 / num)) ** 0.5
    np.testing.assert_allclose(found, [1.0] * 90 + [rare] * 9 + [rarest] + [1.0])
    assert repeat_factors(counts, 0.001).tolist() == [1.0] * num  # nothing is that rare


@pytest.mark.parametrize("sampling", ["class-balanced", "repeat-factor"])
def test_tiles_are_drawn_as_often_as_expected_in_epochs_of_one_length(sampling: Any) -> None:
    rng = np.random.default_rng(0)
    counts = [(int(rng.integers(50, 100)), int(rng.integers(1, 30)) if rng.random() < 0.2 else 0) for _ in range(40)]
    order = epoch_order_of(tiles_with(counts), sampling, 0.5, seed=0)
    expected = class_balanced_repeats(counts) if sampling == "class-balanced" else repeat_factors(counts, 0.5)
    epochs = [order(epoch) for epoch in range(600)]
    assert {len(epoch) for epoch in epochs} == {len(order)} == {int(expected.sum() + 1e-6)}
    drawn = np.array([np.bincount(epoch, minlength=40) for epoch in epochs])
    assert ((drawn >= np.floor(expected) - (len(order) < expected.sum())) & (drawn <= np.ceil(expected))).all()
    np.testing.assert_allclose(drawn.mean(axis=0), expected, atol=0.1)
    assert order(5) == epoch_order_of(tiles_with(counts), sampling, 0.5, seed=0)(5)
    assert len({tuple(epoch[:10]) for epoch in epochs}) == 600


def test_classes_get_equal_shares_where_draws_can_give_them() -> None:
    counts = np.array([[100, 0, 0]] * 30 + [[60, 40, 0]] * 10 + [[50, 0, 50]] * 5)
    repeats = class_balanced_repeats(counts)
    before, after = counts.sum(axis=0), repeats @ counts
    np.testing.assert_allclose(before / before.sum(), [0.86, 0.09, 0.05], atol=0.02)
    share = after / after.sum()
    assert repeats[0] == pytest.approx(FEWEST_DRAWS)  # as few as allowed: then no draws give the others more than 0.19
    assert share[1:].min() > 0.17
    counts = np.array([[100, 0]] * 15 + [[0, 100]] * 5)
    repeats = class_balanced_repeats(counts)
    np.testing.assert_allclose((repeats @ counts) / 2000, [0.5, 0.5], atol=1e-6)


@settings(max_examples=30)
@given(st.lists(st.tuples(*[st.integers(0, 50)] * 3), min_size=1, max_size=30))
def test_balanced_draws_stay_within_bounds_whatever_the_tiles_hold(counts: list[tuple[int, ...]]) -> None:
    repeats = class_balanced_repeats(counts)
    assert repeats.mean() == pytest.approx(1)
    assert repeats.min() >= FEWEST_DRAWS - 1e-6
    assert repeats.max() <= MOST_DRAWS + 1e-6
    pixels = np.array(counts, float)
    pixels = pixels[:, pixels.sum(axis=0) > 0]
    if pixels.shape[1] > 1:  # the worst share does not get worse by more than the bounds' rounding
        before, after = pixels.sum(axis=0), repeats @ pixels
        assert np.log(after / len(counts)).sum() >= np.log(before / len(counts)).sum() - 1e-6


def test_repetitions_of_a_tile_have_keys_of_their_own() -> None:
    order = epoch_order_of(tiles_with([(9, 0)] * 9 + [(5, 5)]), "repeat-factor", 1.0, seed=0)
    batches = TrainingBatches(order, 4)
    batches.epoch = 3
    keys = [key for batch in batches for key in batch]
    assert len(set(keys)) == len(keys)
    rare = [key.repetition for key in keys if key.tile == 9]
    assert len(rare) >= 2
    assert rare == list(range(len(rare)))
    assert {key.epoch for key in keys} == {3}


@pytest.mark.parametrize(
    ("tiles", "size", "expected"), [(10, 4, [4, 4]), (8, 4, [4, 4]), (3, 4, [3]), (4, 4, [4]), (5, 4, [4]), (1, 1, [1])]
)
def test_the_last_incomplete_batch_is_dropped_unless_it_is_the_only_one(
    tiles: int, size: int, expected: list[int]
) -> None:
    batches = batches_of(tiles, size)
    assert [len(batch) for batch in batches] == expected
    assert len(batches) == batches.num_steps == len(expected)


@settings(max_examples=40)
@given(
    world_size=st.integers(1, 4),
    accumulate=st.integers(1, 3),
    each=st.integers(1, 3),
    steps=st.integers(1, 4),
    rest=st.integers(0, 5),
    epoch=st.integers(0, 5),
)
def test_processes_and_parts_share_the_batches_of_a_single_process(
    world_size: int, accumulate: int, each: int, steps: int, rest: int, epoch: int
) -> None:
    size = world_size * accumulate * each
    tiles = size * steps + rest % size
    whole = batches_of(tiles, size)
    whole.epoch = epoch
    ranks = [
        batches_of(tiles, size, rank=rank, world_size=world_size, accumulate=accumulate) for rank in range(world_size)
    ]
    for rank in ranks:
        rank.epoch = epoch
        assert len(rank) == len(list(rank)) == steps * accumulate
        assert rank.num_steps == steps
    parts = [list(rank) for rank in ranks]
    for step, batch in enumerate(whole):
        shared = [key for part in parts for micro in part[step * accumulate : (step + 1) * accumulate] for key in micro]
        assert shared == batch


def test_a_pass_goes_on_within_an_epoch() -> None:
    batches = batches_of(20, 4, accumulate=2)
    batches.epoch = 2
    whole = list(batches)
    batches.first_step = 3
    assert len(batches) == 4
    assert batches.num_steps == 5
    assert list(batches) == whole[6:]


def test_batches_that_cannot_be_shared_evenly_are_refused() -> None:
    with pytest.raises(ConfigError, match="= 6 found, expected a multiple of devices x accumulate = 2 x 2"):
        batches_of(20, 6, world_size=2, accumulate=2)
    with pytest.raises(ConfigError, match="an epoch has only 3 tiles, which devices x accumulate = 2 x"):
        batches_of(3, 4, world_size=2)


def test_ordered_batches_hold_every_tile_once_and_one_shape_each() -> None:
    shapes = [(32, 32), (32, 32), (20, 32), (32, 32), (20, 32)]
    store = TileStore(tiles_with([(1, 1)] * 5, shapes))
    assert [[key.tile for key in batch] for batch in OrderedBatches(store, 2)] == [[0, 1], [3], [2, 4]]
    assert all(key == SampleKey(0, key.tile) for batch in OrderedBatches(store, 2) for key in batch)
    for world_size in (2, 3, 5):
        ranks = [OrderedBatches(store, 2, rank=rank, world_size=world_size) for rank in range(world_size)]
        assert sum(len(rank) for rank in ranks) == 3
        seen = Counter(key.tile for rank in ranks for batch in rank for key in batch)
        assert seen == Counter(range(5))


def test_each_tile_is_drawn_as_often_as_asked_for() -> None:
    order = epoch_order_of(tiles_with([(1, 1)] * 7), "shuffle", 0.1, seed=1, draws=3)
    assert len(order) == 21
    assert np.bincount(order(0)).tolist() == [3] * 7
    assert order(0) != order(1)
    counts = [(9, 0)] * 8 + [(5, 5)] * 2
    once, thrice = (epoch_order_of(tiles_with(counts), "class-balanced", 0.1, seed=0, draws=n) for n in (1, 3))
    assert once.repeats is not None
    assert thrice.repeats is not None
    assert thrice.repeats.tolist() == pytest.approx((3 * once.repeats).tolist())
