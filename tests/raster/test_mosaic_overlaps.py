"""Parts of a mosaic that show different pixels of the same ground are found, and none that do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from ctrs.raster import mosaic_overlaps
from ctrs.raster.mosaic import MosaicSource
from ctrs.raster.mosaic_overlaps import contradictions


def part(path: Path, pixels: np.ndarray, col: int, row: int, nodata: int | None = None) -> MosaicSource:
    height, width = pixels.shape
    transform = Affine(1, 0, 400000 + col, 0, -1, 5800000 - row)
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=1, dtype="uint8", crs="EPSG:32633",
        transform=transform, nodata=nodata,
    ) as dataset:  # fmt: skip
        dataset.write(pixels, 1)
    return MosaicSource(path=path, col_off=col, row_off=row, width=width, height=height)


def test_shares_are_those_of_the_overlap_and_order_is_that_of_the_parts(tmp_path: Path) -> None:
    ground = np.random.default_rng(0).integers(1, 200, (100, 200)).astype(np.uint8)
    other = ground.copy()
    other[:, 60:70] += 1
    east = part(tmp_path / "east.tif", other[:, 60:], 60, 0)
    west = part(tmp_path / "west.tif", ground[:, :80], 0, 0)
    south = part(tmp_path / "south.tif", np.full((50, 200), 7, np.uint8), 0, 100)  # touches, shares no pixel
    (found,) = contradictions([east, west, south])
    assert (found.below, found.above, found.share) == (east.path, west.path, 0.5)
    (found,) = contradictions([west, south, east])
    assert (found.below, found.above) == (west.path, east.path)


def test_invalid_pixels_contradict_nothing(tmp_path: Path) -> None:
    ground = np.full((40, 40), 9, np.uint8)
    holes = ground.copy()
    holes[:20] = 0
    one, two = part(tmp_path / "a.tif", ground, 0, 0, nodata=0), part(tmp_path / "b.tif", holes, 0, 0, nodata=0)
    assert contradictions([one, two]) == []


def test_large_overlaps_are_sampled_from_end_to_end(tmp_path: Path) -> None:
    ground = np.zeros((600, 700), np.uint8)
    for name, place in (("first", (0, 0)), ("last", (599, 699)), ("middle", (300, 350))):
        other = ground.copy()
        other[place] = 1
        sources = [part(tmp_path / "a.tif", ground, 5, 5), part(tmp_path / f"{name}.tif", other, 5, 5)]
        (found,) = contradictions(sources)
        assert found.share == 1 / (3 * mosaic_overlaps.SAMPLE_PX**2)


def test_overlaps_looked_at_are_few_and_spread_over_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mosaic_overlaps, "MAX_OVERLAPS", 4)
    rows = [part(tmp_path / f"{number}.tif", np.full((8, 8), number, np.uint8), 0, 6 * number) for number in range(13)]
    assert len(contradictions(rows)) == 4
    assert {int(pair.below.stem) // 3 for pair in contradictions(rows)} == {0, 1, 2, 3}
    monkeypatch.setattr(mosaic_overlaps, "is_remote", lambda path: True)
    monkeypatch.setattr(mosaic_overlaps, "MAX_REMOTE_OVERLAPS", 2)
    assert len(contradictions(rows)) == 2
