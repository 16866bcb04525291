"""Building polygons from masks with known truth: how straight and how exact, side by side, at four levels of noise.

    python benchmarks/vectorize
    python benchmarks/vectorize --levels medium --pixel 0.1 --size 4000 --methods ctrs
    python benchmarks/vectorize --probabilities --methods ctrs-full ctrs-full-probabilities
    python benchmarks/vectorize --footprints buildings.geojson --pixel 0.13 --methods shapes-dp ctrs
    python benchmarks/vectorize --peers /opt/peers           # other toolkits; peers.py says how to install them
    python benchmarks/vectorize --outside "study=/opt/venv/bin/python study.py --mask {mask} --out {out}"

1250 footprints for each square kilometre (5,000 on 10 000 x 10 000 px of 0.2 m) are placed at random, or real ones are
read. A mask is made of them for each level of noise, and each method draws polygons from it in a process of its own.
Rows of houses count as one building each, as a mask without instances shows them; real footprints stay as they are.
``floor`` is no method: the true walls, moved to where the mask puts them, with the topology given away.
"""

from __future__ import annotations

import argparse
import json
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import geopandas
from affine import Affine
from comparison import Run, table, write_mask
from noise_floor import fit_walls
from peers import PEERS
from rasterio.crs import CRS

from ctrs.raster.geotiff import Grid
from ctrs.synthetic.footprints import draw_footprints
from ctrs.synthetic.mask_noise import NOISE_LEVELS, NoisyMask
from ctrs.vector.quality import measure_quality
from ctrs.vector.rasterize import read_polygons

CRS_NAME = "EPSG:32633"
PER_KM2 = 1250
BORDER_M = 10.0
FLOOR = "floor"


def make_grid(size: int, pixel_m: float) -> Grid:
    """Return a square north-up grid in UTM."""
    transform = Affine(pixel_m, 0, 400_000, 0, -pixel_m, 5_000_000)
    return Grid(crs=CRS.from_string(CRS_NAME), transform=transform, width=size, height=size)


def make_truth(grid: Grid, seed: int) -> tuple[geopandas.GeoSeries, geopandas.GeoSeries]:
    """Return units and merged footprints in the CRS of the grid."""
    side = grid.width * grid.transform.a
    footprints = draw_footprints(round(PER_KM2 * (side / 1000) ** 2), side, side, seed=seed)
    left, top = grid.transform.c, grid.transform.f
    layers = [
        geopandas.GeoSeries(polygons, crs=CRS_NAME).translate(left, top - side)
        for polygons in (footprints.polygons, footprints.merged().polygons)
    ]
    return layers[0], layers[1]


def read_truth(path: Path, pixel_m: float) -> tuple[Grid, geopandas.GeoSeries]:
    """Read real footprints, in UTM, and return the grid around them; shapes that were mended count."""
    frame = read_polygons(path).frame
    shapes = frame.geometry.to_crs(frame.geometry.estimate_utm_crs()).explode(ignore_index=True)
    left, bottom, right, top = shapes.total_bounds
    size = [int((high - low + 2 * BORDER_M) / pixel_m) for low, high in ((left, right), (bottom, top))]
    transform = Affine(pixel_m, 0, left - BORDER_M, 0, -pixel_m, top + BORDER_M)
    crs = CRS.from_user_input(shapes.crs.to_wkt())
    return Grid(crs=crs, transform=transform, width=size[0], height=size[1]), shapes


def run_method(command: Sequence[str], *, measures_itself: bool) -> tuple[float, float | None]:
    """Run one method; returns seconds and, where it says so itself, its peak in MB."""
    started = time.perf_counter()
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{shlex.join(command)} failed:\n{done.stderr[-2000:]}")
    if measures_itself:
        told = json.loads(done.stdout.splitlines()[-1])
        return float(told["seconds"]), float(told["peak_mb"])
    return seconds, None


def installed_peers(folder: Path | None) -> dict[str, Path]:
    """Return the interpreter of each peer that is installed; the others are named on stderr."""
    if folder is None:
        return {}
    found = {name: folder.absolute() / name / "bin" / "python" for name in PEERS}
    for name, python in found.items():
        if not python.exists():
            print(f"{name}: not run, no {python}; peers.py says how to install it", file=sys.stderr)
    return {name: python for name, python in found.items() if python.exists()}


def compare(args: argparse.Namespace, folder: Path) -> list[Run]:
    """Make masks, run all methods on them, judge what they draw."""
    if args.footprints is not None:
        grid, truth = read_truth(args.footprints, args.pixel)
        units = truth
    else:
        grid = make_grid(args.size, args.pixel)
        units, truth = make_truth(grid, args.seed)
    truth.to_file(folder / "truth.gpkg")
    units.to_file(folder / "units.gpkg")
    outside = dict(text.split("=", 1) for text in args.outside)
    peers = installed_peers(args.peers)
    runs: list[Run] = []
    for level in args.levels:
        noisy = NoisyMask(units.to_numpy(), grid, NOISE_LEVELS[level], seed=args.seed)
        mask = folder / f"{level}_mask.tif"
        started = time.perf_counter()
        write_mask(noisy, mask, probabilities=args.probabilities)
        print(f"{mask}: {time.perf_counter() - started:.1f} s", file=sys.stderr)
        for method in [*args.methods, *peers, *outside]:
            out = folder / f"{level}_{method}.gpkg"
            out.unlink(missing_ok=True)
            seconds: float | None = None
            peak_mb: float | None = None
            if method == FLOOR:
                geopandas.GeoSeries(fit_walls(truth.to_numpy(), noisy), crs=truth.crs).to_file(out)
            elif method in outside:
                command = shlex.split(outside[method].format(mask=mask, out=out))
                seconds, peak_mb = run_method(command, measures_itself=False)
            else:
                script = "peers.py" if method in peers else "methods.py"
                python = str(peers.get(method, sys.executable))
                command = [python, str(Path(__file__).parent / script), method, str(mask), str(out)]
                seconds, peak_mb = run_method(command, measures_itself=True)
            quality = measure_quality(geopandas.read_file(out), truth)
            runs.append(Run(level, method, quality, seconds, peak_mb))
            print(f"{out} judged", file=sys.stderr)
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=10_000, help="side of the mask, pixels")
    parser.add_argument("--pixel", type=float, default=0.2, help="metres")
    parser.add_argument("--levels", nargs="+", default=["low", "medium", "high"], choices=list(NOISE_LEVELS))
    parser.add_argument("--methods", nargs="*", default=["shapes-dp", "ctrs", "ctrs-full", FLOOR])
    parser.add_argument("--outside", nargs="*", default=[], help="NAME=COMMAND with {mask} and {out}")
    parser.add_argument("--peers", type=Path, help="folder of virtual environments, one for each of peers.py")
    parser.add_argument(
        "--probabilities",
        action="store_true",
        help="also write what each mask is made of beside it, for the method ctrs-full-probabilities",
    )
    parser.add_argument("--footprints", type=Path, help="file of real footprints; default: drawn at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for masks and layers; default: a temporary one")
    args = parser.parse_args()
    started = time.perf_counter()
    if args.keep is not None:
        args.keep.mkdir(parents=True, exist_ok=True)
        runs = compare(args, args.keep)
    else:
        with tempfile.TemporaryDirectory() as folder:
            runs = compare(args, Path(folder))
    print(table(runs))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(f"\n{time.perf_counter() - started:.0f} s in all, {peak:.0f} MB", file=sys.stderr)


if __name__ == "__main__":
    main()
