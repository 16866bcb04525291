"""A run's folder: who may write to it, what an existing one means, and the files that grow in it."""

from __future__ import annotations

import csv
import io
import logging
import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ctrs.config import TrainConfig
from ctrs.errors import ConfigError, CtrsError, DataError, InputNotFoundError, OutputError, OutputExistsError
from ctrs.jobs import partial_dir, write_text
from ctrs.locks import held
from ctrs.model_files import METADATA_FILE
from ctrs.tiles.manifest import Manifest
from ctrs.training.records import EpochRecord
from ctrs.training.resume import has_state
from ctrs.training.run_config import CONFIG_FILE, differences, read_run_record

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunFolder:
    """Paths in ``runs/NAME``."""

    path: Path

    @property
    def best(self) -> Path:
        """Checkpoint of the best epoch."""
        return self.path / "best"

    @property
    def last(self) -> Path:
        """Checkpoint of the last epoch."""
        return self.path / "last"

    @property
    def heads(self) -> Path:
        """Projection heads that belong to ``best``."""
        return self.path / "heads.safetensors"

    @property
    def resume(self) -> Path:
        """What going on needs."""
        return self.path / "resume"

    @property
    def tensorboard(self) -> Path:
        """Event files."""
        return self.path / "tensorboard"

    @property
    def metrics(self) -> Path:
        """Table of all epochs."""
        return self.path / "metrics.csv"

    @property
    def curves(self) -> Path:
        """Picture of all epochs."""
        return self.path / "curves.png"

    @property
    def confusion(self) -> Path:
        """Picture of the best epoch's validation pixels by true and predicted class."""
        return self.path / "confusion.png"

    @property
    def examples(self) -> Path:
        """Picture of a few validation tiles in the best epoch."""
        return self.path / "examples.png"

    @property
    def readme(self) -> Path:
        """What the run is, in words."""
        return self.path / "README.md"

    @property
    def is_run(self) -> bool:
        """Whether a run was set up here."""
        return (self.path / CONFIG_FILE).is_file()

    @property
    def is_free(self) -> bool:
        """Whether nothing stands here yet."""
        return not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir()))


def check_run_folder(run: RunFolder, config: TrainConfig, manifest: Manifest, *, resume: bool, overwrite: bool) -> bool:
    """Decide what an existing folder means; nothing is changed.

    Args:
        run: The folder.
        config: From ``effective_config``.
        manifest: The prepared data.
        resume: Going on with the run there was asked for.
        overwrite: Replacing the run there was asked for.

    Returns:
        True to go on with the run there: asked for, or it is the same job. False to begin anew.

    Raises:
        InputNotFoundError: There is no run to go on with.
        ConfigError: The run to go on with has other settings.
        DataError: The run to go on with was trained on other data.
        OutputExistsError: Something else stands there, or a run whose saved state is gone.
    """
    if run.is_free or _left_before_setup(run):
        if resume and not run.path.is_dir():
            raise InputNotFoundError(f"{run.path}: no run to go on with; leave out --resume, or name another run")
        return False
    if not run.is_run:
        raise OutputExistsError(f"{run.path}: exists and is no run ({CONFIG_FILE} is missing); choose another --name")
    if overwrite and not resume:
        return False
    stored = read_run_record(run.path)
    changed = differences(stored.config, config)
    if resume:
        if changed:
            raise ConfigError(
                f"{run.path}: a run goes on with its own settings, but {'; '.join(changed)}; "
                "give those of its config.toml, or start a new run"
            )
        if stored.split_hash != manifest.split_hash:
            raise DataError(
                f"{manifest.root}: other tiles or splits (hash {manifest.split_hash}) than those that {run.path} was "
                f"trained on ({stored.split_hash}, {stored.data_dir}); prepare those again, or start a new run"
            )
        _check_state(run)
        return True
    if config.epochs != stored.config.epochs:
        changed.append(f"epochs was {stored.config.epochs} and is {config.epochs}")
    if stored.split_hash != manifest.split_hash:
        changed.append("the data are others")
    if changed:
        raise OutputExistsError(
            f"{run.path}: another run stands there ({'; '.join(changed)}); go on with it by --resume, "
            "choose another --name, or replace it by --overwrite"
        )
    _check_state(run)
    logger.info("%s: the same run stands there; going on with it", run.path)
    return True


def _check_state(run: RunFolder) -> None:
    """Refuse to train a run anew over its checkpoints where the state that they came from is gone.

    Raises:
        OutputExistsError: It is so.
    """
    if not has_state(run.resume) and (run.last / METADATA_FILE).is_file():
        raise OutputExistsError(
            f"{run.path}: holds checkpoints, but {run.resume.name}/ is gone, so there is nothing to go on from; "
            f"begin another run with --init {run.path}, or discard this one with --overwrite"
        )


@contextmanager
def open_run(run: RunFolder, *, overwrite: bool) -> Iterator[None]:
    """Keep other processes out of the run; with ``overwrite``, remove what an earlier run left.

    A folder that is made here is removed again where the run is refused before it is set up.

    Raises:
        OutputError: The folder cannot be written, or another process trains there.
    """
    discarded = partial_dir(run.path)
    if overwrite and run.is_run:
        with held(run.resume, run.path):
            shutil.rmtree(discarded, ignore_errors=True)
            run.path.replace(discarded)
    is_new = not run.path.exists()
    with held(run.resume, run.path):
        shutil.rmtree(discarded, ignore_errors=True)
        try:
            yield
        except CtrsError:
            if is_new and _left_before_setup(run):
                shutil.rmtree(run.path, ignore_errors=True)
            raise


def write_metrics(path: Path, records: Sequence[EpochRecord]) -> None:
    """Write the table of epochs anew, as a whole."""
    write_text(path, _header(records[0]) + "".join(map(_line, records)) if records else "")


def append_metrics(path: Path, record: EpochRecord) -> None:
    """Add the row of an epoch, and the header to an empty table.

    Raises:
        OutputError: The table cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8", newline="") as stream:
            if stream.tell() == 0:
                stream.write(_header(record))
            stream.write(_line(record))
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); check space and permissions") from error


def _header(record: EpochRecord) -> str:
    return _csv_line(list(record.to_row()))


def _line(record: EpochRecord) -> str:
    return _csv_line(["" if math.isnan(value) else f"{value:.8g}" for value in record.to_row().values()])


def _csv_line(cells: Sequence[str]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerow(cells)
    return stream.getvalue()


def _left_before_setup(run: RunFolder) -> bool:
    """Whether a process died between making the folder and setting the run up."""
    return run.path.is_dir() and {entry.name for entry in run.path.iterdir()} <= {
        run.resume.name,
        f".{CONFIG_FILE}.new",
    }
