"""A small ground with known labels, and networks whose answers are not trivial: for tests of scores."""

from __future__ import annotations

import numpy as np
import rasterio
import torch
from rasterio.crs import CRS
from rasterio.transform import Affine
from scipy import ndimage

from ctrs.classes import ClassMap, LandClass
from ctrs.config import PredictConfig
from ctrs.models.checkpoint import CheckpointMetadata, save_checkpoint
from ctrs.models.segmentation import create_model
from ctrs.raster.bands import Bands
from ctrs.raster.windows import sliding_windows
from ctrs.tiles.manifest import Manifest, Scene, Tile

CLASSES = ClassMap(
    classes=(
        LandClass(value=0, name="ground", color=(255, 255, 255)),
        LandClass(value=1, name="building", color=(0, 0, 255)),
        LandClass(value=5, name="clutter", color=(255, 0, 0), scored=False),
    )
)
BANDS = Bands(
    names=("red", "green", "blue"), dtype="uint8", low=(0,) * 3, high=(255,) * 3, mean=(110,) * 3, std=(45,) * 3,
    nodata=0,
)  # fmt: skip
SIZES = {"t1": (150, 170), "t2": (64, 100), "area": (96, 192)}
TILE_PX = 64
UTM = CRS.from_epsg(32633)
CPU = PredictConfig(device="cpu", threads=1)


def write(path, pixels, transform, crs, nodata):
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "count": len(pixels), "dtype": "uint8", "height": pixels.shape[1]}
    with rasterio.open(
        path, "w", **profile, width=pixels.shape[2], transform=transform, crs=crs, nodata=nodata
    ) as file:
        file.write(pixels)


def make_scene(name, rng):
    """Image with a strip without imagery, labels, and labels with eroded borders."""
    height, width = SIZES[name]
    blobs = ndimage.gaussian_filter(rng.normal(size=(3, height, width)), (0, 8, 8))
    truth = np.argmax(blobs, axis=0).astype(np.uint8)
    image = np.clip(60 + 70 * truth + rng.normal(0, 15, (3, height, width)), 1, 255).astype(np.uint8)
    image[:, :, :7] = 0
    truth[:, :7] = 255
    border = (ndimage.maximum_filter(truth, 5) != truth) | (ndimage.minimum_filter(truth, 5) != truth)
    return image, truth, np.where(border, 255, truth).astype(np.uint8)


def prepare(root, *, crs=UTM, eroded=True, splits=("train", "val", "test"), preset=None):
    """A small data set: two test scenes, and one scene whose right half is validation."""
    rng = np.random.default_rng(4)
    scenes, tiles = [], []
    for number, name in enumerate(SIZES):
        image, truth, inner = make_scene(name, rng)
        transform = Affine(0.1, 0, 400_000 + 100 * number, 0, -0.1, 5_800_000)
        source = root.parent / "source" / f"{name}.tif"
        write(source, image, transform, crs, 0)
        write(source.with_name(f"{name}_label.tif"), truth[None], transform, crs, 255)
        height, width = truth.shape
        scenes.append(
            Scene(
                name=name, split="test" if name.startswith("t") else "train+val", width=width, height=height,
                crs_wkt=None if crs is None else crs.to_wkt(), transform=tuple(transform)[:6], source_image=str(source),
                source_label="",
            )
        )  # fmt: skip
        for index, window in enumerate(sliding_windows(height, width, TILE_PX, TILE_PX)):
            rows, cols = window.slices
            split = "test" if name.startswith("t") else ("val" if window.col_off >= 96 else "train")
            if split not in splits or (split == "train" and cols.stop > 96):
                continue
            paths = {
                kind: root / kind / split / f"{name}_{index:03d}.tif" for kind in ("images", "masks", "masks_eroded")
            }
            place = transform @ Affine.translation(window.col_off, window.row_off)
            write(paths["images"], image[:, rows, cols], place, crs, 0)
            write(paths["masks"], truth[None, rows, cols], place, crs, 255)
            if eroded:
                write(paths["masks_eroded"], inner[None, rows, cols], place, crs, 255)
            tiles.append(
                Tile(
                    scene=name, split=split, window=window, image=paths["images"], mask=paths["masks"],
                    mask_eroded=paths["masks_eroded"] if eroded else None, valid_fraction=1.0,
                    class_counts=tuple(int((truth[rows, cols] == k).sum()) for k in range(3)),
                )
            )  # fmt: skip
    manifest = Manifest(
        root=root.absolute(), name="town", tiles=tuple(tiles), scenes=tuple(scenes), classes=CLASSES, bands=BANDS,
        tile_px=TILE_PX, pixel_size_m=0.1, preset=preset, fingerprint="town",
    )  # fmt: skip
    manifest.save(root)
    return manifest


def make_run(run, *, seed=1, **options):
    """A run folder with a best checkpoint."""
    run.mkdir(parents=True)
    (run / "config.toml").write_text("epochs = 1\n")
    make_checkpoint(run / "best", seed=seed, **options)
    return run


def make_checkpoint(folder, *, classes=CLASSES, bands=BANDS, seed=1):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = create_model("pvt", "unetformer", num_classes=classes.num_classes, in_channels=bands.count)
        with torch.no_grad():
            for parameter in model.head.parameters():
                parameter.mul_(30)  # so that an untrained network predicts more than one class
    metadata = CheckpointMetadata(
        architecture=model.architecture, classes=classes, bands=bands, window_px=TILE_PX, overlap=0.25
    )
    save_checkpoint(folder, model, metadata)
    return folder
