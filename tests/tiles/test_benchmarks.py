"""Each preset, end to end, on a small fake in the layout in which the data set is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from affine import Affine

from ctrs.config import PrepareConfig
from ctrs.errors import MissingCrsWarning
from ctrs.synthetic.town import TownConfig, make_town
from ctrs.tiles import Manifest, prepare_tiles
from ctrs.tiles.presets import load_preset

if TYPE_CHECKING:
    from tests.tiles.conftest import Maker

SIZE = 96


def prepare(tmp_path: Path) -> Manifest:
    return prepare_tiles(tmp_path / "src", tmp_path / "out", PrepareConfig(tile_px=32))


def painted(make: Maker, preset: str, seed: int) -> np.ndarray:
    known = load_preset(preset)
    assert known is not None
    learnt = known.classes.learnt
    return np.array([entry.color for entry in learnt], np.uint8)[
        make.indices(SIZE, SIZE, num=len(learnt), seed=seed)
    ].transpose(2, 0, 1)


def counts_are_whole(manifest: Manifest) -> None:
    total = sum(sum(manifest.class_counts(split)) for split in manifest.splits)
    assert total == SIZE * SIZE * len(manifest.scenes)


def test_vaihingen(make: Maker, tmp_path: Path) -> None:
    source = tmp_path / "src"
    for number, area in enumerate((1, 3, 2)):
        transform = Affine(0.09, 0, 496000 + 1000 * number, 0, -0.09, 5420000)
        name = f"top_mosaic_09cm_area{area}"
        make.raster(source / f"top/{name}.tif", make.noise(SIZE, SIZE), transform=transform)
        labels = painted(make, "vaihingen", number)
        make.raster(source / f"gts_for_participants/{name}.tif", labels)
        labels[:, ::8] = 0
        make.raster(source / f"gts_eroded_for_participants/{name}_noBoundary.tif", labels)
    manifest = prepare(tmp_path)
    assert (manifest.preset, manifest.has_eroded) == ("vaihingen", True)
    assert manifest.bands.names == ("near infrared", "red", "green")
    assert manifest.scene("vaihingen_2").split == "test"
    assert manifest.pixel_size_m == pytest.approx(0.09)
    counts_are_whole(manifest)


@pytest.mark.parametrize("preset", ["loveda", "uavid"])
def test_unreferenced_benchmarks(make: Maker, tmp_path: Path, preset: str) -> None:
    source = tmp_path / "src"
    places: dict[str, Callable[[str, int], tuple[str, str]]] = {
        "loveda": lambda split, n: (f"{split}/Urban/images_png/{n}.png", f"{split}/Urban/masks_png/{n}.png"),
        "uavid": lambda split, n: (
            f"uavid_{split.lower()}/seq{n}/Images/000000.png",
            f"uavid_{split.lower()}/seq{n}/Labels/000000.png",
        ),
    }
    for number, split in enumerate(("Train", "Val", "Test")):
        image, label = places[preset](split, number)
        make.raster(source / image, make.noise(SIZE, SIZE, seed=number))
        if split != "Test":
            values = make.indices(SIZE, SIZE, num=7, seed=number) + np.uint8(1)
            make.raster(source / label, values if preset == "loveda" else painted(make, preset, number))
    with pytest.warns(MissingCrsWarning, match="and 1 more: no CRS found"):
        manifest = prepare(tmp_path)
    assert manifest.preset == preset
    assert manifest.splits == ("train", "val")
    assert any("1 images of the" in note for note in manifest.notes)
    counts_are_whole(manifest)


def test_inria(make: Maker, tmp_path: Path) -> None:
    root = tmp_path / "src/AerialImageDataset"
    for number, (part, name) in enumerate((("train", "austin1"), ("train", "austin7"), ("test", "sfo1"))):
        transform = Affine(0.3, 0, 600000 + 1000 * number, 0, -0.3, 3300000)
        where = {"transform": transform, "crs": "EPSG:32614"}
        make.raster(root / part / f"images/{name}.tif", make.noise(SIZE, SIZE), **where)
        if part == "train":
            make.raster(root / part / f"gt/{name}.tif", make.indices(SIZE, SIZE, num=2) * np.uint8(255), **where)
    manifest = prepare(tmp_path)
    assert {scene.name: scene.split for scene in manifest.scenes} == {"inria_austin1": "val", "inria_austin7": "train"}
    assert manifest.classes.names == ("background", "building")
    counts_are_whole(manifest)


def test_the_towns_own_layout(tmp_path: Path) -> None:
    source = make_town(tmp_path / "town", TownConfig(size_px=192, train_ids=("2_10", "3_10"), test_ids=("2_13",)))
    manifest = prepare_tiles(source, tmp_path / "out", PrepareConfig(tile_px=64))
    assert manifest.preset == "potsdam"
    assert manifest.has_eroded
    assert {split: len(manifest.split(split)) for split in manifest.splits} == {"train": 16, "val": 2, "test": 9}
    assert sum(sum(manifest.class_counts(split)) for split in manifest.splits) == 3 * 192**2
