"""Which patches of a tile are positives and negatives of each class, found as the contrast losses find them."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ctrs.classes import IGNORE_INDEX, ClassMap, Mask
from ctrs.config import PatchMapConfig, VoidMode
from ctrs.data.tile_store import RawTile, read_tile
from ctrs.errors import UsageError
from ctrs.jobs import check_existing, describe_file, fingerprint, partial_work
from ctrs.losses.patches import VOID_BIT, classes_of_word, negative_mask, patch_bits, positive_mask
from ctrs.report.patch_picture import ClassPatches, PatchKind, StagePatches, patch_picture
from ctrs.report.pictures import display_rgb
from ctrs.report.png import read_description
from ctrs.tiles.manifest import Manifest, Tile

logger = logging.getLogger(__name__)

STRIDES = (4, 8, 16, 32)
"""Of the four stages of a hierarchical encoder."""

_KIND = "ctrs patches"
_FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class PatchReport:
    """A picture of patches and the numbers that it shows.

    Args:
        path: The picture.
        tile: Name of the tile.
        drawn: Classes in the picture.
        counts: Number of patches of each kind by class name and stride, of every class of the table.
    """

    path: Path
    tile: str
    drawn: tuple[str, ...]
    counts: Mapping[str, Mapping[int, Mapping[PatchKind, int]]]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "path": str(self.path),
            "tile": self.tile,
            "drawn": list(self.drawn),
            "classes": {
                name: [
                    {"stride": stride, **{kind.name.lower(): number for kind, number in kinds.items()}}
                    for stride, kinds in stages.items()
                ]
                for name, stages in self.counts.items()
            },
        }


def patch_maps(
    mask: Mask, num_classes: int, *, strides: Sequence[int] = STRIDES, void: VoidMode = "exclude"
) -> tuple[ClassPatches, ...]:
    """Sort the patches of a mask for each class, with the functions that the contrast losses call.

    Patches are those that touch the mask; where one reaches beyond it, the rest counts as void.

    Args:
        mask: uint8 (H, W), class index or ``IGNORE_INDEX``.
        num_classes: K.
        strides: Of the stages.
        void: Whether windows with void pixels may be negatives.

    Returns:
        For each of the K classes, positive: the window holds nothing but the class; negative: nothing of the class;
        void: it holds unlabelled pixels and is no negative; discarded: the class and others.
    """
    height, width = mask.shape
    sizes = [(-(-height // stride), -(-width // stride)) for stride in strides]
    labels = torch.from_numpy(mask.astype(np.int64))[None]
    levels = patch_bits(labels, sizes, num_classes=num_classes, strides=strides, ignore_index=IGNORE_INDEX)
    stages: list[list[StagePatches]] = [[] for _ in range(num_classes)]
    for bits, stride, size in zip(levels, strides, sizes, strict=True):
        kinds = torch.cat([_kinds(word, index, num_classes, void) for index, word in enumerate(bits)])
        for place, of_class in zip(stages, kinds.view(num_classes, *size).numpy(), strict=True):
            place.append(StagePatches(stride=stride, kinds=of_class))
    return tuple(ClassPatches(class_index=index, stages=tuple(found)) for index, found in enumerate(stages))


def _kinds(word: torch.Tensor, index: int, num_classes: int, void: VoidMode) -> torch.Tensor:
    """Return (k, N) uint8, the kind of each cell for each class of a word."""
    cells = word.reshape(-1)
    class_bits = classes_of_word(index, num_classes, cells.device)
    has_void = (cells >> VOID_BIT & 1).bool().expand(len(class_bits), -1)
    kinds = torch.full((len(class_bits), len(cells)), int(PatchKind.DISCARDED), dtype=torch.uint8)
    kinds[has_void] = int(PatchKind.VOID)
    kinds[negative_mask(cells, class_bits, void)] = int(PatchKind.NEGATIVE)
    kinds[positive_mask(cells, class_bits)] = int(PatchKind.POSITIVE)
    return kinds


def inspect_patches(manifest: Manifest, tile: Tile, path: Path, config: PatchMapConfig | None = None) -> PatchReport:
    """Draw which patches of a tile are positive, negative or discarded for a class, at each stage.

    The tile is seen whole and as it is, as in validation; training crops, turns and zooms it first.

    Args:
        manifest: The prepared data.
        tile: One of its tiles, e.g. from ``ctrs.tiles.tile_lookup.find_tile``.
        path: PNG to write. If it stands there already as the result of the same job, it is left as it is.
        config: Options.

    Raises:
        UsageError: There is no such class.
        InputNotFoundError: A file of the tile is missing.
        OutputExistsError: Another picture stands there and ``config.overwrite`` is False.
        OutputError: The picture cannot be written.
    """
    config = config or PatchMapConfig()
    only = None if config.class_name is None else class_index(config.class_name, manifest.classes)
    raw = read_tile(tile)
    mask = _seen_mask(raw)
    patches = patch_maps(mask, manifest.classes.num_classes, void=config.void)
    drawn = [one for one in patches if one.class_index == only] if only is not None else _present(patches, mask)
    names = manifest.classes.names
    report = PatchReport(
        path=path,
        tile=tile.image.stem,
        drawn=tuple(names[one.class_index] for one in drawn),
        counts={
            name: {stage.stride: stage.counts for stage in one.stages} for name, one in zip(names, patches, strict=True)
        },
    )
    job = fingerprint(
        {
            "step": "inspect patches",
            "image": describe_file(tile.image),
            "mask": describe_file(tile.mask),
            "classes": manifest.classes.to_json(),
            "options": config,
        }
    )
    earlier = read_description(path) or {}
    if check_existing(path, earlier.get("fingerprint"), job, overwrite=config.overwrite):
        logger.info("%s: exists and is the result of the same job; nothing to do", path)
        return report
    description = {"kind": _KIND, "format_version": _FORMAT_VERSION, "fingerprint": job, **report.to_json()}
    with partial_work(path, job, overwrite=True) as work:  # drawn in a second: nothing to go on with
        staged = patch_picture(
            work.folder / path.name,
            display_rgb(raw.pixels, manifest.bands, valid=raw.valid),
            mask,
            drawn,
            manifest.classes,
            title=f"{report.tile}: patches as the contrast sorts them for {config.class_name or 'each class'}",
            description={key: value for key, value in description.items() if key != "path"},
        )
        work.publish(staged)
    return report


def picture_name(tile: Tile, config: PatchMapConfig) -> str:
    """Return the usual file name of a tile's picture: ``TILE_patches.png``, with the class where one was asked for."""
    suffix = "" if config.class_name is None else "_" + re.sub(r"[^A-Za-z0-9]+", "-", config.class_name).strip("-")
    return f"{tile.image.stem}_patches{suffix}.png"


def class_index(name: str, classes: ClassMap) -> int:
    """Return the index of a class.

    Raises:
        UsageError: There is no such class.
    """
    if name in classes.names:
        return classes.names.index(name)
    lower = {known.lower(): known for known in classes.names}
    close = [lower[match] for match in difflib.get_close_matches(name.lower(), lower, n=1)]
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise UsageError(f"class {name!r} is unknown, expected one of: {', '.join(classes.names)}{hint}")


def _seen_mask(raw: RawTile) -> Mask:
    """Return the mask as the data set hands it out: ground without imagery is void."""
    return raw.mask if raw.valid.all() else np.where(raw.valid, raw.mask, np.uint8(IGNORE_INDEX))


def _present(patches: Sequence[ClassPatches], mask: Mask) -> list[ClassPatches]:
    present = [one for one in patches if (mask == one.class_index).any()]
    if not present:
        raise UsageError("the tile has no labelled pixel; choose another, or name a class with --class")
    return present
