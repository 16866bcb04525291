"""Which process this is, where torchrun or SLURM started several of them; the environment alone says it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

_SHELLS = ("bash", "interactive")
"""Names of SLURM jobs in which somebody types: what is called there was not started beside others."""


@dataclass(frozen=True)
class LaunchedRank:
    """This process among those that were started together.

    Args:
        launcher: What started them.
        rank: Number of this one; 0 decides, writes and tells.
        world_size: How many there are.
    """

    launcher: Literal["torchrun", "SLURM"]
    rank: int
    world_size: int


def launched_rank() -> LaunchedRank | None:
    """Return which process this is, None where it was not started beside others."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return LaunchedRank("torchrun", _number("RANK", 0), _number("WORLD_SIZE", 1))
    # The step's number is set by srun; SLURM_NTASKS also stands in a batch script, which is one process.
    if _number("SLURM_STEP_NUM_TASKS", 1) > 1 and os.environ.get("SLURM_JOB_NAME") not in _SHELLS:
        return LaunchedRank("SLURM", _number("SLURM_PROCID", 0), _number("SLURM_NTASKS", 1))
    return None


def leads() -> bool:
    """Whether this process decides, writes and tells: any that was not started beside others as a rank above 0."""
    launched = launched_rank()
    return launched is None or launched.rank == 0


def _number(name: str, default: int) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else default
