"""The same ground or the same pixels in two splits: found, counted and refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ctrs.config import SplitName
from ctrs.errors import DataError
from ctrs.tiles.cutting import CutTile
from ctrs.tiles.findings import Findings
from ctrs.tiles.ground import Length, Place, locate

_Entry = tuple[str, SplitName]

_MAX_PAIRS = 20
"""Most pairs of scenes that are named one by one."""


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Two scenes that hold the same pixels.

    Args:
        first: Name of a scene.
        first_split: Split of its tiles.
        second: Name of the other.
        second_split: Split of its tiles.
        num_tiles: Tiles of equal pixels.
    """

    first: str
    first_split: SplitName
    second: str
    second_split: SplitName
    num_tiles: int

    @property
    def leaks(self) -> bool:
        """Whether they are in different splits."""
        return self.first_split != self.second_split


def find_duplicates(tiles: Sequence[tuple[CutTile, SplitName]]) -> list[Duplicates]:
    """Find scenes that hold tiles of equal pixels, whatever their names and places.

    Tiles of one value in each band (water in a mosaic, for one) say nothing and are passed over. Of more than two
    scenes with a tile in common, each is named with the first of another split, or with the first.

    Args:
        tiles: Tiles that are kept, with their splits.
    """
    by_hash: dict[str, set[_Entry]] = {}
    for tile, split in tiles:
        if tile.hash and not _is_constant(tile):
            by_hash.setdefault(tile.hash, set()).add((tile.scene, split))
    counts = Counter[tuple[_Entry, _Entry]]()
    for entries in by_hash.values():
        counts.update({pair for entry in entries if (pair := _counterpart(entry, sorted(entries))) is not None})
    return [
        Duplicates(first=one[0], first_split=one[1], second=other[0], second_split=other[1], num_tiles=number)
        for (one, other), number in sorted(counts.items())
    ]


def _counterpart(entry: _Entry, entries: Sequence[_Entry]) -> tuple[_Entry, _Entry] | None:
    """Return a scene and split with that which it is named with; None where no other scene holds the tile."""
    elsewhere = [other for other in entries if other[0] != entry[0]]
    leaking = [other for other in elsewhere if other[1] != entry[1]]
    if not elsewhere:
        return None
    other = (leaking or elsewhere)[0]
    return (entry, other) if entry < other else (other, entry)


def check_duplicates(tiles: Sequence[tuple[CutTile, SplitName]], findings: Findings) -> None:
    """Refuse equal pixels in two splits; warn of them in one.

    Args:
        tiles: Tiles that are kept, with their splits.
        findings: Takes what is found.
    """
    found = find_duplicates(tiles)
    for leaks in (True, False):
        pairs = [pair for pair in found if pair.leaks == leaks]
        for number, pair in enumerate(pairs[:_MAX_PAIRS], 1):
            first = f"{pair.first} ({pair.first_split})" if leaks else pair.first
            second = f"{pair.second} ({pair.second_split})" if leaks else pair.second
            noun = "a tile" if pair.num_tiles == 1 else f"{pair.num_tiles} tiles"
            message = f"scenes {first} and {second} hold the same pixels in {noun}"
            more = len(pairs) - _MAX_PAIRS
            if number == _MAX_PAIRS and more > 0:
                message += f", and {more} more such pairs of scenes do"
            if leaks:
                advice = "scores there are worth nothing: leave one out, or put both into one split (--val, --test)"
                findings.fault("leakage", DataError(f"{message}; {advice}"))
            else:
                findings.warn(
                    "leakage", f"{message}, all in {pair.first_split}; leave one out unless it shall count twice"
                )


def check_apart(
    places: Sequence[Place], splits: Sequence[SplitName], buffer: Length | None, findings: Findings
) -> None:
    """Compare the ground of all tiles of all splits once more; none may lie within the buffer of two.

    Args:
        places: Tiles that are kept.
        splits: Split of each.
        buffer: Least distance; None: they must not overlap.
        findings: Takes a fault for each two splits that are too near.
    """
    if len(set(splits)) < 2:
        return
    ground = locate(places)
    reach = ground.lengths(buffer)
    names = np.array(splits)
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        one, other = ground.near(np.flatnonzero(names == first), np.flatnonzero(names == second), reach)
        if len(one):
            what = "share ground" if buffer is None else f"share ground or lie nearer than {buffer}"
            findings.fault(
                "leakage",
                DataError(
                    f"{len(np.unique(one))} {first} and {len(np.unique(other))} {second} tiles {what}, first those of "
                    f"scenes {places[one[0]].scene} and {places[other[0]].scene}; choose a --split-buffer, or put the "
                    "scenes into one split"
                ),
            )


def _is_constant(tile: CutTile) -> bool:
    return tile.moments.least == tile.moments.greatest
