"""The files of a trained network: found, described and checked without torch.

A checkpoint is a folder with ``model.safetensors`` and ``model.json``, or the weight file alone, under any name: its
header holds the description too. What differs between two runs of the same job (times, speeds) stands in ``model.json``
alone, so that equal runs write equal weight files.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import platform
import struct
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import ctrs
from ctrs.classes import ClassMap
from ctrs.errors import CheckpointError, CtrsError, InputNotFoundError
from ctrs.jobs import recover
from ctrs.raster.bands import Bands

KIND = "ctrs segmentation model"
FORMAT_VERSION = 2
"""2: with the hash of the weights, the protocol of the metrics, and the description in the weight file's header."""
WEIGHTS_FILE = "model.safetensors"
METADATA_FILE = "model.json"

_SUFFIX = ".safetensors"
_HEADER_KEY = "ctrs"
_MAX_HEADER_BYTES = 100_000_000  # as safetensors' own
_METRICS_OF_ONE_RUN = ("seconds", "images_per_second", "data_wait", "peak_memory_mb")


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What is needed to build a network again.

    Args:
        backbone: timm name.
        decoder: Name of the decoder.
        num_classes: Channels of the logits.
        in_channels: Bands of the input.
    """

    backbone: str
    decoder: str
    num_classes: int
    in_channels: int


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
        data: Name, hash, licence, footprint and the like of the prepared data.
        metrics: Scores at this epoch; None for those that don't exist.
        protocol: Rule by which the scores among the metrics were counted (``ctrs.evaluation.protocols``), and on what.
        epoch: Finished epochs.
        init: The model that training began from: name, hash of its weights and the like; empty for none.
        created: Date and time (ISO 8601) at which it was saved.
        versions: Of the software that wrote this.
        weights_hash: SHA-256 over the tensors, from ``TensorHash``; None before they are saved, and in format 1.
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
    protocol: str | None = None
    epoch: int = 0
    init: Mapping[str, Any] = field(default_factory=dict)
    created: str | None = None
    versions: Mapping[str, str] = field(default_factory=current_versions)
    weights_hash: str | None = None
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

    def for_header(self) -> CheckpointMetadata:
        """Return the description without what differs between two runs of the same job."""
        kept = {name: value for name, value in self.metrics.items() if name not in _METRICS_OF_ONE_RUN}
        return replace(self, metrics=kept, created=None)

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


@dataclass(frozen=True, kw_only=True)
class CheckpointFiles:
    """Where a checkpoint stands.

    Args:
        weights: The .safetensors file.
        description: ``model.json``, or the weight file where its header holds the only description.
    """

    weights: Path
    description: Path

    @property
    def folder(self) -> Path:
        """The checkpoint folder; for a weight file of another name, the place beside it for what belongs to it.

        >>> file = Path("maps/roofs.safetensors")
        >>> CheckpointFiles(weights=file, description=file).folder.as_posix()
        'maps/roofs_model'
        """
        if self.weights.name == WEIGHTS_FILE:
            return self.weights.parent
        return self.weights.with_name(f"{weights_name(self.weights)}_model")

    @property
    def home(self) -> Path:
        """The run's folder, or the checkpoint's own where it belongs to no run."""
        return run_home(self.folder)


def weights_name(weights: Path) -> str:
    """Return the name of a weight file without its ending, as far as that is one of weight files.

    >>> [weights_name(Path(name)) for name in ("roofs.safetensors", "net.v1.safetensors", "net.v2", "net.v3")]
    ['roofs', 'net.v1', 'net.v2', 'net.v3']
    """
    return weights.name.removesuffix(_SUFFIX)


def find_checkpoint(path: Path) -> CheckpointFiles:
    """Return the checkpoint that a run folder, checkpoint folder or weight file stands for.

    Raises:
        InputNotFoundError: There is none.
        CheckpointError: The file is no weight file.
        OutputError: A killed process left it aside, and it can't be put back.
    """
    start = path.parent if path.name in (WEIGHTS_FILE, METADATA_FILE) else path
    if path.suffix != _SUFFIX or path.name == WEIGHTS_FILE:
        for folder in (start, start / "best", start / "last"):
            recover(folder)
    if not start.exists():
        raise InputNotFoundError(f"{path}: no such run or checkpoint; give a run folder that `ctrs train` wrote")
    if start.is_file():
        if start.suffix != _SUFFIX and not _looks_like_weights(start):
            raise CheckpointError(
                f"{path}: not a model of ctrs; give a run folder or a {_SUFFIX} file that `ctrs train` wrote (encoder "
                "weights of others go to `ctrs train --weights`)"
            )
        return CheckpointFiles(weights=start, description=start)
    for folder in (start, start / "best", start / "last"):
        weights, description = folder / WEIGHTS_FILE, folder / METADATA_FILE
        if description.is_file():
            if not weights.is_file():
                raise InputNotFoundError(
                    f"{folder}: holds {METADATA_FILE} but no {WEIGHTS_FILE}; copy both, or train again"
                )
            return CheckpointFiles(weights=weights, description=description)
        if weights.is_file():
            return CheckpointFiles(weights=weights, description=weights)
    raise InputNotFoundError(
        f"{path}: no checkpoint there ({METADATA_FILE} expected, also in best/); "
        "give a run folder that `ctrs train` wrote"
    )


def run_home(folder: Path) -> Path:
    """Return the run that a checkpoint folder belongs to, or the folder itself where it belongs to none.

    >>> run_home(Path("models/roofs")).as_posix()
    'models/roofs'
    """
    if folder.name in ("", ".."):
        folder = folder.resolve()
    if folder.name in ("best", "last") and (folder.parent / "config.toml").is_file():
        return folder.parent
    return folder


def read_metadata(path: Path) -> CheckpointMetadata:
    """Read the description of a checkpoint without its weights.

    Args:
        path: A run folder (its best checkpoint is taken), a checkpoint folder, or a weight file.

    Raises:
        InputNotFoundError: There is no checkpoint.
        CheckpointError: It is of another kind, broken, or newer than this ctrs.
    """
    return describe(find_checkpoint(path))


def describe(files: CheckpointFiles) -> CheckpointMetadata:
    """Read the description of a checkpoint that `find_checkpoint` found.

    Raises:
        CheckpointError: It is of another kind, broken, or newer than this ctrs.
    """
    file = files.description
    if file == files.weights:
        return CheckpointMetadata.from_json(_description_in_header(file), where=str(file))
    try:
        row = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: not readable as JSON ({error}); copy it again, or train again") from error
    return CheckpointMetadata.from_json(row, where=str(file))


def header_metadata(metadata: CheckpointMetadata) -> dict[str, str]:
    """Return what the header of the weight file says beside the tensors.

    It is one text, since safetensors writes several in an order that differs from process to process.
    """
    row = metadata.for_header().to_json()
    return {_HEADER_KEY: json.dumps({"description": row, "sha256": _hash_of(row)}, allow_nan=False, sort_keys=True)}


def tensor_sizes(path: Path) -> dict[str, int]:
    """Return the number of elements of each tensor in a .safetensors file.

    Raises:
        CheckpointError: The file is broken.
    """
    entries, _ = _read_header(path)
    return {name: math.prod(entry["shape"]) for name, entry in entries.items()}


class TensorHash:
    """SHA-256 over names, types, shapes and bytes of tensors, given in the order of their names."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, name: str, dtype: str, shape: Iterable[int], data: bytes | memoryview) -> None:
        """Take one more tensor.

        Args:
            name: Of the tensor.
            dtype: As safetensors writes it: ``F32``, ``I64``, ...
            shape: Of the tensor.
            data: Its elements in row-major order.
        """
        self._digest.update(f"{name} {dtype} {list(shape)}\n".encode())
        self._digest.update(data)

    def hexdigest(self) -> str:
        """Return the hash of what was taken."""
        return self._digest.hexdigest()


def hash_weights(path: Path) -> str:
    """Return the hash of the tensors in a .safetensors file, whatever else its header says.

    Raises:
        CheckpointError: The file is broken.
    """
    entries, begin = _read_header(path)
    digest = TensorHash()
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as whole:
        view = memoryview(whole)
        try:
            for name in sorted(entries):
                first, last = entries[name]["data_offsets"]
                digest.add(name, entries[name]["dtype"], entries[name]["shape"], view[begin + first : begin + last])
        finally:
            view.release()
    return digest.hexdigest()


def _looks_like_weights(path: Path) -> bool:
    """Whether a file of another name begins as a .safetensors file does: the length of its header, and a JSON table."""
    try:
        with path.open("rb") as stream:
            (size,) = struct.unpack("<Q", stream.read(8))
            return 2 <= size <= min(_MAX_HEADER_BYTES, path.stat().st_size - 8) and stream.read(1) == b"{"
    except (OSError, struct.error):
        return False


def _description_in_header(path: Path) -> Any:
    """Return the description in a weight file's header, which must be whole."""
    text = (_read_raw_header(path)[0].get("__metadata__") or {}).get(_HEADER_KEY)
    if text is None:
        raise CheckpointError(
            f"{path}: holds weights but no description of a ctrs model, and no {METADATA_FILE} lies beside it; copy "
            "that too (encoder weights of others go to `ctrs train --weights`)"
        )
    try:
        document = json.loads(text)
        row, found = document["description"], document["sha256"]
    except (ValueError, TypeError, KeyError):
        row = found = None
    if row is None or _hash_of(row) != found:
        raise CheckpointError(f"{path}: broken (the description in its header was changed); copy it again")
    return row


def _hash_of(row: Any) -> str:
    return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the tensors' entries of a weight file's header, and where their bytes begin."""
    header, begin = _read_raw_header(path)
    return {name: entry for name, entry in header.items() if name != "__metadata__"}, begin


def _read_raw_header(path: Path) -> tuple[dict[str, Any], int]:
    try:
        with path.open("rb") as stream:
            (size,) = struct.unpack("<Q", stream.read(8))
            if size > _MAX_HEADER_BYTES:
                raise ValueError(f"a header of {size} bytes")
            text = stream.read(size)
            if len(text) < size:
                raise ValueError("it ends within its header")
            header = json.loads(text)
            if not isinstance(header, dict):
                raise ValueError("its header is no table")
    except (OSError, ValueError, struct.error) as error:
        raise CheckpointError(f"{path}: broken or incomplete ({error}); copy it again, or train again") from error
    return header, 8 + size


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
