"""All that was found out about a data set is put together: checks are made, tiles looked at, an ``Audit`` returned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from ctrs.config import PrepareConfig, SplitName
from ctrs.progress import Progress
from ctrs.raster.units import ground_pixel_size_m
from ctrs.tiles.assembly import describe_scenes
from ctrs.tiles.audit import Audit, SceneAudit, TileFootprint
from ctrs.tiles.checks import check_classes, check_colours, check_counts, check_coverage
from ctrs.tiles.cutting import CutTile
from ctrs.tiles.displacement import check_displacements, estimate_displacements
from ctrs.tiles.facts import SceneFacts
from ctrs.tiles.findings import Findings
from ctrs.tiles.layout import Layout
from ctrs.tiles.likeness import check_likeness
from ctrs.tiles.manifest import SPLITS
from ctrs.tiles.placement import Placed
from ctrs.tiles.radiometry import check_radiometry
from ctrs.tiles.samples import OpenTiles, choose_samples, read_samples
from ctrs.tiles.scenes import ReadySource


@dataclass(frozen=True, kw_only=True)
class Pass:
    """What the pass over the pixels gave, and where its tiles belong.

    Args:
        cut: All tiles.
        facts: What was counted, by name of the scene.
        placed: Tiles that are kept, with their splits.
        splits: Split of each scene.
    """

    cut: Sequence[CutTile]
    facts: Mapping[str, SceneFacts]
    placed: Sequence[Placed]
    splits: Mapping[str, SplitName]


def check_counted(
    ready: ReadySource, facts: Mapping[str, SceneFacts], config: PrepareConfig, findings: Findings
) -> ReadySource:
    """Check what the pass counted: nothing lost, nothing unknown, nothing odd about the values.

    Returns:
        The source with the scenes that could be read to their end.
    """
    scenes = tuple(scene for scene in ready.scenes if scene.name in facts)
    check_coverage(facts, config, findings)
    check_counts(facts, ready.classes, findings)
    check_colours(scenes, facts, ready.classes, config, findings)
    check_radiometry(facts, ready.band_names, ready.dtype, ready.nodata, findings)
    return replace(ready, scenes=scenes)


def audit_tiles(
    name: str,
    layout: Layout,
    ready: ReadySource,
    result: Pass,
    findings: Findings,
    open_tiles: OpenTiles,
    *,
    written: bool,
    workers: int,
    progress: Progress,
) -> Audit:
    """Check classes and displacements, and describe the data set.

    Args:
        name: Name of the data set.
        layout: The source.
        ready: Its scenes.
        result: What the pass gave.
        findings: Takes what is found, and is part of the audit with all it holds.
        open_tiles: How tiles are read.
        written: Whether tiles have been written.
        workers: Threads.
        progress: Called as the work goes on.
    """
    scenes = {scene.name: scene for scene in ready.scenes if scene.name in result.facts}
    class_px = split_counts(result.placed, ready.classes.num_classes)
    sizes = [float(np.mean(ground_pixel_size_m(scene.grid))) for scene in scenes.values() if scene.grid.crs is not None]
    pixel_m = median(sizes) if sizes else None
    check_classes(result.facts, class_px, ready.classes, findings, pixel_m=pixel_m)
    by_scene: dict[str, list[CutTile]] = {}
    for tile, _ in result.placed:
        by_scene.setdefault(tile.scene, []).append(tile)
    displacements = estimate_displacements(
        list(scenes.values()), by_scene, open_tiles, workers=workers, progress=progress
    )
    check_displacements(displacements, {scene: ready_scene.grid for scene, ready_scene in scenes.items()}, findings)
    described = describe_scenes(ready, result.placed, dict(result.splits))
    leaks = [finding.message for finding in findings.entries if finding.check == "leakage"]
    check_likeness(result.facts, {scene.name: scene.split for scene in described}, leaks, findings)
    kept = {(tile.scene, tile.row, tile.col): split for tile, split in result.placed}
    return Audit(
        name=name,
        source=str(layout.root),
        preset=None if layout.preset is None else layout.preset.name,
        classes=ready.classes,
        band_names=ready.band_names,
        dtype=ready.dtype,
        findings=tuple(findings.entries),
        scenes=tuple(
            SceneAudit(
                name=scene.name,
                split=scene.split,
                source_image=scene.source_image,
                source_label=scene.source_label,
                grid=scenes[scene.name].grid,
                pixel_size_m=None if scene.crs_wkt is None else float(np.mean(ground_pixel_size_m(scene.grid))),
                num_tiles=len(by_scene.get(scene.name, ())),
                facts=result.facts[scene.name],
                shift=displacements.by_scene[scene.name],
                known_bad=scene.known_bad,
            )
            for scene in described
            if scene.name in scenes
        ),
        class_px=class_px,
        tiles=tuple(
            TileFootprint(scene=tile.scene, split=kept.get((tile.scene, tile.row, tile.col)), window=tile.window)
            for tile in result.cut
        ),
        samples=read_samples(choose_samples(result.placed, ready.classes), scenes, open_tiles, workers=workers),
        tile_px=max(scene.tile_px for scene in ready.scenes),
        stride_px=max(scene.stride_px for scene in ready.scenes),
        written=written,
    )


def split_counts(placed: Sequence[Placed], num_classes: int) -> dict[SplitName, tuple[int, ...]]:
    """Return the pixels of the tiles' masks of each split by class index; ground in two tiles counts twice."""
    counts: dict[SplitName, np.ndarray] = {}
    for tile, split in placed:
        counts.setdefault(split, np.zeros(num_classes, np.int64))
        counts[split] += tile.class_counts
    return {split: tuple(counts[split].tolist()) for split in SPLITS if split in counts}
