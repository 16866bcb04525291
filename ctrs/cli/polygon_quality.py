"""Tables of judged polygons."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ctrs.cli.console import Console

_FIGURES = (
    ("IoU", "iou", ".3f"),
    ("C-IoU", "c_iou", ".3f"),
    ("N-ratio", "n_ratio", ".2f"),
    ("PoLiS m", "polis_m", ".2f"),
    ("Hausdorff m", "hausdorff_m", ".2f"),
    ("max tangent angle error °", "tangent_angle_error_deg", ".1f"),
    ("wall angle error °", "wall_angle_error_deg", ".1f"),
    ("right angles", "right_angle_share", ".3f"),
    ("right angles of the truth", "true_right_angle_share", ".3f"),
    ("boundary IoU (1 m)", "boundary_iou", ".3f"),
    ("boundary F (0.5 m)", "boundary_f", ".3f"),
    ("corner F1 (0.5 m)", "corner_f1", ".3f"),
    ("invalid", "num_invalid", "d"),
    ("overlapping pairs", "num_overlaps", "d"),
    ("holes lost", "num_lost_holes", "d"),
    ("holes spurious", "num_spurious_holes", "d"),
)


def show_quality(console: Console, reports: Sequence[dict[str, Any]]) -> None:
    """Print what became of the buildings of each layer, and how exact those are that were found."""
    console.table(
        "buildings",
        ["file", "layer", "buildings", "matched", "split", "merged", "missed", "spurious"],
        [
            [Path(report["layer"]).name, side, str(sum(counts.values())), *(_count(counts, name) for name in _VERDICTS)]
            for report in reports
            for side, counts in (("truth", report["truth_verdicts"]), ("drawn", report["drawn_verdicts"]))
        ],
        left=(0, 1),
    )
    names = [Path(report["layer"]).name for report in reports]
    found = [report["quality"] for report in reports]
    console.table(
        "found from an IoU on: precision, recall, F1",
        ["IoU", *names],
        [
            [f"{level['iou']:.2f}", *(_scores(quality["detections"][number]) for quality in found)]
            for number, level in enumerate(found[0]["detections"])
        ],
    )
    console.table(
        "quality",
        ["", *names],
        [[label, *(_text(quality[key], digits) for quality in found)] for label, key, digits in _FIGURES],
    )


_VERDICTS = ("matched", "split", "merged", "missed", "spurious")


def _count(counts: dict[str, int], name: str) -> str:
    return str(counts[name]) if name in counts else ""


def _scores(level: dict[str, float | None]) -> str:
    return "  ".join(_text(level[key], ".3f") for key in ("precision", "recall", "f1"))


def _text(value: float | None, digits: str) -> str:
    return "-" if value is None else format(value, digits)
