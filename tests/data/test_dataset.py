from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ctrs.classes import IGNORE_INDEX
from ctrs.config import AugmentConfig
from ctrs.data.dataset import TileDataset, make_loader
from ctrs.data.sampling import EpochOrder, OrderedBatches, TrainingBatches
from ctrs.data.tile_store import TileStore
from ctrs.data.transforms import training_transform, whole_tile_transform
from ctrs.errors import BandMismatchError
from ctrs.raster.bands import Bands

BANDS = Bands(names=("red", "green"), dtype="uint8", low=(0, 0), high=(255, 255), mean=(100.0, 50.0), std=(20.0, 10.0))


def make_store(make_tile: Any, count: int = 3, size: int = 40) -> TileStore:
    rng = np.random.default_rng(0)
    return TileStore(
        [
            make_tile(
                rng.integers(0, 255, (2, size, size)).astype(np.uint8),
                rng.integers(0, 2, (size, size)).astype(np.uint8),
            )
            for _ in range(count)
        ]
    )


def test_whole_tiles_are_standardized_and_masks_kept(make_tile: Any) -> None:
    store = make_store(make_tile, 1)
    item = TileDataset(store, BANDS, whole_tile_transform())[(0, 0)]
    raw = store[0]
    expected = (raw.pixels.astype(np.float64) - np.array([100, 50])[:, None, None]) / np.array([20, 10])[:, None, None]
    assert item["image"].dtype == torch.float32
    assert item["mask"].dtype == torch.int64
    np.testing.assert_allclose(item["image"].numpy(), expected, atol=1e-4)
    np.testing.assert_array_equal(item["mask"].numpy(), raw.mask)


def test_pixels_that_are_not_valid_are_zero_and_ignored(make_tile: Any) -> None:
    valid = np.ones((40, 40), bool)
    valid[:, :10] = False
    tile = make_tile(np.full((2, 40, 40), 200, np.uint8), np.ones((40, 40), np.uint8), valid=valid)
    dataset = TileDataset(TileStore([tile]), BANDS, whole_tile_transform(resize_factor=1.5))
    item = dataset[(0, 0)]
    assert (item["image"][:, :, :15] == 0).all()
    assert (item["mask"][:, :15] == IGNORE_INDEX).all()
    assert (item["mask"][:, 15:] == 1).all()
    # Nodata pixels (raw value 200 here) became the mean before resampling; the rim stays between mean and value.
    assert (item["image"][0, :, 15:] > 0).all()
    assert item["image"][0, :, 17:].min() == pytest.approx(5.0, abs=1e-4)


def test_other_bands_are_refused_by_name(make_tile: Any) -> None:
    tile = make_tile(np.zeros((3, 32, 32), np.uint8), np.zeros((32, 32), np.uint8))
    with pytest.raises(BandMismatchError, match=r"image_1\.tif: 3 bands found, expected 2"):
        TileDataset(TileStore([tile]), BANDS, whole_tile_transform())[(0, 0)]


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_the_number_of_workers(make_tile: Any, workers: int) -> None:
    store = make_store(make_tile, 5)
    dataset = TileDataset(store, BANDS, training_transform(AugmentConfig(), crop_px=32), seed=3)

    def epochs(workers: int, *, preload: bool) -> list[torch.Tensor]:
        if preload:
            store.preload()
        batches = TrainingBatches(EpochOrder(5, seed=3), 2)
        loader = make_loader(dataset, batches, workers=workers, pin_memory=False)
        images = []
        for epoch in range(2):
            batches.epoch = epoch
            images += [batch["image"] for batch in loader]
        return images

    here = epochs(0, preload=False)
    elsewhere = epochs(workers, preload=workers == 2)
    assert len(here) == len(elsewhere) == 4
    for one, other in zip(here, elsewhere, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert not torch.equal(here[0], here[2])


def test_the_loader_leaves_the_global_generator_alone(make_tile: Any) -> None:
    loader = make_loader(
        TileDataset(make_store(make_tile), BANDS, training_transform(AugmentConfig(), crop_px=32)),
        TrainingBatches(EpochOrder(3, seed=0), 2),
        workers=0,
        pin_memory=False,
    )
    torch.manual_seed(5)
    before = torch.get_rng_state()
    list(loader)
    assert torch.equal(before, torch.get_rng_state())


def test_ordered_batches_hold_every_tile_once_and_one_shape_each(make_tile: Any) -> None:
    shapes = [(32, 32), (32, 32), (20, 32), (32, 32), (20, 32)]
    store = TileStore([make_tile(np.zeros((2, *shape), np.uint8), np.zeros(shape, np.uint8)) for shape in shapes])
    batches = list(OrderedBatches(store, 2))
    assert [[index for _, index, _ in batch] for batch in batches] == [[0, 1], [3], [2, 4]]
    dataset = TileDataset(store, BANDS, whole_tile_transform())
    loaded = list(make_loader(dataset, OrderedBatches(store, 2), workers=0, pin_memory=False))
    assert [tuple(batch["mask"].shape) for batch in loaded] == [(2, 32, 32), (1, 32, 32), (2, 20, 32)]
