"""Small prepared data and the smallest network, for the rooms that train and score."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import rasterio

from ctrs.classes import IGNORE_INDEX, ClassMap, LandClass
from ctrs.config import AugmentConfig, SplitName, TrainConfig
from ctrs.raster.bands import Bands
from ctrs.raster.windows import PixelWindow
from ctrs.tiles.manifest import Manifest, Scene, Tile

TILE_PX = 64
CLASSES = ClassMap(
    classes=(
        LandClass(value=0, name="ground", color=(0, 0, 0)),
        LandClass(value=1, name="building", color=(255, 0, 0)),
    )
)
BANDS = Bands(
    names=("red", "green", "blue"),
    dtype="uint8",
    low=(0,) * 3,
    high=(255,) * 3,
    mean=(100.0,) * 3,
    std=(50.0,) * 3,
)


def write_tile(path: Path, array: npt.NDArray[np.uint8], nodata: int | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = array.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype="uint8", nodata=nodata,
        crs="EPSG:32633", transform=rasterio.Affine(0.1, 0, 500000, 0, -0.1, 5800000),
    ) as dataset:  # fmt: skip
        dataset.write(array)
    return path


def make_prepared(
    folder: Path,
    *,
    train: int = 6,
    val: int = 2,
    test: int = 0,
    classes: ClassMap = CLASSES,
    labelled: bool = True,
    seed: int = 0,
) -> Path:
    """Write prepared data: bright squares (buildings) on dark noise."""
    rng = np.random.default_rng(seed)
    tiles: list[Tile] = []
    splits: list[SplitName] = ["train"] * train + ["val"] * val + ["test"] * test
    for number, split in enumerate(splits):
        mask = np.zeros((TILE_PX, TILE_PX), np.uint8)
        for _ in range(3):
            row, col = rng.integers(0, TILE_PX - 24, 2)
            mask[row : row + 20, col : col + 24] = min(1, classes.num_classes - 1)
        image = np.where(mask[None] == 1, 180, 70) + rng.integers(-30, 30, (3, TILE_PX, TILE_PX))
        if not labelled:
            mask[:] = IGNORE_INDEX
        tiles.append(
            Tile(
                scene="town",
                split=split,
                window=PixelWindow(col_off=TILE_PX * number, row_off=0, width=TILE_PX, height=TILE_PX),
                image=write_tile(folder / "images" / split / f"town_000_{number:03}.tif", image.astype(np.uint8)),
                mask=write_tile(folder / "masks" / split / f"town_000_{number:03}.tif", mask[None], IGNORE_INDEX),
                valid_fraction=1.0,
                class_counts=tuple(int((mask == index).sum()) for index in range(classes.num_classes)),
            )
        )
    manifest = Manifest(
        root=folder,
        name=folder.name,
        tiles=tuple(tiles),
        scenes=(
            Scene(
                name="town", split="train+val", width=TILE_PX * max(1, len(tiles)), height=TILE_PX,
                crs_wkt=rasterio.CRS.from_epsg(32633).to_wkt(), transform=(0.1, 0, 500000, 0, -0.1, 5800000),
                source_image="town.tif", source_label="town_label.tif",
            ),
        ),
        classes=classes,
        bands=BANDS,
        tile_px=TILE_PX,
        pixel_size_m=0.1,
        preset=None,
        fingerprint="0" * 32,
    )  # fmt: skip
    manifest.save(folder)
    return folder


MakePrepared = Callable[..., Path]


@pytest.fixture(scope="session")
def write_prepared() -> MakePrepared:
    """Write prepared data into a folder."""

    def make(folder: Path, **options: object) -> Path:
        folder.mkdir(parents=True)
        return make_prepared(folder, **options)  # type: ignore[arg-type]

    return make


@pytest.fixture
def prepared(tmp_path: Path, write_prepared: MakePrepared) -> MakePrepared:
    """Write prepared data into ``tmp_path/town``."""
    return lambda name="town", **options: write_prepared(tmp_path / name, **options)


@pytest.fixture(scope="session")
def tiny_config() -> TrainConfig:
    """The smallest network that trains in a second."""
    return TrainConfig(
        backbone="test_convnext",
        decoder="dcfam",
        loss="cl",
        epochs=2,
        batch_size=2,
        crop=32,
        learning_rate=3e-3,
        device="cpu",
        augment=AugmentConfig(scale=(1.0, 1.0)),
    )
