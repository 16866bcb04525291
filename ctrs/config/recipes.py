"""Papers' settings by name, and how recipe, file and options combine into one configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ctrs.config.loss import DEFAULT_WEIGHTS, TERM_TABLES, unread_settings
from ctrs.config.toml import flatten, from_mapping, merge, to_plain
from ctrs.config.training import TrainConfig
from ctrs.errors import ConfigError

CT_PAPER: Mapping[str, Any] = {
    "loss": "cl",
    "learning_rate": 8e-5,
    "batch_size": 32,
    "epochs": 50,
    "schedule": "constant",
    "label_smoothing": 0.05,
    "dice_smooth": 0.05,
    "gradient_clip": 1.0,
    "contrast": {"clip_mode": "hard"},
}
"""Settings of ``--recipe ct-paper``; it also resizes 500 px tiles to 512."""

RECIPES: Mapping[str, Mapping[str, Any]] = {
    "ct-paper": CT_PAPER,
    "cms-paper": {"loss": "cms:0.1+ccs:0.1"},
    "pne-paper": {"loss": "pne:1.3"},
}
"""Settings of every ``--recipe``. Those of cms-paper and pne-paper are the loss terms and their weights only."""

RUN_KEYS = ("format_version", "ctrs_version", "data")
"""What the ``config.toml`` of a run says beside the settings."""

CT_PAPER_INPUT_PX = 512
"""Edge that ``--recipe ct-paper`` resizes tiles to."""


def resolve_train_config(file: Mapping[str, Any], options: Mapping[str, Any], *, where: str) -> TrainConfig:
    """Combine a recipe, a TOML file and command-line options; options win over the file, the file over the recipe.

    Args:
        file: Values of ``--config``, empty for none. The ``config.toml`` of a run serves too: what it says beside the
            settings (``RUN_KEYS``), such as the data it was trained on, is left out.
        options: Values given on the command line only.
        where: Name of the file for messages.

    Raises:
        ConfigError: A key or value is wrong.
    """
    given = merge({key: value for key, value in file.items() if key not in RUN_KEYS}, options)
    recipe = given.get("recipe")
    settings = RECIPES.get(str(recipe), {})
    if set(settings) == {"loss"} and given.get("loss", settings["loss"]) != settings["loss"]:
        raise ConfigError(
            f"{where}: recipe {recipe} sets nothing but the loss, {settings['loss']}, and loss {given['loss']!r} "
            "stands beside it; give one of both"
        )
    return from_mapping(TrainConfig, merge(settings, given), where=where)


def idle_settings(given: Mapping[str, Any], config: TrainConfig) -> list[str]:
    """Return what was given for contrast terms that the loss does not have, where it differs from the default.

    Args:
        given: Values of file and command line.
        config: What they gave.

    Returns:
        One sentence for each setting.

    >>> idle_settings({"pne": {"temperature": 0.3}}, TrainConfig(loss="cl"))
    ['pne.temperature changes nothing: loss cl has no pne']
    """
    usual, unread, idle = flatten(to_plain(TrainConfig())), unread_settings(config.loss), []
    for key, value in flatten({name: given[name] for name in given if name in unread}).items():
        if value != usual.get(key):
            terms = [term for term, table in TERM_TABLES.items() if table == key.partition(".")[0]]
            idle.append(f"{key} changes nothing: loss {config.loss} has no {' and no '.join(terms or DEFAULT_WEIGHTS)}")
    return idle


def run_name(config: TrainConfig, data_name: str) -> str:
    """Return the default name of a run: data, backbone, decoder and loss, and the fold where there is one.

    >>> run_name(TrainConfig(loss="cl:0.5"), "potsdam")
    'potsdam-poolformer-dcfam-cl-0.5'
    >>> run_name(TrainConfig(fold=2), "potsdam")
    'potsdam-poolformer-dcfam-none_fold2'
    """
    text = "-".join((data_name, config.backbone, config.decoder, config.loss))
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")
    return name if config.fold is None else f"{name}_fold{config.fold}"
