"""Other toolkits' ways from a mask to building polygons, each as it is installed in a virtual environment of its own.

    python -m venv PEERS/raster-vision && PEERS/raster-vision/bin/pip install rastervision_core
    python -m venv PEERS/building-regulariser && PEERS/building-regulariser/bin/pip install buildingregulariser rasterio
    python -m venv PEERS/geoai && PEERS/geoai/bin/pip install geoai-py
    python -m venv PEERS/geomltoolkits && PEERS/geomltoolkits/bin/pip install geomltoolkits
    python benchmarks/vectorize --peers PEERS

A peer without a folder there is named as not run. Of raster-vision and geoai only the modules that draw polygons are
loaded, so that ``pip install --no-deps`` will do with what these import: opencv-python-headless, rasterio, geopandas,
for geoai also scikit-image, rioxarray, tqdm and pandas.

    PEERS/NAME/bin/python benchmarks/vectorize/peers.py NAME MASK.tif OUT.gpkg  prints {"seconds": ..., "peak_mb": ...}

``seconds`` count from opening the mask to the finished layer, without imports; ``peak_mb`` is the process's peak.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import geopandas
import rasterio
import rasterio.features
import shapely

MIN_AREA_M2 = 10.0

Draw = Callable[[Path, Path], None]


def module_alone(name: str) -> types.ModuleType:
    """Import a module of an installed package without what its packages' ``__init__`` would import besides."""
    *packages, _ = name.split(".")
    top = importlib.util.find_spec(packages[0])
    if top is None or top.submodule_search_locations is None:
        sys.exit(f"{packages[0]} is not installed")
    place = Path(next(iter(top.submodule_search_locations)))
    for count in range(1, len(packages) + 1):
        package = types.ModuleType(".".join(packages[:count]))
        package.__path__ = [str(place.joinpath(*packages[1:count]))]
        sys.modules[package.__name__] = package
    return importlib.import_module(name)


def raster_vision() -> Draw:
    """raster-vision's polygon output: denoise with its default diameter of 8 pixels, then polygons."""
    functions = module_alone("rastervision.core.data.utils.vectorization")

    def draw(mask: Path, out: Path) -> None:
        with rasterio.open(mask) as dataset:
            clean = functions.denoise(dataset.read(1), 8)
            polygons = list(functions.mask_to_polygons(clean, transform=dataset.transform))
            geopandas.GeoSeries(polygons, crs=dataset.crs).to_file(out)

    return draw


def building_regulariser() -> Draw:
    """Building-Regulariser with its defaults, on rasterio's shapes; specks below 10 square metres left out."""
    from buildingregulariser import regularize_geodataframe

    def draw(mask: Path, out: Path) -> None:
        with rasterio.open(mask) as dataset:
            pixels = dataset.read(1)
            found = rasterio.features.shapes(pixels, mask=pixels > 0, connectivity=4, transform=dataset.transform)
            shapes = [shapely.geometry.shape(shape) for shape, _ in found]
            frame = geopandas.GeoDataFrame(geometry=shapes, crs=dataset.crs)
        regularize_geodataframe(frame[frame.area >= MIN_AREA_M2].reset_index(drop=True)).to_file(out)

    return draw


def geoai() -> Draw:
    """geoai's orthogonalize with its defaults; specks below 10 square metres, which it keeps, left out."""
    orthogonalize = module_alone("geoai.utils.geometry").orthogonalize

    def draw(mask: Path, out: Path) -> None:
        frame = orthogonalize(str(mask))
        frame[frame.area >= MIN_AREA_M2][["geometry"]].to_file(out)

    return draw


def geomltoolkits() -> Draw:
    """geomltoolkits' vectorize_mask; its tolerance of 0.2 m keeps the steps of 0.2 m pixels, so 0.5 m, and 10 m²."""
    from geomltoolkits.raster.vectorize import vectorize_mask

    def draw(mask: Path, out: Path) -> None:
        with rasterio.open(mask) as dataset:
            crs = dataset.crs
        drawn = out.with_suffix(".geojson")
        vectorize_mask(str(mask), str(drawn), simplify_tolerance=0.5, min_area=MIN_AREA_M2)
        geopandas.read_file(drawn)[["geometry"]].to_crs(crs).to_file(out)
        drawn.unlink()

    return draw


PEERS: dict[str, Callable[[], Draw]] = {
    "raster-vision": raster_vision,
    "building-regulariser": building_regulariser,
    "geoai": geoai,
    "geomltoolkits": geomltoolkits,
}


def peak_mb() -> float:
    """Peak of this process alone, on Linux: what getrusage tells begins with the parent's size."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s*(\d+)", status)[0]) * 1024 / 1e6


def main() -> None:
    peer, mask, out = sys.argv[1:]
    draw = PEERS[peer]()
    started = time.perf_counter()
    draw(Path(mask), Path(out))
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "peak_mb": peak_mb()}))


if __name__ == "__main__":
    main()
