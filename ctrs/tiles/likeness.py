"""Scenes that look like copies of each other, though their pixels are not equal: compressed again, or brightened."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ctrs.tiles.facts import Preview, SceneFacts
from ctrs.tiles.findings import Findings

CELLS = 24
"""Rows and columns of the pattern by which scenes are compared."""

MIN_LIKENESS = 0.98
"""Correlation of two patterns from which scenes look like copies."""

MIN_CONTRAST = 0.02
"""Least standard deviation of a pattern, as a share of the range of its scene: below lies water, cloud, nothing."""

_BATCH = 512
_SHOWN = 5


def check_likeness(
    facts: Mapping[str, SceneFacts], splits: Mapping[str, str], known: Sequence[str], findings: Findings
) -> None:
    """Warn of scenes of different splits that look like copies; note those of one split.

    Args:
        facts: What was counted, by name of the scene.
        splits: Split of each scene, ``train+val`` where it was divided.
        known: Messages on pairs of scenes that have been found otherwise; pairs named there are not named again.
        findings: Takes what is found.
    """
    pairs = [
        (first, second, likeness)
        for first, second, likeness in alike({name: fact.preview for name, fact in facts.items()})
        if not any(_names(first, message) and _names(second, message) for message in known)
    ]
    across = [pair for pair in pairs if not set(splits[pair[0]].split("+")) & set(splits[pair[1]].split("+"))]
    within = [pair for pair in pairs if pair not in across]
    if across:
        findings.warn(
            "leakage",
            f"scenes of different splits look like copies: {_listed(across, splits)}; scores there would be worth "
            "nothing: compare them, and leave one of each out or put both into one split (--val, --test)",
            items=_items(across),
        )
    if within:
        findings.note(
            "leakage", f"scenes of one split look like copies: {_listed(within, splits)}", items=_items(within)
        )


def alike(previews: Mapping[str, Preview]) -> list[tuple[str, str, float]]:
    """Return the pairs of scenes whose patterns correlate by at least ``MIN_LIKENESS``, with the correlation."""
    patterns = {name: pattern for name, preview in previews.items() if (pattern := _pattern(preview)) is not None}
    if len(patterns) < 2:
        return []
    names, table = list(patterns), np.stack(list(patterns.values()))
    found: list[tuple[str, str, float]] = []
    for start in range(0, len(names), _BATCH):
        products = table[start : start + _BATCH] @ table.T
        for row, col in np.argwhere(products >= MIN_LIKENESS).tolist():
            if start + row < col:
                found.append((names[start + row], names[col], float(products[row, col])))
    return found


def _pattern(preview: Preview) -> npt.NDArray[np.float32] | None:
    """Return the means of the cells of a scene, centred and of length 1; None where there is too little to compare."""
    height, width = preview.valid.shape
    if min(height, width) < CELLS or preview.valid.mean() < 0.5:
        return None
    grey = preview.pixels.mean(axis=0, dtype=np.float32)
    values = grey[preview.valid]
    low, high = (float(value) for value in np.percentile(values, (1, 99)))
    if not high > low:
        return None
    filled = np.where(preview.valid, grey, values.mean()).clip(low, high)
    rows, cols = (np.arange(CELLS) * size // CELLS for size in (height, width))
    sums = np.add.reduceat(np.add.reduceat(filled, rows, axis=0), cols, axis=1)
    sizes = np.outer(np.diff([*rows, height]), np.diff([*cols, width]))
    pattern = (sums / sizes).reshape(-1)
    pattern = pattern - pattern.mean()
    if pattern.std() < MIN_CONTRAST * (high - low):
        return None
    return np.asarray(pattern / np.linalg.norm(pattern), np.float32)


def _names(scene: str, message: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(scene)}(?!\w)", message) is not None


def _listed(pairs: Sequence[tuple[str, str, float]], splits: Mapping[str, str]) -> str:
    shown = ", ".join(f"{one} ({splits[one]}) and {other} ({splits[other]})" for one, other, _ in pairs[:_SHOWN])
    return shown + (f" and {len(pairs) - _SHOWN} more pairs" if len(pairs) > _SHOWN else "")


def _items(pairs: Sequence[tuple[str, str, float]]) -> list[str]:
    return [f"{one} and {other}: correlation {likeness:.3f}" for one, other, likeness in pairs]
