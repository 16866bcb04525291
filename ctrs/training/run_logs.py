"""Logs of a run beside ``metrics.csv``: TensorBoard, Weights & Biases, MLflow.

What was told to them is kept in ``logs.json``, so that a run that goes on goes on in the same W&B and MLflow runs, and
epochs that a stop kept from a log are made good.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any

from ctrs.classes import ClassMap
from ctrs.config import RunLog, TrainConfig, to_plain
from ctrs.errors import CtrsWarning
from ctrs.jobs import write_text
from ctrs.report.examples import Example, strip_image
from ctrs.training.records import EpochRecord
from ctrs.training.run_folder import RunFolder
from ctrs.training.tracking import MlflowTracker, TensorBoardTracker, Tracker, WandbTracker, import_tracker

LOGS_FILE = "logs.json"
FORMAT_VERSION = 1
_PICTURES_IN_A_RUN = 20


def check_logs(names: Sequence[RunLog]) -> None:
    """Refuse logs whose library is not installed.

    Raises:
        UsageError: One is not.
    """
    for name in names:
        if name != "tensorboard":
            import_tracker(name)


class RunLogs:
    """All logs that a configuration names, as one; a context manager.

    A tracker that fails (no network, a full disk elsewhere) costs its own log, with a warning, and not the training.

    Args:
        run: The run's folder.
        config: From ``effective_config``.
        first_epoch: Epoch that this process begins with, from 1.
        history: Records of the epochs before it: those that a log lacks are added.
    """

    def __init__(
        self, run: RunFolder, config: TrainConfig, *, first_epoch: int, history: Sequence[EpochRecord] = ()
    ) -> None:
        self._file = run.path / LOGS_FILE
        self._known = self._read()
        self._every = max(1, config.epochs // _PICTURES_IN_A_RUN)
        self._epochs = config.epochs
        self._trackers: dict[RunLog, Tracker] = {}
        for name in dict.fromkeys(config.log):
            told = int(self._known.get(name, {}).get("epoch", 0))
            missed = [record for record in history if told < record.epoch < first_epoch]
            tracker = self._guarded(name, partial(self._open, name, run, config, first_epoch=told + 1))
            if tracker is not None:
                self._trackers[name] = tracker
            for record in missed:
                self._tell(name, record)
        self._write()

    def __enter__(self) -> RunLogs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name, tracker in list(self._trackers.items()):
            self._guarded(name, partial(tracker.close, failed=kind is not None))

    def add(self, record: EpochRecord) -> None:
        """Write the numbers of an epoch."""
        for name in list(self._trackers):
            self._tell(name, record)
        self._write()

    def wants_examples(self, epoch: int) -> bool:
        """Whether pictures of this epoch are wanted: about twenty times in a run, and at its end."""
        return bool(self._trackers) and (epoch % self._every == 0 or epoch in (1, self._epochs))

    def show(self, epoch: int, examples: Sequence[Example], classes: ClassMap) -> None:
        """Write example predictions: image, truth and prediction side by side."""
        images = [strip_image(example, classes) for example in examples]
        captions = [example.name for example in examples]
        for name, tracker in list(self._trackers.items()):
            self._guarded(name, partial(tracker.show, epoch, "examples", images, captions))

    def _open(self, name: RunLog, run: RunFolder, config: TrainConfig, *, first_epoch: int) -> Tracker:
        if name == "tensorboard":
            return TensorBoardTracker(run.tensorboard, first_epoch=first_epoch, config=to_plain(config))
        known = self._known.setdefault(name, {})
        run_id = known.get("id")
        tracker = (
            WandbTracker(run.path.name, run_id, to_plain(config), run.path)
            if name == "wandb"
            else MlflowTracker(run.path.name, run_id, to_plain(config))
        )
        known["id"] = tracker.run_id
        return tracker

    def _tell(self, name: RunLog, record: EpochRecord) -> None:
        tracker = self._trackers.get(name)
        if tracker is not None:
            self._guarded(name, partial(tracker.add, record.epoch, numbers_of(record)))
            if name in self._trackers:  # it took them
                self._known.setdefault(name, {})["epoch"] = record.epoch

    def _guarded(self, name: RunLog, call: Callable[[], Any]) -> Any:
        """Call a tracker; one that fails is left out from then on, and that is said once."""
        try:
            return call()
        except Exception as error:
            if name == "tensorboard":  # a file in the run's own folder: as any other file of it
                raise
            # Whatever a foreign service raises: a night of training is worth more than its log.
            self._trackers.pop(name, None)
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            warnings.warn(
                CtrsWarning(f"log {name}: stopped ({reason}); metrics.csv goes on, and --resume tries again"),
                stacklevel=4,
            )
            return None

    def _read(self) -> dict[str, dict[str, Any]]:
        """Return what was told to each log; a broken file costs the ids, not the run."""
        try:
            logs = json.loads(self._file.read_text(encoding="utf-8"))["logs"]
            return {str(name): dict(known) for name, known in logs.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            warnings.warn(CtrsWarning(f"{self._file}: not readable; other logs are begun"), stacklevel=4)
            return {}

    def _write(self) -> None:
        if self._known:
            write_text(self._file, json.dumps({"format_version": FORMAT_VERSION, "logs": self._known}, indent=1) + "\n")


def numbers_of(record: EpochRecord) -> dict[str, float]:
    """Return what logs are told of an epoch, as GROUP/NAME; what is not a number is left out."""
    groups = {
        "train": record.losses,
        "val": {name.replace(" ", "/", 1): value for name, value in record.scores.items()},
        "run": {
            "learning_rate": record.learning_rate,
            "images_per_second": record.images_per_second,
            "data_wait": record.data_wait,
            "seconds": record.seconds,
        },
    }
    return {
        f"{group}/{name}": float(value)
        for group, values in groups.items()
        for name, value in values.items()
        if not math.isnan(value)
    }
