"""Class masks on disk: cloud-optimized GeoTIFFs that say what their values mean."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.windows import Window

from ctrs import __version__
from ctrs.classes import IGNORE_INDEX, ClassMap, Mask
from ctrs.errors import LabelError, OutputError
from ctrs.jobs import PartialWork
from ctrs.raster.geotiff import GDAL_OPTIONS, Grid, error_line, open_quietly, open_raster
from ctrs.raster.mosaic import MosaicSource, add_sources, dataset_element

CLASSES_TAG = "CTRS_CLASSES"
JOB_TAG = "CTRS_JOB"
VERSION_TAG = "CTRS_VERSION"
BLOCK_PX = 512

# rasterio raises SystemError where GDAL fails without saying why, as it may on a full disk.
_WRITE_ERRORS = (RasterioError, CPLE_BaseError, OSError, SystemError)


@dataclass(frozen=True, kw_only=True)
class MaskClass:
    """A class of a mask file: the value of its pixels, its name and its colour."""

    value: int
    name: str
    color: tuple[int, int, int]


class RowBands:
    """Finished rows of a raster that is being made, from the top down.

    Each band of rows is a small file in a folder, compressed where that is worth its time. It is there whole or not at
    all, so that work which was killed can go on after the last one.

    Args:
        folder: Where the bands are kept; bands of an earlier attempt that stand there are taken over.
        width: Columns of the mask.
    """

    def __init__(self, folder: Path, width: int) -> None:
        self.folder = folder
        self.width = width
        self._heights: list[tuple[Path, int]] = []
        self._num_rows = 0
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.glob("rows_*.tif")):
            first, height = (int(part) for part in path.stem.split("_")[1:])
            if first == self._num_rows:
                self._add(path, height)

    @property
    def num_rows(self) -> int:
        """Number of rows, counted from the top, that are finished."""
        return self._num_rows

    def truncate(self, num_rows: int) -> None:
        """Forget bands that end after a number of rows, so that the work goes on before them."""
        while self._num_rows > num_rows:
            path, height = self._heights.pop()
            path.unlink()
            self._num_rows -= height

    def append(self, rows: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> None:
        """Add the next rows (h, W), all of one dtype.

        Raises:
            OutputError: They cannot be written.
        """
        height, width = rows.shape
        if width != self.width:
            raise ValueError(f"rows of {width} pixels found, expected {self.width}")
        path = self.folder / f"rows_{self._num_rows:09d}_{height}.tif"
        staged = path.with_name(f".{path.name}.new")
        profile = {"driver": "GTiff", "width": width, "height": height, "count": 1, "dtype": str(rows.dtype)}
        layout: dict[str, Any] = {"tiled": True, "blockxsize": BLOCK_PX, "blockysize": BLOCK_PX}
        if rows.itemsize == 1:
            layout |= {"compress": "deflate", "zlevel": 1}
        else:  # confidences hardly shrink; GDAL fills blocks up, which costs space where nothing shrinks them again
            layout["blockysize"] = min(BLOCK_PX, 16 * math.ceil(height / 16))
        # The transform is a stand-in (the mosaic knows the true one), since GDAL warns of files that have none.
        transform = Affine(1, 0, 0, 0, -1, height)
        try:
            with (
                rasterio.Env(**GDAL_OPTIONS),
                rasterio.open(staged, "w", **profile, **layout, transform=transform) as file,
            ):
                file.write(rows, 1)
            _read_back(staged)
            staged.replace(path)
        except _WRITE_ERRORS as error:
            staged.unlink(missing_ok=True)
            raise _not_writable(self.folder, error) from error
        self._add(path, height)

    def sources(self) -> list[MosaicSource]:
        """Return the files with the places of their rows."""
        sources: list[MosaicSource] = []
        row = 0
        for path, height in self._heights:
            sources.append(MosaicSource(path=path, col_off=0, row_off=row, width=self.width, height=height))
            row += height
        return sources

    def _add(self, path: Path, height: int) -> None:
        self._heights.append((path, height))
        self._num_rows += height


def write_class_cog(
    staged: Path,
    rows: RowBands | Iterable[Mask],
    grid: Grid,
    classes: ClassMap,
    tags: Mapping[str, str] | None = None,
) -> Path:
    """Write a class mask as COG, with nodata 255, colour table, class names and overviews by majority.

    Class names stand in the tag ``CTRS_CLASSES`` and, as GDAL category names, in ``FILE.tif.aux.xml``. Memory does not
    grow with the mask. ``publish_class_cog`` moves both files to their final names.

    Args:
        staged: The file to write, in a folder for unfinished work.
        rows: Rows of class indices from the top down, as many as the grid has: arrays (h, W), or bands on disk.
        grid: CRS, transform and size.
        classes: What the indices mean.
        tags: Further tags, names beginning with ``CTRS_``.

    Returns:
        ``staged``.

    Raises:
        OutputError: The file cannot be written.
    """
    named = {**(tags or {}), CLASSES_TAG: class_tag(classes)}
    categories = list(zip(classes.names, classes.colors, strict=True))
    return write_category_cog(staged, rows, grid, categories, named, overviews="MODE")


def write_category_cog(
    staged: Path,
    rows: RowBands | Iterable[Mask],
    grid: Grid,
    categories: Sequence[tuple[str, tuple[int, int, int]]],
    tags: Mapping[str, str],
    *,
    overviews: Literal["MODE", "NEAREST"],
) -> Path:
    """Write a raster of numbered categories as COG, with nodata 255, colour table and category names.

    Args:
        staged: The file to write, in a folder for unfinished work; ``publish_class_cog`` moves it and its sidecar.
        rows: Rows from the top down, as many as the grid has: arrays (h, W), or bands on disk.
        grid: CRS, transform and size.
        categories: Name and colour of the values 0, 1, ...
        tags: Further tags, names beginning with ``CTRS_``.
        overviews: ``MODE`` shows what most pixels hold, ``NEAREST`` keeps the shares.

    Returns:
        ``staged``.

    Raises:
        OutputError: The file cannot be written.
    """
    scratch = staged.with_name(f".{staged.name}.rows")
    if isinstance(rows, RowBands):
        bands = rows
    else:
        shutil.rmtree(scratch, ignore_errors=True)
        bands = RowBands(scratch, grid.width)
        for part in rows:
            bands.append(part)
    if bands.num_rows != grid.height:
        raise ValueError(f"{bands.num_rows} rows found, expected {grid.height}")
    try:
        description = _describe(bands, grid, categories, {**tags, VERSION_TAG: __version__}, staged.parent)
        write_cog(staged, description, grid, overview_resampling=overviews)
    finally:
        if bands.folder == scratch:
            shutil.rmtree(scratch, ignore_errors=True)
    return staged


def write_cog(staged: Path, description: ElementTree.Element, grid: Grid, **options: str) -> None:
    """Write what a virtual raster shows as COG and read it back; a file that is not whole is removed.

    Args:
        staged: The file to write, in a folder for unfinished work.
        description: Root of a VRT whose files are named relative to that folder.
        grid: Its grid.
        options: Further creation options of GDAL's COG driver.

    Raises:
        OutputError: The file cannot be written.
    """
    described = staged.with_name(f".{staged.name}.vrt")
    try:
        ElementTree.ElementTree(description).write(described, encoding="utf-8")
        with rasterio.Env(**GDAL_OPTIONS):
            rasterio.shutil.copy(
                described,
                staged,
                driver="COG",
                # rasterio and rio-cogeo take a file whose blocks are as wide as itself for one that is not tiled.
                blocksize=BLOCK_PX // 2 if grid.width == BLOCK_PX < grid.height else BLOCK_PX,
                compress="DEFLATE",
                bigtiff="IF_SAFER",
                num_threads="ALL_CPUS",
                **options,
            )
        _read_back(staged)
    except _WRITE_ERRORS as error:
        staged.unlink(missing_ok=True)
        raise _not_writable(staged.parent, error) from error
    finally:
        described.unlink(missing_ok=True)


def publish_class_cog(work: PartialWork, staged: Path) -> None:
    """Move a mask written by ``write_class_cog`` to its final name, its sidecar first."""
    sidecar_path(staged).replace(sidecar_path(work.final))
    work.publish(staged)


def sidecar_path(path: Path) -> Path:
    """Return the file in which GDAL keeps what the format has no place for.

    >>> sidecar_path(Path("scene_mask.tif")).name
    'scene_mask.tif.aux.xml'
    """
    return path.with_name(f"{path.name}.aux.xml")


def class_tag(classes: ClassMap) -> str:
    """Return the text of the tag ``CTRS_CLASSES``."""
    rows = [
        {"value": index, "name": entry.name, "color": list(entry.color)} for index, entry in enumerate(classes.learnt)
    ]
    return json.dumps(rows)


def read_class_tag(source: rasterio.DatasetReader | Path | str) -> tuple[MaskClass, ...]:
    """Return the classes of a mask that ctrs wrote.

    Args:
        source: An open dataset, or a path.

    Raises:
        LabelError: The raster does not say what its values mean.
    """
    if isinstance(source, Path | str):
        with open_raster(source) as dataset:
            return read_class_tag(dataset)
    text = source.tags().get(CLASSES_TAG)
    if text is None:
        raise LabelError(
            f"{source.name}: no tag {CLASSES_TAG} found, so the meaning of its values is unknown; "
            "expected a mask written by ctrs predict"
        )
    try:
        return tuple(
            MaskClass(value=int(row["value"]), name=str(row["name"]), color=_color(row["color"]))
            for row in json.loads(text)
        )
    except (ValueError, KeyError, TypeError) as error:
        raise LabelError(
            f"{source.name}: tag {CLASSES_TAG} is damaged ({error}); expected a JSON list of value, name, color; "
            "write the mask again"
        ) from error


def read_job_tag(path: Path) -> str | None:
    """Return the fingerprint of the job that wrote a mask; None where the file holds none."""
    with open_raster(path) as dataset:
        text: str | None = dataset.tags().get(JOB_TAG)
    return text


def _color(values: list[int]) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in values)
    return red, green, blue


def add_tags(root: ElementTree.Element, tags: Mapping[str, str]) -> None:
    """Let a VRT carry tags."""
    metadata = ElementTree.SubElement(root, "Metadata")
    for key, value in tags.items():
        ElementTree.SubElement(metadata, "MDI", key=key).text = value


def _describe(
    bands: RowBands,
    grid: Grid,
    categories: Sequence[tuple[str, tuple[int, int, int]]],
    tags: Mapping[str, str],
    folder: Path,
) -> ElementTree.Element:
    """Return a VRT over the bands that holds all that the finished file shall hold."""
    root = dataset_element(grid)
    add_tags(root, tags)
    band = ElementTree.SubElement(root, "VRTRasterBand", dataType="Byte", band="1")
    ElementTree.SubElement(band, "NoDataValue").text = str(IGNORE_INDEX)
    ElementTree.SubElement(band, "ColorInterp").text = "Palette"
    table = ElementTree.SubElement(band, "ColorTable")
    for _, (red, green, blue) in categories:
        ElementTree.SubElement(table, "Entry", c1=str(red), c2=str(green), c3=str(blue), c4="255")
    names = ElementTree.SubElement(band, "CategoryNames")
    for name, _ in categories:
        ElementTree.SubElement(names, "Category").text = name
    add_sources(band, bands.sources(), "1", folder)
    return root


def _read_back(path: Path) -> None:
    """Decode a file and its overviews: on a full disk GDAL may fail to write the last blocks and not say so."""
    with rasterio.Env(**GDAL_OPTIONS):
        with open_quietly(path) as file:
            levels = len(file.overviews(1))
        for level in (None, *range(levels)):
            with open_quietly(path, **({} if level is None else {"OVERVIEW_LEVEL": level})) as file:
                for top in range(0, file.height, BLOCK_PX):
                    file.read(1, window=Window(0, top, file.width, min(BLOCK_PX, file.height - top)))


def _not_writable(folder: Path, error: BaseException) -> OutputError:
    return OutputError(
        f"{folder.absolute()}: not writable ({error_line(error)}); free space there or choose another place with -o"
    )
