"""Several processes that train one network: started here, or by torchrun or SLURM; joined by Fabric's DDP.

Rank 0 is the process that the user called: it alone decides, writes and tells. Processes that it starts itself are
``python -m ctrs.training.follower``: they read the configuration from their standard input and end when it closes, so
that none outlives its leader, however that ended.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, TypeVar

import torch
import torch.distributed
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.plugins.precision.amp import MixedPrecision
from lightning.fabric.plugins.precision.precision import Precision
from lightning.fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn

import ctrs
from ctrs.config import TrainConfig, to_plain
from ctrs.errors import CtrsError, DeviceError, TrainingError, UsageError
from ctrs.inference.device import cpu_threads, resolve_precision
from ctrs.launcher import launched_rank

_T = TypeVar("_T")

logger = logging.getLogger(__name__)

FOLLOWER_MODULE = "ctrs.training.follower"
_READY = "ready\n"
_LAST_SECONDS = 60.0
"""How long a process may take to end by itself after another one has failed, or after all is done."""

_SET_BY_FABRIC = ("MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")


class LocalRanks(ClusterEnvironment):
    """This machine's processes, numbered by whoever started them.

    Args:
        rank: Which of them this is.
        world_size: How many there are.
        port: Where rank 0 listens.
    """

    def __init__(self, *, rank: int, world_size: int, port: int) -> None:
        super().__init__()
        self._rank, self._world_size, self._port = rank, world_size, port

    @property
    def creates_processes_externally(self) -> bool:
        """They run already."""
        return True

    @property
    def main_address(self) -> str:
        """Where rank 0 is."""
        return "127.0.0.1"

    @property
    def main_port(self) -> int:
        """Where rank 0 listens."""
        return self._port

    @staticmethod
    def detect() -> bool:
        """Only given, never found."""
        return False

    def world_size(self) -> int:
        """Return how many processes there are."""
        return self._world_size

    def set_world_size(self, size: int) -> None:
        """Do nothing: it is known."""

    def global_rank(self) -> int:
        """Return which one this is."""
        return self._rank

    def set_global_rank(self, rank: int) -> None:
        """Do nothing: it is known."""

    def local_rank(self) -> int:
        """Return which one this is."""
        return self._rank

    def node_rank(self) -> int:
        """Return 0: there is one machine."""
        return 0


def outside_ranks() -> ClusterEnvironment | None:
    """Return the processes that torchrun or SLURM started together with this one, None where neither did.

    Raises:
        UsageError: SLURM was not told how many processes to start on each node.
    """
    launched = launched_rank()
    if launched is None:
        return None
    if launched.launcher == "torchrun":
        return TorchElasticEnvironment()
    if "SLURM_NTASKS_PER_NODE" not in os.environ:
        raise UsageError(
            f"srun started {launched.world_size} processes, but not so many on each node; give it --ntasks-per-node "
            "with the number that --devices has"
        )
    return SLURMEnvironment()


def threads_of_each(config: TrainConfig) -> int | None:
    """Return the CPU threads that each process takes; None where it keeps those that it has.

    Processes that are started here share this one's threads; a launcher has chosen for those that it started.
    """
    if config.threads is not None or launched_rank() is not None or config.devices * config.num_nodes == 1:
        return config.threads
    return max(1, torch.get_num_threads() // config.devices)


def check_ranks(config: TrainConfig, device: torch.device) -> None:
    """Refuse numbers of devices that cannot be had.

    Raises:
        UsageError: Devices and nodes are not those that torchrun or SLURM started, or nodes without either.
        DeviceError: There are fewer devices.
    """
    world_size, launched = config.devices * config.num_nodes, launched_rank()
    if launched is not None and launched.world_size != world_size:
        raise UsageError(
            f"{launched.world_size} processes were started, but devices = {config.devices} on {config.num_nodes} nodes "
            f"need {world_size}; give --devices (on each node) and --nodes as torchrun or srun was given them"
        )
    if launched is None and config.num_nodes > 1:
        raise UsageError(
            f"num_nodes = {config.num_nodes} found, but neither torchrun nor SLURM started this process; start ctrs on "
            f"each node by `torchrun --nnodes {config.num_nodes} --nproc-per-node {config.devices} -m ctrs train ...` "
            "or by srun"
        )
    if config.devices > 1 and device.index is not None:
        raise UsageError(f"device {str(device)!r} and devices = {config.devices} found: name one or count them")
    if device.type == "cuda" and config.devices > torch.cuda.device_count():
        raise DeviceError(
            f"devices = {config.devices} asked for, found {torch.cuda.device_count()} CUDA devices; "
            "pass --devices with that number or fewer"
        )


@contextmanager
def open_fabric(
    config: TrainConfig, device: torch.device, *, follows: ClusterEnvironment | None = None
) -> Iterator[Fabric]:
    """Yield Fabric with all processes joined; they are gone afterwards.

    Args:
        config: From ``effective_config``, checked by ``check_ranks``.
        device: From ``resolve_device``.
        follows: What a process that was started for this belongs to.

    Raises:
        DeviceError: The device cannot compute in the precision asked for.
        TrainingError: One of the processes failed.
    """
    plugin = _precision_plugin(resolve_precision(config.precision, device), device)
    world_size = config.devices * config.num_nodes
    if world_size == 1:
        devices = 1 if device.index is None else [device.index]
        yield Fabric(accelerator=device.type, devices=devices, plugins=plugin)
        return
    ranks = follows or outside_ranks()
    with ExitStack() as stack:
        stack.enter_context(_kept_environment())
        stack.enter_context(warnings.catch_warnings())
        # Kernels of depth-wise convolutions have two layouts that mean the same; the copy costs next to nothing.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        stack.callback(_leave_group)  # last: while this process is in it, others do not fail because it has gone
        if ranks is None:
            ranks = LocalRanks(rank=0, world_size=world_size, port=_free_port())
            threads = threads_of_each(config)
            config = replace(config, threads=threads)  # of each process, this one too
            os.environ["OMP_NUM_THREADS"] = str(threads)  # else Fabric chooses
            stack.enter_context(cpu_threads(threads))
            stack.enter_context(_followers(config, ranks))
        else:
            stack.enter_context(cpu_threads(config.threads))  # a launcher's own number holds unless one is given
        fabric = Fabric(
            accelerator=device.type,
            devices=config.devices,
            num_nodes=config.num_nodes,
            plugins=plugin,
            strategy=DDPStrategy(cluster_environment=ranks),
        )
        with _quiet_lightning():
            fabric.launch()
        yield fabric


def _leave_group() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _precision_plugin(dtype: torch.dtype, device: torch.device) -> Precision:
    """Return what Fabric takes for a precision; given as such, it takes fp16 on the CPU too, where tests look at it."""
    if dtype == torch.float32:
        return Precision()
    return _Autocast("16-mixed" if dtype == torch.float16 else "bf16-mixed", device.type)


class _Autocast(MixedPrecision):
    """Autocast, and nothing else: Fabric also rounds all that goes in, and with it the random keys of the losses.

    Of those, bfloat16 leaves 8 bits: ties decide which cells are drawn, and some keys become 1.
    """

    def convert_input(self, data: Any) -> Any:
        """Return what goes in as it is; autocast rounds it where it is multiplied."""
        return data


def gather(value: _T, fabric: Fabric) -> list[_T]:
    """Return the values of all processes, by rank."""
    if fabric.world_size == 1:
        return [value]
    values: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(values, value)
    return values


def sum_over_ranks(tensor: Tensor, fabric: Fabric) -> Tensor:
    """Return the sum of all processes' tensors, which stay as they are."""
    if fabric.world_size == 1:
        return tensor
    total = tensor.to(fabric.device, copy=True)
    torch.distributed.all_reduce(total)
    return total


def share_buffers(module: nn.Module, fabric: Fabric) -> None:
    """Give all processes the buffers (BatchNorm's statistics) of rank 0, as each has seen other images."""
    if fabric.world_size > 1:
        for buffer in module.buffers():
            torch.distributed.broadcast(buffer, 0)


@dataclass(frozen=True)
class _Follower:
    """A process that this one started."""

    rank: int
    process: subprocess.Popen[str]
    errors: IO[str]
    told: list[str] = field(default_factory=list)

    def wait_until_ready(self) -> None:
        """Wait until it is about to join the others: who waits for one that never comes, waits long.

        Raises:
            ConnectionError: It ended instead.
        """
        line = self.process.stdout.readline() if self.process.stdout else ""
        if line != _READY:
            self.told.append(line)
            self.process.wait()
            raise ConnectionError(f"process {self.rank} did not start")

    def complaint(self) -> str | None:
        """Return what it failed with, None where it did not."""
        if self.process.poll() in (None, 0):
            return None
        told = "".join(self.told) + (self.process.stdout.read() if self.process.stdout else "")
        if told.strip():
            return str(json.loads(told.splitlines()[-1]))
        self.errors.seek(0)
        lines = self.errors.read().strip().splitlines()
        return f"it ended with {self.process.returncode}" + (f" ({lines[-1]})" if lines else "")


@contextmanager
def _followers(config: TrainConfig, ranks: LocalRanks) -> Iterator[None]:
    """Start the other processes, which take the threads that ``config`` names; say which one failed, and why."""
    root = str(Path(ctrs.__file__).parents[1])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "OMP_NUM_THREADS": str(config.threads), "PYTHONPATH": path}
    followers: list[_Follower] = []
    done = threading.Event()
    with ExitStack() as stack:
        try:
            for rank in range(1, ranks.world_size()):
                errors = stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace"))
                process = subprocess.Popen(
                    [sys.executable, "-m", FOLLOWER_MODULE],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env=environment,
                    text=True,
                )
                followers.append(_Follower(rank, process, errors))
                told = {
                    "config": to_plain(config),
                    "rank": rank,
                    "world_size": ranks.world_size(),
                    "port": ranks.main_port,
                }
                assert process.stdin is not None
                process.stdin.write(json.dumps(told) + "\n")
                process.stdin.flush()
            for follower in followers:
                follower.wait_until_ready()
            threading.Thread(target=_watch, args=(followers, done), daemon=True).start()
            yield
            _wait(followers)
            _raise_complaint(followers)
        except (RuntimeError, OSError) as error:
            if isinstance(error, CtrsError):
                raise
            _wait(followers, seconds=5)  # the one whose end broke the connection is about to be known
            _raise_complaint(followers, error)
            raise
        finally:
            done.set()
            for follower in followers:
                follower.process.kill()
                follower.process.communicate()


def _raise_complaint(followers: Sequence[_Follower], cause: Exception | None = None) -> None:
    for follower in followers:
        complaint = follower.complaint()
        if complaint is not None:
            raise TrainingError(f"process {follower.rank} of {len(followers) + 1}: {complaint}") from cause


def _wait(followers: Sequence[_Follower], *, seconds: float = _LAST_SECONDS) -> None:
    """Wait until one has failed or all have ended, but no longer than this."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        codes = [follower.process.poll() for follower in followers]
        if any(codes) or None not in codes:
            return
        time.sleep(0.02)


def _watch(followers: Sequence[_Follower], done: threading.Event) -> None:
    """End this process where another one has failed and this one waits for it for ever."""
    while not done.wait(1.0):
        if any(follower.process.poll() for follower in followers):
            if done.wait(_LAST_SECONDS):
                return
            for follower in followers:
                logger.critical("process %d: %s", follower.rank, follower.complaint())
                follower.process.kill()
            os._exit(1)


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keep Lightning, which has handlers of its own, from telling of each process."""
    levels = {logger: logger.level for logger in map(logging.getLogger, ("lightning.fabric", "lightning.pytorch"))}
    try:
        for lightning in levels:
            lightning.setLevel(logging.WARNING)
        yield
    finally:
        for lightning, level in levels.items():
            lightning.setLevel(level)


@contextmanager
def _kept_environment() -> Iterator[None]:
    """Put back what Fabric changes in the environment."""
    before = {name: os.environ.get(name) for name in _SET_BY_FABRIC}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def read_task() -> tuple[TrainConfig, LocalRanks]:
    """Return what the leader told this process on its standard input; end with the leader."""
    from ctrs.config import from_mapping

    told: dict[str, Any] = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_leader, daemon=True).start()
    config = from_mapping(TrainConfig, told["config"], where="the leader's configuration")
    sys.stdout.write(_READY)
    sys.stdout.flush()
    return config, LocalRanks(rank=told["rank"], world_size=told["world_size"], port=told["port"])


def _end_with_leader() -> None:
    sys.stdin.read()
    os._exit(1)
