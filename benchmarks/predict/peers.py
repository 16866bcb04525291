"""Other tools, written as their users would write it: read, slide a window, take the largest class, write a GeoTIFF."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import rasterio
import torch
from networks import BANDS, CLASSES, logits_of
from torch import Tensor, nn

if TYPE_CHECKING:
    from turns import Turn


@dataclass(frozen=True, kw_only=True)
class Peer:
    """Another tool.

    Args:
        package: Its name on the package index.
        module: What is imported.
        install: Command that makes it known to this benchmark.
        run: Maps the scene of a turn with a network and returns the mask's file.
    """

    package: str
    module: str
    install: str
    run: Callable[[Turn, nn.Module], Path]

    @property
    def found(self) -> bool:
        return importlib.util.find_spec(self.module.split(".")[0]) is not None

    @property
    def version(self) -> str:
        return importlib.metadata.version(self.package)


def read_standardized(scene: str) -> tuple[Tensor, dict[str, Any]]:
    """Read a whole scene: (1, C, H, W) and what a GeoTIFF of the same grid needs."""
    with rasterio.open(scene) as dataset:
        pixels = dataset.read().astype(np.float32)
        profile = {
            "driver": "GTiff", "width": dataset.width, "height": dataset.height, "count": 1, "dtype": "uint8",
            "crs": dataset.crs, "transform": dataset.transform, "tiled": True, "blockxsize": 512, "blockysize": 512,
            "compress": "deflate",
        }  # fmt: skip
    return torch.from_numpy(standardize(pixels))[None], profile


def standardize(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (BANDS.mean, BANDS.std))
    pixels -= mean
    pixels /= std
    return pixels


def write_mask(out: str, logits: Tensor, profile: dict[str, Any]) -> Path:
    mask = logits[0].argmax(0).to(torch.uint8).cpu().numpy()
    with rasterio.open(out, "w", **profile) as dataset:
        dataset.write(mask, 1)
    return Path(out)


def map_with_monai(turn: Turn, network: nn.Module) -> Path:
    from monai.inferers import sliding_window_inference

    images, profile = read_standardized(turn.scene)
    with torch.inference_mode():
        logits = sliding_window_inference(
            images,
            (turn.window_px, turn.window_px),
            turn.batch_size,
            lambda windows: logits_of(network(windows)),
            overlap=turn.overlap,
            mode="gaussian",
            sw_device=turn.device,
            device="cpu",
        )
    return write_mask(turn.out, logits, profile)


def map_with_terratorch(turn: Turn, network: nn.Module) -> Path:
    from terratorch.tasks.tiled_inference import tiled_inference

    images, profile = read_standardized(turn.scene)
    with torch.inference_mode():
        logits = tiled_inference(
            lambda windows: logits_of(network(windows)),
            images,
            crop=turn.window_px,
            stride=round(turn.window_px * (1 - turn.overlap)),
            delta=0,
            padding=False,
            batch_size=turn.batch_size,
            device=turn.device,
        )
    return write_mask(turn.out, logits, profile)


class LogitsOnly(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return logits_of(self.network(images))


def map_with_geoai(turn: Turn, network: nn.Module) -> Path:
    from geoai.inference import predict_geotiff

    predict_geotiff(
        LogitsOnly(network),
        turn.scene,
        turn.out,
        tile_size=turn.window_px,
        overlap=round(turn.window_px * turn.overlap),
        batch_size=turn.batch_size,
        num_classes=CLASSES.num_classes,
        output_dtype="uint8",
        output_nodata=255,
        blend_mode="cosine",
        preprocess_fn=standardize,
        postprocess_fn=lambda logits: logits.argmax(0)[None].astype(np.uint8),
        device=turn.device,
        compress="deflate",
        verbose=False,
    )
    return Path(turn.out)


PEERS = {
    "monai": Peer(
        package="monai",
        module="monai",
        install="pip install --no-deps --target peers monai==1.6.1, then PYTHONPATH=peers",
        run=map_with_monai,
    ),
    "terratorch": Peer(
        package="terratorch",
        module="terratorch",
        install="pip install terratorch==1.2.11 ctrs in an environment of its own, then its python",
        run=map_with_terratorch,
    ),
    "geoai": Peer(
        package="geoai-py",
        module="geoai",
        install="pip install geoai-py==0.40.1 ctrs in an environment of its own, then its python",
        run=map_with_geoai,
    ),
}
