"""What is checked before a tile is cut: that all scenes and labels open, fit each other, and fit one class table."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rasterio.crs import CRS

from ctrs.classes import ClassMap
from ctrs.config import PrepareConfig
from ctrs.errors import BandMismatchError, DataError, LabelWarning, MissingCrsWarning
from ctrs.raster.geotiff import Grid
from ctrs.tiles.findings import Findings
from ctrs.tiles.imagery import MAX_ALPHA_VALUES, FileImagery, Imagery, odd_alpha, open_imagery
from ctrs.tiles.labelling import open_label, read_layers, settle_classes, warn_background
from ctrs.tiles.labels import Label
from ctrs.tiles.layout import Layout, SceneSource
from ctrs.tiles.painting import paint_layers
from ctrs.tiles.raster_labels import RasterLabel

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
    layers = read_layers(layout.scenes, config, findings)
    classes = settle_classes(layout, layers, config, findings)
    warn_background(layers, classes, findings)
    painted = paint_layers(layers, classes, config, findings)
    scenes: list[ReadyScene] = []
    nodata_classes: dict[str, list[Path]] = {}
    for image in images:
        with findings.gathering("alignment", scene=image.source.name):
            label = open_label(
                image.source.label, image.source, image.imagery, classes, painted, layout, config, findings
            )
            eroded = (
                open_label(
                    image.source.label_eroded, image.source, image.imagery, classes, painted, layout, config, findings
                )
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
