"""The same weights each time on the same machine."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

logger = logging.getLogger(__name__)

_WARNING = r"(\w+) does not have a deterministic implementation"
_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def deterministic_algorithms(enabled: bool) -> Iterator[None]:
    """Let torch choose only operations that repeat themselves, as far as it has such; all is put back afterwards.

    Training on the CPU repeats itself with or without, given the same number of threads. On CUDA devices cuBLAS,
    cuDNN and atomic additions would not.

    Args:
        enabled: False changes nothing.
    """
    if not enabled:
        yield
        return
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
        os.environ.get(_CUBLAS),
    )
    try:
        os.environ.setdefault(_CUBLAS, ":4096:8")  # read when CUDA starts
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        torch.use_deterministic_algorithms(True, warn_only=True)  # what has no such form is told, not refused
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=f".*{_WARNING}")
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before[2], before[3]
        if before[4] is None:
            os.environ.pop(_CUBLAS, None)


@contextmanager
def told_what_varies(device: torch.device) -> Iterator[None]:
    """Say in one line which operations inside the block have no deterministic form on the device."""
    if not torch.are_deterministic_algorithms_enabled():
        yield
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    found: set[str] = set()
    for warning in caught:
        match = re.search(_WARNING, str(warning.message))
        if match:
            found.add(match[1])
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if found:
        logger.warning("not deterministic on %s: %s", device, ", ".join(sorted(found)))
    else:
        logger.info("all operations are deterministic on %s", device)
