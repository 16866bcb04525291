"""Run as a script: map a tall scene and print what memory that took, as JSON.

Arguments: folder, width, height, window, options in JSON. The scene is a VRT that repeats a small file, the network
nearly nothing.
"""

import json
import re
import sys
from pathlib import Path

import numpy as np
import rasterio
import torch
from affine import Affine
from torch import nn
from torch.nn import functional as F

from ctrs.classes import ClassMap, LandClass
from ctrs.config import PredictConfig
from ctrs.inference import Predictor
from ctrs.inference.footprint import fitting_blocks
from ctrs.inference.products import Products
from ctrs.memory import share_one_arena
from ctrs.raster.bands import Bands

NUM_CLASSES, PART_PX = 6, 1024
UTM = Affine(0.2, 0, 5e5, 0, -0.2, 5.4e6)


class Trivial(nn.Module):
    """Takes next to no time and memory beside its answer."""

    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(3, NUM_CLASSES, 1)

    def forward(self, images):
        found = self.head(F.avg_pool2d(images, 16))
        return F.interpolate(found, images.shape[-2:], mode="bilinear", align_corners=False)


def tall_scene(folder, width, height):
    """Write a VRT that repeats one tiled file of noise."""
    part = folder / "part.tif"
    if not part.exists():
        pixels = np.random.default_rng(0).integers(0, 256, (3, PART_PX, width)).astype(np.uint8)
        layout = {"tiled": True, "blockxsize": 256, "blockysize": 256, "interleave": "pixel"}
        profile = {"driver": "GTiff", "width": width, "height": PART_PX, "count": 3, "dtype": "uint8"}
        with rasterio.open(part, "w", **profile, **layout, crs="EPSG:32633", transform=UTM) as file:
            file.write(pixels)
    bands = []
    for band in (1, 2, 3):
        sources = "".join(
            f'<SimpleSource><SourceFilename relativeToVRT="1">part.tif</SourceFilename><SourceBand>{band}</SourceBand>'
            f'<SourceProperties RasterXSize="{width}" RasterYSize="{PART_PX}" DataType="Byte" BlockXSize="256" '
            f'BlockYSize="256"/><SrcRect xOff="0" yOff="0" xSize="{width}" ySize="{min(PART_PX, height - top)}"/>'
            f'<DstRect xOff="0" yOff="{top}" xSize="{width}" ySize="{min(PART_PX, height - top)}"/></SimpleSource>'
            for top in range(0, height, PART_PX)
        )
        bands.append(f'<VRTRasterBand dataType="Byte" band="{band}">{sources}</VRTRasterBand>')
    scene = folder / f"scene_{height}.vrt"
    scene.write_text(
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}"><SRS>EPSG:32633</SRS>'
        f"<GeoTransform>500000, 0.2, 0, 5400000, 0, -0.2</GeoTransform>{''.join(bands)}</VRTDataset>"
    )
    return scene


def mib(name):
    return int(re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def main(folder, width, height, window_px, options):
    share_one_arena()  # as the command does
    torch.set_num_threads(1)
    classes = ClassMap(
        classes=tuple(LandClass(value=i, name=f"class {i}", color=(i, 9, 9)) for i in range(NUM_CLASSES))
    )
    bands = Bands(
        names=("red", "green", "blue"), dtype="uint8", low=(0,) * 3, high=(255,) * 3, mean=(120,) * 3, std=(60,) * 3
    )
    predictor = Predictor(Trivial(), classes=classes, bands=bands, window_px=window_px, device="cpu", precision="fp32")
    config = PredictConfig(**options)
    # Libraries, their threads and one batch of activations are no part of what grows with the scene.
    predictor.predict_raster(tall_scene(folder, width, window_px), folder / "first_mask.tif", config)
    scene = tall_scene(folder, width, height)
    plan = predictor.plan(height, width, config)
    _, bound = fitting_blocks(plan, Products.for_config(classes, config), count=3, dtype="uint8", tta=config.tta)
    before = mib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    peaks = []

    def look(done, total, _):
        peaks.append(mib("VmHWM"))
        if done == total:  # what comes now is another peak
            Path("/proc/self/clear_refs").write_text("5")

    predictor.predict_raster(scene, folder / f"mask_{height}.tif", config, progress=look)
    finishing = mib("VmHWM")
    print(json.dumps({
        "before": before, "loop": max(peaks), "finishing": finishing, "whole": max(*peaks, finishing),
        "bound": bound.total / 2**20, "gaps": bound.gaps / 2**20, "told": str(bound),
        "logits": 4 * NUM_CLASSES * window_px**2 * plan.batch_size / 2**20,
    }))  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(argument) for argument in sys.argv[2:5]), json.loads(sys.argv[5]))
