from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ctrs.data import tile_store
from ctrs.data.tile_store import TileStore, available_memory, fill_cache
from ctrs.errors import ConfigError, DataError, InputNotFoundError


def make_store(make_tile: Any, count: int = 3) -> TileStore:
    return TileStore(
        [make_tile(np.full((2, 8, 8), number, np.uint16), np.zeros((8, 8), np.uint8)) for number in range(count)]
    )


def test_preloaded_tiles_are_read_once_and_equal(make_tile: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(make_tile)
    from_disk = [store[index] for index in range(3)]
    store.preload()
    monkeypatch.setattr(tile_store, "read_tile", lambda _: pytest.fail("read again"))
    for index in range(3):
        np.testing.assert_array_equal(store[index].pixels, from_disk[index].pixels)
        assert store[index].pixels[0, 0, 0] == index
        np.testing.assert_array_equal(store[index].valid, True)
    assert store.held_bytes == 3 * 8 * 8 * (2 * 2 + 1 + 1)


def test_tiles_are_held_only_where_they_fit(make_tile: Any) -> None:
    first, second = make_store(make_tile), make_store(make_tile)
    total = first.expected_bytes() + second.expected_bytes()
    assert total == 2 * 3 * 8 * 8 * 6
    assert not fill_cache([first, second], "auto", workers=0, available_bytes=4 * total - 1)
    assert not fill_cache([first, second], "auto", workers=0, processes=2, available_bytes=4 * total)
    assert not fill_cache([first, second], "none", workers=0, available_bytes=2**40)
    assert (first.held_bytes, second.held_bytes) == (0, 0)
    seen = []
    assert fill_cache(
        [first, second], "auto", workers=0, available_bytes=4 * total,
        progress=lambda done, total, what: seen.append(done),
    )  # fmt: skip
    assert first.held_bytes + second.held_bytes == total
    assert seen == [1, 2, 3, 4, 5, 6]


def test_tiles_are_held_on_demand_up_to_what_there_is(make_tile: Any) -> None:
    store = make_store(make_tile)
    needed = store.expected_bytes()
    with pytest.raises(ConfigError, match="the decoded tiles take 1 kB of 1 kB available; expected cache"):
        fill_cache([store], "memory", workers=0, available_bytes=needed)
    assert store.held_bytes == 0
    assert fill_cache([store], "memory", workers=0, available_bytes=2 * needed)
    assert store.held_bytes == needed


def test_nothing_is_held_for_workers_that_cannot_share_it(make_tile: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tile_store.multiprocessing, "get_start_method", lambda: "spawn")
    assert not fill_cache([make_store(make_tile)], "auto", workers=1, available_bytes=2**40)
    assert fill_cache([make_store(make_tile)], "auto", workers=0, available_bytes=2**40)
    with pytest.raises(ConfigError, match="workers = 1 found, but loader processes share no memory"):
        fill_cache([make_store(make_tile)], "memory", workers=1, available_bytes=2**40)


def test_a_missing_file_is_named_with_the_remedy(make_tile: Any) -> None:
    store = make_store(make_tile, 1)
    store.tiles[0].mask.unlink()
    with pytest.raises(InputNotFoundError, match=r"mask_1\.tif: the tile is in the manifest but not on disk; run"):
        store[0]


def test_an_image_and_a_mask_of_other_sizes_are_refused(make_tile: Any) -> None:
    one = make_tile(np.zeros((1, 8, 8), np.uint8), np.zeros((8, 8), np.uint8))
    other = make_tile(np.zeros((1, 9, 8), np.uint8), np.zeros((9, 8), np.uint8))
    other.mask.unlink()
    one.mask.rename(other.mask)
    with pytest.raises(DataError, match=r"mask_2\.tif: 8 x 8 px found, expected 8 x 9 as in image_2\.tif"):
        TileStore([other])[0]


def test_available_memory_is_plausible() -> None:
    assert 2**24 < available_memory() < 2**50
