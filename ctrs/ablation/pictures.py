"""Pictures of an ablation: what each loss gains, over the variants where there are some, and how it learnt."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ctrs.ablation.table import AblationResult, AblationRow
from ctrs.config import AblationConfig, TrainConfig, flatten, merge, to_plain
from ctrs.report.ablation_pictures import GainPoint, draw_gains, draw_learning_curves

PICTURES = "pictures"


def draw_pictures(result: AblationResult) -> tuple[Path, ...]:
    """Draw ``gain-NETWORK[-SETTING].png`` and ``curves-NETWORK[-VARIANT].png`` into the ablation's folder ``pictures``.

    Variants that differ in one setting (``contrast.num_pairs``, ``train_share``) stand along it, and have a picture for
    each setting where there are several; others stand side by side under their names. A picture without anything to
    show is not drawn.

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
        axes = varied_settings(result.config) or {"": {}}
        for axis, values in axes.items():
            gains = _gains([row for row in rows if not row.variant or not values or row.variant in values], values)
            if gains:
                path = folder / f"gain-{_file_name(network)}{f'-{axis}' if len(axes) > 1 else ''}.png"
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


def varied_settings(config: AblationConfig) -> dict[str, dict[str, float | str]]:
    """Return the settings in which the variants of a grid differ, each with its value in the variants along it.

    Either all variants differ in one setting, or there is one without settings and each other one differs from it in
    one. Epochs and draws of each tile may differ beside it: fewer tiles want more of them for the same steps.

    Args:
        config: The grid.

    Returns:
        By name of the setting and of the variant: a number, or the value as a text where one of them is no number;
        empty where variants differ in more.
    """
    usual = merge(to_plain(TrainConfig()), config.train)
    settings = {entry.name: flatten(merge(usual, entry.settings)) for entry in config.variants}
    plain = next((entry.name for entry in config.variants if not entry.settings), None)
    if len(_differing(list(settings.values()))) == 1:
        groups = {_differing(list(settings.values()))[0]: list(settings)}
    elif plain is not None:
        groups = {}
        for name in (name for name in settings if name != plain):
            varied = _differing([settings[plain], settings[name]])
            if len(varied) != 1:
                return {}
            groups.setdefault(varied[0], [plain]).append(name)
    else:
        return {}
    return {key: _along({name: settings[name].get(key) for name in names}) for key, names in groups.items()}


def _differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    names = dict.fromkeys(name for each in settings for name in each)
    varied = [name for name in names if len({repr(each.get(name)) for each in settings}) > 1]
    return [name for name in varied if name not in ("epochs", "tile_draws")]


def _along(values: Mapping[str, Any]) -> dict[str, float | str]:
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values.values()):
        return {name: float(value) for name, value in values.items()}
    return {
        name: ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        for name, value in values.items()
    }


def _gains(rows: list[AblationRow], values: Mapping[str, float | str]) -> dict[str, list[GainPoint]]:
    gains: dict[str, list[GainPoint]] = {}
    for row in rows:
        if row.difference is None or math.isnan(row.difference.spread.mean):
            continue
        place = values.get(row.variant, row.variant) if row.variant else row.loss
        gain = row.difference
        point = GainPoint(place=place, mean=gain.spread.mean, low=gain.low, high=gain.high)
        gains.setdefault(row.loss, []).append(point)
    return gains


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


def _file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")
