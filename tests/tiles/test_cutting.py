"""Cutting: tiles open anywhere, hold what they should, and a write that fails is never silent."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
from affine import Affine

from ctrs.config import PrepareConfig
from ctrs.errors import OutputError
from ctrs.raster.windows import PixelWindow
from ctrs.tiles import prepare_tiles
from ctrs.tiles.cutting import KINDS, NO_MOMENTS, CutTile, cut_tile, pixel_hash
from ctrs.tiles.findings import Findings
from ctrs.tiles.layout import find_layout
from ctrs.tiles.scan import scan
from ctrs.tiles.scenes import ReadySource, check_source

if TYPE_CHECKING:
    from tests.tiles.conftest import Maker

PLACED = {"transform": Affine(0.5, 0, 400000, 0, -0.5, 5800000), "crs": "EPSG:32633"}


@pytest.fixture
def ready(make: Maker, tmp_path: Path) -> ReadySource:
    make.raster(tmp_path / "src/images/a.tif", make.noise(70, 150), **PLACED)
    make.raster(tmp_path / "src/labels/a.tif", make.indices(70, 150, num=2), **PLACED)
    config = PrepareConfig(tile_px=32)
    return check_source(find_layout(tmp_path / "src", config, Findings()), config, Findings())


def cut_first(ready: ReadySource, folder: Path | None, valid: np.ndarray, *, min_valid: float = 0.0) -> CutTile:
    rng = np.random.default_rng(0)
    pixels, mask = rng.integers(0, 256, (3, 32, 32)).astype(np.uint8), rng.integers(0, 2, (32, 32)).astype(np.uint8)
    window = PixelWindow(col_off=32, row_off=0, width=32, height=32)
    mask = np.where(valid, mask, np.uint8(255))
    for kind in KINDS if folder is not None else ():
        (folder / kind).mkdir(parents=True, exist_ok=True)
    return cut_tile(
        ready.scenes[0], (0, 1, window), pixels, valid, [mask], ready.classes, folder=folder, min_valid=min_valid
    )


def test_a_tile_without_enough_pixels_is_not_kept(ready: ReadySource, tmp_path: Path) -> None:
    valid = np.zeros((32, 32), bool)
    empty = cut_first(ready, tmp_path / "cut", valid)
    assert (empty.kept, empty.valid_fraction, empty.moments, empty.sizes) == (False, 0, NO_MOMENTS, ())
    valid[:8] = True
    assert not cut_first(ready, tmp_path / "cut", valid, min_valid=0.26).kept
    assert not list((tmp_path / "cut").rglob("*.tif"))
    tile = cut_first(ready, tmp_path / "cut", valid, min_valid=0.25)
    assert (tile.kept, tile.valid_fraction, sum(tile.class_counts), tile.moments.count) == (True, 0.25, 256, 256)
    assert tile.sizes == tuple((tmp_path / "cut" / kind / tile.file_name).stat().st_size for kind in KINDS[:2])
    assert cut_first(ready, None, valid) == replace(tile, sizes=())
    assert CutTile.from_json(tile.to_json()) == tile


def test_hashes_tell_pixels_shapes_and_dtypes_apart() -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
    others = [pixels + 1, pixels.reshape(3, 2, 8), pixels.view(np.int8), pixels[:, ::-1]]
    assert len({pixel_hash(array) for array in (pixels, *others)}) == 5
    assert pixel_hash(pixels) == pixel_hash(np.concatenate([pixels, pixels], axis=2)[:, :, :4])


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_a_full_disk_is_an_error(
    make: Maker, ready: ReadySource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    write = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if self.parent.name == kind and "_001_" in self.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    config = PrepareConfig(tile_px=32)
    with pytest.raises(OutputError, match=rf"{kind}/a_001_\d+\.tif: cannot be written .*No space left on device"):
        prepare_tiles(tmp_path / "src", tmp_path / "out", config)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(Path, "write_bytes", write)
    assert len(prepare_tiles(tmp_path / "src", tmp_path / "out", config).tiles) == 15


def test_tiles_open_anywhere(make: Maker, ready: ReadySource, tmp_path: Path) -> None:
    tile = scan(ready, tmp_path / "cut", write=True).tiles[0]
    with rasterio.open(tmp_path / "cut/images" / tile.file_name) as image:
        assert image.compression.name == "deflate"
        assert [color.name for color in image.colorinterp] == ["red", "green", "blue"]
        assert np.array_equal(image.read(), make.noise(70, 150)[:, :32, :32])
    with rasterio.open(tmp_path / "cut/masks" / tile.file_name) as mask:
        assert mask.colormap(1)[1] == (*ready.classes.colors[1], 255)
        assert (mask.dtypes[0], mask.nodata) == ("uint8", 255)
    assert not list((tmp_path / "cut").rglob("*.aux.xml"))
