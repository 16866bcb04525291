"""What `ctrs prepare` costs beside the bare minimum: a plain rasterio loop that reads and writes the same tiles.

Both sides run in turn on the same machine with the same number of threads, and write the same pixels with the same
compression; the loop neither measures, hashes, counts nor checks anything, and could not be interrupted. `cut` is the
pass over the pixels, `prepare` the whole command with checks, splits, manifest and report.

    python benchmarks/prepare_speed.py
    python benchmarks/prepare_speed.py --size 3000 --layout strips --repeat 3 --workers 4
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio.windows import Window
from scipy.ndimage import gaussian_filter, zoom

from ctrs.config import PrepareConfig
from ctrs.tiles import prepare_tiles
from ctrs.tiles.findings import Findings
from ctrs.tiles.layout import find_layout
from ctrs.tiles.scan import scan
from ctrs.tiles.scenes import check_source

COLORS = np.array([(255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0)], np.uint8)
PLACE = {"transform": Affine(0.05, 0, 366000, 0, -0.05, 5808000), "crs": "EPSG:32633"}


def make_source(root: Path, size: int, layout: str) -> None:
    """Write a scene with the texture of an aerial image (it deflates to about 70 %) and a label in legend colours."""
    rng = np.random.default_rng(0)
    options = {"driver": "GTiff", "width": size, "height": size, "dtype": "uint8", "compress": "deflate", **PLACE}
    if layout == "tiled":
        options |= {"tiled": True, "blockxsize": 512, "blockysize": 512}
    fine = gaussian_filter(rng.normal(0, 1, (size, size)).astype(np.float32), 1.2)
    coarse = zoom(rng.normal(0, 1, (size // 100 + 1,) * 2), 100, order=1)[:size, :size].astype(np.float32)
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    image = {"count": 3, "photometric": "RGB", "predictor": 2}
    with rasterio.open(root / "images/scene.tif", "w", **options, **image) as dataset:
        for band in (1, 2, 3):
            noise = rng.normal(0, 4, (size, size)).astype(np.float32)
            pixels = 120 + 18 * fine / fine.std() + 30 * coarse + noise
            dataset.write(pixels.clip(1, 255).astype(np.uint8), band)
    side = -(-size // 10)
    votes = [gaussian_filter(rng.normal(0, 1, (side, side)), 6) for _ in COLORS]
    classes = np.argmax(votes, axis=0).repeat(10, 0).repeat(10, 1)[:size, :size]
    with rasterio.open(root / "labels/scene.tif", "w", **options, count=3, photometric="RGB") as dataset:
        dataset.write(COLORS[classes].transpose(2, 0, 1))
    rows = [
        f'[[class]]\nvalue = {number}\nname = "class {number}"\ncolor = {color.tolist()}\n'
        for number, color in enumerate(COLORS)
    ]
    (root / "classes.toml").write_text("\n".join(rows))


def plain_loop(source: Path, out: Path, tile: int, workers: int) -> None:
    """Read each row of tiles, look colours up in a table, write the tiles."""
    table = np.full(2**24, 255, np.uint8)
    red, green, blue = COLORS.astype(int).T
    table[red << 16 | green << 8 | blue] = np.arange(len(COLORS))
    colormap = {number: (*color.tolist(), 255) for number, color in enumerate(COLORS)}
    for kind in ("images", "masks"):
        (out / kind).mkdir(parents=True)

    def cut_row(row: int) -> None:
        with (
            rasterio.open(source / "images/scene.tif") as image,
            rasterio.open(source / "labels/scene.tif") as label,
        ):
            height = min(tile, image.height - row)
            pixels = image.read(window=Window(0, row, image.width, height))
            colors = label.read(window=Window(0, row, image.width, height)).astype(np.int32)
            masks = table[colors[0] << 16 | colors[1] << 8 | colors[2]]
            for col in range(0, image.width, tile):
                width = min(tile, image.width - col)
                profile = {
                    "driver": "GTiff",
                    "width": width,
                    "height": height,
                    "dtype": "uint8",
                    "crs": image.crs,
                    "transform": image.window_transform(Window(col, row, width, height)),
                    "compress": "deflate",
                    "zlevel": 6,
                    "blockysize": min(128, height),
                }
                name = f"scene_{row // tile:03d}_{col // tile:03d}.tif"
                rgb = {"count": 3, "interleave": "pixel", "predictor": 2, "photometric": "RGB"}
                with rasterio.open(out / "images" / name, "w", **profile, **rgb) as dataset:
                    dataset.write(pixels[:, :, col : col + width])
                with rasterio.open(
                    out / "masks" / name, "w", **profile, count=1, nodata=255, photometric="PALETTE"
                ) as dataset:
                    dataset.write_colormap(1, colormap)
                    dataset.write(masks[:, col : col + width], 1)

    with rasterio.open(source / "images/scene.tif") as image:
        rows = range(0, image.height, tile)
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(cut_row, rows))


def our_cut(source: Path, out: Path, tile: int, workers: int) -> None:
    """Check the source and run the pass over its pixels."""
    config = PrepareConfig(tile_px=tile)
    findings = Findings()
    ready = check_source(find_layout(source, config, findings), config, findings)
    scan(ready, out, write=True, workers=workers)


def our_prepare(source: Path, out: Path, tile: int, workers: int) -> None:
    """Run the whole command."""
    prepare_tiles(source, out, PrepareConfig(tile_px=tile, workers=workers))


SIDES: dict[str, Callable[[Path, Path, int, int], None]] = {
    "plain": plain_loop,
    "cut": our_cut,
    "prepare": our_prepare,
}


def measure(size: int, layout: str, tile: int, workers: int, repeat: int) -> dict[str, dict[str, float]]:
    """Run all sides in turn; return the median seconds of each and their ratios to the plain loop.

    Args:
        size: Edge of the scene in pixels.
        layout: ``tiled`` (blocks of 512) or ``strips``.
        tile: Edge of a tile.
        workers: Threads.
        repeat: Runs of each side, after one that does not count.
    """
    times: dict[str, dict[str, list[float]]] = {side: {"wall": [], "cpu": []} for side in SIDES}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source, out = Path(folder, "source"), Path(folder, "out")
        make_source(source, size, layout)
        for number in range(repeat + 1):
            for side, run in SIDES.items():
                shutil.rmtree(out, ignore_errors=True)
                wall, cpu = time.perf_counter(), time.process_time()
                run(source, out, tile, workers)
                if number:
                    times[side]["wall"].append(time.perf_counter() - wall)
                    times[side]["cpu"].append(time.process_time() - cpu)
    found: dict[str, dict[str, float]] = {}
    for side, values in times.items():
        found[side] = {clock: statistics.median(seconds) for clock, seconds in values.items()}
        for clock in ("wall", "cpu"):
            pairs = zip(values[clock], times["plain"][clock], strict=True)
            found[side][f"{clock}_ratio"] = statistics.median(own / plain for own, plain in pairs)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=6000)
    parser.add_argument("--layout", choices=["tiled", "strips", "both"], default="both")
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    layouts = ["tiled", "strips"] if options.layout == "both" else [options.layout]
    results = {
        layout: measure(options.size, layout, options.tile, options.workers, options.repeat) for layout in layouts
    }
    if options.json:
        print(json.dumps(results, indent=2))
        return
    print(
        f"{options.size} x {options.size} px RGB and label, tiles of {options.tile} px, {options.workers} threads, "
        f"median of {options.repeat}; {platform.machine()}, {os.cpu_count()} cores, GDAL {rasterio.__gdal_version__}"
    )
    print(f"{'blocks':8} {'side':8} {'wall s':>8} {'cpu s':>8} {'wall ratio':>11} {'cpu ratio':>10}")
    for layout, sides in results.items():
        for side, row in sides.items():
            print(
                f"{layout:8} {side:8} {row['wall']:8.2f} {row['cpu']:8.2f} "
                f"{row['wall_ratio']:11.2f} {row['cpu_ratio']:10.2f}"
            )


if __name__ == "__main__":
    main()
