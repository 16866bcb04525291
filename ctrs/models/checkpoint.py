"""A trained network on disk: ``model.safetensors`` holds weights, ``model.json`` all else that prediction needs.

The description stands in the weight file's header too. Nothing is unpickled. What needs no torch is in
``ctrs.model_files``.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ctrs.errors import CheckpointError, CtrsError, InputNotFoundError, OutputError
from ctrs.jobs import fingerprint, partial_dir, partial_work
from ctrs.model_files import (
    FORMAT_VERSION,
    KIND,
    METADATA_FILE,
    WEIGHTS_FILE,
    CheckpointFiles,
    CheckpointMetadata,
    TensorHash,
    describe,
    find_checkpoint,
    header_metadata,
)
from ctrs.models.segmentation import SegmentationModel, create_model

_REMEDY = f"keep {WEIGHTS_FILE} and {METADATA_FILE} of one run together"

_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
"""As safetensors names them."""


def save_checkpoint(directory: Path, model: SegmentationModel, metadata: CheckpointMetadata) -> None:
    """Write a checkpoint folder; what stood there is replaced only when the new one is whole.

    Args:
        directory: E.g. ``runs/NAME/best``.
        model: Only the network; projection heads are saved with `save_module`.
        metadata: Must describe this model.

    Raises:
        CheckpointError: The metadata belong to another architecture.
        OutputError: The folder can't be written.
    """
    if metadata.architecture != model.architecture:
        raise CheckpointError(
            f"the metadata describe {metadata.architecture}, "
            f"but the model is {model.architecture}; pass the model's own"
        )
    tensors = _tensors(model)
    metadata = replace(
        metadata,
        weights_hash=hash_tensors(tensors),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        format_version=FORMAT_VERSION,
    )
    text = json.dumps(metadata.to_json(), indent=2, allow_nan=False) + "\n"
    with partial_work(directory, fingerprint({"kind": KIND}), overwrite=True) as work:
        staged = work.folder / directory.name
        try:
            staged.mkdir()
            (staged / METADATA_FILE).write_text(text, encoding="utf-8")
            save_tensors(staged / WEIGHTS_FILE, tensors, header=header_metadata(metadata))
        except (OSError, SafetensorError) as error:
            raise OutputError(f"{directory}: cannot be written ({error}); check space and permissions") from error
        work.publish(staged)


def save_module(path: Path, module: nn.Module) -> None:
    """Write any module's tensors as one .safetensors file, replacing what stood there in one rename.

    Raises:
        OutputError: The file can't be written.
    """
    staged = partial_dir(path)
    try:
        save_tensors(staged, _tensors(module))
        with staged.open("rb") as stream:
            os.fsync(stream.fileno())
        staged.replace(path)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{path}: cannot be written ({error}); check space and permissions") from error


def save_tensors(path: Path, tensors: Mapping[str, Tensor], *, header: Mapping[str, str] | None = None) -> None:
    """Write tensors as a .safetensors file that others may read as far as the umask, or the folder, lets them.

    Args:
        path: Not a final name: the file is not synced, and what stands there is removed first.
        tensors: Contiguous, on the CPU, no two sharing memory.
        header: Texts that stand in the file's header.

    Raises:
        OSError: The file can't be written.
        SafetensorError: Likewise.
    """
    path.unlink(missing_ok=True)
    with path.open("wb") as stream:
        mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
    safetensors.torch.save_file(dict(tensors), path, metadata=dict(header or {"format": "pt"}))
    path.chmod(mode)  # safetensors puts a new file there that only its owner may read


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return the hash that ``ctrs.model_files.hash_weights`` finds in the file these tensors are saved to."""
    digest = TensorHash()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        elements = tensor.reshape(-1).view(torch.uint8).numpy() if tensor.numel() else np.empty(0, np.uint8)
        digest.add(name, _DTYPES[tensor.dtype], tensor.shape, elements.data)
    return digest.hexdigest()


def read_tensors(files: CheckpointFiles, metadata: CheckpointMetadata) -> dict[str, Tensor]:
    """Read the weights of a checkpoint and compare their hash with the description's, where it has one.

    Raises:
        InputNotFoundError: The file is not there.
        CheckpointError: It is broken, or is not the one that was described.
    """
    tensors = _read_tensors(files.weights)
    if metadata.weights_hash is None and metadata.format_version < 2:
        return tensors
    if hash_tensors(tensors) != metadata.weights_hash:
        raise CheckpointError(
            f"{files.weights}: not the weights that {files.description} describes (their hash differs: the file is "
            f"damaged or of another run); copy it again, and {_REMEDY}"
        )
    return tensors


def load_module(path: Path, module: nn.Module) -> None:
    """Load what `save_module` wrote into a module of the same shape.

    Raises:
        InputNotFoundError: The file is not there.
        CheckpointError: It is broken or belongs to another module.
    """
    _load(_read_tensors(path), module, path)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputNotFoundError(f"{path}: no such file; expected weights that ctrs train wrote")
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: broken or incomplete ({error}); copy it again, or train again") from error


def _load(tensors: dict[str, Tensor], module: nn.Module, path: Path) -> None:
    """Put tensors into a module that has just these."""
    expected = module.state_dict()
    missing, unexpected = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or unexpected:
        raise CheckpointError(
            f"{path}: belongs to another network ({len(missing)} tensors missing{_example(missing)}, "
            f"{len(unexpected)} unknown{_example(unexpected)}); {_REMEDY}"
        )
    wrong = [name for name, tensor in tensors.items() if tensor.shape != expected[name].shape]
    if wrong:
        name = wrong[0]
        raise CheckpointError(
            f"{path}: {len(wrong)} tensors of another shape ({name} {tuple(tensors[name].shape)} found, "
            f"expected {tuple(expected[name].shape)}); {_REMEDY}"
        )
    module.load_state_dict(tensors)


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> tuple[SegmentationModel, CheckpointMetadata]:
    """Build a network from a checkpoint; it gives the same logits as the one that was saved, bit for bit.

    Args:
        path: A run folder (its best checkpoint is taken), a checkpoint folder, or a weight file, under any name.
        device: Where the network shall live.

    Returns:
        The network in evaluation mode, and its metadata.

    Raises:
        InputNotFoundError: There is no checkpoint.
        CheckpointError: It is of another kind, broken or incomplete, or newer than this ctrs.
    """
    files = find_checkpoint(path)
    metadata = describe(files)
    architecture = metadata.architecture
    with torch.random.fork_rng(devices=[]):  # the weights drawn here are thrown away: leave the caller's numbers alone
        try:
            model = create_model(
                architecture.backbone,
                architecture.decoder,
                num_classes=architecture.num_classes,
                in_channels=architecture.in_channels,
            )
        except CtrsError as error:
            raise CheckpointError(f"{files.description}: the network can't be built ({error})") from error
    _load(read_tensors(files, metadata), model, files.weights)
    return model.to(device).eval(), metadata


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return the state on the CPU, contiguous (channels_last tensors are refused), with no two names sharing memory."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in module.state_dict().items()}


def _example(names: list[str]) -> str:
    return f", e.g. {names[0]}" if names else ""
