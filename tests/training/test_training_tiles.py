"""A share of the training tiles: nested, the same for every loss, another for each seed."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from ctrs.config import TrainConfig
from ctrs.errors import ConfigError, DataError
from ctrs.tiles.manifest import Manifest
from ctrs.training import train
from ctrs.training.training_tiles import class_counts, training_tiles

WritePrepared = Callable[..., Path]


def names(manifest: Manifest, share: float, **settings: object) -> list[str]:
    config = TrainConfig(train_share=share, **settings)  # type: ignore[arg-type]
    return [tile.image.name for tile in training_tiles(manifest, config)]


def test_shares_of_one_seed_are_nested_and_ordered_as_the_data(write_prepared: WritePrepared, tmp_path: Path) -> None:
    manifest = Manifest.open(write_prepared(tmp_path / "data", train=20, val=2))
    everything = [tile.image.name for tile in manifest.split("train")]
    assert names(manifest, 1.0) == everything
    shares = [names(manifest, share) for share in (0.05, 0.1, 0.25, 0.5)]
    assert [len(share) for share in shares] == [1, 2, 5, 10]
    for small, large in zip(shares, [*shares[1:], everything], strict=True):
        assert set(small) < set(large)
        assert large == sorted(large, key=everything.index)


def test_the_share_depends_on_the_seed_and_on_no_other_setting(write_prepared: WritePrepared, tmp_path: Path) -> None:
    manifest = Manifest.open(write_prepared(tmp_path / "data", train=20, val=2))
    assert names(manifest, 0.25) == names(manifest, 0.25, loss="pne", backbone="swin", batch_size=3)
    assert len({tuple(names(manifest, 0.25, seed=seed)) for seed in range(5)}) == 5


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match="train_share"):
        TrainConfig(train_share=share)


def test_a_share_without_labels_is_refused_with_advice(write_prepared: WritePrepared, tmp_path: Path) -> None:
    manifest = Manifest.open(write_prepared(tmp_path / "data", train=10, val=1))
    chosen = set(names(manifest, 0.1))
    tiles = tuple(
        dataclasses.replace(tile, class_counts=(0, 0)) if tile.image.name in chosen else tile for tile in manifest.tiles
    )
    with pytest.raises(DataError, match=r"no labelled pixel in 1 of 10 training tiles; raise --train-share above 0\.1"):
        training_tiles(dataclasses.replace(manifest, tiles=tiles), TrainConfig(train_share=0.1))


def test_class_counts_are_summed(write_prepared: WritePrepared, tmp_path: Path) -> None:
    manifest = Manifest.open(write_prepared(tmp_path / "data", train=4, val=1))
    assert class_counts(manifest.split("train")) == manifest.class_counts("train")


def test_a_run_learns_from_its_share_alone_and_records_its_memory(
    write_prepared: WritePrepared, tmp_path: Path, tiny_config: TrainConfig
) -> None:
    data = write_prepared(tmp_path / "data", train=8, val=2)
    config = dataclasses.replace(tiny_config, train_share=0.5, tile_draws=2, batch_size=2, epochs=1)
    left_out = {tile.image for tile in Manifest.open(data).split("train")} - {
        tile.image for tile in training_tiles(Manifest.open(data), config)
    }
    assert len(left_out) == 4
    for image in left_out:  # a run that opened one of these would fail
        image.write_bytes(b"not an image")
    train(data, tmp_path / "run", config)
    [row] = csv.DictReader((tmp_path / "run" / "metrics.csv").read_text().splitlines())
    assert int(row["step"]) == 4  # each of 4 tiles twice, in batches of 2
    assert float(row["peak_memory_mb"]) > 50  # Python and torch alone take more
