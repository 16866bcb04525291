"""A tile is cut from the pixels of a scene: measured, and written as it is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
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
from ctrs.raster.windows import PixelWindow
from ctrs.tiles.counting import count_classes
from ctrs.tiles.scenes import ReadyScene
from ctrs.tiles.statistics import Moments

STRIP_ROWS = 128
"""Rows of a strip: GDAL's default of a few rows makes files 5 % (images) to 20 % (masks) larger."""

NO_MOMENTS = Moments(count=0, mean=(), deviation=(), least=(), greatest=())

KINDS = ("images", "masks", "masks_eroded")
"""Folders of the three files of a tile."""


@dataclass(frozen=True, kw_only=True)
class CutTile:
    """A tile that has been measured, and written if it is kept.

    Args:
        scene: Name of the scene.
        row: Row of the tile in the scene's tiling.
        col: Column of the tile in the scene's tiling.
        window: Its place in the scene.
        kept: Whether it is part of the data set: it has a valid pixel, and as many as were asked for.
        valid_fraction: Share of valid pixels.
        class_counts: Pixels of the mask by class index.
        moments: Of the valid pixels; not measured where the tile is not kept.
        hash: Of the pixels, whatever the file's name and compression; equal for copies of the same ground. Empty where
            the tile is not kept.
        sizes: Bytes of its files, in the order of ``KINDS``; empty where nothing was written.
    """

    scene: str
    row: int
    col: int
    window: PixelWindow
    kept: bool
    valid_fraction: float
    class_counts: tuple[int, ...]
    moments: Moments
    hash: str
    sizes: tuple[int, ...] = ()

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


def cut_tile(
    scene: ReadyScene,
    place: tuple[int, int, PixelWindow],
    pixels: npt.NDArray[Any],
    valid: npt.NDArray[np.bool_],
    masks: Sequence[Mask],
    classes: ClassMap,
    *,
    folder: Path | None,
    min_valid: float,
) -> CutTile:
    """Measure a tile and write its files.

    Args:
        scene: The scene.
        place: Row, column and window of the tile.
        pixels: (C, h, w).
        valid: (h, w), True = valid.
        masks: (h, w), 255 where not valid; the second is the one with eroded class borders.
        classes: Class table.
        folder: Holds a folder for each of ``KINDS``; None: nothing is written.
        min_valid: Least share of valid pixels of a tile that is kept.

    Raises:
        OutputError: A file cannot be written.
    """
    row, col, window = place
    num_valid = int(np.count_nonzero(valid))
    counts = count_classes(masks[0], classes.num_classes, num_valid)[: classes.num_classes]
    kept = num_valid > 0 and num_valid / valid.size >= min_valid
    tile = CutTile(
        scene=scene.name,
        row=row,
        col=col,
        window=window,
        kept=kept,
        valid_fraction=num_valid / valid.size,
        class_counts=tuple(counts.tolist()),
        moments=Moments.of(pixels, valid) if kept else NO_MOMENTS,
        hash=pixel_hash(pixels) if kept else "",
        sizes=(),
    )
    if not kept:
        return tile
    if folder is None:
        return tile
    grid = scene.grid.window(window)
    paths = [folder / kind / tile.file_name for kind in KINDS[: 1 + len(masks)]]
    write_image_tile(paths[0], pixels, valid, grid, nodata=scene.imagery.nodata, colors=scene.imagery.colors)
    for path, mask in zip(paths[1:], masks, strict=True):
        write_mask_tile(path, mask, grid, classes)
    return replace(tile, sizes=tuple(path.stat().st_size for path in paths))


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
