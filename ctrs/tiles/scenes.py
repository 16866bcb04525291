"""What is checked before a tile is cut: that all scenes and labels open, fit each other, and fit one class table."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window

from ctrs.classes import BUILDING_CLASSES, IGNORE_INDEX, ClassMap, load_class_table
from ctrs.config import PrepareConfig
from ctrs.errors import BandMismatchError, DataWarning, LabelWarning, MissingCrsWarning, RasterError
from ctrs.raster.geotiff import Grid, color_bands, open_raster
from ctrs.tiles.labels import (
    Label,
    PolygonLabel,
    RasterLabel,
    background_value,
    open_raster_label,
    polygon_values,
)
from ctrs.tiles.layout import Layout, SceneSource
from ctrs.tiles.legends import classes_of_field, classes_of_rasters
from ctrs.vector.rasterize import VECTOR_SUFFIXES, PolygonLayer, place_polygons, read_polygons

logger = logging.getLogger(__name__)

DTYPES = ("uint8", "uint16", "int16", "uint32", "int32", "float32", "float64")
"""Pixel types that imagery may have."""

MAX_ALPHA_VALUES = 32
"""Different values above which an alpha band is suspected to be something else."""


@dataclass(frozen=True, kw_only=True)
class ReadyScene:
    """A scene that can be cut.

    Args:
        source: Where it was found.
        grid: Its grid, with the preset's CRS where the file names none.
        label: Its label.
        eroded: Its label with eroded class borders.
        bands: Numbers of the bands that hold imagery.
        colors: What the file says these bands are.
        nodata: Nodata value of the imagery.
        sequential: The file can only be read from its beginning (JPEG, PNG).
    """

    source: SceneSource
    grid: Grid
    label: Label
    eroded: Label | None
    bands: tuple[int, ...]
    colors: tuple[ColorInterp, ...]
    nodata: float | None
    sequential: bool


@dataclass(frozen=True, kw_only=True)
class ReadySource:
    """All scenes of a source, and what they have in common."""

    scenes: tuple[ReadyScene, ...]
    classes: ClassMap
    band_names: tuple[str, ...]
    dtype: str
    nodata: float | None


@dataclass(frozen=True, kw_only=True)
class _Image:
    source: SceneSource
    grid: Grid
    bands: tuple[int, ...]
    colors: tuple[ColorInterp, ...]
    names: tuple[str, ...]
    dtype: str
    nodata: float | None
    odd_alpha: int | None
    sequential: bool


def check_source(layout: Layout, config: PrepareConfig) -> ReadySource:
    """Open all images and labels, check that they fit, and settle the class table.

    Raises:
        RasterError: A raster cannot be read, or its bands differ from the others'.
        GridMismatchError: A label does not lie on its image's grid.
        LabelError: Labels cannot be read as the kind asked for.
    """
    images = [_open_image(scene, layout) for scene in layout.scenes]
    _check_alike(images)
    _warn_missing_crs(images)
    _warn_odd_alpha(images)
    layers = _read_layers(layout.scenes, config.class_field)
    classes = _class_table(layout, layers, config)
    _warn_background(layers, classes)
    scenes: list[ReadyScene] = []
    nodata_classes: dict[str, list[Path]] = {}
    for image in images:
        label = _open_label(image.source.label, image, classes, layers, layout, config)
        eroded = (
            _open_label(image.source.label_eroded, image, classes, layers, layout, config)
            if image.source.label_eroded is not None
            else None
        )
        name = label.nodata_class() if isinstance(label, RasterLabel) else None
        if name is not None:
            nodata_classes.setdefault(name, []).append(image.source.label)
        scenes.append(
            ReadyScene(
                source=image.source,
                grid=image.grid,
                label=label,
                eroded=eroded,
                bands=image.bands,
                colors=image.colors,
                nodata=image.nodata,
                sequential=image.sequential,
            )
        )
    for name, paths in nodata_classes.items():
        warnings.warn(
            f"{paths[0]}{_and_more(paths)}: the declared nodata value is that of class {name}; it is read as the class",
            LabelWarning,
            stacklevel=3,
        )
    nodata = {image.nodata for image in images}
    return ReadySource(
        scenes=tuple(scenes),
        classes=classes,
        band_names=images[0].names,
        dtype=images[0].dtype,
        nodata=nodata.pop() if len(nodata) == 1 else None,
    )


def _open_image(scene: SceneSource, layout: Layout) -> _Image:
    with open_raster(scene.image) as dataset:
        bands = color_bands(dataset)
        kinds = sorted({dataset.dtypes[number - 1] for number in bands})
        if not bands or len(kinds) != 1 or kinds[0] not in DTYPES:
            raise RasterError(
                f"{scene.image}: bands of dtype {', '.join(kinds) or 'none'} found, expected the same one of "
                f"{', '.join(DTYPES)} for all; convert the image"
            )
        if len(bands) == 1 and dataset.colorinterp[0] is ColorInterp.palette:
            raise RasterError(
                f"{scene.image}: an image with a colour table found, expected bands of colours; "
                "expand it (gdal_translate -expand rgb)"
            )
        grid = Grid.of(dataset)
        if grid.crs is None and layout.preset is not None and layout.preset.crs and not grid.transform.is_identity:
            grid = replace(grid, crs=CRS.from_string(layout.preset.crs))
        return _Image(
            source=scene,
            grid=replace(grid, ground_control=None),
            bands=bands,
            colors=tuple(dataset.colorinterp[number - 1] for number in bands),
            names=_band_names(dataset, bands, layout.band_names),
            dtype=kinds[0],
            nodata=_usable_nodata(dataset, bands),
            odd_alpha=_odd_alpha(dataset),
            sequential=dataset.driver in {"JPEG", "PNG", "WEBP"},
        )


def _usable_nodata(dataset: rasterio.DatasetReader, bands: Sequence[int]) -> float | None:
    """Return the nodata value if it alone says which pixels are valid: no mask, no alpha, not NaN (which always is)."""
    nodata: float | None = dataset.nodata
    by_value = all(MaskFlags.nodata in dataset.mask_flag_enums[number - 1] for number in bands)
    if nodata is None or not by_value or np.isnan(nodata):
        return None
    kind = np.dtype(dataset.dtypes[0])
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        if not (float(nodata).is_integer() and limits.min <= nodata <= limits.max):
            return None
    return float(nodata)


def _band_names(dataset: rasterio.DatasetReader, bands: Sequence[int], given: Sequence[str]) -> tuple[str, ...]:
    """Names by the preset, by the file's descriptions, by what its colours are, or by number."""
    if len(given) == len(bands):
        return tuple(given)
    described = [(dataset.descriptions[number - 1] or "").strip() for number in bands]
    if all(described) and len(set(described)) == len(described):
        return tuple(described)
    colors = [dataset.colorinterp[number - 1] for number in bands]
    plain = {ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.gray}
    names = [
        color.name if color in plain and colors.count(color) == 1 else f"band_{number}"
        for number, color in zip(bands, colors, strict=True)
    ]
    return tuple(names)


def _odd_alpha(dataset: rasterio.DatasetReader) -> int | None:
    """Return the number of an alpha band with many values: near infrared is often marked so by mistake."""
    for number, color in zip(dataset.indexes, dataset.colorinterp, strict=True):
        if color is ColorInterp.alpha:
            width, height = min(dataset.width, 256), min(dataset.height, 256)
            middle = Window((dataset.width - width) // 2, (dataset.height - height) // 2, width, height)
            if len(np.unique(dataset.read(number, window=middle))) > MAX_ALPHA_VALUES:
                return int(number)
    return None


def _warn_odd_alpha(images: Sequence[_Image]) -> None:
    odd = [image for image in images if image.odd_alpha is not None]
    if odd:
        warnings.warn(
            f"{odd[0].source.image}{_and_more([image.source.image for image in odd])}: band {odd[0].odd_alpha} is "
            f"marked as alpha but holds more than {MAX_ALPHA_VALUES} different values in the middle of the image; it "
            "is used as transparency. If it is near infrared, say so in the file "
            f"(gdal_edit.py -colorinterp_{odd[0].odd_alpha} undefined) to use it as a band",
            DataWarning,
            stacklevel=4,
        )


def _check_alike(images: Sequence[_Image]) -> None:
    first = images[0]
    for image in images[1:]:
        if (len(image.bands), image.dtype) != (len(first.bands), first.dtype):
            raise BandMismatchError(
                f"{image.source.image}: {len(image.bands)} bands of {image.dtype} found, but {len(first.bands)} bands "
                f"of {first.dtype} in {first.source.image}; prepare images of different kinds apart"
            )


def _warn_missing_crs(images: Sequence[_Image]) -> None:
    missing = [image.source.image for image in images if image.grid.crs is None]
    if missing:
        warnings.warn(
            f"{missing[0]}{_and_more(missing)}: no CRS found; going on in pixel coordinates",
            MissingCrsWarning,
            stacklevel=4,
        )


def _and_more(paths: Sequence[Path]) -> str:
    return f" and {len(paths) - 1} more" if len(paths) > 1 else ""


def _read_layers(scenes: Sequence[SceneSource], class_field: str | None) -> dict[Path, PolygonLayer]:
    """Read each vector file once, and say what was mended or left out."""
    layers: dict[Path, PolygonLayer] = {}
    for path in dict.fromkeys(scene.label for scene in scenes if scene.label.suffix.lower() in VECTOR_SUFFIXES):
        layer = layers[path] = read_polygons(path, class_field=class_field)
        if layer.num_repaired:
            warnings.warn(
                f"{path}: {layer.num_repaired} of {len(layer.frame)} polygons were invalid and have been repaired",
                LabelWarning,
                stacklevel=4,
            )
        if layer.num_dropped:
            warnings.warn(
                f"{path}: {layer.num_dropped} features without area (points, lines, empty) are left out",
                LabelWarning,
                stacklevel=4,
            )
    return layers


def _class_table(layout: Layout, layers: dict[Path, PolygonLayer], config: PrepareConfig) -> ClassMap:
    """Settle the class table: the options' or the source's file, the preset's, or what the labels hold."""
    if layout.class_file is not None:
        return load_class_table(layout.class_file)
    if layout.preset is not None:
        return layout.preset.classes
    rasters = list(dict.fromkeys(scene.label for scene in layout.scenes if scene.label not in layers))
    if layers and not rasters:
        if config.class_field is None:
            logger.info("labels: all polygons are taken as building; --class-field NAME reads classes from a field")
            return BUILDING_CLASSES
        return classes_of_field(list(layers.values()), config.class_field)
    return classes_of_rasters(rasters)


def _warn_background(layers: dict[Path, PolygonLayer], classes: ClassMap) -> None:
    if layers and background_value(classes) == IGNORE_INDEX:
        warnings.warn(
            f"{next(iter(layers))}: the class table has no class background, so ground without polygons is ignored",
            LabelWarning,
            stacklevel=4,
        )


def _open_label(
    path: Path,
    image: _Image,
    classes: ClassMap,
    layers: dict[Path, PolygonLayer],
    layout: Layout,
    config: PrepareConfig,
) -> Label:
    layer = layers.get(path)
    if layer is None:
        preset = layout.preset
        kind = preset.labels if preset is not None and config.labels == "auto" else config.labels
        return open_raster_label(
            path,
            image.source.image,
            image.grid,
            classes,
            kind=kind,
            tolerance=preset.color_tolerance if preset is not None and layout.class_file is None else 0,
        )
    if (layer.frame.crs is None) != (image.grid.crs is None):
        lacking, owner = (path, "image") if layer.frame.crs is None else (image.source.image, "labels")
        warnings.warn(
            f"{lacking}: no CRS found; its coordinates are taken to be those of its {owner}",
            LabelWarning,
            stacklevel=4,
        )
    polygons = place_polygons(layer, image.grid, polygon_values(layer, classes, config.class_field))
    if not len(polygons.shapes):
        warnings.warn(
            f"{path}: none of its {len(layer.frame)} polygons lies on {image.source.image}, which is all background; "
            "check CRS and place if that is wrong",
            LabelWarning,
            stacklevel=4,
        )
    return PolygonLabel(polygons=polygons, background=background_value(classes))
