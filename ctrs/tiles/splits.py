"""Which tiles are for training, validation and test: compact places, never the same ground on two sides.

The ground is cut into parcels that are dealt out as a whole. Tiles that share ground (shifted edge tiles, overlapping
scenes, the same place at two resolutions) are one parcel. Where that would tie everything together, because the stride
is shorter than a tile or scenes overlap throughout, or where blocks are asked for, the parcels are the blocks of a grid
on the ground instead, and tiles that then share ground with the other side are left out (``near_other_splits``).

From a scene that holds several parcels, compact places are taken; those tried start at random parcels, and the one is
kept whose classes are most like the scene's and which cuts the shortest border.

No network sees the other side, however wide its receptive field: training sees the pixels of training tiles only, and
is padded beyond them; scoring sees a mosaic in which the ground of other splits is nodata. A buffer does something
else: it keeps away what looks the same because it lies side by side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from scipy.spatial import KDTree

from ctrs.config import SplitName
from ctrs.raster.geotiff import Grid
from ctrs.raster.windows import PixelWindow
from ctrs.tiles.footprints import polygons
from ctrs.tiles.ground import Floats, Ground, Ints, Length, Place, locate, tie

_NUM_STARTS = 24

_RUNAWAY_TILES, _RUNAWAY_SHARE = 32, 0.25
"""Where more tiles than this, and a larger share of all, are tied together, blocks of a grid take their place."""

_LEAST_PARCELS = 16
"""Parcels of a scene below which dividing it would cost most of its tiles, where those near the border are left out."""

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Parcels:
    """Ground in pieces that are dealt out as a whole.

    Args:
        places: The tiles.
        ground: Where they lie.
        numbers: (n,), parcel of each tile.
        groups: (n,), group of scenes that share ground; a parcel lies in one.
        are_blocks: Whether parcels are blocks of a grid, whose tiles may overlap those of others.
    """

    places: Sequence[Place]
    ground: Ground
    numbers: Ints
    groups: Ints
    are_blocks: bool

    @classmethod
    def of(cls, places: Sequence[Place], block: Length | None = None) -> Parcels:
        """Cut ground into parcels.

        Args:
            places: The tiles, at least one.
            block: Edge of a block; None: tiles that share ground, and only those, are a parcel.
        """
        ground = locate(places)
        every = np.arange(len(places))
        if block is None:
            numbers = tie(len(places), *ground.near(every, every))
            largest = int(np.bincount(numbers).max())
            if largest <= max(_RUNAWAY_TILES, _RUNAWAY_SHARE * len(places)):
                groups = _tie_scenes(places, numbers)
                return cls(places=places, ground=ground, numbers=numbers, groups=groups, are_blocks=False)
            block = Length(px=float(np.median([place.window.width for place in places])))
        groups = _overlapping_scenes(places)
        cells = np.column_stack([groups, ground.blocks(ground.lengths(block))])
        numbers = np.unique(cells, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)
        return cls(places=places, ground=ground, numbers=numbers, groups=groups, are_blocks=True)

    @property
    def counts(self) -> Floats:
        """Pixels (n, K) of each class in each tile."""
        return np.array([place.class_counts for place in self.places], np.float64)

    @property
    def centers(self) -> Floats:
        """Centre (n, 2) of each tile, in pixels of its scene; on the ground where scenes are tied."""
        centers = np.array(
            [
                (place.window.col_off + place.window.width / 2, place.window.row_off + place.window.height / 2)
                for place in self.places
            ]
        )
        on_ground = self.ground.centers
        names = np.unique([place.scene for place in self.places], return_inverse=True)[1]
        for members in split_by(self.groups, np.arange(len(self.places))):
            if len(np.unique(names[members])) > 1:
                centers[members] = on_ground[members]
        return centers

    @property
    def group_centers(self) -> Floats:
        """Centre (n, 2) of each tile's group of scenes; its rank in the order of names where there is no ground."""
        result = np.zeros((len(self.places), 2))
        spaces = self.ground.spaces
        if len(np.unique(spaces)) > 1 or spaces[0] >= 0:
            result[:, 0] = self.groups  # numbered in the order of names
            return result
        on_ground = self.ground.centers
        for members in split_by(self.groups, np.arange(len(self.places))):
            result[members] = on_ground[members].mean(axis=0)
        return result

    def least(self, buffer: Length | None) -> int:
        """Return how many parcels a group of scenes needs to be divided: more where tiles on the border are lost."""
        is_lossless = not self.are_blocks and (buffer is None or not (buffer.px or buffer.m))
        return 2 if is_lossless else _LEAST_PARCELS

    def generator(self, seed: int, members: Ints, stage: str = "") -> np.random.Generator:
        """Return a generator for a choice among tiles, the same whatever other scenes there are."""
        return _generator(seed, (self.places[number].scene for number in members.tolist()), stage)

    def take(self, members: Ints, fraction: float, *, seed: int, stage: str = "", least: int = 2) -> Bools:
        """Choose about a share of some tiles: a compact place in each group of scenes that is large enough.

        Where none is, whole groups are chosen; a lone one is divided all the same.

        Args:
            members: Numbers of the tiles to choose from.
            fraction: Share of them.
            seed: Seed of the places.
            stage: Name of the choice; choices of other names are made independently.
            least: Parcels of a group that is divided.

        Returns:
            (n,), True for each tile that was chosen. All are False where nothing can be divided.
        """
        chosen = np.zeros(len(self.places), bool)
        if not len(members) or fraction == 0:
            return chosen
        counts, centers = self.counts, self.centers
        for own in split_by(self.groups[members], members):
            wanted = round(fraction * len(own))
            if wanted and len(np.unique(self.numbers[own])) >= least:
                rng = self.generator(seed, own, stage)
                chosen[own[compact_place(self.numbers[own], centers[own], counts[own], wanted, rng)]] = True
        if chosen.any():
            return chosen
        rng = self.generator(seed, members, stage)
        wanted = max(1, round(fraction * len(members)))
        if len(np.unique(self.groups[members])) > 1:
            # No scene is large enough to divide: whole scenes, neighbours on the ground or in the order of their names.
            taken = compact_place(self.groups[members], self.group_centers[members], counts[members], wanted, rng)
            chosen[members[taken]] = True
        elif len(np.unique(self.numbers[members])) > 1:
            chosen[members[compact_place(self.numbers[members], centers[members], counts[members], wanted, rng)]] = True
        return chosen


def deal_by_place(
    places: Sequence[Place],
    *,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    block: Length | None = None,
    buffer: Length | None = None,
) -> list[SplitName]:
    """Deal all tiles out to training, validation and test by place.

    Each scene gives a share to each split, if it is large enough; where none is, scenes are dealt out as a whole.

    Args:
        places: All tiles.
        val_fraction: Share of all tiles for validation.
        test_fraction: Share of all tiles for the test.
        seed: Seed of the places.
        block: Edge of the blocks of ground that are dealt out; None: each tile with those that share ground with it.
        buffer: Least distance of tiles of two splits, for the decision which scenes are large enough.

    Returns:
        Split of each tile. Tiles of two splits may still be too near: see ``near_other_splits``. The places of the test
        do not depend on ``val_fraction``.
    """
    splits: npt.NDArray[np.object_] = np.full(len(places), "train", object)
    if not places or val_fraction == test_fraction == 0:
        return ["train"] * len(places)
    parcels = Parcels.of(places, block)
    least = parcels.least(buffer)
    is_test = parcels.take(np.arange(len(places)), test_fraction, seed=seed, stage="test", least=least)
    rest = np.flatnonzero(~is_test)
    of_rest = min(1.0, val_fraction * len(places) / max(1, len(rest)))
    is_val = parcels.take(rest, of_rest, seed=seed, least=least)
    splits[is_test], splits[is_val] = "test", "val"
    dealt: list[SplitName] = splits.tolist()
    return dealt


def near_other_splits(
    places: Sequence[Place], splits: Sequence[SplitName], buffer: Length | None = None
) -> list[SplitName | None]:
    """Find the tiles to leave out, so that no ground lies within the buffer of two splits.

    Training gives way to validation and test, validation gives way to the test.

    Args:
        places: Tiles.
        splits: Split of each.
        buffer: Least distance of tiles of two splits, in any scenes; None: they must not overlap.

    Returns:
        For each tile the split that it lies too near to, None for those that may stay.
    """
    left: npt.NDArray[np.object_] = np.full(len(places), None, object)
    if not places or len(set(splits)) < 2:
        return [None] * len(places)
    ground = locate(places)
    reach = ground.lengths(buffer)
    names = np.array(splits)
    kept = np.ones(len(places), bool)
    for guarded, yielding in (("test", ("train", "val")), ("val", ("train",))):
        giving_way = np.flatnonzero(np.isin(names, yielding) & kept)
        near, _ = ground.near(giving_way, np.flatnonzero((names == guarded) & kept), reach)
        left[near], kept[near] = guarded, False
    found: list[SplitName | None] = left.tolist()
    return found


def split_by(keys: Ints, values: Ints) -> list[Ints]:
    """Return the values of each key, in the order of keys.

    >>> [part.tolist() for part in split_by(np.array([1, 0, 1]), np.array([7, 8, 9]))]
    [[8], [7, 9]]
    """
    order = np.argsort(keys, kind="stable")
    parts: list[Ints] = np.split(values[order], np.flatnonzero(np.diff(keys[order])) + 1)
    return parts


def _scene_numbers(places: Sequence[Place]) -> tuple[list[str], Ints]:
    """Return the names of the scenes, sorted, and the number of each tile's."""
    names = sorted({place.scene for place in places})
    number = {name: index for index, name in enumerate(names)}
    return names, np.array([number[place.scene] for place in places], np.int64)


def _tie_scenes(places: Sequence[Place], pieces: Ints) -> Ints:
    """Number the groups of scenes that share ground."""
    names, of_tile = _scene_numbers(places)
    # Scenes and pieces are the two sides of a graph; a tile joins its scene to its piece.
    groups = tie(len(names) + int(pieces.max()) + 1, of_tile, len(names) + pieces)
    return groups[of_tile]


def _overlapping_scenes(places: Sequence[Place]) -> Ints:
    """Number the groups of scenes whose grids overlap."""
    names, of_tile = _scene_numbers(places)
    grids = {place.scene: place.grid for place in places}
    wholes = [_whole(name, grids[name]) for name in names]
    every = np.arange(len(names))
    return tie(len(names), *locate(wholes).near(every, every))[of_tile]


def _whole(name: str, grid: Grid) -> Place:
    window = PixelWindow(col_off=0, row_off=0, width=grid.width, height=grid.height)
    return Place(scene=name, grid=grid, window=window)


def compact_place(
    pieces: Ints, centers: Floats, counts: Floats, wanted: int, rng: np.random.Generator, *, spare: int = 1
) -> Bools:
    """Choose whole pieces that lie together and hold about ``wanted`` tiles.

    Args:
        pieces: (n,), piece of each tile.
        centers: (n, 2), centre of each tile.
        counts: (n, K), pixels of each class in each tile.
        wanted: Number of tiles.
        rng: Draws the pieces that the choice may start at.
        spare: Number of pieces that must not be taken.
    """
    names, of_tile, sizes = np.unique(pieces, return_inverse=True, return_counts=True)
    where = np.stack([np.bincount(of_tile, centers[:, axis]) / sizes for axis in (0, 1)], axis=1)
    shares = _shares(counts.sum(axis=0))
    best: tuple[float, Bools] | None = None
    _, near = KDTree(where).query(where, k=min(5, len(where)))
    for start in rng.permutation(len(names))[:_NUM_STARTS]:
        order = np.argsort(np.hypot(*(where - where[start]).T), kind="stable")[:-spare]
        totals = np.cumsum(sizes[order])
        block = np.zeros(len(names), bool)
        block[order[: int(np.argmin(np.abs(totals - wanted))) + 1]] = True
        taken = block[of_tile]
        inside, outside = counts[taken].sum(axis=0), counts[~taken].sum(axis=0)
        unlike = np.abs(_shares(inside) - shares).sum() / 2
        missing = float(((inside == 0) & (shares > 0)).mean())
        lost = float(((outside == 0) & (shares > 0)).sum())  # classes that training would never see
        size_error = abs(int(taken.sum()) - wanted) / wanted
        # Share of the nearest neighbours that lie outside: 0 is a block in a far corner.
        exposure = float((~block[near[block, 1:]]).mean())
        score = unlike + missing + lost + size_error + 0.1 * exposure
        if best is None or score < best[0]:
            best = score, taken
    if best is None:
        raise ValueError("no pieces to choose from")
    return best[1]


def _shares(counts: Floats) -> Floats:
    return counts / max(1.0, float(counts.sum()))


def _generator(seed: int, names: Iterable[str], stage: str) -> np.random.Generator:
    """A generator that depends on the seed and the scenes alone, so that a further scene moves no other's places."""
    digest = hashlib.sha256("\n".join([*sorted(set(names)), *filter(None, [stage])]).encode()).digest()
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
    if not scenes:
        return []
    ground = locate([_whole(name, grid) for name, _, grid in scenes])
    every = np.arange(len(scenes))
    shapes = polygons(ground.cores)
    found: list[SharedGround] = []
    for first, second in zip(*(side.tolist() for side in ground.near(every, every)), strict=True):
        if first >= second or scenes[first][1] == scenes[second][1]:
            continue
        area = shapely.area(shapely.intersection(shapes[first], shapes[second]))
        share = float(area / min(shapely.area(shapes[first]), shapely.area(shapes[second])))
        if share > 0:
            found.append(SharedGround(first=scenes[first][0], second=scenes[second][0], share=share))
    return found
