"""A scene becomes streams: rows of tiles that one thread reads from top to bottom, apart from all others."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ctrs.classes import ClassMap, Mask
from ctrs.raster.windows import PixelWindow
from ctrs.tiles.counting import CountPlan, LabelCounts, RowCounts
from ctrs.tiles.cutting import CutTile
from ctrs.tiles.imagery import Imagery, ReadPixels
from ctrs.tiles.labels import Label, ReadLabel
from ctrs.tiles.scenes import ReadyScene
from ctrs.tiles.strips import Arrays, StripReader, round_up
from ctrs.tiles.tile_grid import Span

READ_BYTES = 192 * 2**20
"""Most bytes of pixels that wait to be cut, and most bytes that open scenes keep for later, over all threads."""

CHUNK_BYTES = 8 * 2**20
"""Bytes of pixels read at a time, where that is more than a tile; the same for any number of threads, so that counts
of the commonest unknown colours of a chunk are."""

MAX_READS = 5
"""Most times that a block is read where what it holds for later would not fit into memory; else it is kept anyway."""


@dataclass(kw_only=True)
class OpenRow:
    """A row of tiles in work.

    Args:
        counts: What has been counted.
        tiles: What has been cut, None for the rest.
        left: Number of things to do.
    """

    counts: RowCounts
    tiles: list[CutTile | None]
    left: int

    @property
    def number(self) -> int:
        """Number of the row in its scene."""
        return self.counts.row


@dataclass(kw_only=True)
class Chunk:
    """Pixels of some tiles of a row, as they wait to be cut.

    Args:
        row: The row.
        cols: Numbers of the tiles.
        place: Where the pixels lie in the scene.
        pixels: (C, h, w).
        valid: (h, w), True = valid.
        masks: (h, w) of the label, and of the one with eroded class borders.
        num_bytes: Of all pixels.
        left: Number of things to do.
    """

    row: OpenRow
    cols: range
    place: PixelWindow
    pixels: npt.NDArray[Any]
    valid: npt.NDArray[np.bool_]
    masks: Sequence[Mask]
    num_bytes: int
    left: int


@dataclass(frozen=True, kw_only=True)
class SceneLayout:
    """How a scene is read.

    Args:
        scene: The scene.
        plan: What is counted.
        classes: Class table.
        blocks: Heights and widths of the blocks of the image and the labels.
        chunks: Columns of tiles that are read at a time.
        sequential: One of its files can only be read well from its beginning; one thread reads it all.
        keep: Pixels of a block that the next row of tiles needs are kept; else, where a scene is so wide that they
            would not fit into memory, the block is read again.
    """

    scene: ReadyScene
    plan: CountPlan
    classes: ClassMap
    blocks: tuple[tuple[int, int], ...]
    chunks: tuple[range, ...]
    sequential: bool
    keep: bool

    @classmethod
    def of(cls, scene: ReadyScene, plan: CountPlan, classes: ClassMap) -> SceneLayout:
        """Lay out the reading of a scene."""
        sources: list[Imagery | Label] = [scene.imagery, *labels_of(scene)]
        is_sequential = [source.sequential for source in sources]
        blocks = tuple(
            (source.block_px[0], scene.grid.width) if from_the_top else source.block_px
            for source, from_the_top in zip(sources, is_sequential, strict=True)
        )
        block_rows = max(rows for rows, _ in blocks)
        spans = plan.grid.cols.spans
        height = scene.tile_px + block_rows
        size = max(1, CHUNK_BYTES // (scene.tile_px * height * pixel_bytes(scene)))
        overlap = scene.tile_px - scene.stride_px
        fits = (block_rows + overlap) * plan.width * pixel_bytes(scene) <= READ_BYTES
        return cls(
            scene=scene,
            plan=plan,
            classes=classes,
            blocks=blocks,
            chunks=tuple(range(first, min(first + size, len(spans))) for first in range(0, len(spans), size)),
            sequential=any(is_sequential),
            keep=any(is_sequential) or fits or block_rows > (MAX_READS - 1) * scene.stride_px,
        )

    def segments(self, parts: int) -> list[range]:
        """Cut the rows of tiles into at most so many runs that share no block, so that each can be read by itself."""
        spans = self.plan.grid.rows.spans
        height = spans[-1][1]
        starts = [
            number
            for number in range(1, len(spans))
            if not self.keep
            or all(round_up(spans[number - 1][1], rows, height) <= spans[number][0] for rows, _ in self.blocks)
        ]
        if self.sequential:
            starts = []
        size = -(-len(spans) // parts)
        chosen = [0]
        for start in starts:
            if start - chosen[-1] >= size:
                chosen.append(start)
        return [range(first, last) for first, last in zip(chosen, [*chosen[1:], len(spans)], strict=True)]


class Stream:
    """Rows of tiles of a scene that one thread reads from top to bottom.

    Args:
        layout: How the scene is read.
        rows: Numbers of the rows of tiles, rising.
    """

    def __init__(self, layout: SceneLayout, rows: Sequence[int]) -> None:
        self.layout = layout
        self._rows = rows
        scene = layout.scene
        spans = layout.plan.grid.cols.spans
        item = pixel_bytes(scene)
        first = layout.chunks[0]
        self.chunk_bytes = (spans[first.stop - 1][1] - spans[first.start][0]) * scene.tile_px * item
        kept_rows = max(height for height, _ in layout.blocks) + scene.tile_px - scene.stride_px
        self.kept_bytes = kept_rows * layout.plan.width * item if layout.keep and len(rows) > 1 else 0

    @property
    def scene(self) -> ReadyScene:
        """The scene."""
        return self.layout.scene

    def chunks(self) -> Generator[Chunk, None, None]:
        """Read the pixels of all tiles, row by row."""
        scene, plan, chunks = self.scene, self.layout.plan, self.layout.chunks
        spans = plan.grid.cols.spans
        places: list[Span] = [(spans[cols.start][0], spans[cols.stop - 1][1]) for cols in chunks]
        with ExitStack() as stack:
            counters = [LabelCounts() for _ in labels_of(scene)]
            sources = [_pixel_arrays(stack.enter_context(scene.imagery.reader()))]
            for label, counter in zip(labels_of(scene), counters, strict=True):
                sources.append(_label_arrays(stack.enter_context(label.reader()), counter))
            readers = [
                StripReader(
                    read,
                    shape=scene.grid.shape,
                    block_px=block,
                    rows=plan.grid.rows.spans,
                    chunks=places,
                    keep=self.layout.keep,
                )
                for read, block in zip(sources, self.layout.blocks, strict=True)
            ]
            for number in self._rows:
                row = OpenRow(counts=RowCounts(plan, number), tiles=[None] * len(spans), left=len(spans) + len(chunks))
                top, bottom = plan.grid.rows.spans[number]
                for place, cols in enumerate(chunks):
                    (pixels, valid), *masks = (reader.strip(number, place) for reader in readers)
                    if cols.stop == len(spans):
                        for counter, total in zip(counters, (row.counts.label, row.counts.eroded), strict=False):
                            total.join(counter)
                            counter.clear()
                    left, right = places[place]
                    yield Chunk(
                        row=row,
                        cols=cols,
                        place=PixelWindow(col_off=left, row_off=top, width=right - left, height=bottom - top),
                        pixels=pixels,
                        valid=valid,
                        masks=[mask for (mask,) in masks],
                        num_bytes=valid.size * pixel_bytes(scene),
                        left=len(cols) + 1,
                    )


def labels_of(scene: ReadyScene) -> list[Label]:
    """Return the label and, where there is one, the label with eroded class borders."""
    return [scene.label] if scene.eroded is None else [scene.label, scene.eroded]


def pixel_bytes(scene: ReadyScene) -> int:
    """Return the bytes of a pixel with its valid mask and masks."""
    return len(scene.imagery.names) * np.dtype(scene.imagery.dtype).itemsize + 1 + len(labels_of(scene))


def _pixel_arrays(read: ReadPixels) -> Callable[[PixelWindow, bool], Arrays]:
    return lambda window, _: read(window)


def _label_arrays(read: ReadLabel, counter: LabelCounts) -> Callable[[PixelWindow, bool], Arrays]:
    def arrays(window: PixelWindow, is_first: bool) -> Arrays:
        decoded = read(window)
        if is_first:
            counter.add(decoded, window)
        return (decoded.mask,)

    return arrays
