"""A small synthetic town from the air, written as the ISPRS Potsdam set lies on disk once unzipped.

It is the data set of the demo and the tests: georeferenced scenes of one continuous town, their labels, and the labels
with eroded borders. No building leans: a roof's truth is exactly where its roof is in the image.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine

from ctrs.errors import ConfigError, OutputExistsError
from ctrs.jobs import fingerprint, partial_work
from ctrs.progress import Progress, no_progress
from ctrs.synthetic.inventory import CLASS_COLORS
from ctrs.synthetic.scene import Town, render_scene

TRAIN_IDS: tuple[str, ...] = (
    *(f"{row}_{column}" for row in (2, 3, 4, 5) for column in (10, 11, 12)),
    *(f"{row}_{column}" for row in (6, 7) for column in (7, 8, 9, 10, 11, 12)),
)
"""Scenes that the benchmark gives for training."""

TEST_IDS: tuple[str, ...] = (
    "2_13", "2_14", "3_13", "3_14", "4_13", "4_14", "4_15", "5_13", "5_14", "5_15", "6_13", "6_14", "6_15", "7_13",
)  # fmt: skip
"""Scenes that the benchmark keeps for testing."""

TOWN_CRS = "EPSG:32633"
_EAST_M, _NORTH_M = 366000.0, 5808000.0  # upper left corner of the scene that would be called 0_0


@dataclass(frozen=True, kw_only=True)
class TownConfig:
    """Which scenes of which town are made.

    Args:
        size_px: Edge of each square scene. All six classes occur in scenes of 100 m and more.
        pixel_size_m: Ground metres of a pixel; the real set has 0.05.
        train_ids: Names ``ROW_COLUMN`` from the benchmark's training list; neighbours join at their edges.
        test_ids: Names from the benchmark's test list.
        seed: Number of the town; another seed is another town.
        boundary_px: Pixels within this distance of another class are black in the eroded labels.

    Raises:
        ConfigError: A value is out of range, or a name is not in the benchmark's list.
    """

    size_px: int = 1000
    pixel_size_m: float = 0.2
    train_ids: tuple[str, ...] = ("2_10", "2_11", "3_10")
    test_ids: tuple[str, ...] = ("2_13",)
    seed: int = 0
    boundary_px: int = 3

    def __post_init__(self) -> None:
        for key, low, high in (("size_px", 64, 6000), ("seed", 0, 2**32 - 1), ("boundary_px", 0, 32)):
            value = getattr(self, key)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise ConfigError(f"{key} = {value!r} found, expected a whole number from {low} to {high}; change it")
        size = self.pixel_size_m
        if isinstance(size, bool) or not isinstance(size, int | float) or not 0.02 <= size <= 1.0:
            raise ConfigError(f"pixel_size_m = {size!r} found, expected metres from 0.02 to 1; change it")
        for key, official in (("train_ids", TRAIN_IDS), ("test_ids", TEST_IDS)):
            ids = getattr(self, key)
            if isinstance(ids, str) or not all(isinstance(name, str) for name in ids):
                raise ConfigError(f"{key} = {ids!r} found, expected a list of scene names such as {official[0]!r}")
            object.__setattr__(self, key, tuple(ids))
            unknown = [name for name in ids if name not in official]
            if unknown:
                raise ConfigError(f"{key}: {unknown[0]!r} found, expected names from: {', '.join(official)}")
            if len(set(ids)) != len(tuple(ids)):
                raise ConfigError(f"{key}: {', '.join(ids)} found, expected each name once; remove the repeated one")
        if not self.train_ids and not self.test_ids:
            raise ConfigError("train_ids and test_ids: both are empty; name at least one scene")


def make_town(out_dir: Path, config: TownConfig | None = None, *, progress: Progress = no_progress) -> Path:
    """Make the town's scenes and returns the folder that holds them.

    Written are ``2_Ortho_RGB`` (images with world files), ``5_Labels_all`` and ``5_Labels_all_noBoundary``. The same
    configuration gives the same pixels.

    Args:
        out_dir: Folder to create; it appears complete or not at all.
        config: Size, scenes and seed.
        progress: Called after each scene.

    Raises:
        OutputExistsError: ``out_dir`` exists and is not empty.
        OutputError: ``out_dir`` cannot be written.
    """
    config = TownConfig() if config is None else config
    out_dir = Path(out_dir).absolute()
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise OutputExistsError(f"{out_dir}: exists and is not empty; remove it or choose another folder for the town")
    town = Town(config.seed)
    names = (*config.train_ids, *config.test_ids)
    # What an earlier attempt left is not worth keeping: a scene takes seconds.
    with partial_work(out_dir, fingerprint({"town": config}), overwrite=True) as work:
        staged = work.folder / "town"
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir()
        for done, name in enumerate(names):
            progress(done, len(names), "building the town")
            _write_scene(staged, town, name, config)
        progress(len(names), len(names), "building the town")
        work.publish(staged)
    return out_dir


def erode_label(label: NDArray[np.uint8], radius_px: int) -> NDArray[np.bool_]:
    """Return True where a pixel of another class lies within ``radius_px`` (Euclidean, between pixel centres).

    >>> erode_label(np.array([[0, 0, 0, 1, 1]], dtype=np.uint8), 2).astype(int)
    array([[0, 1, 1, 1, 1]])
    """
    near = np.zeros(label.shape, dtype=np.bool_)
    rows, cols = label.shape
    for dr in range(min(radius_px, rows - 1) + 1):
        reach = min(math.isqrt(radius_px**2 - dr**2), cols - 1)
        for dc in range(-reach if dr else 1, reach + 1):  # half of the disc; the other half is the same pairs
            here = (slice(0, rows - dr), slice(max(0, -dc), cols - max(0, dc)))
            there = (slice(dr, rows), slice(max(0, dc), cols - max(0, -dc)))
            differs = label[here] != label[there]
            near[here] |= differs
            near[there] |= differs
    return near


def _write_scene(folder: Path, town: Town, name: str, config: TownConfig) -> None:
    row, column = (int(part) for part in name.split("_"))
    image, label = render_scene(town, row, column, config.size_px, config.pixel_size_m)
    extent_m = config.size_px * config.pixel_size_m
    transform = Affine(
        config.pixel_size_m, 0.0, _EAST_M + column * extent_m, 0.0, -config.pixel_size_m, _NORTH_M - row * extent_m
    )
    stem = f"top_potsdam_{row}_{column:02d}"  # columns have two digits in the real set
    colors = CLASS_COLORS[label]
    ortho = folder / "2_Ortho_RGB" / f"{stem}_RGB.tif"
    _write_rgb(ortho, image, transform, config)
    _write_world_file(ortho.with_suffix(".tfw"), transform)
    _write_rgb(folder / "5_Labels_all" / f"{stem}_label.tif", colors, transform, config)
    colors[erode_label(label, config.boundary_px)] = 0
    _write_rgb(folder / "5_Labels_all_noBoundary" / f"{stem}_label_noBoundary.tif", colors, transform, config)


def _write_rgb(path: Path, pixels: NDArray[np.uint8], transform: Affine, config: TownConfig) -> None:
    path.parent.mkdir(exist_ok=True)
    height, width, _ = pixels.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=width,
        height=height,
        count=3,
        dtype="uint8",
        crs=TOWN_CRS,
        transform=transform,
        photometric="RGB",
        compress="deflate",
        predictor=2,
        tiled=True,
        blockxsize=256,
        blockysize=256,
    ) as target:
        target.write(np.moveaxis(pixels, -1, 0))
        target.update_tags(TIFFTAG_IMAGEDESCRIPTION=f"ctrs synthetic town, seed {config.seed}")


def _write_world_file(path: Path, transform: Affine) -> None:
    center = (transform.c + transform.a / 2, transform.f + transform.e / 2)  # of the upper left pixel
    values = (transform.a, transform.d, transform.b, transform.e, *center)
    path.write_text("".join(f"{value:.10f}\n" for value in values), encoding="ascii")
