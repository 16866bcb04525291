"""Encoder weights from local files: what fits by name and shape is loaded, and counted."""

from __future__ import annotations

import inspect
import io
import logging
import pickle
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
from safetensors import SafetensorError
from timm.models import adapt_input_conv
from torch import Tensor, nn

from ctrs.errors import CheckpointError, InputNotFoundError

logger = logging.getLogger(__name__)

_WRAPPERS = ("state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema")
_PREFIXES = ("module.", "encoder.", "backbone.")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read tensors by name from a .safetensors or a torch file, without executing anything in it.

    Raises:
        InputNotFoundError: The file is not there.
        CheckpointError: It is broken or holds no tensors.
    """
    if not path.is_file():
        raise InputNotFoundError(
            f"weights {str(path)!r}: no such file; expected imagenet, none, or a .safetensors or .pth file"
        )
    try:
        if path.suffix == ".safetensors":
            found: Any = safetensors.torch.load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise CheckpointError(
            f"{path}: no readable weights ({reason}); "
            "expected a .safetensors file or a .pth file that holds tensors only"
        ) from error
    for wrapper in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
    tensors = (
        {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
        if isinstance(found, Mapping)
        else {}
    )
    if not tensors:
        raise CheckpointError(f"{path}: holds no named tensors; expected a state dict of encoder weights")
    for prefix in _PREFIXES:
        inner = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        tensors = inner or tensors
    return tensors


def load_encoder_weights(
    encoder: nn.Module, path: Path, *, backbone: str, in_channels: int, options: Mapping[str, Any] | None = None
) -> int:
    """Load what fits by name and shape into an encoder.

    The names may be those of timm's whole model, of its original authors (as far as timm converts them), or of a ctrs
    checkpoint. The first layer is inflated as timm does when the file is for three bands.

    Args:
        encoder: From timm, features only.
        path: .safetensors or .pth file.
        backbone: timm's name of the encoder.
        in_channels: Bands of the encoder.
        options: With which timm built the encoder; patch and position embeddings are resampled to fit them.

    Returns:
        Number of tensors loaded.

    Raises:
        InputNotFoundError: The file is not there.
        CheckpointError: It can't be read, or nothing in it fits.
    """
    state = read_weights(path)
    target = encoder.state_dict()
    fitting = _fitting(state, target, in_channels)
    if len(fitting) < len(target):
        converted = _fitting(_convert(state, backbone, options or {}), target, in_channels)
        fitting = max(fitting, converted, key=len)
    if not fitting:
        raise CheckpointError(
            f"{path}: none of its {len(state)} tensors fits {backbone} (e.g. {next(iter(state))!r}, expected e.g. "
            f"{next(iter(target))!r}); give weights of this backbone, or --weights none"
        )
    encoder.load_state_dict(fitting, strict=False)
    missing = [name for name in target if name not in fitting]
    expected = [name for name in missing if not name.startswith("pyramid.")]  # others' files never hold a pyramid
    logger.log(
        logging.WARNING if expected else logging.INFO,
        "%s: loaded %d of %d tensors of %s%s",
        path,
        len(fitting),
        len(target),
        backbone,
        f"; not in the file or of another shape: {', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}"
        if missing
        else "",
    )
    return len(fitting)


def _convert(state: Mapping[str, Tensor], backbone: str, options: Mapping[str, Any]) -> dict[str, Tensor]:
    """Translate foreign names by timm's own filter for the model's family; unchanged where it has none."""
    kept = {key: value for key, value in options.items() if key not in ("feature_cls", "output_stride")}
    with torch.random.fork_rng(devices=[]):  # the weights drawn here are thrown away
        model = timm.create_model(backbone, pretrained=False, **kept)
    family = sys.modules[type(model).__module__]
    convert = getattr(family, "checkpoint_filter_fn", None) or getattr(family, "_checkpoint_filter_fn", None)
    if convert is None:
        return dict(state)
    if any(".gamma_" in name for name in state) and "adapt_layer_scale" in inspect.signature(convert).parameters:
        convert = partial(convert, adapt_layer_scale=True)  # as timm calls it for DeiT III
    try:
        with redirect_stdout(io.StringIO()):  # timm prints which biases DINOv3's smaller models don't have
            converted: dict[str, Tensor] = convert(dict(state), model)
    except (KeyError, RuntimeError, IndexError, AttributeError, ValueError) as error:
        logger.debug("timm could not translate the names for %s: %s", backbone, error)
        return dict(state)
    return converted


def _fitting(state: Mapping[str, Tensor], target: Mapping[str, Tensor], in_channels: int) -> dict[str, Tensor]:
    """Return the tensors of ``state`` that fit, under the names of ``target``."""
    fitting: dict[str, Tensor] = {}
    for name, tensor in state.items():
        # timm's feature wrappers join the first two parts of a name, or put the model below one more.
        for candidate in (name, name.replace(".", "_", 1), f"body.{name}", f"model.{name}", f"trunk.model.{name}"):
            if candidate not in target:
                continue
            wanted = target[candidate].shape
            if (
                tensor.ndim == 4
                and tensor.shape[1] == 3
                and (tensor.shape[0], in_channels, *tensor.shape[2:]) == tuple(wanted)
            ):
                tensor = adapt_input_conv(in_channels, tensor)
            if tensor.shape == wanted:
                fitting[candidate] = tensor
            break
    return fitting
