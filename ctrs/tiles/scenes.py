"""What is checked before a tile is cut: that all scenes and labels open, fit each other, and fit one class table."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ctrs.classes import ClassMap
from ctrs.config import PrepareConfig
from ctrs.errors import DataError, LabelWarning, UsageError
from ctrs.raster.geotiff import Grid
from ctrs.raster.names import shown
from ctrs.raster.warp import grid_warp
from ctrs.tiles.area import within_area
from ctrs.tiles.findings import Findings
from ctrs.tiles.imagery import Imagery
from ctrs.tiles.images import SceneImage, open_images
from ctrs.tiles.labelling import open_label, read_layers, settle_classes, warn_background, warn_nearest_color
from ctrs.tiles.labels import Label
from ctrs.tiles.layout import Layout, SceneSource
from ctrs.tiles.painting import paint_layers
from ctrs.tiles.raster_labels import RasterLabel, label_grid
from ctrs.tiles.target_grid import edge_px

logger = logging.getLogger(__name__)

DEFAULT_TILE_PX = 512
"""Edge of a tile where neither the options nor the preset name one."""

MIN_TILE_PX, MAX_TILE_PX = 32, 8192
"""Shortest and longest edge of a tile."""

MAX_TILES = 10_000_000
"""Most tiles of a source: more are no choice that anybody makes."""

_SLIVER = 0.01
"""Share of an image that its label may leave uncovered without a word: borders of two grids seldom meet."""


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


def check_source(layout: Layout, config: PrepareConfig, findings: Findings) -> ReadySource:
    """Open all images and labels, check that they fit, and settle the class table.

    Args:
        layout: The scenes of the source.
        config: Options.
        findings: Takes what is wrong with single scenes; those are left out of what is returned.

    Raises:
        RasterError: No image can be read.
        LabelError: There is no class table to be had.
        UsageError: There would be millions of tiles.
    """
    if config.class_field is None and layout.preset is not None:
        config = replace(config, class_field=layout.preset.class_field)
    images = open_images(layout, config, findings)
    if images and config.aoi is not None:
        images = within_area(images, config.aoi, findings)
    if not images:
        findings.raise_faults()
        raise DataError(f"{layout.root}: no scenes found; check the folder")
    _refuse_too_many_tiles(images, layout, config)
    layers = read_layers(layout.scenes, config, findings)
    classes = settle_classes(layout, layers, config, findings)
    warn_background(layers, classes, findings)
    painted = paint_layers(layers, classes, config, findings)
    scenes: list[ReadyScene] = []
    nodata_classes: dict[str, list[Path]] = {}
    partly: dict[str, float] = {}

    def open_on_tiles(path: Path, image: SceneImage) -> Label:
        """Open a label; a raster is held against the image's own grid, and brought to that of the tiles with it."""
        source = image.source
        if path in painted or not image.is_resampled:
            return open_label(path, source, image.imagery, classes, painted, layout, config, findings)
        grid, target = image.own.grid, image.imagery.grid
        if config.crs is not None or config.gsd_m is not None:
            grid, share = label_grid(path, source.image, grid, target)
            if share < 1 - _SLIVER:
                partly[source.name] = share
        own = replace(image.own, grid=grid)
        label = open_label(path, source, own, classes, painted, layout, config, findings)
        return replace(label, warp=grid_warp(grid, target)) if isinstance(label, RasterLabel) else label

    for image in images:
        with findings.gathering("files", scene=image.source.name):
            source = image.source
            label = open_on_tiles(source.label, image)
            eroded = open_on_tiles(source.label_eroded, image) if source.label_eroded is not None else None
            name = label.nodata_class() if isinstance(label, RasterLabel) else None
            if name is not None:
                nodata_classes.setdefault(name, []).append(source.label)
            tile_px, stride_px = tile_size(image, layout, config)
            scenes.append(
                ReadyScene(
                    source=source,
                    imagery=image.imagery,
                    label=label,
                    eroded=eroded,
                    tile_px=tile_px,
                    stride_px=stride_px,
                )
            )
    warn_nearest_color([scene.label for scene in scenes], config, findings)
    if partly:
        first = next(iter(partly))
        findings.warn(
            "alignment",
            f"the label of {first} covers {partly[first]:.1%} of its image"
            f"{f' (and {len(partly) - 1} more cover theirs in part)' if len(partly) > 1 else ''}; the rest is ignored",
            LabelWarning,
            items=[f"{name}: {share:.1%}" for name, share in partly.items()],
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


def tile_size(image: SceneImage, layout: Layout, config: PrepareConfig) -> tuple[int, int]:
    """Return edge and step of a scene's tiles in pixels.

    Raises:
        UsageError: Steps longer than the tiles would leave ground between them.
        DataError: A length in metres makes no sensible tile of the scene's pixels.
    """
    grid, path = image.imagery.grid, image.own.path
    edge = config.tile_px or (layout.preset.tile_px if layout.preset is not None else DEFAULT_TILE_PX)
    if config.tile_m is not None:
        edge = edge_px("--tile", config.tile_m, grid, path)
        if not MIN_TILE_PX <= edge <= MAX_TILE_PX:
            raise DataError(
                f"{shown(path)}: --tile {config.tile_m:g}m is {edge} px there, expected {MIN_TILE_PX} to "
                f"{MAX_TILE_PX}; choose another length, or another ground pixel with --gsd"
            )
    step = config.stride_px or edge
    if config.stride_m is not None:
        step = edge_px("--stride", config.stride_m, grid, path)
    if step > edge:
        raise UsageError(
            f"--stride: {step} px found, expected at most the {edge} px of a tile of scene {image.source.name}; longer "
            "steps would leave ground out"
        )
    return edge, step


def _refuse_too_many_tiles(images: Sequence[SceneImage], layout: Layout, config: PrepareConfig) -> None:
    """Refuse what would never end, before labels are read or painted."""
    numbers: dict[str, int] = {}
    for image in images:
        with suppress(DataError):  # told with the scene, later
            edge, step = tile_size(image, layout, config)
            along = [max(0, -(-(px - edge) // step)) + 1 for px in image.imagery.grid.shape]
            numbers[image.source.name] = math.prod(along)
    total = sum(numbers.values())
    if total > MAX_TILES:
        name = max(numbers, key=lambda name: numbers[name])
        raise UsageError(
            f"{layout.root}: {total} tiles, most of them of scene {name} ({numbers[name]}), expected at most "
            f"{MAX_TILES}; choose a coarser --gsd or larger --tile and --stride"
        )


def _and_more(paths: Sequence[Path]) -> str:
    return f" and {len(paths) - 1} more" if len(paths) > 1 else ""
