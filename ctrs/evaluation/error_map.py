"""Where a mask is wrong, as a raster for a GIS: correct, or which class should be there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import rasterio

from ctrs.classes import IGNORE_INDEX, ClassMap, Mask
from ctrs.errors import GridMismatchError
from ctrs.jobs import fingerprint, partial_work
from ctrs.metrics import ScoredBlock
from ctrs.raster.cog import publish_class_cog, write_category_cog
from ctrs.raster.geotiff import Grid, open_raster, read_window
from ctrs.raster.row_bands import RowBands
from ctrs.raster.windows import PixelWindow

ERRORS_TAG = "CTRS_ERRORS"
"""Tag with the meaning of an error map's values, as ``CTRS_CLASSES`` has that of a mask's."""

CORRECT = 0
"""Value of pixels that are right; a wrong one has 1 + the index of its true class, one that is not scored 255."""

_MOST_ROWS = 512
_FEWEST_ROWS = 64
_STRIP_PX = 1 << 22
"""Pixels read at a time, as far as rows are not too wide for that."""

_GREYS = (204, 128, 64, 236, 170, 32, 96)


def error_categories(classes: ClassMap) -> list[tuple[str, tuple[int, int, int]]]:
    """Return names and colours of an error map's values 0, 1, ...: correct, then what should be there.

    Wrong pixels have the colour of their true class, correct ones a grey far from all of these.
    """
    colors = np.array(classes.colors, float)
    gaps = [float(np.abs(colors - grey).max(axis=1).min()) for grey in _GREYS]
    # Among greys that all are far enough, the first, which is the quietest.
    grey = next((grey for grey, gap in zip(_GREYS, gaps, strict=True) if gap >= 48), _GREYS[int(np.argmax(gaps))])
    wrong = [(f"wrong, should be {name}", color) for name, color in zip(classes.names, classes.colors, strict=True)]
    return [("correct", (grey, grey, grey)), *wrong]


def error_values(truth: Mask, pred: Mask) -> Mask:
    """Return the values of an error map for a true and a predicted mask of one shape.

    True pixels without prediction are wrong; pixels without truth are not scored.

    >>> error_values(np.array([0, 0, 1, 255], np.uint8), np.array([0, 1, 255, 0], np.uint8)).tolist()
    [0, 1, 2, 255]
    """
    values = truth + np.uint8(1)  # 255 becomes 0, and is put right below
    values[truth == pred] = CORRECT
    values[truth == IGNORE_INDEX] = IGNORE_INDEX
    return values


class ErrorMapWriter:
    """Makes an error map of the blocks of one scene, as they pass; one row of blocks is held in memory.

    Args:
        scratch: Folder for the rows that are finished; what stands there is removed.
        grid: Grid of the scene.
        classes: Class table of the masks.
    """

    def __init__(self, scratch: Path, grid: Grid, classes: ClassMap) -> None:
        shutil.rmtree(scratch, ignore_errors=True)
        self._bands = RowBands(scratch, grid.width)
        self._grid = grid
        self._categories = error_categories(classes)
        self._rows = np.empty((0, grid.width), np.uint8)

    def update(self, block: ScoredBlock) -> None:
        """Take the next block.

        Raises:
            OutputError: Rows cannot be written.
        """
        values = error_values(block.core_truth, block.core_pred)
        height, width = values.shape
        if block.col_off == 0:
            self._rows = np.empty((height, self._grid.width), np.uint8)
        self._rows[:, block.col_off : block.col_off + width] = values
        if block.col_off + width == self._grid.width:
            self._bands.append(self._rows)

    def write(self, staged: Path) -> Path:
        """Write the map, its legend in ``STAGED.aux.xml``, after all blocks have passed, and clear the scratch folder.

        Args:
            staged: GeoTIFF to write, in a folder for unfinished work; it is incomplete until this returns.

        Raises:
            OutputError: It cannot be written.
        """
        rows = [{"value": value, "name": name, "color": color} for value, (name, color) in enumerate(self._categories)]
        tags = {ERRORS_TAG: json.dumps(rows)}
        write_category_cog(staged, self._bands, self._grid, self._categories, tags, overviews="NEAREST")
        shutil.rmtree(self._bands.folder)
        return staged


def write_error_map(truth: Path, pred: Path, out: Path, classes: ClassMap) -> Path:
    """Write where a mask is wrong as a COG: one byte a pixel, with names and colours that a GIS shows as legend.

    Memory does not grow with the masks' height. Nothing incomplete ever stands under the final name; what stood there
    is replaced.

    Args:
        truth: True mask: class indices, 255 where ignored.
        pred: Predicted mask on the same grid.
        out: GeoTIFF to write; its category names go to ``OUT.aux.xml``.
        classes: Class table of both.

    Returns:
        ``out``.

    Raises:
        RasterError: A mask cannot be read.
        GridMismatchError: The masks differ in size.
        OutputError: The file cannot be written.
    """
    job = fingerprint({"step": "error map", "truth": truth.absolute(), "pred": pred.absolute()})
    with ExitStack() as stack:
        true, found = (stack.enter_context(open_raster(path)) for path in (truth, pred))
        if true.shape != found.shape:
            raise GridMismatchError(
                f"{pred}: {found.width} x {found.height} px found, but {truth} has {true.width} x {true.height}; "
                "compare masks on one grid"
            )
        work = stack.enter_context(partial_work(out, job, overwrite=True))
        writer = ErrorMapWriter(work.folder / "rows", Grid.of(found), classes)
        for block in _strips(true, found):
            writer.update(block)
        publish_class_cog(work, writer.write(work.folder / out.name))
    return out


def _strips(truth: rasterio.DatasetReader, pred: rasterio.DatasetReader) -> Iterator[ScoredBlock]:
    """Yield two masks strip by strip."""
    for window in strip_windows(truth.shape):
        yield ScoredBlock(
            truth=_read_mask(truth, window),
            pred=_read_mask(pred, window),
            core=(slice(0, window.height), slice(0, window.width)),
            row_off=window.row_off,
            col_off=0,
            scene_shape=truth.shape,
        )


def strip_windows(shape: tuple[int, int]) -> Iterator[PixelWindow]:
    """Yield windows over whole rows, from the top down, as many rows at a time as fixed memory allows.

    >>> [window.height for window in strip_windows((1200, 100))]
    [512, 512, 176]
    """
    height, width = shape
    step = max(_FEWEST_ROWS, min(_MOST_ROWS, _STRIP_PX // width))
    for row_off in range(0, height, step):
        yield PixelWindow(col_off=0, row_off=row_off, width=width, height=min(step, height - row_off))


def _read_mask(dataset: rasterio.DatasetReader, window: PixelWindow) -> Mask:
    """Read a window of a mask; what is invalid is ignored."""
    pixels, valid = read_window(dataset, window, bidx=(1,))
    mask: Mask = pixels[0]
    mask[~valid] = IGNORE_INDEX
    return mask
