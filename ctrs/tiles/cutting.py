"""A row of tiles is cut from a scene: read once, decoded, measured, written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile

from ctrs.classes import IGNORE_INDEX, ClassMap, Mask
from ctrs.errors import OutputError
from ctrs.raster.geotiff import GDAL_OPTIONS, Grid
from ctrs.raster.windows import PixelWindow, sliding_windows
from ctrs.tiles.scenes import ReadyScene
from ctrs.tiles.statistics import Moments

READ_BYTES = 256 * 2**20
"""Most image bytes of rows of tiles read at a time, over all threads."""

STRIP_ROWS = 128
"""Rows of a strip: GDAL's default of a few rows makes files 5 % (images) to 20 % (masks) larger."""

KINDS = ("images", "masks", "masks_eroded")
"""Folders of the three files of a tile."""


@dataclass(frozen=True, kw_only=True)
class CutTile:
    """A tile that has been written, or was found to hold no imagery.

    Args:
        scene: Name of the scene.
        row: Row of the tile in the scene's tiling.
        col: Column of the tile in the scene's tiling.
        window: Its place in the scene.
        valid_fraction: Share of valid pixels; 0 for a tile that was not written.
        class_counts: Pixels of the mask by class index.
        moments: Of the valid pixels.
        num_near: Label pixels whose colour was off by no more than the tolerance, in all tiles read together with it.
        hash: Of the pixels, whatever the file's name and compression; equal for copies of the same ground.
        sizes: Bytes of its files, in the order of ``KINDS``.
    """

    scene: str
    row: int
    col: int
    window: PixelWindow
    valid_fraction: float
    class_counts: tuple[int, ...]
    moments: Moments
    num_near: int
    hash: str
    sizes: tuple[int, ...]

    @property
    def file_name(self) -> str:
        """Name of its files."""
        return f"{self.scene}_{self.row:03d}_{self.col:03d}.tif"

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> CutTile:
        """Build from ``to_json`` output; raises KeyError or TypeError on anything else."""
        return cls(
            **{
                **row,
                "window": PixelWindow(**row["window"]),
                "class_counts": tuple(row["class_counts"]),
                "moments": Moments.from_json(row["moments"]),
                "sizes": tuple(row["sizes"]),
            }
        )


@dataclass(frozen=True, kw_only=True)
class TileRow:
    """Tiles that one task cuts: a row, or all rows of a file that can only be read from its beginning."""

    scene: ReadyScene
    places: tuple[tuple[int, int, PixelWindow], ...]

    @property
    def key(self) -> str:
        """Name of the task, the same in each run."""
        row, col, _ = self.places[0]
        return f"{self.scene.name}_{row:03d}_{col:03d}"


def tile_rows(scene: ReadyScene) -> list[TileRow]:
    """Lay out the tiles of a scene: side by side, the last row and column shifted inwards."""
    windows = sliding_windows(scene.grid.height, scene.grid.width, scene.tile_px, scene.stride_px)
    rows = [tuple(group) for _, group in groupby(windows, key=lambda window: window.row_off)]
    places = [tuple((row, col, window) for col, window in enumerate(windows)) for row, windows in enumerate(rows)]
    if scene.imagery.sequential:
        return [TileRow(scene=scene, places=tuple(place for row in places for place in row))]
    return [TileRow(scene=scene, places=row) for row in places]


def cut_tiles(task: TileRow, classes: ClassMap, folder: Path, *, read_bytes: int = READ_BYTES) -> list[CutTile]:
    """Write the tiles of a task below a folder.

    Args:
        task: Tiles to cut.
        classes: Class table.
        folder: Holds a folder for each of ``KINDS``.
        read_bytes: Most bytes of imagery to read at a time, if that is not less than a tile.

    Raises:
        RasterError: The image or a label cannot be read.
        UnknownColorError: A label holds what the class table does not.
        OutputError: A tile cannot be written.
    """
    scene = task.scene
    cut: list[CutTile] = []
    with ExitStack() as stack:
        read_pixels = stack.enter_context(scene.imagery.reader())
        labels = [stack.enter_context(label.reader()) for label in (scene.label, scene.eroded) if label is not None]
        for chunk in _chunks(task, read_bytes):
            span = _span([window for _, _, window in chunk])
            pixels, valid = read_pixels(span)
            decoded = [read(span) for read in labels]
            for row, col, window in chunk:
                inside = _inside(window, span)
                cut.append(
                    _write_tile(
                        scene,
                        (row, col, window),
                        pixels[(slice(None), *inside)],
                        valid[inside],
                        [label.mask[inside] for label in decoded],
                        classes,
                        folder,
                    )
                )
            cut[-1] = replace(cut[-1], num_near=sum(label.num_changed for label in decoded))
    return cut


def _chunks(task: TileRow, read_bytes: int) -> Iterator[tuple[tuple[int, int, PixelWindow], ...]]:
    """Group the tiles of a row so that each group can be read at once in bounded memory."""
    for _, group in groupby(task.places, key=lambda place: place[0]):
        row = tuple(group)
        _, _, first = row[0]
        item = len(task.scene.imagery.names) * np.dtype(task.scene.imagery.dtype).itemsize
        number = max(1, read_bytes // (first.width * first.height * item))
        for start in range(0, len(row), number):
            yield row[start : start + number]


def _span(windows: list[PixelWindow]) -> PixelWindow:
    left, right = windows[0].col_off, windows[-1].col_off + windows[-1].width
    return PixelWindow(col_off=left, row_off=windows[0].row_off, width=right - left, height=windows[0].height)


def _inside(window: PixelWindow, span: PixelWindow) -> tuple[slice, slice]:
    left = window.col_off - span.col_off
    return slice(0, window.height), slice(left, left + window.width)


def _write_tile(
    scene: ReadyScene,
    place: tuple[int, int, PixelWindow],
    pixels: npt.NDArray[Any],
    valid: npt.NDArray[np.bool_],
    masks: list[Mask],
    classes: ClassMap,
    folder: Path,
) -> CutTile:
    row, col, window = place
    tile = CutTile(
        scene=scene.name,
        row=row,
        col=col,
        window=window,
        valid_fraction=float(valid.mean()),
        class_counts=(0,) * classes.num_classes,
        moments=Moments.of(pixels, valid),
        num_near=0,
        hash=pixel_hash(pixels),
        sizes=(),
    )
    if not valid.any():
        return tile
    grid = scene.grid.window(window)
    paths = [folder / kind / tile.file_name for kind in KINDS[: 1 + len(masks)]]
    write_image_tile(paths[0], pixels, valid, grid, nodata=scene.imagery.nodata, colors=scene.imagery.colors)
    counts = np.zeros(classes.num_classes, np.int64)
    for number, (path, mask) in enumerate(zip(paths[1:], masks, strict=True)):
        own = np.where(valid, mask, np.uint8(IGNORE_INDEX))
        if number == 0:
            counts = np.bincount(own.reshape(-1), minlength=256)[: classes.num_classes]
        write_mask_tile(path, own, grid, classes)
    return replace(tile, class_counts=tuple(counts.tolist()), sizes=tuple(path.stat().st_size for path in paths))


def pixel_hash(pixels: npt.NDArray[Any]) -> str:
    """Return a hash of pixels (C, h, w), their shape and dtype."""
    digest = hashlib.blake2b(f"{pixels.dtype.str}{pixels.shape}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def write_image_tile(
    path: Path,
    pixels: npt.NDArray[Any],
    valid: npt.NDArray[np.bool_],
    grid: Grid,
    *,
    nodata: float | None,
    colors: Sequence[ColorInterp],
) -> None:
    """Write pixels (C, h, w) as they are; where the nodata value does not say what is valid, an internal mask does.

    Raises:
        OutputError: The file cannot be written.
    """
    rgb = tuple(colors[:3]) == (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    profile = {
        **_profile(grid),
        "count": len(pixels),
        "dtype": pixels.dtype.name,
        "nodata": nodata,
        "interleave": "pixel",
        "predictor": 3 if pixels.dtype.kind == "f" else 2,
        # Said in so many words: left to itself, GDAL marks the fourth of four 8-bit bands as alpha.
        "photometric": "RGB" if rgb and pixels.dtype.name in ("uint8", "uint16") else "MINISBLACK",
    }
    with _new_tiff(path, profile) as dataset:
        dataset.write(pixels)
        if nodata is None and not valid.all() and not _is_nan_mask(pixels, valid):
            dataset.write_mask(valid)


@contextmanager
def _new_tiff(path: Path, profile: dict[str, Any]) -> Iterator[rasterio.io.DatasetWriter]:
    """Open a TIFF for writing in memory, and write the file when it is closed.

    GDAL keeps quiet when the disk is full at the moment a file is closed (seen with GDAL 3.10); Python does not.
    """
    try:
        with rasterio.Env(**GDAL_OPTIONS, GDAL_TIFF_INTERNAL_MASK=True), MemoryFile() as memory:
            with memory.open(**profile) as dataset:
                yield dataset
            path.write_bytes(memory.getbuffer())
    except (RasterioError, CPLE_BaseError, OSError) as error:
        raise OutputError(f"{path}: cannot be written ({error}); check free space and rights") from error


def _is_nan_mask(pixels: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> bool:
    """Tell whether NaN alone says which pixels are valid, as it does in the source."""
    return pixels.dtype.kind == "f" and bool((~np.isnan(pixels).any(axis=0) == valid).all())


def write_mask_tile(path: Path, mask: Mask, grid: Grid, classes: ClassMap) -> None:
    """Write a mask (h, w) with the classes' colours.

    Raises:
        OutputError: The file cannot be written.
    """
    profile = {**_profile(grid), "count": 1, "dtype": "uint8", "nodata": IGNORE_INDEX, "photometric": "PALETTE"}
    with _new_tiff(path, profile) as dataset:
        dataset.write_colormap(1, {number: (*color, 255) for number, color in enumerate(classes.colors)})
        dataset.write(mask, 1)


def _profile(grid: Grid) -> dict[str, Any]:
    return {
        "driver": "GTiff",
        "width": grid.width,
        "height": grid.height,
        "crs": grid.crs,
        "transform": grid.transform,
        "compress": "deflate",
        "zlevel": 6,
        "blockysize": min(STRIP_ROWS, grid.height),
    }
