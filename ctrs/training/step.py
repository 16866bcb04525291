"""One training step as one module: network and objective, so that one wrapper serves both."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ctrs.config import LossTerm, TrainConfig, parse_loss
from ctrs.errors import CtrsWarning, UsageError
from ctrs.losses.objective import Heads, Keys, Objective, create_objective, head_stages, module_names
from ctrs.models.decoders.unetformer import AuxiliaryHead, UnetFormerDecoder
from ctrs.models.projection import NormProjectionHead, ProjectionHead
from ctrs.models.segmentation import SegmentationModel

_COARSEST_FOR_PNE = 8
"""Stride of the authors' embedding; the paper has 4."""


class TrainingStep(nn.Module):
    """Images and labels to the objective.

    Args:
        model: The network.
        objective: The objective, with its projection heads.
    """

    def __init__(self, model: SegmentationModel, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self.objective = objective

    def forward(
        self, images: Tensor, labels: Tensor, keys: Keys, *, contrast_scale: float = 1.0
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scalar to minimise and its detached parts.

        Args:
            images: (B, C, H, W) standardized.
            labels: (B, H, W) class indices.
            keys: From ``draw_keys``.
            contrast_scale: Factor on all contrast terms.
        """
        output = self.model(images)
        result = self.objective(
            output.logits,
            output.features,
            output.embedding,
            labels,
            keys,
            contrast_scale=contrast_scale,
            inner=output.inner,
        )
        return result.total, result.parts

    def draw_keys(self, images: Tensor, *, seed: int, epoch: int, step: int) -> Keys:
        """Draw the random numbers of a step: a pure function of (seed, epoch, step) and the batch's shape."""
        state = np.random.SeedSequence([seed, epoch, step]).generate_state(1, np.uint64)
        generator = torch.Generator(device=images.device)
        generator.manual_seed(int(state[0]) >> 1)
        height, width = (-(-size // 32) * 32 for size in images.shape[-2:])  # as the network pads
        empty = images.new_empty(1)

        def shape(stride: int) -> Tensor:
            return empty.expand(images.shape[0], 1, height // stride, width // stride)

        stages = [shape(stride) for stride in self.model.feature_strides]
        return self.objective.draw_keys(stages, shape(self.model.embedding_stride), generator)


def create_training_step(
    model: SegmentationModel, config: TrainConfig, *, num_classes: int, class_counts: Sequence[int] | None = None
) -> TrainingStep:
    """Put the objective that the configuration names, with fresh heads, on a network.

    Args:
        model: The network.
        config: Names the objective.
        num_classes: K.
        class_counts: Training pixels of each class, which balanced class weights need.

    Raises:
        ConfigError: Unknown term, option out of range, class counts missing.
        UsageError: Deep supervision of a decoder that has no auxiliary head.
    """
    objective = create_objective(
        config.loss,
        num_classes,
        _heads(model, config, parse_loss(config.loss)),
        config=config.contrast,
        supcon=config.supcon,
        multiscale=config.multiscale,
        pne=config.pne,
        segmentation=config.segmentation,
        class_counts=class_counts,
        auxiliary=_auxiliary_head(model, config, num_classes),
        label_smoothing=config.label_smoothing,
        dice_smooth=config.dice_smooth,
        strides=model.feature_strides,
        embedding_stride=model.embedding_stride,
    )
    return TrainingStep(model, objective)


def _auxiliary_head(model: SegmentationModel, config: TrainConfig, num_classes: int) -> AuxiliaryHead | None:
    """Build the head of deep supervision where it is asked for, after the projection heads."""
    if config.segmentation.auxiliary == 0:
        return None
    if not isinstance(model.decoder, UnetFormerDecoder):
        raise UsageError(
            f"segmentation.auxiliary = {config.segmentation.auxiliary:g} found, but decoder "
            f"{model.architecture.decoder} has no auxiliary head; set it to 0 or choose decoder unetformer"
        )
    return AuxiliaryHead(model.decoder.out_channels, num_classes)


def _heads(model: SegmentationModel, config: TrainConfig, terms: Sequence[LossTerm]) -> dict[str, Heads]:
    """Build the projection heads of each contrast module, in the order of its name."""
    channels = model.feature_channels
    heads: dict[str, Heads] = {}
    for name in sorted(module_names(terms)):
        if name == "pne":
            width = model.embedding_channels
            if model.embedding_stride > _COARSEST_FOR_PNE:
                warnings.warn(
                    CtrsWarning(
                        f"decoder {model.architecture.decoder} puts out stride {model.embedding_stride}: pne contrasts "
                        "single cells of it and finds few or none so coarse; choose dcfam, unetformer, fpn or upernet"
                    ),
                    stacklevel=4,
                )
            heads[name] = NormProjectionHead(
                width, (width,), out_channels=config.pne.projection_dim, norm=config.pne.norm, order="norm-relu"
            )
        elif name == "multiscale":
            options = config.multiscale
            heads[name] = {
                stage: NormProjectionHead(
                    channels[stage],
                    (channels[stage], options.projection_dim)[: options.hidden_layers],
                    out_channels=options.projection_dim,
                    norm=options.norm,
                    order="relu-norm",
                )
                for stage in head_stages(terms, options)
            }
        else:
            of = config.supcon if name == "supcon" else config.contrast
            heads[name] = [ProjectionHead(channels[stage], out_channels=of.projection_dim) for stage in of.stages]
    return heads
