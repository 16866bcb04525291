"""Global random generators, which only training seeds: seeded, told as JSON values, and put back."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor


def seed_globally(seed: int, *, rank: int = 0) -> None:
    """Seed all generators that libraries draw from: initialisation, dropout, stochastic depth.

    Args:
        seed: Of the run.
        rank: Each process that trains along draws other numbers.
    """
    if rank:
        seed = int(np.random.SeedSequence([seed, rank]).generate_state(1, np.uint32)[0])
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  (libraries draw from it)
    torch.manual_seed(seed)


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


def _to_text(state: Tensor) -> str:
    return base64.b64encode(state.cpu().numpy().tobytes()).decode("ascii")


def _from_text(text: str) -> Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
