"""Where tiles lie: each pixel is one tile's own, and a cell's pixels lie in the same tiles."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ctrs.raster.windows import PixelWindow, sliding_windows
from ctrs.tiles.tile_grid import TileAxis, TileGrid


@given(st.integers(1, 90), st.integers(1, 30), st.integers(1, 30))
def test_own_pixels_and_cells_make_up_the_axis(length: int, size: int, stride: int) -> None:
    axis = TileAxis.along(length, size, min(size, stride))
    cells = [(number, cell) for number in range(len(axis.spans)) for cell in axis.cells(number)]
    assert [pixel for _, (start, end) in cells for pixel in range(start, end)] == list(range(length))
    for number, (start, end) in cells:
        for pixel in range(start, end):
            holders = [which for which, (first, last) in enumerate(axis.spans) if first <= pixel < last]
            assert holders == list(axis.holders(number, start))
            assert holders[0] == number


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 30), st.integers(1, 30))
def test_windows_are_the_sliding_windows(height: int, width: int, size: int, stride: int) -> None:
    grid = TileGrid.over(height, width, size, min(size, stride))
    places = [(row, col) for row in range(len(grid.rows.spans)) for col in range(len(grid.cols.spans))]
    assert [grid.window(*place) for place in places] == list(sliding_windows(height, width, size, min(size, stride)))
    assert grid.num_tiles == len(places)
    assert grid.window(0, 0) == PixelWindow(col_off=0, row_off=0, width=min(size, width), height=min(size, height))
