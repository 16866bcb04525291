"""Creation options for GDAL's COG driver: those that users may give, and what is wrong with the others."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.io import MemoryFile

from ctrs.errors import UsageError
from ctrs.raster.geotiff import GDAL_OPTIONS, error_line
from ctrs.raster.row_bands import WRITE_ERRORS

CreationOptions = Sequence[tuple[str, str]]
"""``(NAME, VALUE)`` as GDAL spells them."""

_LOSSLESS = "NONE|LZW|DEFLATE|ZSTD|LZMA"
_PREDICTORS = "YES|NO|STANDARD"
_YES_NO = "YES|NO|TRUE|FALSE|ON|OFF"

# The driver takes numbers as they come and may end the whole process on some, so values are checked here first.
_ALLOWED = {
    "COMPRESS": (_LOSSLESS, "NONE, LZW, DEFLATE, ZSTD or LZMA, which keep every value"),
    "OVERVIEW_COMPRESS": (f"AUTO|{_LOSSLESS}", "AUTO, NONE, LZW, DEFLATE, ZSTD or LZMA, which keep every value"),
    "LEVEL": ("[1-9]|1[0-9]|2[0-2]", "1 to 22"),
    "PREDICTOR": (_PREDICTORS, "YES, NO or STANDARD"),
    "OVERVIEW_PREDICTOR": (_PREDICTORS, "YES, NO or STANDARD"),
    "BLOCKSIZE": ("128|256|512|1024|2048", "128, 256, 512, 1024 or 2048"),
    "BIGTIFF": ("YES|NO|IF_NEEDED|IF_SAFER", "YES, NO, IF_NEEDED or IF_SAFER"),
    "NUM_THREADS": ("[1-9][0-9]{0,2}|ALL_CPUS", "a number or ALL_CPUS"),
    "GEOTIFF_VERSION": (r"AUTO|1\.0|1\.1", "AUTO, 1.0 or 1.1"),
    "SPARSE_OK": (_YES_NO, "YES or NO"),
    "STATISTICS": (f"AUTO|{_YES_NO}", "AUTO, YES or NO"),
}

_GRID = "the mask stands on the scene's own grid"
_OVERVIEWS = "overviews are always written, masks by majority and probabilities by average"
_VALUES = "values are written as they are"
_REFUSED = {
    **dict.fromkeys(("TILING_SCHEME", "ZOOM_LEVEL", "ZOOM_LEVEL_STRATEGY", "ALIGNED_LEVELS", "EXTENT", "RES"), _GRID),
    **dict.fromkeys(("TARGET_SRS", "WARP_RESAMPLING", "ADD_ALPHA"), _GRID),
    **dict.fromkeys(("OVERVIEWS", "OVERVIEW_COUNT", "OVERVIEW_RESAMPLING", "RESAMPLING"), _OVERVIEWS),
    **dict.fromkeys(("NBITS", "QUALITY", "OVERVIEW_QUALITY", "MAX_Z_ERROR", "MAX_Z_ERROR_OVERVIEW"), _VALUES),
    **dict.fromkeys(("JXL_LOSSLESS", "JXL_EFFORT", "JXL_DISTANCE", "JXL_ALPHA_DISTANCE"), _VALUES),
}


def check_creation_options(options: CreationOptions) -> None:
    """Refuse creation options that GDAL's COG driver does not take, or that would break what ctrs promises of a file.

    The driver is asked with a small mask in memory.

    Raises:
        UsageError: With the option and what is expected.
    """
    if not options:
        return
    for name, value in options:
        if name in _REFUSED:
            raise UsageError(f"creation option {name}={value}: not to be chosen, since {_REFUSED[name]}; leave it out")
        if name not in _ALLOWED:
            raise UsageError(f"creation option {name}={value}: unknown name; expected one of {', '.join(_ALLOWED)}")
        pattern, expected = _ALLOWED[name]
        if not re.fullmatch(pattern, value.upper()):
            raise UsageError(f"creation option {name}={value}: {value!r} found, expected {expected}")
    names = [name for name, _ in options]
    if len(set(names)) < len(names):
        raise UsageError(f"creation options {', '.join(names)}: one is given twice; give each once")
    complaint = _ask_driver(options)
    if complaint:
        given = " ".join(f"{name}={value}" for name, value in options)
        raise UsageError(f"creation options {given}: refused by GDAL's COG driver ({complaint}); choose others")


def with_defaults(options: CreationOptions, **defaults: str) -> dict[str, str]:
    """Return creation options with those of ctrs where they leave a choice; a level belongs to its compression.

    >>> with_defaults([("COMPRESS", "LZW")], COMPRESS="DEFLATE", LEVEL="5", PREDICTOR="YES")
    {'COMPRESS': 'LZW', 'PREDICTOR': 'YES'}
    """
    ours, given = ({name.upper(): value for name, value in some} for some in (defaults.items(), options))
    if "COMPRESS" in given:
        ours.pop("LEVEL", None)
    return {**ours, **given}


def _ask_driver(options: CreationOptions) -> str:
    """Return what the driver says against the options; an empty text if nothing."""
    pixels = np.zeros((1, 600, 600), np.uint8)  # large enough for an overview
    with rasterio.Env(**GDAL_OPTIONS), MemoryFile() as source, MemoryFile() as target:
        profile = {"driver": "GTiff", "width": 600, "height": 600, "count": 1, "dtype": "uint8"}
        with source.open(**profile, transform=Affine(1, 0, 0, 0, -1, 1)) as file:
            file.write(pixels)
        try:
            with _gdal_warnings() as warned, source.open() as file:
                rasterio.shutil.copy(file, target.name, driver="COG", **dict(options))
        except WRITE_ERRORS as error:
            return error_line(error)
    return warned[0].partition(" in ")[2] or warned[0] if warned else ""


@contextmanager
def _gdal_warnings() -> Iterator[list[str]]:
    """Collect what GDAL warns of, which rasterio passes to its log."""
    found: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                found.append(record.getMessage())

    log, handler = logging.getLogger("rasterio._env"), Collect()
    level, passed_on = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.WARNING)
    log.propagate = False
    try:
        yield found
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = passed_on
