from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from ctrs.classes import IGNORE_INDEX
from ctrs.data.dataset import TileDataset
from ctrs.data.tile_store import TileStore
from ctrs.data.transforms import whole_tile_transform
from ctrs.tiles.manifest import Manifest
from ctrs.training.example_tiles import ExampleTiles, choose_tiles


class Threshold(nn.Module):
    """Bright is building."""

    def forward(self, images: torch.Tensor) -> Any:
        bright = images.mean(1) > 0
        return SimpleNamespace(logits=torch.stack([~bright, bright], 1).float())


def val_set(prepared: Any, *, factor: float = 1.0) -> TileDataset:
    manifest = Manifest.open(prepared(val=6))
    store = TileStore(manifest.split("val"))
    return TileDataset(store, manifest.bands, whole_tile_transform(resize_factor=factor))


def test_tiles_with_many_classes_come_first_and_scenes_take_turns(prepared: Any) -> None:
    tile = Manifest.open(prepared()).tiles[0]

    def made(scene: str, *counts: int) -> Any:
        return dataclasses.replace(tile, scene=scene, class_counts=counts)

    tiles = [made("a", 9, 1, 1), made("a", 5, 5, 5), made("a", 9, 0, 9), made("b", 3, 0, 0), made("b", 0, 0, 0)]
    assert choose_tiles(tiles, 2) == [1, 3]
    assert choose_tiles(tiles, 4) == [1, 3, 0, 4]
    assert choose_tiles(tiles[:1], 4) == [0]
    assert choose_tiles([], 4) == []


def test_examples_are_the_same_tiles_with_what_the_network_predicts(prepared: Any) -> None:
    tiles = ExampleTiles(val_set(prepared), most=3)
    model = Threshold()
    assert len(tiles) == 3
    first = tiles.predict(model, device=torch.device("cpu"), autocast=nullcontext())  # type: ignore[arg-type]
    again = tiles.predict(model, device=torch.device("cpu"), autocast=nullcontext())  # type: ignore[arg-type]
    assert model.training
    assert [example.name for example in first] == [example.name for example in again]
    assert all(example.name.startswith("town_000_") for example in first)
    for example in first:
        assert example.image.shape == (3, 64, 64)
        assert example.accuracy > 0.99  # so image, truth and prediction lie on one grid
        assert set(np.unique(example.truth)) <= {0, 1, IGNORE_INDEX}


def test_resized_tiles_come_back_to_their_own_grid(prepared: Any) -> None:
    examples = ExampleTiles(val_set(prepared, factor=1.5)).predict(
        Threshold(),  # type: ignore[arg-type]
        device=torch.device("cpu"),
        autocast=nullcontext(),
    )
    assert len(examples) == 4
    assert all(example.predicted.shape == (64, 64) and example.accuracy > 0.9 for example in examples)
