"""``config.toml`` of a run: the resolved configuration, the data it belongs to, and nothing that must be guessed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from ctrs import __version__
from ctrs.config import RUN_KEYS, TrainConfig, from_mapping, read_toml, to_plain
from ctrs.errors import ConfigError, InputNotFoundError
from ctrs.jobs import write_text
from ctrs.tiles.manifest import Manifest
from ctrs.workspace import place_of_data

CONFIG_FILE = "config.toml"
FORMAT_VERSION = 1

MAY_CHANGE = frozenset(
    {
        "accumulate", "auto", "cache", "channels_last", "compile", "deterministic", "device", "devices", "epochs",
        "log", "num_nodes", "patience", "precision", "save_minutes", "threads", "workers",
    }
)  # fmt: skip
"""Settings that a resumed run may have otherwise: where and how the same steps are computed (a run may go on with fewer
devices, or in smaller parts), when it ends, and what it tells; ``epochs`` only with a constant schedule."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What a run was set up with.

    Args:
        config: Resolved configuration.
        data_dir: Prepared data, as an absolute path.
        split_hash: Hash of the data's splits.
    """

    config: TrainConfig
    data_dir: Path
    split_hash: str


def write_run_config(run_dir: Path, config: TrainConfig, manifest: Manifest) -> None:
    """Write ``config.toml`` into a run's folder."""
    data = {
        "path": str(manifest.root),
        "place": place_of_data(run_dir, manifest.root),
        "name": manifest.name,
        "fingerprint": manifest.fingerprint,
        "split_hash": manifest.split_hash,
    }
    document: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "ctrs_version": __version__,
        **to_plain(config),
        "data": {key: value for key, value in data.items() if value is not None},
    }
    write_text(run_dir / CONFIG_FILE, tomli_w.dumps(document))


def read_run_record(run_dir: Path) -> RunRecord:
    """Read ``config.toml`` of a run.

    Raises:
        InputNotFoundError: The folder is no run.
        ConfigError: The file was changed into something that is no configuration.
    """
    path = run_dir / CONFIG_FILE
    if not path.is_file():
        raise InputNotFoundError(f"{path}: not found, so this is no run to go on with; name a folder under runs/")
    document = read_toml(path)
    version, data = document.get("format_version"), document.get("data")
    if version != FORMAT_VERSION:
        raise ConfigError(f"{path}: format_version {version!r} found, expected {FORMAT_VERSION}; train again")
    if not isinstance(data, dict) or not {"path", "split_hash"} <= set(data):
        raise ConfigError(f"{path}: table [data] with path and split_hash is missing; train again")
    plain = {key: value for key, value in document.items() if key not in RUN_KEYS}
    config = from_mapping(TrainConfig, plain, where=str(path))
    return RunRecord(config=config, data_dir=Path(data["path"]), split_hash=str(data["split_hash"]))


def read_run_config(run_dir: Path) -> tuple[TrainConfig, Path]:
    """Return the resolved configuration of a run and the folder of its prepared data.

    Raises:
        InputNotFoundError: The folder is no run.
        ConfigError: The file was changed into something that is no configuration.
    """
    record = read_run_record(run_dir)
    return record.config, record.data_dir


def differences(stored: TrainConfig, asked: TrainConfig) -> list[str]:
    """Name the settings in which two configurations would train different networks, with both values."""
    found: list[str] = []
    for entry in dataclasses.fields(TrainConfig):
        before, now = getattr(stored, entry.name), getattr(asked, entry.name)
        allowed = entry.name in MAY_CHANGE and not (entry.name == "epochs" and asked.schedule != "constant")
        if before != now and not allowed:
            found.append(f"{entry.name} was {_text(before)} and is {_text(now)}")
    return found


def _text(value: object) -> str:
    return str(to_plain(value)) if dataclasses.is_dataclass(value) else repr(value)
