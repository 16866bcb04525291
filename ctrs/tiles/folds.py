"""Folds by place for cross-validation: equal in size and classes, compact, and never the same ground in two of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial import KDTree

from ctrs.errors import DataError
from ctrs.tiles.ground import Floats, Ints, Length, Place, locate, tie
from ctrs.tiles.splits import Parcels, compact_place, split_by

_NUM_TRIES = 6
"""Divisions into compact places that are tried, and as many into strips."""


def deal_into_folds(
    places: Sequence[Place],
    num_folds: int,
    *,
    seed: int,
    block: Length | None = None,
    buffer: Length | None = None,
) -> list[int]:
    """Deal tiles out to folds by place.

    A group of scenes that share ground is divided into compact places or strips, one for each fold; scenes too small to
    be divided go to folds as a whole, neighbours together.

    Args:
        places: The tiles.
        num_folds: Number of folds.
        seed: Seed of the places.
        block: Edge of the blocks of ground that are dealt out; None: each tile with those that share ground with it.
        buffer: Least distance of training and validation tiles, for the decision which scenes are large enough.

    Returns:
        Fold of each tile, from 0.

    Raises:
        DataError: The ground cannot be divided into so many.
    """
    if not places:
        return []
    parcels = Parcels.of(places, block)
    num_parcels = len(np.unique(parcels.numbers))
    if num_parcels < num_folds:
        raise _too_few(num_folds, num_parcels, are_blocks=parcels.are_blocks)
    counts, centers = parcels.counts, parcels.centers
    least = max(num_folds, parcels.least(buffer))
    small: list[int] = []
    pieces: list[list[Ints]] = []
    for own in split_by(parcels.groups, np.arange(len(places))):
        if len(np.unique(parcels.numbers[own])) < least:
            small += own.tolist()
            continue
        rng = parcels.generator(seed, own, "folds")
        pieces.append(_divide(own, parcels.numbers, centers, counts, num_folds, rng))
    rest = np.array(sorted(small), np.int64)
    if len(rest):
        rng = parcels.generator(seed, rest, "folds")
        if len(np.unique(parcels.groups[rest])) >= num_folds:
            pieces.append(_divide(rest, parcels.groups, parcels.group_centers, counts, num_folds, rng))
        elif pieces:
            pieces += [[part] for part in split_by(parcels.groups[rest], rest)]
        else:
            side_by_side = parcels.ground.centers + parcels.ground.shifts
            pieces.append(_divide(rest, parcels.numbers, side_by_side, counts, num_folds, rng))
    folds: list[int] = _assign(pieces, counts, num_folds).tolist()
    return folds


def check_divisible(places: Sequence[Place], num_folds: int, block: Length | None = None) -> None:
    """Refuse folds that the ground of some tiles cannot be divided into, whichever of the tiles are kept.

    Args:
        places: All tiles that could be kept.
        num_folds: Number of folds.
        block: As for ``deal_into_folds``.

    Raises:
        DataError: There are fewer places than folds.
    """
    if block is not None:
        num_parcels = 0
        if places:
            ground = locate(places)
            scenes = np.unique([place.scene for place in places], return_inverse=True)[1]
            cells = np.column_stack([scenes, ground.blocks(ground.lengths(block))])
            num_parcels = len(np.unique(cells, axis=0))
        if num_parcels < num_folds:
            raise _too_few(num_folds, num_parcels, are_blocks=True)
        return
    # Of tiles that all share ground with each other, any choice is one piece; of others, each may be one in the end.
    every = np.arange(len(places))
    first, second = locate(places).near(every, every) if places else (every, every)
    numbers = tie(len(places), first, second) if places else every
    sizes, pairs = np.bincount(numbers), np.bincount(numbers[first])
    num_parcels = int(np.where(pairs == sizes**2, 1, sizes).sum())
    if num_parcels < num_folds:
        raise _too_few(num_folds, num_parcels, are_blocks=False)


def _too_few(num_folds: int, num_parcels: int, *, are_blocks: bool) -> DataError:
    one, several = ("block", "blocks") if are_blocks else ("piece", "pieces that share no ground")
    return DataError(
        f"{num_folds} folds asked for, but the training ground has {num_parcels} "
        f"{one if num_parcels == 1 else several}; choose fewer --folds, a smaller --block or smaller tiles"
    )


def _divide(
    members: Ints, numbers: Ints, centers: Floats, counts: Floats, num_parts: int, rng: np.random.Generator
) -> list[Ints]:
    """Divide tiles into parts of about the same size: compact places or strips, whichever are more alike."""
    own = numbers[members], centers[members], counts[members]
    parcels, of_tile = np.unique(own[0], return_inverse=True)
    sizes = np.bincount(of_tile)
    where: Floats = np.stack([np.bincount(of_tile, own[1][:, axis]) / sizes for axis in (0, 1)], axis=1)
    _, neighbours = KDTree(where).query(where, k=min(5, len(parcels)))
    candidates = [_compact_parts(*own, num_parts, rng) for _ in range(_NUM_TRIES)]
    angles = np.pi * (np.arange(_NUM_TRIES) + rng.random()) / _NUM_TRIES
    candidates += [_strips(of_tile, where, num_parts, float(angle)) for angle in angles]
    costs = [_cost(part, of_tile, own[2], neighbours, num_parts) for part in candidates]
    best = candidates[int(np.argmin(costs))]
    return [members[best == part] for part in range(num_parts)]


def _compact_parts(numbers: Ints, centers: Floats, counts: Floats, num_parts: int, rng: np.random.Generator) -> Ints:
    """Return the part of each tile where compact places are taken one after the other."""
    parts = np.full(len(numbers), num_parts - 1)
    left = np.arange(len(numbers))
    for part in range(num_parts - 1):
        more = num_parts - part - 1
        wanted = max(1, round(len(left) / (more + 1)))
        taken = compact_place(numbers[left], centers[left], counts[left], wanted, rng, spare=more)
        parts[left[taken]] = part
        left = left[~taken]
    return parts


def _strips(of_tile: Ints, where: Floats, num_parts: int, angle: float) -> Ints:
    """Return the part of each tile where parcels are cut into strips across a direction."""
    order = np.argsort(where @ (np.cos(angle), np.sin(angle)), kind="stable")
    sizes = np.bincount(of_tile)[order]
    middles = np.cumsum(sizes) - sizes / 2
    parts = np.minimum(num_parts - 1, middles * num_parts / sizes.sum()).astype(np.int64)
    # Each part gets a parcel at least, however large others are.
    rank = np.arange(len(order))
    parts = np.clip(parts, num_parts - (len(order) - rank), rank)
    by_parcel = np.empty(len(order), np.int64)
    by_parcel[order] = parts
    return by_parcel[of_tile]


def _cost(parts: Ints, of_tile: Ints, counts: Floats, neighbours: Ints, num_parts: int) -> float:
    """Return how unlike parts are in size and classes, and how long their borders."""
    sizes = np.bincount(parts, minlength=num_parts)
    if not sizes.all():
        return float("inf")
    by_class = np.stack([counts[parts == part].sum(axis=0) for part in range(num_parts)])
    total = by_class.sum(axis=0)
    shares = by_class / np.maximum(1.0, by_class.sum(axis=1, keepdims=True))
    unlike = np.abs(shares - total / max(1.0, total.sum())).sum(axis=1).mean() / 2
    missing = ((by_class == 0) & (total > 0)).sum(axis=1).mean()
    uneven = np.abs(sizes / sizes.mean() - 1).mean()
    by_parcel = np.zeros(int(of_tile.max()) + 1, np.int64)
    by_parcel[of_tile] = parts
    exposure = (by_parcel[neighbours[:, 1:]] != by_parcel[:, None]).mean() if neighbours.shape[1] > 1 else 0.0
    return float(unlike + missing + uneven + 0.3 * exposure)


def _assign(pieces: Sequence[list[Ints]], counts: Floats, num_folds: int) -> Ints:
    """Give each fold one part of what was divided, so that folds become equal in tiles and in pixels of each class."""
    folds = np.zeros(len(counts), np.int64)
    weights = np.column_stack([np.ones(len(counts)), counts / np.maximum(1.0, counts.sum(axis=0)) * len(counts)])
    totals = np.zeros((num_folds, weights.shape[1]))
    for parts in sorted(pieces, key=lambda parts: -sum(len(part) for part in parts)):
        added = np.array([weights[part].sum(axis=0) for part in parts])
        # Squares: what is large already shall not grow.
        cost = ((totals[None] + added[:, None]) ** 2).sum(axis=2) - (totals[None] ** 2).sum(axis=2)
        for part, fold in zip(*(side.tolist() for side in linear_sum_assignment(cost)), strict=True):
            folds[parts[part]] = fold
            totals[fold] += added[part]
    return folds


def near_folds(
    places: Sequence[Place], folds: Sequence[int], num_folds: int, buffer: Length | None = None
) -> list[tuple[int, ...]]:
    """Find the folds that each tile must not train for: it overlaps their ground, or lies within the buffer of it.

    Args:
        places: The tiles.
        folds: Fold of each.
        num_folds: Number of folds.
        buffer: Least distance of training and validation tiles; None: they must not overlap.

    Returns:
        For each tile the other folds that it is too near to.
    """
    found: list[list[int]] = [[] for _ in places]
    if places:
        ground = locate(places)
        reach = ground.lengths(buffer)
        of_tile = np.array(folds, np.int64)
        for fold in range(num_folds):
            others, own = np.flatnonzero(of_tile != fold), np.flatnonzero(of_tile == fold)
            for number in np.unique(ground.near(others, own, reach)[0]).tolist():
                found[number].append(fold)
    return [tuple(near) for near in found]
