"""Segmentation network: encoder, one output norm for each stage, decoder, head.

Dimension letters: B images, K classes, H x W pixels of the input, C channels, h x w cells of a map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

from ctrs.errors import UsageError
from ctrs.model_files import Architecture as Architecture
from ctrs.models.decoders import UnetFormerDecoder, create_decoder, encoder_output_stride
from ctrs.models.encoder import create_encoder, is_channels_last, resolve_backbone, stage_strides

PADDING_STRIDE = 32
"""Inputs are padded to multiples of this."""


class SegmentationOutput(NamedTuple):
    """What a network returns for a batch."""

    logits: Tensor
    """(B, K, H, W), of the input's size."""
    features: tuple[Tensor, ...]
    """Four normed stages (B, C_s, h_s, w_s) at the model's ``feature_strides`` of the padded input."""
    embedding: Tensor
    """(B, C, h, w), the decoder's output before the head, at ``embedding_stride`` of the padded input."""
    inner: tuple[Tensor, ...] | None = None
    """Maps inside the decoder from coarse to fine, which an auxiliary head of the objective looks at: in training mode
    those of ``unetformer``; None else."""


class SegmentationModel(nn.Module):
    """Encoder, output norms, decoder and head.

    Any input size works: inputs are padded with zeros at the right and the bottom to multiples of 32 and the logits
    are cropped. Features and embedding belong to the padded size.

    Args:
        encoder: Maps (B, C, H, W) to four maps.
        channels: Their channels.
        decoder: Maps the list of stages to the embedding; has ``out_channels`` and ``out_stride``.
        head: Maps the embedding to logits of its size.
        architecture: How to build this again.
        strides: Of the four maps.
    """

    def __init__(
        self,
        encoder: nn.Module,
        channels: Sequence[int],
        decoder: nn.Module,
        head: nn.Module,
        architecture: Architecture,
        strides: Sequence[int] = (4, 8, 16, 32),
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.feature_channels = tuple(channels)
        self.feature_strides = tuple(strides)
        self.encoder = encoder
        self.stage_norms = nn.ModuleList(_output_norm(encoder, count) for count in channels)
        self.decoder = decoder
        self.head = head
        self._channels_last = is_channels_last(encoder)

    @property
    def embedding_channels(self) -> int:
        """Channels of the decoder's output."""
        return self._of_decoder("out_channels")

    @property
    def embedding_stride(self) -> int:
        """Pixels of the padded input along the edge of one cell of the decoder's output."""
        return self._of_decoder("out_stride")

    def _of_decoder(self, name: str) -> int:
        value = getattr(self.decoder, name)
        if not isinstance(value, int):
            raise TypeError(f"{name} of {type(self.decoder).__name__} is no integer")
        return value

    def forward(self, images: Tensor) -> SegmentationOutput:
        """Map (B, C, H, W) normalised float images to logits, features and embedding."""
        if images.ndim != 4 or images.shape[1] != self.architecture.in_channels:
            raise UsageError(
                f"the network takes images of shape (B, {self.architecture.in_channels}, H, W), "
                f"found {tuple(images.shape)}"
            )
        height, width = images.shape[-2:]
        padded = F.pad(images, (0, -width % PADDING_STRIDE, 0, -height % PADDING_STRIDE))
        stages = self.encoder(padded)
        if self._channels_last:
            stages = [stage.permute(0, 3, 1, 2) for stage in stages]
        features = tuple(norm(stage) for norm, stage in zip(self.stage_norms, stages, strict=True))
        inner: tuple[Tensor, ...] | None = None
        if self.training and isinstance(self.decoder, UnetFormerDecoder):
            embedding, inner = self.decoder.with_inner(features)
        else:
            embedding = self.decoder(list(features))
        logits = self.head(embedding)
        if not self.training and logits.shape[1] == 2 and logits.device.type == "cpu":
            # Two channels that lie beside each other torch enlarges five times as slowly.
            logits = logits.contiguous()
        logits = F.interpolate(logits, size=padded.shape[-2:], mode="bilinear", align_corners=False)
        return SegmentationOutput(logits[..., :height, :width], features, embedding, inner)


def _output_norm(encoder: nn.Module, channels: int) -> nn.Module:
    """Return the norm that official segmentation backbones put on each stage's output, which timm leaves raw.

    PoolFormer's kind (GroupNorm over all of an image) where the encoder itself uses it, else LayerNorm over channels.
    """
    if any(isinstance(module, nn.GroupNorm) and module.num_groups == 1 for module in encoder.modules()):
        return nn.GroupNorm(1, channels)
    norm: nn.Module = LayerNorm2d(channels)
    return norm


def create_model(
    backbone: str = "poolformer",
    decoder: str = "dcfam",
    *,
    num_classes: int,
    in_channels: int = 3,
    weights: str = "none",
    drop_path: float | None = None,
) -> SegmentationModel:
    """Build a network.

    Args:
        backbone: Friendly name (``ctrs.models.BACKBONE_ALIASES``), or any timm model with maps at strides 4 to 32 or of
            a plain vision transformer.
        decoder: One of ``ctrs.models.DECODERS``.
        num_classes: Channels of the logits.
        in_channels: Bands of the input.
        weights: ``"imagenet"``, ``"none"``, or a local .safetensors or .pth file of encoder weights.
        drop_path: Stochastic depth of the encoder; timm's default for the model if None.

    Raises:
        UsageError: Unknown backbone or decoder, or parts that don't fit.
        CheckpointError: The weights can't be had or don't fit.

    Examples:
        >>> import torch
        >>> model = create_model("pvt", "unetformer", num_classes=6, in_channels=4).eval()
        >>> output = model(torch.zeros(1, 4, 50, 70))
        >>> output.logits.shape, [tuple(feature.shape[1:]) for feature in output.features]
        (torch.Size([1, 6, 50, 70]), [(32, 16, 24), (64, 8, 12), (160, 4, 6), (256, 2, 3)])
    """
    if num_classes < 1:
        raise UsageError(f"num_classes must be at least 1, found {num_classes}")
    output_stride = encoder_output_stride(decoder)
    encoder, channels = create_encoder(
        backbone, in_channels=in_channels, weights=weights, drop_path=drop_path, output_stride=output_stride
    )
    decoder_module, head = create_decoder(decoder, channels, num_classes=num_classes, in_channels=in_channels)
    architecture = Architecture(
        backbone=resolve_backbone(backbone), decoder=decoder, num_classes=num_classes, in_channels=in_channels
    )
    return SegmentationModel(
        encoder, channels, decoder_module, head, architecture, strides=stage_strides(output_stride)
    )
