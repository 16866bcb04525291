"""Prepared tiles as network input.

Crops and augmentation are pure functions of (seed, epoch, index, repetition), so that loader processes hold no state
and a resumed run sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

import ctypes
import shutil
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypedDict

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from ctrs.classes import IGNORE_INDEX
from ctrs.data.samples import Sample, nothing, sample_rng
from ctrs.data.sampling import SampleKey
from ctrs.data.tile_store import RawTile, TileStore
from ctrs.data.transforms import Transform
from ctrs.errors import CtrsError, DataWarning
from ctrs.progress import format_bytes
from ctrs.raster.bands import Bands, FloatArray

_SHARED_MEMORY = Path("/dev/shm")
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _KEPT_BYTES = -1, -3, 2**30  # of mallopt(3)


class Batch(TypedDict):
    """Network input: ``image`` float32 (B, C, H, W) standardized, ``mask`` int64 (B, H, W)."""

    image: torch.Tensor
    mask: torch.Tensor


class ScaledTile:
    """A decoded tile whose values are scaled to [0, 1] where they are cut, and only there.

    Args:
        raw: The tile.
        bands: Scaling.
    """

    def __init__(self, raw: RawTile, bands: Bands) -> None:
        self._raw = raw
        self._bands = bands
        self._mean = np.array(bands.scaled_mean_std()[0], np.float32)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self._raw.mask.shape[0], self._raw.mask.shape[1]

    def cut(self, rows: slice, cols: slice) -> Sample:
        """Return a part; pixels that are not valid have the mean of all tiles, lest resampling draws nodata in."""
        pixels, valid = self._raw.pixels[:, rows, cols], self._raw.valid[rows, cols]
        image = _scaled(pixels, self._bands)
        if not valid.all():
            image[~valid] = self._mean
        return Sample(image=image, mask=self._raw.mask[rows, cols], valid=valid)

    def nothing(self, shape: tuple[int, int]) -> Sample:
        """Return a sample without a valid pixel."""
        return nothing(shape, self._mean)


def _scaled(pixels: npt.NDArray[Any], bands: Bands) -> FloatArray:
    """Return (H, W, C) scaled to [0, 1]; bytes by a table, which gives the same in a fraction of the time."""
    count, height, width = pixels.shape
    if pixels.dtype != np.uint8:
        return np.ascontiguousarray(np.moveaxis(bands.scale(pixels), 0, -1))
    table = bands.scale(np.broadcast_to(np.arange(256, dtype=np.uint8), (count, 1, 256)))
    scaled = cv2.LUT(cv2.merge(list(pixels)), np.ascontiguousarray(np.moveaxis(table, 0, -1)))
    return np.asarray(scaled, np.float32).reshape(height, width, count)  # OpenCV drops the axis of a single band


class TileDataset(Dataset[Batch]):
    """Tiles as tensors, each a pure function of (seed, epoch, index, repetition).

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

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, key: SampleKey | tuple[int, int]) -> Batch:
        """Return one tile: ``image`` (C, H, W) and ``mask`` (H, W). Pixels that are not valid are 0 and ignored."""
        epoch, index, repetition = SampleKey(*key)
        rng = sample_rng(self.seed, epoch, index, repetition)
        sample = self.transform(self._tile(index), rng, self._draw_tile)
        image = self.bands.standardize(np.array(np.moveaxis(sample.image, -1, 0), order="C"))
        mask = sample.mask.astype(np.int64)
        if not sample.valid.all():
            image[:, ~sample.valid] = 0.0
            mask[~sample.valid] = IGNORE_INDEX
        return {"image": torch.from_numpy(image), "mask": torch.from_numpy(mask)}

    def _tile(self, index: int) -> ScaledTile:
        raw = self.store[index]
        where = str(self.store.tiles[index].image)
        self.bands.check_source(raw.pixels.shape[0], str(raw.pixels.dtype), where=where)
        return ScaledTile(raw, self.bands)

    def _draw_tile(self, rng: np.random.Generator) -> ScaledTile:
        return self._tile(int(rng.integers(len(self))))


class _Telling(Dataset[Batch | CtrsError]):
    """Tiles for loader processes, which hand our errors over as values: torch puts its traceback into the message."""

    def __init__(self, dataset: TileDataset) -> None:
        self._dataset = dataset

    def __getitem__(self, key: SampleKey) -> Batch | CtrsError:
        try:
            return self._dataset[key]
        except CtrsError as error:
            return error


def _collate(items: list[Batch | CtrsError]) -> Any:
    return next((item for item in items if isinstance(item, CtrsError)), None) or default_collate(items)


class _TileLoader(DataLoader[Any]):
    """A loader that raises the errors of its processes as they were."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # torch promises a class of its own
        return self._raising(super().__iter__())

    @staticmethod
    def _raising(batches: Iterable[Batch | CtrsError]) -> Iterator[Batch]:
        for batch in batches:
            if isinstance(batch, CtrsError):
                raise batch
            yield batch


def make_loader(
    dataset: TileDataset,
    batches: Sampler[list[SampleKey]],
    *,
    workers: int,
    pin_memory: bool,
    prefetch_factor: int = 2,
) -> DataLoader[Batch]:
    """Return a loader over batches of keys; what it yields depends on the keys alone, not on the loader processes.

    Args:
        dataset: The tiles.
        batches: Which tiles form which batch.
        workers: Loader processes, which live as long as the loader; 0 loads in this one.
        pin_memory: Page-locked batches, for copies to a GPU that overlap with its work.
        prefetch_factor: Batches that each loader process prepares ahead.
    """
    if workers:
        _check_shared_memory(dataset, batches, workers * prefetch_factor + 1)
    return _TileLoader(
        _Telling(dataset) if workers else dataset,
        batch_sampler=batches,
        num_workers=workers,
        persistent_workers=workers > 0,
        prefetch_factor=prefetch_factor if workers else None,
        collate_fn=_collate,
        pin_memory=pin_memory,
        worker_init_fn=_keep_memory if workers else None,
        generator=torch.Generator(),  # else each pass draws from the global generator
    )


def _check_shared_memory(dataset: TileDataset, batches: Sampler[list[SampleKey]], count: int) -> None:
    """Warn where the batches that loader processes prepare do not fit into shared memory; they would be killed."""
    keys = next(iter(batches), [])
    if not keys or not _SHARED_MEMORY.is_dir():
        return
    first = dataset[keys[0]]
    needed = count * len(keys) * (first["image"].nbytes + first["mask"].nbytes)
    free = shutil.disk_usage(_SHARED_MEMORY).free
    if needed > free:
        warnings.warn(
            DataWarning(
                f"{_SHARED_MEMORY}: {format_bytes(free)} free found, but the batches that loader processes prepare "
                f"take {format_bytes(needed)}: they may be killed (bus error); make it larger (docker run --shm-size), "
                "or lower --workers or --batch-size"
            ),
            stacklevel=3,
        )


def _keep_memory(_: int) -> None:
    """Let a loader process keep the memory it frees: fresh pages from the system cost more than all arithmetic."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not the C library of GNU
        return
    for option in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
        mallopt(option, _KEPT_BYTES)
