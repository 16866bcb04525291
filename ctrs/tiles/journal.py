"""What has been cut so far, so that interrupted work goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ctrs.tiles.cutting import KINDS, CutTile, TileRow


class Journal:
    """A file with one line for each finished task; a line cut short by a kill counts as not written.

    Args:
        path: The file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._finished: dict[str, list[CutTile]] = {}
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        for line in text.splitlines():
            try:
                entry = json.loads(line)
                self._finished[entry["task"]] = [CutTile.from_json(row) for row in entry["tiles"]]
            except (ValueError, KeyError, TypeError):
                continue
        if text and not text.endswith("\n"):
            with path.open("a", encoding="utf-8") as stream:
                stream.write("\n")

    def add(self, task: TileRow, tiles: Sequence[CutTile]) -> None:
        """Note a finished task."""
        line = json.dumps({"task": task.key, "tiles": [tile.to_json() for tile in tiles]})
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")
        self._finished[task.key] = list(tiles)

    def finished(self, task: TileRow, folders: Mapping[str, Sequence[Path]]) -> list[CutTile] | None:
        """Return the tiles of a task if it was finished and its files stand in their full size, else None.

        Args:
            task: The task.
            folders: Folders where the files of each kind may be.
        """
        tiles = self._finished.get(task.key)
        if tiles is None or any(not _stands(tile, folders) for tile in tiles):
            return None
        return tiles


def _stands(tile: CutTile, folders: Mapping[str, Sequence[Path]]) -> bool:
    for kind, size in zip(KINDS, tile.sizes, strict=False):
        places = [folder / tile.file_name for folder in folders[kind]]
        if not any(place.is_file() and place.stat().st_size == size for place in places):
            return False
    return True
