"""How deep each part of a timm encoder lies: its blocks for layer-wise learning rates, its stages for freezing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.models import group_parameters
from torch import nn

from ctrs.errors import UsageError
from ctrs.models.feature_pyramid import PyramidEncoder

NUM_STAGES = 4

_BLOCKS: Mapping[str, Any] = {
    "stem": r"^(?:stem|patch_embed)",
    "blocks": [
        (r"^(?:stages|layers)\.(\d+)\.downsample", (0,)),
        (r"^(?:stages|layers)\.(\d+)\.(?:blocks\.)?(\d+)", None),
    ],
}
"""Blocks by name for models that timm has no matcher for (MetaFormers), in the form of timm's own."""


@dataclass(frozen=True, kw_only=True)
class EncoderDepth:
    """The blocks of an encoder from the stem on.

    Args:
        block: Number of the block of each parameter by its name in the encoder, 0 for the stem. What stands behind
            the last block, or was put there for segmentation, has ``num_blocks``.
        num_blocks: Blocks, the stem counted.
        undecayed: Names of parameters that the model's authors give no weight decay (position embeddings, ...).
    """

    block: Mapping[str, int]
    num_blocks: int
    undecayed: frozenset[str]


def encoder_depth(encoder: nn.Module, backbone: str) -> EncoderDepth:
    """Find the block that each parameter of an encoder belongs to.

    They are those of timm's ``group_matcher`` of the whole model, which ``timm.optim.param_groups_layer_decay`` goes
    by; MetaFormers, which have none, are taken apart by stage and block in the same way.

    Args:
        encoder: From `create_encoder`.
        backbone: timm's name.

    Raises:
        UsageError: The model's blocks can't be told apart.

    Examples:
        >>> from ctrs.models.encoder import create_encoder
        >>> depth = encoder_depth(create_encoder("test_convnext")[0], "test_convnext")
        >>> depth.num_blocks, depth.block["stem_0.weight"], depth.block["stages_1.downsample.0.weight"]
        (10, 0, 2)
    """
    with torch.device("meta"), torch.no_grad():
        # Some models come without a classifier, whose group tells the last block from what follows.
        model: Any = timm.create_model(backbone, pretrained=False, num_classes=2)
    matcher = model.group_matcher(coarse=False) if hasattr(model, "group_matcher") else _BLOCKS
    groups: dict[str, int] = group_parameters(model, matcher, reverse=True)
    num_blocks = max(groups.values())  # the last group is the classifier, which stands where the decoder does
    if num_blocks < NUM_STAGES:
        raise UsageError(
            f"layer_decay: the blocks of backbone {backbone!r} can't be told apart; use encoder_rate, "
            "which is one factor for the whole encoder"
        )
    undecayed = set(model.no_weight_decay() or ()) if hasattr(model, "no_weight_decay") else set()
    # timm's feature wrappers join the first parts of a name by an underline, or put the model below one more.
    flat = {name.replace(".", "_"): name for name in groups}
    block: dict[str, int] = {}
    kept: set[str] = set()
    for name, _ in encoder.named_parameters():
        whole = flat.get(_inner(name).replace(".", "_"))
        block[name] = num_blocks if whole is None else groups[whole]
        if whole in undecayed:
            kept.add(name)
    return EncoderDepth(block=block, num_blocks=num_blocks, undecayed=frozenset(kept))


def stage_modules(encoder: nn.Module, backbone: str, num_stages: int) -> tuple[nn.Module, ...]:
    """Return the modules of an encoder up to a stage, the stem among them; modules only, each without its children.

    A stage ends with the module whose output is its feature map, in the order in which the modules stand. Of a plain
    vision transformer a stage is a quarter of the blocks; its feature pyramid is none of them.

    Args:
        encoder: From `create_encoder`.
        backbone: timm's name, for messages.
        num_stages: From 0 to 4.

    Raises:
        UsageError: The encoder's stages do not stand one behind the other.
    """
    trunk = encoder.trunk if isinstance(encoder, PyramidEncoder) else encoder
    if not isinstance(trunk, nn.Module):
        raise TypeError(f"trunk of {type(encoder).__name__} is no module")
    modules = list(trunk.named_modules())
    if num_stages == NUM_STAGES:
        return tuple(module for _, module in modules)
    if num_stages == 0:
        return ()
    ends = _stage_ends(trunk, [_inner(name).replace(".", "_") for name, _ in modules])
    if len(ends) != NUM_STAGES or ends != sorted(set(ends)) or ends[0] < 0:
        raise UsageError(
            f"frozen_stages = {num_stages} found, but the stages of backbone {backbone!r} do not stand one behind the "
            f"other; expected 0 or {NUM_STAGES} for all of it"
        )
    return tuple(module for number, (_, module) in enumerate(modules) if number <= ends[num_stages - 1])


def _stage_ends(trunk: nn.Module, names: list[str]) -> list[int]:
    """Return the place of the last module of each stage, -1 where there is none."""
    info: Any = getattr(trunk, "feature_info", None)
    if info is None:
        return []
    last = [str(name).replace(".", "_") for name in info.module_name()]
    if len(last) == 1:  # a plain transformer
        stem, _, number = last[0].rpartition("_")
        count = int(number) + 1
        last = [f"{stem}_{count * (stage + 1) // NUM_STAGES - 1}" for stage in range(NUM_STAGES)]
    return [
        max((place for place, name in enumerate(names) if name == end or name.startswith(f"{end}_")), default=-1)
        for end in last
    ]


def _inner(name: str) -> str:
    return name.removeprefix("trunk.").removeprefix("model.")
