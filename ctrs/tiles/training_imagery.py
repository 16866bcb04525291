"""What values the imagery of the training tiles holds, from the pictures that the pass over the scenes made anyway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ctrs.raster.imagery_profile import ImageryProfile
from ctrs.raster.units import ground_pixel_size_m
from ctrs.tiles.cutting import CutTile
from ctrs.tiles.facts import Preview, SceneFacts
from ctrs.tiles.placement import Placed
from ctrs.tiles.scenes import ReadyScene

MAX_SAMPLES = 300_000
"""Pixels of all scenes that are measured, at most; every scene is measured by ``MIN_SAMPLES`` or all that it has."""

MIN_SAMPLES = 500


def profile_training(
    scenes: Sequence[ReadyScene], placed: Sequence[Placed], facts: Mapping[str, SceneFacts]
) -> ImageryProfile | None:
    """Measure the pixels of the training tiles, or of all tiles where none is for training; reads nothing.

    Args:
        scenes: Scenes of the data set.
        placed: Tiles with their splits.
        facts: What the pass over the scenes counted, with their previews.

    Returns:
        None where the previews hold no valid pixel of these tiles.
    """
    chosen: dict[str, list[CutTile]] = {}
    any_training = any(split == "train" for _, split in placed)
    for tile, split in placed:
        if split == "train" or not any_training:
            chosen.setdefault(tile.scene, []).append(tile)
    most = max(MIN_SAMPLES, MAX_SAMPLES // max(1, len(chosen)))
    samples: list[npt.NDArray[Any]] = []
    weights: list[float] = []
    sizes: list[float] = []
    for scene in scenes:
        if scene.name not in chosen or scene.name not in facts:
            continue
        preview = facts[scene.name].preview
        values = _pixels_of(preview, chosen[scene.name])
        stride = -(-values.shape[1] // most) or 1
        samples.append(values[:, ::stride])
        weights.append(float(preview.step**2 * stride))
        if scene.grid.crs is not None:
            sizes.append(float(np.mean(ground_pixel_size_m(scene.grid))))
    return ImageryProfile.of(samples, weights, sizes)


def _pixels_of(preview: Preview, tiles: Sequence[CutTile]) -> npt.NDArray[Any]:
    """Return the valid pixels (C, n) of a preview that lie in some of the scene's tiles."""
    inside = np.zeros_like(preview.valid)
    for tile in tiles:
        window = tile.window
        top, left = -(-window.row_off // preview.step), -(-window.col_off // preview.step)
        bottom = -(-(window.row_off + window.height) // preview.step)
        right = -(-(window.col_off + window.width) // preview.step)
        inside[top:bottom, left:right] = True
    return preview.pixels[:, inside & preview.valid]
