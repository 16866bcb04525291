"""Class masks on disk: cloud-optimized GeoTIFFs that say what their values mean."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

import rasterio
import rasterio.shutil

from ctrs import __version__
from ctrs.classes import IGNORE_INDEX, ClassMap, Mask
from ctrs.errors import LabelError
from ctrs.jobs import PartialWork, not_writable
from ctrs.raster.creation_options import CreationOptions, with_defaults
from ctrs.raster.geotiff import GDAL_OPTIONS, Grid, error_line, open_raster
from ctrs.raster.majority import write_overviews
from ctrs.raster.mosaic import add_sources, dataset_element, source_file_element
from ctrs.raster.opening import open_quietly
from ctrs.raster.row_bands import BLOCK_PX, WRITE_ERRORS, RowBands, check_whole, rows_beside

CLASSES_TAG = "CTRS_CLASSES"
JOB_TAG = "CTRS_JOB"
VERSION_TAG = "CTRS_VERSION"

_OPEN_FILES = 3
"""Files of a virtual raster that GDAL keeps open for each block of columns, each with its buffers and the blocks that
it has read; its own limit is 100 files, which would hold what is written already."""

_LEVEL = "5"
"""Of DEFLATE: GDAL's own, 6, takes twice the time for files of masks that are a tenth smaller."""


Rows = RowBands | Sequence[RowBands] | Iterable[Mask]
"""Rows of a raster: bands on disk, for the whole width or for blocks of columns, or arrays (h, W) from the top down."""


@dataclass(frozen=True, kw_only=True)
class MaskClass:
    """A class of a mask file: the value of its pixels, its name and its colour."""

    value: int
    name: str
    color: tuple[int, int, int]


def write_class_cog(
    staged: Path,
    rows: Rows,
    grid: Grid,
    classes: ClassMap,
    tags: Mapping[str, str] | None = None,
    *,
    values: Collection[int] | None = None,
    creation_options: CreationOptions = (),
) -> Path:
    """Write a class mask as COG, with nodata 255, colour table, class names and overviews by majority.

    Class names stand in the tag ``CTRS_CLASSES`` and, as GDAL category names, in ``FILE.tif.aux.xml``. Memory does not
    grow with the mask. ``publish_class_cog`` moves both files to their final names.

    Args:
        staged: The file to write, in a folder for unfinished work.
        rows: Rows of class indices from the top down, as many as the grid has: arrays (h, W), or bands on disk, which
            may stand beside each other.
        grid: CRS, transform and size.
        classes: What the indices mean.
        tags: Further tags, names beginning with ``CTRS_``.
        values: The indices that can occur, which the tag is to list; None: all.
        creation_options: For GDAL's COG driver, checked by ``check_creation_options``.

    Returns:
        ``staged``.

    Raises:
        OutputError: The file cannot be written.
    """
    named = {**(tags or {}), CLASSES_TAG: class_tag(classes, values)}
    categories = list(zip(classes.names, classes.colors, strict=True))
    return write_category_cog(
        staged, rows, grid, categories, named, overviews="MODE", creation_options=creation_options
    )


def write_category_cog(
    staged: Path,
    rows: Rows,
    grid: Grid,
    categories: Sequence[tuple[str, tuple[int, int, int]]],
    tags: Mapping[str, str],
    *,
    overviews: Literal["MODE", "NEAREST"],
    creation_options: CreationOptions = (),
) -> Path:
    """Write a raster of numbered categories as COG, with nodata 255, colour table and category names.

    Args:
        staged: The file to write, in a folder for unfinished work; ``publish_class_cog`` moves it and its sidecar.
        rows: Rows from the top down, as many as the grid has: arrays (h, W), or bands on disk.
        grid: CRS, transform and size.
        categories: Name and colour of the values 0, 1, ...
        tags: Further tags, names beginning with ``CTRS_``.
        overviews: ``MODE`` shows what most pixels hold, ``NEAREST`` keeps the shares.
        creation_options: For GDAL's COG driver, checked by ``check_creation_options``.

    Returns:
        ``staged``.

    Raises:
        OutputError: The file cannot be written.
    """
    scratch = staged.with_name(f".{staged.name}.rows")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        bands = _on_disk(rows, scratch, grid)
        description = _describe(bands, grid, categories, {**tags, VERSION_TAG: __version__}, staged.parent)
        if overviews == "MODE":
            block_px = int(dict(creation_options).get("BLOCKSIZE", BLOCK_PX))
            _add_overviews(description, bands, grid, staged, scratch, block_px)
        write_cog(
            staged, description, grid, creation_options, OVERVIEW_RESAMPLING=overviews, COMPRESS="DEFLATE", LEVEL=_LEVEL
        )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return staged


def write_cog(
    staged: Path,
    description: ElementTree.Element,
    grid: Grid,
    creation_options: CreationOptions = (),
    /,
    **defaults: str,
) -> None:
    """Write what a virtual raster shows as COG and read it back; a file that is not whole is removed.

    Args:
        staged: The file to write, in a folder for unfinished work.
        description: Root of a VRT whose files are named relative to that folder.
        grid: Its grid.
        creation_options: The user's, for GDAL's COG driver.
        **defaults: Further creation options, where the user's leave a choice.

    Raises:
        OutputError: The file cannot be written.
    """
    described = staged.with_name(f".{staged.name}.vrt")
    # rasterio and rio-cogeo take a file whose blocks are as wide as itself for one that is not tiled.
    block_px = BLOCK_PX // 2 if grid.width == BLOCK_PX < grid.height else BLOCK_PX
    ours = {"BLOCKSIZE": str(block_px), "BIGTIFF": "IF_SAFER", "NUM_THREADS": "ALL_CPUS"}
    options = with_defaults(creation_options, **{**ours, **{name.upper(): value for name, value in defaults.items()}})
    try:
        ElementTree.ElementTree(description).write(described, encoding="utf-8")
        with rasterio.Env(**GDAL_OPTIONS, GDAL_MAX_DATASET_POOL_SIZE=str(_OPEN_FILES * _num_beside(description))):
            rasterio.shutil.copy(described, staged, driver="COG", **options)
        _read_back(staged)
    except WRITE_ERRORS as error:
        staged.unlink(missing_ok=True)
        raise not_writable(staged.parent.absolute(), error_line(error)) from error
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


def class_tag(classes: ClassMap, values: Collection[int] | None = None) -> str:
    """Return the text of the tag ``CTRS_CLASSES``: of all classes, or of the indices that can occur."""
    rows = [
        {"value": index, "name": entry.name, "color": list(entry.color)}
        for index, entry in enumerate(classes.learnt)
        if values is None or index in values
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


def _on_disk(rows: Rows, scratch: Path, grid: Grid) -> list[RowBands]:
    """Return all rows as bands on disk.

    Raises:
        ValueError: They are more or fewer than the grid has.
    """
    if isinstance(rows, RowBands):
        rows = [rows]
    blocks: list[RowBands] = []
    arrays: RowBands | None = None
    for part in rows:
        if isinstance(part, RowBands):
            blocks.append(part)
        else:
            arrays = arrays or RowBands(scratch / "rows", grid.width)
            arrays.append(part)
    return check_whole(blocks if arrays is None else arrays, grid)


def _num_beside(description: ElementTree.Element) -> int:
    """Return how many files of a virtual raster stand beside each other."""
    return max(1, len({place.get("xOff") for place in description.iter("DstRect")}))


def _add_overviews(
    description: ElementTree.Element, bands: Sequence[RowBands], grid: Grid, staged: Path, scratch: Path, block_px: int
) -> None:
    """Make overviews by majority and let the description name them, so that the driver makes none itself.

    Raises:
        OutputError: They cannot be written.
    """
    try:
        with rasterio.Env(**GDAL_OPTIONS):
            paths = write_overviews(rows_beside(bands), grid.height, grid.width, scratch, stop_px=block_px)
    except WRITE_ERRORS as error:
        raise not_writable(staged.parent.absolute(), error_line(error)) from error
    for band in description.iterfind("VRTRasterBand"):
        for path in paths:
            overview = ElementTree.SubElement(band, "Overview")
            overview.append(source_file_element(path, staged.parent))
            ElementTree.SubElement(overview, "SourceBand").text = "1"


def _describe(
    bands: Sequence[RowBands],
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
    for block in bands:
        add_sources(band, block.sources(), "1", folder)
    return root


def _read_back(path: Path) -> None:
    """Decode a file and its overviews: on a full disk GDAL may fail to write the last blocks and not say so."""
    with rasterio.Env(**GDAL_OPTIONS):
        with open_quietly(path) as file:
            levels = len(file.overviews(1))
        for level in (None, *range(levels)):
            options = {} if level is None else {"OVERVIEW_LEVEL": level}
            with open_quietly(path, NUM_THREADS="ALL_CPUS", **options) as file:
                for _, block in file.block_windows(1):
                    file.read(window=block)
