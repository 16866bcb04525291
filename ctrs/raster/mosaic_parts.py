"""Rasters that are parts of one scene, shown as one raster: a VRT in GDAL's memory that loses nothing of them."""

from __future__ import annotations

import hashlib
import itertools
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

import rasterio
from affine import Affine
from rasterio.dtypes import dtype_rev, typename_fwd
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.io import MemoryFile

from ctrs.errors import GridMismatchError, RasterError
from ctrs.raster.geotiff import Grid, crs_name, open_raster
from ctrs.raster.mosaic import MosaicSource, dataset_element, source_file_element
from ctrs.raster.names import shown

ALIGNMENT_PX = 0.05
"""Largest distance of a part's corners from the pixel corners of the mosaic, unless a call says otherwise."""

LARGE_PX = 10**9
"""Pixels above which a mosaic has to be covered by its parts."""

MIN_COVERAGE = 0.01
"""Least share of a large mosaic that its parts cover."""

_Validity = Literal["all", "nodata", "mask", "alpha"]

_COLORS = {
    ColorInterp.gray: "Gray",
    ColorInterp.palette: "Palette",
    ColorInterp.red: "Red",
    ColorInterp.green: "Green",
    ColorInterp.blue: "Blue",
    ColorInterp.alpha: "Alpha",
}

# Files in GDAL's memory live as long as these objects; all threads of the process see them.
_FILES: dict[Path, MemoryFile] = {}
_MOSAICS: dict[Path, Mosaic] = {}
_FILES_LOCK = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class _Part:
    """What must be equal among parts, and where one lies."""

    path: Path
    grid: Grid
    dtypes: tuple[str, ...]
    nodata: tuple[float | None, ...]
    colors: tuple[ColorInterp, ...]
    names: tuple[str | None, ...]
    palette: Mapping[int, tuple[int, ...]]
    validity: _Validity
    alpha_is_data: bool
    block_px: tuple[int, int]
    tiled: bool

    @classmethod
    def of(cls, path: Path, placed: Mapping[Path, Grid], *, alpha_is_data: bool) -> _Part:
        with open_raster(path) as dataset:
            grid = Grid.of(dataset)
            palette = _palette(dataset)
            height, width = dataset.block_shapes[0]
            known = placed.get(path)
            is_data = alpha_is_data and ColorInterp.alpha in dataset.colorinterp
            undefined = {ColorInterp.alpha: ColorInterp.undefined} if is_data else {}
            return cls(
                path=path,
                grid=known if known is not None and known.shape == grid.shape and _is_unplaced(grid) else grid,
                dtypes=tuple(dataset.dtypes),
                nodata=tuple(dataset.nodatavals),
                colors=tuple(undefined.get(color, color) for color in dataset.colorinterp),
                names=tuple(dataset.descriptions),
                palette=palette,
                validity=_validity(dataset, alpha_is_data=is_data),
                alpha_is_data=is_data,
                block_px=(height, width),
                tiled=bool(dataset.profile.get("tiled", False)),
            )


@dataclass(frozen=True, kw_only=True)
class Mosaic:
    """Rasters shown as one.

    Args:
        path: Path by which GDAL opens the mosaic in this process; the same for the same parts.
        sources: The parts and their places in the mosaic; later ones lie above earlier ones.
    """

    path: Path
    sources: tuple[MosaicSource, ...]


def join_parts(
    paths: Sequence[Path],
    name: str,
    *,
    onto: Grid | None = None,
    placed: Mapping[Path, Grid] | None = None,
    alpha_is_data: bool = False,
    tolerance_px: float = ALIGNMENT_PX,
) -> Mosaic:
    """Show rasters as one; later ones lie above earlier ones, but only with their valid pixels.

    The mosaic has the bands (alpha included), colours, colour table, nodata values and CRS of its parts. Where no part
    lies, it is invalid.

    Args:
        paths: The parts: of one CRS, pixel size, dtype and number of bands, on one grid of pixels.
        name: Name of the mosaic, for its path.
        onto: Grid that the mosaic is to have; None for the smallest that holds all parts.
        placed: Grids of parts that have no georeference of their own.
        alpha_is_data: A band that is called alpha is one as the others: all pixels of such parts are valid.
        tolerance_px: Largest distance of a part's corners from the pixel corners of the mosaic.

    Raises:
        GridMismatchError: A part has another CRS or pixel size, or lies between the pixels of the first.
        RasterError: A part has other bands, or no place, or cannot be read; or the parts lie far from each other.
    """
    parts = [_Part.of(path, placed or {}, alpha_is_data=alpha_is_data) for path in paths]
    if not parts:
        raise RasterError(f"mosaic {name}: no parts found; name at least one")
    first = parts[0]
    for part in parts[1:]:
        _refuse_different(part, first)
    for part in parts:
        _refuse_unplaced(part, onto)
    base = onto if onto is not None else first.grid
    offsets = [_offset(part, base, first.path, tolerance_px) for part in parts]
    if onto is None:
        grid, (left, top) = _hull(parts, offsets)
        offsets = [(col - left, row - top) for col, row in offsets]
        _refuse_scattered(parts, offsets, grid)
    else:
        grid = onto
    text = ElementTree.tostring(_document(parts, offsets, grid), encoding="unicode")
    sources = tuple(
        MosaicSource(path=part.path, col_off=col, row_off=row, width=part.grid.width, height=part.grid.height)
        for part, (col, row) in zip(parts, offsets, strict=True)
    )
    mosaic = Mosaic(path=_in_memory(text, name), sources=sources)
    _MOSAICS[mosaic.path] = mosaic
    return mosaic


def mosaic_at(path: Path) -> Mosaic | None:
    """Return the mosaic that a path of ``join_parts`` stands for; None for any other path."""
    return _MOSAICS.get(path)


def _in_memory(text: str, name: str) -> Path:
    """Put a VRT into GDAL's memory under a name that its content determines."""
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    safe = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)
    path = Path(f"/vsimem/ctrs-{digest}/{safe}.vrt")
    with _FILES_LOCK:
        if path not in _FILES:
            _FILES[path] = MemoryFile(text.encode(), dirname=path.parent.name, filename=path.name)
    return path


def _validity(dataset: rasterio.DatasetReader, *, alpha_is_data: bool) -> _Validity:
    flags = dataset.mask_flag_enums
    if alpha_is_data:
        return "nodata" if all(value is not None for value in dataset.nodatavals) else "all"
    if ColorInterp.alpha in dataset.colorinterp:
        return "alpha"
    if all(MaskFlags.nodata in flag for flag in flags):
        return "nodata"
    return "mask" if MaskFlags.per_dataset in flags[0] else "all"


def _palette(dataset: rasterio.DatasetReader) -> dict[int, tuple[int, ...]]:
    if dataset.colorinterp[0] is not ColorInterp.palette:
        return {}
    try:
        return {index: tuple(color) for index, color in dataset.colormap(1).items()}
    except ValueError:
        return {}


def _is_unplaced(grid: Grid) -> bool:
    return grid.crs is None and grid.transform == Affine.identity()


def _refuse_unplaced(part: _Part, onto: Grid | None) -> None:
    if part.grid.ground_control is not None or (_is_unplaced(part.grid) and not (onto and _is_unplaced(onto))):
        raise RasterError(
            f"{shown(part.path)}: no georeference found, so its place in the mosaic is unknown; add a world file, or "
            "go without --mosaic"
        )


def _refuse_different(part: _Part, first: _Part) -> None:
    """Refuse a part of another kind than the first."""
    differences: list[str] = []
    if part.grid.crs != first.grid.crs:
        differences.append(f"CRS {crs_name(part.grid.crs)} instead of {crs_name(first.grid.crs)}")
    sizes = [[round(math.hypot(*pair), 12) for pair in _axes(grid.transform)] for grid in (part.grid, first.grid)]
    if not all(math.isclose(mine, other, rel_tol=1e-4) for mine, other in zip(*sizes, strict=True)):
        found, expected = (f"{size[0]:g} x {size[1]:g}" for size in sizes)
        differences.append(f"pixels of {found} instead of {expected}")
    error: type[RasterError] = GridMismatchError if differences else RasterError
    if (part.dtypes, len(part.colors)) != (first.dtypes, len(first.colors)):
        found, expected = (f"{len(one.dtypes)} bands of {one.dtypes[0]}" for one in (part, first))
        differences.append(f"{found} instead of {expected}")
    elif part.colors != first.colors:
        found, expected = (", ".join(color.name for color in one.colors) for one in (part, first))
        differences.append(f"bands {found} instead of {expected}")
    if repr(part.nodata) != repr(first.nodata) and len(part.nodata) == len(first.nodata):
        differences.append(f"nodata {_text(part.nodata)} instead of {_text(first.nodata)}")
    if part.palette != first.palette:
        differences.append("another colour table")
    if differences:
        raise error(
            f"{shown(part.path)}: {', '.join(differences)} as in {shown(first.path)}; the parts of a mosaic must be "
            "alike: convert it, or go without --mosaic"
        )


def _axes(transform: Affine) -> tuple[tuple[float, float], tuple[float, float]]:
    return (transform.a, transform.d), (transform.b, transform.e)


def _text(nodata: Sequence[float | None]) -> str:
    return "/".join("none" if value is None else f"{value:g}" for value in dict.fromkeys(nodata))


def _offset(part: _Part, grid: Grid, owner: Path, tolerance_px: float) -> tuple[int, int]:
    """Return the column and row of a grid at which a part begins."""
    if part.grid.crs is not None and grid.crs is not None and part.grid.crs != grid.crs:
        raise GridMismatchError(
            f"{shown(part.path)}: CRS {crs_name(part.grid.crs)} found, expected {crs_name(grid.crs)} as in the "
            "images; reproject it"
        )
    inverse = ~grid.transform
    col, row = inverse @ (part.grid.transform @ (0.0, 0.0))
    right, bottom = inverse @ (part.grid.transform @ (float(part.grid.width), float(part.grid.height)))
    left, top = round(col), round(row)
    errors = (col - left, row - top, right - left - part.grid.width, bottom - top - part.grid.height)
    shift = max(map(abs, errors))
    if shift > tolerance_px:
        far = f"{shift:.2f}" if shift >= 0.1 else f"{shift:.2g}"
        raise GridMismatchError(
            f"{shown(part.path)}: lies {far} px off the pixels of {shown(owner)}, expected at most "
            f"{tolerance_px} px; bring the parts to one grid (gdalwarp -tap), or go without --mosaic"
        )
    return left, top


def _hull(parts: Sequence[_Part], offsets: Sequence[tuple[int, int]]) -> tuple[Grid, tuple[int, int]]:
    """Return the smallest grid that holds all parts, and its origin on the grid of the first."""
    left, top = min(col for col, _ in offsets), min(row for _, row in offsets)
    right = max(col + part.grid.width for (col, _), part in zip(offsets, parts, strict=True))
    bottom = max(row + part.grid.height for (_, row), part in zip(offsets, parts, strict=True))
    first = parts[0].grid
    transform = first.transform @ Affine.translation(left, top)
    return Grid(crs=first.crs, transform=transform, width=right - left, height=bottom - top), (left, top)


def _refuse_scattered(parts: Sequence[_Part], offsets: Sequence[tuple[int, int]], grid: Grid) -> None:
    """Refuse parts so far from each other that the mosaic would be empty ground."""
    num_px = grid.width * grid.height
    share = min(1.0, sum(part.grid.width * part.grid.height for part in parts) / num_px)
    if num_px <= LARGE_PX or share >= MIN_COVERAGE:
        return
    places = list(zip(offsets, parts, strict=True))
    # The outermost in eight directions: the two farthest are among them, or nearly so.
    outermost: list[tuple[tuple[int, int], _Part]] = []
    for a, b in ((1, 0), (0, 1), (1, 1), (1, -1)):
        along = [a * col + b * row for col, row in offsets]
        outermost += [places[along.index(min(along))], places[along.index(max(along))]]
    one, other = max(itertools.combinations(outermost, 2), key=lambda pair: math.dist(pair[0][0], pair[1][0]))
    distance = math.dist(one[0], other[0])
    raise RasterError(
        f"{shown(one[1].path)} and {shown(other[1].path)}: lie {distance:.0f} px apart, so that the parts cover "
        f"{100 * share:.2g} % of a mosaic of {grid.width} x {grid.height} px, expected at least "
        f"{100 * MIN_COVERAGE:g} %; go without --mosaic, or leave out what lies elsewhere"
    )


def _document(parts: Sequence[_Part], offsets: Sequence[tuple[int, int]], grid: Grid) -> ElementTree.Element:
    first = parts[0]
    validity = first.validity
    if validity == "all" and any(part.validity == "mask" for part in parts):
        validity = "mask"
    root = dataset_element(grid)
    for place, dtype in enumerate(first.dtypes):
        attributes = {"dataType": typename_fwd[dtype_rev[dtype]], "band": str(place + 1)}
        if first.tiled:
            attributes |= {"blockYSize": str(first.block_px[0]), "blockXSize": str(first.block_px[1])}
        band = ElementTree.SubElement(root, "VRTRasterBand", attributes)
        if first.names[place]:
            ElementTree.SubElement(band, "Description").text = first.names[place]
        if first.nodata[place] is not None:
            ElementTree.SubElement(band, "NoDataValue").text = repr(first.nodata[place])
        color = first.colors[place]
        if color in _COLORS:
            ElementTree.SubElement(band, "ColorInterp").text = _COLORS[color]
        if first.palette and place == 0:
            table = ElementTree.SubElement(band, "ColorTable")
            for index in range(max(first.palette) + 1):
                entry = first.palette.get(index, (0, 0, 0, 255))
                channels = {f"c{number}": str(value) for number, value in enumerate(entry, 1)}
                ElementTree.SubElement(table, "Entry", channels)
        hidden = 0.0 if color is ColorInterp.alpha else first.nodata[place]
        masked = validity in ("mask", "alpha") and color is not ColorInterp.alpha
        for part, offset in zip(parts, offsets, strict=True):
            _add_source(band, part, offset, str(place + 1), hidden=hidden, masked=masked)
    if validity in ("all", "mask"):
        mask = ElementTree.SubElement(ElementTree.SubElement(root, "MaskBand"), "VRTRasterBand", dataType="Byte")
        for part, offset in zip(parts, offsets, strict=True):
            if part.alpha_is_data:  # its own mask is that band
                _add_source(mask, part, offset, "1", hidden=None, masked=False, constant=255)
            else:
                _add_source(mask, part, offset, "mask,1", hidden=0.0, masked=False)
    return root


def _add_source(
    band: ElementTree.Element, part: _Part, offset: tuple[int, int], source_band: str, *, hidden: float | None,
    masked: bool, constant: int | None = None,
) -> None:  # fmt: skip
    """Let a band show a part, without the pixels that hold a value or that the part's mask says are invalid.

    Where a constant is given, that is shown instead.
    """
    kind = "ComplexSource" if masked or hidden is not None or constant is not None else "SimpleSource"
    element = ElementTree.SubElement(band, kind)
    element.append(source_file_element(part.path, None))
    ElementTree.SubElement(element, "SourceBand").text = source_band
    width, height = part.grid.width, part.grid.height
    for name, col, row in (("SrcRect", 0, 0), ("DstRect", *offset)):
        rectangle = {"xOff": col, "yOff": row, "xSize": width, "ySize": height}
        ElementTree.SubElement(element, name, {key: str(value) for key, value in rectangle.items()})
    if hidden is not None:
        ElementTree.SubElement(element, "NODATA").text = repr(hidden)
    if constant is not None:
        ElementTree.SubElement(element, "ScaleRatio").text = "0"
        ElementTree.SubElement(element, "ScaleOffset").text = str(constant)
    if masked:
        ElementTree.SubElement(element, "UseMaskBand").text = "true"
