"""The labels of all scenes: one class table, each vector file read once, each scene's label opened."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from ctrs.classes import BUILDING_CLASSES, IGNORE_INDEX, ClassMap
from ctrs.config import PrepareConfig
from ctrs.errors import LabelWarning
from ctrs.tiles.class_tables import read_class_table
from ctrs.tiles.findings import Findings
from ctrs.tiles.imagery import Imagery
from ctrs.tiles.labels import Label
from ctrs.tiles.layout import Layout, SceneSource
from ctrs.tiles.legends import classes_of_field, classes_of_rasters
from ctrs.tiles.polygon_labels import PolygonLabel, background_value, polygon_values
from ctrs.tiles.raster_labels import open_raster_label
from ctrs.vector.rasterize import VECTOR_SUFFIXES, PolygonLayer, place_polygons, read_polygons

logger = logging.getLogger(__name__)


def read_layers(scenes: Sequence[SceneSource], class_field: str | None, findings: Findings) -> dict[Path, PolygonLayer]:
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


def settle_classes(layout: Layout, layers: dict[Path, PolygonLayer], config: PrepareConfig) -> ClassMap:
    """Settle the class table: the options' or the source's file, the preset's, or what the labels hold."""
    if layout.class_file is not None:
        return read_class_table(layout.class_file)
    if layout.preset is not None:
        return layout.preset.classes
    rasters = list(dict.fromkeys(scene.label for scene in layout.scenes if scene.label not in layers))
    if layers and not rasters:
        if config.class_field is None:
            logger.info("labels: all polygons are taken as building; --class-field NAME reads classes from a field")
            return BUILDING_CLASSES
        return classes_of_field(list(layers.values()), config.class_field)
    return classes_of_rasters(rasters)


def warn_background(layers: dict[Path, PolygonLayer], classes: ClassMap, findings: Findings) -> None:
    """Say that ground without polygons is ignored where the table has no background."""
    if layers and background_value(classes) == IGNORE_INDEX:
        findings.warn(
            "classes",
            f"{next(iter(layers))}: the class table has no class background, so ground without polygons is ignored",
            LabelWarning,
        )


def open_label(
    path: Path,
    scene: SceneSource,
    imagery: Imagery,
    classes: ClassMap,
    layers: Mapping[Path, PolygonLayer],
    layout: Layout,
    config: PrepareConfig,
    findings: Findings,
) -> Label:
    """Open the label of a scene.

    Args:
        path: Raster or vector file.
        scene: The scene.
        imagery: Its pixels.
        classes: Class table.
        layers: From ``read_layers``.
        layout: The source.
        config: Options.
        findings: Takes what looks odd.

    Raises:
        RasterError: A raster cannot be read, or does not lie on the scene's grid.
        LabelError: It cannot be read as the kind asked for.
    """
    layer = layers.get(path)
    if layer is None:
        preset = layout.preset
        kind = preset.labels if preset is not None and config.label_kind == "auto" else config.label_kind
        return open_raster_label(
            path,
            scene.image,
            imagery.grid,
            classes,
            kind=kind,
            tolerance=preset.color_tolerance if preset is not None and layout.class_file is None else 0,
            nearest=config.nearest_color,
        )
    if (layer.frame.crs is None) != (imagery.grid.crs is None):
        lacking, owner = (path, "image") if layer.frame.crs is None else (scene.image, "labels")
        findings.warn(
            "georeference",
            f"{lacking}: no CRS found; its coordinates are taken to be those of its {owner}",
            LabelWarning,
        )
    polygons = place_polygons(layer, imagery.grid, polygon_values(layer, classes, config.class_field))
    if not len(polygons.shapes):
        findings.warn(
            "alignment",
            f"{path}: none of its {len(layer.frame)} polygons lies on {scene.image}, which is all background; "
            "check CRS and place if that is wrong",
            LabelWarning,
        )
    return PolygonLabel(polygons=polygons, background=background_value(classes))
