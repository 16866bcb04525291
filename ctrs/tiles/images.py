"""The images of a source: opened, placed on the ground, with the bands of further files, on the grid of their tiles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rasterio.crs import CRS
from rasterio.enums import ColorInterp

from ctrs.config import PrepareConfig
from ctrs.errors import BandMismatchError, GridMismatchError, MissingCrsWarning, RasterError
from ctrs.raster.alpha import MAX_ALPHA_VALUES, odd_alpha
from ctrs.raster.geotiff import Grid, crs_name, open_raster
from ctrs.raster.names import shown
from ctrs.tiles.composed_imagery import StackedImagery, on_grid
from ctrs.tiles.findings import Findings
from ctrs.tiles.imagery import (
    MIN_SCENE_PX,
    FileImagery,
    Imagery,
    check_band_count,
    open_imagery,
)
from ctrs.tiles.layout import Layout, SceneSource
from ctrs.tiles.raster_labels import GRID_TOLERANCE_PX
from ctrs.tiles.target_grid import parse_crs, place_lack, target_grid, tilt


@dataclass(frozen=True, kw_only=True)
class SceneImage:
    """The image of a scene.

    Args:
        source: The scene.
        own: The image's file on its own grid, on which a raster label has to lie.
        imagery: What tiles are cut from.
    """

    source: SceneSource
    own: FileImagery
    imagery: Imagery

    @property
    def is_resampled(self) -> bool:
        """Whether the tiles' grid is not the image's own."""
        return self.imagery.grid != self.own.grid


def open_images(layout: Layout, config: PrepareConfig, findings: Findings) -> list[SceneImage]:
    """Open all images and find the grids of their tiles.

    Args:
        layout: The scenes.
        config: Options.
        findings: Takes what is wrong with single images; those are left out of what is returned.

    Raises:
        UsageError: An option names no CRS.
    """
    crs = parse_crs(config.crs, "--crs") if config.crs is not None else None
    src_crs = parse_crs(config.src_crs, "--src-crs") if config.src_crs is not None else None
    preset_crs = layout.preset.crs if layout.preset is not None else None
    lent = src_crs or (CRS.from_user_input(preset_crs) if preset_crs is not None else None)
    files: list[tuple[SceneSource, FileImagery]] = []
    kept_crs: dict[str, CRS] = {}
    lent_to: list[str] = []
    for scene in layout.scenes:
        with findings.gathering("files", scene=scene.name):
            file = open_imagery(scene.image, bidx=config.bidx, names=layout.band_names)
            grid = _lend_crs(file.grid, lent)
            if grid != file.grid:
                lent_to.append(scene.name)
            if src_crs is not None and grid.crs is not None and grid.crs != src_crs:
                kept_crs[scene.name] = grid.crs
            files.append((scene, replace(file, grid=grid)))
    if kept_crs and src_crs is not None:
        first = next(iter(kept_crs))
        findings.warn(
            "georeference",
            f"--src-crs {config.src_crs} is not used for {_some(list(kept_crs))}: the image names a CRS itself "
            f"({crs_name(kept_crs[first])}), which counts",
            items=kept_crs,
        )
    elif src_crs is not None and files and not lent_to and all(file.grid.crs is not None for _, file in files):
        findings.warn(
            "georeference",
            f"--src-crs {config.src_crs} has no effect: {_some([scene.name for scene, _ in files])} "
            f"{'names' if len(files) == 1 else 'name'} the same CRS",
        )
    images: list[SceneImage] = []
    tilted: dict[SceneSource, str] = {}
    for scene, file in files:
        with findings.gathering("georeference", scene=scene.name):
            grid = target_grid(file.grid, scene.image, crs=crs, gsd_m=config.gsd_m)
            _check_tile_grid(grid, file)
            images.append(SceneImage(source=scene, own=file, imagery=_with_extra(file, scene, grid)))
            if reason := tilt(file.grid):
                tilted[scene] = reason
    _warn_tilted(tilted, findings)
    images = _alike(images, findings)
    _warn_missing_crs(images, config, findings)
    _warn_odd_alpha(images, findings)
    return images


def _lend_crs(grid: Grid, crs: CRS | None) -> Grid:
    """Return a grid with a CRS from elsewhere where it has a place but no CRS."""
    if crs is None:
        return grid
    control = grid.ground_control
    if control is not None:
        return grid if control.crs is not None else replace(grid, ground_control=replace(control, crs=crs))
    return grid if grid.crs is not None or grid.transform.is_identity else replace(grid, crs=crs)


def _check_tile_grid(grid: Grid, file: FileImagery) -> None:
    if min(grid.width, grid.height) < MIN_SCENE_PX:
        raise RasterError(
            f"{shown(file.path)}: {grid.width} x {grid.height} px on the grid of its tiles, expected at least "
            f"{MIN_SCENE_PX} px along each edge; choose a finer --gsd"
        )


def _with_extra(file: FileImagery, scene: SceneSource, grid: Grid) -> Imagery:
    """Return the imagery of a scene on the grid of its tiles, with the bands of its further files."""
    image = on_grid(file, grid)
    if not scene.extra:
        return image
    layers, names = [image], list(file.names)
    for name, path in scene.extra.items():
        extra = open_imagery(path)
        numbers = range(1, len(extra.names) + 1)
        names += [name] if len(extra.names) == 1 else [f"{name}_{number}" for number in numbers]
        layers.append(on_grid(_placed_like(extra, file), grid, tolerance_px=GRID_TOLERANCE_PX))
    check_band_count(file.path, len(names))
    # Files that lie on the image's grid but for rounding are read on it as they are.
    return StackedImagery(layers=tuple(layers), names=tuple(names))


def _placed_like(extra: FileImagery, file: FileImagery) -> FileImagery:
    """Return a further file with the image's CRS, or all of its grid, where it names none.

    Raises:
        GridMismatchError: It has no georeference and another size.
    """
    if extra.grid.ground_control is None and not extra.grid.transform.is_identity:
        placed = replace(extra.grid, crs=extra.grid.crs or file.grid.crs)
        if file.grid.ground_control is None and not file.grid.same_as(placed, tolerance_px=GRID_TOLERANCE_PX):
            return replace(extra, grid=placed)
        if file.grid.ground_control is not None:
            return replace(extra, grid=placed)
    elif extra.grid.shape != file.grid.shape:
        raise GridMismatchError(
            f"{shown(extra.path)}: {extra.grid.width} x {extra.grid.height} px without georeference found, expected "
            f"the {file.grid.width} x {file.grid.height} px of its image {shown(file.path)}, or a georeference"
        )
    return replace(extra, grid=file.grid)


def _alike(images: Sequence[SceneImage], findings: Findings) -> list[SceneImage]:
    """Return the images whose bands are of the kind that most have; the others are faults."""
    kinds = Counter((len(image.imagery.names), image.imagery.dtype) for image in images)
    alike: list[SceneImage] = []
    for image in images:
        kind = len(image.imagery.names), image.imagery.dtype
        usual = max(kinds, key=lambda each: kinds[each])
        if kind == usual:
            alike.append(image)
            continue
        example = next(other for other in images if (len(other.imagery.names), other.imagery.dtype) == usual)
        error = BandMismatchError(
            f"{shown(image.own.path)}: {kind[0]} bands of {kind[1]} found, but {usual[0]} bands of {usual[1]} in "
            f"{shown(example.own.path)}; prepare images of different kinds apart, or choose bands with --bidx"
        )
        findings.fault("bands", error, scene=image.source.name)
    return alike


def _warn_tilted(tilted: Mapping[SceneSource, str], findings: Findings) -> None:
    if tilted:
        scene, reason = next(iter(tilted.items()))
        findings.warn(
            "georeference",
            f"{_files([each.image for each in tilted])}: {reason}, which tiles are not; resampled to a north-up grid",
            scene=scene.name if len(tilted) == 1 else None,
            items=[f"{each.name}: {why}" for each, why in tilted.items()],
        )


def _warn_odd_alpha(images: Sequence[SceneImage], findings: Findings) -> None:
    # Where alpha is among the bands, it is data.
    paths = [image.own.path for image in images if ColorInterp.alpha not in image.own.colors]
    odd = {path: number for path in paths if (number := _odd_alpha(path)) is not None}
    if odd:
        findings.warn(
            "bands",
            f"{_files(list(odd))}: band {next(iter(odd.values()))} is marked as alpha but holds more than "
            f"{MAX_ALPHA_VALUES} different values in the middle of the image; it is used as transparency. If it is "
            f"near infrared, name the bands with --bidx, it among them, or take the mark away (gdal_edit.py "
            f"-colorinterp_{next(iter(odd.values()))} undefined)",
        )


def _odd_alpha(path: Path) -> int | None:
    with open_raster(path) as dataset:
        return odd_alpha(dataset)


def _warn_missing_crs(images: Sequence[SceneImage], config: PrepareConfig, findings: Findings) -> None:
    missing = [image for image in images if image.imagery.grid.crs is None]
    if not missing:
        return
    message = f"{_files([image.source.image for image in missing])}: no CRS found; going on in pixel coordinates"
    if config.src_crs is not None:
        # One with a place has been lent the CRS.
        grid = missing[0].imagery.grid
        message = (
            f"{_files([image.source.image for image in missing])}: {place_lack(grid)} found; --src-crs alone does not "
            "place it, so it is not used there: going on in pixel coordinates (add a world file)"
        )
    findings.warn("georeference", message, MissingCrsWarning, items=[image.source.name for image in missing])


def _files(paths: Sequence[Path]) -> str:
    return f"{shown(paths[0])} and {len(paths) - 1} more" if len(paths) > 1 else shown(paths[0])


def _some(names: Sequence[str]) -> str:
    return f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else names[0]
