"""Which tiles are part of the data set, and which split and fold each belongs to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ctrs.config import PrepareConfig, SplitName
from ctrs.errors import DataError, UsageError
from ctrs.tiles.cutting import CutTile
from ctrs.tiles.findings import Findings
from ctrs.tiles.folds import check_divisible, deal_into_folds, near_folds
from ctrs.tiles.ground import Length, Place
from ctrs.tiles.leakage import check_apart, check_duplicates
from ctrs.tiles.scenes import ReadySource
from ctrs.tiles.splits import deal_by_place, near_other_splits, shared_ground
from ctrs.tiles.target_grid import place_advice, place_lack
from ctrs.tiles.tile_grid import TileGrid

LEAK_SHARE = 0.01
"""Share of a scene that may lie in another split, where neighbouring files overlap by a seam."""

_MANY_TILES = 20_000
"""Above this number of tiles the pass decides whether folds are possible: few tiles are what makes them impossible."""

Placed = tuple[CutTile, SplitName]
"""A tile and the split it belongs to."""


def scene_splits(ready: ReadySource, config: PrepareConfig, findings: Findings) -> dict[str, SplitName]:
    """Return the split of each scene, before tiles are dealt out by place; refuse splits that share ground.

    By place, all scenes are for training until their tiles are dealt out; with folds, those for validation are too.

    Raises:
        UsageError: A length in metres is asked for where there is no CRS.
    """
    _check_lengths(ready, config)
    splits: dict[str, SplitName] = {}
    for scene in ready.scenes:
        is_training = config.split == "place" or (config.folds and scene.source.split == "val")
        splits[scene.name] = "train" if is_training else scene.source.split
    buffer = Length.of(config.split_buffer_px, config.split_buffer_m)
    for shared in shared_ground([(scene.name, splits[scene.name], scene.grid) for scene in ready.scenes]):
        message = (
            f"scenes {shared.first} ({splits[shared.first]}) and {shared.second} ({splits[shared.second]}) share "
            f"{100 * shared.share:.3g} % of the smaller one's ground"
        )
        if buffer is not None:
            findings.note("leakage", f"{message}; tiles there are left out of one of them")
        elif shared.share >= LEAK_SHARE:
            advice = (
                "put both into one split (--val, --test), leave one out, or cut the ground away with --split-buffer"
            )
            findings.fault("leakage", DataError(f"{message}; {advice}"))
        else:
            findings.warn("leakage", f"{message}; scores there are a little too good (cut it away with --split-buffer)")
    return splits


def _check_lengths(ready: ReadySource, config: PrepareConfig) -> None:
    """Refuse lengths in metres where these are not known."""
    without = next((scene for scene in ready.scenes if scene.grid.crs is None), None)
    for option, value in (("--block", config.block_m), ("--split-buffer", config.split_buffer_m)):
        if value is not None and without is not None:
            raise UsageError(
                f"{option} {value:g}m: scene {without.name} has {place_lack(without.grid)}, so its metres are not "
                f"known; give pixels ({option} 512), or {place_advice(without.grid)}"
            )


def place_tiles(
    cut: Sequence[CutTile], ready: ReadySource, splits: dict[str, SplitName], config: PrepareConfig, findings: Findings
) -> list[Placed]:
    """Return the tiles that are part of the data set, with their splits, so that no ground is in two of them.

    Validation, and with ``--split place`` the test too, is cut from training places where it is not given. Tiles too
    near to another split are left out.

    Args:
        cut: All tiles.
        ready: Their scenes.
        splits: From ``scene_splits``.
        config: Options.
        findings: Takes what is left out or missing, and each leak between splits.

    Raises:
        DataError: No tile is left.
    """
    kept = [tile for tile in cut if tile.kept]
    if not kept:
        raise DataError(f"{ready.scenes[0].source.image}: no valid pixel in any scene; check nodata and alpha")
    kept, dealt = _official_splits(kept, ready, splits, config, findings)
    places = _places(kept, ready)
    buffer = Length.of(config.split_buffer_px, config.split_buffer_m)
    val_fraction = 0.0 if config.folds or "val" in splits.values() or "val" in dealt else config.val_fraction
    num_train = dealt.count("train")
    named = [split for split in ("val", "test") if split in dealt]
    # Splits that came with the data, and share a seam at most, stay as they are unless a buffer is asked for.
    every = list(range(len(kept)))
    gone = set(_without_near(every, places, dealt, buffer, findings)) if buffer is not None else set()
    own = [number for number in every if dealt[number] == "train" and number not in gone]
    for fraction in dict.fromkeys((val_fraction, 0.0)):  # without validation where it would leave nothing to train on
        for number, split in zip(own, _deal([places[number] for number in own], fraction, ready, config), strict=True):
            dealt[number] = split
        compared = [number for number in every if number not in gone] if buffer is not None else own
        near = near_other_splits(
            [places[number] for number in compared], [dealt[number] for number in compared], buffer
        )
        if any(dealt[number] == "train" and not guarded for number, guarded in zip(compared, near, strict=True)):
            break
    gone |= set(_without_near(compared, places, dealt, buffer, findings))
    compared = [number for number in compared if number not in gone]
    check_apart([places[number] for number in compared], [dealt[number] for number in compared], buffer, findings)
    placed = [(tile, split) for number, (tile, split) in enumerate(zip(kept, dealt, strict=True)) if number not in gone]
    check_duplicates(placed, findings)
    _check_present({split for _, split in placed}, num_train, len(own), named, val_fraction, config, findings)
    return placed


def _deal(places: Sequence[Place], val_fraction: float, ready: ReadySource, config: PrepareConfig) -> list[SplitName]:
    """Deal training tiles out by place, as the options ask for."""
    return deal_by_place(
        places,
        val_fraction=val_fraction,
        test_fraction=config.test_fraction,
        seed=config.seed,
        block=_block(ready, config),
        buffer=Length.of(config.split_buffer_px, config.split_buffer_m),
    )


def _without_near(
    numbers: Sequence[int],
    places: Sequence[Place],
    splits: Sequence[SplitName],
    buffer: Length | None,
    findings: Findings,
) -> list[int]:
    """Return which of some tiles are too near to another split, and note how many these are."""
    own = [splits[number] for number in numbers]
    near = near_other_splits([places[number] for number in numbers], own, buffer)
    _note_left_out(own, near, buffer, findings)
    return [number for number, guarded in zip(numbers, near, strict=True) if guarded is not None]


def _check_present(
    present: set[SplitName],
    num_train: int,
    num_left: int,
    named: Sequence[str],
    val_fraction: float,
    config: PrepareConfig,
    findings: Findings,
) -> None:
    """Say which splits have no tile, and why.

    Args:
        present: Splits that have tiles.
        num_train: Training tiles before any were dealt out or left out.
        num_left: Those of them that are far enough from the splits that came with the data.
        named: Splits that came with the data, or that options name.
        val_fraction: Share that was to validate.
        config: Options.
        findings: Takes what is missing.
    """
    buffer = Length.of(config.split_buffer_px, config.split_buffer_m)
    if "train" not in present and not num_train:
        findings.warn("splits", "no training tiles: this data set can only be scored on")
    elif "train" not in present and not num_left:
        findings.fault(
            "splits",
            DataError(
                f"none of {num_train} training tiles is farther than {buffer} from the ground of "
                f"{' and '.join(named)} tiles; choose a smaller --split-buffer, or other scenes with --val and --test"
            ),
        )
    elif "train" not in present:
        what = "shares no ground with" if buffer is None else f"is farther than {buffer} from"
        smaller = "smaller tiles" if buffer is None else "a smaller --split-buffer, smaller tiles"
        findings.fault(
            "splits",
            DataError(
                f"none of {num_left} tiles {what} the test tiles that were cut by place, so none is left to train on; "
                f"choose {smaller} or a smaller --block"
            ),
        )
    if "train" in present and val_fraction and "val" not in present:
        shorter = "" if buffer is None else ", a smaller --split-buffer"
        findings.warn(
            "splits",
            "no validation split: the training ground cannot be divided; the last epoch will be kept as the best "
            f"(name scenes with --val, or choose smaller tiles{shorter})",
        )
    if "train" in present and config.test_fraction and "test" not in present:
        findings.warn(
            "splits", "no test split: the ground cannot be divided; choose smaller tiles or a smaller --block"
        )


def _official_splits(
    tiles: Sequence[CutTile],
    ready: ReadySource,
    splits: dict[str, SplitName],
    config: PrepareConfig,
    findings: Findings,
) -> tuple[list[CutTile], list[SplitName]]:
    """Return the tiles with the splits of their scenes, or of the parts of scenes that they lie in."""
    if config.split == "place":
        return list(tiles), [splits[tile.scene] for tile in tiles]
    scenes = {scene.name: scene for scene in ready.scenes}
    kept: list[CutTile] = []
    dealt: list[SplitName] = []
    for tile in tiles:
        scene = scenes[tile.scene]
        chips = scene.source.chips
        split = splits[tile.scene] if chips is None else chips.split_of(tile.window, width=scene.grid.width)
        if split is not None:
            kept.append(tile)
            dealt.append("train" if config.folds and split == "val" else split)
    if not kept:
        raise DataError("no tile lies in the official split, which is by chips of the scenes; choose smaller tiles")
    if len(kept) < len(tiles):
        findings.note(
            "splits",
            f"{len(tiles) - len(kept)} of {len(tiles)} tiles left out: no list names the chips that they touch, "
            "or these are of several splits",
        )
    return kept, dealt


def check_folds(ready: ReadySource, splits: dict[str, SplitName], config: PrepareConfig) -> None:
    """Refuse more folds than the tiles of the scenes can be dealt out to, before any is cut.

    Raises:
        DataError: However many tiles are kept, they are too few, or they share ground.
    """
    grids = [TileGrid.over(*scene.grid.shape, scene.tile_px, scene.stride_px) for scene in ready.scenes]
    if not config.folds or sum(tiles.num_tiles for tiles in grids) > _MANY_TILES:
        return
    places: list[Place] = []
    for scene, tiles in zip(ready.scenes, grids, strict=True):
        chips = None if config.split == "place" else scene.source.chips
        for row in range(len(tiles.rows.spans)):
            for col in range(len(tiles.cols.spans)):
                window = tiles.window(row, col)
                split = splits[scene.name] if chips is None else chips.split_of(window, width=scene.grid.width)
                if split in ("train", "val"):
                    places.append(Place(scene=scene.name, grid=scene.grid, window=window))
    if any(split == "train" for split in splits.values()):
        check_divisible(places, config.folds, _block(ready, config))


def _places(tiles: Sequence[CutTile], ready: ReadySource) -> list[Place]:
    grids = {scene.name: scene.grid for scene in ready.scenes}
    return [
        Place(scene=tile.scene, grid=grids[tile.scene], window=tile.window, class_counts=tile.class_counts)
        for tile in tiles
    ]


def _block(ready: ReadySource, config: PrepareConfig) -> Length | None:
    """Return the edge of the blocks that are dealt out by place; None: tiles, which then do not overlap."""
    asked = Length.of(config.block_px, config.block_m)
    if asked is None and any(scene.stride_px < scene.tile_px for scene in ready.scenes):
        return Length(px=max(scene.tile_px for scene in ready.scenes))
    return asked


def _note_left_out(
    splits: Sequence[SplitName], near: Sequence[SplitName | None], buffer: Length | None, findings: Findings
) -> None:
    """Note how many tiles are too near to another split."""
    counts = Counter((split, guarded) for split, guarded in zip(splits, near, strict=True) if guarded is not None)
    for (split, guarded), number in sorted(counts.items()):
        what = "share ground with" if buffer is None else f"share ground with, or lie nearer than {buffer} to,"
        findings.note(
            "splits", f"{number} of {splits.count(split)} {split} tiles {what} {guarded} tiles and are left out"
        )


@dataclass(frozen=True, kw_only=True)
class FoldPlace:
    """The fold of a tile, None for test tiles, and the other folds that it is too near to to train for them."""

    fold: int | None = None
    near: tuple[int, ...] = ()


def deal_folds(
    placed: Sequence[Placed], ready: ReadySource, config: PrepareConfig, findings: Findings
) -> list[FoldPlace]:
    """Return the fold of each tile; of none where no folds are asked for.

    Args:
        placed: Tiles that are part of the data set.
        ready: Their scenes.
        config: Options.
        findings: Takes how folds came out.

    Raises:
        DataError: The ground cannot be divided into so many folds.
    """
    result = [FoldPlace()] * len(placed)
    if not config.folds:
        return result
    own = [number for number, (_, split) in enumerate(placed) if split == "train"]
    places = _places([placed[number][0] for number in own], ready)
    buffer = Length.of(config.split_buffer_px, config.split_buffer_m)
    folds = deal_into_folds(places, config.folds, seed=config.seed, block=_block(ready, config), buffer=buffer)
    near = near_folds(places, folds, config.folds, buffer)
    for number, fold, others in zip(own, folds, near, strict=True):
        result[number] = FoldPlace(fold=fold, near=others)
    _describe_folds(folds, near, places, ready, config.folds, buffer, findings)
    return result


def _describe_folds(
    folds: Sequence[int],
    near: Sequence[tuple[int, ...]],
    places: Sequence[Place],
    ready: ReadySource,
    num_folds: int,
    buffer: Length | None,
    findings: Findings,
) -> None:
    """Note the sizes of folds, and what is missing in them."""
    sizes = [folds.count(fold) for fold in range(num_folds)]
    between = f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
    message = f"{num_folds} folds by place of {between} tiles each"
    num_near = sum(bool(others) for others in near)
    if num_near:
        what = "share ground with other folds" if buffer is None else f"lie nearer than {buffer} to other folds"
        message += f"; {num_near} tiles {what} and do not train when these validate"
    findings.note("splits", message)
    counts = np.array([place.class_counts for place in places], np.int64)
    totals = counts.sum(axis=0)
    for fold in range(num_folds):
        if not any(own != fold and fold not in others for own, others in zip(folds, near, strict=True)):
            findings.fault(
                "splits",
                DataError(f"no tile is left to train on when fold {fold} validates; choose a smaller --split-buffer"),
            )
        absent = (counts[np.array(folds) == fold].sum(axis=0) == 0) & (totals > 0)
        if absent.any():
            names = ", ".join(
                name for name, is_absent in zip(ready.classes.names, absent.tolist(), strict=True) if is_absent
            )
            findings.note("splits", f"fold {fold} holds no pixel of class {names}, so its scores say nothing of it")
