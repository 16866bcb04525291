"""Networks with random weights, the same ones in every process."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ctrs.classes import ClassMap, LandClass
from ctrs.models import create_encoder, create_model
from ctrs.raster.bands import Bands

COLORS = {
    "impervious": (255, 255, 255), "building": (0, 0, 255), "low vegetation": (0, 255, 255), "tree": (0, 255, 0),
    "car": (255, 255, 0), "clutter": (255, 0, 0),
}  # fmt: skip
CLASSES = ClassMap(
    classes=tuple(LandClass(value=value, name=name, color=color) for value, (name, color) in enumerate(COLORS.items()))
)
BANDS = Bands(
    names=("red", "green", "blue"), dtype="uint8", low=(0, 0, 0), high=(255, 255, 255), mean=(124, 116, 104),
    std=(58, 57, 57),
)  # fmt: skip


class LightNetwork(nn.Module):
    """PoolFormer-S12 with a 1x1 convolution on each of its four maps: hardly more than an encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, channels = create_encoder("poolformer_s12")
        self.heads = nn.ModuleList(nn.Conv2d(count, CLASSES.num_classes, 1) for count in channels)

    def forward(self, images: Tensor) -> Tensor:
        first, *others = (head(found) for head, found in zip(self.heads, self.encoder(images), strict=True))
        for found in others:
            first = first + F.interpolate(found, first.shape[-2:], mode="bilinear", align_corners=False)
        return F.interpolate(first, images.shape[-2:], mode="bilinear", align_corners=False)


class TrivialNetwork(nn.Module):
    """Takes next to no time, so that a very tall scene can be mapped."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, CLASSES.num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        found = self.head(F.avg_pool2d(images, 16))
        return F.interpolate(found, images.shape[-2:], mode="bilinear", align_corners=False)


NAMES = {
    "light": "PoolFormer-S12 with a light head",
    "dcfam": "PoolFormer-S12 with DCFAM",
    "trivial": "a trivial network",
}


def make_network(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name == "dcfam":
        return create_model("poolformer_s12", "dcfam", num_classes=CLASSES.num_classes).eval()
    return {"light": LightNetwork, "trivial": TrivialNetwork}[name]().eval()


def logits_of(output: object) -> Tensor:
    """Return the logits of whatever a network returns."""
    found = getattr(output, "logits", output)
    if not isinstance(found, Tensor):
        raise TypeError(f"logits expected, {type(found).__name__} found")
    return found
