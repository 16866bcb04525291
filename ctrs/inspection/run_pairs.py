"""Two runs that differ in the contrast: which run to lay beside a given one."""

from __future__ import annotations

import dataclasses
import logging
import shlex
from pathlib import Path

from ctrs.config import TrainConfig, parse_loss, to_plain
from ctrs.errors import CtrsError
from ctrs.model_files import find_checkpoint
from ctrs.training.run_config import CONFIG_FILE, RunRecord, read_run_record

logger = logging.getLogger(__name__)

_CONTRAST_ONLY = frozenset({"loss", "recipe", "contrast", "supcon", "multiscale", "pne", "contrast_warmup_steps"})
_WITHOUT_EFFECT = frozenset({"device", "precision", "threads", "workers"})


def find_counterpart(run_dir: Path) -> Path | None:
    """Return the run beside a run that has the same data, backbone and decoder, and no contrast where that has some.

    For a run without contrast, one with. Of several the one whose other settings differ least, then the newest.

    Args:
        run_dir: A run's folder.

    Raises:
        InputNotFoundError: It is no run.
        ConfigError: Its configuration was changed into something that is none.
    """
    own = read_run_record(run_dir)
    found: list[tuple[int, int, str, Path]] = []
    for folder in sorted(run_dir.absolute().parent.iterdir()):
        if folder.name.startswith(".") or folder == run_dir.absolute() or not (folder / CONFIG_FILE).is_file():
            continue
        try:
            other = read_run_record(folder)
            checkpoint = find_checkpoint(folder)
        except CtrsError as error:
            logger.debug("%s: passed over (%s)", folder, error)
            continue
        if _same_ground(own, other) and bool(parse_loss(own.config.loss)) != bool(parse_loss(other.config.loss)):
            age = -checkpoint.description.stat().st_mtime_ns
            found.append(
                (len(other_settings(own.config, other.config)), age, folder.name, run_dir.parent / folder.name)
            )
    return min(found)[-1] if found else None


def _same_ground(first: RunRecord, second: RunRecord) -> bool:
    same_network = all(getattr(first.config, key) == getattr(second.config, key) for key in ("backbone", "decoder"))
    return same_network and first.split_hash == second.split_hash and first.data_dir == second.data_dir


def other_settings(first: TrainConfig, second: TrainConfig) -> list[str]:
    """Name the settings beside the contrast in which two runs differ, with both values."""
    found: list[str] = []
    for entry in dataclasses.fields(TrainConfig):
        one, other = getattr(first, entry.name), getattr(second, entry.name)
        if one != other and entry.name not in _CONTRAST_ONLY | _WITHOUT_EFFECT:
            found.append(f"{entry.name} {_text(one)} and {_text(other)}")
    return found


def _text(value: object) -> str:
    return str(to_plain(value)) if dataclasses.is_dataclass(value) else repr(value)


def training_command(run_dir: Path, loss: str) -> str:
    """Return the command that trains the like of a run with another loss."""
    data_dir = read_run_record(run_dir).data_dir
    return shlex.join(["ctrs", "train", str(data_dir), "--config", str(run_dir / CONFIG_FILE), "--loss", loss])
