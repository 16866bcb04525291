"""Exponential moving average of a module's weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

_M = TypeVar("_M", bound=nn.Module)

_UPDATES = "num_updates"


class MovingAverage(Generic[_M]):
    """Average of a module's weights over the steps, for validation and checkpoints.

    After step n (from 0): average = d * average + (1 - d) * weights with d = min(decay, (1 + n) / (10 + n)), so that
    the first weights, which are random, are soon forgotten (as TensorFlow's ``ExponentialMovingAverage`` does with
    ``num_updates``). Buffers (BatchNorm's statistics) are copied, not averaged: they are averages themselves.

    Args:
        module: Whose weights are averaged; on the device where it trains.
        decay: Above 0 and below 1.
    """

    def __init__(self, module: _M, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self._module = copy.deepcopy(module).requires_grad_(False).eval()

    @property
    def module(self) -> _M:
        """The averaged module, in evaluation mode, without gradients."""
        return self._module

    @torch.no_grad()
    def update(self, module: _M) -> None:
        """Take in the weights of a step.

        Args:
            module: The module that trains, of the same form as the first one.
        """
        keep = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        self.num_updates += 1
        averages: list[Tensor] = list(self._module.parameters())
        weights = [parameter.detach() for parameter in module.parameters()]
        torch._foreach_lerp_(averages, weights, 1 - keep)
        for own, other in zip(self._module.buffers(), module.buffers(), strict=True):
            own.copy_(other)

    def state_dict(self) -> dict[str, Tensor]:
        """Return all that going on needs; the tensors are the average's own, not copies."""
        return {**self._module.state_dict(), _UPDATES: torch.tensor(self.num_updates)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Put the average back to where `state_dict` saw it, bit for bit.

        Raises:
            RuntimeError: The state is that of another module.
            KeyError: It is no state of an average.
        """
        self.num_updates = int(state[_UPDATES])
        self._module.load_state_dict({name: value for name, value in state.items() if name != _UPDATES})
