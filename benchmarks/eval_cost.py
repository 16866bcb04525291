"""What eval costs over predict on the same scenes: both in one run, by turns.

    python benchmarks/eval_cost.py [--data PREPARED] [--model RUN] [--split test] [--rounds 3] [--device auto] [--json]

Without --data, a synthetic town of two test scenes (--size) is made and prepared; without --model, a network of
--backbone is trained on it for --epochs epochs, since the masks of one that learnt nothing are noise, which costs more
to score. Each turn loads the network and maps all scenes, as the commands do; eval also scores them and writes its
whole report.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from ctrs.config import AugmentConfig, EvalConfig, PredictConfig, PrepareConfig, SplitName, TrainConfig
from ctrs.evaluation import evaluate
from ctrs.inference import Predictor
from ctrs.synthetic import TownConfig, make_town
from ctrs.tiles import prepare_tiles
from ctrs.tiles.manifest import Manifest, scene_mosaics
from ctrs.training import train


def make_data(folder: Path, size: int) -> Path:
    town = TownConfig(size_px=size, pixel_size_m=0.2, train_ids=("2_10",), test_ids=("2_13", "3_13"))
    source = make_town(folder / "potsdam", town)
    return prepare_tiles(source, folder / "prepared", PrepareConfig(tile_px=512)).root


def make_model(folder: Path, data: Path, arguments: argparse.Namespace) -> Path:
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


def seconds_of(work: Callable[[], object]) -> tuple[float, float]:
    """Return wall-clock and CPU seconds; the latter say more on a machine that has other work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - started, time.process_time() - cpu


def measure(folder: Path, data: Path, model: Path, arguments: argparse.Namespace) -> dict[str, object]:
    split: SplitName = arguments.split
    options = PredictConfig(device=arguments.device, threads=arguments.threads, overwrite=True)
    mosaics = scene_mosaics(Manifest.open(data), split, folder / "mosaics")

    def predict() -> None:
        predictor = Predictor.from_checkpoint(model, device=arguments.device)
        for mosaic in mosaics:
            predictor.predict_raster(mosaic.image, folder / "masks" / f"{mosaic.scene.name}_mask.tif", options)

    def score() -> None:
        evaluate(model, data, EvalConfig(split=split, predict=replace(options, overwrite=False), overwrite=True))

    predict()  # the first use of a device, or of a file, is slower
    times: dict[str, list[float]] = {"predict": [], "eval": []}
    cpu_times: dict[str, list[float]] = {"predict": [], "eval": []}
    for number in range(arguments.rounds):
        turns = [("predict", predict), ("eval", score)]
        for name, work in turns if number % 2 == 0 else reversed(turns):
            wall, cpu = seconds_of(work)
            times[name].append(wall)
            cpu_times[name].append(cpu)
            print(f"{name}: {wall:.1f} s, {cpu:.1f} s of CPU", file=sys.stderr)
    medians = {name: statistics.median(values) for name, values in times.items()}
    cpu_medians = {name: statistics.median(values) for name, values in cpu_times.items()}
    pixels = sum(mosaic.scene.width * mosaic.scene.height for mosaic in mosaics)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() and arguments.device != "cpu" else "cpu"
    return {
        "ratio": medians["eval"] / medians["predict"],
        "ratios": [after / before for before, after in zip(times["predict"], times["eval"], strict=True)],
        "seconds": medians,
        "all_seconds": times,
        "cpu_ratio": cpu_medians["eval"] / cpu_medians["predict"],
        "cpu_seconds": cpu_medians,
        "megapixels": pixels / 1e6,
        "megapixels_per_second": {name: pixels / 1e6 / value for name, value in medians.items()},
        "scenes": len(mosaics),
        "device": device,
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
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = arguments.data or make_data(folder, arguments.size)
        model = arguments.model or make_model(folder, data, arguments)
        result = measure(folder, data, model, arguments)
    if arguments.json:
        print(json.dumps(result, indent=1))
        return
    rates = result["megapixels_per_second"]
    print(
        f"{result['scenes']} scenes, {result['megapixels']:.1f} megapixels, {result['device']}, {result['cores']} cores"
    )
    print(f"predict {result['seconds']['predict']:.1f} s ({rates['predict']:.2f} megapixels/s)")
    print(f"eval    {result['seconds']['eval']:.1f} s ({rates['eval']:.2f} megapixels/s)")
    print(f"CPU     {result['cpu_ratio']:.3f} times that of predict")
    print(f"ratio   {result['ratio']:.3f}; by rounds {', '.join(f'{ratio:.3f}' for ratio in result['ratios'])}")


if __name__ == "__main__":
    main()
