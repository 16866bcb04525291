"""A few validation tiles, the same ones in each epoch, to see what the network makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ctrs.classes import IGNORE_INDEX, Mask
from ctrs.data.dataset import TileDataset
from ctrs.models.segmentation import SegmentationModel
from ctrs.report.examples import Example
from ctrs.report.pictures import Image, display_rgb
from ctrs.report.thumbnails import shrink
from ctrs.tiles.manifest import Tile

MOST_EXAMPLES = 4
LONGEST_PX = 512
"""Edge that examples are kept and shown at."""


def choose_tiles(tiles: Sequence[Tile], most: int = MOST_EXAMPLES) -> list[int]:
    """Return the indices of the tiles that show most: many classes, each scene once before any twice.

    Args:
        tiles: Validation tiles.
        most: Largest number.
    """

    def shows(index: int) -> tuple[int, int, int]:
        counts = tiles[index].class_counts
        held = [count for count in counts if count]
        rarest = min(held, default=0)
        return len(held), rarest, -index

    best_first = sorted(range(len(tiles)), key=shows, reverse=True)
    seen: dict[str, int] = {}
    order: list[tuple[int, int, int]] = []
    for rank, index in enumerate(best_first):
        turn = seen.get(tiles[index].scene, 0)
        seen[tiles[index].scene] = turn + 1
        order.append((turn, rank, index))
    return [index for _, _, index in sorted(order)[:most]]


@dataclass(frozen=True)
class _Shown:
    """What stays the same over the epochs."""

    name: str
    index: int
    image: Image
    truth: Mask


class ExampleTiles:
    """Predicts the same few tiles again and again; images and truths are kept small in memory.

    Args:
        dataset: Whole validation tiles.
        most: Largest number.
    """

    def __init__(self, dataset: TileDataset, *, most: int = MOST_EXAMPLES) -> None:
        self._dataset = dataset
        self._shown: list[_Shown] = []
        for index in choose_tiles(dataset.store.tiles, most):
            raw, tile = dataset.store[index], dataset.store.tiles[index]
            truth = np.where(raw.valid, raw.mask, np.uint8(IGNORE_INDEX))
            image, truth = shrink(display_rgb(raw.pixels, dataset.bands, valid=raw.valid), truth, LONGEST_PX)
            self._shown.append(_Shown(name=tile.image.stem, index=index, image=image, truth=truth))

    def __len__(self) -> int:
        return len(self._shown)

    def predict(
        self, model: SegmentationModel, *, device: torch.device, autocast: AbstractContextManager[Any]
    ) -> list[Example]:
        """Return the tiles with what the network predicts, one after the other; its mode stays as it was."""
        was_training = model.training
        model.eval()
        examples: list[Example] = []
        try:
            with torch.inference_mode(), autocast:
                for shown in self._shown:
                    image = self._dataset[(0, shown.index)]["image"][None].to(device)
                    predicted = model(image).logits.argmax(1)[0].to("cpu", torch.uint8).numpy()
                    examples.append(
                        Example(
                            name=shown.name,
                            image=shown.image,
                            truth=shown.truth,
                            predicted=_resampled(predicted, shown.truth.shape),
                        )
                    )
        finally:
            model.train(was_training)
        return examples


def _resampled(mask: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Return every n-th pixel of a mask, so that it has the shape."""
    rows, cols = (
        ((np.arange(new) + 0.5) * old / new).astype(np.intp) for new, old in zip(shape, mask.shape, strict=True)
    )
    return mask[np.ix_(rows, cols)]
