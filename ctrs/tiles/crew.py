"""Threads that read the streams of all scenes, cut what they read, and count it."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ctrs.classes import IGNORE_INDEX
from ctrs.errors import CtrsError
from ctrs.raster.windows import PixelWindow
from ctrs.tiles.cutting import cut_tile
from ctrs.tiles.findings import FAULTS
from ctrs.tiles.journal import CutRow
from ctrs.tiles.streams import READ_BYTES, Chunk, Stream


@dataclass(frozen=True, kw_only=True)
class FinishedRow:
    """A row of tiles of which all is done."""

    scene: str
    number: int
    row: CutRow


@dataclass(frozen=True, kw_only=True)
class BrokenScene:
    """A scene whose data cannot be read to the end; what else it holds is dropped."""

    scene: str
    error: CtrsError


class Crew:
    """Threads that read streams and cut what they read.

    A thread that has opened a stream stays with it to its end, because GDAL's open files belong to one thread; while
    there is no room for more pixels it cuts tiles, like the threads for which no stream is left.

    Args:
        streams: What is read.
        folder: Where tiles are written; None for nowhere.
        min_valid: Least share of valid pixels of a tile that is kept.
    """

    def __init__(self, streams: Sequence[Stream], folder: Path | None, min_valid: float) -> None:
        self._streams = deque(streams)
        self._folder, self._min_valid = folder, min_valid
        self._state = threading.Condition()
        self._jobs: deque[Callable[[], None]] = deque()
        self._waiting_bytes = 0
        self._kept_bytes = 0
        self._num_open = 0
        self._num_threads = 1
        self._stopped = False
        self._broken: set[str] = set()
        self._news: queue.SimpleQueue[FinishedRow | BrokenScene | None] = queue.SimpleQueue()

    def run(self, workers: int, tell: Callable[[FinishedRow | BrokenScene], None]) -> None:
        """Do all the work; the first error of the output, or Ctrl-C, drops what has not begun.

        Args:
            workers: Threads.
            tell: Called, in this thread, with each finished row of tiles and each scene that cannot be read.
        """
        if not self._streams:
            return
        self._num_threads = workers
        pool = ThreadPoolExecutor(max_workers=workers)
        try:
            futures = [pool.submit(self._work) for _ in range(workers)]
            for _ in range(workers):
                while (news := self._next()) is not None:
                    tell(news)
        finally:
            self._stop()
            pool.shutdown(wait=True)
            while not self._news.empty():
                if (news := self._news.get()) is not None:
                    tell(news)
        for future in futures:
            future.result()

    def _next(self) -> FinishedRow | BrokenScene | None:
        """Wait for news, or for the end of a thread (None); in short naps, which Ctrl-C interrupts everywhere."""
        while True:
            with suppress(queue.Empty):
                return self._news.get(timeout=1)

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
            self._news.put(None)

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

    def _read(self, stream: Stream) -> None:
        """Read a stream to its end, and cut tiles in between."""
        chunks = stream.chunks()
        try:
            while self._make_room(stream.chunk_bytes):
                chunk = self._read_chunk(stream, chunks)
                if chunk is None:
                    break
                jobs = [partial(self._do, stream, chunk, partial(self._count, stream, chunk))]
                jobs += [partial(self._do, stream, chunk, partial(self._cut, stream, chunk, col)) for col in chunk.cols]
                with self._state:
                    self._jobs.extend(jobs)
                    self._state.notify_all()
        finally:
            chunks.close()
            with self._state:
                self._num_open -= 1
                self._kept_bytes -= stream.kept_bytes
                self._state.notify_all()

    def _read_chunk(self, stream: Stream, chunks: Iterator[Chunk]) -> Chunk | None:
        """Read a chunk for which room was made; None at the end of the stream, or where it breaks off."""
        chunk: Chunk | None = None
        try:
            if stream.scene.name not in self._broken:
                chunk = next(chunks, None)
        except FAULTS as error:
            self._give_up(stream, error)
        finally:
            with self._state:
                self._waiting_bytes += (chunk.num_bytes if chunk is not None else 0) - stream.chunk_bytes
                self._state.notify_all()
        return chunk

    def _make_room(self, num_bytes: int) -> bool:
        """Cut tiles until a chunk may be read, and count its bytes; False when the work has been stopped."""
        while True:
            with self._state:
                while True:
                    if self._stopped:
                        return False
                    fits = not self._waiting_bytes or self._waiting_bytes + num_bytes <= READ_BYTES
                    if fits and len(self._jobs) < 2 * self._num_threads:
                        self._waiting_bytes += num_bytes
                        return True
                    if self._jobs:
                        job = self._jobs.popleft()
                        break
                    self._state.wait()
            job()

    def _give_up(self, stream: Stream, error: CtrsError) -> None:
        with self._state:
            first = stream.scene.name not in self._broken
            self._broken.add(stream.scene.name)
        if first:
            self._news.put(BrokenScene(scene=stream.scene.name, error=error))

    def _do(self, stream: Stream, chunk: Chunk, job: Callable[[], None]) -> None:
        """Do one of the things to do with a chunk."""
        if stream.scene.name not in self._broken:
            job()
        row = chunk.row
        with self._state:
            chunk.left -= 1
            row.left -= 1
            if not chunk.left:
                self._waiting_bytes -= chunk.num_bytes
                self._state.notify_all()
            is_finished = not row.left and stream.scene.name not in self._broken
        if is_finished:
            tiles = [tile for tile in row.tiles if tile is not None]
            cut = CutRow(tiles=tiles, counts=row.counts)
            self._news.put(FinishedRow(scene=stream.scene.name, number=row.number, row=cut))

    def _count(self, stream: Stream, chunk: Chunk) -> None:
        """Count the pixels of a chunk that its row is the first to hold, as they were read."""
        grid, place = stream.layout.plan.grid, chunk.place
        top, bottom = grid.rows.own(chunk.row.number)
        left, right = grid.cols.own(chunk.cols.start)[0], grid.cols.own(chunk.cols.stop - 1)[1]
        inside = np.s_[top - place.row_off : bottom - place.row_off, left - place.col_off : right - place.col_off]
        counts = chunk.row.counts.count_strip(
            PixelWindow(col_off=left, row_off=top, width=right - left, height=bottom - top),
            chunk.pixels[(slice(None), *inside)],
            chunk.valid[inside],
            chunk.masks[0][inside],
        )
        with self._state:
            chunk.row.counts.add_strip(counts)

    def _cut(self, stream: Stream, chunk: Chunk, col: int) -> None:
        """Cut a tile of a chunk."""
        row, place = chunk.row, chunk.place
        window = stream.layout.plan.grid.window(row.number, col)
        inside = np.s_[:, window.col_off - place.col_off : window.col_off - place.col_off + window.width]
        valid = chunk.valid[inside]
        masks = [np.where(valid, mask[inside], np.uint8(IGNORE_INDEX)) for mask in chunk.masks]
        tile = cut_tile(
            stream.scene,
            (row.number, col, window),
            chunk.pixels[(slice(None), *inside)],
            valid,
            masks,
            stream.layout.classes,
            folder=self._folder,
            min_valid=self._min_valid,
        )
        row.counts.count_tile(col, masks[0], valid, tile.class_counts)
        row.tiles[col] = tile
