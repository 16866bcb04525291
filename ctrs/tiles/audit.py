"""What is known about a data set before anything is trained on it: the contents of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import numpy.typing as npt

from ctrs.classes import ClassMap
from ctrs.config import SplitName
from ctrs.raster.geotiff import Grid
from ctrs.raster.windows import PixelWindow
from ctrs.tiles.facts import SceneFacts
from ctrs.tiles.findings import Finding


@dataclass(frozen=True, kw_only=True)
class Shift:
    """How far a label lies from its image, estimated by correlating class borders with edges in the image.

    Args:
        cols: Columns that the label would have to move right to fit best.
        rows: Rows that it would have to move down.
        score: Height of the best correlation above the others, in their standard deviations, in the worse half of the
            borders; 0 where the halves disagree; below 5 it means little.
    """

    cols: float
    rows: float
    score: float


@dataclass(frozen=True, kw_only=True)
class SceneAudit:
    """One scene.

    Args:
        name: Name of the scene.
        split: Split, ``train+val`` where it was divided by place.
        source_image: Its file.
        source_label: Its label's file.
        grid: Grid of its tiles.
        pixel_size_m: Ground pixel, None without CRS.
        num_tiles: Tiles kept.
        facts: What was counted.
        shift: Estimated displacement of the label, None where there was nothing to correlate.
        known_bad: Its labels are known to be wrong.
    """

    name: str
    split: str
    source_image: str
    source_label: str
    grid: Grid
    pixel_size_m: float | None
    num_tiles: int
    facts: SceneFacts
    shift: Shift | None
    known_bad: bool = False


@dataclass(frozen=True, kw_only=True)
class TileFootprint:
    """Where a tile lies, for the map of the splits: ``split`` is None for a tile that was left out."""

    scene: str
    split: SplitName | None
    window: PixelWindow


@dataclass(frozen=True, kw_only=True)
class TileSample:
    """A tile for the contact sheet: pixels (C, h, w), valid mask and class mask (h, w), at most 256 pixels wide."""

    name: str
    split: SplitName
    pixels: npt.NDArray[np.generic]
    valid: npt.NDArray[np.bool_]
    mask: npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Audit:
    """A data set, checked.

    Args:
        name: Name of the data set.
        source: The source, as given.
        preset: Preset that it follows, None for other sources.
        classes: Class table.
        band_names: Names of the bands.
        dtype: Their dtype.
        findings: Faults, warnings and notes.
        scenes: All scenes that could be read.
        class_px: Pixels of the tiles' masks of each split by class index.
        tiles: Footprints of all tiles.
        samples: Tiles for the contact sheet.
        tile_px: Edge of a tile.
        stride_px: Step between tiles.
        written: Whether tiles were written, or everything was only looked at.
    """

    name: str
    source: str
    preset: str | None
    classes: ClassMap
    band_names: tuple[str, ...]
    dtype: str
    findings: tuple[Finding, ...]
    scenes: tuple[SceneAudit, ...]
    class_px: Mapping[SplitName, tuple[int, ...]]
    tiles: tuple[TileFootprint, ...]
    samples: tuple[TileSample, ...]
    tile_px: int
    stride_px: int
    written: bool

    @property
    def num_faults(self) -> int:
        """Number of faults."""
        return sum(finding.level == "fault" for finding in self.findings)


def is_resampled(scenes: Sequence[SceneAudit]) -> bool:
    """Tell whether the label of a scene was brought to another grid, so that its pixels are others than the tiles'."""
    return any(scene.facts.source_counts is not None for scene in scenes)


def resampled_to_m(scenes: Sequence[SceneAudit]) -> float | None:
    """Return the median ground pixel of resampled scenes, None where there are none or nobody knows it."""
    sizes = [
        scene.pixel_size_m
        for scene in scenes
        if scene.facts.source_counts is not None and scene.pixel_size_m is not None
    ]
    return median(sizes) if sizes else None


def source_px(scenes: Sequence[SceneAudit]) -> list[int]:
    """Return the pixels of each class as the files hold them."""
    return [sum(counts) for counts in zip(*(scene.facts.given_counts for scene in scenes), strict=True)]


def source_m2(scenes: Sequence[SceneAudit]) -> list[float] | None:
    """Return the ground of each class as the files hold it, None where the ground pixel of a scene is not known."""
    return _ground_m2([(scene, scene.facts.given_counts, scene.facts.given_px_area) for scene in scenes])


def tile_m2(scenes: Sequence[SceneAudit]) -> list[float] | None:
    """Return the ground of each class on the tiles' grid."""
    return _ground_m2([(scene, scene.facts.label_counts, 1.0) for scene in scenes])


def _ground_m2(counted: Sequence[tuple[SceneAudit, tuple[int, ...], float]]) -> list[float] | None:
    areas: list[list[float]] = []
    for scene, counts, px_area in counted:
        if scene.pixel_size_m is None:
            return None
        areas.append([number * px_area * scene.pixel_size_m**2 for number in counts])
    return [sum(of_class) for of_class in zip(*areas, strict=True)]
