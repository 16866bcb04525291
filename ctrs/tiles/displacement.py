"""The displacement of each scene's label, estimated on the tiles that tell most, and said where it is clear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ctrs.errors import LabelWarning
from ctrs.progress import Progress
from ctrs.raster.geotiff import Grid
from ctrs.raster.units import ground_pixel_size_m
from ctrs.tiles.alignment import Correlation, correlate, no_correlation, shift_of
from ctrs.tiles.audit import Shift
from ctrs.tiles.cutting import CutTile
from ctrs.tiles.findings import Findings
from ctrs.tiles.samples import Content, OpenTiles, most_divided
from ctrs.tiles.scenes import ReadyScene

TILES_PER_SCENE = 9
"""Most tiles of a scene on which its displacement is estimated."""

MAX_TILES = 1024
"""Most tiles over all scenes, if that leaves one for each."""

MAX_PX = 1024
"""Tiles larger than this are cropped to their middle."""

MAX_DISTANCE_PX = 2.0
"""Estimate above which is warned: of 106 trusted ones of real labels as they come, one is larger (2.3 px)."""

MIN_SCORE = 5.0
"""Score from which an estimate is trusted: 246 of 297 on moved real labels have it, all right to 1 px."""

_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Displacements:
    """Estimates for each scene and, from the sum of all correlations, for all scenes together."""

    by_scene: Mapping[str, Shift | None]
    together: Shift | None


def estimate_displacements(
    scenes: Sequence[ReadyScene],
    tiles: Mapping[str, Sequence[CutTile]],
    open_tiles: OpenTiles,
    *,
    workers: int,
    progress: Progress,
) -> Displacements:
    """Estimate the displacement of each scene's label.

    Args:
        scenes: Scenes that could be read.
        tiles: Tiles that hold imagery, by scene.
        open_tiles: How tiles are read.
        workers: Threads.
        progress: Called after each scene.
    """
    number = max(1, min(TILES_PER_SCENE, MAX_TILES // max(1, len(scenes))))
    chosen = [most_divided(tiles.get(scene.name, ()), number) for scene in scenes]
    by_scene: dict[str, Shift | None] = {}
    together = no_correlation()
    parts = -(-workers // max(1, len(scenes)))  # of the tiles of a scene, where there are fewer scenes than threads
    with ThreadPoolExecutor(max_workers=workers) as pool:
        found = [
            [pool.submit(_correlate, scene, own[part::parts], open_tiles) for part in range(parts)]
            for scene, own in zip(scenes, chosen, strict=True)
        ]
        for scene, own, shares in zip(scenes, chosen, found, strict=True):
            results = [share.result() for share in shares]
            total = no_correlation()
            for place in range(len(own)):  # in the order of the tiles: sums of floats depend on it
                total += results[place % parts][place // parts]
            by_scene[scene.name] = shift_of(total)
            together += total
            progress(len(by_scene), len(scenes), "comparing edges of images and labels")
    return Displacements(by_scene=by_scene, together=shift_of(together))


def check_displacements(displacements: Displacements, grids: Mapping[str, Grid], findings: Findings) -> None:
    """Warn of labels that by a trusted estimate lie more than ``MAX_DISTANCE_PX`` from their images.

    Args:
        displacements: Estimates.
        grids: Grid of each scene.
        findings: Takes what is found.
    """
    off = {name: shift for name, shift in displacements.by_scene.items() if shift is not None and is_displaced(shift)}
    advice = "look at the report, then move the labels or leave them out"
    if off:
        first = max(off, key=lambda name: off[name].score)
        shown = [f"{name} {_vector(off[name], grids[name])}" for name in list(off)[:_SHOWN]]
        more = f" and {len(off) - _SHOWN} more" if len(off) > _SHOWN else ""
        whose = "its label" if len(off) == 1 else f"{len(off)} of {len(grids)} labels"
        what = (
            f"scene {first}: its label lies off its image: it would fit best moved {_vector(off[first], grids[first])}"
            if len(off) == 1
            else f"{whose} lie off their images: they would fit best moved: {'; '.join(shown)}{more}"
        )
        findings.warn(
            "alignment",
            f"{what} (an estimate from edges); {advice}",
            LabelWarning,
            scene=first if len(off) == 1 else None,
            items=[f"{name}: {_vector(shift, grids[name])}" for name, shift in off.items()],
        )
    elif displacements.together is not None and is_displaced(displacements.together) and len(grids) > 1:
        shift = displacements.together
        findings.warn(
            "alignment",
            f"the labels of all {len(grids)} scenes together would fit best moved {_vector(shift, None)} (estimated "
            f"from edges, for no single scene with certainty); {advice}",
            LabelWarning,
        )


def is_displaced(shift: Shift) -> bool:
    """Tell whether an estimate is trusted and more than ``MAX_DISTANCE_PX``."""
    return shift.score >= MIN_SCORE and float(np.hypot(shift.cols, shift.rows)) > MAX_DISTANCE_PX


def _vector(shift: Shift, grid: Grid | None) -> str:
    across = f"{abs(shift.cols):.1f} px {'right' if shift.cols > 0 else 'left'}"
    down = f"{abs(shift.rows):.1f} px {'down' if shift.rows > 0 else 'up'}"
    metres = ""
    if grid is not None and grid.crs is not None:
        width, height = ground_pixel_size_m(grid)
        metres = f" ({np.hypot(shift.cols * width, shift.rows * height):.2g} m)"
    return f"{across} and {down}{metres}"


def _correlate(scene: ReadyScene, tiles: Sequence[CutTile], open_tiles: OpenTiles) -> list[Correlation]:
    if not tiles:
        return []
    with open_tiles(scene) as read:
        return [correlate(*_middle(read(tile))) for tile in tiles]


def _middle(content: Content) -> Content:
    pixels, valid, mask = content
    top, left = (max(0, (size - MAX_PX) // 2) for size in mask.shape)
    inside = (slice(top, top + MAX_PX), slice(left, left + MAX_PX))
    return pixels[(slice(None), *inside)], valid[inside], mask[inside]
