"""What every contrast between cells of an encoder's stages shares: the maps it expects, and random keys for its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from ctrs.errors import ConfigError, UsageError
from ctrs.losses.patches import stage_labels
from ctrs.losses.sampling import draw_keys


class StageContrast(nn.Module):
    """Base of the losses that get one feature map for each of ``strides`` and use those of ``stages``.

    Args:
        num_classes: K.
        ignore_index: Label of void pixels; values outside 0..K-1 are void as well.
        strides: Strides of all feature maps that will be passed.
        stages: Which of them take part.
    """

    title: ClassVar[str]
    """What messages call the loss."""

    def __init__(self, num_classes: int, *, ignore_index: int, strides: Sequence[int], stages: Sequence[int]) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.strides = tuple(strides)
        self.stages = tuple(stages)

    @classmethod
    def check_stages(cls, stages: Sequence[int], strides: Sequence[int]) -> None:
        """Refuse stages that are not distinct or beyond the strides."""
        if not stages or len(set(stages)) != len(stages) or not set(stages) <= set(range(len(strides))):
            raise ConfigError(
                f"stages of the {cls.title} loss must be distinct numbers from 0 to {len(strides) - 1}, "
                f"found {tuple(stages)}"
            )

    @classmethod
    def check_heads(cls, heads: Sequence[nn.Module], stages: Sequence[int]) -> None:
        """Refuse more or fewer heads than stages."""
        if len(heads) != len(stages):
            raise ConfigError(
                f"the {cls.title} loss needs one projection head for each of {len(stages)} stages, found {len(heads)}"
            )

    def draw_keys(self, features: Sequence[Tensor], generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """Draw the random keys that `forward` needs for feature maps of these shapes, on their device."""
        chosen = [features[stage] for stage in self.stages]
        return draw_keys([tuple(feature.shape) for feature in chosen], generator, chosen[0].device)

    def map_sizes(self, features: Sequence[Tensor]) -> list[tuple[int, int]]:
        """Return (h, w) of every map.

        Raises:
            UsageError: There are more or fewer maps than strides.
        """
        if len(features) != len(self.strides):
            raise UsageError(f"the {self.title} loss expects {len(self.strides)} feature maps, found {len(features)}")
        return [(feature.shape[-2], feature.shape[-1]) for feature in features]

    def record_stages(self, **columns: Tensor) -> dict[str, Tensor]:
        """Name (S,) columns as scalars ``COLUMN_S``, S the stride (`stage_labels`)."""
        names = stage_labels(self.strides)
        return {
            f"{column}_{names[stage]}": values[index]
            for index, stage in enumerate(self.stages)
            for column, values in columns.items()
        }
