"""Pictures of an ablation: what each loss gains, over the variants where there are some, and how it learnt."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ctrs.ablation.table import AblationResult, AblationRow
from ctrs.config import AblationConfig, TrainConfig, merge, to_plain
from ctrs.report.ablation_pictures import GainPoint, draw_gains, draw_learning_curves

PICTURES = "pictures"


def draw_pictures(result: AblationResult) -> tuple[Path, ...]:
    """Draw ``gain-NETWORK.png`` and ``curves-NETWORK[-VARIANT].png`` into the folder ``pictures`` of the ablation.

    Variants that differ in one number (``contrast.num_pairs``, ``train_share``) stand along an axis of that number,
    others side by side under their names. A picture without anything to show is not drawn.

    Args:
        result: The ablation, as far as it is.

    Returns:
        The pictures.

    Raises:
        OutputError: One cannot be written.
    """
    folder = result.out_dir / PICTURES
    folder.mkdir(parents=True, exist_ok=True)
    drawn: list[Path] = []
    what = f"{result.split} split of {result.config.data.name}"
    for network in (entry.name for entry in result.config.networks):
        rows = [row for row in result.rows if row.network == network and row.num_finished]
        gains, axis = _gains(rows, result.config)
        if gains:
            path = folder / f"gain-{_file_name(network)}.png"
            draw_gains(path, gains, axis=axis, reference="none", title=f"{network}, {what}")
            drawn.append(path)
        for variant in dict.fromkeys(row.variant for row in rows):
            curves = _curves(result, [row for row in rows if row.variant in (variant, "")])
            if curves:
                path = folder / f"curves-{_file_name(f'{network} {variant}'.strip())}.png"
                title = f"{network}{f', {variant}' if variant else ''}, validation places of {result.config.data.name}"
                draw_learning_curves(path, curves, title=title)
                drawn.append(path)
    return tuple(drawn)


def varied_number(config: AblationConfig) -> tuple[str, Mapping[str, float]]:
    """Return the one setting in which the variants of a grid differ and its value in each, if all of them are numbers.

    Epochs and draws of each tile may differ beside it: fewer tiles want more of them for the same steps.

    Args:
        config: The grid.

    Returns:
        Name of the setting and value by variant; an empty name where there is no such setting.
    """
    usual = merge(to_plain(TrainConfig()), config.train)
    settings = [_flat(merge(usual, entry.settings)) for entry in config.variants]
    varied = {name for each in settings for name in each if len({repr(other.get(name)) for other in settings}) > 1} - {
        "epochs",
        "tile_draws",
    }
    if len(varied) != 1:
        return "", {}
    [name] = varied
    numbers = {entry.name: each.get(name) for entry, each in zip(config.variants, settings, strict=True)}
    if not all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers.values()):
        return "", {}
    return name, {key: float(number) for key, number in numbers.items() if number is not None}


def _gains(rows: list[AblationRow], config: AblationConfig) -> tuple[dict[str, list[GainPoint]], str]:
    axis, numbers = varied_number(config)
    gains: dict[str, list[GainPoint]] = {}
    for row in rows:
        if row.difference is None or math.isnan(row.difference.spread.mean):
            continue
        place: float | str = numbers.get(row.variant, row.variant) if row.variant else row.loss
        gain = row.difference
        point = GainPoint(place=place, mean=gain.spread.mean, low=gain.low, high=gain.high)
        gains.setdefault(row.loss, []).append(point)
    return gains, axis


def _curves(result: AblationResult, rows: list[AblationRow]) -> dict[str, list[list[float]]]:
    curves: dict[str, list[list[float]]] = {}
    for row in rows:
        key = (row.network, row.loss, row.variant)
        runs = [status for status in result.runs if status.is_finished and status.run.row == key]
        seeds = [[epoch.get("val_mean_iou", math.nan) for epoch in status.history] for status in runs]
        known = [seed for seed in seeds if not all(math.isnan(value) for value in seed)]
        if known:
            curves[row.loss] = known
    return curves


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")
