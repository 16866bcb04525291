"""Tiles from disk, kept in memory where they fit, since each epoch decodes the same files again."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ctrs.classes import Mask
from ctrs.config import TileCache
from ctrs.errors import ConfigError, DataError, InputNotFoundError
from ctrs.progress import Progress, format_bytes, no_progress
from ctrs.raster.geotiff import open_raster, read_window
from ctrs.raster.windows import PixelWindow
from ctrs.tiles.manifest import Tile

CACHE_SHARE = 0.25
"""Largest share of the available memory that decoded tiles take unasked."""

MOST_SHARE = 0.9
"""Largest share that they take where the configuration demands it; the rest is for training itself."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RawTile:
    """A decoded tile.

    Args:
        pixels: (C, H, W) in the dtype of the source.
        mask: uint8 (H, W).
        valid: bool (H, W), True where the image holds data.
    """

    pixels: npt.NDArray[Any]
    mask: Mask
    valid: npt.NDArray[np.bool_]

    @property
    def nbytes(self) -> int:
        """Bytes that the arrays take."""
        return self.pixels.nbytes + self.mask.nbytes + self.valid.nbytes


def read_tile(tile: Tile) -> RawTile:
    """Decode a tile.

    Raises:
        InputNotFoundError: A file of the tile is missing.
        RasterError: A file is broken.
        DataError: Image and mask differ in size.
    """
    for path in (tile.image, tile.mask):
        if not path.exists():
            raise InputNotFoundError(
                f"{path}: the tile is in the manifest but not on disk; run `ctrs prepare --overwrite` again"
            )
    with open_raster(tile.image) as image:
        pixels, valid = read_window(image, _whole(image.width, image.height))
    with open_raster(tile.mask) as labels:
        mask, _ = read_window(labels, _whole(labels.width, labels.height))
    if mask.shape[1:] != pixels.shape[1:]:
        raise DataError(
            f"{tile.mask}: {mask.shape[2]} x {mask.shape[1]} px found, expected {pixels.shape[2]} x {pixels.shape[1]} "
            f"as in {tile.image.name}; run `ctrs prepare --overwrite` again"
        )
    return RawTile(pixels=pixels, mask=mask[0].astype(np.uint8, copy=False), valid=valid)


class TileStore:
    """Reads tiles by index, from memory once ``preload`` has put them there.

    Loader processes that are forked after ``preload`` share its memory.
    """

    def __init__(self, tiles: Sequence[Tile]) -> None:
        self.tiles = tuple(tiles)
        self._held: list[RawTile] = []

    def __len__(self) -> int:
        return len(self.tiles)

    def __getitem__(self, index: int) -> RawTile:
        """Return a decoded tile, which must not be written to."""
        return self._held[index] if self._held else read_tile(self.tiles[index])

    @property
    def held_bytes(self) -> int:
        """Bytes of decoded tiles in memory, 0 before ``preload``."""
        return sum(raw.nbytes for raw in self._held)

    def expected_bytes(self) -> int:
        """Return the bytes that all tiles take when decoded, from the size of the first one."""
        if not self.tiles:
            return 0
        first = read_tile(self.tiles[0])
        each_px = first.nbytes / first.mask.size
        return round(each_px * sum(tile.window.width * tile.window.height for tile in self.tiles))

    def preload(self, *, progress: Progress = no_progress) -> None:
        """Decode all tiles into memory."""
        held: list[RawTile] = []
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            for raw in pool.map(read_tile, self.tiles):
                held.append(raw)
                progress(len(held), len(self.tiles), "reading tiles")
        self._held = held


def fill_cache(
    stores: Sequence[TileStore],
    cache: TileCache,
    *,
    workers: int,
    processes: int = 1,
    available_bytes: int | None = None,
    progress: Progress = no_progress,
) -> bool:
    """Decode all tiles into memory, if that is wanted and possible. Loader processes share it, as they are forked.

    Args:
        stores: Filled in order; all or none.
        cache: ``none``; ``auto``: if the tiles take at most ``CACHE_SHARE`` of the available memory; ``memory``: if
            they take at most ``MOST_SHARE`` of it, else that is an error.
        workers: Loader processes; where they cannot share memory with this process, ``auto`` holds nothing.
        processes: Training processes on this machine, each of which holds all tiles.
        available_bytes: Memory to be had; None asks the system.
        progress: Told of each tile.

    Returns:
        True if the tiles are in memory now.

    Raises:
        ConfigError: ``memory`` is wanted and not possible.
    """
    if cache == "none":
        return False
    if workers and multiprocessing.get_start_method() != "fork":
        if cache == "auto":
            return False
        raise ConfigError(
            f"cache = 'memory' and workers = {workers} found, but loader processes share no memory on this system; "
            "expected workers = 0, or cache = 'auto'"
        )
    available = available_memory() if available_bytes is None else available_bytes
    needed = processes * sum(store.expected_bytes() for store in stores)
    if cache == "memory" and needed > MOST_SHARE * available:
        raise ConfigError(
            f"cache = 'memory' found, but the decoded tiles take {format_bytes(needed)} of "
            f"{format_bytes(available)} available; expected cache = 'auto' or 'none'"
        )
    if cache == "auto" and needed > CACHE_SHARE * available:
        logger.info(
            "tiles are read from disk in each epoch: decoded they take %s, more than %.0f %% of the %s available",
            format_bytes(needed), 100 * CACHE_SHARE, format_bytes(available),
        )  # fmt: skip
        return False
    all_tiles, before = sum(len(store) for store in stores), 0
    for store in stores:
        store.preload(progress=_part_of(progress, before, all_tiles))
        before += len(store)
    return True


def _part_of(progress: Progress, before: int, whole: int) -> Progress:
    def report(done: int, total: int, what: str) -> None:  # noqa: ARG001
        progress(before + done, whole, what)

    return report


def available_memory() -> int:
    """Return the bytes that this process may still take: the system's, or its control group's if that is less."""
    found = [value for value in (_system_available(), _cgroup_available()) if value is not None]
    return min(found) if found else 0


def _system_available() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:  # not Linux: half of what is installed counts as available
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):
        return None


def _cgroup_available() -> int | None:
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            text = Path(limit).read_text(encoding="ascii").strip()
            if text != "max":
                return max(0, int(text) - int(Path(used).read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue
    return None


def _whole(width: int, height: int) -> PixelWindow:
    return PixelWindow(col_off=0, row_off=0, width=width, height=height)
