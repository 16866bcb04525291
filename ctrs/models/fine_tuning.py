"""``--init MODEL``: a network begins from one that ctrs trained, whatever its classes and bands.

What fits is loaded, the rest stays as it was drawn, and both are named:

- Encoder and stage norms, always: the backbone must be the same.
- Decoder, where it is the same one.
- Rows of the head: those of classes with the same name (upper and lower case are the same) are copied; new classes keep
  their drawn rows.
- The layers that read the image: kernels of bands with the same name are copied, in whatever order; a new band gets the
  mean of the source's kernels. Where bands were added or left out, all of these kernels are scaled by source bands /
  bands, as timm does for pretrained first layers, so that the sum over bands keeps its size. Where no band has a known
  name but the number is the same, they are taken in their order.

Projection heads are not taken: they belong to the losses of the earlier run.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ctrs.classes import ClassMap
from ctrs.errors import CheckpointError
from ctrs.model_files import CheckpointMetadata, describe, find_checkpoint
from ctrs.models.checkpoint import read_tensors
from ctrs.models.encoder import resolve_backbone
from ctrs.models.segmentation import SegmentationModel, create_model
from ctrs.raster.bands import Bands

logger = logging.getLogger(__name__)

_ENCODER_PARTS = ("encoder.", "stage_norms.")
_EXAMPLES = 3


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """What a network took over from another one.

    Args:
        source: The weight file.
        weights_hash: SHA-256 of its tensors; None for a model of format 1, which has none.
        data: Name of the data that it was trained on.
        epoch: Its epochs.
        decoder: Its decoder.
        loaded: Names of the tensors that were taken as they are.
        adapted: Names of those whose rows or kernels were taken by the names of classes or bands.
        fresh: Names of those that stay as they were drawn.
        unused: Names of the source's tensors that fit nowhere.
        known_classes: Classes whose rows were copied.
        new_classes: Classes that the source does not know.
        known_bands: Bands whose kernels were copied.
        new_bands: Bands that the source does not know.
    """

    source: Path
    weights_hash: str | None
    data: str | None
    epoch: int
    decoder: str
    loaded: tuple[str, ...]
    adapted: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]
    known_classes: tuple[str, ...]
    new_classes: tuple[str, ...]
    known_bands: tuple[str, ...]
    new_bands: tuple[str, ...]

    def describe(self) -> list[str]:
        """Say in a few lines what was taken, what was adapted, and what was not."""
        total = len(self.loaded) + len(self.adapted) + len(self.fresh)
        lines = [f"{self.source}: {len(self.loaded)} of {total} tensors taken as they are"]
        if self.adapted:
            lines.append(f"by the names of classes and bands: {_some(self.adapted)}")
        if self.new_classes:
            lines.append(f"classes known: {_listed(self.known_classes)}; new: {_listed(self.new_classes)}")
        if self.new_bands:
            lines.append(
                f"bands known: {_listed(self.known_bands)}; new: {_listed(self.new_bands)}, from the mean of the "
                "source's bands"
            )
        if self.fresh:
            lines.append(f"not in the source, drawn anew: {_some(self.fresh)}")
        if self.unused:
            lines.append(f"of the source not taken: {_some(self.unused)}")
        return lines

    def origin(self) -> dict[str, Any]:
        """Return what ``model.json`` says of the source."""
        return {
            "path": str(self.source),
            "weights_hash": self.weights_hash,
            "data": self.data,
            "epoch": self.epoch,
            "tensors": {
                "loaded": len(self.loaded), "adapted": len(self.adapted), "fresh": len(self.fresh),
                "unused": len(self.unused),
            },
            "new_classes": list(self.new_classes),
            "new_bands": list(self.new_bands),
        }  # fmt: skip


def load_matching(model: SegmentationModel, source: Path, bands: Bands, classes: ClassMap) -> Transfer:
    """Load what fits of a model of ctrs into a network with other classes, bands or decoder, and log what did not.

    Args:
        model: The network; changed in place.
        source: A run folder (its best checkpoint), a checkpoint folder, or a weight file.
        bands: The network's.
        classes: The network's.

    Raises:
        InputNotFoundError: There is no such model.
        CheckpointError: It is of another kind, broken, or has another backbone.
    """
    files = find_checkpoint(source)
    metadata = describe(files)
    _check_backbone(model, metadata, source)
    tensors = read_tensors(files, metadata)
    same_decoder = metadata.architecture.decoder == model.architecture.decoder
    by_class, by_band = _dependent(model)
    rows = _places(classes.names, metadata.classes.names)
    places = _places(bands.names, metadata.bands.names)
    known_bands = tuple(name for name, place in zip(bands.names, places, strict=True) if place is not None)
    in_order = not known_bands and bands.count == metadata.bands.count
    if in_order:
        places, known_bands = list(range(bands.count)), bands.names
        logger.info(
            "%s: bands %s are taken for %s, in this order: none has the same name",
            files.weights,
            ", ".join(metadata.bands.names),
            ", ".join(bands.names),
        )
    same_rows = rows == list(range(len(metadata.classes.names)))
    same_bands = places == list(range(metadata.bands.count))
    loaded: list[str] = []
    adapted: list[str] = []
    fresh: list[str] = []
    with torch.no_grad():
        for name, target in model.state_dict().items():
            value = tensors.get(name)
            if value is None or not (same_decoder or name.startswith(_ENCODER_PARTS)):
                fresh.append(name)
            elif name in by_class and not same_rows:
                taken = _fits(value, target, 0) and _copy_rows(target, value, rows)
                (adapted if taken else fresh).append(name)
            elif name in by_band and not same_bands:
                taken = _fits(value, target, 1)
                if taken:
                    _copy_bands(target, value, places)
                (adapted if taken else fresh).append(name)
            elif value.shape == target.shape:
                target.copy_(value)
                loaded.append(name)
            else:
                fresh.append(name)
    taken_names = {*loaded, *adapted}
    known = [name for name, row in zip(classes.names, rows, strict=True) if row is not None] if same_decoder else []
    transfer = Transfer(
        source=files.weights,
        weights_hash=metadata.weights_hash,
        data=metadata.data.get("name"),
        epoch=metadata.epoch,
        decoder=metadata.architecture.decoder,
        loaded=tuple(loaded),
        adapted=tuple(adapted),
        fresh=tuple(fresh),
        unused=tuple(name for name in tensors if name not in taken_names),
        known_classes=tuple(known),
        new_classes=tuple(name for name in classes.names if name not in known),
        known_bands=known_bands,
        new_bands=tuple(name for name in bands.names if name not in known_bands),
    )
    if not same_decoder:
        logger.warning(
            "%s: has the decoder %s, this run %s: only the encoder is taken",
            files.weights,
            metadata.architecture.decoder,
            model.architecture.decoder,
        )
    for line in transfer.describe():
        logger.info("%s", line)
    return transfer


def _check_backbone(model: SegmentationModel, metadata: CheckpointMetadata, source: Path) -> None:
    own, other = (
        resolve_backbone(name).partition(".")[0]
        for name in (model.architecture.backbone, metadata.architecture.backbone)
    )
    if own != other:
        raise CheckpointError(
            f"--init {source}: has the backbone {other}, but this run trains {own}, so nothing of it fits; pass "
            f"--backbone {other}, or a model with {own}"
        )


def _dependent(model: SegmentationModel) -> tuple[set[str], set[str]]:
    """Return the names of the tensors with a row for each class, and of those with a kernel for each band.

    They are those whose shape differs in a network with one more of both, of which only shapes are made.
    """
    architecture = model.architecture
    with torch.device("meta"):
        other = create_model(
            architecture.backbone,
            architecture.decoder,
            num_classes=architecture.num_classes + 1,
            in_channels=architecture.in_channels + 1,
        ).state_dict()
    by_class: set[str] = set()
    by_band: set[str] = set()
    for name, tensor in model.state_dict().items():
        if name not in other or other[name].shape == tensor.shape:
            continue
        (by_class if name.startswith("head.") else by_band).add(name)
    return by_class, by_band


def _places(names: Sequence[str], known: Sequence[str]) -> list[int | None]:
    """Return the place of each name among the known ones, None for a new one.

    >>> _places(("Tree", "car"), ("building", "tree"))
    [1, None]
    """
    index = {name.casefold(): place for place, name in enumerate(known)}
    return [index.get(name.casefold()) for name in names]


def _fits(value: Tensor, target: Tensor, dim: int) -> bool:
    """Whether two tensors have the same shape apart from one dimension."""

    def others(tensor: Tensor) -> list[int]:
        return [size for place, size in enumerate(tensor.shape) if place != dim]

    return value.ndim == target.ndim > dim and others(value) == others(target)


def _copy_rows(target: Tensor, value: Tensor, rows: Sequence[int | None]) -> bool:
    """Copy the rows of known classes; return whether there were any."""
    if len(rows) != len(target):
        return False
    for place, row in enumerate(rows):
        if row is not None:
            target[place].copy_(value[row])
    return any(row is not None for row in rows)


def _copy_bands(target: Tensor, value: Tensor, places: Sequence[int | None]) -> None:
    """Copy the kernels of known bands, give new ones the mean, and keep the size of the sum."""
    mean = value.mean(1)
    for band, place in enumerate(places):
        target[:, band].copy_(mean if place is None else value[:, place])
    if set(places) != set(range(value.shape[1])):
        target.mul_(value.shape[1] / len(places))


def _some(names: Sequence[str]) -> str:
    counted = f"{len(names)} tensor{'' if len(names) == 1 else 's'}"
    return f"{counted} ({', '.join(names[:_EXAMPLES])}{', ...' if len(names) > _EXAMPLES else ''})"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
