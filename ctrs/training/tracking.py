"""TensorBoard, Weights & Biases and MLflow behind one interface: numbers and pictures of a run, by epoch.

The latter two are imported when they are asked for. A run that goes on goes on in the same W&B or MLflow run, whose id
the caller keeps. The names that are used of either library are few, and have stood for years.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Protocol

import numpy as np

from ctrs.config import RunLog, flatten
from ctrs.errors import UsageError
from ctrs.report.pictures import Image

logger = logging.getLogger(__name__)

PROJECT = "ctrs"
"""W&B project and MLflow experiment, unless the environment names another."""

_TITLES: Mapping[RunLog, str] = {"wandb": "Weights & Biases", "mlflow": "MLflow"}
_NOT_IN_MLFLOW_NAMES = re.compile(r"[^\w\-./ ]")


class Tracker(Protocol):
    """Where numbers and pictures of a run go."""

    def add(self, epoch: int, numbers: Mapping[str, float]) -> None:
        """Take finite numbers of an epoch, named GROUP/NAME."""

    def show(self, epoch: int, name: str, images: Sequence[Image], captions: Sequence[str]) -> None:
        """Take pictures of an epoch, uint8 (3, H, W) each."""

    def close(self, *, failed: bool) -> None:
        """Say that this process is done with the run."""


def import_tracker(name: RunLog) -> ModuleType:
    """Return the library behind a log.

    Raises:
        UsageError: It is not installed, or does not work.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        broken = "" if isinstance(error, ModuleNotFoundError) and error.name == name else f" ({error})"
        raise UsageError(
            f"log {name!r}: {_TITLES[name]} is not installed{broken}; "
            f"run `pip install {name}`, or leave out --log {name}"
        ) from error


class TensorBoardTracker:
    """Event files in the run's own folder.

    Args:
        folder: Where they go.
        first_epoch: Points of this and later epochs that an earlier process wrote are void.
        config: The run's settings, shown as text.
    """

    def __init__(self, folder: Path, *, first_epoch: int, config: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        with _nameless_machine():
            self._writer = SummaryWriter(str(folder), purge_step=first_epoch)
        if first_epoch == 1:
            rows = "".join(f"| {name} | {value} |\n" for name, value in flatten(config).items())
            self._writer.add_text("config", f"| setting | value |\n|---|---|\n{rows}", 0)

    def add(self, epoch: int, numbers: Mapping[str, float]) -> None:
        """Take finite numbers of an epoch, named GROUP/NAME."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def show(self, epoch: int, name: str, images: Sequence[Image], captions: Sequence[str]) -> None:
        """Take pictures of an epoch."""
        for image, caption in zip(images, captions, strict=True):
            self._writer.add_image(f"{name}/{caption}", image, epoch)
        self._writer.flush()

    def close(self, *, failed: bool) -> None:  # noqa: ARG002
        """Close the event file."""
        self._writer.close()


@contextmanager
def _nameless_machine() -> Iterator[None]:
    """Keep the machine's name out of the names of event files, which people pass on; TensorBoard has no option for it.

    Where its writer is another one than we know, the file is named as it likes.
    """
    from tensorboard.summary.writer import event_file_writer

    known = getattr(event_file_writer, "socket", None)
    if known is None:
        yield
        return
    event_file_writer.socket = SimpleNamespace(gethostname=lambda: PROJECT)
    try:
        yield
    finally:
        event_file_writer.socket = known


class WandbTracker:
    """A run of Weights & Biases; offline where no API key is known, so that nothing asks for one.

    Args:
        name: Name of the run.
        run_id: Of the run to go on with, None to begin one.
        config: The run's settings.
        folder: Where its files go.
    """

    def __init__(self, name: str, run_id: str | None, config: Mapping[str, Any], folder: Path) -> None:
        self._wandb = import_tracker("wandb")
        offline = "WANDB_MODE" not in os.environ and not self._has_key()
        if offline:
            logger.info("wandb: no API key found, so the run is logged offline; `wandb sync` uploads it later")
        self._run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=name,
            id=run_id,
            resume="allow" if run_id else None,
            config=dict(config),
            dir=str(folder),
            **({"mode": "offline"} if offline else {}),
        )
        self.run_id: str = self._run.id

    def _has_key(self) -> bool:
        return bool(os.environ.get("WANDB_API_KEY") or getattr(getattr(self._wandb, "api", None), "api_key", None))

    def add(self, epoch: int, numbers: Mapping[str, float]) -> None:
        """Take finite numbers of an epoch, named GROUP/NAME."""
        self._run.log({"epoch": epoch, **numbers}, step=epoch)

    def show(self, epoch: int, name: str, images: Sequence[Image], captions: Sequence[str]) -> None:
        """Take pictures of an epoch."""
        pictures = [
            self._wandb.Image(_rows_first(image), caption=caption)
            for image, caption in zip(images, captions, strict=True)
        ]
        self._run.log({name: pictures}, step=epoch)

    def close(self, *, failed: bool) -> None:
        """Say that this process is done with the run."""
        self._run.finish(exit_code=1 if failed else 0)


class MlflowTracker:
    """A run of MLflow, in the place that MLFLOW_TRACKING_URI names or MLflow's own, a local one.

    Args:
        name: Name of the run.
        run_id: Of the run to go on with, None to begin one.
        config: The run's settings.
    """

    def __init__(self, name: str, run_id: str | None, config: Mapping[str, Any]) -> None:
        self._mlflow = import_tracker("mlflow")
        if run_id is None and not {"MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"} & set(os.environ):
            self._mlflow.set_experiment(PROJECT)
        run = self._mlflow.start_run(run_id=run_id, run_name=None if run_id else name, nested=True)
        self.run_id: str = run.info.run_id
        if run_id is None:  # settings of an MLflow run are written once
            self._mlflow.log_params(flatten(config))

    def add(self, epoch: int, numbers: Mapping[str, float]) -> None:
        """Take finite numbers of an epoch, named GROUP/NAME."""
        named = {_NOT_IN_MLFLOW_NAMES.sub("_", name): value for name, value in numbers.items()}
        self._mlflow.log_metrics(named, step=epoch)

    def show(self, epoch: int, name: str, images: Sequence[Image], captions: Sequence[str]) -> None:  # noqa: ARG002
        """Take pictures of an epoch; MLflow names them by number, since captions may hold signs that it refuses."""
        for number, image in enumerate(images):
            self._mlflow.log_image(_rows_first(image), key=f"{name}_{number}", step=epoch)

    def close(self, *, failed: bool) -> None:
        """Say that this process is done with the run."""
        self._mlflow.end_run(status="FAILED" if failed else "FINISHED")


def _rows_first(image: Image) -> Image:
    return np.ascontiguousarray(np.moveaxis(image, 0, -1))
