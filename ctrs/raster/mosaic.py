"""Several rasters seen as one: GDAL's virtual format (VRT), written from pixel windows."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from affine import Affine
from rasterio.crs import CRS
from rasterio.dtypes import dtype_rev, typename_fwd
from rasterio.enums import MaskFlags
from rasterio.errors import CRSError

from ctrs.errors import RasterError
from ctrs.jobs import write_text
from ctrs.raster.geotiff import Grid, color_bands, open_raster
from ctrs.raster.names import gdal_name, is_virtual
from ctrs.raster.windows import PixelWindow


@dataclass(frozen=True, kw_only=True)
class MosaicSource:
    """A file and the rectangle of the mosaic that it fills."""

    path: Path
    col_off: int
    row_off: int
    width: int
    height: int


def mosaic_vrt(tiles: Sequence[tuple[Path, PixelWindow]], grid: Grid, path: Path) -> Path:
    """Write a VRT that shows tiles as one raster on a grid. Where no tile lies, it is invalid.

    Args:
        tiles: Files of one kind (bands, dtype, nodata) and their windows in the grid; later ones lie above earlier
            ones. Alpha bands and internal masks become the mosaic's mask.
        grid: Grid of the mosaic.
        path: The VRT to write; it names the tiles relative to itself.

    Returns:
        ``path``.

    Raises:
        RasterError: There are no tiles.
    """
    if not tiles:
        raise RasterError(f"{path}: no tiles to join; expected at least one")
    with open_raster(tiles[0][0]) as first:
        numbers = color_bands(first)
        types = [typename_fwd[dtype_rev[first.dtypes[number - 1]]] for number in numbers]
        nodata = [first.nodatavals[number - 1] for number in numbers]
        meanings = [first.colorinterp[number - 1].name for number in numbers]
        by_nodata = all(MaskFlags.nodata in first.mask_flag_enums[number - 1] for number in numbers)
    sources = [
        MosaicSource(
            path=tile, col_off=window.col_off, row_off=window.row_off, width=window.width, height=window.height
        )
        for tile, window in tiles
    ]
    root = dataset_element(grid)
    for place, number in enumerate(numbers):
        band = ElementTree.SubElement(root, "VRTRasterBand", dataType=types[place], band=str(place + 1))
        if nodata[place] is not None:
            ElementTree.SubElement(band, "NoDataValue").text = repr(nodata[place])
        if meanings[place] in ("gray", "red", "green", "blue"):
            ElementTree.SubElement(band, "ColorInterp").text = meanings[place].capitalize()
        add_sources(band, sources, str(number), path.parent)
    if not by_nodata:
        mask = ElementTree.SubElement(ElementTree.SubElement(root, "MaskBand"), "VRTRasterBand", dataType="Byte")
        add_sources(mask, sources, f"mask,{numbers[0]}", path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, ElementTree.tostring(root, encoding="unicode"))
    return path


def dataset_element(grid: Grid) -> ElementTree.Element:
    """Return the root of a VRT on a grid, without bands."""
    root = ElementTree.Element("VRTDataset", rasterXSize=str(grid.width), rasterYSize=str(grid.height))
    if grid.crs is not None:
        ElementTree.SubElement(root, "SRS").text = _crs_text(grid.crs)
    if grid.transform != Affine.identity():
        ElementTree.SubElement(root, "GeoTransform").text = ", ".join(map(repr, grid.transform.to_gdal()))
    if grid.ground_control is not None:
        points = ElementTree.SubElement(root, "GCPList")
        if grid.ground_control.crs is not None:
            points.set("Projection", _crs_text(grid.ground_control.crs))
        for row, col, x, y, z in grid.ground_control.points:
            values = {"Pixel": col, "Line": row, "X": x, "Y": y, "Z": z}
            ElementTree.SubElement(points, "GCP", {key: repr(value) for key, value in values.items()})
    return root


def _crs_text(crs: CRS) -> str:
    """Return a CRS as text that gives it back.

    WKT1 where that is so: it names the codes of all parts, without which GDAL writes a wrong vertical datum to GeoTIFF.
    """
    try:
        text: str = crs.to_wkt()
        if CRS.from_wkt(text) == crs:
            return text
    except CRSError:
        pass  # WKT1 cannot say it
    modern: str = crs.to_wkt(version="WKT2_2019")
    return modern


def source_file_element(path: Path, folder: Path | None) -> ElementTree.Element:
    """Return the element of a VRT that names a source file.

    Args:
        path: The file, or a name of GDAL's.
        folder: Where the VRT will stand; None names the file by its absolute path.
    """
    name, relative = gdal_name(path if is_virtual(path) else path.absolute()), "0"
    if folder is not None and not is_virtual(path):
        with suppress(ValueError):  # another drive on Windows
            name, relative = os.path.relpath(path.absolute(), folder.absolute()), "1"
    if not is_virtual(path):
        name = Path(name).as_posix()
    element = ElementTree.Element("SourceFilename", relativeToVRT=relative)
    element.text = name
    return element


def add_sources(band: ElementTree.Element, sources: Iterable[MosaicSource], source_band: str, folder: Path) -> None:
    """Let a VRT's band show one band of each source file.

    Args:
        band: ``VRTRasterBand`` element.
        sources: Files and their places.
        source_band: Band number, or ``"mask,1"`` for the mask of band 1.
        folder: Where the VRT will stand; files are named relative to it.
    """
    for source in sources:
        element = ElementTree.SubElement(band, "SimpleSource")
        element.append(source_file_element(source.path, folder))
        ElementTree.SubElement(element, "SourceBand").text = source_band
        for name, col_off, row_off in (("SrcRect", 0, 0), ("DstRect", source.col_off, source.row_off)):
            place = {"xOff": col_off, "yOff": row_off, "xSize": source.width, "ySize": source.height}
            ElementTree.SubElement(element, name, {key: str(value) for key, value in place.items()})
