"""Rasters as they come: opening, the grid they stand on, windowed reading with a valid mask."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import CRSError, RasterioError
from rasterio.windows import Window

from ctrs.errors import InputNotFoundError, MissingCrsWarning, RasterError
from ctrs.raster.names import in_archive, is_remote, is_virtual, local_file, shown, source_path
from ctrs.raster.opening import open_quietly
from ctrs.raster.windows import PixelWindow

GDAL_CACHE_BYTES = 64 * 2**20
"""GDAL's block cache in every command; its own default is 5 % of the machine's memory."""

GDAL_OPTIONS: dict[str, Any] = {
    "GDAL_CACHEMAX": GDAL_CACHE_BYTES,
    # A server that does not answer is given up in seconds; GDAL itself would wait for minutes.
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_LOW_SPEED_TIME": "30",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
    "GDAL_HTTP_MAX_RETRY": "2",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    # Reading a whole PNG at once, GDAL 3.10 keeps quiet about a file that was cut short, and returns what it has.
    "GDAL_PNG_WHOLE_IMAGE_OPTIM": "NO",
}
"""Settings for every ``rasterio.Env`` of ctrs."""

SEQUENTIAL_DRIVERS = frozenset({"JPEG", "PNG", "WEBP", "GIF", "BMP"})
"""Formats without blocks that could be read on their own."""

_NO_PARTS = "Range downloading not supported"
"""What GDAL says of servers from which it can read nothing."""


@dataclass(frozen=True, kw_only=True)
class GroundControl:
    """Ground control points of a raster that has no geotransform.

    Args:
        crs: CRS of the points, None where unknown.
        points: ``(row, col, x, y, z)`` of each point.
    """

    crs: CRS | None
    points: tuple[tuple[float, float, float, float, float], ...]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Where the pixels of a raster lie: CRS, transform and size.

    Args:
        crs: None where the raster names none.
        transform: From pixel corners (col, row) to CRS coordinates; the identity where the raster has none.
        width: Columns.
        height: Rows.
        ground_control: Points that stand in for a transform (unwarped imagery); None for all other rasters.
    """

    crs: CRS | None
    transform: Affine
    width: int
    height: int
    ground_control: GroundControl | None = None

    @classmethod
    def of(cls, dataset: rasterio.DatasetReader) -> Grid:
        """Return the grid of an open dataset."""
        points, points_crs = dataset.gcps
        control = None
        if points:
            rows = tuple((float(p.row), float(p.col), float(p.x), float(p.y), float(p.z or 0.0)) for p in points)
            control = GroundControl(crs=points_crs or None, points=rows)
        return cls(
            crs=dataset.crs or None,
            transform=dataset.transform,
            width=dataset.width,
            height=dataset.height,
            ground_control=control,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.height, self.width

    def window(self, window: PixelWindow) -> Grid:
        """Return the grid of a part of the raster."""
        control = self.ground_control
        if control is not None:
            moved = tuple((r - window.row_off, c - window.col_off, x, y, z) for r, c, x, y, z in control.points)
            control = GroundControl(crs=control.crs, points=moved)
        return Grid(
            crs=self.crs,
            transform=self.transform @ Affine.translation(window.col_off, window.row_off),
            width=window.width,
            height=window.height,
            ground_control=control,
        )

    def same_as(self, other: Grid, *, tolerance_px: float = 0.01) -> bool:
        """Tell whether two grids put the same pixels in the same places.

        Args:
            other: The grid to compare with.
            tolerance_px: Largest distance between corresponding corners, in pixels of this grid.
        """
        return not self.difference(other, tolerance_px=tolerance_px)

    def difference(self, other: Grid, *, tolerance_px: float = 0.01) -> str:
        """Say in a few words how another grid differs from this one; an empty text if it does not."""
        parts: list[str] = []
        if self.shape != other.shape:
            parts.append(f"size {other.width} x {other.height} instead of {self.width} x {self.height}")
        if self.crs != other.crs:
            parts.append(f"CRS {crs_name(other.crs)} instead of {crs_name(self.crs)}")
        if self.ground_control != other.ground_control:
            parts.append("other ground control points")
        shift = self._largest_shift(other)
        if shift > tolerance_px:
            parts.append(f"corners up to {shift:.3g} pixels apart")
        return ", ".join(parts)

    def _largest_shift(self, other: Grid) -> float:
        """Largest distance, in pixels, between this grid's corners as placed by the two transforms."""
        inverse = ~self.transform
        corners = ((0, 0), (self.width, 0), (0, self.height), (self.width, self.height))
        shifts: list[float] = []
        for col, row in corners:
            found_col, found_row = inverse @ (other.transform @ (float(col), float(row)))
            shifts.append(float(np.hypot(found_col - col, found_row - row)))
        return max(shifts)


def crs_name(crs: CRS | None) -> str:
    """Return the short name of a CRS for messages: its authority code where it has one.

    >>> crs_name(CRS.from_epsg(32633)), crs_name(None)
    ('EPSG:32633', 'none')
    """
    if crs is None:
        return "none"
    try:
        authority = crs.to_authority()
    except CRSError:
        authority = None
    if authority:
        return ":".join(authority)
    text: str = crs.to_wkt()
    return text if len(text) <= 60 else f"{text[:57]}..."


def options_beside_others() -> dict[str, Any]:
    """Return ``GDAL_OPTIONS`` for a thread beside others; a cache that one of them has made smaller stays so.

    GDAL's cache belongs to the process, and so does its size; all other settings belong to a thread.
    """
    found = rasterio.env.get_gdal_config("GDAL_CACHEMAX")
    smallest = min(int(found), GDAL_CACHE_BYTES) if isinstance(found, int) else GDAL_CACHE_BYTES
    return {**GDAL_OPTIONS, "GDAL_CACHEMAX": smallest}


@contextmanager
def open_raster(path: Path | str) -> Iterator[rasterio.DatasetReader]:
    """Open a raster for reading, with GDAL's cache set to ``GDAL_CACHE_BYTES``.

    A raster without georeference is opened without a warning; callers say so with ``warn_missing_crs``.

    Args:
        path: File, or any name that GDAL understands.

    Raises:
        InputNotFoundError: There is no such file.
        RasterError: It is no raster, or reading it fails inside the ``with`` block.
    """
    with rasterio.Env(**GDAL_OPTIONS), open_dataset(path) as dataset:
        yield dataset


def open_dataset(path: Path | str) -> rasterio.DatasetReader:
    """Open a raster as ``open_raster`` does, but in the ``rasterio.Env`` of the caller, who closes it.

    Raises:
        InputNotFoundError: There is no such file.
        RasterError: It is no raster.
    """
    path = source_path(path) if isinstance(path, str) else path
    if _is_local(path) and not path.exists():
        raise InputNotFoundError(f"{shown(path)}: not found; check the path")
    archive = local_file(path) if in_archive(path) else None
    if archive is not None and not archive.exists():
        raise InputNotFoundError(f"{archive}: not found, so there is no {shown(path)}; check the path")
    if _is_local(path) and path.is_dir():
        raise RasterError(f"{shown(path)}: is a folder, expected a raster file; name a file in it")
    try:
        dataset = open_quietly(path)
    except RasterioError as error:
        if _NO_PARTS in str(error):
            raise RasterError(
                f"{shown(path)}: not readable in parts, since the server hands out whole files only: download it"
            ) from error
        place = "the address, the access rights and" if is_remote(path) else "that the file is complete and"
        raise RasterError(
            f"{shown(path)}: not readable as a raster ({error_line(error)}); check {place} "
            f"{'the connection' if is_remote(path) else 'of a format that GDAL knows'}"
        ) from error
    if dataset.count == 0:
        num_parts = len(dataset.subdatasets)
        dataset.close()
        raise RasterError(f"{shown(path)}: holds {num_parts} subdatasets and no bands of its own; name one of them")
    return dataset


def warn_missing_crs(path: Path | str, *, placed: bool = False, stacklevel: int = 2) -> None:
    """Warn that a raster names no CRS and that pixel coordinates are used, or its own where a transform places it."""
    used = "its own coordinates, taken for metres" if placed else "pixel coordinates"
    warnings.warn(
        f"{shown(path)}: no CRS found; going on in {used} (set one with gdal_edit -a_srs if it is known)",
        MissingCrsWarning,
        stacklevel=stacklevel + 1,
    )


def color_bands(dataset: rasterio.DatasetReader) -> tuple[int, ...]:
    """Return the numbers, from 1, of the bands that are not alpha."""
    return tuple(
        number
        for number, meaning in zip(dataset.indexes, dataset.colorinterp, strict=True)
        if meaning is not ColorInterp.alpha
    )


def read_window(
    dataset: rasterio.DatasetReader, window: PixelWindow, *, bidx: Sequence[int] | None = None
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Read the pixels of a window and which of them are valid.

    Args:
        dataset: From ``open_raster``.
        window: A window inside the raster.
        bidx: Band numbers from 1; None for all that are not alpha.

    Returns:
        Pixels (C, h, w) in the raster's dtype, and the valid mask (h, w), True = valid. A pixel is invalid where the
        alpha band or internal mask is 0, where all read bands hold their nodata value, or where one of them is NaN or
        infinite.

    Raises:
        RasterError: The window is not inside the raster, a band does not exist, or the file cannot be read there.
    """
    bands = tuple(bidx) if bidx else color_bands(dataset)
    check_bands(dataset, bands)
    inside = (
        window.row_off >= 0
        and window.col_off >= 0
        and window.row_off + window.height <= dataset.height
        and window.col_off + window.width <= dataset.width
    )
    if not inside:
        raise RasterError(
            f"{shown(dataset.name)}: window at row {window.row_off}, column {window.col_off} of {window.width} x "
            f"{window.height} px found, expected it inside the raster's {dataset.width} x {dataset.height} px"
        )
    place = Window(window.col_off, window.row_off, window.width, window.height)
    try:
        pixels = dataset.read(list(bands), window=place)
        return pixels, _valid_mask(dataset, bands, place, pixels)
    except RasterioError as error:
        raise RasterError(
            f"{shown(dataset.name)}: not readable at rows {window.row_off} to {window.row_off + window.height - 1}, "
            f"columns {window.col_off} to {window.col_off + window.width - 1} ({error_line(error)}); "
            "the file is damaged or cut short: get it again"
        ) from error


def check_bands(dataset: rasterio.DatasetReader, bidx: Sequence[int]) -> None:
    """Refuse band numbers that a raster does not have.

    Raises:
        RasterError: With the numbers it has.
    """
    missing = [number for number in bidx if number not in dataset.indexes]
    if missing or not bidx:
        found = f"band {missing[0]} asked for" if missing else "no bands but alpha found"
        raise RasterError(
            f"{shown(dataset.name)}: {found}, expected numbers from 1 to {dataset.count}; choose with --bidx"
        )


def check_end(dataset: rasterio.DatasetReader) -> None:
    """Read the last pixel, if that is cheap: a file that was cut short often opens like any other.

    Raises:
        RasterError: It cannot be read.
    """
    path = Path(dataset.name)
    if dataset.driver in SEQUENTIAL_DRIVERS or in_archive(path) or is_remote(path):
        return
    last = PixelWindow(col_off=dataset.width - 1, row_off=dataset.height - 1, width=1, height=1)
    read_window(dataset, last, bidx=[1])


def _valid_mask(
    dataset: rasterio.DatasetReader, bands: Sequence[int], place: Window, pixels: npt.NDArray[Any]
) -> npt.NDArray[np.bool_]:
    flags = [dataset.mask_flag_enums[number - 1] for number in bands]
    valid = np.ones(pixels.shape[-2:], bool)
    # An alpha band that is asked for by number is data: many four-band files call their infrared band alpha.
    alpha_is_data = MaskFlags.alpha in flags[0] and not set(bands) <= set(color_bands(dataset))
    if MaskFlags.per_dataset in flags[0] and not alpha_is_data:
        valid = dataset.read_masks(bands[0], window=place) > 0
    elif all(MaskFlags.nodata in flag for flag in flags):
        empty = np.ones_like(valid)
        for band, number in zip(pixels, bands, strict=True):
            empty &= _equals_nodata(band, dataset.nodatavals[number - 1])
        valid = ~empty
    if pixels.dtype.kind in "fc":
        valid &= np.isfinite(pixels).all(axis=0)
    return valid


def _equals_nodata(band: npt.NDArray[Any], nodata: float | None) -> npt.NDArray[np.bool_]:
    """Compare with a nodata value as stored in the band's dtype; a value that the dtype cannot hold is never found."""
    if nodata is None:
        return np.zeros(band.shape, bool)
    if np.isnan(nodata):
        return np.isnan(band) if band.dtype.kind in "fc" else np.zeros(band.shape, bool)
    if band.dtype.kind in "iu":
        limits = np.iinfo(band.dtype)
        if not (float(nodata).is_integer() and limits.min <= nodata <= limits.max):
            return np.zeros(band.shape, bool)
    with np.errstate(over="ignore"):
        equal: npt.NDArray[np.bool_] = band == band.dtype.type(nodata)
    return equal


def _is_local(path: Path) -> bool:
    """Tell file paths from GDAL's other names (/vsi paths, subdatasets)."""
    return not (is_virtual(path) or (":" in str(path)[2:] and not path.exists()))


def error_line(error: BaseException) -> str:
    """Return the deepest cause of a rasterio error, which names what GDAL met, as one line."""
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return " ".join(str(cause).split()).rstrip(".") or type(cause).__name__
