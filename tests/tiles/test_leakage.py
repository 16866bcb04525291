"""The same pixels, or the same ground, in two splits is refused; in one split it is told."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS

from ctrs.config import PrepareConfig, SplitName
from ctrs.errors import DataError, DataWarning
from ctrs.raster.geotiff import Grid
from ctrs.raster.windows import PixelWindow
from ctrs.tiles import audit_source, prepare_tiles
from ctrs.tiles.cutting import CutTile, pixel_hash
from ctrs.tiles.findings import Findings
from ctrs.tiles.ground import Length, Place
from ctrs.tiles.leakage import Duplicates, check_apart, check_duplicates, find_duplicates
from ctrs.tiles.statistics import Moments

if TYPE_CHECKING:
    from pathlib import Path

    from tests.tiles.conftest import Maker

TRANSFORM = Affine(0.5, 0, 400000, 0, -0.5, 5800000)


def tile(scene: str, seed: int, *, col: int = 0, value: int | None = None) -> CutTile:
    pixels = np.random.default_rng(seed).integers(0, 255, (3, 8, 8)).astype(np.uint8)
    if value is not None:
        pixels[:] = value
    return CutTile(
        scene=scene, row=0, col=col, window=PixelWindow(col_off=8 * col, row_off=0, width=8, height=8), kept=True,
        valid_fraction=1.0, class_counts=(64,), moments=Moments.of(pixels, np.ones((8, 8), bool)),
        hash=pixel_hash(pixels),
    )  # fmt: skip


def test_equal_pixels_are_found_whatever_the_name() -> None:
    tiles: list[tuple[CutTile, SplitName]] = [
        (tile("a", 1), "train"), (tile("a", 2, col=1), "train"), (tile("b", 2), "test"), (tile("b", 1, col=5), "test"),
        (tile("c", 3), "val"),
    ]  # fmt: skip
    assert find_duplicates(tiles) == [
        Duplicates(first="a", first_split="train", second="b", second_split="test", num_tiles=2)
    ]


def test_constant_tiles_and_repetition_within_a_scene_say_nothing() -> None:
    assert find_duplicates([(tile("a", 1, value=7), "train"), (tile("b", 1, value=7), "test")]) == []
    assert find_duplicates([(tile("a", 1), "train"), (tile("a", 1, col=1), "val")]) == []


def test_of_many_scenes_each_that_leaks_is_named_once() -> None:
    splits: list[SplitName] = ["train", "train", "test", "val"]
    found = find_duplicates([(tile(name, 1), split) for name, split in zip("abcd", splits, strict=True)])
    assert [(pair.first, pair.second) for pair in found] == [("a", "c"), ("a", "d"), ("b", "c")]
    assert all(pair.leaks and pair.num_tiles == 1 for pair in found)


def test_two_splits_are_a_fault_and_one_a_warning() -> None:
    findings = Findings()
    with pytest.warns(DataWarning, match="scenes a and b hold the same pixels in a tile, all in train; leave one out"):
        check_duplicates([(tile("a", 1), "train"), (tile("b", 1), "train"), (tile("c", 2), "train")], findings)
    assert not findings.faults
    check_duplicates([(tile("a", 1), "train"), (tile("b", 1), "val")], findings)
    with pytest.raises(
        DataError,
        match=r"scenes a \(train\) and b \(val\) hold the same pixels in a tile; .* leave one out, or put both",
    ):
        findings.raise_faults()
    assert findings.entries[-1].check == "leakage"


def test_a_long_list_of_pairs_is_counted() -> None:
    findings = Findings()
    train: list[tuple[CutTile, SplitName]] = [(tile(f"a{number:02}", number), "train") for number in range(25)]
    test: list[tuple[CutTile, SplitName]] = [(tile(f"b{number:02}", number), "test") for number in range(25)]
    check_duplicates(train + test, findings)
    assert len(findings.faults) == 20
    assert "and 5 more such pairs of scenes do" in str(findings.faults[-1])


def test_tiles_of_two_splits_that_share_ground_are_a_fault() -> None:
    grid = Grid(crs=CRS.from_epsg(32633), transform=TRANSFORM, width=100, height=10)
    places = [
        Place(scene=name, grid=grid, window=PixelWindow(col_off=left, row_off=0, width=10, height=10))
        for name, left in (("a", 0), ("b", 5), ("c", 40))
    ]
    for splits, buffer, number in (
        (["train", "train", "val"], None, 0),
        (["train", "val", "test"], None, 1),
        (["train", "train", "val"], Length(px=25), 0),
        (["train", "train", "val"], Length(px=26), 1),
        (["train", "val", "test"], Length(m=20), 3),
    ):
        findings = Findings()
        check_apart(places, splits, buffer, findings)
        assert len(findings.faults) == number
    assert "1 train and 1 val tiles share ground or lie nearer than 20 m, first those of scenes a and b" in str(
        findings.faults[0]
    )


def write_scenes(make: Maker, root: Path) -> Path:
    """Scenes a, b and c; c is a copy of a under another name and in another place."""
    for number, name in enumerate("abc"):
        seed = 0 if name == "c" else number
        transform = TRANSFORM @ Affine.translation(5000 * number, 0)
        blocks = np.kron(np.random.default_rng(seed).integers(0, 2, (4, 4)), np.ones((32, 32))).astype(np.uint8)
        image = blocks[None] * 100 + 50 + make.noise(128, 128, seed=seed) // 8
        make.raster(root / f"images/{name}.tif", image.astype(np.uint8), transform=transform, crs="EPSG:32633")
        make.raster(root / f"labels/{name}.tif", blocks, transform=transform, crs="EPSG:32633")
    return root


def test_a_copy_of_a_scene_in_another_split(make: Maker, tmp_path: Path) -> None:
    source = write_scenes(make, tmp_path / "src")
    config = PrepareConfig(tile_px=64, val=("b",), test=("c",))
    with pytest.raises(DataError, match=r"scenes a \(train\) and c \(test\) hold the same pixels in 4 tiles"):
        prepare_tiles(source, tmp_path / "out", config)
    assert not (tmp_path / "out").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        audit = audit_source(source, tmp_path / "report.html", config)
    assert [finding.check for finding in audit.findings if finding.level == "fault"] == ["leakage"]
    with pytest.warns(DataWarning, match="scenes a and c hold the same pixels in 4 tiles, all in train"):
        prepare_tiles(source, tmp_path / "out", PrepareConfig(tile_px=64, val=("b",)))
