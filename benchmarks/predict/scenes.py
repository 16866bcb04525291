"""Scenes to be mapped: as costly to decode as aerial imagery is, of any size."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.windows import Window
from scipy.ndimage import gaussian_filter

BLOCK_PX = 512
COLLAR = 0.1
"""Share of the half edges that the collar takes, before the valid area is turned by 20 degrees."""

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class SceneKind:
    """What a name such as ``12000x6000``, ``6000x6000-collar`` or ``6000x6000-jpeg`` stands for: width x height.

    Args:
        collar: A turned valid area in nodata.
        jpeg: A COG with JPEG instead of a tiled GeoTIFF with deflate and predictor.
    """

    width: int
    height: int
    collar: bool = False
    jpeg: bool = False

    @classmethod
    def parse(cls, name: str) -> SceneKind:
        found = re.fullmatch(r"(\d+)x(\d+)(-collar)?(-jpeg)?", name)
        if found is None:
            raise SystemExit(f"{name}: no scene; expected WIDTHxHEIGHT with -collar or -jpeg after it or not")
        return cls(width=int(found[1]), height=int(found[2]), collar=bool(found[3]), jpeg=bool(found[4]))


def make_scene(folder: Path, name: str) -> Path:
    """Write a scene, uint8 RGB, unless it is there already."""
    kind = SceneKind.parse(name)
    path = folder / f"{name}.tif"
    if path.exists():
        return path
    tiled = path.with_name(f"{name}.tiled.tif")
    options: dict[str, Any] = {
        "driver": "GTiff", "width": kind.width, "height": kind.height, "count": 3, "dtype": "uint8",
        "crs": "EPSG:32633", "transform": Affine(0.2, 0, 366000, 0, -0.2, 5808000), "tiled": True,
        "blockxsize": BLOCK_PX, "blockysize": BLOCK_PX, "compress": "deflate", "predictor": 2, "photometric": "RGB",
        "nodata": 0 if kind.collar else None,
    }  # fmt: skip
    rng = np.random.default_rng(0)
    coarse = rng.normal(0, 1, (3, kind.height // 100 + 2, kind.width // 100 + 2)).astype(np.float32)
    with rasterio.open(tiled, "w", **options) as dataset:
        for row in range(0, kind.height, BLOCK_PX):
            height = min(BLOCK_PX, kind.height - row)
            pixels = textured_rows(rng, coarse, row, height, kind.width)
            if kind.collar:
                pixels[:, in_collar(row, height, kind)] = 0
            dataset.write(pixels, window=Window(0, row, kind.width, height))
    if kind.jpeg:
        rasterio.shutil.copy(tiled, path, driver="COG", compress="JPEG", quality=85, blocksize=BLOCK_PX)
        tiled.unlink()
    else:
        tiled.rename(path)
    return path


def textured_rows(
    rng: np.random.Generator, coarse: FloatArray, row: int, height: int, width: int
) -> npt.NDArray[np.uint8]:
    """Return rows (3, height, width) that deflate to about 70 %, as aerial images do."""
    fine = gaussian_filter(rng.standard_normal((height, width), np.float32), 1.2)
    fine *= 18 * 2 * math.sqrt(math.pi) * 1.2  # to a standard deviation of 18
    rows = np.empty((3, height, width), np.uint8)
    for band in range(3):
        noise = rng.standard_normal((height, width), np.float32) * 4
        values = 120 + fine + 30 * between(coarse[band], row, height, width) + noise
        rows[band] = values.clip(1, 255)
    return rows


def between(coarse: FloatArray, row: int, height: int, width: int) -> FloatArray:
    """Interpolate values 100 px apart."""
    cell, share = np.divmod((row + np.arange(height, dtype=np.float32)) / 100, 1)
    first = cell.astype(int)
    lines = coarse[first] * (1 - share[:, None]) + coarse[first + 1] * share[:, None]
    cell, share = np.divmod(np.arange(width, dtype=np.float32) / 100, 1)
    first = cell.astype(int)
    found: FloatArray = (lines[:, first] * (1 - share) + lines[:, first + 1] * share).astype(np.float32)
    return found


def in_collar(row: int, height: int, kind: SceneKind) -> npt.NDArray[np.bool_]:
    turn = math.radians(20)
    y = (row + np.arange(height, dtype=np.float32) - kind.height / 2)[:, None]
    x = np.arange(kind.width, dtype=np.float32) - kind.width / 2
    along = (x * math.cos(turn) + y * math.sin(turn)) / (kind.width / 2)
    across = (y * math.cos(turn) - x * math.sin(turn)) / (kind.height / 2)
    outside: npt.NDArray[np.bool_] = np.maximum(np.abs(along), np.abs(across)) > 1 - COLLAR
    return outside


def stack(scene: Path, times: int) -> Path:
    """Write a virtual scene that shows a scene several times, one below the other."""
    with rasterio.open(scene) as dataset:
        width, height, count = dataset.width, dataset.height, dataset.count
        place, crs = dataset.transform, dataset.crs
    root = ElementTree.Element("VRTDataset", rasterXSize=str(width), rasterYSize=str(height * times))
    ElementTree.SubElement(root, "SRS").text = crs.to_wkt()
    ElementTree.SubElement(root, "GeoTransform").text = ", ".join(map(str, place.to_gdal()))
    for number, color in zip(range(1, count + 1), ("Red", "Green", "Blue"), strict=True):
        band = ElementTree.SubElement(root, "VRTRasterBand", dataType="Byte", band=str(number))
        ElementTree.SubElement(band, "ColorInterp").text = color
        for copy in range(times):
            source = ElementTree.SubElement(band, "SimpleSource")
            ElementTree.SubElement(source, "SourceFilename", relativeToVRT="1").text = scene.name
            ElementTree.SubElement(source, "SourceBand").text = str(number)
            size = {"xSize": str(width), "ySize": str(height), "xOff": "0"}
            ElementTree.SubElement(source, "SrcRect", {"yOff": "0", **size})
            ElementTree.SubElement(source, "DstRect", {"yOff": str(copy * height), **size})
    path = scene.with_name(f"{scene.stem}_{times}_times.vrt")
    ElementTree.ElementTree(root).write(path, encoding="utf-8")
    return path
