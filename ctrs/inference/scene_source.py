"""A scene as the network's reader sees it: which pixels are mapped, where they lie, and which of them are valid.

C bands, h x w a window.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import shapely
from rasterio.enums import ColorInterp

from ctrs.config import PredictConfig
from ctrs.errors import BandMismatchError, DataWarning, OptionWarning, RasterError, UsageError
from ctrs.inference.pixels import FileBlocks, FindWanted
from ctrs.inference.provenance import describe_grid, describe_inputs, input_files
from ctrs.inference.scene_place import area_of, gsd_factor, pixel_size_m, whole_pixels, window_of_bounds
from ctrs.inference.scenes import own_product
from ctrs.jobs import write_text
from ctrs.raster.alpha import MAX_ALPHA_VALUES, bands_for, odd_alpha
from ctrs.raster.bands import Bands
from ctrs.raster.damage import DamageReader
from ctrs.raster.geotiff import GDAL_OPTIONS, Grid, check_bands, open_raster
from ctrs.raster.mosaic_parts import mosaic_at
from ctrs.raster.mosaic_reader import MosaicReader
from ctrs.raster.names import file_name, is_remote, is_virtual, shown, source_path
from ctrs.raster.rectangles import counted_from, moved, overlap
from ctrs.raster.virtual_parts import check_one_crs
from ctrs.raster.windows import PixelWindow
from ctrs.vector.area import INSIDE
from ctrs.vector.rasterize import GridPolygons

_SAMPLE_EDGE, _REMOTE_SAMPLE_EDGE = 8, 4
"""Windows along each edge of a scene that are read for a sample."""

_LEAST_CACHE_BYTES = 16 * 2**20
"""GDAL's block cache for scenes whose blocks are small: each is read once, so that more would be held for nothing."""

Pixels = tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]
"""Raw pixels (C, h, w) and valid mask (h, w), True = valid."""


class SceneSource:
    """The part of a scene that is mapped, from ``open_scene``.

    Args:
        path: The scene, as ``open_raster`` takes it.
        dataset: The scene, open.
        bidx: Bands that are read, from 1.
        window: Pixels of the scene that are mapped.
        area: Area of interest in pixels of that part; None: all of it.
        gsd_factor: Pixels that the network sees for one of the scene, along each edge.
        skip_unreadable: Whether blocks that cannot be decoded are left out.
    """

    def __init__(
        self,
        path: Path,
        dataset: rasterio.DatasetReader,
        bidx: tuple[int, ...],
        window: PixelWindow,
        *,
        area: GridPolygons | None = None,
        gsd_factor: float = 1.0,
        skip_unreadable: bool = False,
    ) -> None:
        whole = Grid.of(dataset)
        self.path = path
        self.bidx = bidx
        self.window = window
        self.grid = whole if (window.height, window.width) == whole.shape else whole.window(window)
        self.pixel_size_m = pixel_size_m(self.grid)
        self.gsd_factor = gsd_factor
        self.dtype = np.result_type(*(dataset.dtypes[number - 1] for number in bidx))
        self.area_or_point: str | None = dataset.tags().get("AREA_OR_POINT")
        self._dataset = dataset
        self._area = area
        mosaic = mosaic_at(path)
        self._pixels: DamageReader | MosaicReader
        if mosaic is None:
            self._pixels = DamageReader(dataset, bidx, skip=skip_unreadable)
        else:
            self._pixels = MosaicReader(mosaic, bidx, self.dtype, skip=skip_unreadable)
        self._gdal_options = {**GDAL_OPTIONS, "GDAL_CACHEMAX": self.cache_bytes}
        self._record: Path | None = None
        self._earlier: tuple[PixelWindow, ...] = ()

    @property
    def name(self) -> str:
        """File name of the scene; what a mosaic is called."""
        return self.shown if isinstance(self._pixels, MosaicReader) else file_name(self.path).name

    @property
    def shown(self) -> str:
        """The scene as its user knows it, for messages."""
        return shown(self.path)

    @property
    def files(self) -> tuple[Path, ...]:
        """Files on a local disk that the scene is read from."""
        return tuple(Path(name) for name in self._dataset.files or [self._dataset.name] if not is_virtual(name))

    def blocks(self) -> FileBlocks:
        """Return how the file's blocks divide the scene; a mosaic of many files is not divided."""
        if isinstance(self._pixels, MosaicReader):
            return FileBlocks()
        shapes = [self._dataset.block_shapes[number - 1] for number in self.bidx]
        height, width = (max(int(shape[axis]) for shape in shapes) for axis in (0, 1))
        # Blocks of a virtual raster say nothing of those of its files; servers are asked for many blocks at once.
        together = self._dataset.driver == "VRT" or is_remote(self._dataset.name)
        divides = width < self._dataset.width and not together
        return FileBlocks(
            height=height,
            width=width if divides else None,
            row_offset=-(self.window.row_off % height),
            col_offset=-(self.window.col_off % width),
        )

    @property
    def cache_bytes(self) -> int:
        """What GDAL's cache needs to hold a row of blocks, of which windows may read a part at a time."""
        usual = int(GDAL_OPTIONS["GDAL_CACHEMAX"])
        if self._dataset.driver == "VRT" or isinstance(self._pixels, MosaicReader):
            return usual  # of files whose blocks are not known here
        num_bands = int(self._dataset.count) + 1  # and a mask
        row_of_blocks = self.blocks().height * int(self._dataset.width) * num_bands * int(self.dtype.itemsize)
        return min(usual, max(_LEAST_CACHE_BYTES, row_of_blocks + 2**20))

    @contextmanager
    def own_cache(self) -> Iterator[None]:
        """Keep GDAL's cache at ``cache_bytes`` while the block runs, for all threads: it belongs to the process."""
        with rasterio.Env(GDAL_CACHEMAX=self.cache_bytes):
            yield

    def input_files(self) -> tuple[str, ...]:
        """Return the names of all files that determine the pixels, those behind virtual rasters included."""
        return input_files(self._dataset)

    @property
    def unreadable(self) -> list[PixelWindow]:
        """Blocks that could not be decoded so far, in pixels of ``grid``, with those that a record names."""
        found = (overlap(block, self.window) for block in self._pixels.unreadable)
        own = (counted_from(block, self.window) for block in found if block is not None)
        blocks = dict.fromkeys([*self._earlier, *own])
        return sorted(blocks, key=lambda block: (block.row_off, block.col_off))

    def record_unreadable(self, path: Path) -> None:
        """Keep the list of unreadable blocks in a file, and go on with what an earlier attempt noted there.

        Args:
            path: JSON file in the folder of unfinished work.
        """
        self._record = path
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))
            self._earlier = tuple(PixelWindow(**row) for row in rows)
        except (OSError, ValueError, TypeError):
            self._earlier = ()

    def read(self, window: PixelWindow) -> Pixels:
        """Return raw pixels (C, h, w) and valid mask (h, w) of a window of ``grid``; for one thread at a time.

        A pixel is invalid where the alpha band or mask is 0, where all bands hold their nodata value, where one is NaN
        or infinite, and in unreadable blocks that are to be left out. The area of interest does not matter here: the
        network sees what lies around it.

        Raises:
            RasterError: The scene cannot be read there.
        """
        known = len(self._pixels.unreadable) if self._record is not None else 0
        with rasterio.Env(**self._gdal_options):  # GDAL's settings belong to a thread
            pixels, valid = self._pixels.read(moved(window, self.window.row_off, self.window.col_off))
        if self._record is not None and len(self._pixels.unreadable) > known:
            write_text(self._record, json.dumps([vars(block) for block in self.unreadable]))
        return pixels, valid

    @property
    def wanted(self) -> FindWanted | None:
        """Tells which pixels of a window of ``grid`` have their centre in the area of interest; None where all have."""
        area = self._area
        if area is None:
            return None
        return lambda window: area.rasterize(window, background=1 - INSIDE) == INSIDE

    def sample(self, max_px: int = 2**18) -> Pixels:
        """Return raw pixels of small windows spread evenly over the area of interest or the scene, side by side.

        With them comes a mask of those that are valid and in the area.

        Args:
            max_px: Most pixels to return, about.

        Raises:
            RasterError: The scene cannot be read there.
        """
        region = self._region()
        edge = _REMOTE_SAMPLE_EDGE if any(is_remote(name) for name in self._dataset.files[:1]) else _SAMPLE_EDGE
        size = max(1, int(math.sqrt(max_px)) // edge)
        parts: list[list[Pixels]] = []
        for top, height in _spread(region.row_off, region.height, edge, size):
            row: list[Pixels] = []
            for left, width in _spread(region.col_off, region.width, edge, size):
                window = PixelWindow(col_off=left, row_off=top, width=width, height=height)
                pixels, valid = self.read(window)
                row.append((pixels, valid if self.wanted is None else valid & self.wanted(window)))
            parts.append(row)
        pixels = np.concatenate([np.concatenate([part[0] for part in row], axis=2) for row in parts], axis=1)
        valid = np.concatenate([np.concatenate([part[1] for part in row], axis=1) for row in parts])
        return pixels, valid

    def touches(self, window: PixelWindow) -> bool:
        """Tell whether the area of interest, if there is one, reaches into a window of ``grid``."""
        if self._area is None:
            return True
        right, bottom = window.col_off + window.width, window.row_off + window.height
        shapes = shapely.clip_by_rect(self._area.shapes, window.col_off, window.row_off, right, bottom)
        return bool(shapely.area(shapes).sum() > 0)

    def warn_odd_alpha(self) -> None:
        """Warn where a band serves as the mask of valid pixels that has more values than masks have."""
        if ColorInterp.alpha in (self._dataset.colorinterp[band - 1] for band in self.bidx):
            return
        try:
            number = odd_alpha(self._dataset)
        except RasterError:  # damage is told where it is met
            return
        if number is not None:
            warnings.warn(
                f"{self.shown}: band {number} is marked as alpha but holds more than {MAX_ALPHA_VALUES} different "
                "values in the middle of the scene; where it is 0, the map is nodata. If it is near infrared, take "
                f"the mark away (gdal_edit.py -colorinterp_{number} undefined) and name the bands with --bidx",
                DataWarning,
                stacklevel=3,
            )

    def describe(self) -> dict[str, Any]:
        """Return JSON values of all about the scene that determines its mask: files, grid, bands, area and scale."""
        described: dict[str, Any] = {
            "grid": describe_grid(self.grid),
            "inputs": describe_inputs(self._dataset),
            "bidx": list(self.bidx),
        }
        if self.grid.shape != (self._dataset.height, self._dataset.width):
            described["window"] = vars(self.window)
        if self._area is not None:
            described["area"] = hashlib.sha256(b"".join(shapely.to_wkb(self._area.shapes))).hexdigest()
            described["area_cuts"] = "mask"  # not what the network sees, as in earlier versions
        if self.gsd_factor != 1.0:
            described["gsd_factor"] = self.gsd_factor
        return described

    def close(self) -> None:
        """Close the files of a mosaic."""
        if isinstance(self._pixels, MosaicReader):
            self._pixels.close()

    def _region(self) -> PixelWindow:
        """Return the part of the grid that holds the area of interest."""
        whole = PixelWindow(col_off=0, row_off=0, width=self.grid.width, height=self.grid.height)
        if self._area is None:
            return whole
        left, top, right, bottom = shapely.total_bounds(self._area.shapes)
        return overlap(whole_pixels((left, top, right, bottom)), whole) or whole


@contextmanager
def open_scene(
    src: Path | str, bands: Bands, config: PredictConfig | None = None, *, model_gsd: float | None = None
) -> Iterator[SceneSource]:
    """Open a scene for prediction and check that a network that knows some bands can map it.

    Args:
        src: File, any name that GDAL understands, or path of a mosaic from ``ctrs.raster.mosaic_parts``.
        bands: What the network knows.
        config: Of which bands, bounds, area of interest, ground pixel, window (far larger than what is mapped, it
            brings a warning) and what to do about damage matter here.
        model_gsd: Ground metres of a pixel that the network was trained with; None where they are unknown.

    Raises:
        InputNotFoundError: There is no such scene, or no file of the area of interest.
        RasterError: It is not readable, or has no place where one is needed, or lies elsewhere.
        BandMismatchError: Its bands or dtype differ from those that the network knows.
        DataError: The area of interest is not readable, or lies elsewhere.
        UsageError: It is a product of ctrs, or the ground pixel asked for cannot be had.
    """
    config = config or PredictConfig()
    path = source_path(src) if isinstance(src, str) else src
    with open_raster(path) as dataset:
        _refuse_own(dataset, path)
        bidx = config.bidx or bands_for(dataset, bands.count)
        check_bands(dataset, bidx)
        _refuse_palette(dataset, bidx, bands, path)
        check_one_crs(dataset)
        for dtype in dict.fromkeys(dataset.dtypes[number - 1] for number in bidx):
            bands.check_source(len(bidx), dtype, where=shown(path))
        whole = Grid.of(dataset)
        window = PixelWindow(col_off=0, row_off=0, width=whole.width, height=whole.height)
        if config.bounds is not None:
            window = window_of_bounds(whole, config.bounds, path)
        grid = whole.window(window)
        source = SceneSource(
            path,
            dataset,
            bidx,
            window,
            area=None if config.aoi is None else area_of(config.aoi, grid, path),
            gsd_factor=1.0 if config.gsd is None else gsd_factor(grid, config.gsd, model_gsd, path),
            skip_unreadable=config.skip_unreadable,
        )
        if config.window_px is not None:
            _warn_of_padding(source, config.window_px)
        try:
            yield source
        finally:
            source.close()


def _refuse_own(dataset: rasterio.DatasetReader, path: Path) -> None:
    """Refuse what ctrs wrote: a shell that expands a pattern names masks beside the scenes, too."""
    product = own_product(dataset.tags())
    if product is not None:
        raise UsageError(
            f"{shown(path)}: is {product} that ctrs wrote, no scene; name the folder, or quote the pattern, "
            "and what ctrs wrote is passed over"
        )


def _warn_of_padding(source: SceneSource, window_px: int) -> None:
    """Warn of a window far larger than what is mapped, both in pixels that the network sees."""
    height, width = (math.ceil(edge * source.gsd_factor) for edge in source.grid.shape)
    longer = max(height, width)
    if window_px > 2 * longer:
        warnings.warn(
            f"{source.shown}: window {window_px} px is larger than what is mapped ({height} x {width} px), most of it "
            f"is padding; --window {longer} covers it too, with less memory and time",
            OptionWarning,
            stacklevel=4,
        )


def _refuse_palette(dataset: rasterio.DatasetReader, bidx: tuple[int, ...], bands: Bands, path: Path) -> None:
    """Refuse numbers of a colour table where a network expects the colours themselves."""
    if bands.count > len(bidx) == 1 and dataset.colorinterp[bidx[0] - 1] is ColorInterp.palette:
        raise BandMismatchError(
            f"{shown(path)}: one band with a colour table found, expected {bands.count} bands "
            f"({', '.join(bands.names)}); turn its colours into bands first (gdal_translate -expand rgb)"
        )


def _spread(start: int, length: int, count: int, size: int) -> list[tuple[int, int]]:
    """Return starts and lengths of stretches spread evenly over a line; the whole line where they would fill it."""
    if count * size >= length:
        return [(start, length)]
    return [(start + round((length - size) * (2 * place + 1) / (2 * count)), size) for place in range(count)]
