"""Print the first table of docs/results.md from the runs of first_table.sh: python benchmarks/first_table.py RUNS."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

LOSSES = ("none", "cl", "infonce")


def load(runs: Path, name: str) -> tuple[dict[str, Any], float]:
    report = json.loads((runs / name / "eval" / "test" / "report.json").read_text(encoding="utf-8"))
    with (runs / name / "metrics.csv").open(encoding="utf-8") as stream:
        seconds = sum(float(row["seconds"]) for row in csv.DictReader(stream))
    return report, seconds


def headline(report: dict[str, Any]) -> dict[str, Any]:
    return next(entry for entry in report["protocols"] if entry["name"] == report["headline"]["protocol"])


def main(runs: Path) -> None:
    for data in ("buildings", "dubai"):
        loaded = {loss: load(runs, f"{data}-{loss}") for loss in LOSSES}
        first = headline(loaded["none"][0])
        classes = [entry["name"] for entry in first["classes"]]
        print(f"| {data}, test | " + " | ".join(classes) + " | mean IoU | overall accuracy | training, minutes |")
        print("|---|" + "---|" * (len(classes) + 3))
        for loss, (report, seconds) in loaded.items():
            score = headline(report)
            ious = [f"{entry['iou']:.3f}" for entry in score["classes"]]
            cells = [*ious, f"{score['mean_iou']:.3f}", f"{score['overall_accuracy']:.3f}", f"{seconds / 60:.1f}"]
            print(f"| `--loss {loss}` | " + " | ".join(cells) + " |")
        print()
        if data == "buildings":
            scenes = [entry["name"] for entry in loaded["none"][0]["scenes"]]
            print("| building IoU by scene | " + " | ".join(scenes) + " |")
            print("|---|" + "---|" * len(scenes))
            for loss, (report, _) in loaded.items():
                cells = []
                for scene in report["scenes"]:
                    name = report["headline"]["protocol"]
                    score = next(entry for entry in scene["protocols"] if entry["name"] == name)
                    cells.append(f"{score['iou']['building']:.3f}")
                print(f"| `--loss {loss}` | " + " | ".join(cells) + " |")
            print()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
