"""What is checked before a tile is cut: that all scenes and labels open, fit each other, and fit one class table."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rasterio.crs import CRS

from ctrs.classes import BUILDING_CLASSES, IGNORE_INDEX, ClassMap, load_class_table
from ctrs.config import PrepareConfig
from ctrs.errors import BandMismatchError, DataError, LabelWarning, MissingCrsWarning
from ctrs.raster.geotiff import Grid
from ctrs.tiles.findings import Findings
from ctrs.tiles.imagery import MAX_ALPHA_VALUES, FileImagery, Imagery, odd_alpha, open_imagery
from ctrs.tiles.labels import Label
from ctrs.tiles.layout import Layout, SceneSource
from ctrs.tiles.legends import classes_of_field, classes_of_rasters
from ctrs.tiles.polygon_labels import PolygonLabel, background_value, polygon_values
from ctrs.tiles.raster_labels import RasterLabel, open_raster_label
from ctrs.vector.rasterize import VECTOR_SUFFIXES, PolygonLayer, place_polygons, read_polygons

logger = logging.getLogger(__name__)

DEFAULT_TILE_PX = 512
"""Edge of a tile where neither the options nor the preset name one."""


@dataclass(frozen=True, kw_only=True)
class ReadyScene:
    """A scene that can be cut.

    Args:
        source: Where it was found.
        imagery: Its pixels, on the grid of its tiles.
        label: Its label, on the same grid.
        eroded: Its label with eroded class borders.
        tile_px: Edge of its tiles.
        stride_px: Step between them.
    """

    source: SceneSource
    imagery: Imagery
    label: Label
    eroded: Label | None
    tile_px: int
    stride_px: int

    @property
    def name(self) -> str:
        """Name of the scene."""
        return self.source.name

    @property
    def grid(self) -> Grid:
        """Grid of its tiles."""
        return self.imagery.grid


@dataclass(frozen=True, kw_only=True)
class ReadySource:
    """All scenes of a source that can be cut, and what they have in common."""

    scenes: tuple[ReadyScene, ...]
    classes: ClassMap
    band_names: tuple[str, ...]
    dtype: str
    nodata: float | None


@dataclass(frozen=True, kw_only=True)
class _Image:
    source: SceneSource
    imagery: FileImagery


def check_source(layout: Layout, config: PrepareConfig, findings: Findings) -> ReadySource:
    """Open all images and labels, check that they fit, and settle the class table.

    Args:
        layout: The scenes of the source.
        config: Options.
        findings: Takes what is wrong with single scenes; those are left out of what is returned.

    Raises:
        RasterError: No image can be read.
        LabelError: There is no class table to be had.
    """
    images: list[_Image] = []
    for scene in layout.scenes:
        with findings.gathering("files", scene=scene.name):
            images.append(_open_image(scene, layout, config))
    images = _alike(images, findings)
    if not images:
        findings.raise_faults()
        raise DataError(f"{layout.root}: no scenes found; check the folder")
    _warn_missing_crs(images, findings)
    if not config.bidx:
        _warn_odd_alpha(images, findings)
    layers = _read_layers(layout.scenes, config.class_field, findings)
    classes = _class_table(layout, layers, config)
    _warn_background(layers, classes, findings)
    scenes: list[ReadyScene] = []
    nodata_classes: dict[str, list[Path]] = {}
    for image in images:
        with findings.gathering("alignment", scene=image.source.name):
            label = _open_label(image.source.label, image, classes, layers, layout, config, findings)
            eroded = (
                _open_label(image.source.label_eroded, image, classes, layers, layout, config, findings)
                if image.source.label_eroded is not None
                else None
            )
            name = label.nodata_class() if isinstance(label, RasterLabel) else None
            if name is not None:
                nodata_classes.setdefault(name, []).append(image.source.label)
            tile_px, stride_px = _tile_size(layout, config)
            scenes.append(
                ReadyScene(
                    source=image.source,
                    imagery=image.imagery,
                    label=label,
                    eroded=eroded,
                    tile_px=tile_px,
                    stride_px=stride_px,
                )
            )
    for name, paths in nodata_classes.items():
        findings.warn(
            "classes",
            f"{paths[0]}{_and_more(paths)}: the declared nodata value is that of class {name}; it is read as the class",
            LabelWarning,
        )
    nodata = {image.imagery.nodata for image in images}
    return ReadySource(
        scenes=tuple(scenes),
        classes=classes,
        band_names=images[0].imagery.names,
        dtype=images[0].imagery.dtype,
        nodata=nodata.pop() if len(nodata) == 1 else None,
    )


def _open_image(scene: SceneSource, layout: Layout, config: PrepareConfig) -> _Image:
    imagery = open_imagery(scene.image, bidx=config.bidx, names=layout.band_names)
    grid = imagery.grid
    crs = config.src_crs or (layout.preset.crs if layout.preset is not None else None)
    if grid.crs is None and crs is not None and not grid.transform.is_identity:
        grid = replace(grid, crs=CRS.from_string(crs))
    return _Image(source=scene, imagery=replace(imagery, grid=replace(grid, ground_control=None)))


def _tile_size(layout: Layout, config: PrepareConfig) -> tuple[int, int]:
    """Return edge and step of a scene's tiles in pixels."""
    edge = config.tile_px or (layout.preset.tile_px if layout.preset is not None else DEFAULT_TILE_PX)
    return edge, config.stride_px or edge


def _warn_odd_alpha(images: Sequence[_Image], findings: Findings) -> None:
    odd = {image.imagery.path: number for image in images if (number := odd_alpha(image.imagery.path)) is not None}
    if odd:
        path, number = next(iter(odd.items()))
        findings.warn(
            "bands",
            f"{path}{_and_more(list(odd))}: band {number} is marked as alpha but holds more than {MAX_ALPHA_VALUES} "
            "different values in the middle of the image; it is used as transparency. If it is near infrared, name "
            "the bands with --bidx",
        )


def _alike(images: Sequence[_Image], findings: Findings) -> list[_Image]:
    """Return the images whose bands are of the first one's kind; the others are faults."""
    alike: list[_Image] = []
    for image in images:
        found, first = image.imagery, images[0].imagery
        if (len(found.bidx), found.dtype) == (len(first.bidx), first.dtype):
            alike.append(image)
            continue
        error = BandMismatchError(
            f"{found.path}: {len(found.bidx)} bands of {found.dtype} found, but {len(first.bidx)} bands of "
            f"{first.dtype} in {first.path}; prepare images of different kinds apart, or choose bands with --bidx"
        )
        findings.fault("bands", error, scene=image.source.name)
    return alike


def _warn_missing_crs(images: Sequence[_Image], findings: Findings) -> None:
    missing = [image.source.image for image in images if image.imagery.grid.crs is None]
    if missing:
        findings.warn(
            "georeference",
            f"{missing[0]}{_and_more(missing)}: no CRS found; going on in pixel coordinates",
            MissingCrsWarning,
        )


def _and_more(paths: Sequence[Path]) -> str:
    return f" and {len(paths) - 1} more" if len(paths) > 1 else ""


def _read_layers(
    scenes: Sequence[SceneSource], class_field: str | None, findings: Findings
) -> dict[Path, PolygonLayer]:
    """Read each vector file once, and say what was mended or left out."""
    layers: dict[Path, PolygonLayer] = {}
    for path in dict.fromkeys(scene.label for scene in scenes if scene.label.suffix.lower() in VECTOR_SUFFIXES):
        layer = layers[path] = read_polygons(path, class_field=class_field)
        if layer.num_repaired:
            findings.warn(
                "classes",
                f"{path}: {layer.num_repaired} of {len(layer.frame)} polygons were invalid and have been repaired",
                LabelWarning,
            )
        if layer.num_dropped:
            findings.warn(
                "classes",
                f"{path}: {layer.num_dropped} features without area (points, lines, empty) are left out",
                LabelWarning,
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


def _warn_background(layers: dict[Path, PolygonLayer], classes: ClassMap, findings: Findings) -> None:
    if layers and background_value(classes) == IGNORE_INDEX:
        findings.warn(
            "classes",
            f"{next(iter(layers))}: the class table has no class background, so ground without polygons is ignored",
            LabelWarning,
        )


def _open_label(
    path: Path,
    image: _Image,
    classes: ClassMap,
    layers: dict[Path, PolygonLayer],
    layout: Layout,
    config: PrepareConfig,
    findings: Findings,
) -> Label:
    layer = layers.get(path)
    if layer is None:
        preset = layout.preset
        kind = preset.labels if preset is not None and config.label_kind == "auto" else config.label_kind
        return open_raster_label(
            path,
            image.source.image,
            image.imagery.grid,
            classes,
            kind=kind,
            tolerance=preset.color_tolerance if preset is not None and layout.class_file is None else 0,
        )
    if (layer.frame.crs is None) != (image.imagery.grid.crs is None):
        lacking, owner = (path, "image") if layer.frame.crs is None else (image.source.image, "labels")
        findings.warn(
            "georeference",
            f"{lacking}: no CRS found; its coordinates are taken to be those of its {owner}",
            LabelWarning,
        )
    polygons = place_polygons(layer, image.imagery.grid, polygon_values(layer, classes, config.class_field))
    if not len(polygons.shapes):
        findings.warn(
            "alignment",
            f"{path}: none of its {len(layer.frame)} polygons lies on {image.source.image}, which is all background; "
            "check CRS and place if that is wrong",
            LabelWarning,
        )
    return PolygonLabel(polygons=polygons, background=background_value(classes))
