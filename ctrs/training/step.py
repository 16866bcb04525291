"""One training step as one module: network and objective, so that one wrapper serves both."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ctrs.config import TrainConfig
from ctrs.losses.objective import Keys, Objective, create_objective, parse_loss
from ctrs.models.projection import ProjectionHead
from ctrs.models.segmentation import SegmentationModel


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
            output.logits, output.features, output.embedding, labels, keys, contrast_scale=contrast_scale
        )
        return result.total, result.parts

    def draw_keys(self, images: Tensor, *, seed: int, epoch: int, step: int) -> Keys:
        """Draw the random numbers of a step: a pure function of (seed, epoch, step) and the batch's shape."""
        state = np.random.SeedSequence([seed, epoch, step]).generate_state(1, np.uint64)
        generator = torch.Generator(device=images.device)
        generator.manual_seed(int(state[0]) >> 1)
        height, width = (-(-size // 32) * 32 for size in images.shape[-2:])  # as the network pads
        stages = [
            images.new_empty(1).expand(images.shape[0], 1, height // stride, width // stride)
            for stride in self.model.feature_strides
        ]
        return self.objective.draw_keys(stages, generator)


def create_training_step(model: SegmentationModel, config: TrainConfig, *, num_classes: int) -> TrainingStep:
    """Put the objective that the configuration names, with fresh projection heads, on a network."""
    heads = {
        term.name: [
            ProjectionHead(model.feature_channels[stage], out_channels=config.contrast.projection_dim)
            for stage in config.contrast.stages
        ]
        for term in parse_loss(config.loss)
    }
    objective = create_objective(
        config.loss,
        num_classes,
        heads,
        config=config.contrast,
        label_smoothing=config.label_smoothing,
        dice_smooth=config.dice_smooth,
    )
    return TrainingStep(model, objective)
