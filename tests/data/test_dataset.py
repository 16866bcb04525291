from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ctrs.classes import IGNORE_INDEX
from ctrs.config import AugmentConfig
from ctrs.data import dataset as loading
from ctrs.data.dataset import ScaledTile, TileDataset, make_loader
from ctrs.data.sampling import EpochOrder, OrderedBatches, SampleKey, TrainingBatches
from ctrs.data.tile_store import TileStore
from ctrs.data.transforms import training_transform, whole_tile_transform
from ctrs.errors import BandMismatchError, DataWarning, InputNotFoundError
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


def test_batches_of_whole_tiles_have_one_shape_each(make_tile: Any) -> None:
    shapes = [(32, 32), (32, 32), (20, 32), (32, 32), (20, 32)]
    store = TileStore([make_tile(np.zeros((2, *shape), np.uint8), np.zeros(shape, np.uint8)) for shape in shapes])
    dataset = TileDataset(store, BANDS, whole_tile_transform())
    loaded = list(make_loader(dataset, OrderedBatches(store, 2), workers=0, pin_memory=False))
    assert [tuple(batch["mask"].shape) for batch in loaded] == [(2, 32, 32), (1, 32, 32), (2, 20, 32)]


ALL_ON = AugmentConfig(
    rotate=30.0, gamma=0.4, noise=0.1, blur=2.0, band_shift=0.1, cutmix=0.5, mosaic=0.5, scale=(0.5, 2.0)
)


@pytest.mark.parametrize("count", [1, 4, 8, 20])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_with_all_augmentation_on_any_bands_become_network_input(make_tile: Any, count: int, dtype: str) -> None:
    rng = np.random.default_rng(0)
    low, high = (-3000, 3000) if dtype == "int16" else (0, 255 if dtype == "uint8" else 4000)
    valid = np.ones((50, 60), bool)
    valid[:, :20] = False
    pixels = [rng.integers(low, high, (count, 50, 60)).astype(dtype) for _ in range(3)]
    if dtype == "float32":
        pixels[0][:, ~valid] = np.nan
    tiles = [
        make_tile(values, np.full((50, 60), number, np.uint8), valid=valid) for number, values in enumerate(pixels)
    ]
    bands = Bands(
        names=tuple(f"band{number}" for number in range(count)), dtype=dtype, low=(low,) * count, high=(high,) * count,
        mean=((low + high) / 2,) * count, std=((high - low) / 4,) * count,
    )  # fmt: skip
    dataset = TileDataset(TileStore(tiles), bands, training_transform(ALL_ON, crop_px=40))
    values, mixed = set(), 0
    for epoch in range(8):
        item = dataset[(epoch, epoch % 3)]
        assert item["image"].shape == (count, 40, 40)
        assert item["image"].dtype == torch.float32
        assert torch.isfinite(item["image"]).all()
        assert item["image"].abs().max() <= 2.01  # all values within the scaled range, standardized
        found = set(item["mask"].unique().tolist())
        values |= found
        mixed += len(found - {IGNORE_INDEX}) > 1
        nothing = item["mask"] == IGNORE_INDEX  # no label here is ignored but for its pixel
        assert nothing.any()
        assert (item["image"][:, nothing] == 0).all()
        assert (item["image"][:, ~nothing] != 0).any()
    assert values == {0, 1, 2, IGNORE_INDEX}
    assert mixed


def test_repetitions_of_a_tile_differ_and_the_first_is_the_tile_as_ever(make_tile: Any) -> None:
    dataset = TileDataset(make_store(make_tile), BANDS, training_transform(AugmentConfig(), crop_px=32), seed=1)
    first, second, third = (dataset[SampleKey(2, 1, repetition)]["image"] for repetition in range(3))
    assert torch.equal(first, dataset[(2, 1)]["image"])
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)
    assert torch.equal(second, dataset[SampleKey(2, 1, 1)]["image"])


def test_mixed_samples_are_the_same_in_loader_processes(make_tile: Any) -> None:
    dataset = TileDataset(make_store(make_tile, 5), BANDS, training_transform(ALL_ON, crop_px=32), seed=3)
    order = EpochOrder(5, seed=3, repeats=np.array([1.0, 2.5, 1.0, 1.5, 1.0]))
    loaders = [make_loader(dataset, TrainingBatches(order, 2), workers=workers, pin_memory=False) for workers in (0, 2)]
    here, there = (torch.cat([batch["image"] for batch in loader]) for loader in loaders)
    assert len(here) == 6
    assert torch.equal(here, there)


def test_only_the_crop_is_scaled_to_the_same_values(make_tile: Any) -> None:
    raw = make_store(make_tile, 1)[0]
    whole = np.moveaxis(BANDS.scale(raw.pixels), 0, -1)
    tile = ScaledTile(raw, BANDS)
    piece = tile.cut(slice(3, 20), slice(5, 37))
    np.testing.assert_array_equal(piece.image, whole[3:20, 5:37])
    np.testing.assert_array_equal(piece.mask, raw.mask[3:20, 5:37])
    assert piece.valid.all()
    beyond = tile.nothing((4, 5))
    assert not beyond.valid.any()
    np.testing.assert_allclose(beyond.image[2, 3], [100 / 255, 50 / 255])


def test_too_little_shared_memory_for_loader_processes_is_told(
    make_tile: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(loading, "_SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(loading.shutil, "disk_usage", lambda _: SimpleNamespace(free=100_000))
    dataset = TileDataset(make_store(make_tile), BANDS, whole_tile_transform())
    batches = TrainingBatches(EpochOrder(3, seed=0), 3)
    with pytest.warns(DataWarning, match=r"100 kB free found, but .* take 384 kB: .* lower --workers or --batch-size"):
        make_loader(dataset, batches, workers=2, pin_memory=False)
    make_loader(dataset, batches, workers=0, pin_memory=False)
    monkeypatch.setattr(loading.shutil, "disk_usage", lambda _: SimpleNamespace(free=400_000))
    make_loader(dataset, batches, workers=2, pin_memory=False)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_a_loader_process_is_the_one_sentence(make_tile: Any, workers: int) -> None:
    store = make_store(make_tile)
    dataset = TileDataset(store, BANDS, whole_tile_transform())
    store.tiles[1].image.unlink()
    with pytest.raises(InputNotFoundError) as alone:
        dataset[(0, 1)]
    batches = OrderedBatches(store, 3, rank=0, world_size=1)
    with pytest.raises(InputNotFoundError) as caught:
        list(make_loader(dataset, batches, workers=workers, pin_memory=False))
    assert str(caught.value) == str(alone.value)
    assert "Caught" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
