"""What a training takes: memory at its peak, parameters, and room on the disk."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ctrs.data.tile_store import available_memory
from ctrs.errors import OutputError
from ctrs.memory import process_memory
from ctrs.progress import format_bytes
from ctrs.training.run_folder import RunFolder

_OTHER_FILES_BYTES = 20_000_000
"""Metrics, pictures and event files of a long run."""


class MemoryMeter:
    """Peak of the memory between ``begin`` and ``peak_bytes``.

    On CUDA devices it is what torch allocated on the device; on the CPU the resident memory of this process, loader
    processes apart, where the system tells it (Linux).

    Args:
        device: Where the network is.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._resettable = True

    def begin(self) -> None:
        """Forget earlier peaks."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            return
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        except OSError:  # not Linux, or not allowed: the peak is that of the whole process so far
            self._resettable = False

    @property
    def exact(self) -> bool:
        """Whether earlier peaks are forgotten."""
        return self._resettable

    def peak_bytes(self) -> int:
        """Return the peak, 0 where it cannot be measured."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        return process_memory("VmHWM")

    def held_bytes(self) -> int:
        """Return what is held now, 0 where it cannot be measured."""
        if self._device.type == "cuda":
            return int(torch.cuda.memory_allocated(self._device))
        return process_memory("VmRSS")

    def available_bytes(self) -> int:
        """Return what may still be taken: of the device, or of the machine."""
        if self._device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self._device)
            cached = torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
            return int(free + cached)
        return available_memory()


def count_parameters(module: nn.Module) -> tuple[int, int]:
    """Return how many parameters are trained and how many are frozen."""
    trained = frozen = 0
    for parameter in module.parameters():
        if parameter.requires_grad:
            trained += parameter.numel()
        else:
            frozen += parameter.numel()
    return trained, frozen


def optimizer_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Return what an optimizer's state takes once it has stepped: two values a parameter for Adam, one for momentum."""
    values = 0
    for group in optimizer.param_groups:
        each = 2 if "betas" in group else int(group.get("momentum", 0) > 0)
        values += sum(each * parameter.numel() * parameter.element_size() for parameter in group["params"])
    return values


def unmade_optimizer_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Return what the optimizer's state will take beside what it takes already."""
    return 0 if optimizer.state else optimizer_bytes(optimizer)


@dataclass(frozen=True, kw_only=True)
class DiskNeed:
    """Room that a run takes on the disk.

    Args:
        checkpoints: ``best``, ``last`` and the projection heads.
        resume: The state to go on from.
        staged: The most that is written beside what it replaces.
    """

    checkpoints: int
    resume: int
    staged: int

    @property
    def total(self) -> int:
        """Bytes that will stand in the folder."""
        return self.checkpoints + self.resume + _OTHER_FILES_BYTES


def disk_need(
    model: nn.Module, module: nn.Module, optimizer: torch.optim.Optimizer, *, averaged: bool = False
) -> DiskNeed:
    """Return the room that a run takes.

    Args:
        model: The network that checkpoints hold.
        module: Network and projection heads.
        optimizer: Over the module's parameters.
        averaged: A moving average of the weights is kept.
    """
    model_bytes, all_bytes = _state_bytes(model), _state_bytes(module)
    resume = all_bytes + optimizer_bytes(optimizer) + (all_bytes if averaged else 0)
    return DiskNeed(
        checkpoints=2 * model_bytes + (all_bytes - model_bytes), resume=resume, staged=max(resume, model_bytes)
    )


def _state_bytes(module: nn.Module) -> int:
    return sum(value.numel() * value.element_size() for value in module.state_dict().values())


def check_disk(run: RunFolder, need: DiskNeed, *, replaced: bool = False) -> int:
    """Refuse to train where the disk clearly lacks the room.

    Args:
        run: The run's folder, which stands.
        need: From ``disk_need``.
        replaced: What stands there is going to be removed first, and gives its room back.

    Returns:
        Bytes that the disk has left.

    Raises:
        OutputError: It has less than the run needs beside what stands there already.
    """
    try:
        free = shutil.disk_usage(run.path).free
    except OSError:  # a file system that does not tell
        return 0
    present = sum(entry.stat().st_size for entry in run.path.rglob("*") if entry.is_file())
    if replaced:
        free, present = free + present, 0
    missing = max(0, need.total - present) + need.staged
    if missing > free:
        with_it = " with what the run there takes" if replaced else ""
        raise OutputError(
            f"{run.path}: the disk has {format_bytes(free)} left{with_it}, but the run needs {format_bytes(missing)} "
            f"more (checkpoints {format_bytes(need.checkpoints)}, state to go on from {format_bytes(need.resume)}, "
            "which is written beside the one before); make room, or train elsewhere"
        )
    return free
