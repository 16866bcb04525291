from __future__ import annotations

import numpy as np
import pytest
import shapely
from affine import Affine

from ctrs.vector.quality.valid_area import valid_area
from tests.vector.conftest import WriteMask

UTM = Affine(0.5, 0, 400_000, 0, -0.5, 5_000_000)


@pytest.mark.parametrize("block", [1024, 7, 1])
def test_windows_leave_no_trace(write_mask: WriteMask, block: int) -> None:
    labels = np.zeros((20, 30), np.uint8)
    labels[3:9, 5:17] = 255
    labels[0, 29] = labels[1, 28] = 255  # touch at a corner
    area, grid = valid_area(write_mask(labels), block=block)
    assert (grid.width, grid.height) == (30, 20)
    expected = (
        shapely.box(0, 0, 30, 20) - shapely.box(5, 3, 17, 9) - shapely.box(29, 0, 30, 1) - shapely.box(28, 1, 29, 2)
    )
    expected = shapely.transform(expected, lambda xy: np.column_stack(UTM @ xy.T))
    assert shapely.union_all(area).equals(expected)
    assert shapely.get_num_coordinates(area).sum() == shapely.get_num_coordinates(expected)


def test_all_valid_is_one_rectangle(write_mask: WriteMask) -> None:
    area, _ = valid_area(write_mask(np.zeros((20, 30), np.uint8)), block=8)
    assert [shapely.get_num_coordinates(part) for part in area] == [5]
    assert area[0].bounds == (400_000, 4_999_990, 400_015, 5_000_000)


def test_an_ignored_value_is_nodata_too(write_mask: WriteMask) -> None:
    path = write_mask(np.full((4, 4), 255, np.uint8), nodata=None)
    assert shapely.area(valid_area(path)[0]).sum() == 4
    assert len(valid_area(path, ignored=255)[0]) == 0
