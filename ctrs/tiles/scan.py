"""One pass over the pixels of all scenes: each stored block is read once, tiles are cut, everything is counted."""

from __future__ import annotations

import logging
import queue
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.errors import NotGeoreferencedWarning

from ctrs.classes import IGNORE_INDEX, ClassMap
from ctrs.progress import Progress, no_progress
from ctrs.raster.windows import PixelWindow
from ctrs.tiles.counting import CountPlan, LabelCounts, RowCounts, count_classes, scene_facts
from ctrs.tiles.cutting import KINDS, CutTile, cut_tile
from ctrs.tiles.facts import SceneFacts, preview_edge, preview_step
from ctrs.tiles.imagery import ReadPixels
from ctrs.tiles.journal import CutRow, Journal
from ctrs.tiles.labels import ReadLabel
from ctrs.tiles.manifest import SPLITS
from ctrs.tiles.scenes import ReadyScene, ReadySource
from ctrs.tiles.strips import Arrays, StripReader, round_up
from ctrs.tiles.tile_grid import Span, TileGrid

logger = logging.getLogger(__name__)

JOURNAL_FILE = "journal.jsonl"

RESULT_DIR = "result"
"""Folder, beside the tiles just cut, where they go when their splits are known."""

READ_BYTES = 192 * 2**20
"""Most bytes of pixels that wait to be cut, and most bytes that open scenes keep for later, over all threads."""

CHUNK_BYTES = 16 * 2**20
"""Bytes of pixels read at a time, where that is more than a tile."""


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What one pass over all scenes found.

    Args:
        tiles: All tiles, those not kept too, in the order of scene, row, column.
        facts: By the name of the scene.
    """

    tiles: list[CutTile]
    facts: dict[str, SceneFacts]


def scan(
    ready: ReadySource,
    folder: Path,
    *,
    write: bool,
    min_valid: float = 0.0,
    workers: int = 1,
    progress: Progress = no_progress,
) -> Scan:
    """Read all scenes once, count their pixels, and write the tiles that earlier, interrupted work has not written.

    Args:
        ready: The scenes.
        folder: Folder of unfinished work; left alone where nothing is written.
        write: False: everything is counted, nothing is written.
        min_valid: Least share of valid pixels of a tile that is kept; a tile without any is never kept.
        workers: Threads.
        progress: Called after each row of tiles.

    Raises:
        RasterError: An image or a label cannot be read.
        OutputError: A tile cannot be written.
    """
    plans = [_plan(scene, ready) for scene in ready.scenes]
    journal: Journal | None = None
    if write:
        for kind in KINDS:
            (folder / kind).mkdir(parents=True, exist_ok=True)
        journal = Journal(folder / JOURNAL_FILE)
    places = {kind: [folder / kind, *(folder / RESULT_DIR / kind / split for split in SPLITS)] for kind in KINDS}
    rows: dict[str, CutRow] = {}
    streams: list[_Stream] = []
    parts = max(1, -(-4 * workers // len(ready.scenes)))
    for scene, plan in zip(ready.scenes, plans, strict=True):
        for segment in _segments(scene, plan.grid, parts):
            pending: list[int] = []
            for number in segment:
                key = _key(scene, number)
                found = journal.finished(key, plan, number, places) if journal is not None else None
                if found is None:
                    pending.append(number)
                else:
                    rows[key] = found
            if pending:
                streams.append(_Stream(scene, plan, pending, ready.classes, workers))
    total = sum(plan.grid.num_tiles for plan in plans)
    done = sum(len(row.tiles) for row in rows.values())
    progress(done, total, "tiling")

    def finish(key: str, row: CutRow) -> None:
        nonlocal done
        if journal is not None:
            journal.add(key, row)
        rows[key] = row
        done += len(row.tiles)
        progress(done, total, "tiling")

    with warnings.catch_warnings():  # of the process: set here, before the threads that write tiles begin
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        _Crew(streams, folder if write else None, min_valid).run(workers, finish)
    tiles: list[CutTile] = []
    facts: dict[str, SceneFacts] = {}
    for scene, plan in zip(ready.scenes, plans, strict=True):
        own = [rows.pop(_key(scene, number)) for number in range(len(plan.grid.rows.spans))]
        kept = np.array([[tile.kept for tile in row.tiles] for row in own])
        facts[scene.name] = scene_facts(plan, [row.counts for row in own], kept, scene.grid.height * scene.grid.width)
        tiles.extend(tile for row in own for tile in row.tiles)
    return Scan(tiles=tiles, facts=facts)


def _plan(scene: ReadyScene, ready: ReadySource) -> CountPlan:
    grid, imagery = scene.grid, scene.imagery
    edge = preview_edge(len(ready.scenes), _pixel_bytes(scene))
    return CountPlan(
        grid=TileGrid.over(grid.height, grid.width, scene.tile_px, scene.stride_px),
        num_classes=ready.classes.num_classes,
        num_bands=len(imagery.names),
        dtype=imagery.dtype,
        step=preview_step(grid.height, grid.width, edge),
    )


def _key(scene: ReadyScene, row: int) -> str:
    return f"{scene.name}_{row:03d}"


def _pixel_bytes(scene: ReadyScene) -> int:
    """Bytes of a pixel with its valid mask and masks."""
    return len(scene.imagery.names) * np.dtype(scene.imagery.dtype).itemsize + 2 + (scene.eroded is not None)


def _segments(scene: ReadyScene, grid: TileGrid, parts: int) -> list[range]:
    """Cut the rows of tiles into at most so many runs that share no block, so that each can be read by itself."""
    spans = grid.rows.spans
    sources = [scene.imagery.block_px, scene.label.block_px]
    if scene.eroded is not None:
        sources.append(scene.eroded.block_px)
    starts = [0]
    if not scene.imagery.sequential:
        starts += [
            number
            for number in range(1, len(spans))
            if all(round_up(spans[number - 1][1], rows, spans[-1][1]) <= spans[number][0] for rows, _ in sources)
        ]
    size = -(-len(spans) // parts)
    chosen = [0]
    for start in starts:
        if start - chosen[-1] >= size:
            chosen.append(start)
    return [range(first, last) for first, last in zip(chosen, [*chosen[1:], len(spans)], strict=True)]


@dataclass(kw_only=True)
class _Row:
    """A row of tiles in work."""

    counts: RowCounts
    tiles: list[CutTile | None]
    left: int


@dataclass(kw_only=True)
class _Chunk:
    """Pixels of some tiles of a row, as they wait to be cut."""

    row: _Row
    cols: range
    place: PixelWindow
    pixels: npt.NDArray[Any]
    valid: npt.NDArray[np.bool_]
    masks: Sequence[npt.NDArray[np.uint8]]
    num_bytes: int
    left: int


class _Stream:
    """Rows of tiles that one thread reads from top to bottom."""

    def __init__(
        self, scene: ReadyScene, plan: CountPlan, rows: Sequence[int], classes: ClassMap, workers: int
    ) -> None:
        self.scene, self.plan, self.classes = scene, plan, classes
        self._rows = rows
        spans = plan.grid.cols.spans
        height = scene.tile_px + max(rows for rows, _ in self._blocks())
        column = scene.tile_px * height * _pixel_bytes(scene)
        size = max(1, min(CHUNK_BYTES, READ_BYTES // (2 * workers)) // column)
        self._chunks = [range(first, min(first + size, len(spans))) for first in range(0, len(spans), size)]
        kept = 0 if len(rows) == 1 else max(rows for rows, _ in self._blocks()) + scene.tile_px - scene.stride_px
        self.kept_bytes = kept * scene.grid.width * _pixel_bytes(scene)

    def _blocks(self) -> list[tuple[int, int]]:
        labels = [label.block_px for label in (self.scene.label, self.scene.eroded) if label is not None]
        return [self.scene.imagery.block_px, *labels]

    def chunk_bytes(self) -> int:
        """Bytes of the pixels of a chunk."""
        spans = self.plan.grid.cols.spans
        cols = self._chunks[0]
        return (spans[cols.stop - 1][1] - spans[cols.start][0]) * self.scene.tile_px * _pixel_bytes(self.scene)

    def chunks(self) -> Generator[_Chunk, None, None]:
        """Read the pixels of all tiles, row by row."""
        scene, spans = self.scene, self.plan.grid.cols.spans
        shape = scene.grid.height, scene.grid.width
        chunk_cols: list[Span] = [(spans[cols.start][0], spans[cols.stop - 1][1]) for cols in self._chunks]
        tile_rows = self.plan.grid.rows.spans
        with ExitStack() as stack:
            read_pixels = stack.enter_context(scene.imagery.reader())
            sources = [(_pixel_arrays(read_pixels), scene.imagery.block_px)]
            counters: list[LabelCounts] = []
            for label in (scene.label, scene.eroded):
                if label is not None:
                    counter = LabelCounts()
                    counters.append(counter)
                    sources.append((_label_arrays(stack.enter_context(label.reader()), counter), label.block_px))
            readers = [
                StripReader(read, shape=shape, block_px=block, rows=tile_rows, chunks=chunk_cols)
                for read, block in sources
            ]
            for number in self._rows:
                top, bottom = tile_rows[number]
                row = _Row(
                    counts=RowCounts(self.plan, number),
                    tiles=[None] * len(spans),
                    left=len(spans) + len(self._chunks),
                )
                for place, cols in enumerate(self._chunks):
                    (pixels, valid), *masks = (reader.strip(number, place) for reader in readers)
                    if cols.stop == len(spans):
                        for counter, total in zip(counters, (row.counts.label, row.counts.eroded), strict=False):
                            total.join(counter)
                            counter.clear()
                    left, right = chunk_cols[place]
                    yield _Chunk(
                        row=row,
                        cols=cols,
                        place=PixelWindow(col_off=left, row_off=top, width=right - left, height=bottom - top),
                        pixels=pixels,
                        valid=valid,
                        masks=[mask for (mask,) in masks],
                        num_bytes=valid.size * _pixel_bytes(scene),
                        left=len(cols) + 1,
                    )


def _pixel_arrays(read: ReadPixels) -> Callable[[PixelWindow, bool], Arrays]:
    return lambda window, _: read(window)


def _label_arrays(read: ReadLabel, counter: LabelCounts) -> Callable[[PixelWindow, bool], Arrays]:
    def arrays(window: PixelWindow, is_first: bool) -> Arrays:
        decoded = read(window)
        if is_first:
            counter.add(decoded, window)
        return (decoded.mask,)

    return arrays


class _Crew:
    """Threads that read streams and cut what they read.

    A thread that has opened a stream stays with it to its end, because GDAL's open files belong to one thread; while
    there is no room for more pixels it cuts tiles, like the threads for which no stream is left.

    Args:
        streams: What is read.
        folder: Where tiles are written; None for nowhere.
        min_valid: Least share of valid pixels of a tile.
    """

    def __init__(self, streams: Sequence[_Stream], folder: Path | None, min_valid: float) -> None:
        self._streams = deque(streams)
        self._folder, self._min_valid = folder, min_valid
        self._state = threading.Condition()
        self._jobs: deque[Callable[[], None]] = deque()
        self._waiting_bytes = 0
        self._kept_bytes = 0
        self._num_open = 0
        self._num_threads = 1
        self._stopped = False
        self._finished: queue.SimpleQueue[tuple[str, CutRow] | None] = queue.SimpleQueue()

    def run(self, workers: int, finish: Callable[[str, CutRow], None]) -> None:
        """Do all the work; the first error, or Ctrl-C, drops what has not begun.

        Args:
            workers: Threads.
            finish: Called, in this thread, with each finished row of tiles.
        """
        if not self._streams:
            return
        self._num_threads = workers
        pool = ThreadPoolExecutor(max_workers=workers)
        try:
            futures = [pool.submit(self._work) for _ in range(workers)]
            for _ in range(workers):
                while (entry := self._next()) is not None:
                    finish(*entry)
        finally:
            self._stop()
            pool.shutdown(wait=True)
            while not self._finished.empty():
                if (entry := self._finished.get()) is not None:
                    finish(*entry)
        for future in futures:
            future.result()

    def _next(self) -> tuple[str, CutRow] | None:
        """Wait for a finished row, or for the end of a thread; in short naps, which Ctrl-C interrupts everywhere."""
        while True:
            try:
                return self._finished.get(timeout=1)
            except queue.Empty:
                continue

    def _stop(self) -> None:
        with self._state:
            self._stopped = True
            self._state.notify_all()

    def _work(self) -> None:
        try:
            while (job := self._choose()) is not None:
                job()
        except BaseException:
            self._stop()
            raise
        finally:
            self._finished.put(None)

    def _choose(self) -> Callable[[], None] | None:
        """Wait for a tile to cut or a stream to read; None when there is nothing more to come."""
        with self._state:
            while not self._stopped:
                if self._jobs:
                    return self._jobs.popleft()
                if self._streams:
                    needed = self._streams[0].kept_bytes
                    if not self._num_open or self._kept_bytes + needed <= READ_BYTES:
                        self._num_open += 1
                        self._kept_bytes += needed
                        return partial(self._read, self._streams.popleft())
                elif not self._num_open:
                    return None
                self._state.wait()
        return None

    def _read(self, stream: _Stream) -> None:
        chunks = stream.chunks()
        try:
            while self._make_room(stream.chunk_bytes()):
                chunk = next(chunks, None)
                if chunk is None:
                    break
                jobs = [partial(self._count, stream, chunk)]
                jobs += [partial(self._cut, stream, chunk, col) for col in chunk.cols]
                with self._state:
                    self._waiting_bytes += chunk.num_bytes
                    self._jobs.extend(jobs)
                    self._state.notify_all()
        finally:
            chunks.close()
            with self._state:
                self._num_open -= 1
                self._kept_bytes -= stream.kept_bytes
                self._state.notify_all()

    def _make_room(self, num_bytes: int) -> bool:
        """Cut tiles until a chunk may be read; False when the work has been stopped."""
        while True:
            with self._state:
                while True:
                    if self._stopped:
                        return False
                    fits = not self._waiting_bytes or self._waiting_bytes + num_bytes <= READ_BYTES
                    if fits and len(self._jobs) < 2 * self._num_threads:
                        return True
                    if self._jobs:
                        job = self._jobs.popleft()
                        break
                    self._state.wait()
            job()

    def _count(self, stream: _Stream, chunk: _Chunk) -> None:
        """Count the pixels of a chunk that are its own."""
        grid, number = stream.plan.grid, chunk.row.counts.row
        top, bottom = grid.rows.own(number)
        left, right = grid.cols.own(chunk.cols.start)[0], grid.cols.own(chunk.cols.stop - 1)[1]
        place = chunk.place
        inside = np.s_[top - place.row_off : bottom - place.row_off, left - place.col_off : right - place.col_off]
        counts = chunk.row.counts.count_strip(
            PixelWindow(col_off=left, row_off=top, width=right - left, height=bottom - top),
            chunk.pixels[(slice(None), *inside)],
            chunk.valid[inside],
            chunk.masks[0][inside],
        )
        with self._state:
            chunk.row.counts.add_strip(counts)
            self._done(stream, chunk)

    def _cut(self, stream: _Stream, chunk: _Chunk, col: int) -> None:
        row, place = chunk.row, chunk.place
        window = stream.plan.grid.window(row.counts.row, col)
        inside = np.s_[:, window.col_off - place.col_off : window.col_off - place.col_off + window.width]
        valid = chunk.valid[inside]
        masks = [np.where(valid, mask[inside], np.uint8(IGNORE_INDEX)) for mask in chunk.masks]
        tile = cut_tile(
            stream.scene,
            (row.counts.row, col, window),
            chunk.pixels[(slice(None), *inside)],
            valid,
            masks,
            stream.classes,
            folder=self._folder,
            min_valid=self._min_valid,
        )
        row.counts.count_tile(
            col, masks[0], valid, count_classes(masks[0], stream.classes.num_classes, int(np.count_nonzero(valid)))
        )
        with self._state:
            row.tiles[col] = tile
            self._done(stream, chunk)

    def _done(self, stream: _Stream, chunk: _Chunk) -> None:
        """Note that a part of a chunk is done; the lock is held."""
        chunk.left -= 1
        chunk.row.left -= 1
        if not chunk.left:
            self._waiting_bytes -= chunk.num_bytes
            self._state.notify_all()
        if not chunk.row.left:
            tiles = [tile for tile in chunk.row.tiles if tile is not None]
            tiles[-1] = replace(tiles[-1], num_near=chunk.row.counts.label.num_changed)
            self._finished.put((_key(stream.scene, chunk.row.counts.row), CutRow(tiles=tiles, counts=chunk.row.counts)))
