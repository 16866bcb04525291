"""Cutting: bounded reading changes nothing, and a write that fails is never silent."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
from affine import Affine

from ctrs.config import PrepareConfig
from ctrs.errors import OutputError
from ctrs.tiles import prepare_tiles
from ctrs.tiles.cutting import KINDS, CutTile, cut_tiles, tile_rows
from ctrs.tiles.findings import Findings
from ctrs.tiles.journal import Journal
from ctrs.tiles.layout import find_layout
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


def cut(ready: ReadySource, folder: Path, **options: int) -> list[CutTile]:
    for kind in KINDS:
        (folder / kind).mkdir(parents=True)
    return [tile for task in tile_rows(ready.scenes[0]) for tile in cut_tiles(task, ready.classes, folder, **options)]


def test_reading_in_pieces_gives_the_same_tiles(ready: ReadySource, tmp_path: Path) -> None:
    whole = cut(ready, tmp_path / "whole")
    pieces = cut(ready, tmp_path / "pieces", read_bytes=2 * 32 * 32 * 3)
    assert whole == pieces
    assert len(whole) == 3 * 5
    for tile in whole:
        for kind in KINDS[:2]:
            first, second = (tmp_path / where / kind / tile.file_name for where in ("whole", "pieces"))
            assert first.read_bytes() == second.read_bytes()


def test_images_read_from_the_beginning_are_one_task(make: Maker, tmp_path: Path) -> None:
    make.raster(tmp_path / "src/images/a.png", make.noise(70, 150), **PLACED)
    make.raster(tmp_path / "src/labels/a.tif", make.indices(70, 150, num=2), **PLACED)
    config = PrepareConfig(tile_px=32)
    ready = check_source(find_layout(tmp_path / "src", config, Findings()), config, Findings())
    (task,) = tile_rows(ready.scenes[0])
    assert len(task.places) == 15


def test_the_journal_returns_what_was_noted(ready: ReadySource, tmp_path: Path) -> None:
    tiles = cut(ready, tmp_path / "cut")
    folders = {kind: [tmp_path / "cut" / kind] for kind in KINDS}
    tasks = tile_rows(ready.scenes[0])
    journal = Journal(tmp_path / "journal.jsonl")
    assert journal.finished(tasks[0], folders) is None
    journal.add(tasks[0], tiles[:5])
    journal.add(tasks[1], tiles[5:10])
    with (tmp_path / "journal.jsonl").open("a") as stream:
        stream.write('{"task": "a_002')
    again = Journal(tmp_path / "journal.jsonl")
    assert again.finished(tasks[0], folders) == tiles[:5]
    assert again.finished(tasks[2], folders) is None
    again.add(tasks[2], tiles[10:])
    assert Journal(tmp_path / "journal.jsonl").finished(tasks[2], folders) == tiles[10:]
    (tmp_path / "cut/masks" / tiles[7].file_name).unlink()
    assert again.finished(tasks[1], folders) is None


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
    tile = cut(ready, tmp_path / "cut")[0]
    with rasterio.open(tmp_path / "cut/images" / tile.file_name) as image:
        assert image.compression.name == "deflate"
        assert [color.name for color in image.colorinterp] == ["red", "green", "blue"]
        assert np.array_equal(image.read(), make.noise(70, 150)[:, :32, :32])
    with rasterio.open(tmp_path / "cut/masks" / tile.file_name) as mask:
        assert mask.colormap(1)[1] == (*ready.classes.colors[1], 255)
        assert (mask.dtypes[0], mask.nodata) == ("uint8", 255)
    assert not list((tmp_path / "cut").rglob("*.aux.xml"))
