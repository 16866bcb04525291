"""Which tiles are for validation: compact places inside the training scenes, never the same ground on both sides.

Tiles that share ground (shifted edge tiles, overlapping scenes, the same place at two resolutions) are tied together
and move as one. From a scene that holds several such pieces, a compact block is taken; the blocks tried start at random
pieces, and the one is kept whose classes are most like the scene's and which cuts the shortest border.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from ctrs.raster.geotiff import Grid
from ctrs.raster.windows import PixelWindow
from ctrs.tiles.footprints import common_crs, tile_footprints

OVERLAP_PX = 0.5
"""Tiles that share a strip no wider than twice this count as neighbours: grids of neighbouring files are rounded."""

_NUM_STARTS = 24

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Place:
    """A tile as the split sees it.

    Args:
        scene: Name of its scene.
        grid: Grid of the scene.
        window: Its place in the scene.
        class_counts: Pixels by class index.
    """

    scene: str
    grid: Grid
    window: PixelWindow
    class_counts: tuple[int, ...]


def choose_validation(places: Sequence[Place], *, val_fraction: float, seed: int) -> list[bool]:
    """Choose validation tiles by place among the training tiles.

    Args:
        places: All training tiles.
        val_fraction: Share of the tiles to choose; 0 chooses none.
        seed: Seed of the places.

    Returns:
        True for each tile that is for validation. All are False where nothing can be divided.
    """
    chosen = np.zeros(len(places), bool)
    if not places or val_fraction == 0:
        return chosen.tolist()
    pieces = tie_overlapping(places)
    scenes = _tie_scenes(places, pieces)
    centers = _centers(places, scenes)
    counts = np.array([place.class_counts for place in places], np.float64)
    for group in np.unique(scenes):
        members = np.flatnonzero(scenes == group)
        num_val = round(val_fraction * len(members))
        if num_val and len(np.unique(pieces[members])) > 1:
            rng = _generator(seed, (places[number].scene for number in members.tolist()))
            taken = _compact_block(pieces[members], centers[members], counts[members], num_val, rng)
            chosen[members[taken]] = True
    if chosen.any():
        return chosen.tolist()
    rng = _generator(seed, (place.scene for place in places))
    num_val = max(1, round(val_fraction * len(places)))
    if len(np.unique(scenes)) > 1:
        # No scene is large enough to divide: whole scenes, neighbours on the ground or in the order of their names.
        chosen = _compact_block(scenes, _scene_centers(places, scenes, centers), counts, num_val, rng)
    elif len(np.unique(pieces)) > 1:
        chosen = _compact_block(pieces, centers, counts, num_val, rng)
    return chosen.tolist()


def tie_overlapping(places: Sequence[Place]) -> Ints:
    """Number the pieces of ground: tiles that overlap, directly or through others, have the same number."""
    footprints, spaces = _footprints(places)
    tree = shapely.STRtree(footprints)
    first, second = tree.query(footprints, predicate="intersects")
    real = (first < second) & (spaces[first] == spaces[second])
    first, second = first[real], second[real]
    pairs = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(len(places), len(places)))
    labels: Ints = connected_components(pairs, directed=False)[1].astype(np.int64)
    return labels


def _tie_scenes(places: Sequence[Place], pieces: Ints) -> Ints:
    """Number the groups of scenes that share ground."""
    names = sorted({place.scene for place in places})
    number = {name: index for index, name in enumerate(names)}
    of_tile = np.array([number[place.scene] for place in places], np.int64)
    # Scenes and pieces are the two sides of a graph; a tile joins its scene to its piece.
    size = len(names) + int(pieces.max()) + 1
    links = coo_array((np.ones(len(places), np.int8), (of_tile, len(names) + pieces)), shape=(size, size))
    groups: Ints = connected_components(links, directed=False)[1].astype(np.int64)
    return groups[of_tile]


def _footprints(places: Sequence[Place]) -> tuple[npt.NDArray[np.object_], Ints]:
    """Footprints, a little shrunk, and the space each lies in: scenes without georeference have one each."""
    crs = common_crs(place.grid.crs for place in places if place.grid.crs is not None)
    footprints = np.empty(len(places), object)
    known = np.array([place.grid.crs is not None for place in places])
    for flag, target in ((True, crs), (False, None)):
        members = np.flatnonzero(known == flag)
        windows = [(places[number].grid, places[number].window) for number in members.tolist()]
        footprints[members] = tile_footprints(windows, target, shrink_px=OVERLAP_PX)
    names: dict[str, int] = {}
    spaces = []
    for place in places:
        if place.grid.crs is not None:
            spaces.append(-1)
        elif not place.grid.transform.is_identity:
            spaces.append(-2)
        else:
            spaces.append(names.setdefault(place.scene, len(names)))
    return footprints, np.array(spaces, np.int64)


def _centers(places: Sequence[Place], scenes: Ints) -> Floats:
    """Centre of each tile, in pixels of its scene; in ground coordinates where scenes are tied."""
    centers = np.empty((len(places), 2))
    for group in np.unique(scenes):
        members = np.flatnonzero(scenes == group)
        if len({places[number].scene for number in members.tolist()}) == 1:
            for number in members.tolist():
                window = places[number].window
                centers[number] = window.col_off + window.width / 2, window.row_off + window.height / 2
        else:
            footprints, _ = _footprints([places[number] for number in members.tolist()])
            centers[members] = shapely.get_coordinates(shapely.centroid(footprints))
    return centers


def _scene_centers(places: Sequence[Place], scenes: Ints, centers: Floats) -> Floats:
    """Centre of each group of scenes on the ground, or its position in the order of names where there is no ground."""
    result = np.empty_like(centers)
    footprints, spaces = _footprints(places)
    if len(np.unique(spaces)) == 1 and spaces[0] < 0:
        for group in np.unique(scenes):
            members = scenes == group
            result[members] = shapely.get_coordinates(shapely.centroid(footprints[members])).mean(axis=0)
        return result
    result[:, 0], result[:, 1] = scenes, 0.0  # groups are numbered in the order of names
    return result


def _compact_block(pieces: Ints, centers: Floats, counts: Floats, num_val: int, rng: np.random.Generator) -> Bools:
    """Choose whole pieces that lie together and hold about ``num_val`` tiles, never all of them."""
    names, of_tile, sizes = np.unique(pieces, return_inverse=True, return_counts=True)
    where = np.stack([np.bincount(of_tile, centers[:, axis]) / sizes for axis in (0, 1)], axis=1)
    shares = _shares(counts.sum(axis=0))
    best: tuple[float, Bools] | None = None
    for start in rng.permutation(len(names))[:_NUM_STARTS]:
        order = np.argsort(np.hypot(*(where - where[start]).T), kind="stable")[:-1]
        totals = np.cumsum(sizes[order])
        block = order[: int(np.argmin(np.abs(totals - num_val))) + 1]
        taken = np.isin(of_tile, block)
        inside, outside = counts[taken].sum(axis=0), counts[~taken].sum(axis=0)
        unlike = np.abs(_shares(inside) - shares).sum() / 2
        missing = float(((inside == 0) & (shares > 0)).mean())
        lost = float(((outside == 0) & (shares > 0)).sum())  # classes that training would never see
        size_error = abs(int(taken.sum()) - num_val) / num_val
        score = unlike + missing + lost + size_error + 0.1 * _exposure(where, block)
        if best is None or score < best[0]:
            best = score, taken
    if best is None:
        raise ValueError("no pieces to choose from")
    return best[1]


def _exposure(where: Floats, block: npt.NDArray[np.intp]) -> float:
    """Share of the block's nearest neighbours that lie outside it: 0 is a block in a far corner."""
    inside = np.zeros(len(where), bool)
    inside[block] = True
    _, near = KDTree(where).query(where[block], k=min(5, len(where)))
    return float((~inside[near[:, 1:]]).mean())


def _shares(counts: Floats) -> Floats:
    return counts / max(1.0, float(counts.sum()))


def _generator(seed: int, names: Iterable[str]) -> np.random.Generator:
    """A generator that depends on the seed and the scenes alone, so that a further scene moves no other's places."""
    digest = hashlib.sha256("\n".join(sorted(set(names))).encode()).digest()
    return np.random.default_rng([seed, *digest[:8]])


@dataclass(frozen=True, kw_only=True)
class SharedGround:
    """Two scenes of different splits that cover the same ground; ``share`` is that of the smaller one."""

    first: str
    second: str
    share: float


def shared_ground(scenes: Sequence[tuple[str, str, Grid]]) -> list[SharedGround]:
    """Find scenes of different splits that overlap.

    Args:
        scenes: Name, split and grid of each scene.
    """
    places = [
        Place(
            scene=name,
            grid=grid,
            window=PixelWindow(col_off=0, row_off=0, width=grid.width, height=grid.height),
            class_counts=(),
        )
        for name, _, grid in scenes
    ]
    if not places:
        return []
    footprints, spaces = _footprints(places)
    pairs = zip(*shapely.STRtree(footprints).query(footprints, predicate="intersects"), strict=True)
    found: list[SharedGround] = []
    for first, second in sorted((int(a), int(b)) for a, b in pairs if a < b):
        if scenes[first][1] == scenes[second][1] or spaces[first] != spaces[second]:
            continue
        area = shapely.area(shapely.intersection(footprints[first], footprints[second]))
        share = float(area / min(shapely.area(footprints[first]), shapely.area(footprints[second])))
        if share > 0:
            found.append(SharedGround(first=scenes[first][0], second=scenes[second][0], share=share))
    return found
