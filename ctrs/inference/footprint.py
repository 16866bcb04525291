"""What memory a prediction takes beside the network and its activations, told beforehand, and kept below a limit.

The sum of what is allocated at the same time, each part for the largest it can be. None depends on the scene's height.
K classes, C bands, h x w a window, W columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import numpy as np

from ctrs.config import TestTimeAugmentation, parse_tta
from ctrs.errors import UsageError
from ctrs.inference.blending import rows_at_a_time
from ctrs.inference.pixels import FileBlocks
from ctrs.inference.prefetch import READ_AHEAD, WRITE_BEHIND
from ctrs.inference.products import Products
from ctrs.inference.row_files import MIN_ROWS
from ctrs.inference.window_plan import WindowPlan
from ctrs.progress import format_bytes
from ctrs.raster.geotiff import GDAL_CACHE_BYTES
from ctrs.raster.row_bands import BLOCK_PX

_FLOAT = 4
_BATCHES_HELD = READ_AHEAD + 2
"""Waiting in the queue, in the reader's hand, and in the network's."""
_ROWS_HELD = WRITE_BEHIND + 2
"""Finished rows of windows: being made, waiting in the queue, and in the writer's hand."""

_ROWS_OF_OVERVIEWS = 4
"""Rows of blocks of a mask that are held while its overviews are made: read, joined, and those of all levels."""
_WRITER_BYTES = 32 * 2**20
"""What GDAL's COG driver takes whatever the file: a piece of an overview, and blocks that are compressed."""
_BLOCKS_AT_ONCE = 8
"""Blocks of probabilities that it holds."""

_GAPS = 0.25
"""What lies idle between the pieces of memory that a process keeps, as a share of them: at most a sixth was measured,
and it differs from run to run with the timing of threads."""


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Bytes that are held at most at the same time, by what holds them.

    Args:
        scene: Raw rows and valid masks that the reader holds.
        batches: Windows made ready for the network.
        strips: Sums that later windows touch, with the piece that is being blended.
        rows: Finished rows on their way to disk.
        gdal: GDAL's block cache while windows are read.
        augmented: Copies of a batch, and their logits, that test-time augmentation takes.
        gaps: What lies idle in between where freed memory stays in the process; 0 where it goes back to the system.
        finishing: What writing the finished files takes, GDAL's cache included, when all else is free again.
        blocks: Number of blocks of columns.
    """

    scene: int
    batches: int
    strips: int
    rows: int
    gdal: int
    augmented: int = 0
    gaps: int = 0
    finishing: int = 0
    blocks: int = 1

    @property
    def total(self) -> int:
        """The larger of what mapping and finishing take."""
        mapping = self.scene + self.batches + self.strips + self.rows + self.gdal + self.augmented + self.gaps
        return max(mapping, self.finishing)

    def __str__(self) -> str:
        """Return one line for whoever waits.

        >>> str(Footprint(scene=30_000_000, batches=25_000_000, strips=20_000_000, rows=9_000_000, gdal=64_000_000))
        'at most 148 MB beside the network (scene 30 MB, windows 25 MB, strips 20 MB, mask 9 MB, GDAL 64 MB)'
        """
        parts = {"scene": self.scene, "windows": self.batches, "strips": self.strips, "mask": self.rows}
        if self.augmented:
            parts["augmentation"] = self.augmented
        parts["GDAL"] = self.gdal
        if self.gaps:
            parts["gaps"] = self.gaps
        told = ", ".join(f"{name} {format_bytes(count)}" for name, count in parts.items())
        split = f", in {self.blocks} blocks of columns" if self.blocks > 1 else ""
        more = self.total == self.finishing
        finishing = f"; {format_bytes(self.finishing)} when the files are finished" if more else ""
        return f"at most {format_bytes(self.total)} beside the network ({told}{finishing}){split}"


def footprint(
    plan: WindowPlan,
    products: Products,
    *,
    count: int,
    dtype: str,
    blocks: FileBlocks,
    cache_bytes: int = GDAL_CACHE_BYTES,
    tta: str = "none",
    keeps_memory: bool = False,
) -> Footprint:
    """Return the bound on memory of a plan on the CPU; on a GPU the strips are on it.

    Args:
        plan: The windows, of the whole width or a block of columns.
        products: What is written.
        count: C.
        dtype: Of the scene.
        blocks: How the file's blocks divide the scene's rows.
        cache_bytes: Of GDAL's block cache while windows are read.
        tta: Test-time augmentation, as ``PredictConfig`` has it.
        keeps_memory: Whether windows are mapped within ``ctrs.memory.kept_memory``.
    """
    num_classes, item = products.classes.num_classes, np.dtype(dtype).itemsize
    height, width = min(plan.window_px, plan.height), min(plan.window_px, plan.width)
    columns_read = plan.columns_read.stop - plan.columns_read.start
    columns_run = plan.col_edges[-1] - plan.col_edges[0]
    columns = plan.columns.stop - plan.columns.start
    rows_read = min(height + (blocks.height - 1 if blocks.height <= height else 0), plan.height)
    finished = max(low - top for top, low in pairwise(plan.row_edges))
    shared_rows = max((top + height - low for top, low in pairwise(plan.row_starts)), default=0)
    shared_cols = max((left + width - right for left, right in pairwise(plan.col_starts)), default=0)
    # Held rows and the newly read ones, each with its valid mask; while masks are made, up to three more of them.
    scene = 2 * rows_read * columns_read * (count * item + 1) + 3 * rows_read * columns_read
    scene += _BATCHES_HELD * finished * columns  # valid masks on their way
    window = plan.window_px**2
    batches = _BATCHES_HELD * plan.batch_size * count * window * _FLOAT
    batches += (1 if np.dtype(dtype).kind in "iu" and item <= 2 else 3 * count) * window * _FLOAT  # while it is made
    piece = num_classes * rows_at_a_time(num_classes, height, width) * width * _FLOAT
    strips = num_classes * (shared_rows * columns_run + shared_cols * height) * _FLOAT + 3 * piece
    per_pixel = 2  # mask and valid mask
    per_pixel += (_FLOAT + 2) if products.confidence else 0  # and what is stored of it
    if products.probabilities:
        per_pixel += len(products.probability_names) * (1 if products.probabilities == "uint8" else 2 + _FLOAT)
    num_rows = (_ROWS_HELD + 1) * finished  # encoded, the written ones take no more once more
    if min(low - top for top, low in pairwise(plan.row_edges)) < MIN_ROWS:
        # Rows of windows that are too few to be written wait for others, and are there twice when they are joined.
        num_rows += 2 * (MIN_ROWS - 1 + finished)
    rows = num_rows * columns * per_pixel
    augmented = _augmented(plan, num_classes, count, parse_tta(tta))
    return Footprint(
        scene=scene,
        batches=batches,
        strips=strips,
        rows=rows,
        gdal=cache_bytes,
        augmented=augmented,
        gaps=math.ceil(_GAPS * (scene + batches + strips + rows + augmented)) if keeps_memory else 0,
        finishing=_finishing(plan, products),
    )


def _augmented(plan: WindowPlan, num_classes: int, count: int, tta: TestTimeAugmentation) -> int:
    """Return the bytes that test-time augmentation takes beside what the network itself does for one copy."""
    if tta.num_passes == 1:
        return 0
    size = plan.network_px or plan.window_px
    pixels = plan.batch_size * size**2 * _FLOAT
    enlarged = max((scale**2 for scale in tta.scales), default=1.0) if tta.kind == "multiscale" else 1.0
    sums = math.ceil(math.log2(tta.num_passes)) + 2  # added pair by pair, the newest one, and the mean
    return math.ceil(pixels * (2 * count * enlarged + num_classes * (sums + enlarged)))


def _finishing(plan: WindowPlan, products: Products) -> int:
    """Return the bytes that writing the finished files takes with GDAL's cache: rows of the whole scene's width."""
    overviews = _ROWS_OF_OVERVIEWS * BLOCK_PX * plan.width
    bands = len(products.probability_names) if products.probabilities else 0
    item = 1 if products.probabilities == "uint8" else _FLOAT
    return GDAL_CACHE_BYTES + overviews + _WRITER_BYTES + _BLOCKS_AT_ONCE * bands * item * BLOCK_PX**2


def fitting_blocks(
    plan: WindowPlan,
    products: Products,
    *,
    count: int,
    dtype: str,
    blocks: FileBlocks | None = None,
    cache_bytes: int = GDAL_CACHE_BYTES,
    max_memory: int | None = None,
    tta: str = "none",
) -> tuple[tuple[WindowPlan, ...], Footprint]:
    """Return the fewest blocks of columns whose memory stays within a limit, and the bound.

    Args:
        plan: The windows of the whole scene.
        products: What is written.
        count: Bands of the network.
        dtype: Of the scene.
        blocks: How the file's blocks divide the scene's rows.
        cache_bytes: Of GDAL's block cache while windows are read.
        max_memory: Bytes beside the network and its activations; None: no limit, one block, and memory is kept.
        tta: Test-time augmentation, as ``PredictConfig`` has it.

    Raises:
        UsageError: Not even blocks of one column of windows fit, or the finished files do not.
    """
    most = len(plan.scene_col_starts) if max_memory is not None else 1
    # Where the finished files do not fit, no number of blocks is of use.
    hopeless = max_memory is not None and _finishing(plan, products) > max_memory
    bytes_of = partial(
        footprint,
        products=products,
        count=count,
        dtype=dtype,
        blocks=blocks or FileBlocks(),
        cache_bytes=cache_bytes,
        tta=tta,
        keeps_memory=max_memory is None,
    )
    for number in range(most if hopeless else 1, most + 1):
        parts = plan.in_blocks(number)
        bounds = [bytes_of(part) for part in parts]
        largest = max(bounds, key=lambda bound: bound.total)
        bound = replace(largest, blocks=len(parts))
        if max_memory is None or bound.total <= max_memory:
            return parts, bound
    if bound.total == bound.finishing:
        raise UsageError(
            f"max_memory {format_bytes(max_memory or 0)} found, but writing the finished files of a scene of "
            f"{plan.width} px width takes {format_bytes(bound.finishing)} beside the network; allow at "
            "least that, or map parts of the scene with --bounds"
        )
    raise UsageError(
        f"max_memory {format_bytes(max_memory or 0)} found, but one column of windows of {plan.window_px} px takes "
        f"{format_bytes(bound.total)} beside the network; allow at least that, or choose a smaller window or batch size"
    )
