"""Which tile people mean: a path into prepared data, the name of a tile, or that of a scene."""

from __future__ import annotations

import difflib
import math
from pathlib import Path

from ctrs.errors import InputNotFoundError
from ctrs.tiles.manifest import PREPARED_FILE, Manifest, Tile

_SHOWN = 3


def prepared_folder_of(path: Path) -> Path | None:
    """Return the prepared folder that a path lies in, None where it lies in none."""
    for folder in path.absolute().parents:
        if (folder / PREPARED_FILE).is_file():
            return folder
    return None


def is_path(name: Path | str) -> bool:
    """Tell a path from the bare name of a tile or scene.

    >>> is_path("images/val/town_000_000.tif"), is_path("town_000_000"), is_path("town_000_000.tif")
    (True, False, True)
    """
    path = Path(name)
    return len(path.parts) > 1 or path.suffix.lower() in (".tif", ".tiff")


def find_tile(name: Path | str, manifest: Manifest) -> Tile:
    """Return the tile that a path or name stands for.

    Args:
        name: Path of a tile's image or mask; name of a tile (``SCENE_ROW_COL``); or name of a scene, which stands for
            that tile of it in which the most classes take up the largest shares.
        manifest: The prepared data.

    Raises:
        InputNotFoundError: There is no such tile.
    """
    path = Path(name)
    if is_path(path):
        return _by_path(path, manifest)
    by_name = {tile.image.stem: tile for tile in manifest.tiles}
    if path.name in by_name:
        return by_name[path.name]
    of_scene = [tile for tile in manifest.tiles if tile.scene == path.name]
    if of_scene:
        return max(of_scene, key=lambda tile: (_variety(tile), tile.image.stem))
    known = [*dict.fromkeys(tile.scene for tile in manifest.tiles), *by_name]
    raise InputNotFoundError(
        f"{manifest.root}: no tile or scene {path.name!r}; {_hint(path.name, known)}; name a file under "
        f"{manifest.root / 'images'}"
    )


def _by_path(path: Path, manifest: Manifest) -> Tile:
    wanted = path.resolve()
    for tile in manifest.tiles:
        if wanted in (tile.image.resolve(), tile.mask.resolve()):
            return tile
        if tile.mask_eroded is not None and wanted == tile.mask_eroded.resolve():
            raise InputNotFoundError(
                f"{path}: a mask with eroded borders, which training never sees; name {tile.mask} instead"
            )
    if not path.exists():
        reason = f"not found; {_hint(path.stem, [tile.image.stem for tile in manifest.tiles])}"
    else:
        reason = f"no tile of {manifest.root}"
    raise InputNotFoundError(f"{path}: {reason}; name an image or a mask that stands in its manifest")


def _variety(tile: Tile) -> float:
    """Return the entropy of the shares of the classes."""
    total = sum(tile.class_counts)
    return -sum(count / total * math.log(count / total) for count in tile.class_counts if count)


def _hint(name: str, known: list[str]) -> str:
    close = [entry for entry in known if name in entry][:_SHOWN] or difflib.get_close_matches(name, known, n=_SHOWN)
    return f"did you mean {' or '.join(close)}?" if close else f"it has {', '.join(known[:_SHOWN])}, ..."
