"""The network that other programs run: values between 0 and 1 in, probabilities of each class out.

Everything that ``ctrs predict`` does to a window besides is part of it: scaling by the bands' statistics, resizing to
the pixels that the network saw in training, padding, and the way back to the window's size.

B images, C bands, K classes, S x S pixels of a window.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ctrs.errors import UsageError
from ctrs.model_files import CheckpointMetadata
from ctrs.models import SegmentationModel
from ctrs.raster.bands import Bands

Output = Literal["probabilities", "logits"]
OUTPUTS: tuple[str, ...] = get_args(Output)


def input_range(dtype: str) -> float:
    """Return the number that raw values are divided by before they enter an exported network.

    It is what GeoDeep divides integers by, and Deepness ``uint8``: the span of the dtype. Values of real numbers stay
    as they are.

    >>> input_range("uint8"), input_range("uint16"), input_range("float32")
    (255.0, 65535.0, 1.0)
    """
    kind = np.dtype(dtype)
    if kind.kind not in "iu":
        return 1.0
    span = np.iinfo(kind)
    return float(int(span.max) - int(span.min))


class ExportedNetwork(nn.Module):
    """Maps (B, C, S, S) values, raw ones divided by `input_range`, to (B, K, S, S) probabilities or logits.

    Args:
        model: In evaluation mode.
        bands: What the input's bands are and how their values are scaled.
        resize_factor: Network pixels for one scene pixel.
        output: What it returns.
    """

    scale: Tensor
    offset: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self, model: SegmentationModel, bands: Bands, *, resize_factor: float = 1.0, output: Output = "probabilities"
    ) -> None:
        super().__init__()
        if output not in OUTPUTS:
            raise UsageError(f"output {output!r} found, expected one of {', '.join(OUTPUTS)}")
        self.model = model
        self.resize_factor = resize_factor
        self.output = output
        self.has_nan = np.dtype(bands.dtype).kind == "f"
        low, high = np.array(bands.low), np.array(bands.high)
        mean, std = bands.scaled_mean_std()
        # With uint8 values from 0 to 255 the scale is 1 and the offset 0: nothing is rounded.
        self.register_buffer("scale", _column(input_range(bands.dtype) / (high - low)))
        self.register_buffer("offset", _column(low / (high - low)))
        self.register_buffer("mean", _column(mean))
        self.register_buffer("std", _column(std))

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, C, S, S) to (B, K, S, S)."""
        logits = self.logits(image)
        return logits.softmax(1) if self.output == "probabilities" else logits

    def logits(self, image: Tensor) -> Tensor:
        """Map (B, C, S, S) to the logits (B, K, S, S)."""
        scaled = image * self.scale - self.offset
        if self.has_nan:
            scaled = torch.where(scaled.isnan(), torch.zeros_like(scaled), scaled)
        images = (scaled.clamp(0.0, 1.0) - self.mean) / self.std
        return window_logits(self.model, images, self.resize_factor)


def window_logits(model: nn.Module, images: Tensor, resize_factor: float) -> Tensor:
    """Return the logits of standardized windows, at their own size."""
    size = images.shape[-2:]
    if resize_factor == 1.0:
        logits: Tensor = model(images).logits
        return logits
    resized = [max(1, round(int(edge) * resize_factor)) for edge in size]
    logits = model(F.interpolate(images, size=resized, mode="bilinear", align_corners=False)).logits
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


@torch.no_grad()
def expected_logits(
    model: SegmentationModel, metadata: CheckpointMetadata, pixels: npt.NDArray[Any]
) -> npt.NDArray[np.float32]:
    """Return the logits (B, K, S, S) of raw pixels (B, C, S, S) by the way that training and prediction go."""
    images = metadata.bands.standardize(metadata.bands.scale(pixels))
    logits: npt.NDArray[np.float32] = window_logits(model, torch.from_numpy(images), metadata.resize_factor).numpy()
    return logits


def trial_pixels(bands: Bands, window_px: int, *, count: int) -> npt.NDArray[Any]:
    """Return raw pixels (count, C, S, S) such as the bands may hold: coarse shapes, fine noise, always the same."""
    generator = np.random.default_rng(0)
    shape = (count, bands.count, window_px, window_px)
    cells = -(-window_px // 16)
    coarse = generator.standard_normal((*shape[:2], cells, cells)).repeat(16, axis=-2).repeat(16, axis=-1)
    noise = coarse[..., :window_px, :window_px] + 0.3 * generator.standard_normal(shape)
    values = np.array(bands.mean)[:, None, None] + noise * np.array(bands.std)[:, None, None]
    kind = np.dtype(bands.dtype)
    if kind.kind in "iu":
        span = np.iinfo(kind)
        values = values.round().clip(float(span.min), float(span.max))
    pixels: npt.NDArray[Any] = values.astype(kind)
    return pixels


def as_input(pixels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return what an exported network takes of raw pixels: float32, divided by `input_range` of their dtype."""
    return (pixels / input_range(str(pixels.dtype))).astype(np.float32)


def _column(values: Any) -> Tensor:
    return torch.from_numpy(np.asarray(values, np.float64).astype(np.float32)[:, None, None].copy())
