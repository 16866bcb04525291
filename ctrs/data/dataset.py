"""Prepared tiles as network input.

Crops and augmentation are pure functions of (seed, epoch, index, repetition), so that loader processes hold no state
and a resumed run sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ctrs.classes import IGNORE_INDEX
from ctrs.data.sampling import EpochOrder, SampleKey, TrainingBatches
from ctrs.data.sampling import OrderedBatches as OrderedBatches
from ctrs.data.tile_store import TileStore
from ctrs.data.transforms import Sample, Transform, sample_rng
from ctrs.raster.bands import Bands


class Batch(TypedDict):
    """Network input: ``image`` float32 (B, C, H, W) standardized, ``mask`` int64 (B, H, W)."""

    image: torch.Tensor
    mask: torch.Tensor


class TileDataset(Dataset[Batch]):
    """Tiles as tensors, each a pure function of (seed, epoch, index).

    Args:
        store: The tiles.
        bands: Scaling and standardization.
        transform: From ``training_transform`` or ``whole_tile_transform``.
        seed: Of the random transforms.
    """

    def __init__(self, store: TileStore, bands: Bands, transform: Transform, *, seed: int = 0) -> None:
        self.store = store
        self.bands = bands
        self.transform = transform
        self.seed = seed
        self._mean = np.array(bands.scaled_mean_std()[0], np.float32)[:, None]

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, key: SampleKey | tuple[int, int]) -> Batch:
        """Return one tile: ``image`` (C, H, W) and ``mask`` (H, W). Pixels that are not valid are 0 and ignored."""
        epoch, index, repetition = SampleKey(*key)
        raw = self.store[index]
        tile = self.store.tiles[index]
        self.bands.check_source(raw.pixels.shape[0], str(raw.pixels.dtype), where=str(tile.image))
        image = self.bands.scale(raw.pixels)
        if not raw.valid.all():
            image[:, ~raw.valid] = self._mean  # so that resampling does not draw nodata values into valid pixels
        sample = Sample(image=image, mask=raw.mask, valid=raw.valid)
        sample = self.transform(sample, sample_rng(self.seed, epoch, index, repetition))
        standardized = self.bands.standardize(np.array(sample.image, np.float32, order="C"))
        mask = sample.mask.astype(np.int64)
        if not sample.valid.all():
            standardized[:, ~sample.valid] = 0.0
            mask[~sample.valid] = IGNORE_INDEX
        return {"image": torch.from_numpy(standardized), "mask": torch.from_numpy(mask)}


class ShuffledBatches(TrainingBatches):
    """Batches of an epoch in random order, each tile once."""

    def __init__(self, num_tiles: int, batch_size: int, *, seed: int) -> None:
        super().__init__(EpochOrder(num_tiles, seed=seed), batch_size)


def make_loader(
    dataset: TileDataset, batches: Sampler[list[SampleKey]], *, workers: int, pin_memory: bool
) -> DataLoader[Batch]:
    """Return a loader over batches of keys.

    Args:
        dataset: The tiles.
        batches: Which tiles form which batch.
        workers: Loader processes; 0 loads in this one.
        pin_memory: Page-locked batches, for copies to a GPU that overlap with its work.
    """
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # else each pass draws from the global generator
    )
