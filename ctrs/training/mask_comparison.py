"""Masks on disk, compared pixel by pixel in fixed memory, whoever made them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ctrs.classes import BUILDING_CLASSES, IGNORE_INDEX, ClassMap, LandClass, Mask
from ctrs.config import EvalConfig
from ctrs.errors import LabelError, UnknownColorError
from ctrs.metrics import ConfusionMatrix
from ctrs.progress import Progress, no_progress
from ctrs.raster.cog import read_class_tag
from ctrs.raster.geotiff import Grid, open_raster, read_window
from ctrs.raster.windows import PixelWindow
from ctrs.tiles.class_tables import read_class_table
from ctrs.tiles.decoding import decode_values, unknown_message, unknown_noun
from ctrs.tiles.labels import Label
from ctrs.tiles.polygon_labels import PolygonLabel, background_value, polygon_values
from ctrs.tiles.raster_labels import open_raster_label
from ctrs.training.score_report import EvaluationReport, SceneScore
from ctrs.vector.rasterize import is_vector, place_polygons, read_polygons

ReadMask = Callable[[PixelWindow], Mask]

_BLOCK_PX = 2048
"""Edge of the windows that are counted at a time; a multiple of the blocks of masks."""


def count_pixels(truth: Path, pred: Path, classes: ClassMap) -> ConfusionMatrix:
    """Count the pixels of two masks of ctrs on one grid, window by window.

    Args:
        truth: True mask: class indices, 255 where ignored.
        pred: Predicted mask.
        classes: Class table of both.

    Raises:
        RasterError: A file cannot be read.
        LabelError: A mask holds other values.
    """
    matrix = ConfusionMatrix(classes.num_classes)
    with _mask_reader(truth) as (read_truth, grid), _mask_reader(pred) as (read_pred, _):
        for window in _blocks(grid):
            try:
                matrix.update(read_truth(window), read_pred(window))
            except LabelError as error:
                raise LabelError(f"{truth}: {error}") from error
    return matrix


@contextmanager
def _mask_reader(path: Path) -> Iterator[tuple[ReadMask, Grid]]:
    """Read a mask of ctrs; what is invalid is ignored."""
    with open_raster(path) as dataset:

        def read(window: PixelWindow) -> Mask:
            pixels, valid = read_window(dataset, window, bidx=(1,))
            mask: Mask = pixels[0]
            mask[~valid] = IGNORE_INDEX
            return mask

        yield read, Grid.of(dataset)


def _blocks(grid: Grid) -> Iterator[PixelWindow]:
    """Yield windows that cover a raster once, row by row."""
    for row_off in range(0, grid.height, _BLOCK_PX):
        for col_off in range(0, grid.width, _BLOCK_PX):
            yield PixelWindow(
                col_off=col_off,
                row_off=row_off,
                width=min(_BLOCK_PX, grid.width - col_off),
                height=min(_BLOCK_PX, grid.height - row_off),
            )


def evaluate_masks(
    pred: Path,
    truth: Path,
    config: EvalConfig | None = None,
    *,
    progress: Progress = no_progress,
) -> EvaluationReport:
    """Score a mask, whoever made it, against a label of the same ground. Nothing is written.

    Args:
        pred: Class mask; one that ctrs wrote names its classes, for others ``config.classes`` does, and pixels hold
            class values.
        truth: A class raster or colour-coded raster on the mask's grid, or polygons in any CRS. Polygons with a class
            field lie on ``background``, or on ground that is not scored where there is no such class; without one they
            are buildings, and building or not is all that is scored.
        config: Options, of which ``classes`` and ``class_field`` matter here.
        progress: Told the windows counted.

    Raises:
        InputNotFoundError: A file is not there.
        GridMismatchError: A raster truth lies on another grid.
        LabelError: Values, colours or names outside the class table, or a mask that names no classes.
    """
    started = time.monotonic()
    config = config or EvalConfig()
    with ExitStack() as stack:
        classes = _mask_classes(pred, config)
        read_pred, grid = stack.enter_context(_value_reader(pred, classes))
        label: Label
        if is_vector(truth):
            if config.class_field is None:
                read_pred = _only(read_pred, classes.index("building"))
                classes = BUILDING_CLASSES
            layer = read_polygons(truth, class_field=config.class_field)
            values = polygon_values(layer, classes, config.class_field)
            label = PolygonLabel(polygons=place_polygons(layer, grid, values), background=background_value(classes))
        else:
            label = open_raster_label(truth, pred, grid, classes, kind="auto", tolerance=0)
        read_truth = stack.enter_context(label.reader())
        windows = list(_blocks(grid))
        matrix = ConfusionMatrix(classes.num_classes)
        unknown, first = Counter[str](), None
        for number, window in enumerate(windows):
            decoded = read_truth(window)
            if decoded.first_unknown is not None:
                row, col = decoded.first_unknown
                unknown.update(decoded.unknown)
                first = first or (window.row_off + row, window.col_off + col)
            matrix.update(decoded.mask, read_pred(window))
            progress(number + 1, len(windows), f"scoring {pred.name}")
        if unknown:
            noun = unknown_noun(unknown)
            raise UnknownColorError(unknown_message(truth, noun, unknown, first, classes, options=False))
    return EvaluationReport(
        scenes=(SceneScore(name=pred.stem, confusions={"strict": matrix}, mask=str(pred)),),
        classes=classes,
        data=truth,
        seconds=time.monotonic() - started,
    )


def _mask_classes(pred: Path, config: EvalConfig) -> ClassMap:
    if config.classes is not None:
        return read_class_table(config.classes)
    rows = read_class_tag(pred)
    return ClassMap(classes=tuple(LandClass(value=row.value, name=row.name, color=row.color) for row in rows))


@contextmanager
def _value_reader(path: Path, classes: ClassMap) -> Iterator[tuple[ReadMask, Grid]]:
    """Read a raster of class values as a mask; nodata is what the file declares, else 255."""
    with open_raster(path) as dataset:
        nodata = IGNORE_INDEX if dataset.nodata is None else dataset.nodata

        def read(window: PixelWindow) -> Mask:
            pixels, _ = read_window(dataset, window, bidx=(1,))
            decoded = decode_values(pixels[0], classes, nodata=nodata)
            if decoded.first_unknown is not None:
                row, col = decoded.first_unknown
                first = (window.row_off + row, window.col_off + col)
                raise UnknownColorError(unknown_message(path, "value", decoded.unknown, first, classes, options=False))
            return decoded.mask

        yield read, Grid.of(dataset)


def _only(read: ReadMask, index: int) -> ReadMask:
    """Return a reader of masks with 1 for one class, 0 for all others."""

    def read_binary(window: PixelWindow) -> Mask:
        mask = read(window)
        known = mask != IGNORE_INDEX
        mask[known] = mask[known] == index
        return mask

    return read_binary
