"""Splits, buffers and folds through prepare_tiles: on disk, in the manifest, in words."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine

from ctrs.config import PrepareConfig
from ctrs.errors import DataError, DataWarning, UsageError
from ctrs.raster.geotiff import open_raster, read_window
from ctrs.raster.windows import PixelWindow
from ctrs.tiles import Manifest, prepare_tiles, scene_mosaics
from ctrs.tiles.footprints import tile_footprints

if TYPE_CHECKING:
    from tests.tiles.conftest import Maker

UTM = "EPSG:32633"


def write_scene(
    make: Maker, root: Path, name: str, size: int = 256, *, left: float = 0.0, crs: str | None = UTM, seed: int = 0
) -> None:
    """A scene whose classes are blocks that can be seen in the image."""
    transform = None if crs is None else Affine(0.5, 0, 400000 + left, 0, -0.5, 5800000)
    rng = np.random.default_rng(seed)
    label = np.kron(rng.integers(0, 2, (size // 16, size // 16)), np.ones((16, 16))).astype(np.uint8)
    image = label[None] * 120 + 40 + rng.integers(0, 40, (3, size, size))
    make.raster(root / f"images/{name}.tif", image.astype(np.uint8), transform=transform, crs=crs)
    make.raster(root / f"labels/{name}.tif", label, transform=transform, crs=crs)


def forbidden(*args: object) -> None:
    raise AssertionError("the pass over the pixels began")


def union(manifest: Manifest, split: str) -> shapely.Geometry:
    grids = {scene.name: scene.grid for scene in manifest.scenes}
    tiles = [tile for tile in manifest.tiles if tile.split == split]
    return shapely.union_all(tile_footprints([(grids[tile.scene], tile.window) for tile in tiles], None))


@pytest.mark.filterwarnings("ignore::ctrs.errors.MissingCrsWarning")
def test_training_validation_and_test_by_place(make: Maker, tmp_path: Path) -> None:
    write_scene(make, tmp_path / "src", "a", crs=None)
    config = PrepareConfig(
        tile_px=32, stride_px=16, split="place", test_fraction=0.2, val_fraction=0.2, split_buffer_px=10
    )
    manifest = prepare_tiles(tmp_path / "src", tmp_path / "out", config)
    assert manifest.splits == ("train", "val", "test")
    assert manifest.scenes[0].split == "train+val+test"
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        assert union(manifest, one).distance(union(manifest, other)) >= 10
    left_out = [note for note in manifest.notes if "are left out" in note]
    counted = sum(int(note.split(" of ")[0]) for note in left_out)
    assert counted == 15 * 15 - len(manifest.tiles) > 0
    assert any("train tiles share ground with, or lie nearer than 10 px to, val tiles" in note for note in left_out)
    assert {finding.check for finding in manifest.findings if "left out" in finding.message} == {"splits"}
    on_disk = sorted(path.relative_to(tmp_path / "out") for path in (tmp_path / "out/images").rglob("*.tif"))
    assert on_disk == sorted(tile.image.relative_to(tmp_path / "out") for tile in manifest.tiles)


@pytest.mark.filterwarnings("ignore::ctrs.errors.MissingCrsWarning")
def test_no_receptive_field_sees_another_split(make: Maker, tmp_path: Path) -> None:
    write_scene(make, tmp_path / "src", "a", crs=None)
    config = PrepareConfig(tile_px=32, stride_px=16, split="place", test_fraction=0.2)
    manifest = prepare_tiles(tmp_path / "src", tmp_path / "out", config)
    seen = {}
    for split in manifest.splits:
        (mosaic,) = scene_mosaics(manifest, split, tmp_path / split)
        with open_raster(mosaic.image) as dataset:
            _, valid = read_window(dataset, PixelWindow(col_off=0, row_off=0, width=256, height=256))
        own = np.zeros((256, 256), bool)
        for tile in manifest.split(split):
            own[tile.window.slices] = True
            with rasterio.open(tile.image) as image:  # training reads these pixels and no others
                assert image.shape == (tile.window.height, tile.window.width)
        assert np.array_equal(valid, own)
        seen[split] = valid
    assert not (seen["train"] & (seen["val"] | seen["test"])).any()
    assert not (seen["val"] & seen["test"]).any()


def test_splits_of_scenes_that_overlap_are_cut_apart_by_a_buffer(make: Maker, tmp_path: Path) -> None:
    write_scene(make, tmp_path / "src", "a", seed=1)
    write_scene(make, tmp_path / "src", "b", left=96.0, seed=2)  # 64 px in common
    with pytest.raises(
        DataError, match=r"share 24.7 % of the smaller one's ground; .*, or cut the ground away with --split-buffer"
    ):
        prepare_tiles(tmp_path / "src", tmp_path / "out", PrepareConfig(tile_px=32, val=("b",)))
    for buffer_m, columns in ((0.0, 6), (16.0, 5), (16.5, 4)):
        config = PrepareConfig(tile_px=32, val=("b",), split_buffer_m=buffer_m, overwrite=True)
        manifest = prepare_tiles(tmp_path / "src", tmp_path / "out", config)
        assert len(manifest.split("val")) == 64
        assert len(manifest.split("train")) == 8 * columns
        assert union(manifest, "train").distance(union(manifest, "val")) >= buffer_m


def test_a_buffer_that_leaves_nothing(make: Maker, tmp_path: Path) -> None:
    write_scene(make, tmp_path / "src", "a", seed=1)
    write_scene(make, tmp_path / "src", "b", left=130.0, seed=2)
    config = PrepareConfig(tile_px=32, val=("b",), split_buffer_m=500)
    with pytest.raises(
        DataError, match="none of 64 training tiles is farther than 500 m from the ground of val tiles; choose a small"
    ):
        prepare_tiles(tmp_path / "src", tmp_path / "out", config)


def test_a_buffer_that_leaves_no_ground_to_validate_on(make: Maker, tmp_path: Path) -> None:
    write_scene(make, tmp_path / "src", "a", 64, seed=1)
    config = PrepareConfig(tile_px=32, split_buffer_m=30)
    with pytest.warns(DataWarning, match=r"no validation split: .*, or choose smaller tiles, a smaller --split-buffer"):
        manifest = prepare_tiles(tmp_path / "src", tmp_path / "out", config)
    assert (manifest.splits, len(manifest.tiles)) == (("train",), 4)
    config = PrepareConfig(tile_px=32, split="place", test_fraction=0.3, split_buffer_m=30)
    with pytest.raises(DataError, match="none of 4 tiles is farther than 30 m from the test tiles that were cut by pl"):
        prepare_tiles(tmp_path / "src", tmp_path / "test", config)


def test_validation_is_cut_from_what_the_test_leaves(make: Maker, tmp_path: Path) -> None:
    write_scene(make, tmp_path / "src", "a", seed=1)
    write_scene(make, tmp_path / "src", "b", left=128.0, seed=2)
    config = PrepareConfig(tile_px=32, test=("b",), split_buffer_m=66, val_fraction=0.25)
    manifest = prepare_tiles(tmp_path / "src", tmp_path / "out", config)
    assert all(tile.window.col_off < 128 for tile in manifest.tiles if tile.scene == "a")
    assert len(manifest.split("test")) == 64
    for one, other in (("train", "test"), ("val", "test"), ("train", "val")):
        assert union(manifest, one).distance(union(manifest, other)) >= 66 - 1e-6


def test_folds_by_place(make: Maker, tmp_path: Path) -> None:
    write_scene(make, tmp_path / "src", "a", seed=1)
    write_scene(make, tmp_path / "src", "b", left=500.0, seed=2)
    config = PrepareConfig(tile_px=32, test=("b",), folds=4, split_buffer_px=20)
    manifest = prepare_tiles(tmp_path / "src", tmp_path / "out", config)
    assert manifest.splits == ("train", "test")
    assert manifest.num_folds == 4
    assert all((tile.fold is None) == (tile.split == "test") for tile in manifest.tiles)
    assert any("4 folds by place of 16 tiles each" in note for note in manifest.notes)
    for fold in range(4):
        divided = manifest.for_fold(fold)
        assert len(divided.split("val")) == 16
        assert union(divided, "train").distance(union(divided, "val")) >= 20 * 0.5 - 0.01
        assert divided.split("test") == manifest.split("test")
    again = prepare_tiles(tmp_path / "src", tmp_path / "again", config)
    assert [tile.fold for tile in again.tiles] == [tile.fold for tile in manifest.tiles]


def test_what_validates_is_dealt_into_folds_too(make: Maker, tmp_path: Path) -> None:
    for number, split in enumerate(("train", "val")):
        write_scene(make, tmp_path / f"src/{split}", f"s{number}", left=500.0 * number, seed=number)
    manifest = prepare_tiles(tmp_path / "src", tmp_path / "out", PrepareConfig(tile_px=64, folds=2))
    assert manifest.splits == ("train",)
    assert {tile.scene for tile in manifest.for_fold(0).split("val")} == {"s0", "s1"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"split": "place", "val": ("a",)},
            "--split place deals all ground out by place, and --val names scenes; leave out",
        ),
        ({"folds": 2, "val": ("a",)}, "--folds validates on each part of the training ground in turn, and --val"),
        ({"split": "place", "block_m": 20.0}, r"--block 20m: scene a has no transform.* give pixels \(--block 512\)"),
        ({"split_buffer_m": 2.5}, r"--split-buffer 2.5m: scene a has no transform .*, so its metres are not known"),
        ({"split_buffer_m": 2.5, "src_crs": UTM}, r"add a world file .*\(--src-crs alone does not place it\)"),
    ],
)
@pytest.mark.filterwarnings("ignore::ctrs.errors.MissingCrsWarning")
def test_options_that_do_not_fit(make: Maker, tmp_path: Path, options: dict[str, object], message: str) -> None:
    write_scene(make, tmp_path / "src", "a", 64, crs=None)
    with pytest.raises(UsageError, match=message):
        prepare_tiles(tmp_path / "src", tmp_path / "out", PrepareConfig(tile_px=32, **options))


def test_too_many_folds(make: Maker, tmp_path: Path) -> None:
    write_scene(make, tmp_path / "src", "a", 64)
    with pytest.raises(DataError, match="5 folds asked for, but the training ground has 4 pieces that share no ground"):
        prepare_tiles(tmp_path / "src", tmp_path / "out", PrepareConfig(tile_px=32, folds=5), progress=forbidden)
    with pytest.raises(DataError, match="3 folds asked for, but the training ground has 1 block; choose fewer"):
        prepare_tiles(
            tmp_path / "src", tmp_path / "out", PrepareConfig(tile_px=32, folds=3, block_m=64.0), progress=forbidden
        )


def test_hashes_of_sources_and_counts_stand_in_the_manifest(make: Maker, tmp_path: Path) -> None:
    write_scene(make, tmp_path / "src", "a", 128)
    manifest = prepare_tiles(tmp_path / "src", tmp_path / "out", PrepareConfig(tile_px=64))
    files = [tmp_path / "src/images/a.tif", tmp_path / "src/labels/a.tif"]
    expected = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    assert manifest.source_hashes == expected
    assert len(set(expected.values())) == 2
    assert manifest.facts["a"]["tiled_counts"] == manifest.facts["a"]["label_counts"]
    assert len({tile.hash for tile in manifest.tiles}) == 4
