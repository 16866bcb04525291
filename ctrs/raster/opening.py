"""How GDAL is asked to open a raster: quietly, and alone where a server would make up files beside it."""

from __future__ import annotations

import threading
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from ctrs.raster.names import gdal_name, is_remote

_NONE_BESIDE = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}
"""Settings by which GDAL looks for no files beside a raster; they count for as long as it is open."""

# warnings.catch_warnings changes the state of the process, not of the thread.
_WARNINGS_LOCK = threading.Lock()


def open_quietly(path: Path | str, **options: Any) -> rasterio.DatasetReader:
    """Open as ``rasterio.open`` does, without its warning where there is no georeference.

    Files beside a raster on a server (``.aux.xml``, ``.tfw``, ``.msk``, ``.ovr``) are read with it, unless the server
    answers to any name whatever.

    Args:
        path: File, or any name that GDAL understands.
        **options: Passed on.
    """
    name = gdal_name(path)
    dataset = _open(name, **options)
    if not is_remote(path) or "?" in name or not _answers_to_any_name(name):  # nothing is looked for beside a query
        return dataset
    dataset.close()
    with rasterio.Env(**_NONE_BESIDE):
        return _open(name, **options)


@lru_cache(maxsize=1024)
def _answers_to_any_name(name: str) -> bool:
    """Tell whether a server has a raster also where none can be: overviews of overviews of a raster.

    Beside such a raster GDAL finds overviews and masks of overviews and masks, and looks for all of them before it
    lists the raster's files.
    """
    try:
        with rasterio.Env(**_NONE_BESIDE, GDAL_HTTP_MAX_RETRY="0"):
            _open(f"{name}.ovr.ovr").close()
    except RasterioError:
        return False
    return True


def _open(name: str, **options: Any) -> rasterio.DatasetReader:
    with _WARNINGS_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(name, **options)
