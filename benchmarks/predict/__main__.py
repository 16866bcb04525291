"""What prediction costs beside the network alone, and beside other tools: by turns, each in a process of its own.

    python benchmarks/predict                       # an hour or more on 2 cores: let nothing else run
    python benchmarks/predict --quick               # a few minutes, to see that it works
    python benchmarks/predict --scenes 6000x6000 --networks light --rounds 7 --json figures.json
    python benchmarks/predict --device cuda --batch-size 32 --precisions bf16

A round of a case (a scene and a network) takes, for each precision, a turn of ``forward`` (the network alone, over the
same windows, which lie ready in memory, in the same batches, layout and precision, and like ``predict`` in a process
that keeps the memory it frees: without, the network takes a tenth longer or more) and a turn of ``predict``
(``Predictor.predict_raster``: opening, then the loop that reads, runs the network, blends and writes rows, then
finishing the COG); and a turn of each other tool that is installed. The sides of a pair and the pairs change places
from round to round. Ratios are those of a round; their median and range are told. A turn during which other processes
took more than --max-foreign of the machine's time is taken again, up to twice; rounds that stay disturbed are counted.

Memory is the peak of the process (VmHWM) above that after loading the network and running it on one batch. Growth is
that of a scene --times as tall (a virtual raster) on a trivial network.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rasterio
import torch
from figures import AIMS, Round, aims_text, growth_text, spread, summarize, table, told
from meter import num_cores
from networks import NAMES
from peers import PEERS
from scenes import SceneKind, make_scene, stack
from turns import Turn, resolve, take

from ctrs.training.environment import cpu_model

FULL_CASES = (
    ("6000x6000", "light"),
    ("12000x6000", "light"),
    ("6000x6000-collar", "light"),
    ("6000x6000-jpeg", "light"),
    ("6000x6000", "dcfam"),
    ("12000x6000", "dcfam"),
)
QUICK_CASES = (("1500x1500", "light"), ("1500x1500-collar", "light"))


class Bench:
    """Takes turns in child processes."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder = folder
        self.options = options

    def turn(self, side: str, precision: str, scene: Path, network: str) -> dict[str, Any]:
        """Take a turn, again if it was disturbed."""
        out = self.folder / "mask.tif"
        turn = Turn(
            side=side, scene=str(scene), out=str(out), network=network, precision=precision,
            device=self.options.device, batch_size=self.options.batch_size, threads=self.options.threads,
            window_px=self.options.window, overlap=self.options.overlap,
        )  # fmt: skip
        for attempt in range(self.options.again + 1):
            found = self.in_child(turn)
            for path in self.folder.glob("mask*"):
                path.unlink()
            found["disturbed"] = (found["foreign"] or 0) > self.options.max_foreign
            note = f", others took {found['foreign']:.1%}" if found["disturbed"] else ""
            report(f"  {side} {precision}: {found['seconds']:.1f} s, {found['cpu_seconds']:.1f} s of CPU{note}")
            found["attempts"] = attempt + 1
            if not found["disturbed"]:
                break
        return found

    def in_child(self, turn: Turn) -> dict[str, Any]:
        threads = str(turn.threads)
        child = subprocess.run(
            [sys.executable, str(Path(__file__).parent), "--turn", turn.to_json()],
            env={**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=False,
        )
        if child.returncode:
            raise SystemExit(f"{turn.side} failed on {turn.scene}:\n{child.stderr}")
        found: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
        return found

    def case(self, scene_name: str, network: str, precisions: Sequence[str], peers: Sequence[str]) -> dict[str, Any]:
        """Take the rounds of a case."""
        report(f"{network}, {scene_name}")
        scene = make_scene(self.folder, scene_name)
        groups = [[("forward", precision), ("predict", precision)] for precision in precisions]
        groups += [[(peer, "fp32")] for peer in peers]
        rounds: list[Round] = []
        for number in range(self.options.rounds):
            report(f" round {number + 1} of {self.options.rounds}")
            first = number % len(groups)
            taken = {}
            for group in groups[first:] + groups[:first]:
                for side, precision in group if number % 2 == 0 else reversed(group):
                    taken[f"{side} {precision}"] = self.turn(side, precision, scene, network)
            rounds.append(
                {f"{side} {precision}": taken[f"{side} {precision}"] for group in groups for side, precision in group}
            )
        return {"scene": scene_name, "network": network, **summarize(rounds), "turns": rounds}

    def growth(self, scene_name: str, times: int, rounds: int) -> dict[str, Any]:
        """Compare the memory that a scene takes with that of one several times as tall."""
        report(f"growth, {scene_name} and {times} of them one below the other")
        scene = make_scene(self.folder, scene_name)
        sizes = {SceneKind.parse(scene_name).height * count: count for count in (1, times)}
        above: dict[int, list[float]] = {height: [] for height in sizes}
        for _ in range(rounds):
            for height, count in sizes.items():
                shown = scene if count == 1 else stack(scene, count)
                found = self.turn("predict", "fp32", shown, "trivial")
                if found["above_mib"] is None:
                    raise SystemExit("this system does not say how much memory a process took")
                if found["windows"] > found["windows_allowed"]:
                    raise SystemExit(f"{found['windows']} windows, at most {found['windows_allowed']} allowed")
                above[height].append(found["above_mib"])
        short, tall = above.values()
        return {
            "network": NAMES["trivial"],
            "scene": scene_name,
            "above_mib": {str(height): spread(found) for height, found in above.items()},
            "growth_mib": spread(after - before for before, after in zip(short, tall, strict=True)),
        }


def report(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def machine(device: torch.device) -> dict[str, Any]:
    found = {
        "cpu": cpu_model(), "cores": num_cores(), "torch": torch.__version__, "gdal": rasterio.__gdal_version__,
        "python": platform.python_version(),
    }  # fmt: skip
    return found | ({"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {})


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python benchmarks/predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small scenes, two rounds")
    parser.add_argument("--scenes", help="separated by commas: WIDTHxHEIGHT, -collar or -jpeg after it; '' for none")
    parser.add_argument("--networks", help=f"separated by commas: {', '.join(NAMES)}")
    parser.add_argument("--precisions", help="separated by commas; default fp32,auto")
    parser.add_argument("--peers", default=",".join(PEERS), help="other tools, separated by commas; '' for none")
    parser.add_argument("--rounds", type=int, help="default 5")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, help="default 2 on the CPU, 32 on a GPU")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--overlap", type=float, default=0.25)
    parser.add_argument("--growth", help="scene to measure the growth of memory on, '' for none; default 6000x6000")
    parser.add_argument("--growth-rounds", type=int, help="default 3")
    parser.add_argument("--times", type=int, default=10, help="how many times as tall")
    parser.add_argument("--max-foreign", type=float, default=0.03, help="share of the machine that others may take")
    parser.add_argument("--again", type=int, default=2, help="how often a disturbed turn is taken again")
    parser.add_argument("--folder", type=Path, help="where scenes are written and kept; default: a temporary one")
    parser.add_argument("--json", type=Path, help="write all figures and turns to this file, after each case")
    parser.add_argument("--turn", type=Turn.from_json, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    quick = options.quick
    options.rounds = options.rounds or (2 if quick else 5)
    options.growth_rounds = options.growth_rounds or (1 if quick else 3)
    options.batch_size = options.batch_size or (2 if options.device == "cpu" else 32)
    options.growth = ("1500x1500" if quick else "6000x6000") if options.growth is None else options.growth
    options.cases = QUICK_CASES if quick else FULL_CASES
    if options.scenes is not None or options.networks:
        every = list(dict.fromkeys(scene for scene, _ in options.cases))
        scenes = every if options.scenes is None else split(options.scenes)
        networks = split(options.networks) or ["light"]
        options.cases = [(scene, network) for network in networks for scene in scenes]
    return options


def split(names: str | None) -> list[str]:
    return [name.strip() for name in (names or "").split(",") if name.strip()]


def chosen_precisions(options: argparse.Namespace) -> dict[str, torch.dtype]:
    """Leave out ``auto`` where it is one of the others."""
    found = {name: resolve(options.device, name)[1] for name in split(options.precisions or "fp32,auto")}
    if "auto" in found and found["auto"] in [precision for name, precision in found.items() if name != "auto"]:
        report(f"the default precision is {found.pop('auto')} here and not measured again")
    return found


def installed_peers(options: argparse.Namespace) -> list[str]:
    found = []
    for name in split(options.peers):
        if PEERS[name].found:
            found.append(name)
        else:
            report(f"{name}: not installed and left out; to compare with it: {PEERS[name].install}")
    return found


def main(arguments: Sequence[str]) -> None:
    options = parse(arguments)
    if options.turn is not None:
        print(json.dumps(take(options.turn)))
        return
    precisions, peers = chosen_precisions(options), installed_peers(options)
    device, _ = resolve(options.device, "auto")
    result: dict[str, Any] = {
        "machine": machine(device),
        "peers": {name: PEERS[name].version for name in peers},
        "precisions": {name: str(precision).removeprefix("torch.") for name, precision in precisions.items()},
        **{key: getattr(options, key) for key in ("device", "batch_size", "threads", "window", "overlap", "rounds")},
        "aims": AIMS,
        "cases": [],
    }
    print(", ".join(f"{key} {value}" for key, value in result["machine"].items()))
    versions = "".join(f"; {name} {version}" for name, version in result["peers"].items())
    print(
        f"windows of {options.window} px, overlap {options.overlap:.0%}, batches of {options.batch_size}, "
        f"{options.threads} threads; {result['precisions']}{versions}\n"
    )
    with tempfile.TemporaryDirectory(prefix="ctrs-predict-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        bench = Bench(folder, options)
        for scene, network in options.cases:
            case = bench.case(
                scene, network, list(precisions), peers if "-" not in scene and network == "light" else ()
            )
            result["cases"].append(case)
            print(f"{table(case)}\n{aims_text(case)}\n", flush=True)
            keep(result, options.json)
        if options.growth:
            growth = result["growth"] = bench.growth(options.growth, options.times, options.growth_rounds)
            print(growth_text(growth))
            print(told("predict", "growth, MiB", growth["growth_mib"]["high"], AIMS["growth_mib"], 0))
            keep(result, options.json)


def keep(result: dict[str, Any], path: Path | None) -> None:
    if path is not None:
        path.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
