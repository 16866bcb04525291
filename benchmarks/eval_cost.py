"""What eval costs over predict on the same scenes, in time and memory: by turns, each in a process of its own.

    python benchmarks/eval_cost.py [--data PREPARED] [--model RUN] [--split test] [--rounds 3] [--device auto] [--json]

Without --data, a synthetic town of two test scenes (--size) is made and prepared; without --model, a network of
--backbone is trained on it for --epochs epochs, since the masks of one that learnt nothing are noise, which costs more
to score. A given run is not touched: its checkpoint is copied, so that no opening of the test split is counted there.

Each turn loads the network and maps all scenes, as the commands do; eval also scores them and writes its whole report.
The start of Python, the import of what both need and the first use of the device (a crop of 512 px is mapped) are not
counted among its seconds. "Whole process" is all of a turn from its start to its end, imports included.

Processor time is the figure to trust on a machine that does other work too; where the network runs on another device,
only seconds say what a user waits for.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import rasterio
import torch
from rasterio.windows import Window

from ctrs.config import AugmentConfig, EvalConfig, PredictConfig, PrepareConfig, TrainConfig
from ctrs.inference import Predictor
from ctrs.model_files import find_checkpoint
from ctrs.tiles.manifest import Manifest, SceneMosaic, scene_mosaics

SIDES = ("predict", "eval")
NUMBERS = ("seconds", "cpu_seconds", "whole_cpu_seconds", "peak_mib")
WARM_PX = 512


def make_data(folder: Path, size: int) -> Path:
    from ctrs.synthetic import TownConfig, make_town
    from ctrs.tiles import prepare_tiles

    town = TownConfig(size_px=size, pixel_size_m=0.2, train_ids=("2_10",), test_ids=("2_13", "3_13"))
    source = make_town(folder / "potsdam", town)
    return prepare_tiles(source, folder / "prepared", PrepareConfig(tile_px=512)).root


def make_model(folder: Path, data: Path, arguments: argparse.Namespace) -> Path:
    from ctrs.training import train

    config = TrainConfig(
        backbone=arguments.backbone,
        weights="none",
        loss="none",
        epochs=arguments.epochs,
        batch_size=4,
        device=arguments.device,
        augment=AugmentConfig(scale=(1.0, 1.0)),
    )
    train(data, folder / "run", config)
    return folder / "run"


def copy_checkpoint(model: Path, folder: Path) -> Path:
    """Copy a checkpoint without its run."""
    files = find_checkpoint(model)
    folder.mkdir()
    for file in {files.weights, files.description}:
        shutil.copy(file, folder)
    return folder / files.weights.name


def peak_mib() -> float | None:
    """Return the most memory that this process ever held; None where the system does not say."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return None if found is None else int(found[1]) / 1024


def crop(mosaic: SceneMosaic, path: Path) -> Path:
    """Cut the upper left corner out of a scene."""
    with rasterio.open(mosaic.image) as scene:
        height, width = min(WARM_PX, scene.height), min(WARM_PX, scene.width)
        profile = {"driver": "GTiff", "count": scene.count, "dtype": scene.dtypes[0], "height": height, "width": width}
        grid = {"crs": scene.crs, "transform": scene.transform, "nodata": scene.nodata}
        with rasterio.open(path, "w", **profile, **grid) as part:
            part.write(scene.read(window=Window(0, 0, width, height)))
    return path


def predict_scenes(scenes: dict[str, Path], masks: Path, arguments: argparse.Namespace) -> None:
    predictor = Predictor.from_checkpoint(arguments.model, device=arguments.device)
    for name, image in scenes.items():
        options = PredictConfig(device=arguments.device, threads=arguments.threads, overwrite=True)
        predictor.predict_raster(image, masks / f"{name}_mask.tif", options)


def take_turn(folder: Path, arguments: argparse.Namespace) -> dict[str, float | None]:
    """Map all scenes in this process, and score them if that is asked for."""
    options = PredictConfig(device=arguments.device, threads=arguments.threads)
    mosaics = scene_mosaics(Manifest.open(arguments.data), arguments.split, folder / "mosaics")
    warm = crop(mosaics[0], folder / "corner.tif")
    predict_scenes({"corner": warm}, folder / "warm", arguments)  # the first use of a device is slower
    started, cpu = time.perf_counter(), time.process_time()
    if arguments.turn == "eval":
        from ctrs.evaluation import evaluate

        config = EvalConfig(split=arguments.split, predict=replace(options, overwrite=False), overwrite=True)
        evaluate(arguments.model, arguments.data, config)
    else:
        scenes = {mosaic.scene.name: mosaic.image for mosaic in mosaics}
        predict_scenes(scenes, folder / "masks", arguments)
    return {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mib": peak_mib(),
    }


def children_cpu_seconds() -> float:
    """Return the processor time of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Take turns in child processes."""
    turns: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    call = [sys.executable, __file__, "--data", str(arguments.data), "--model", str(arguments.model)]
    call += ["--split", arguments.split, "--device", arguments.device]
    call += [] if arguments.threads is None else ["--threads", str(arguments.threads)]
    for number in range(arguments.rounds):
        for side in SIDES if number % 2 == 0 else reversed(SIDES):
            before = children_cpu_seconds()
            child = subprocess.run([*call, "--turn", side], stdout=subprocess.PIPE, text=True, check=True)
            turn = json.loads(child.stdout.splitlines()[-1])
            turn["whole_cpu_seconds"] = children_cpu_seconds() - before
            turns[side].append(turn)
            print(f"{side}: {turn['seconds']:.1f} s, {turn['cpu_seconds']:.1f} s of CPU", file=sys.stderr)
    medians: dict[str, dict[str, float]] = {
        side: {
            name: statistics.median([turn[name] for turn in taken])
            for name in NUMBERS
            if all(turn[name] is not None for turn in taken)
        }
        for side, taken in turns.items()
    }
    mosaics = scene_mosaics(Manifest.open(arguments.data), arguments.split, folder / "mosaics")
    gpu = torch.cuda.is_available() and arguments.device != "cpu"
    pairs = list(zip(*(turns[side] for side in SIDES), strict=True))

    def by_round(name: str) -> list[float]:
        return [after[name] / before[name] for before, after in pairs]

    return {
        "ratio": medians["eval"]["seconds"] / medians["predict"]["seconds"],
        "ratios": by_round("seconds"),
        "cpu_ratio": medians["eval"]["cpu_seconds"] / medians["predict"]["cpu_seconds"],
        "cpu_ratios": by_round("cpu_seconds"),
        "whole_cpu_ratio": medians["eval"]["whole_cpu_seconds"] / medians["predict"]["whole_cpu_seconds"],
        **medians,
        "turns": turns,
        "megapixels": sum(mosaic.scene.width * mosaic.scene.height for mosaic in mosaics) / 1e6,
        "scenes": len(mosaics),
        "device": torch.cuda.get_device_name() if gpu else "cpu",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder that prepare wrote")
    parser.add_argument("--model", type=Path, help="run or checkpoint folder, trained on these classes")
    parser.add_argument("--split", default="test", choices=["train", "val", "test"])
    parser.add_argument("--size", type=int, default=2048, help="edge of the synthetic scenes")
    parser.add_argument("--backbone", default="poolformer_s12")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--turn", choices=SIDES, help=argparse.SUPPRESS)  # how this file calls itself
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.turn:
            print(json.dumps(take_turn(folder, arguments)))
            return
        arguments.data = arguments.data or make_data(folder, arguments.size)
        model = arguments.model or make_model(folder, arguments.data, arguments)
        arguments.model = copy_checkpoint(model, folder / "checkpoint")
        result = measure(folder, arguments)
    if arguments.json:
        print(json.dumps(result, indent=1))
        return
    print(
        f"{result['scenes']} scenes, {result['megapixels']:.1f} megapixels, {result['device']}, {result['cores']} cores"
    )
    for side in SIDES:
        numbers = result[side]
        peak = f", peak {numbers['peak_mib']:.0f} MiB" if "peak_mib" in numbers else ""
        whole = f"{numbers['whole_cpu_seconds']:.1f} s of the whole process"
        print(f"{side:7} {numbers['seconds']:.1f} s, {numbers['cpu_seconds']:.1f} s of CPU, {whole}{peak}")
    for title, name in (("seconds", "ratio"), ("CPU", "cpu_ratio")):
        rounds = ", ".join(f"{ratio:.3f}" for ratio in result[f"{name}s"])
        print(f"ratio   {result[name]:.3f} in {title}; by rounds {rounds}")
    print(f"ratio   {result['whole_cpu_ratio']:.3f} in CPU of the whole process")


if __name__ == "__main__":
    main()
