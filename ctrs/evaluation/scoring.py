"""One pass over a scene: truths, mask and confidence are read block by block, and every score counts at once.

Each score counts in a thread of its own, while the next block is read. Memory depends on the block, the halo and what
the scores keep (numbers; for objects, one row of pixels and a line for each object), not on the scene's size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TypeVar

from ctrs.classes import ClassMap, Mask
from ctrs.config import EvalConfig
from ctrs.errors import LabelError, UnknownColorError
from ctrs.evaluation.mask_reading import ReadConfidence, ReadMask
from ctrs.evaluation.protocols import Labels
from ctrs.evaluation.scene_score import SceneScore
from ctrs.inference.prefetch import WriteBehind
from ctrs.metrics import (
    AreaCounts,
    BoundaryCounts,
    CalibrationCounts,
    ConfusionMatrix,
    ObjectCounts,
    ScoredBlock,
    erode_labels,
)
from ctrs.progress import Progress, no_progress
from ctrs.raster.geotiff import Grid
from ctrs.raster.units import ground_pixel_size_m
from ctrs.raster.windows import PixelWindow

BLOCK_PX = 1024
"""Edge of the blocks; a multiple of the blocks of masks on disk."""

EROSION_PX = 3
"""Radius by which ISPRS erodes its labels."""

ERODED_HERE: Labels = "isprs (eroded here)"

_Item = TypeVar("_Item")


@dataclass(frozen=True, kw_only=True)
class SceneMasks:
    """What is compared: readers of masks that lie on one grid.

    Args:
        name: Name of the scene.
        grid: The common grid.
        truths: True masks by their kind of labels, ``strict`` among them.
        pred: Predicted mask.
        confidence: Probability of the predicted class; None where it is not known.
        eroded_here: Also score the strict labels with borders eroded.
        label: What messages call the truth.
    """

    name: str
    grid: Grid
    truths: Mapping[Labels, ReadMask]
    pred: ReadMask
    confidence: ReadConfidence | None = None
    eroded_here: bool = False
    label: str = "truth"


def score_scene(
    masks: SceneMasks,
    classes: ClassMap,
    options: EvalConfig,
    *,
    mask: str,
    notes: tuple[str, ...] = (),
    progress: Progress = no_progress,
    watchers: Sequence[Callable[[ScoredBlock], None]] = (),
    block_px: int | None = None,
) -> SceneScore:
    """Count everything that a report is made of.

    Args:
        masks: What is compared.
        classes: Class table of all masks.
        options: What is counted, and how.
        mask: Path of the predicted mask for the record.
        notes: For the record.
        progress: Told the blocks counted.
        watchers: Are given each block as well, with the strict truth.
        block_px: Edge of the blocks; None: ``BLOCK_PX``. It leaves no trace in the result.

    Raises:
        RasterError: A file cannot be read.
        LabelError: A mask holds values outside the class table.
    """
    kinds: tuple[Labels, ...] = (*masks.truths, *((ERODED_HERE,) if masks.eroded_here else ()))
    score = empty_score(
        masks.name, kinds, classes, options, mask=mask, notes=notes, confident=masks.confidence is not None
    )
    halo_px = max(
        0 if score.outlines is None else score.outlines.halo_px,
        EROSION_PX if masks.eroded_here else 0,
    )
    windows = list(_windows(masks.grid, block_px or BLOCK_PX))
    try:
        with ExitStack() as stack:

            def counting(update: Callable[[_Item], object]) -> Callable[[_Item], None]:
                return stack.enter_context(WriteBehind(update)).put

            feed = [counting(update) for update in (*_block_updates(score), *watchers)]
            count_pixels = {kind: counting(_pixel_update(matrix)) for kind, matrix in score.confusions.items()}
            for number, window in enumerate(windows):
                block = _read_block(masks, window, halo_px)
                for put in feed:
                    put(block)
                count_pixels["strict"]((block.core_truth, block.core_pred))
                for kind, truth in _other_truths(masks, window, block):
                    count_pixels[kind]((truth, block.core_pred))
                progress(number + 1, len(windows), f"scoring {masks.name}")
    except UnknownColorError:  # names its file
        raise
    except LabelError as error:
        raise LabelError(f"{masks.label}: {error}") from error
    return score if options.pixels_only else replace(score, area=_area(score.confusions["strict"], masks.grid))


def empty_score(
    name: str,
    kinds: Sequence[Labels],
    classes: ClassMap,
    options: EvalConfig,
    *,
    mask: str,
    notes: tuple[str, ...] = (),
    confident: bool,
) -> SceneScore:
    """Return counts of nothing, of all that is going to be counted.

    Args:
        name: Name of the scene.
        kinds: Kinds of labels.
        classes: Class table.
        options: What is counted, and how.
        mask: Path of the predicted mask for the record.
        notes: For the record.
        confident: Whether confidences are known.
    """
    confusions = {kind: ConfusionMatrix(classes.num_classes) for kind in kinds}
    score = SceneScore(name=name, confusions=confusions, mask=mask, notes=notes)
    if options.pixels_only:
        return score
    scored = {classes.names[index]: index for index in classes.scored_indices}
    return replace(
        score,
        outlines=BoundaryCounts(
            classes.num_classes, boundary_px=options.boundary_px, distances_px=options.distances_px
        ),
        objects={
            name: ObjectCounts(scored[name], iou=options.object_iou, min_px=options.min_object_px)
            for name in options.objects
            if name in scored
        },
        calibration=CalibrationCounts(options.bins) if confident else None,
    )


def _area(matrix: ConfusionMatrix, grid: Grid) -> AreaCounts | None:
    """Return the area of each class, which the confusion matrix of full labels holds already; None without CRS."""
    if grid.crs is None:
        return None
    width, height = ground_pixel_size_m(grid)
    areas = AreaCounts(matrix.num_classes, pixel_area_m2=width * height)
    areas.add_pixels(matrix)
    return areas


def _block_updates(score: SceneScore) -> Iterator[Callable[[ScoredBlock], None]]:
    """Yield what wants to see each block."""
    for counts in (score.outlines, *score.objects.values(), score.calibration):
        if counts is not None:
            yield counts.update


def _pixel_update(matrix: ConfusionMatrix) -> Callable[[tuple[Mask, Mask]], None]:
    return lambda pair: matrix.update(*pair)


def _other_truths(masks: SceneMasks, window: PixelWindow, block: ScoredBlock) -> Iterator[tuple[Labels, Mask]]:
    for kind, read in masks.truths.items():
        if kind != "strict":
            yield kind, read(window)
    if masks.eroded_here:
        yield ERODED_HERE, erode_labels(block.truth, radius_px=EROSION_PX)[block.core]


def _windows(grid: Grid, block_px: int) -> Iterator[PixelWindow]:
    """Yield windows that cover a raster once, row by row."""
    for row_off in range(0, grid.height, block_px):
        for col_off in range(0, grid.width, block_px):
            yield PixelWindow(
                col_off=col_off,
                row_off=row_off,
                width=min(block_px, grid.width - col_off),
                height=min(block_px, grid.height - row_off),
            )


def _read_block(masks: SceneMasks, window: PixelWindow, halo_px: int) -> ScoredBlock:
    """Read a window with its halo, as far as the scene reaches."""
    top, left = max(window.row_off - halo_px, 0), max(window.col_off - halo_px, 0)
    bottom = min(window.row_off + window.height + halo_px, masks.grid.height)
    right = min(window.col_off + window.width + halo_px, masks.grid.width)
    wide = PixelWindow(col_off=left, row_off=top, width=right - left, height=bottom - top)
    row, col = window.row_off - top, window.col_off - left
    return ScoredBlock(
        truth=masks.truths["strict"](wide),
        pred=masks.pred(wide),
        core=(slice(row, row + window.height), slice(col, col + window.width)),
        row_off=window.row_off,
        col_off=window.col_off,
        scene_shape=masks.grid.shape,
        confidence=None if masks.confidence is None else masks.confidence(window),
    )
