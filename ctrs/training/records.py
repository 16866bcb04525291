"""What training tells its caller: the plan before it starts, a record of each epoch, the result."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ctrs.config import DEFAULT_WEIGHTS
from ctrs.progress import counted, format_bytes, format_duration


@dataclass(frozen=True, kw_only=True)
class TrainPlan:
    """What a run is going to do and how long it is expected to take, from steps timed on its first batch.

    Args:
        run_dir: Folder of the run.
        data: Name of the prepared data.
        model: Backbone and decoder.
        parameters: Parameters that are trained, projection heads included.
        frozen_parameters: Parameters that stay as they are in the first epoch.
        num_train: Training tiles.
        num_val: Validation tiles, 0 where there is no such split.
        epochs: Epochs of the whole run.
        first_epoch: Epoch that this process begins with, from 1.
        steps_per_epoch: Batches in an epoch.
        batch_size: Tiles in a batch.
        crop_px: Edge of the crops in network pixels.
        learning_rate: Of the optimizer, before the schedule.
        device: Where it runs.
        precision: Arithmetic of the network.
        workers: Loader processes.
        cached: Decoded tiles are held in memory.
        seconds_per_epoch: Expected.
        memory_bytes: Expected peak of the device's memory, on the CPU of this process with all it holds, loader
            processes apart; 0 where it cannot be measured.
        memory_available: What may be taken; 0 where that is not known.
        cache_bytes: Decoded tiles in memory.
        disk_bytes: What will stand in the run's folder.
        disk_free: What the disk has left; 0 where that is not known.
        written: Names that will stand in the run's folder.
        unlabelled: Share of the training pixels without label, nodata included.
        history: Epochs that earlier processes finished.
    """

    run_dir: Path
    data: str
    model: str
    parameters: int
    num_train: int
    num_val: int
    epochs: int
    first_epoch: int
    steps_per_epoch: int
    batch_size: int
    crop_px: int
    learning_rate: float
    device: str
    precision: str
    workers: int
    cached: bool
    seconds_per_epoch: float
    frozen_parameters: int = 0
    memory_bytes: int = 0
    memory_available: int = 0
    cache_bytes: int = 0
    disk_bytes: int = 0
    disk_free: int = 0
    written: tuple[str, ...] = ()
    unlabelled: float = 0.0
    history: tuple[EpochRecord, ...] = ()

    @property
    def expected_seconds(self) -> float:
        """Seconds that the remaining epochs take."""
        return self.seconds_per_epoch * (self.epochs - self.first_epoch + 1)

    def describe(self, *, now: datetime | None = None) -> str:
        """Say it in a few lines, with the expected end."""
        return "\n".join(f"{name + ':':<9} {text}" for name, text in self._lines(now).items() if text)

    def _lines(self, now: datetime | None) -> dict[str, str]:
        frozen = f", {self.frozen_parameters / 1e6:.1f} M frozen" if self.frozen_parameters else ""
        resumed = f" from epoch {self.first_epoch}" if self.first_epoch > 1 else ""
        unlabelled = f"; {self.unlabelled:.1%} of the training pixels without label" if self.unlabelled >= 0.001 else ""
        return {
            "network": f"{self.model}; {self.parameters / 1e6:.1f} M parameters to train{frozen}",
            "data": f"{self.num_train} training and {self.num_val} validation tiles of {self.data}{unlabelled}",
            "training": (
                f"{counted(self.epochs, 'epoch')}{resumed} of {counted(self.steps_per_epoch, 'step')}, "
                f"batch {self.batch_size}, crop {self.crop_px} px, learning rate {self.learning_rate:g}, "
                f"on {self.device} ({self.precision}), {counted(self.workers, 'loader process')}"
            ),
            "memory": self._memory(),
            "time": self._time(now),
            "output": self._output(),
        }

    def _memory(self) -> str:
        if not self.memory_bytes:
            return ""
        tiles = f"; {format_bytes(self.cache_bytes)} of tiles held in memory" if self.cache_bytes else ""
        left = f" of {format_bytes(self.memory_available)}" if self.memory_available else ""
        return f"about {format_bytes(self.memory_bytes)}{left} at the peak{tiles}"

    def _time(self, now: datetime | None) -> str:
        now = datetime.now().astimezone() if now is None else now
        end = now + timedelta(seconds=self.expected_seconds)
        day = "" if end.date() == now.date() else f" on {end:%Y-%m-%d}"
        return (
            f"about {format_duration(self.seconds_per_epoch)} for each epoch; "
            f"expected end {end:%H:%M}{day}, in {format_duration(self.expected_seconds)}"
        )

    def _output(self) -> str:
        free = f", {format_bytes(self.disk_free)} free" if self.disk_free else ""
        size = f"up to {format_bytes(self.disk_bytes)}{free}" if self.disk_bytes else ""
        return f"{self.run_dir}: {'; '.join(part for part in (', '.join(self.written), size) if part)}".rstrip(": ")


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """What happened in an epoch.

    Args:
        epoch: Finished epochs, from 1.
        step: Finished steps of the whole run.
        learning_rate: At the last step.
        losses: Means over the epoch's steps: ``total``, the parts of the objective, ``grad_norm`` before clipping.
        scores: Of the validation tiles: ``mean_iou`` over the scored classes, ``overall_accuracy``, ``iou NAME`` for
            each class; empty without validation split, NaN where a class neither occurs nor is predicted.
        seconds: Duration, validation included, checkpoints not.
        images_per_second: Of the training steps.
        data_wait: Share of the training steps' time spent waiting for batches.
        is_best: The best epoch so far.
        peak_memory_bytes: Most that was held during the epoch, validation included: by torch on a CUDA device, by this
            process on the CPU; 0 where the system does not tell.
    """

    epoch: int
    step: int
    learning_rate: float
    losses: Mapping[str, float]
    scores: Mapping[str, float] = field(default_factory=dict)
    seconds: float
    images_per_second: float
    data_wait: float
    is_best: bool
    peak_memory_bytes: int = 0

    @property
    def score(self) -> float | None:
        """What selects the best epoch: the validation's mean IoU, None where there is none."""
        value = self.scores.get("mean_iou", math.nan)
        return None if math.isnan(value) else value

    def describe(self) -> str:
        """Say it in one line."""
        parts = [f"epoch {self.epoch}", f"loss {self.losses['total']:.4f}"]
        parts += [self._describe_term(name) for name in self.losses if name in DEFAULT_WEIGHTS]
        if self.score is not None:
            parts.append(f"val mean IoU {self.score:.4f}{' (best)' if self.is_best else ''}")
        parts += [f"{self.images_per_second:.1f} images/s", format_duration(self.seconds)]
        return ", ".join(parts)

    def _describe_term(self, name: str) -> str:
        """Say what a contrast term was, and whether it was alive."""
        text = f"{name} {self.losses[name]:.4f}"
        anchors = [value for key, value in self.losses.items() if key.startswith(f"{name}/anchors")]
        if anchors and not any(anchors):
            return f"{text} (no anchors)"
        bounded = self.losses.get(f"{name}/clip_active", 0.0)
        return f"{text} (at its bound in {bounded:.0%} of steps)" if bounded else text

    def to_row(self) -> dict[str, float]:
        """Return flat numbers, as in ``metrics.csv`` and the checkpoint."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "learning_rate": self.learning_rate,
            **{f"train_{name}".replace("/", "_"): value for name, value in self.losses.items()},
            **{f"val_{name}".replace(" ", "_"): value for name, value in self.scores.items()},
            "images_per_second": self.images_per_second,
            "data_wait": self.data_wait,
            "seconds": self.seconds,
            "peak_memory_mb": self.peak_memory_bytes / 1e6,
        }

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; NaN becomes None."""
        row = asdict(self)
        for key in ("losses", "scores"):
            row[key] = {name: None if math.isnan(value) else value for name, value in row[key].items()}
        return row

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> EpochRecord:
        """Build from ``to_json`` output."""
        numbers = {
            key: {name: math.nan if value is None else value for name, value in row[key].items()}
            for key in ("losses", "scores")
        }
        return cls(**{**row, **numbers})


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """A finished run.

    Args:
        run_dir: Folder of the run.
        epochs: Finished epochs.
        best_epoch: Epoch whose weights are in ``best``.
        metrics: Validation scores of the best epoch; empty without validation split.
        seconds: Duration of all epochs, those before a resume included.
        resumed_at: Epochs that were already finished when this call began; all of them if there was nothing to do.
        stopped_early: Patience ended before the last epoch.
    """

    run_dir: Path
    epochs: int
    best_epoch: int
    metrics: Mapping[str, float]
    seconds: float
    resumed_at: int = 0
    stopped_early: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; NaN becomes None."""
        metrics = {name: None if math.isnan(value) else value for name, value in self.metrics.items()}
        return {**asdict(self), "run_dir": str(self.run_dir), "metrics": metrics}
