"""Whether the values of the imagery look like imagery: empty, constant, saturated or odd bands, odd scenes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.ndimage import uniform_filter

from ctrs.errors import DataError
from ctrs.tiles.facts import SceneFacts
from ctrs.tiles.findings import Findings

MAX_SATURATED = 0.1
"""Share of valid pixels at the end of a dtype's range above which is warned of a band as saturated."""

SOME_SATURATED = 0.05
"""Share from which it is noted: white roofs in the sun fill as much."""

MIN_SCENES = 5
"""Fewest scenes among which one can stand out."""

OUTLIER_Z = 6.0
"""Distance from the median, in robust standard deviations, from which a scene stands out."""

MIN_OUTLIER_SHARE = 0.25
"""Least distance of an outlier as a share of the range of values: a set of near copies has a tiny spread."""

_SHOWN = 5


def check_radiometry(
    facts: Mapping[str, SceneFacts], band_names: Sequence[str], dtype: str, nodata: float | None, findings: Findings
) -> None:
    """Look for bands without content, clipped bands, 8-bit values in 16-bit files, and scenes unlike the others.

    Args:
        facts: What was counted, by name of the scene.
        band_names: Names of the bands.
        dtype: Their dtype.
        nodata: Nodata value, if it alone says which pixels are valid.
        findings: Takes what is found.
    """
    _check_empty(facts, findings)
    filled = {name: fact for name, fact in facts.items() if fact.valid_px and fact.preview.valid.any()}
    _check_constant(filled, band_names, findings)
    _check_saturated(filled, band_names, dtype, findings)
    _check_depth(filled, dtype, findings)
    _check_outliers(filled, band_names, findings)
    if nodata is not None:
        _check_nodata(filled, nodata, findings)


def _check_empty(facts: Mapping[str, SceneFacts], findings: Findings) -> None:
    empty = [name for name, fact in facts.items() if not fact.valid_px]
    if empty and len(empty) == len(facts):
        findings.fault(
            "radiometry",
            DataError(f"scene {empty[0]}: no valid pixel in any scene; check nodata and alpha"),
        )
        return
    for name in empty:
        findings.warn(
            "radiometry", f"scene {name}: no valid pixel; it gives no tiles; check its nodata and alpha", scene=name
        )


def _check_constant(facts: Mapping[str, SceneFacts], band_names: Sequence[str], findings: Findings) -> None:
    for number, band in enumerate(band_names):
        flat = {}
        for name, fact in facts.items():
            values = fact.preview.pixels[number][fact.preview.valid]
            if values.size > 1 and values.min() == values.max():
                flat[name] = values[0].item()
        if flat:
            first = next(iter(flat))
            findings.warn(
                "radiometry",
                f"band {band} is constant ({flat[first]:g}) in {_scenes(list(flat), len(facts))}; "
                "leave it out with --bidx, or check the images",
                scene=first if len(flat) == 1 else None,
            )


def _check_saturated(
    facts: Mapping[str, SceneFacts], band_names: Sequence[str], dtype: str, findings: Findings
) -> None:
    if np.dtype(dtype).kind not in "iu":
        return
    limits = np.iinfo(dtype)
    for end, name_of_end, field in ((limits.max, "greatest", "high_px"), (limits.min, "least", "low_px")):
        worst: dict[str, tuple[float, str]] = {}
        for name, fact in facts.items():
            shares = [number / fact.valid_px for number in getattr(fact, field)]
            share, band = max(zip(shares, band_names, strict=True), key=lambda pair: pair[0] if pair[0] < 1 else 0)
            if SOME_SATURATED < share < 1:
                worst[name] = share, band
        if not worst:
            continue
        scene = max(worst, key=lambda name: worst[name][0])
        share, band = worst[scene]
        say = findings.warn if share > MAX_SATURATED else findings.note
        say(
            "radiometry",
            f"saturated in {_scenes(list(worst), len(facts))}: {share:.1%} of band {band} of scene {scene} have the "
            f"{name_of_end} value {end}; if that is not the ground (white roofs, deep shade) but missing imagery, "
            "declare it as nodata",
            scene=scene if len(worst) == 1 else None,
            items=[f"{name}: {share:.1%} of band {band}" for name, (share, band) in worst.items()],
        )


def _check_depth(facts: Mapping[str, SceneFacts], dtype: str, findings: Findings) -> None:
    """Find 8-bit values in files of more bits: among others of the full range they are nearly black."""
    if np.dtype(dtype).kind not in "iu" or np.dtype(dtype).itemsize < 2:
        return
    shallow = []
    for name, fact in facts.items():
        values = fact.preview.pixels[:, fact.preview.valid]
        if values.min() >= 0 and values.max() <= 255:
            shallow.append(name)
    if shallow and len(shallow) < len(facts):
        findings.warn(
            "radiometry",
            f"8-bit values (0 to 255) in {dtype} in {_scenes(shallow, len(facts))}, the others use more; "
            "to a network they are nearly black: bring all to one range",
            scene=shallow[0] if len(shallow) == 1 else None,
        )
    elif shallow:
        findings.note(
            "radiometry", f"all values lie within 0 to 255, though the dtype is {dtype}; statistics are made to fit"
        )


def _check_outliers(facts: Mapping[str, SceneFacts], band_names: Sequence[str], findings: Findings) -> None:
    """Compare mean and spread of each band over the scenes, by their distance from the median."""
    names = list(facts)
    if len(names) < MIN_SCENES:
        return
    values = [fact.preview.pixels[:, fact.preview.valid].astype(np.float64) for fact in facts.values()]
    figures = {
        "mean": np.array([pixels.mean(axis=1) for pixels in values]),
        "standard deviation": np.array([pixels.std(axis=1) for pixels in values]),
    }
    # Per band, from percentiles: one bad scene must not widen the range that it is measured by.
    low = np.median([np.percentile(pixels, 1, axis=1) for pixels in values], axis=0)
    high = np.median([np.percentile(pixels, 99, axis=1) for pixels in values], axis=0)
    for what, table in figures.items():
        centre = np.median(table, axis=0)
        away = np.abs(table - centre)
        spread = 1.4826 * np.median(away, axis=0)
        far = (away > OUTLIER_Z * spread) & (away > MIN_OUTLIER_SHARE * (high - low)) & (away > 0)
        odd = np.flatnonzero(far.any(axis=1))
        if not len(odd):
            continue
        excess = np.where(far, away / np.maximum(high - low, 1e-12), 0)
        scene, band = (int(place) for place in np.unravel_index(int(excess.argmax()), excess.shape))
        findings.warn(
            "radiometry",
            f"{_scenes([names[number] for number in odd], len(names))} {'differs' if len(odd) == 1 else 'differ'} "
            f"from the others: {what} of band {band_names[band]} {table[scene, band]:.4g} in {names[scene]}, median of "
            f"all {centre[band]:.4g}; "
            "look at them in the report",
            scene=names[scene] if len(odd) == 1 else None,
        )


def _check_nodata(facts: Mapping[str, SceneFacts], nodata: float, findings: Findings) -> None:
    """Find single nodata pixels amid valid ones: the nodata value is then also an ordinary value."""
    holes = {}
    for name, fact in facts.items():
        valid = fact.preview.valid
        if valid.all() or min(valid.shape) < 3:
            continue
        # Of the eight neighbours, all valid: the mean of the 3 x 3 cells is 8/9.
        alone = ~valid & (uniform_filter(valid.astype(np.float32), 3, mode="nearest") > 0.85)
        number = int(np.count_nonzero(alone))
        if number and fact.preview.step == 1:
            holes[name] = number
    if holes:
        first = next(iter(holes))
        findings.note(
            "radiometry",
            f"{sum(holes.values())} single pixels of the nodata value {nodata:g} lie amid valid ones in "
            f"{_scenes(list(holes), len(facts))}: ordinary pixels may have that value too; they are ignored",
            scene=first if len(holes) == 1 else None,
        )


def _scenes(names: Sequence[str], total: int) -> str:
    """Name the first scenes of several."""
    shown = ", ".join(names[:_SHOWN])
    if len(names) == 1:
        return f"scene {shown}"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} of {total} scenes ({shown}{more})"
