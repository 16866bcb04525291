"""A trained network on disk: ``model.safetensors`` holds weights, ``model.json`` all else that prediction needs.

Nothing is unpickled.
"""

from __future__ import annotations

import json
import math
import os
import platform
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

import ctrs
from ctrs.classes import ClassMap
from ctrs.errors import CheckpointError, CtrsError, InputNotFoundError, OutputError
from ctrs.jobs import fingerprint, partial_dir, partial_work, recover
from ctrs.models.segmentation import Architecture, SegmentationModel, create_model
from ctrs.raster.bands import Bands

KIND = "ctrs segmentation model"
FORMAT_VERSION = 1
WEIGHTS_FILE = "model.safetensors"
METADATA_FILE = "model.json"

_REMEDY = f"keep {WEIGHTS_FILE} and {METADATA_FILE} of one run together"


def current_versions() -> dict[str, str]:
    """Return the versions of what a checkpoint depends on."""
    found = {"ctrs": ctrs.__version__, "python": platform.python_version()}
    for package in ("torch", "timm", "segmentation-models-pytorch"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True, kw_only=True)
class CheckpointMetadata:
    """What prediction needs beside the weights, and where they come from.

    Args:
        architecture: How to build the network.
        classes: Class table of the logits.
        bands: What the input's bands are and how their values are scaled.
        window_px: Window that prediction cuts, in scene pixels.
        overlap: Share of the window that neighbours have in common.
        pixel_size_m: Ground size of a training pixel; None where the data have no CRS.
        resize_factor: Network pixels for one scene pixel; 512 / 500 with the recipe ct-paper.
        recipe: Name of the recipe, None for none.
        config: Resolved configuration of the training.
        data: Name, hash and the like of the prepared data.
        metrics: Scores at this epoch; None for those that don't exist.
        epoch: Finished epochs.
        versions: Of the software that wrote this.
        format_version: Of this description.

    Raises:
        CheckpointError: Class table or bands don't fit the network.
    """

    architecture: Architecture
    classes: ClassMap
    bands: Bands
    window_px: int
    overlap: float
    pixel_size_m: float | None = None
    resize_factor: float = 1.0
    recipe: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    epoch: int = 0
    versions: Mapping[str, str] = field(default_factory=current_versions)
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if self.classes.num_classes != self.architecture.num_classes:
            raise CheckpointError(
                f"the class table has {self.classes.num_classes} classes, "
                f"but the network {self.architecture.num_classes}"
            )
        if self.bands.count != self.architecture.in_channels:
            raise CheckpointError(f"{self.bands.count} bands, but the network takes {self.architecture.in_channels}")

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; numbers that are not finite become null, paths text."""
        row = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        row |= {
            "architecture": asdict(self.architecture),
            "classes": self.classes.to_json(),
            "bands": self.bands.to_json(),
        }
        plain: dict[str, Any] = _plain({"kind": KIND, **row})
        return plain

    @classmethod
    def from_json(cls, row: Any, *, where: str = "checkpoint") -> CheckpointMetadata:
        """Build from `to_json` output.

        Raises:
            CheckpointError: Another kind of JSON, a newer format, or keys that are missing or wrong.
        """
        if not isinstance(row, Mapping) or row.get("kind") != KIND:
            found = row.get("kind") if isinstance(row, Mapping) else None
            raise CheckpointError(
                f"{where}: a checkpoint of another kind ({f'kind {found!r}' if found else 'no kind'} found, "
                f"expected {KIND!r}); give a run folder that `ctrs train` wrote"
            )
        number = row.get("format_version")
        if not isinstance(number, int) or number > FORMAT_VERSION:
            raise CheckpointError(
                f"{where}: format_version {number!r} found, this ctrs {ctrs.__version__} reads up to {FORMAT_VERSION}; "
                "install a newer ctrs"
            )
        values = {key: value for key, value in row.items() if key != "kind"}
        try:
            values["architecture"] = Architecture(**values["architecture"])
            values["classes"] = ClassMap.from_json(values["classes"])
            values["bands"] = Bands.from_json(values["bands"])
            return cls(**values)
        except (KeyError, TypeError, CtrsError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise CheckpointError(
                f"{where}: not a whole description of a checkpoint ({reason}); train again"
            ) from error


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


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
    text = json.dumps(metadata.to_json(), indent=2, allow_nan=False) + "\n"
    with partial_work(directory, fingerprint({"kind": KIND}), overwrite=True) as work:
        staged = work.folder / directory.name
        try:
            staged.mkdir()
            (staged / METADATA_FILE).write_text(text, encoding="utf-8")
            save_tensors(staged / WEIGHTS_FILE, _tensors(model))
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


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as a .safetensors file that others may read as far as the umask, or the folder, lets them.

    Args:
        path: Not a final name: the file is not synced, and what stands there is removed first.
        tensors: Contiguous, on the CPU, no two sharing memory.

    Raises:
        OSError: The file can't be written.
        SafetensorError: Likewise.
    """
    path.unlink(missing_ok=True)
    with path.open("wb") as stream:
        mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
    safetensors.torch.save_file(dict(tensors), path, metadata={"format": "pt"})
    path.chmod(mode)  # safetensors puts a new file there that only its owner may read


def load_module(path: Path, module: nn.Module) -> None:
    """Load what `save_module` wrote into a module of the same shape.

    Raises:
        InputNotFoundError: The file is not there.
        CheckpointError: It is broken or belongs to another module.
    """
    if not path.is_file():
        raise InputNotFoundError(f"{path}: no such file; expected weights that ctrs train wrote")
    try:
        tensors = safetensors.torch.load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: broken or incomplete ({error}); copy it again, or train again") from error
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
        path: A run folder (its best checkpoint is taken), a checkpoint folder, or its ``model.safetensors``.
        device: Where the network shall live.

    Returns:
        The network in evaluation mode, and its metadata.

    Raises:
        InputNotFoundError: There is no checkpoint.
        CheckpointError: It is of another kind, broken or incomplete, or newer than this ctrs.
    """
    folder = find_checkpoint(path)
    metadata = read_metadata(folder)
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
            raise CheckpointError(f"{folder / METADATA_FILE}: the network can't be built ({error})") from error
    load_module(folder / WEIGHTS_FILE, model)
    return model.to(device).eval(), metadata


def read_metadata(path: Path) -> CheckpointMetadata:
    """Read the description of a checkpoint without its weights.

    Args:
        path: As for `load_checkpoint`.

    Raises:
        InputNotFoundError: There is no checkpoint.
        CheckpointError: It is of another kind, broken, or newer than this ctrs.
    """
    file = find_checkpoint(path) / METADATA_FILE
    try:
        row = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: not readable as JSON ({error}); copy it again, or train again") from error
    return CheckpointMetadata.from_json(row, where=str(file))


def find_checkpoint(path: Path) -> Path:
    """Return the checkpoint folder that a run folder, checkpoint folder or weight file stands for.

    Raises:
        InputNotFoundError: There is none.
        OutputError: A killed process left it aside, and it can't be put back.
    """
    start = path.parent if path.name == WEIGHTS_FILE else path
    for folder in (start, start / "best", start / "last"):
        recover(folder)
    if not start.exists():
        raise InputNotFoundError(f"{path}: no such run or checkpoint; give a run folder that `ctrs train` wrote")
    for folder in (start, start / "best", start / "last"):
        if (folder / METADATA_FILE).is_file():
            if not (folder / WEIGHTS_FILE).is_file():
                raise InputNotFoundError(
                    f"{folder}: holds {METADATA_FILE} but no {WEIGHTS_FILE}; copy both, or train again"
                )
            return folder
    raise InputNotFoundError(
        f"{path}: no checkpoint there ({METADATA_FILE} expected, also in best/); "
        "give a run folder that `ctrs train` wrote"
    )


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return the state on the CPU, contiguous (channels_last tensors are refused), with no two names sharing memory."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in module.state_dict().items()}


def _example(names: list[str]) -> str:
    return f", e.g. {names[0]}" if names else ""
