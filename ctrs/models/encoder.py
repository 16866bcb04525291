"""Encoders from timm with four stages at strides 4, 8, 16, 32 and any input size.

Hierarchical models as they are (the last stages may be dilated), plain vision transformers through a feature pyramid.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from ctrs.errors import CheckpointError, UsageError
from ctrs.models.feature_pyramid import PATCH_SIZE, WIDTH, NormedFeatures, PyramidEncoder
from ctrs.models.hub import offline_where_unreachable
from ctrs.models.weights import load_encoder_weights

STRIDES = (4, 8, 16, 32)

BACKBONE_ALIASES: dict[str, str] = {
    "poolformer": "poolformer_s12",
    "poolformerv2": "poolformerv2_s12",
    "caformer": "caformer_s18",
    "convformer": "convformer_s18",
    "swin": "swin_tiny_patch4_window7_224",
    "swinv2": "swinv2_tiny_window8_256",
    "convnext": "convnext_tiny",
    "convnextv2": "convnextv2_tiny",
    "pvt": "pvt_v2_b0",
    "focalnet": "focalnet_tiny_srf",
    "davit": "davit_tiny",
    "inceptionnext": "inception_next_tiny",
    "mambaout": "mambaout_tiny",
    "twins": "twins_svt_small",
    "resnet": "resnet50",
    "hiera": "sam2_hiera_tiny",
    "hrnet": "hrnet_w18",
    "vit": "vit_small_patch16_224",
    "dinov2": "vit_small_patch14_dinov2",
    "dinov3": "vit_small_patch16_dinov3",
}
"""Friendly names and the timm model each stands for."""

_SIZE_OPTIONS: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})
"""How timm models are told to accept any input size; those without such an option take any, or only their own."""


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """How timm must be called for a backbone, found out on the meta device."""

    out_indices: tuple[int, ...]
    options: dict[str, Any]
    channels: tuple[int, ...]
    """Of the maps at these indices."""
    plain: bool = False
    """Whether the only map is one at stride 16, so that a feature pyramid must follow."""


def resolve_backbone(name: str) -> str:
    """Return the timm name (with its tag, if given) that a friendly or timm name stands for.

    Raises:
        UsageError: timm does not know it.

    Examples:
        >>> resolve_backbone("poolformer"), resolve_backbone("pvt_v2_b1.in1k")
        ('poolformer_s12', 'pvt_v2_b1.in1k')
    """
    resolved = BACKBONE_ALIASES.get(name, name)
    base = resolved.partition(".")[0]
    if not timm.is_model(base):
        close = difflib.get_close_matches(base, [*BACKBONE_ALIASES, *timm.list_models()], n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "timm.list_models() lists all"
        raise UsageError(
            f"backbone {name!r} is unknown; expected one of {', '.join(BACKBONE_ALIASES)} "
            f"or another timm model with feature maps; {hint}"
        )
    return resolved


def stage_strides(output_stride: int = 32) -> tuple[int, ...]:
    """Return the strides of the four stages of an encoder.

    Examples:
        >>> stage_strides(), stage_strides(16), stage_strides(8)
        ((4, 8, 16, 32), (4, 8, 16, 16), (4, 8, 8, 8))
    """
    return tuple(min(stride, output_stride) for stride in STRIDES)


def create_encoder(
    backbone: str,
    *,
    in_channels: int = 3,
    weights: str = "none",
    drop_path: float | None = None,
    output_stride: int = 32,
) -> tuple[nn.Module, tuple[int, ...]]:
    """Build an encoder.

    Args:
        backbone: Friendly name or timm name.
        in_channels: Bands of the input; pretrained first layers are inflated.
        weights: ``"imagenet"`` (timm's), ``"none"``, or a local .safetensors or .pth file.
        drop_path: Stochastic depth; timm's default for the model if None.
        output_stride: Largest stride, 32, 16 or 8; below 32 later stages are dilated instead of made smaller, which
            only some (convolutional) backbones can.

    Returns:
        A module that maps (B, in_channels, H, W), H and W multiples of 32, to four maps, and their channels. The maps
        are (B, h, w, C) where the module's ``output_fmt`` is NHWC, else (B, C, h, w).

    Raises:
        UsageError: The backbone is unknown, has neither four stages at these strides nor one at stride 16 at any input
            size, or can't be dilated.
        CheckpointError: The weights can't be had or don't fit.
    """
    name = resolve_backbone(backbone)
    if in_channels < 1:
        raise UsageError(f"in_channels must be at least 1, found {in_channels}")
    plan = _plan(name, in_channels, output_stride)
    options = dict(plan.options)
    if drop_path is not None:
        options["drop_path_rate"] = drop_path
    pretrained = weights == "imagenet"
    try:
        with offline_where_unreachable() if pretrained else nullcontext():
            encoder = _build(name, in_channels, pretrained=pretrained, out_indices=plan.out_indices, **options)
    except Exception as error:  # timm, the hub client and urllib raise many kinds
        if drop_path is not None and isinstance(error, TypeError):
            raise UsageError(
                f"backbone {name!r} has no stochastic depth; leave out drop_path, found {drop_path}"
            ) from error
        if not pretrained and isinstance(error, AssertionError):
            raise UsageError(
                f"backbone {name!r} gives no feature maps ({error}); choose another, "
                f"e.g. {', '.join(list(BACKBONE_ALIASES)[:6])}"
            ) from error
        if not pretrained:
            raise
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise CheckpointError(
            f"pretrained weights of {name} could not be loaded; use --weights none, or --weights FILE with a local "
            f".safetensors or .pth file of encoder weights ({reason[:160]})"
        ) from error
    channels = plan.channels
    if plan.plain:
        encoder, channels = PyramidEncoder(encoder, channels[0]), (WIDTH,) * len(STRIDES)
    if weights not in ("imagenet", "none"):
        load_encoder_weights(encoder, Path(weights), backbone=name, in_channels=in_channels, options=plan.options)
    return encoder, channels


def _build(name: str, in_channels: int, **options: Any) -> nn.Module:
    encoder = timm.create_model(name, features_only=True, in_chans=in_channels, **options)
    if not isinstance(encoder, nn.Module):
        raise TypeError(f"timm returned {type(encoder).__name__}")
    return encoder


@functools.lru_cache(maxsize=128)
def _plan(name: str, in_channels: int, output_stride: int = 32) -> _Plan:
    """Find the levels to take and the options to give, with shapes only: no weights are made, no numbers drawn."""
    with torch.device("meta"), torch.no_grad():
        encoder, options = _probe(name, in_channels)
        reduction = list(_feature_info(encoder, "reduction"))
        if len(set(reduction)) == 1:
            return _plan_plain(name, in_channels, options, output_stride)
        if any(stride not in reduction for stride in STRIDES):
            raise UsageError(
                f"backbone {name!r} has feature maps at strides {', '.join(map(str, reduction))}, expected 4, 8, 16 "
                f"and 32, or one stride only; choose another, e.g. {', '.join(list(BACKBONE_ALIASES)[:6])}"
            )
        # The last map of each stride is the richest.
        indices = tuple(len(reduction) - 1 - reduction[::-1].index(stride) for stride in STRIDES)
        if not _fits(encoder, in_channels, indices, STRIDES):
            raise _native_size_only(name)
        channels = _feature_info(encoder, "channels")
        if output_stride != 32:
            options = {**options, "output_stride": output_stride}
            if not _dilates(name, in_channels, indices, options):
                raise _not_dilatable(name, output_stride)
    return _Plan(out_indices=indices, options=options, channels=tuple(channels[i] for i in indices))


def _plan_plain(name: str, in_channels: int, options: dict[str, Any], output_stride: int) -> _Plan:
    """Plan for the last map of a plain model, cut into patches of 16 pixels whatever its weights were trained with."""
    if output_stride != 32:
        raise _not_dilatable(name, output_stride)
    for extra in ({"patch_size": PATCH_SIZE}, {}):
        used = {**options, **extra, "feature_cls": NormedFeatures}
        try:
            trunk = _build(name, in_channels, pretrained=False, out_indices=(-1,), **used)
        except (TypeError, RuntimeError, AttributeError, AssertionError, NotImplementedError, ValueError):
            continue
        if list(_feature_info(trunk, "reduction")) == [PATCH_SIZE]:
            if not _fits(trunk, in_channels, (0,), (PATCH_SIZE,)):
                raise _native_size_only(name)
            return _Plan(out_indices=(-1,), options=used, channels=tuple(_feature_info(trunk, "channels")), plain=True)
    raise UsageError(
        f"backbone {name!r} can't be cut into patches of {PATCH_SIZE} px, which the feature pyramid of plain models "
        "needs; choose another, e.g. vit, dinov2 or dinov3"
    )


def _native_size_only(name: str) -> UsageError:
    return UsageError(
        f"backbone {name!r} accepts only inputs of its native size, expected one that takes any size; "
        f"choose another, e.g. {', '.join(list(BACKBONE_ALIASES)[:6])}"
    )


def _not_dilatable(name: str, output_stride: int) -> UsageError:
    return UsageError(
        f"backbone {name!r} can't be dilated to stride {output_stride}, as DeepLab's decoders need; choose one that "
        "can, e.g. resnet, convnext, convnextv2 or inceptionnext, or another decoder, e.g. upernet"
    )


def _fits(encoder: nn.Module, in_channels: int, indices: Sequence[int], strides: Sequence[int]) -> bool:
    """Tell whether maps of an input of no native size have these strides."""
    try:
        maps = encoder.eval()(torch.empty(1, in_channels, 64, 96))
    except (RuntimeError, AssertionError, ValueError):
        return False
    shapes = [tuple(maps[i].shape[1:3] if is_channels_last(encoder) else maps[i].shape[2:]) for i in indices]
    return shapes == [(64 // stride, 96 // stride) for stride in strides]


def _dilates(name: str, in_channels: int, indices: Sequence[int], options: dict[str, Any]) -> bool:
    try:
        encoder = _build(name, in_channels, pretrained=False, **options)
    except (TypeError, RuntimeError, AttributeError, AssertionError, NotImplementedError, ValueError):
        return False
    return _fits(encoder, in_channels, indices, stage_strides(options["output_stride"]))


def _probe(name: str, in_channels: int) -> tuple[nn.Module, dict[str, Any]]:
    for options in _SIZE_OPTIONS:
        try:
            return _build(name, in_channels, pretrained=False, **options), options
        except TypeError as error:  # the model knows no such option
            if not options:
                raise UsageError(f"backbone {name!r} can't be built on {in_channels} bands ({error})") from error
        except (RuntimeError, AttributeError, AssertionError, NotImplementedError) as error:
            raise UsageError(
                f"backbone {name!r} gives no feature maps ({str(error).partition(chr(10))[0]}); "
                f"choose a hierarchical one, e.g. {', '.join(list(BACKBONE_ALIASES)[:6])}"
            ) from error
    raise AssertionError("the last options are empty")


def _feature_info(encoder: nn.Module, what: str) -> Sequence[int]:
    info: Any = encoder.feature_info
    values: Sequence[int] = getattr(info, what)()
    return values


def is_channels_last(encoder: nn.Module) -> bool:
    """Tell whether a timm encoder returns (B, h, w, C) maps."""
    return str(getattr(encoder, "output_fmt", "NCHW")).endswith("NHWC")
