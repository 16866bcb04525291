"""The labels of all scenes: one class table, each vector file read once, each scene's label opened."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from ctrs.classes import BUILDING_CLASSES, IGNORE_INDEX, ClassMap
from ctrs.config import PrepareConfig
from ctrs.errors import LabelWarning
from ctrs.raster.names import shown
from ctrs.tiles.class_tables import read_class_table
from ctrs.tiles.findings import Findings
from ctrs.tiles.imagery import Imagery
from ctrs.tiles.labels import Label
from ctrs.tiles.layout import Layout, SceneSource
from ctrs.tiles.legends import classes_of_field, classes_of_rasters
from ctrs.tiles.painting import PaintedLayer, first_of
from ctrs.tiles.polygon_labels import PolygonLabel, background_value
from ctrs.tiles.raster_labels import RasterLabel, open_raster_label
from ctrs.vector.rasterize import PolygonLayer, is_vector, place_polygons, read_polygons

logger = logging.getLogger(__name__)


def read_layers(scenes: Sequence[SceneSource], config: PrepareConfig, findings: Findings) -> dict[Path, PolygonLayer]:
    """Read each vector file once, and say what was mended or left out.

    Raises:
        LabelError: A file cannot be read; findings hold the faults of all.
    """
    layers: dict[Path, PolygonLayer] = {}
    thin = config.label_buffer_m is not None or config.label_buffer_field is not None
    fields = [name for name in (config.priority_field, config.label_buffer_field) if name is not None]
    paths = dict.fromkeys(scene.label for scene in scenes if is_vector(scene.label))
    for path in paths:
        with findings.gathering("files"):
            layers[path] = read_polygons(path, class_field=config.class_field, fields=fields, thin=thin)
    if len(layers) < len(paths):
        findings.raise_faults()
    if not layers:
        _warn_without_effect(config, findings)
    elif config.label_kind in ("values", "colors"):
        findings.warn(
            "classes",
            f"--label-kind {config.label_kind} has no effect on {first_of(layers)}: a vector file is painted; "
            "--class-field NAME reads its classes",
            LabelWarning,
        )
    repaired = {path: layer for path, layer in layers.items() if layer.num_repaired}
    if repaired:
        number = sum(layer.num_repaired for layer in repaired.values())
        findings.warn(
            "classes",
            f"{first_of(repaired)}: {number} of {sum(len(layer.frame) for layer in repaired.values())} polygons were "
            "invalid and have been repaired",
            LabelWarning,
        )
    dropped = {path: layer for path, layer in layers.items() if layer.num_dropped}
    if dropped:
        lines = any(layer.num_thin for layer in dropped.values())
        findings.warn(
            "classes",
            f"{first_of(dropped)}: {sum(layer.num_dropped for layer in dropped.values())} features without area "
            f"(points, lines, empty) are left out{'; --label-buffer METRES draws points and lines' if lines else ''}",
            LabelWarning,
        )
    empty = {path: layer for path, layer in layers.items() if not len(layer.frame)}
    if empty:
        findings.warn(
            "classes",
            f"{first_of(empty)}: no polygons found; the ground there is all background",
            LabelWarning,
        )
    return layers


def _warn_without_effect(config: PrepareConfig, findings: Findings) -> None:
    """Name options of vector labels that are given where there are none."""
    given = {
        "--class-field": config.class_field,
        "--priority-field": config.priority_field,
        "--paint-order": config.paint_order,
        "--label-buffer": config.label_buffer_m or config.label_buffer_field,
    }
    names = [name for name, value in given.items() if value]
    if names:
        findings.warn(
            "classes",
            f"{', '.join(names)} {'has' if len(names) == 1 else 'have'} no effect: no label is a vector file",
            LabelWarning,
        )


def warn_nearest_color(labels: Sequence[Label], config: PrepareConfig, findings: Findings) -> None:
    """Say that colours are not looked for where no label holds any."""
    coded = any(isinstance(label, RasterLabel) and label.coding != "values" for label in labels)
    if config.nearest_color and labels and not coded:
        findings.warn("colours", "--nearest-color has no effect: no label is coded by colours", LabelWarning)


def settle_classes(
    layout: Layout, layers: Mapping[Path, PolygonLayer], config: PrepareConfig, findings: Findings
) -> ClassMap:
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
        return classes_of_field(list(layers.values()), config.class_field, findings)
    return classes_of_rasters(rasters, findings)


def warn_background(layers: Mapping[Path, PolygonLayer], classes: ClassMap, findings: Findings) -> None:
    """Say that ground without polygons is ignored where the table has no background."""
    if layers and background_value(classes) == IGNORE_INDEX:
        findings.warn(
            "classes",
            f"{first_of(layers)}: the class table has no class background, so ground without polygons is ignored",
            LabelWarning,
        )


def open_label(
    path: Path,
    scene: SceneSource,
    imagery: Imagery,
    classes: ClassMap,
    layers: Mapping[Path, PaintedLayer],
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
        layers: From ``paint_layers``.
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
            band=preset.label_band if preset is not None and kind == "values" else None,
        )
    frame = layer.layer.frame
    if (frame.crs is None) != (imagery.grid.crs is None):
        lacking, owner = (path, "image") if frame.crs is None else (scene.image, "labels")
        findings.warn(
            "georeference",
            f"{shown(lacking)}: no CRS found; its coordinates are taken to be those of its {owner}",
            LabelWarning,
        )
    polygons = place_polygons(layer.layer, imagery.grid, layer.values, widths_m=layer.widths_m)
    if len(frame) and not len(polygons.shapes):
        findings.warn(
            "alignment",
            f"{shown(path)}: none of its {len(frame)} polygons lies on {shown(scene.image)}, which is all background; "
            "check CRS and place if that is wrong",
            LabelWarning,
        )
    return PolygonLabel(polygons=polygons, background=background_value(classes))
