"""The journal gives back what was noted, and nothing that is not whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ctrs.errors import OutputError
from ctrs.raster.windows import PixelWindow
from ctrs.tiles.counting import CountPlan, RowCounts
from ctrs.tiles.cutting import KINDS, CutTile
from ctrs.tiles.journal import CutRow, Journal
from ctrs.tiles.labels import DecodedLabel
from ctrs.tiles.statistics import Moments
from ctrs.tiles.tile_grid import TileGrid

PLAN = CountPlan(grid=TileGrid.over(64, 64, 32, 32), num_classes=2, num_bands=3, dtype="uint8", step=3)


def a_row(number: int, folder: Path) -> CutRow:
    rng = np.random.default_rng(number)
    pixels, valid = rng.integers(0, 255, (3, 32, 64)).astype(np.uint8), rng.random((32, 64)) > 0.2
    mask = np.where(valid, rng.integers(0, 2, (32, 64)), 255).astype(np.uint8)
    counts = RowCounts(PLAN, number)
    window = PixelWindow(col_off=0, row_off=32 * number, width=64, height=32)
    counts.add_strip(counts.count_strip(window, pixels, valid, mask))
    unknown = DecodedLabel(mask=mask, num_changed=3, unknown={"17": 2}, first_unknown=(4, 5))
    counts.label.add(unknown, window)
    tiles = []
    for col in range(2):
        counts.count_tile(col, mask[:, 32 * col : 32 * col + 32], valid[:, 32 * col : 32 * col + 32], (1, 2))
        tile = CutTile(
            scene="a",
            row=number,
            col=col,
            window=PLAN.grid.window(number, col),
            kept=True,
            valid_fraction=0.8,
            class_counts=(1, 2),
            moments=Moments.of(pixels, valid),
            hash="abc",
            sizes=(4, 4),
        )
        for kind in KINDS[:2]:
            (folder / kind).mkdir(parents=True, exist_ok=True)
            (folder / kind / tile.file_name).write_bytes(b"tile")
        tiles.append(tile)
    return CutRow(tiles=tiles, counts=counts)


def same(first: CutRow | None, second: CutRow) -> bool:
    return first is not None and first.tiles == second.tiles and first.counts.to_json() == second.counts.to_json()


def test_what_was_noted_comes_back(tmp_path: Path) -> None:
    folders = {kind: [tmp_path / "elsewhere", tmp_path / kind] for kind in KINDS}
    rows = [a_row(number, tmp_path) for number in range(2)]
    journal = Journal(tmp_path / "journal.jsonl")
    assert journal.finished("a", 0, PLAN, folders) is None
    journal.add("a", 0, rows[0])
    with (tmp_path / "journal.jsonl").open("a") as stream:
        stream.write('{"row": "a_001", "ti')
    again = Journal(tmp_path / "journal.jsonl")
    assert same(again.finished("a", 0, PLAN, folders), rows[0])
    assert again.finished("a", 1, PLAN, folders) is None
    assert again.finished("b", 0, PLAN, folders) is None
    again.add("a", 1, rows[1])
    assert same(Journal(tmp_path / "journal.jsonl").finished("a", 1, PLAN, folders), rows[1])


def test_a_row_whose_files_are_not_whole_is_not_finished(tmp_path: Path) -> None:
    folders = {kind: [tmp_path / kind] for kind in KINDS}
    row = a_row(0, tmp_path)
    Journal(tmp_path / "journal.jsonl").add("a", 0, row)
    (tmp_path / "masks" / row.tiles[1].file_name).write_bytes(b"til")
    assert Journal(tmp_path / "journal.jsonl").finished("a", 0, PLAN, folders) is None


def test_counts_of_other_tiles_are_not_taken(tmp_path: Path) -> None:
    folders = {kind: [tmp_path / kind] for kind in KINDS}
    Journal(tmp_path / "journal.jsonl").add("a", 0, a_row(0, tmp_path))
    other = CountPlan(grid=TileGrid.over(64, 64, 32, 16), num_classes=2, num_bands=3, dtype="uint8", step=3)
    assert Journal(tmp_path / "journal.jsonl").finished("a", 0, other, folders) is None


def test_a_journal_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"journal\.jsonl: cannot be written"):
        Journal(tmp_path / "gone/journal.jsonl").add("a", 0, a_row(0, tmp_path))
