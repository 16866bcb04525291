"""TensorBoard log of a run."""

from __future__ import annotations

import math
from pathlib import Path
from types import TracebackType

from torch.utils.tensorboard import SummaryWriter

from ctrs.training.records import EpochRecord


class EventLog:
    """Writes one point for each epoch; a context manager.

    Args:
        folder: Folder of the event files.
        first_epoch: Points of this and later epochs that an earlier process wrote are void.
        title: Shown as text: the run's settings.
    """

    def __init__(self, folder: Path, *, first_epoch: int, title: str) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=first_epoch)
        if first_epoch == 1:
            self._writer.add_text("config", title, 0)

    def __enter__(self) -> EventLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def add(self, record: EpochRecord) -> None:
        """Write the numbers of an epoch."""
        groups = {
            "train": record.losses,
            "val": {name.replace(" ", "/"): value for name, value in record.scores.items()},
            "run": {
                "learning_rate": record.learning_rate,
                "images_per_second": record.images_per_second,
                "data_wait": record.data_wait,
                "seconds": record.seconds,
            },
        }
        for group, values in groups.items():
            for name, value in values.items():
                if not math.isnan(value):
                    self._writer.add_scalar(f"{group}/{name}", value, record.epoch)
        self._writer.flush()
