"""What the steps of an epoch add up to, without waiting for the device at each step."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from ctrs.data.dataset import Batch
from ctrs.errors import TrainingError

_CHECK_EVERY = 20


class EpochMeter:
    """Means of the losses, speed, and the check that they stay finite.

    Args:
        epoch: From 1, for messages.
        check_every: Steps between two checks; each of them waits for the device.
    """

    def __init__(self, epoch: int, *, device: torch.device) -> None:
        self._epoch = epoch
        self._check_every = 1 if device.type == "cpu" else _CHECK_EVERY
        self._names: list[str] = []
        self._rows: list[Tensor] = []
        self._rates: list[float] = []
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
        self, total: Tensor, parts: dict[str, Tensor], grad_norm: Tensor, *, num_images: int, learning_rate: float
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
        if len(self._rows) % self._check_every == 0:
            self._check(len(self._rows) - self._check_every)

    def finish(self) -> dict[str, float]:
        """Return the mean of each value over the steps.

        Raises:
            TrainingError: Loss or gradient of a step is not finite.
        """
        self._check(0)
        self._ended = time.perf_counter()
        means = torch.stack(self._rows).double().mean(0).tolist()
        return dict(zip(self._names, means, strict=True))

    @property
    def images_per_second(self) -> float:
        """Training images in each second until ``finish``."""
        return self._images / max(1e-9, self._ended - self._began)

    @property
    def data_wait(self) -> float:
        """Share of the time until ``finish`` spent waiting for batches."""
        return self._waited / max(1e-9, self._ended - self._began)

    def _check(self, first: int) -> None:
        values = torch.stack(self._rows[first:])[:, :2].tolist()
        for step, (total, grad_norm) in enumerate(values, first):
            if math.isfinite(total) and math.isfinite(grad_norm):
                continue
            what = f"the loss is {total}" if not math.isfinite(total) else f"the gradient's norm is {grad_norm}"
            raise TrainingError(
                f"epoch {self._epoch}, step {step + 1}: {what} at learning rate {self._rates[step]:g}; "
                "start again with a lower --learning-rate, or with --precision fp32"
            )
