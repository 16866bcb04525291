"""Labels that are resampled are also counted as they came, each pixel of the file once: nearest sampling loses some."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from rasterio.enums import MaskFlags

from ctrs.errors import CtrsError
from ctrs.progress import Progress, no_progress
from ctrs.raster.geotiff import Grid, open_raster
from ctrs.raster.locate import locate
from ctrs.raster.warp import GridWarp, grid_warp
from ctrs.raster.windows import PixelWindow
from ctrs.tiles.composed_imagery import MaskedImagery, StackedImagery, WarpedImagery
from ctrs.tiles.counting import Counts, LabelCounts, count_classes
from ctrs.tiles.facts import SceneFacts
from ctrs.tiles.imagery import FileImagery, Imagery
from ctrs.tiles.polygon_labels import PolygonLabel
from ctrs.tiles.raster_labels import RasterLabel
from ctrs.tiles.scenes import ReadyScene
from ctrs.vector.area import INSIDE
from ctrs.vector.rasterize import GridPolygons

CHUNK_BYTES = 16 * 2**20
"""Bytes of labels and imagery read at a time, where that is more than a block."""

_BORDER_POINTS = 65

Where = Callable[[PixelWindow], npt.NDArray[np.bool_]]
"""Tells of the pixels (h, w) of a window of a label whether they count."""


@dataclass(frozen=True, kw_only=True)
class SourceCounts:
    """What a label holds on its own grid, where its image lies.

    Args:
        by_class: Pixels with valid imagery by class index.
        num_px: Pixels on the image.
        px_area: Ground of a pixel, in pixels of the tiles' grid.
        label: What decoding changed or did not know.
    """

    by_class: tuple[int, ...]
    num_px: int
    px_area: float
    label: LabelCounts


def add_source_counts(
    scenes: Sequence[ReadyScene],
    facts: Mapping[str, SceneFacts],
    *,
    workers: int = 1,
    progress: Progress = no_progress,
    on_error: Callable[[str, CtrsError], None],
) -> dict[str, SceneFacts]:
    """Return the facts with the counts of what the labels hold before they are resampled.

    Unknown and changed colours are counted in the file, because a pixel that no sample hits is in no mask.

    Args:
        scenes: Scenes that have facts.
        facts: What was counted on the tiles' grids, by name of the scene.
        workers: Threads, each with a scene of its own.
        progress: Called after each scene.
        on_error: Takes the name of a scene whose label cannot be read, and why; its facts are left out.
    """

    def count(scene: ReadyScene) -> SceneFacts | CtrsError:
        try:
            return _with_source(scene, facts[scene.name])
        except CtrsError as error:
            return error

    result = dict(facts)
    resampled = [scene for scene in scenes if _is_resampled(scene)]
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for number, (scene, found) in enumerate(zip(resampled, pool.map(count, resampled), strict=True), start=1):
            if isinstance(found, CtrsError):
                del result[scene.name]
                on_error(scene.name, found)
            else:
                result[scene.name] = found
            progress(number, len(resampled), "labels as they came")
    for scene in scenes:
        if isinstance(scene.label, PolygonLabel) and scene.name in result:
            num_classes = len(result[scene.name].label_counts)
            polygons = np.bincount(scene.label.polygons.values, minlength=256)[:num_classes]
            result[scene.name] = replace(result[scene.name], polygon_counts=tuple(polygons.tolist()))
    return result


def _is_resampled(scene: ReadyScene) -> bool:
    return isinstance(scene.label, RasterLabel) and scene.label.warp is not None


def _with_source(scene: ReadyScene, facts: SceneFacts) -> SceneFacts:
    assert isinstance(scene.label, RasterLabel)
    found = count_source(scene.label, scene.imagery, len(facts.label_counts))
    facts = replace(
        facts,
        source_counts=found.by_class,
        source_px=found.num_px,
        source_px_area=found.px_area,
        num_changed=found.label.num_changed,
        unknown=dict(sorted(found.label.unknown.items())),
        first_unknown=found.label.first_unknown,
    )
    if isinstance(scene.eroded, RasterLabel) and scene.eroded.warp is not None:
        eroded = count_source(scene.eroded, scene.imagery, len(facts.label_counts)).label
        facts = replace(
            facts, eroded_unknown=dict(sorted(eroded.unknown.items())), eroded_first_unknown=eroded.first_unknown
        )
    return facts


def count_source(label: RasterLabel, imagery: Imagery, num_classes: int) -> SourceCounts:
    """Count a label on its own grid, block by block.

    Args:
        label: One that is resampled.
        imagery: The imagery of its scene.
        num_classes: Number of classes.

    Raises:
        CtrsError: A file cannot be read.
    """
    warp = label.warp
    assert warp is not None
    by_class: Counts = np.zeros(num_classes + 1, np.int64)
    counts, num_px = LabelCounts(), 0
    image, areas = _parts_of(imagery)
    with ExitStack() as stack:
        read = stack.enter_context(label.source_reader())
        valid = [stack.enter_context(_validity(file, warp.source)) for file in image]
        valid += [_area_test(area, warp) for area in areas]
        on_image = None if not image or image[0].grid == warp.source else _extent_test(image[0].grid, warp.source)
        item = 4 + sum(np.dtype(file.dtype).itemsize * len(file.names) for file in image if not _is_all_valid(file))
        for window in _windows(label, _box(warp), CHUNK_BYTES // item):
            where = None if on_image is None else on_image(window)
            decoded = read(window, where)
            counts.add(decoded, window)
            num_px += window.height * window.width if where is None else int(np.count_nonzero(where))
            mask = decoded.mask
            for test in valid:
                mask = np.where(test(window), mask, np.uint8(255))
            by_class += count_classes(mask, num_classes, 0)
    a, b, _, d, e, _ = tuple(warp.affine)[:6] if warp.affine is not None else (warp.scale, 0, 0, 0, warp.scale, 0)
    return SourceCounts(
        by_class=tuple(by_class[:num_classes].tolist()), num_px=num_px, px_area=1 / abs(a * e - b * d), label=counts
    )


def _windows(label: RasterLabel, box: PixelWindow, budget_px: int) -> Iterator[PixelWindow]:
    """Cut the file into windows of whole blocks, row by row, those that meet a part of it."""
    stored = replace(label, warp=None)
    assert label.warp is not None
    height, width = label.warp.source.shape
    rows, cols = stored.block_px
    if stored.sequential or rows * width <= budget_px:
        cols = width
        rows *= max(1, budget_px // (rows * width))
    else:
        cols *= max(1, budget_px // (rows * cols))
    for top in range(box.row_off // rows * rows, box.row_off + box.height, rows):
        for left in range(box.col_off // cols * cols, box.col_off + box.width, cols):
            yield PixelWindow(col_off=left, row_off=top, width=min(cols, width - left), height=min(rows, height - top))


def _box(warp: GridWarp) -> PixelWindow:
    """Return the part of a label's own grid that the tiles' grid covers, by points along its border."""
    along, none, full = np.linspace(0.0, 1.0, _BORDER_POINTS), np.zeros(_BORDER_POINTS), np.ones(_BORDER_POINTS)
    cols = np.concatenate([along, along, none, full]) * warp.target.width
    rows = np.concatenate([none, full, along, along]) * warp.target.height
    with np.errstate(invalid="ignore"):
        found_cols, found_rows = locate(warp.source, warp.target, cols, rows)
    height, width = warp.source.shape
    finite = np.isfinite(found_cols) & np.isfinite(found_rows)
    if not finite.all():
        return PixelWindow(col_off=0, row_off=0, width=width, height=height)
    left, top = max(0, int(np.floor(found_cols.min())) - 1), max(0, int(np.floor(found_rows.min())) - 1)
    right = min(width, int(np.ceil(found_cols.max())) + 1)
    bottom = min(height, int(np.ceil(found_rows.max())) + 1)
    return PixelWindow(col_off=left, row_off=top, width=max(0, right - left), height=max(0, bottom - top))


def _parts_of(imagery: Imagery) -> tuple[list[FileImagery], list[GridPolygons]]:
    """Return the files that imagery is made of, the image first, and the areas that it is cut to."""
    if isinstance(imagery, FileImagery):
        return [imagery], []
    if isinstance(imagery, WarpedImagery):
        return _parts_of(imagery.base)
    if isinstance(imagery, MaskedImagery):
        files, areas = _parts_of(imagery.base)
        return files, [*areas, imagery.area]
    if isinstance(imagery, StackedImagery):
        parts = [_parts_of(layer) for layer in imagery.layers]
        return [file for files, _ in parts for file in files], [area for _, areas in parts for area in areas]
    return [], []


def _is_all_valid(file: FileImagery) -> bool:
    """Tell whether each pixel of a file is valid, whatever it holds."""
    if file.palette is not None or np.dtype(file.dtype).kind == "f":
        return False
    with open_raster(file.path) as dataset:
        return all(dataset.mask_flag_enums[number - 1] == [MaskFlags.all_valid] for number in file.bidx)


@contextmanager
def _validity(file: FileImagery, grid: Grid) -> Iterator[Where]:
    """Give a function that tells which pixels of a label's grid have valid imagery (at their centres)."""
    if file.grid == grid:
        if _is_all_valid(file):
            yield _everywhere
            return
        with file.reader() as read:
            yield lambda window: read(window)[1]
        return
    if grid.ground_control is not None:  # only the image itself lies on such a grid
        yield _everywhere
        return
    if _is_all_valid(file):
        yield _extent_test(file.grid, grid)
        return
    warp = grid_warp(file.grid, grid)
    with file.reader() as read:

        def flags(window: PixelWindow) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
            valid = read(window)[1]
            return valid[None].view(np.uint8), valid

        yield lambda window: warp.read(window, flags, method="nearest", count=1, dtype=np.dtype(np.uint8))[1]


def _everywhere(window: PixelWindow) -> npt.NDArray[np.bool_]:
    return np.ones((window.height, window.width), bool)


def _extent_test(image: Grid, grid: Grid) -> Where:
    """Return a function that tells which pixels of a label's grid lie on an image."""
    warp = grid_warp(image, grid)

    def ones(window: PixelWindow) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        valid = _everywhere(window)
        return valid[None].view(np.uint8), valid

    return lambda window: warp.read(window, ones, method="nearest", count=1, dtype=np.dtype(np.uint8))[1]


def _area_test(area: GridPolygons, warp: GridWarp) -> Where:
    """Return a function that tells which pixels of a label's grid lie in an area on the tiles' grid."""
    scene = shapely.box(0, 0, warp.target.width, warp.target.height)
    inside = shapely.intersection(area.shapes, scene)
    kept = shapely.area(inside) > 0
    shapes = shapely.transform(
        inside[kept], lambda xy: np.column_stack(locate(warp.source, warp.target, xy[:, 0], xy[:, 1]))
    )
    moved = GridPolygons(shapes=shapes, values=area.values[kept])
    return lambda window: moved.rasterize(window, background=0) == INSIDE
