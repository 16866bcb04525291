"""Strips: whatever blocks and tiles are, no block is touched by two reads and the pixels are those of the raster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrs.raster.windows import PixelWindow
from ctrs.tiles.strips import Arrays, StripReader
from ctrs.tiles.tile_grid import Span, TileAxis


class Recorder:
    """A raster of two layers that notes which of its blocks are touched."""

    def __init__(self, height: int, width: int, block: tuple[int, int]) -> None:
        self.pixels = np.random.default_rng(0).integers(0, 255, (3, height, width)).astype(np.uint8)
        self.valid = self.pixels[0] > 100
        self.block = block
        self.touched: Counter[tuple[int, int]] = Counter()
        self.first: Counter[tuple[int, int]] = Counter()
        self.largest = 0

    def __call__(self, window: PixelWindow, is_first: bool) -> Arrays:
        assert min(window.width, window.height, window.row_off + 1, window.col_off + 1) >= 1
        rows, cols = window.slices
        assert rows.stop <= self.valid.shape[0]
        assert cols.stop <= self.valid.shape[1]
        for row in range(rows.start // self.block[0], -(-rows.stop // self.block[0])):
            for col in range(cols.start // self.block[1], -(-cols.stop // self.block[1])):
                self.touched[row, col] += 1
                self.first[row, col] += is_first
        self.largest = max(self.largest, window.width * window.height)
        return self.pixels[:, rows, cols].copy(), self.valid[rows, cols].copy()


def read_all(
    source: Recorder,
    rows: tuple[Span, ...],
    chunks: list[Span],
    *,
    wanted: Iterable[int] | None = None,
    keep: bool = True,
) -> None:
    """Read all rows and compare each chunk with the raster."""
    reader = StripReader(source, shape=source.valid.shape, block_px=source.block, rows=rows, chunks=chunks, keep=keep)
    for row in range(len(rows)) if wanted is None else wanted:
        for chunk, (left, right) in enumerate(chunks):
            pixels, valid = reader.strip(row, chunk)
            top, bottom = rows[row]
            np.testing.assert_array_equal(pixels, source.pixels[:, top:bottom, left:right])
            np.testing.assert_array_equal(valid, source.valid[top:bottom, left:right])


def chunks_of(axis: TileAxis, size: int) -> list[Span]:
    groups = [axis.spans[first : first + size] for first in range(0, len(axis.spans), size)]
    return [(group[0][0], group[-1][1]) for group in groups]


LAYOUTS = [
    ((64, 64), 64, 64),
    ((64, 64), 50, 50),
    ((32, 32), 64, 64),
    ((25, 25), 64, 64),
    ((128, 128), 64, 64),
    ((64, 64), 64, 32),
    ((64, 64), 64, 17),
    ((1, 230), 64, 64),
    ((8, 230), 50, 40),
    ((1, 1), 50, 20),
    ((300, 300), 64, 64),
]


@pytest.mark.parametrize(("block", "tile", "stride"), LAYOUTS)
@pytest.mark.parametrize("size", [1, 2, 100])
def test_each_block_is_read_once(block: tuple[int, int], tile: int, stride: int, size: int) -> None:
    source = Recorder(270, 230, block)
    rows, cols = TileAxis.along(270, tile, stride), TileAxis.along(230, tile, stride)
    read_all(source, rows.spans, chunks_of(cols, size))
    assert set(source.touched.values()) == {1}
    assert len(source.touched) == -(-270 // block[0]) * -(-230 // block[1])
    assert source.first == source.touched


@settings(max_examples=60)
@given(
    st.tuples(st.integers(1, 80), st.integers(1, 80)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.integers(1, 30),
    st.integers(1, 30),
    st.integers(1, 4),
    st.data(),
)
def test_rows_that_are_left_out_change_nothing(
    shape: tuple[int, int], block: tuple[int, int], tile: int, stride: int, size: int, data: st.DataObject
) -> None:
    rows = TileAxis.along(shape[0], tile, min(tile, stride))
    chunks = chunks_of(TileAxis.along(shape[1], tile, min(tile, stride)), size)
    wanted = sorted(data.draw(st.sets(st.integers(0, len(rows.spans) - 1), min_size=1)))
    source = Recorder(*shape, block)
    read_all(source, rows.spans, chunks, wanted=wanted)
    others = [row for row in range(len(rows.spans)) if row not in wanted]
    rest = Recorder(*shape, block)
    read_all(rest, rows.spans, chunks, wanted=others)
    assert set((source.first + rest.first).values()) == {1}  # together, each pixel comes for the first time once


def test_what_is_not_kept_is_read_again() -> None:
    source = Recorder(300, 200, (64, 64))
    rows = TileAxis.along(300, 50, 50)
    read_all(source, rows.spans, chunks_of(TileAxis.along(200, 50, 50), 2), keep=False)
    assert max(source.touched.values()) == 2 + 1  # 64 rows may lie in three rows of tiles
    assert set(source.first.values()) == {1}
    assert source.largest <= 128 * 128
