"""What going on after a stop needs: weights, optimizer, random numbers and history, saved without pickle.

The saved state is the only truth about a run; metrics.csv, curves.png, ``last`` and ``best`` follow from it and are
made good where a stop fell between them. Each save is a new folder, synced and renamed; then a small pointer file is
replaced in one rename, and only then the folder that it pointed at before is removed. A half-written state is never
pointed at. The pointer holds the hash of ``state.json``, which holds the hash of ``state.safetensors``: a byte that
changed on the disk is found before training goes on from it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ctrs.errors import CheckpointError, OutputError, TrainingError
from ctrs.jobs import hash_file, sync, write_text
from ctrs.models.checkpoint import save_tensors
from ctrs.progress import counted
from ctrs.training.random_state import random_state, restore_random_state
from ctrs.training.records import EpochRecord

logger = logging.getLogger(__name__)

FORMAT_VERSION = 3
POINTER_FILE = "current"
TENSORS_FILE = "state.safetensors"
STATE_FILE = "state.json"

_MODULE, _OPTIMIZER = "module/", "optimizer/"


class Stateful(Protocol):
    """What keeps a state of tensors and JSON values: moving average, loss scaler, meter of the epoch."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return the state."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any:
        """Take a state over."""
        ...


@dataclass(frozen=True, kw_only=True)
class RunState:
    """Where a run stands, tensors apart.

    Args:
        history: Records of the finished epochs.
        seconds: Time spent on them.
        step: Finished steps of the epoch after them.
        confusion: Validation pixels of the best epoch by true and predicted class, as in ``ConfusionMatrix.counts``.
    """

    history: tuple[EpochRecord, ...] = field(default_factory=tuple)
    seconds: float = 0.0
    step: int = 0
    confusion: tuple[tuple[int, ...], ...] = ()

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return len(self.history)

    @property
    def best(self) -> EpochRecord | None:
        """Record of the best epoch, None before the first one."""
        return next((record for record in reversed(self.history) if record.is_best), None)

    def after(self, record: EpochRecord, seconds: float, *, confusion: tuple[tuple[int, ...], ...] = ()) -> RunState:
        """Return the state after one more epoch."""
        return RunState(
            history=(*self.history, record),
            seconds=self.seconds + seconds,
            confusion=confusion if record.is_best else self.confusion,
        )

    def improves(self, score: float | None) -> bool:
        """Whether an epoch with this score is the best one; without scores it is the last one."""
        return score is None or self.best is None or self.best.score is None or score > self.best.score

    def out_of_patience(self, patience: int | None) -> bool:
        """Whether so many epochs have brought no better score that training is to stop."""
        return patience is not None and self.best is not None and self.epoch - self.best.epoch >= patience


def save_state(
    folder: Path,
    state: RunState,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    others: Mapping[str, Stateful] | None = None,
    generators: Sequence[Mapping[str, Any]] | None = None,
    threads: Sequence[int] | None = None,
) -> None:
    """Save a run between two steps.

    Args:
        folder: ``runs/NAME/resume``.
        state: Where the run stands.
        module: Network and projection heads.
        optimizer: Over the module's parameters.
        others: What else keeps a state, by name.
        generators: Global random generators of each process; None: those of this one, as they are now.
        threads: CPU threads of each process; None: those of this one.

    Raises:
        OutputError: The folder cannot be written.
    """
    name = f"epoch-{state.epoch:05d}" + (f"-step-{state.step:06d}" if state.step else "")
    staged = folder / f".{name}.new"
    try:
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
        tensors, scalars = _optimizer_state(module, optimizer)
        tensors |= {_MODULE + key: value for key, value in module.state_dict().items()}
        values: dict[str, dict[str, Any]] = {}
        for kind, other in (others or {}).items():
            held = other.state_dict()
            tensors |= {f"{kind}/{key}": value for key, value in held.items() if isinstance(value, Tensor)}
            values[kind] = {key: value for key, value in held.items() if not isinstance(value, Tensor)}
        save_tensors(staged / TENSORS_FILE, {key: _plain_tensor(value) for key, value in tensors.items()})
        document = {
            "format_version": FORMAT_VERSION,
            "history": [record.to_json() for record in state.history],
            "seconds": state.seconds,
            "step": state.step,
            "confusion": state.confusion,
            "threads": [torch.get_num_threads()] if threads is None else list(threads),
            "device": next(module.parameters()).device.type,
            "optimizer": scalars,
            "others": values,
            "random": [random_state()] if generators is None else list(generators),
            "sha256": hash_file(staged / TENSORS_FILE),
        }
        text = json.dumps(document, allow_nan=False)
        (staged / STATE_FILE).write_text(text, encoding="utf-8")
        sync(staged)
        shutil.rmtree(folder / name, ignore_errors=True)  # of an attempt that was stopped before it was pointed at
        staged.replace(folder / name)
        sync(folder)
        write_text(folder / POINTER_FILE, f"{name} {hashlib.sha256(text.encode()).hexdigest()}")
        sync(folder)  # the new pointer is on the disk before the old state goes
    except (OSError, SafetensorError) as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{folder}: cannot be written ({error}); check space and permissions") from error
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
        return RunState(
            history=history,
            seconds=float(document["seconds"]),
            step=int(document["step"]),
            confusion=tuple(tuple(int(count) for count in row) for row in document.get("confusion", ())),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _broken(folder, _current(folder)[0] / STATE_FILE, error) from error


def restore_state(
    folder: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    others: Mapping[str, Stateful] | None = None,
    rank: int = 0,
    threads: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Put weights, optimizer, generators and all else back to where ``save_state`` saw them.

    Args:
        folder: ``runs/NAME/resume``.
        module: As in ``save_state``.
        optimizer: As in ``save_state``.
        others: As in ``save_state``; one whose state was not saved stays as it is.
        rank: Which process this is; generators of one that did not train along before stay as they are.
        threads: As in ``save_state``. Another number of processes is allowed, and told by the first one.

    Returns:
        The saved states of what is not in ``others``, by name.

    Raises:
        CheckpointError: The state is broken or belongs to another network.
        TrainingError: As many processes saved it with other numbers of CPU threads, which would change the weights.
    """
    document = _read_document(folder)
    device = next(module.parameters()).device.type
    found = [torch.get_num_threads()] if threads is None else list(threads)
    _compare_processes(folder, document, found, device, tells=rank == 0)
    path = _current(folder)[0] / TENSORS_FILE
    try:
        if hash_file(path) != document["sha256"]:
            raise ValueError("its SHA-256 is not the one that was saved: the file was changed or the disk is failing")
        # Cloned: torch's own memory, aligned as that of a run that was never stopped.
        tensors = {key: value.clone() for key, value in safetensors.torch.load_file(path).items()}
        module.load_state_dict(_under(_MODULE, tensors))
        _restore_optimizer(module, optimizer, tensors, document["optimizer"])
        held = {kind: {**_under(f"{kind}/", tensors), **values} for kind, values in document["others"].items()}
        for kind, other in (others or {}).items():
            if kind in held:
                other.load_state_dict(held.pop(kind))
        if rank < len(document["random"]):
            restore_random_state(document["random"][rank])
        return held
    except (OSError, SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise _broken(folder, path, error) from error


def _compare_processes(
    folder: Path, document: Mapping[str, Any], found: Sequence[int], device: str, *, tells: bool
) -> None:
    """Refuse other threads in as many processes; say that another number of processes gives other weights."""
    saved: list[int] = document["threads"]
    if len(saved) != len(found):
        if tells:
            logger.warning(
                "%s: the run was trained by %s and goes on with %d: not bit for bit as it would have",
                folder, counted(len(saved), "process"), len(found),
            )  # fmt: skip
        return
    if device != "cpu" or document["device"] != "cpu":
        return
    for number, (before, now) in enumerate(zip(saved, found, strict=True)):
        if before != now:
            where = f" in process {number} of {len(found)}" if len(found) > 1 else ""
            how = f"--threads {before}" if len(found) > 1 else f"OMP_NUM_THREADS={before} or --threads {before}"
            raise TrainingError(
                f"{folder}: the run was trained with {before} CPU threads, found {now}{where}, which would give other "
                f"weights; set {how}"
            )


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
    for place, value in {**_under(_OPTIMIZER, tensors), **scalars}.items():
        name, _, key = place.rpartition("/")
        values.setdefault(name, {})[key] = value
    names = {parameter: name for name, parameter in module.named_parameters()}
    ordered = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    unknown = set(values) - {names[parameter] for parameter in ordered}
    if unknown:
        raise ValueError(f"optimizer state of unknown parameters, e.g. {min(unknown)}")
    state = {
        index: {key: _laid_out_as(parameter, value) for key, value in values[names[parameter]].items()}
        for index, parameter in enumerate(ordered)
        if names[parameter] in values
    }
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _laid_out_as(parameter: Tensor, value: Any) -> Any:
    """Return a value of a parameter's shape in its memory layout, as the optimizer itself keeps it."""
    if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
        return torch.empty_like(parameter, dtype=value.dtype, device=value.device).copy_(value)
    return value


def _plain_tensor(value: Tensor) -> Tensor:
    """Return a contiguous tensor on the CPU, not copied if it is one already: safetensors refuses channels_last."""
    return value.detach().cpu().contiguous()


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _current(folder: Path) -> tuple[Path, str]:
    """Return the folder that the pointer names, and the hash of its ``state.json``."""
    name, _, digest = (folder / POINTER_FILE).read_text(encoding="utf-8").strip().partition(" ")
    return folder / name, digest


def _read_document(folder: Path) -> dict[str, Any]:
    path = folder / POINTER_FILE
    try:
        current, digest = _current(folder)
        if current == folder or not current.is_dir():
            raise ValueError(f"it names {current.name!r}, which is not there" if current != folder else "it is empty")
        path = current / STATE_FILE
        content = path.read_bytes()
        document = json.loads(content)
    except (OSError, ValueError) as error:
        raise _broken(folder, path, error) from error
    version = document.get("format_version") if isinstance(document, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(f"{path}: format_version {version!r} found, expected {FORMAT_VERSION}; train again")
    if hashlib.sha256(content).hexdigest() != digest:
        raise _broken(folder, path, ValueError(f"its SHA-256 is not the one in {POINTER_FILE}"))
    return dict(document)


def _broken(folder: Path, path: Path, error: Exception) -> CheckpointError:
    """Say what is wrong, and how to save what was trained: checkpoints do not follow from what is broken."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    advice = "train again with --overwrite"
    if (folder.parent / "last").is_dir():
        advice = (
            f"best/ and last/ stand beside it: begin from them under another --name by --init {folder.parent}, "
            f"or {advice}, which discards them"
        )
    return CheckpointError(f"{path}: not a whole state to go on from ({reason}); {advice}")
