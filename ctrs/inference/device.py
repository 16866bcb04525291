"""Which device computes, and in which precision: decided once for a whole command."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ctrs.errors import DeviceError

_BF16_CAPABILITY = (8, 0)


def resolve_device(name: str = "auto") -> torch.device:
    """Return the device that a name stands for.

    Args:
        name: ``auto`` (a CUDA device when there is one, else the CPU), ``cpu``, ``cuda`` or ``cuda:1``.

    >>> resolve_device("cpu")
    device(type='cpu')

    Raises:
        DeviceError: There is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise DeviceError(f"device {name!r} is unknown; expected auto, cpu, cuda or cuda:NUMBER")
    device = torch.device(name)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise DeviceError(
                f"no CUDA device found, {name!r} asked for; pass --device cpu, or install a torch build with CUDA"
            )
        if device.index is not None and device.index >= torch.cuda.device_count():
            raise DeviceError(
                f"{name!r} asked for, found {torch.cuda.device_count()} CUDA devices; their numbers begin at 0"
            )
    return device


def resolve_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype of the network's arithmetic.

    Args:
        name: ``auto`` is fp32 on the CPU and bf16 on CUDA devices of capability 8.0 and up; ``fp32``; ``bf16``;
            ``fp16``.
        device: From ``resolve_device``.

    >>> resolve_precision("auto", torch.device("cpu"))
    torch.float32

    Raises:
        DeviceError: The device cannot compute in that precision.
    """
    if name not in ("auto", "fp32", "bf16", "fp16"):
        raise DeviceError(f"precision {name!r} is unknown; expected auto, fp32, bf16 or fp16")
    if name == "fp16":
        return torch.float16
    fast = device.type == "cuda" and torch.cuda.get_device_capability(device) >= _BF16_CAPABILITY
    if name == "auto":
        return torch.bfloat16 if fast else torch.float32
    if name == "bf16" and device.type == "cuda" and not fast:
        found = ".".join(map(str, torch.cuda.get_device_capability(device)))
        raise DeviceError(f"{device}: capability {found} found, bf16 needs 8.0; pass --precision fp32")
    return torch.bfloat16 if name == "bf16" else torch.float32


def resolve_inference_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype of a network's arithmetic when it maps scenes.

    As ``resolve_precision``, but ``auto`` is bf16 also on CPUs that compute it in hardware (AVX-512 BF16 or AMX): it is
    faster there, and no gradients suffer. What a device can do decides, never a measurement, so that a result can be
    had again.

    Args:
        name: ``auto``, ``fp32``, ``bf16``; ``fp16`` on CUDA devices.
        device: From ``resolve_device``.

    Raises:
        DeviceError: The device cannot compute in that precision.
    """
    if device.type == "cpu" and name == "auto":
        return torch.bfloat16 if _cpu_computes_bf16() else torch.float32
    if device.type == "cpu" and name == "fp16":
        raise DeviceError("cpu: fp16 asked for, which CPUs compute slowly; pass --precision bf16, fp32 or auto")
    return resolve_precision(name, device)


def _cpu_computes_bf16() -> bool:
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """Let torch use this many CPU threads inside the block; None leaves torch's choice."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
