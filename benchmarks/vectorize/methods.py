"""Ways from a mask to building polygons that are run side by side; each call is one process, so that RAM is its own.

    python benchmarks/vectorize/methods.py METHOD MASK.tif OUT.gpkg     prints {"seconds": ..., "peak_mb": ...}

``seconds`` count from opening the mask to the finished layer, without imports; ``peak_mb`` is the process's peak.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import geopandas
import numpy as np
import rasterio
import rasterio.features
import shapely

from ctrs.config import VectorizeConfig
from ctrs.raster.probabilities import probabilities_path
from ctrs.vector import vectorize

MIN_AREA_M2 = 10.0


def shapes_simplified(mask: Path, out: Path) -> None:
    """rasterio's shapes and Douglas-Peucker at 0.5 m, as solaris does it; specks below 10 square metres left out."""
    with rasterio.open(mask) as dataset:
        pixels = dataset.read(1)
        found = rasterio.features.shapes(pixels, mask=pixels > 0, connectivity=4, transform=dataset.transform)
        exact = np.array([shapely.geometry.shape(shape) for shape, _ in found], object)
        crs = dataset.crs
    polygons = shapely.simplify(exact[shapely.area(exact) >= MIN_AREA_M2], 0.5)
    geopandas.GeoSeries(polygons, crs=crs).to_file(out)


def ctrs_defaults(mask: Path, out: Path) -> None:
    """ctrs vectorize --probabilities none, else with its own defaults."""
    vectorize(mask, out, VectorizeConfig(use_probabilities=False))


def ctrs_right_angles(mask: Path, out: Path) -> None:
    """ctrs vectorize --regularize fast --probabilities none."""
    vectorize(mask, out, VectorizeConfig(regularize="fast", use_probabilities=False))


def ctrs_straight(mask: Path, out: Path) -> None:
    """ctrs vectorize --regularize full --probabilities none."""
    vectorize(mask, out, VectorizeConfig(regularize="full", use_probabilities=False))


def ctrs_between_pixels(mask: Path, out: Path) -> None:
    """ctrs vectorize --regularize full, which finds the probabilities beside the mask."""
    if not probabilities_path(mask).is_file():
        sys.exit(f"{probabilities_path(mask)}: not found; ask for it with --probabilities")
    vectorize(mask, out, VectorizeConfig(regularize="full"))


METHODS: dict[str, Callable[[Path, Path], None]] = {
    "shapes-dp": shapes_simplified,
    "ctrs": ctrs_defaults,
    "ctrs-fast": ctrs_right_angles,
    "ctrs-full": ctrs_straight,
    "ctrs-full-probabilities": ctrs_between_pixels,
}


def peak_mb() -> float:
    """Peak of this process alone, on Linux: what getrusage tells begins with the parent's size."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s*(\d+)", status)[0]) * 1024 / 1e6


def main() -> None:
    method, mask, out = sys.argv[1:]
    started = time.perf_counter()
    METHODS[method](Path(mask), Path(out))
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "peak_mb": peak_mb()}))


if __name__ == "__main__":
    main()
