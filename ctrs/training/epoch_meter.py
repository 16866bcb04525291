"""What the steps of an epoch add up to, without waiting for the device at each step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ctrs.data.dataset import Batch
from ctrs.errors import TrainingError

_CHECK_EVERY = 20
_MOST_SKIPPED = 30
"""Steps in a row without a finite gradient from which on a lower loss scale is no way out: 16 halvings lead to 1."""

SKIPPED = "grad_norm/skipped"
"""Steps that the loss scaler left out."""


class EpochMeter:
    """Means of the losses, speed, and the check that they stay finite.

    Args:
        epoch: From 1, for messages.
        device: Where losses are; checks, each of which waits for it, are rarer on a GPU.
        skips_overflow: Steps whose gradient is not finite are left out by the loss scaler: they are counted and take no
            part in the means. Without it they are an error.
    """

    def __init__(self, epoch: int, *, device: torch.device, skips_overflow: bool = False) -> None:
        self._epoch = epoch
        self._device = device
        self._check_every = 1 if device.type == "cpu" else _CHECK_EVERY
        self._skips = skips_overflow
        self._names: list[str] = []
        self._rows: list[Tensor] = []
        self._rates: list[float] = []
        self._checked = 0
        self._skipped_in_a_row = 0
        self._images = 0
        self._waited = 0.0
        self._began = time.perf_counter()
        self._ended = self._began

    def timed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield batches and add up the time spent waiting for them."""
        iterator = iter(batches)
        while True:
            before = time.perf_counter()
            batch = next(iterator, None)
            self._waited += time.perf_counter() - before
            if batch is None:
                return
            yield batch

    def add(
        self, total: Tensor, parts: Mapping[str, Tensor], grad_norm: Tensor, *, num_images: int, learning_rate: float
    ) -> None:
        """Take note of a step.

        Raises:
            TrainingError: Loss or gradient of this step, or of one shortly before, is not finite.
        """
        self._names = ["total", "grad_norm", *parts]
        values = [total.detach(), grad_norm, *parts.values()]
        self._rows.append(torch.stack([value.to(total.device, torch.float32).reshape(()) for value in values]))
        self._rates.append(learning_rate)
        self._images += num_images
        if len(self._rows) - self._checked >= self._check_every:
            self.check()

    def check(self) -> None:
        """Look at the steps since the last check.

        Raises:
            TrainingError: Loss or gradient of one is not finite.
        """
        if self._checked == len(self._rows):
            return
        values = torch.stack(self._rows[self._checked :])[:, :2].tolist()
        for step, (total, grad_norm) in enumerate(values, self._checked):
            if math.isfinite(total) and math.isfinite(grad_norm):
                self._skipped_in_a_row = 0
                continue
            self._skipped_in_a_row += 1
            if self._skips and self._skipped_in_a_row < _MOST_SKIPPED:
                continue
            what = f"the loss is {total}" if not math.isfinite(total) else f"the gradient's norm is {grad_norm}"
            again = f", as in {_MOST_SKIPPED - 1} steps before" if self._skips else ""
            raise TrainingError(
                f"epoch {self._epoch}, step {step + 1}: {what} at learning rate {self._rates[step]:g}{again}; "
                "start again with a lower --learning-rate, or with --precision fp32"
            )
        self._checked = len(self._rows)

    def finish(self, mean_over_ranks: Callable[[Tensor], Tensor] | None = None) -> dict[str, float]:
        """Return the mean of each value over the steps.

        Args:
            mean_over_ranks: Takes the mean of a tensor over all processes.

        Raises:
            TrainingError: Loss or gradient of a step is not finite.
        """
        self.check()
        self._ended = time.perf_counter()
        rows = torch.stack(self._rows).double()
        skipped = 0
        if self._skips:
            finite = rows[:, :2].isfinite().all(1)
            skipped, rows = int((~finite).sum()), rows[finite]
        means = rows.mean(0)
        if mean_over_ranks is not None:
            means = mean_over_ranks(means)
        found = dict(zip(self._names, means.tolist(), strict=True))
        return {**found, SKIPPED: float(skipped)} if self._skips else found

    @property
    def elapsed(self) -> float:
        """Seconds since the epoch began, without those between a stop and going on."""
        return time.perf_counter() - self._began

    @property
    def images_per_second(self) -> float:
        """Training images in each second until ``finish``, of this process."""
        return self._images / max(1e-9, self._ended - self._began)

    @property
    def data_wait(self) -> float:
        """Share of the time until ``finish`` spent waiting for batches."""
        return self._waited / max(1e-9, self._ended - self._began)

    def state_dict(self) -> dict[str, Any]:
        """Return what a process that goes on within the epoch needs."""
        return {
            "rows": torch.stack(self._rows),
            "names": self._names,
            "rates": self._rates,
            "skipped_in_a_row": self._skipped_in_a_row,
            "images": self._images,
            "waited": self._waited,
            "elapsed": self.elapsed,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what an earlier process added up."""
        self._rows = list(state["rows"].to(self._device))
        self._names = [str(name) for name in state["names"]]
        self._rates = [float(rate) for rate in state["rates"]]
        self._checked = len(self._rows)
        self._skipped_in_a_row = int(state["skipped_in_a_row"])
        self._images = int(state["images"])
        self._waited = float(state["waited"])
        self._began = time.perf_counter() - float(state["elapsed"])
