"""From the turns of a case to its figures, and figures as text."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

AIMS = {"loop": 1.03, "total": 1.08, "finishing": 1.0, "above_mib": 200, "growth_mib": 50, "of_monai": 0.42}
KM2_PER_HOUR_CM = (5, 30)

Round = dict[str, dict[str, Any]]
"""What each turn of a round measured, by ``side precision``."""


def spread(values: Iterable[float]) -> dict[str, float]:
    """Return median and range."""
    found = list(values)
    return {"median": statistics.median(found), "low": min(found), "high": max(found)}


def ratios(rounds: Sequence[Round], over: tuple[str, str], under: tuple[str, str]) -> dict[str, float]:
    """Compare two figures of turns pair by pair, each pair of one round."""
    return spread(taken[over[0]][over[1]] / taken[under[0]][under[1]] for taken in rounds)


def summarize(rounds: Sequence[Round]) -> dict[str, Any]:
    """Return the figures of a case."""
    first = rounds[0]
    found: dict[str, Any] = {"rounds": len(rounds)}
    found["disturbed_rounds"] = sum(any(turn["disturbed"] for turn in taken.values()) for taken in rounds)
    found["sides"] = {name: side_figures(rounds, name) for name in first}
    for name in first:
        side, precision = name.split()
        forward = f"forward {precision}"
        if side == "predict" and forward in first:
            figures = found["sides"][name]
            figures["loop_over_forward"] = ratios(rounds, (name, "loop"), (forward, "seconds"))
            figures["total_over_forward"] = ratios(rounds, (name, "seconds"), (forward, "seconds"))
            figures["cpu_over_forward"] = ratios(rounds, (name, "cpu_seconds"), (forward, "cpu_seconds"))
            check_windows(first[name], first[forward])
            for peer in (peer for peer in first if peer.split()[0] not in ("forward", "predict")):
                figures[f"over {peer.split()[0]}"] = ratios(rounds, (name, "seconds"), (peer, "seconds"))
        elif side not in ("forward", "predict") and "forward fp32" in first:
            figures = found["sides"][name]
            figures["total_over_forward"] = ratios(rounds, (name, "seconds"), ("forward fp32", "seconds"))
            figures["cpu_over_forward"] = ratios(rounds, (name, "cpu_seconds"), ("forward fp32", "cpu_seconds"))
    return found


def check_windows(predict: dict[str, Any], forward: dict[str, Any]) -> None:
    """Stop where prediction lets the network see more windows than it may, or others than it is compared with."""
    seen, ready, allowed = predict["windows"], forward["windows"], predict["windows_allowed"]
    if seen > allowed or seen != ready:
        raise SystemExit(f"{seen} windows seen, {ready} by the bare network, at most {allowed} allowed")


def side_figures(rounds: Sequence[Round], name: str) -> dict[str, Any]:
    turns = [taken[name] for taken in rounds]
    numbers = ("seconds", "cpu_seconds", "foreign", "loop_mib", "above_mib", "opening", "loop", "finishing", "busy")
    found: dict[str, Any] = {
        key: spread(turn[key] for turn in turns) for key in numbers if all(turn.get(key) is not None for turn in turns)
    }
    found |= {key: turns[0][key] for key in ("windows", "windows_allowed", "mask_bytes", "pixels") if key in turns[0]}
    if "pixels" in found:
        found["pixels_per_second"] = found["pixels"] / found["seconds"]["median"]
        found["km2_per_hour"] = {
            f"{size} cm": found["pixels_per_second"] * 3600 * (size / 100) ** 2 / 1e6 for size in KM2_PER_HOUR_CM
        }
    return found


def shown(values: dict[str, float] | None, digits: int, *, ranges: bool = True) -> str:
    if values is None:
        return ""
    text = f"{values['median']:.{digits}f}"
    return f"{text} ({values['low']:.{digits}f} to {values['high']:.{digits}f})" if ranges else text


def table(case: dict[str, Any]) -> str:
    """Return the figures of a case as a table."""
    lines = [
        f"{case['network']}, {case['scene']}: {case['rounds']} rounds"
        + (f", {case['disturbed_rounds']} of them disturbed by other work" if case["disturbed_rounds"] else ""),
        "",
        "| | s | total / forward | of CPU time | opening, s | loop, s | loop / forward | finishing, s "
        "| in the loop above, MiB | above, MiB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, side in case["sides"].items():
        cells = [
            shown(side["seconds"], 1),
            shown(side.get("total_over_forward"), 3),
            shown(side.get("cpu_over_forward"), 3),
            shown(side.get("opening"), 2, ranges=False),
            shown(side.get("loop"), 1, ranges=False),
            shown(side.get("loop_over_forward"), 3),
            shown(side.get("finishing"), 2, ranges=False),
            shown(side.get("loop_mib"), 0, ranges=False),
            shown(side.get("above_mib"), 0),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines.append("")
    for name, side in case["sides"].items():
        if "windows_allowed" in side:
            areas = ", ".join(f"{area:.1f} km² an hour at {size}" for size, area in side["km2_per_hour"].items())
            lines.append(
                f"{name}: {side['windows']} windows, at most {side['windows_allowed']} allowed; network busy "
                f"{side['busy']['median']:.1%} of the loop; {areas}; mask {side['mask_bytes'] / 1e6:.1f} MB"
            )
        lines += [
            f"{name}: {shown(values, 3)} of the time of {key.removeprefix('over ')}"
            for key, values in side.items()
            if key.startswith("over ")
        ]
    return "\n".join(lines)


def growth_text(growth: dict[str, Any]) -> str:
    heights = " and ".join(f"{height} rows {shown(mib, 0)}" for height, mib in growth["above_mib"].items())
    return f"memory above {growth['network']}, MiB: {heights}; growth {shown(growth['growth_mib'], 0)}"


def aims_text(case: dict[str, Any]) -> str:
    """Say what is aimed at beside what was found."""
    lines = []
    for name, side in case["sides"].items():
        if not name.startswith("predict"):
            continue
        if "loop_over_forward" in side:
            lines.append(told(name, "loop over forward", side["loop_over_forward"]["median"], AIMS["loop"], 3))
            lines.append(told(name, "total over forward", side["total_over_forward"]["median"], AIMS["total"], 3))
        if case["scene"].startswith("6000x6000"):
            lines.append(told(name, "finishing, s", side["finishing"]["median"], AIMS["finishing"], 2))
            if "above_mib" in side:
                lines.append(told(name, "memory above, MiB", side["above_mib"]["high"], AIMS["above_mib"], 0))
            if name == "predict auto" and case["network"] == "light" and "over monai" in side:
                lines.append(told(name, "of MONAI's time", side["over monai"]["median"], AIMS["of_monai"], 3))
    return "\n".join(lines)


def told(name: str, what: str, found: float, aim: float, digits: int) -> str:
    return f"{'met   ' if found <= aim else 'MISSED'} {name}: {what} {found:.{digits}f}, at most {aim:g} aimed at"
