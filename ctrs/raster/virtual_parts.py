"""Files that a virtual raster shows side by side, and whether they can be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import rasterio
from rasterio.crs import CRS

from ctrs.errors import InputNotFoundError, RasterError
from ctrs.raster.geotiff import crs_name, open_raster
from ctrs.raster.names import shown, source_path

MOST_OPENED = 128
"""Files of one virtual raster that are looked at, spread over all of it."""


def check_one_crs(dataset: rasterio.DatasetReader) -> None:
    """Refuse a virtual raster whose files lie in several CRSs, as two UTM zones: it would show them in wrong places.

    Virtual rasters that GDAL warps are left alone, and so are files that tell no CRS or cannot be opened.

    Args:
        dataset: Any raster; only virtual ones have files to look at.

    Raises:
        RasterError: With a file of each of two CRSs.
    """
    if dataset.driver != "VRT":
        return
    first: tuple[Path, CRS] | None = None
    for path in _spread_files(dataset):
        try:
            with open_raster(path) as part:
                crs = part.crs
        except (RasterError, InputNotFoundError):  # whoever reads its pixels says so
            continue
        if not crs:
            continue
        if first is None:
            first = path, crs
        elif first[1] != crs:
            raise RasterError(
                f"{shown(dataset.name)}: shows files of several CRSs as if they were of one, {crs_name(first[1])} "
                f"({shown(first[0])}) and {crs_name(crs)} ({shown(path)}); name the files themselves, or warp them "
                "into one CRS (gdalwarp -t_srs)"
            )


def _spread_files(dataset: rasterio.DatasetReader) -> list[Path]:
    files = list(dict.fromkeys(_files(dataset)))
    step = max(1, -(-len(files) // MOST_OPENED))
    return files[::step]


def _files(dataset: rasterio.DatasetReader) -> Iterator[Path]:
    try:
        root = ElementTree.fromstring(dataset.tags(ns="xml:VRT").get("xml:VRT", ""))
    except ElementTree.ParseError:
        return
    for element in root.iterfind("VRTRasterBand/*/SourceFilename"):
        name = element.text or ""
        if element.get("relativeToVRT") == "1":
            name = f"{Path(dataset.name).parent}/{name}"
        yield source_path(name)
