"""What the whole command costs: each format, with and without straight walls, one thread and two, in fresh processes.

    python benchmarks/vectorize --levels medium --methods --keep /tmp/masks
    python benchmarks/vectorize/formats.py /tmp/masks/medium_mask.tif

Processor seconds count all threads, imports among them, and depend little on what else the machine does; wall-clock
seconds mean something on an idle machine alone (``--seconds``). The kernels must have been compiled before: a first run
that is not counted sees to that.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

FORMATS = (".gpkg", ".parquet", ".fgb", ".geojson", ".shp")


@dataclass(frozen=True)
class Cost:
    """Of one process."""

    seconds: float
    processor_seconds: float
    peak_mb: float


def run(command: list[str]) -> Cost:
    """Run a command to its end, quietly."""
    started = time.perf_counter()
    silent = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1, 2)]
    process = os.posix_spawn(command[0], command, os.environ, file_actions=silent)
    _, status, usage = os.wait4(process, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed")
    seconds = time.perf_counter() - started
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mask", type=Path)
    parser.add_argument("--formats", nargs="+", default=FORMATS, choices=FORMATS)
    parser.add_argument("--regularize", nargs="+", default=["none", "full"])
    parser.add_argument("--jobs", nargs="+", default=["1", "2"])
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="further ones of ctrs vectorize, last")
    parser.add_argument("--seconds", action="store_true", help="wall-clock seconds too: on an idle machine")
    args = parser.parse_args()
    ctrs = str(Path(sys.executable).with_name("ctrs"))
    columns = [*(["seconds"] if args.seconds else []), "processor seconds", "peak MB"]
    with tempfile.TemporaryDirectory() as folder:
        run([ctrs, "vectorize", str(args.mask), "--regularize", "full", "-o", f"{folder}/first.gpkg", *args.options])
        print(f"| format | `--regularize` | `--jobs` | {' | '.join(columns)} |\n{'|---' * (3 + len(columns))}|")
        for suffix in args.formats:
            for regularize in args.regularize:
                for jobs in args.jobs:
                    out = f"{folder}/{regularize}_{jobs}{suffix}"
                    options = ["--regularize", regularize, "--jobs", jobs, "-o", out, *args.options]
                    cost = run([ctrs, "vectorize", str(args.mask), *options])
                    cells = [f"{cost.seconds:.1f}"] if args.seconds else []
                    cells += [f"{cost.processor_seconds:.1f}", f"{cost.peak_mb:.0f}"]
                    print(f"| `{suffix}` | {regularize} | {jobs} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
