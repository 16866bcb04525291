"""Blocks of a mask are drawn by several threads at once, and their polygons come out in the order of the mask."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from ctrs.vector.layers.part import LayerPart
from ctrs.vector.regions.blocks import Block


def draw_blocks(
    blocks: Iterable[Block], draw: Callable[[Block], LayerPart], *, jobs: int | None = None
) -> Iterator[LayerPart]:
    """Draw blocks, and yield their polygons in the order of their first pixels.

    Args:
        blocks: Read as they are needed: at most one more than there are threads is in memory.
        draw: Draws one; called by several threads at once.
        jobs: Threads; None: as many as there are cores; 1: the caller's alone.

    Yields:
        Parts that are not empty. How the mask was cut into blocks shows only in where one part ends.
    """
    waiting = _Waiting()
    for part, frontier in _drawn(blocks, draw, jobs or os.cpu_count() or 1):
        ready = waiting.take_in(part, frontier)
        if ready is not None:
            yield ready
    rest = waiting.take_out(None)
    if rest is not None:
        yield rest


def _drawn(blocks: Iterable[Block], draw: Callable[[Block], LayerPart], jobs: int) -> Iterator[tuple[LayerPart, int]]:
    if jobs == 1:
        for block in blocks:
            yield draw(block), block.frontier
        return
    pending: deque[tuple[Future[LayerPart], int]] = deque()
    with ThreadPoolExecutor(jobs) as pool:
        try:
            for block in blocks:
                pending.append((pool.submit(draw, block), block.frontier))
                if len(pending) > jobs:
                    future, frontier = pending.popleft()
                    yield future.result(), frontier
            while pending:
                future, frontier = pending.popleft()
                yield future.result(), frontier
        finally:
            for future, _ in pending:
                future.cancel()


class _Waiting:
    """Polygons before which others may still come: an object that is not yet read to its end may begin above them."""

    def __init__(self) -> None:
        self._parts: list[LayerPart] = []

    def take_in(self, part: LayerPart, frontier: int) -> LayerPart | None:
        """Add polygons, and return those before which no other can come any more."""
        if len(part):
            self._parts.append(part)
        if not any(part.firsts[0] < frontier for part in self._parts):
            return None
        return self.take_out(frontier)

    def take_out(self, frontier: int | None) -> LayerPart | None:
        """Return what begins before the frontier, or all, in order; None where that is nothing."""
        if not self._parts:
            return None
        whole = LayerPart.joined(self._parts)
        if frontier is None:
            self._parts = []
            return whole
        ready = whole.firsts < frontier
        self._parts = [whole.take(~ready)] if not ready.all() else []
        return whole.take(ready)
