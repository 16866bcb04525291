"""Whether loading keeps up with the network: images/s of the loader alone beside those of the training step alone.

    python benchmarks/data_loading.py
    python benchmarks/data_loading.py --workers 0,1,2 --rounds 5 --json loading.json
    python benchmarks/data_loading.py --device cuda --batch-size 32 --workers 4,8 --rounds 10
    python benchmarks/data_loading.py --augment all --cache none

Tiles are the real Dubai tiles of CTRS_TEST_DATA (default ../shared/data), or those of a synthetic town where that
folder is missing, prepared in a folder of their own; the network is PoolFormer-S12 + DCFAM with loss cl unless told
otherwise.
All figures are medians over rounds, in each of which every measurement has its turn in one process:

- step: forward, objective, backward, clipping and optimizer on one batch that lies on the device.
- loader: batches of the training loader with nothing else going on, for each number of loader processes.
- ratio: images/s of loader over step in the same round, with quartiles. The target is 3 or more on the CPU.
- training: steps on batches from the loader. ``waiting`` is the share of their time in which the device has nothing to
  do because the next batch is not there (before each batch the device is waited for, so that its work hides nothing);
  ``busy`` is the rest. The target is 0.9 or more on a GPU.
- decode: milliseconds to read and decode a tile from disk, which ``--cache none`` does for each sample.
- sample: milliseconds from a decoded tile to network input.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from real_sets import arrange_dubai
from torch.utils.data import DataLoader

from ctrs.config import AugmentConfig, PrepareConfig, TrainConfig
from ctrs.data.dataset import Batch, make_loader
from ctrs.data.sampling import TrainingBatches
from ctrs.data.tile_store import fill_cache, read_tile
from ctrs.inference.device import resolve_device
from ctrs.synthetic.town import TownConfig, make_town
from ctrs.tiles import prepare_tiles
from ctrs.tiles.manifest import Manifest
from ctrs.training.distributed import open_fabric
from ctrs.training.environment import cpu_model
from ctrs.training.settings import effective_config
from ctrs.training.workbench import Workbench, set_up

ALL_ON = AugmentConfig(rotate=30.0, gamma=0.3, noise=0.05, blur=1.5, band_shift=0.05, cutmix=0.5, mosaic=0.5)


def prepare(imagery: Path, out: Path, px: int) -> Manifest:
    if (imagery / "dubai_mbrsc_landcover").is_dir():
        source = arrange_dubai(imagery, out / "dubai")
    else:
        report(f"{imagery}: no real imagery; a synthetic town takes its place")
        source = make_town(out / "town", TownConfig(size_px=4 * px))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the real tiles have no CRS, which does not matter here
        return prepare_tiles(source, out / "prepared", PrepareConfig(tile_px=px))


class Bench:
    """One network and its loaders."""

    def __init__(self, work: Workbench, config: TrainConfig, workers: Sequence[int]) -> None:
        self.work = work
        self.config = config
        work.step.train()
        work.wrap(config)
        self.streams = {count: endless(*self.loader(count)) for count in workers}
        self.fixed = work.images(next(endless(*self.loader(0))))

    def loader(self, workers: int) -> tuple[DataLoader[Batch], TrainingBatches]:
        batches = TrainingBatches(self.work.train_batches.order, self.work.train_batches.batch_size)
        on_cuda = self.work.fabric.device.type == "cuda"
        return make_loader(self.work.train_set, batches, workers=workers, pin_memory=on_cuda), batches

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        work = self.work
        keys = work.step.draw_keys(images, seed=0, epoch=0, step=0)
        total, _ = work.wrapped(images, labels, keys)
        work.fabric.backward(total)
        work.fabric.clip_gradients(
            work.wrapped, work.optimizer, max_norm=self.config.gradient_clip, error_if_nonfinite=False
        )
        work.optimizer.step()
        work.optimizer.zero_grad(set_to_none=True)

    def wait(self) -> None:
        if self.work.fabric.device.type == "cuda":
            torch.cuda.synchronize(self.work.fabric.device)

    def step_seconds(self, count: int) -> float:
        """Seconds of a step without loading."""
        return self.timed(lambda: [self.step(*self.fixed) for _ in range(count)]) / count

    def loader_seconds(self, workers: int, count: int) -> float:
        """Seconds for a batch with nothing else going on; those prepared ahead while others were timed do not count."""
        stream = self.streams[workers]
        for _ in range(2 * workers):
            next(stream)
        return self.timed(lambda: [next(stream) for _ in range(count)]) / count

    def training(self, workers: int, count: int) -> tuple[float, float]:
        """Seconds of a step on loaded batches, and the share of them spent waiting for the batch."""
        stream, waited = self.streams[workers], 0.0
        for _ in range(2 * workers):  # what was prepared ahead while others were timed
            self.step(*self.work.images(next(stream)))
        self.wait()
        began = time.perf_counter()
        for _ in range(count):
            self.wait()
            before = time.perf_counter()
            batch = next(stream)
            waited += time.perf_counter() - before
            self.step(*self.work.images(batch))
        self.wait()
        seconds = time.perf_counter() - began
        return seconds / count, waited / seconds

    def timed(self, run: Callable[[], object]) -> float:
        self.wait()
        began = time.perf_counter()
        run()
        self.wait()
        return time.perf_counter() - began


def endless(loader: DataLoader[Batch], batches: TrainingBatches) -> Iterator[Batch]:
    while True:
        yield from loader
        batches.epoch += 1


def decode_ms(manifest: Manifest, count: int = 30) -> float:
    seconds = []
    for tile in manifest.split("train")[:count]:
        began = time.perf_counter()
        read_tile(tile)
        seconds.append(time.perf_counter() - began)
    return 1e3 * statistics.median(seconds)


def sample_ms(work: Workbench, count: int = 60) -> float:
    seconds = []
    for number in range(count):
        began = time.perf_counter()
        _ = work.train_set[1, number % len(work.train_set)]
        seconds.append(time.perf_counter() - began)
    return 1e3 * statistics.median(seconds)


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    return low, middle, high


def measure(bench: Bench, options: argparse.Namespace) -> list[dict[str, Any]]:
    size = bench.work.train_batches.batch_size
    steps: list[float] = []
    loading: dict[int, list[float]] = {count: [] for count in options.workers}
    training: dict[int, list[tuple[float, float]]] = {count: [] for count in options.workers}
    bench.step_seconds(2)  # first calls cost more
    for number in range(options.rounds):
        steps.append(bench.step_seconds(options.steps))
        report(f"round {number + 1} of {options.rounds}: step alone {steps[-1]:.3f} s")
        start = number % len(options.workers)
        for workers in (*options.workers[start:], *options.workers[:start]):
            loading[workers].append(bench.loader_seconds(workers, options.batches))
            training[workers].append(bench.training(workers, options.steps))
            seconds, waiting = training[workers][-1]
            report(
                f"  workers {workers}: loader {loading[workers][-1]:.3f} s, training step {seconds:.3f} s, "
                f"{waiting:.1%} of it waiting"
            )
    rows = []
    for workers in options.workers:
        ratio = quartiles([step / batch for step, batch in zip(steps, loading[workers], strict=True)])
        rows.append(
            {
                "workers": workers,
                "loader_images_per_second": size / statistics.median(loading[workers]),
                "step_images_per_second": size / statistics.median(steps),
                "ratio": ratio,
                "training_images_per_second": size / statistics.median(seconds for seconds, _ in training[workers]),
                "busy": 1 - statistics.median(share for _, share in training[workers]),
            }
        )
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| workers | loader, images/s | step, images/s | ratio (quartiles) | training, images/s | busy |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        low, middle, high = row["ratio"]
        lines.append(
            f"| {row['workers']} | {row['loader_images_per_second']:.1f} | {row['step_images_per_second']:.1f} "
            f"| {middle:.1f} ({low:.1f} to {high:.1f}) | {row['training_images_per_second']:.1f} | {row['busy']:.1%} |"
        )
    return "\n".join(lines)


def machine(device: torch.device) -> dict[str, Any]:
    found = {
        "cpu": cpu_model(), "cores": len(os.sched_getaffinity(0)), "threads": torch.get_num_threads(),
        "torch": torch.__version__, "python": platform.python_version(),
    }  # fmt: skip
    return found | ({"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {})


def report(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    default_data = os.environ.get("CTRS_TEST_DATA", str(Path(__file__).resolve().parents[2] / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, help="default: 4 on the CPU, 32 on a GPU")
    parser.add_argument("--prepared", type=Path, help="prepared data to take instead")
    parser.add_argument("--px", type=int, default=512, help="edge of tiles and crops")
    parser.add_argument("--workers", default=None, help="separated by commas; default 0,1 on the CPU, 4,8 on a GPU")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="training steps in each turn; default 1 on the CPU, 20 on a GPU")
    parser.add_argument("--batches", type=int, default=10, help="batches that the loader alone loads in each turn")
    parser.add_argument("--backbone", default="poolformer")
    parser.add_argument("--decoder", default="dcfam")
    parser.add_argument("--loss", default="cl")
    parser.add_argument("--augment", choices=("default", "all"), default="default")
    parser.add_argument("--cache", choices=("auto", "none", "memory"), default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--threads", type=int, help="CPU threads of torch")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args(arguments)
    on_gpu = not options.device.startswith("cpu")
    options.data = Path(default_data)
    options.batch_size = options.batch_size or (32 if on_gpu else 4)
    options.steps = options.steps or (20 if on_gpu else 1)
    options.workers = [int(count) for count in (options.workers or ("4,8" if on_gpu else "0,1")).split(",")]
    if options.threads:
        torch.set_num_threads(options.threads)
    return options


def main(arguments: Sequence[str]) -> None:
    options = parse(arguments)
    device = resolve_device(options.device)
    with tempfile.TemporaryDirectory(prefix="ctrs-loading-") as folder:
        found = options.prepared
        manifest = Manifest.open(found) if found else prepare(options.data, Path(folder), options.px)
        config = effective_config(
            TrainConfig(
                backbone=options.backbone, decoder=options.decoder, loss=options.loss, batch_size=options.batch_size,
                crop=options.px, device=options.device, precision=options.precision, compile=options.compile,
                workers=max(options.workers), augment=ALL_ON if options.augment == "all" else AugmentConfig(),
            ),
            manifest.tile_px, device,
        )  # fmt: skip
        with open_fabric(config, device) as fabric:
            work = set_up(config, manifest, fabric, pretrained=False)
            decoding = decode_ms(manifest)
            cached = fill_cache([work.train_set.store], options.cache, workers=max(options.workers))
            about = {
                "machine": machine(device), "tiles": len(work.train_set), "px": options.px, "cached": cached,
                "batch_size": options.batch_size, "network": f"{options.backbone} + {options.decoder}, {options.loss}",
                "augment": options.augment, "rounds": options.rounds, "decode_ms": decoding,
                "sample_ms": sample_ms(work),
            }  # fmt: skip
            rows = measure(Bench(work, config, options.workers), options)
    print(", ".join(f"{name} {value}" for name, value in about["machine"].items()))
    print(
        f"{about['network']}, batches of {options.batch_size} x {options.px} px, {about['tiles']} tiles "
        f"{'in memory' if cached else 'on disk'}, augmentation {options.augment}; decode {decoding:.1f} ms, "
        f"sample {about['sample_ms']:.1f} ms\n"
    )
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps({**about, "rows": rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
