"""What has been cut so far, so that interrupted work goes on where it stopped."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ctrs.errors import OutputError
from ctrs.tiles.counting import CountPlan, RowCounts
from ctrs.tiles.cutting import KINDS, CutTile


@dataclass(frozen=True, kw_only=True)
class CutRow:
    """A finished row of tiles and what was counted in it."""

    tiles: list[CutTile]
    counts: RowCounts


class Journal:
    """A file with one line for each finished row of tiles; a line cut short by a kill counts as not written.

    Args:
        path: The file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: dict[str, tuple[int, int]] = {}
        data = path.read_bytes() if path.exists() else b""
        begin = 0
        for line in data.splitlines(keepends=True):
            with suppress(ValueError, KeyError, TypeError):
                self._lines[json.loads(line)["row"]] = begin, len(line)
            begin += len(line)
        if data and not data.endswith(b"\n"):
            with path.open("ab") as stream:
                stream.write(b"\n")

    def add(self, scene: str, number: int, row: CutRow) -> None:
        """Note a finished row of tiles.

        Raises:
            OutputError: The file cannot be written.
        """
        entry = {
            "row": _key(scene, number),
            "tiles": [tile.to_json() for tile in row.tiles],
            "counts": row.counts.to_json(),
        }
        try:
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise OutputError(f"{self._path}: cannot be written ({error}); check free space and rights") from error

    def finished(
        self, scene: str, number: int, plan: CountPlan, folders: Mapping[str, Sequence[Path]]
    ) -> CutRow | None:
        """Return a row of tiles if it was finished and its files stand in their full size, else None.

        Args:
            scene: Name of the scene.
            number: Number of the row in it.
            plan: What was counted.
            folders: Folders where the files of each kind may be.
        """
        key = _key(scene, number)
        if key not in self._lines:
            return None
        begin, length = self._lines[key]
        with self._path.open("rb") as stream:
            stream.seek(begin)
            entry = json.loads(stream.read(length))
        try:
            found = CutRow(
                tiles=[CutTile.from_json(tile) for tile in entry["tiles"]],
                counts=RowCounts.from_json(plan, number, entry["counts"]),
            )
        except (ValueError, KeyError, TypeError, zlib.error):
            return None
        return found if all(_stands(tile, folders) for tile in found.tiles) else None


def _key(scene: str, number: int) -> str:
    return f"{scene}_{number:03d}"


def _stands(tile: CutTile, folders: Mapping[str, Sequence[Path]]) -> bool:
    for kind, size in zip(KINDS, tile.sizes, strict=False):
        places = [folder / tile.file_name for folder in folders[kind]]
        if not any(place.is_file() and place.stat().st_size == size for place in places):
            return False
    return True
