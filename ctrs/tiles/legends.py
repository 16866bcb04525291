"""The class table of a source that brings none: surveyed from its labels, never guessed from a part of them."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import rasterio

from ctrs.classes import BUILDING_CLASSES, IGNORE_INDEX, MAX_CLASSES, ClassMap, LandClass, default_color
from ctrs.errors import LabelError, LabelWarning, RasterError
from ctrs.raster.geotiff import color_bands, open_raster, read_window
from ctrs.raster.names import shown
from ctrs.raster.windows import PixelWindow
from ctrs.tiles.findings import Findings
from ctrs.vector.rasterize import PolygonLayer

logger = logging.getLogger(__name__)

CHUNK_PIXELS = 4_000_000
"""Pixels read at a time."""

Color = tuple[int, int, int]


def row_chunks(height: int, width: int, *, pixels: int = CHUNK_PIXELS) -> Iterator[PixelWindow]:
    """Yield full-width windows from top to bottom that hold about ``pixels`` pixels each."""
    rows = max(1, pixels // width)
    for row_off in range(0, height, rows):
        yield PixelWindow(col_off=0, row_off=row_off, width=width, height=min(rows, height - row_off))


def survey_values(dataset: rasterio.DatasetReader) -> Counter[float]:
    """Count the values of a class raster; nodata counts as any value, masked pixels and NaN do not."""
    counts: Counter[float] = Counter()
    for window in row_chunks(dataset.height, dataset.width):
        pixels, valid = read_window(dataset, window, bidx=[1])
        declared = dataset.nodata is not None and not math.isnan(dataset.nodata)
        band = pixels[0] if declared else pixels[0][valid]
        if band.dtype in (np.uint8, np.uint16):  # several times faster than sorting
            bins = np.bincount(band.ravel())
            values, numbers = np.flatnonzero(bins), bins[bins > 0]
        else:
            values, numbers = np.unique(band, return_counts=True)
        counts.update(dict(zip(values.tolist(), numbers.tolist(), strict=True)))
        if len(counts) > 10 * MAX_CLASSES:
            break
    return counts


def survey_colors(dataset: rasterio.DatasetReader) -> Counter[Color]:
    """Count the colours of a colour-coded label."""
    counts: Counter[Color] = Counter()
    for window in row_chunks(dataset.height, dataset.width):
        pixels, valid = read_window(dataset, window, bidx=[1, 2, 3])
        packed = pack_colors(pixels.astype(np.int64))[valid]
        values, numbers = np.unique(packed, return_counts=True)
        for value, number in zip(values.tolist(), numbers.tolist(), strict=True):
            counts[unpack_color(value)] += number
    return counts


def pack_colors(rgb: np.typing.NDArray[np.int64]) -> np.typing.NDArray[np.int64]:
    """Return one integer for each colour of an array (3, H, W)."""
    packed: np.typing.NDArray[np.int64] = (rgb[0] << 16) | (rgb[1] << 8) | rgb[2]
    return packed


def unpack_color(packed: int) -> Color:
    """Return red, green, blue of an integer from ``pack_colors``."""
    return packed >> 16, (packed >> 8) & 255, packed & 255


def classes_of_rasters(paths: Sequence[Path], findings: Findings) -> ClassMap:
    """Return the class table of class rasters that come without one.

    0 and 1, or 0 and 255, are background and building; other values become ``class_N``. Beside 0 and 1, or beside
    three and more values, 255 is ignored.

    Args:
        paths: Label rasters.
        findings: Takes a warning of what is ignored.

    Raises:
        LabelError: The labels are colour-coded, or hold fractions or too many values.
    """
    values: Counter[int] = Counter()
    colors: Counter[Color] = Counter()
    nodata: set[float] = set()
    damaged: list[RasterError] = []  # those of scenes are told when these are opened or read
    faults = len(findings.faults)
    for path in paths:
        try:
            with open_raster(path) as dataset:
                if len(color_bands(dataset)) >= 3:
                    colors.update(survey_colors(dataset))
                    continue
                values.update(_whole_values(path, survey_values(dataset)))
                if dataset.nodata is not None and float(dataset.nodata).is_integer():
                    nodata.add(dataset.nodata)
        except RasterError as error:
            damaged.append(error)
        except LabelError as error:
            findings.fault("classes", error)
    if not values and not colors and len(findings.faults) == faults and damaged:
        findings.fault("files", damaged[0])
    if not values and not colors:
        findings.raise_faults()
    if colors:
        raise LabelError(_colors_message(paths, colors))
    return _classes_of_values(values, nodata, findings, where=_where(paths))


def _whole_values(path: Path, counts: Counter[float]) -> Counter[int]:
    for value in counts:
        if not float(value).is_integer():
            raise LabelError(
                f"{path}: value {value} found, expected whole class numbers; is this a label? "
                "put labels into labels/ and images into images/"
            )
    return Counter({int(value): number for value, number in counts.items()})


def _classes_of_values(values: Counter[int], nodata: set[float], findings: Findings, *, where: str) -> ClassMap:
    found = set(values) - {int(value) for value in nodata if value != 0}  # 0 is background even where called nodata
    if found <= {0, 1}:
        return BUILDING_CLASSES
    if found <= {0, 255}:
        background, building = BUILDING_CLASSES.classes
        return ClassMap(
            classes=(background, LandClass(value=255, name=building.name, color=building.color)),
        )
    rows = sorted(found)
    ignored = 255 in found and (len(rows) > 3 or found == {0, 1, 255})
    learnt = [value for value in rows if value != 255 or not ignored]
    if len(learnt) > MAX_CLASSES:
        raise LabelError(
            f"{where}: more than {MAX_CLASSES} different values found, expected class numbers; is this a label? "
            "put labels into labels/ and images into images/, or give a classes.toml"
        )
    if ignored:
        findings.warn(
            "classes",
            f"{where}: value 255 in {values[255]} px is taken as ignored; "
            "give a classes.toml with its class if it is one",
            LabelWarning,
        )
    if found == {0, 1, 255}:
        return ClassMap(classes=(*BUILDING_CLASSES.classes, _ignored_row(255)))
    classes = tuple(
        LandClass(value=value, name=f"class_{value}", color=default_color(number))
        for number, value in enumerate(learnt)
    )
    logger.info("%s: no class table; classes %s", where, ", ".join(entry.name for entry in classes))
    return ClassMap(classes=(*classes, _ignored_row(255)) if ignored else classes)


def classes_of_field(layers: Sequence[PolygonLayer], class_field: str, findings: Findings) -> ClassMap:
    """Return the class table of a field of vector labels: its values alphabetically after ``background``.

    The number 255 is ignored, as in masks.

    Raises:
        LabelError: The field holds nothing, or too many different values.
    """
    counts: Counter[str] = Counter()
    for layer in layers:
        counts.update(field_key(value) for value in layer.frame[class_field].tolist())
    empty = counts.pop("", 0)
    where = _where([layer.path for layer in layers])
    if not counts or len(counts) > MAX_CLASSES - 1:
        raise LabelError(
            f"{where}: field {class_field!r} holds {len(counts)} different values, expected 1 to {MAX_CLASSES - 1} "
            "classes; name another field with --class-field"
        )
    if empty:
        raise LabelError(f"{where}: field {class_field!r} is empty in {empty} polygons; fill it or remove the polygons")
    rows = [LandClass(value=0, name="background", color=BUILDING_CLASSES.colors[0])]
    numbers = all(key.isdigit() for key in counts)
    used = {0}
    for number, key in enumerate(sorted(counts, key=lambda text: int(text) if numbers else text), start=1):
        value = int(key) if numbers and int(key) not in used else number
        used.add(value)
        if numbers and value == IGNORE_INDEX:
            findings.warn(
                "classes",
                f"{where}: {class_field} = 255 in {counts[key]} polygons is taken as ignored; "
                "give a classes.toml with its class if it is one",
                LabelWarning,
            )
            rows.append(_ignored_row(255))
            continue
        name = f"class_{key}" if numbers else key
        if name == "background":
            continue
        rows.append(LandClass(value=value, name=name, color=default_color(number)))
    return ClassMap(classes=tuple(rows))


def field_key(value: object) -> str:
    """Return the text by which a field's value and a class are compared: lower case, whole numbers without fraction.

    >>> field_key(" Road "), field_key(3.0), field_key(None)
    ('road', '3', '')
    """
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip().lower()


def _colors_message(paths: Sequence[Path], colors: Counter[Color]) -> str:
    rows = ", ".join(
        f'{{ name = "class_{number}", color = [{red}, {green}, {blue}] }}'
        for number, ((red, green, blue), _) in enumerate(colors.most_common(20))
    )
    rarer = f" (and {len(colors) - 20} rarer ones"
    lossy = "; --nearest-color reads them as the nearest where they are lossy or anti-aliased edges)"
    more = f"{rarer}{lossy if len(colors) > 256 else ')'}" if len(colors) > 20 else ""
    return (
        f"{_where(paths)}: colour-coded labels and no class table; name one with --classes (TOML, a JSON palette, a "
        f"QGIS or GDAL colour table), or put a classes.toml with these colours{more}, most frequent first, into the "
        f"source folder and give them their names: class = [{rows}]"
    )


def _where(paths: Sequence[Path]) -> str:
    return shown(paths[0]) if len(paths) == 1 else f"{shown(paths[0].parent)} ({len(paths)} labels)"


def _ignored_row(value: int) -> LandClass:
    return LandClass(value=value, name="ignored", color=(0, 0, 0), ignored=True)
