"""What ``ctrs ablate`` trains: a grid of networks, losses and variants, over seeds, read from a TOML file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ctrs.config.choices import SplitName
from ctrs.config.loss import parse_loss, unread_settings
from ctrs.config.recipes import RUN_KEYS, resolve_train_config
from ctrs.config.toml import from_mapping, merge, read_toml
from ctrs.config.training import TrainConfig
from ctrs.errors import ConfigError

_ELSEWHERE = {
    "loss": "in the list losses",
    "seed": "in the list seeds",
    "backbone": "in each [[network]]",
    "decoder": "in each [[network]]",
}
_REQUIRED = ("data", "seeds", "losses", "network")
_OPTIONAL = ("split", "train", "variant")


@dataclass(frozen=True, kw_only=True)
class NamedSettings:
    """A point on an axis of the grid.

    Args:
        name: As it stands in the table and in the names of runs.
        settings: Keys of ``TrainConfig``, nested as in TOML.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class AblationRun:
    """One run of the grid.

    Args:
        network: Name of the network.
        loss: As ``--loss``.
        variant: Name of the variant; empty where there is none.
        seed: Of everything random.
        config: How it is trained.
    """

    network: str
    loss: str
    variant: str
    seed: int
    config: TrainConfig

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        parts = "-".join(filter(None, (self.network, self.loss, self.variant)))
        return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', parts).strip('-.')}-seed{self.seed}"

    @property
    def row(self) -> tuple[str, str, str]:
        """Network, loss and variant: what all seeds have in common."""
        return self.network, self.loss, self.variant


@dataclass(frozen=True, kw_only=True)
class AblationConfig:
    """A grid of runs; settings of a variant win over those of its network, these over the common ones and the recipe.

    A variant that changes nothing but hyper-parameters of terms that a loss does not have is no variant of that loss:
    it has one run for each seed, however many such variants there are. That is the run of the variant without settings
    if one is listed and the loss has other variants, else a run without variant.

    Args:
        data: Prepared data, as for ``train``: relative to the current folder.
        networks: Name and settings of each network, ``backbone`` and ``decoder`` among them.
        losses: As ``--loss``.
        seeds: A run for each.
        variants: Settings to compare; empty: only the common ones.
        train: Settings of all runs, ``recipe`` included.
        split: What is scored at the end; None: ``test`` where the data have it, else ``val``.

    Raises:
        ConfigError: A name, loss or seed stands twice, or a run would have an unknown or wrong setting.
    """

    data: Path
    networks: tuple[NamedSettings, ...]
    losses: tuple[str, ...]
    seeds: tuple[int, ...]
    variants: tuple[NamedSettings, ...] = ()
    train: Mapping[str, Any] = field(default_factory=dict)
    split: SplitName | None = None

    def __post_init__(self) -> None:
        for key, values in (("network", self.networks), ("losses", self.losses), ("seeds", self.seeds)):
            if not values:
                raise ConfigError(f"{key}: none found, expected at least one")
        _require_distinct("[[network]] name", [entry.name.casefold() for entry in self.networks])
        _require_distinct("[[variant]] name", [entry.name.casefold() for entry in self.variants])
        _require_distinct("seeds", self.seeds)
        _require_distinct("losses", self.losses, [frozenset(parse_loss(loss)) for loss in self.losses])
        _check_settings("[train]", self.train, elsewhere=_ELSEWHERE)
        resolve_train_config(self.train, {}, where="[train]")
        for entry in self.networks:
            where = f"[[network]] {entry.name!r}"
            missing = [key for key in ("backbone", "decoder") if key not in entry.settings]
            if not entry.name or missing:
                raise ConfigError(f"{where}: {missing[0] if missing else 'name'} is missing, expected a text")
            _check_settings(where, entry.settings, elsewhere={key: _ELSEWHERE[key] for key in ("loss", "seed")})
            resolve_train_config(merge(self.train, entry.settings), {}, where=where)
        for entry in self.variants:
            where = f"[[variant]] {entry.name!r}"
            if not entry.name:
                raise ConfigError(f"{where}: name is missing, expected a text")
            _check_settings(where, entry.settings, elsewhere=_ELSEWHERE)
        names = [run.name for run in self.runs]
        _require_distinct("names of runs", names, [name.casefold() for name in names])

    @cached_property
    def runs(self) -> tuple[AblationRun, ...]:
        """Every run, all of one seed before those of the next."""
        return tuple(
            AblationRun(network=network, loss=loss, variant=variant, seed=seed, config=config)
            for seed in self.seeds
            for network, loss, variant in self.rows
            for config in [self._train_config(network, loss, variant, seed)]
        )

    @cached_property
    def rows(self) -> tuple[tuple[str, str, str], ...]:
        """Network, loss and variant (empty for none) of each row of the table."""
        rows = [
            (network.name, loss, self._variant_of(loss, variant))
            for network in self.networks
            for loss in self.losses
            for variant in self.variants or (NamedSettings(name=""),)
        ]
        return tuple(dict.fromkeys(rows))

    def reference(self, row: tuple[str, str, str]) -> tuple[str, str, str] | None:
        """Return the row without contrast that a row is compared with; None where the grid has none, and for itself."""
        network, _, name = row
        plain = next((loss for loss in self.losses if not parse_loss(loss)), None)
        if plain is None:
            return None
        variant = next((entry for entry in self.variants if entry.name == name), NamedSettings(name=name))
        found = (network, plain, self._variant_of(plain, variant))
        return None if found == row else found

    def _variant_of(self, loss: str, variant: NamedSettings) -> str:
        """Return the name of a variant of a loss, or of the plain run where it changes nothing that the loss reads."""
        unread = unread_settings(loss)
        changing = [entry for entry in self.variants if not set(entry.settings) <= unread]
        if variant in changing:
            return variant.name
        unchanged = (entry.name for entry in self.variants if not entry.settings)
        return next(unchanged, "") if changing else ""

    def _train_config(self, network: str, loss: str, variant: str, seed: int) -> TrainConfig:
        own = next(entry.settings for entry in self.networks if entry.name == network)
        changed = next((entry.settings for entry in self.variants if entry.name == variant), {})
        where = f"network {network!r}, loss {loss!r}" + (f", variant {variant!r}" if variant else "")
        return resolve_train_config(merge(self.train, own, changed), {"loss": loss, "seed": seed}, where=where)


@dataclass(frozen=True, kw_only=True)
class _Axes:
    """The plain keys of the file."""

    data: Path
    seeds: tuple[int, ...]
    losses: tuple[str, ...]
    split: SplitName | None = None


def read_ablation(path: Path, *, split: SplitName | None = None) -> AblationConfig:
    """Read a grid from a TOML file.

    Args:
        path: The file.
        split: What is scored, whatever the file says; None: what it says.

    Raises:
        ConfigError: It is not readable, or a key or value is wrong.
    """
    config = ablation_from_mapping(read_toml(path), where=str(path))
    return config if split is None else replace(config, split=split)


def ablation_from_mapping(values: Mapping[str, Any], *, where: str = "ablation") -> AblationConfig:
    """Build a grid from plain values, checking keys and types.

    Args:
        values: As read from TOML.
        where: Name of the source for messages.

    >>> grid = ablation_from_mapping({"data": "prepared/town", "seeds": [0, 1], "losses": ["none", "cl"],
    ...     "network": [{"name": "pf", "backbone": "poolformer", "decoder": "dcfam"}], "train": {"epochs": 3}})
    >>> [run.name for run in grid.runs]
    ['pf-none-seed0', 'pf-cl-seed0', 'pf-none-seed1', 'pf-cl-seed1']

    Raises:
        ConfigError: A key or value is wrong.
    """
    _check_keys(where, values, (*_REQUIRED, *_OPTIONAL))
    for key in _REQUIRED:
        if key not in values:
            form = "a table [[network]]" if key == "network" else f"{key} = ..."
            raise ConfigError(f"{where}: {key!r} is missing, expected {form}; see docs/commands/ablate.md")
    train = values.get("train", {})
    if not isinstance(train, Mapping):
        raise ConfigError(f"{where}: train = {train!r} found, expected a table [train]")
    plain = {key: values[key] for key in ("data", "seeds", "losses", "split") if key in values}
    axes = from_mapping(_Axes, plain, where=where)
    try:
        return AblationConfig(
            data=axes.data,
            networks=_named(values["network"], "network"),
            losses=axes.losses,
            seeds=axes.seeds,
            variants=_named(values.get("variant", []), "variant"),
            train=train,
            split=axes.split,
        )
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def ablation_to_plain(config: AblationConfig) -> dict[str, Any]:
    """Return a grid as ``ablation_from_mapping`` takes it."""
    plain: dict[str, Any] = {
        "data": str(config.data),
        "seeds": list(config.seeds),
        "losses": list(config.losses),
        "train": dict(config.train),
        "network": [{"name": entry.name, **entry.settings} for entry in config.networks],
        "variant": [{"name": entry.name, **entry.settings} for entry in config.variants],
    }
    return plain if config.split is None else {**plain, "split": config.split}


def _named(tables: object, key: str) -> tuple[NamedSettings, ...]:
    if not isinstance(tables, Sequence) or not all(isinstance(table, Mapping) for table in tables):
        raise ConfigError(f"{key} = {tables!r} found, expected tables [[{key}]]")
    entries: list[NamedSettings] = []
    for table in tables:
        name = table.get("name", "")
        if not isinstance(name, str):
            raise ConfigError(f"[[{key}]]: name = {name!r} found, expected a text")
        entries.append(NamedSettings(name=name, settings={k: v for k, v in table.items() if k != "name"}))
    return tuple(entries)


def _check_settings(where: str, settings: Mapping[str, Any], *, elsewhere: Mapping[str, str]) -> None:
    """Refuse keys that are no settings, and those that belong to another axis of the grid."""
    for key in settings:
        if key in elsewhere:
            raise ConfigError(f"{where}: key {key!r} found, which stands {elsewhere[key]}; move it there")
    _check_keys(where, settings, tuple(key for key in TrainConfig.__dataclass_fields__ if key not in RUN_KEYS))


def _check_keys(where: str, values: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            advice = f"did you mean {near[0]!r}?" if near else f"expected one of: {', '.join(known)}"
            raise ConfigError(f"{where}: unknown key {key!r}; {advice}")


def _require_distinct(what: str, values: Sequence[object], meanings: Sequence[object] | None = None) -> None:
    """Refuse values of which two mean the same."""
    meanings = values if meanings is None else meanings
    for number, meaning in enumerate(meanings):
        if meaning in meanings[:number]:
            first = values[meanings.index(meaning)]
            twice = f"{values[number]!r}" if values[number] == first else f"{first!r} and {values[number]!r}"
            raise ConfigError(f"{what}: {twice} found twice, expected distinct ones; leave one out or rename it")
