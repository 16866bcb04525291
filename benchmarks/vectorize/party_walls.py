"""Party walls of row houses, and fused neighbours that are parted: from noisy masks of known footprints.

    python benchmarks/vectorize/party_walls.py
    python benchmarks/vectorize/party_walls.py --size 10000 --level medium

Each unit of a row is a building of its own here. The instance mask numbers the pixels of the noisy mask by the nearest
unit; the plain mask shows a row as one building, and has nothing of its party walls. ``shared`` is the share of the
length of true party walls that both neighbours share exactly, ``straight`` what of it runs within 2 degrees of the true
wall. ``fused`` are pairs with a gap that the cleaned mask shows as one building, ``parted`` those drawn as two, ``cut``
single buildings of which two parts are drawn. The peer is rasterio's shapes with Douglas-Peucker at 0.5 m.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.features
import shapely
from affine import Affine
from rasterio.crs import CRS
from scipy.ndimage import distance_transform_edt

from ctrs.config import VectorizeConfig
from ctrs.raster.geotiff import Grid
from ctrs.synthetic.footprints import Footprints, draw_footprints
from ctrs.synthetic.mask_noise import NOISE_LEVELS, NoisyMask
from ctrs.vector import vectorize
from ctrs.vector.quality import match_polygons
from ctrs.vector.quality.topology import count_overlaps, party_wall_lengths

PIXEL_M, PER_KM2, STRAIGHT_DEG, PART_SHARE = 0.2, 1250, 2.0, 0.15
Polygons = npt.NDArray[np.object_]


def write(path: Path, pixels: npt.NDArray[Any], grid: Grid) -> None:
    profile = {"width": grid.width, "height": grid.height, "count": 1, "dtype": pixels.dtype}
    with rasterio.open(path, "w", driver="GTiff", crs=grid.crs, transform=grid.transform, **profile) as dataset:
        dataset.write(pixels, 1)


def peers_polygons(ids: npt.NDArray[np.int32], grid: Grid) -> Polygons:
    found = rasterio.features.shapes(ids, mask=ids > 0, connectivity=4, transform=grid.transform)
    exact = np.array([shapely.geometry.shape(shape) for shape, _ in found], object)
    return shapely.make_valid(shapely.simplify(exact[shapely.area(exact) >= 8], 0.5))


def judge(polygons: Polygons, truth: Polygons) -> str:
    matching = match_polygons(polygons, truth)
    walls, shared = party_wall_lengths(polygons, truth, matching)
    _, straight = party_wall_lengths(polygons, truth, matching, max_turn_deg=STRAIGHT_DEG)
    invalid = int((~shapely.is_valid(polygons)).sum())
    good = 2 * int((matching.iou >= 0.9).sum()) / (len(polygons) + len(truth))
    iou = float(matching.iou.sum()) / len(truth)
    broken = f"{count_overlaps(polygons)}, {invalid}"
    return f"{iou:.3f} | {good:.3f} | {shared / walls:.3f} | {straight / walls:.3f} | {broken}"


def count_parts(
    polygons: Polygons, plain: Polygons, truth: Polygons, footprints: Footprints
) -> tuple[int, int, int, dict[str, int]]:
    """Return fused pairs, those parted, single buildings, and cut ones by kind."""
    owner, before = largest(polygons, truth), largest(plain, truth)
    pairs = [
        np.flatnonzero(footprints.objects == number)
        for number in np.unique(footprints.objects[footprints.kinds == "pair"])
    ]
    fused = [pair for pair in pairs if before[pair[0]] == before[pair[1]] >= 0]
    parted = sum(bool(owner[one] != owner[other]) for one, other in fused)
    cut: dict[str, int] = {}
    tree = shapely.STRtree(polygons)
    for number, shape in enumerate(truth):
        near = tree.query(shape, predicate="intersects")
        shares = shapely.area(shapely.intersection(polygons[near], shape)) / shape.area
        if (shares > PART_SHARE).sum() > 1:
            kind = str(footprints.kinds[number])
            cut[kind] = cut.get(kind, 0) + 1
    return len(fused), parted, len(truth), cut


def largest(polygons: Polygons, truth: Polygons) -> npt.NDArray[np.int64]:
    """Return the polygon that covers most of each footprint; -1 for none."""
    wanted, found = shapely.STRtree(polygons).query(truth, predicate="intersects")
    area = shapely.area(shapely.intersection(truth[wanted], polygons[found]))
    order = np.lexsort((area, wanted))
    result = np.full(len(truth), -1, np.int64)
    result[wanted[order]] = found[order]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4000, help="side of the mask, pixels")
    parser.add_argument("--level", default="medium", choices=list(NOISE_LEVELS))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    side = args.size * PIXEL_M
    transform = Affine(PIXEL_M, 0, 400_000, 0, -PIXEL_M, 5_000_000)
    grid = Grid(crs=CRS.from_epsg(32633), transform=transform, width=args.size, height=args.size)
    footprints = draw_footprints(round(PER_KM2 * (side / 1000) ** 2), side, side, seed=args.seed)
    truth = shapely.transform(footprints.polygons, lambda xy: xy + np.array([400_000, 5_000_000 - side]))
    noisy = NoisyMask(truth, grid, NOISE_LEVELS[args.level], seed=args.seed)
    probability = np.concatenate([band for _, band in noisy.bands()])
    building = probability > 0.5
    units = rasterio.features.rasterize(
        [(shape, number + 1) for number, shape in enumerate(truth)], building.shape, transform=transform, dtype="int32"
    )
    nearest = distance_transform_edt(units == 0, return_distances=False, return_indices=True)
    ids = np.where(building, units[tuple(nearest)], 0).astype(np.int32)
    methods: list[tuple[str, str, dict[str, Any]]] = [
        ("--instances", "ids", {"instances": True}),
        ("--instances --regularize full", "ids", {"instances": True, "regularize": "full"}),
        ("--regularize full", "plain", {"regularize": "full"}),
    ]
    for split in ("erosion", "watershed", "probability"):
        methods.append((f"--split {split}", "plain", {"split": split}))
        methods.append((f"--split {split} --regularize full", "plain", {"split": split, "regularize": "full"}))
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "ids.tif", ids, grid)
        write(Path(folder) / "plain.tif", building.astype(np.uint8), grid)
        write(Path(folder) / "probability.tif", probability, grid)
        with rasterio.open(Path(folder) / "probability.tif", "r+") as dataset:
            dataset.nodata = np.nan
            dataset.descriptions = ("building",)
            dataset.update_tags(CTRS_PROBABILITIES="float16")
        plain = draw(Path(folder), "plain", {})[0]
        print("| drawn | IoU | F1 at 0.9 | shared | straight | overlaps, invalid | fused / parted | cut | seconds |")
        print("|---" * 9 + "|")
        print(f"| Douglas-Peucker | {judge(peers_polygons(ids, grid), truth)} | - | - | - |")
        for name, mask, options in methods:
            polygons, seconds = draw(Path(folder), mask, options)
            fused, parted, count, cut = count_parts(polygons, plain, truth, footprints)
            kinds = ", ".join(f"{number} {kind}" for kind, number in cut.items()) or "0"
            pairs = f"{fused} / {parted}"
            print(f"| {name} | {judge(polygons, truth)} | {pairs} | {kinds} of {count} | {seconds:.1f} |", flush=True)


def draw(folder: Path, mask: str, options: dict[str, Any]) -> tuple[Polygons, float]:
    started = time.process_time()
    out = folder / "out.gpkg"
    beside = {"probabilities": folder / "probability.tif"} if options.get("split") == "probability" else {}
    vectorize(folder / f"{mask}.tif", out, VectorizeConfig(overwrite=True, **options, **beside))
    return geopandas.read_file(out).geometry.to_numpy(), time.process_time() - started


if __name__ == "__main__":
    main()
