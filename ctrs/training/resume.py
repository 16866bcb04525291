"""What going on after a stop needs: weights, optimizer, random numbers and history, saved without pickle.

The saved state is the only truth about a run; metrics.csv, curves.png, ``last`` and ``best`` follow from it and are
made good where a stop fell between them. Each save is a new folder, synced and renamed; then a small pointer file is
replaced in one rename. A half-written state is never pointed at.
"""

from __future__ import annotations

import base64
import json
import logging
import random
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ctrs.errors import CheckpointError, OutputError, TrainingError
from ctrs.jobs import sync, write_text
from ctrs.models.checkpoint import save_tensors
from ctrs.training.records import EpochRecord

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
POINTER_FILE = "current"
TENSORS_FILE = "state.safetensors"
STATE_FILE = "state.json"

_MODULE, _OPTIMIZER = "module/", "optimizer/"


@dataclass(frozen=True, kw_only=True)
class RunState:
    """Where a run stands, tensors apart.

    Args:
        history: Records of the finished epochs.
        seconds: Time spent on them.
    """

    history: tuple[EpochRecord, ...] = field(default_factory=tuple)
    seconds: float = 0.0

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return len(self.history)

    @property
    def best(self) -> EpochRecord | None:
        """Record of the best epoch, None before the first one."""
        return next((record for record in reversed(self.history) if record.is_best), None)

    def after(self, record: EpochRecord, seconds: float) -> RunState:
        """Return the state after one more epoch."""
        return RunState(history=(*self.history, record), seconds=self.seconds + seconds)

    def improves(self, score: float | None) -> bool:
        """Whether an epoch with this score is the best one; without scores it is the last one."""
        return score is None or self.best is None or self.best.score is None or score > self.best.score


def save_state(folder: Path, state: RunState, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Save a run between two epochs, with the generators as they are now.

    Args:
        folder: ``runs/NAME/resume``.
        state: Where the run stands.
        module: Network and projection heads.
        optimizer: Over the module's parameters.

    Raises:
        OutputError: The folder cannot be written.
    """
    name = f"epoch-{state.epoch:05d}"
    staged = folder / f".{name}.new"
    try:
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
        tensors, scalars = _optimizer_state(module, optimizer)
        tensors |= {_MODULE + key: value for key, value in module.state_dict().items()}
        save_tensors(staged / TENSORS_FILE, {key: _plain_tensor(value) for key, value in tensors.items()})
        document = {
            "format_version": FORMAT_VERSION,
            "history": [record.to_json() for record in state.history],
            "seconds": state.seconds,
            "threads": torch.get_num_threads(),
            "device": next(module.parameters()).device.type,
            "optimizer": scalars,
            "random": random_state(),
        }
        (staged / STATE_FILE).write_text(json.dumps(document, allow_nan=False), encoding="utf-8")
        sync(staged)
        shutil.rmtree(folder / name, ignore_errors=True)  # of an attempt that was stopped before it was pointed at
        staged.replace(folder / name)
        sync(folder)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{folder}: cannot be written ({error}); check space and permissions") from error
    write_text(folder / POINTER_FILE, name)
    for entry in folder.iterdir():
        if entry.is_dir() and entry.name != name:
            shutil.rmtree(entry, ignore_errors=True)


def has_state(folder: Path) -> bool:
    """Whether there is a state to go on from."""
    return (folder / POINTER_FILE).is_file()


def read_state(folder: Path) -> RunState:
    """Read where a run stands; a run without state stands at its beginning.

    Raises:
        CheckpointError: The state is broken.
    """
    if not has_state(folder):
        return RunState()
    document = _read_document(folder)
    try:
        history = tuple(EpochRecord.from_json(row) for row in document["history"])
        return RunState(history=history, seconds=float(document["seconds"]))
    except (KeyError, TypeError, ValueError) as error:
        raise _broken(_current(folder) / STATE_FILE, error) from error


def restore_state(folder: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put weights, optimizer and generators back to where ``save_state`` saw them.

    Raises:
        CheckpointError: The state is broken or belongs to another network.
        TrainingError: It was saved with another number of CPU threads, which would change the weights.
    """
    document = _read_document(folder)
    threads = torch.get_num_threads()
    device = next(module.parameters()).device.type
    if device == document["device"] == "cpu" and document["threads"] != threads:
        raise TrainingError(
            f"{folder}: the run was trained with {document['threads']} CPU threads, found {threads}, which would give "
            f"other weights; set OMP_NUM_THREADS={document['threads']} or --threads {document['threads']}"
        )
    path = _current(folder) / TENSORS_FILE
    try:
        # Cloned: torch's own memory, aligned as that of a run that was never stopped.
        tensors = {key: value.clone() for key, value in safetensors.torch.load_file(path).items()}
        module.load_state_dict(
            {key.removeprefix(_MODULE): value for key, value in tensors.items() if key.startswith(_MODULE)}
        )
        _restore_optimizer(module, optimizer, tensors, document["optimizer"])
        restore_random_state(document["random"])
    except (OSError, SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise _broken(path, error) from error


def random_state() -> dict[str, Any]:
    """Return the state of all global generators as JSON values."""
    kind, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002  (libraries draw from it)
    version, numbers, gauss = random.getstate()
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    cuda = torch.cuda.get_rng_state_all() if used else []
    return {
        "torch": _to_text(torch.get_rng_state()),
        "cuda": [_to_text(state) for state in cuda],
        "numpy": [kind, np.asarray(keys).tolist(), position, has_gauss, cached],
        "python": [version, list(numbers), gauss],
    }


def restore_random_state(saved: Mapping[str, Any]) -> None:
    """Put all global generators back to where ``random_state`` saw them."""
    torch.set_rng_state(_from_text(saved["torch"]))
    if saved["cuda"] and torch.cuda.is_available():
        for number, state in enumerate(saved["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(_from_text(state), number)
    kind, keys, position, has_gauss, cached = saved["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), position, has_gauss, cached))  # noqa: NPY002
    version, numbers, gauss = saved["python"]
    random.setstate((version, tuple(numbers), gauss))


@contextmanager
def own_random_state() -> Iterator[None]:
    """Give the caller's generators back as they were."""
    saved = random_state()
    try:
        yield
    finally:
        restore_random_state(saved)


def _optimizer_state(module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the optimizer's tensors and its other values, both under PARAMETER/KEY."""
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, Any] = {}
    for name, parameter in module.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"{_OPTIMIZER}{name}/{key}"] = value
            else:
                scalars[f"{name}/{key}"] = value
    return tensors, scalars


def _restore_optimizer(
    module: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], scalars: Mapping[str, Any]
) -> None:
    values: dict[str, dict[str, Any]] = {}
    found = {key.removeprefix(_OPTIMIZER): value for key, value in tensors.items() if key.startswith(_OPTIMIZER)}
    for place, value in {**found, **scalars}.items():
        name, _, key = place.rpartition("/")
        values.setdefault(name, {})[key] = value
    names = {parameter: name for name, parameter in module.named_parameters()}
    ordered = [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]
    unknown = set(values) - set(ordered)
    if unknown:
        raise ValueError(f"optimizer state of unknown parameters, e.g. {min(unknown)}")
    state = {index: values[name] for index, name in enumerate(ordered) if name in values}
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _plain_tensor(value: Tensor) -> Tensor:
    """Return a contiguous tensor on the CPU, not copied if it is one already: safetensors refuses channels_last."""
    return value.detach().cpu().contiguous()


def _current(folder: Path) -> Path:
    return folder / (folder / POINTER_FILE).read_text(encoding="utf-8").strip()


def _read_document(folder: Path) -> dict[str, Any]:
    path = _current(folder) / STATE_FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _broken(path, error) from error
    version = document.get("format_version") if isinstance(document, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(f"{path}: format_version {version!r} found, expected {FORMAT_VERSION}; train again")
    return dict(document)


def _broken(path: Path, error: Exception) -> CheckpointError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return CheckpointError(f"{path}: not a whole state to go on from ({reason}); train again with --overwrite")


def _to_text(state: Tensor) -> str:
    return base64.b64encode(state.cpu().numpy().tobytes()).decode("ascii")


def _from_text(text: str) -> Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
