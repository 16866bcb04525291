"""What the trainer costs beside a bare PyTorch loop with the same network, loss, batches and optimizer.

Both sides run in turn in one process, round by round, on the same prepared tiles, from the same weights and with the
same precision, layout and number of threads. The bare loop reads a loader, computes the objective and its gradients,
clips, steps and looks at nothing; the trainer is ``ctrs.training.train``'s own loop with its meter, checks, learning
rates, contrast keys and progress. What comes once in an epoch (validation, checkpoints, the saved state) is not part of
either side. On a machine that others use too, the ratio of processor time says more than that of the clock.
``data wait`` is the share of the trainer's time spent waiting for batches.

    python benchmarks/train_loop.py
    python benchmarks/train_loop.py --device cuda --batch-size 32 --size 512 --steps 40 --workers 8
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from rasterio.transform import Affine

from ctrs.classes import IGNORE_INDEX, ClassMap, LandClass
from ctrs.config import AugmentConfig, TrainConfig
from ctrs.data.dataset import Batch
from ctrs.data.tile_store import TileStore
from ctrs.inference.device import cpu_threads, resolve_device
from ctrs.raster.bands import Bands
from ctrs.raster.windows import PixelWindow
from ctrs.tiles.manifest import Manifest, Scene, Tile
from ctrs.training import batch_step, trainer
from ctrs.training.distributed import open_fabric
from ctrs.training.environment import cpu_model
from ctrs.training.epoch_meter import EpochMeter
from ctrs.training.optimization import freeze, learning_rate_at, set_learning_rate
from ctrs.training.random_state import seed_globally
from ctrs.training.settings import effective_config
from ctrs.training.workbench import Workbench, loader, set_up

COLORS = ((255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0))
PLACE = {"crs": "EPSG:32633", "transform": Affine(0.1, 0, 500000, 0, -0.1, 5800000)}


def make_tiles(root: Path, count: int, size: int) -> Manifest:
    """Write tiles of noise with blocks of six classes."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir()
    (root / "masks").mkdir()
    tiles = []
    for number in range(count):
        blocks = rng.integers(0, 6, (size // 16 + 1,) * 2).repeat(16, 0).repeat(16, 1)[:size, :size].astype(np.uint8)
        image = (blocks[None] * 30 + rng.integers(0, 60, (3, size, size))).astype(np.uint8)
        paths = root / "images" / f"{number}.tif", root / "masks" / f"{number}.tif"
        for path, array, nodata in ((paths[0], image, None), (paths[1], blocks[None], IGNORE_INDEX)):
            options = {"driver": "GTiff", "width": size, "height": size, "dtype": "uint8", "nodata": nodata, **PLACE}
            with rasterio.open(path, "w", count=len(array), **options) as dataset:
                dataset.write(array)
        tiles.append(
            Tile(
                scene="noise",
                split="train",
                window=PixelWindow(col_off=size * number, row_off=0, width=size, height=size),
                image=paths[0],
                mask=paths[1],
                valid_fraction=1.0,
                class_counts=tuple(int((blocks == index).sum()) for index in range(6)),
            )
        )
    classes = ClassMap(
        classes=tuple(LandClass(value=index, name=f"class {index}", color=color) for index, color in enumerate(COLORS))
    )
    bands = Bands(
        names=("red", "green", "blue"), dtype="uint8", low=(0,) * 3, high=(255,) * 3, mean=(100.0,) * 3, std=(50.0,) * 3
    )
    scene = Scene(
        name="noise", split="train", width=size * count, height=size, transform=(0.1, 0, 500000, 0, -0.1, 5800000),
        crs_wkt=rasterio.CRS.from_epsg(32633).to_wkt(), source_image="noise.tif", source_label="noise_label.tif",
    )  # fmt: skip
    return Manifest(
        root=root, name="noise", tiles=tuple(tiles), scenes=(scene,), classes=classes, bands=bands, tile_px=size,
        pixel_size_m=0.1, preset=None, fingerprint="0" * 32,
    )  # fmt: skip


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def bare_loop(work: Workbench, config: TrainConfig, batches: Any, epoch: int) -> None:
    """Take the steps of an epoch and nothing else; keys are fixed, where the loss needs any."""
    device, step = work.fabric.device, work.step
    keys, parameters = None, list(step.parameters())
    for batch in batches:
        images = batch["image"].to(device, non_blocking=True, memory_format=work.memory_format)
        labels = batch["mask"].to(device, non_blocking=True)
        keys = step.draw_keys(images, seed=0, epoch=epoch, step=0) if keys is None else keys
        with work.fabric.autocast():
            total, _ = step(images, labels, keys)
        total.backward()
        torch.nn.utils.clip_grad_norm_(parameters, config.gradient_clip)
        work.optimizer.step()
        work.optimizer.zero_grad(set_to_none=True)


def trainer_loop(work: Workbench, config: TrainConfig, batches: Any, epoch: int) -> EpochMeter:
    """Take the steps of an epoch as ``train`` does."""
    meter = EpochMeter(epoch + 1, device=work.fabric.device)
    steps_per_epoch, saved = work.train_batches.num_steps, time.monotonic()
    for number, parts_of_batch in enumerate(batch_step.grouped(meter.timed(batches), config.accumulate)):
        rate = learning_rate_at(epoch * steps_per_epoch + number, config, steps_per_epoch=steps_per_epoch)
        set_learning_rate(work.optimizer, rate)
        total, parts = batch_step.accumulate(work, config, parts_of_batch, epoch=epoch, number=number)
        grad_norm = batch_step.optimize(work, config)
        num_images = sum(len(part["image"]) for part in parts_of_batch)
        meter.add(total, parts, grad_norm, num_images=num_images, learning_rate=rate)
        if trainer._all_agree(work.fabric, time.monotonic() - saved >= 60 * config.save_minutes, number):
            raise RuntimeError("the round took so long that the state would be saved")
    meter.finish()
    return meter


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    device = resolve_device(arguments.device)
    config = TrainConfig(
        backbone=arguments.backbone, decoder=arguments.decoder, loss=arguments.loss, batch_size=arguments.batch_size,
        epochs=arguments.rounds + 1, device=arguments.device, precision=arguments.precision,
        threads=arguments.threads, workers=arguments.workers, augment=AugmentConfig(), crop=arguments.size,
        save_minutes=1e6,
    )  # fmt: skip
    config = effective_config(config, arguments.size, device)
    with (
        tempfile.TemporaryDirectory() as folder,
        cpu_threads(config.threads),
        open_fabric(config, device) as fabric,
    ):
        manifest = make_tiles(Path(folder), arguments.steps * arguments.batch_size, arguments.size)
        seed_globally(0)
        work = set_up(config, manifest, fabric, pretrained=False)
        work.step.train()
        freeze(work.step, config, 0)
        work.wrap(config)
        store = work.train_set.store
        assert isinstance(store, TileStore)
        store.preload()
        if arguments.held:  # one batch again and again: what is left is the loop itself
            batch: Batch = next(iter(loader(work, work.train_set, work.train_batches, config)))
            batches: Any = [batch] * arguments.steps
        else:
            batches = loader(work, work.train_set, work.train_batches, config)
        seconds: dict[str, list[float]] = {"bare": [], "trainer": []}
        cpu_seconds: dict[str, list[float]] = {"bare": [], "trainer": []}
        waits: list[float] = []
        for number in range(arguments.rounds + 1):
            for side in ("bare", "trainer") if number % 2 else ("trainer", "bare"):
                work.train_batches.epoch = number
                synchronize(device)
                began, cpu_began = time.perf_counter(), time.process_time()
                if side == "bare":
                    bare_loop(work, config, batches, number)
                else:
                    meter = trainer_loop(work, config, batches, number)
                synchronize(device)
                if number:  # the first round warms up
                    seconds[side].append(time.perf_counter() - began)
                    cpu_seconds[side].append(time.process_time() - cpu_began)
                    if side == "trainer":
                        waits.append(meter.data_wait)
    ratios = [one / other for one, other in zip(seconds["trainer"], seconds["bare"], strict=True)]
    cpu_ratios = [one / other for one, other in zip(cpu_seconds["trainer"], cpu_seconds["bare"], strict=True)]
    steps = arguments.steps
    return {
        "machine": cpu_model(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        **{key: value for key, value in vars(arguments).items() if key != "out"},
        "bare_ms_per_step": 1000 * statistics.median(seconds["bare"]) / steps,
        "trainer_ms_per_step": 1000 * statistics.median(seconds["trainer"]) / steps,
        "ratio": statistics.median(ratios),
        "ratio_of_fastest": min(seconds["trainer"]) / min(seconds["bare"]),
        "ratio_of_cpu_time": statistics.median(cpu_ratios),
        "ratios": ratios,
        "ratios_of_cpu_time": cpu_ratios,
        "data_wait": statistics.median(waits),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--backbone", default="poolformer")
    parser.add_argument("--decoder", default="dcfam")
    parser.add_argument("--loss", default="cl")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--held", action="store_true", help="one batch again and again instead of a loader")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    result = measure(arguments)
    print(
        f"{result['device']}: bare {result['bare_ms_per_step']:.1f} ms, trainer {result['trainer_ms_per_step']:.1f} ms "
        f"for each step; ratio {result['ratio']:.3f} (median of {arguments.rounds} rounds, of the fastest "
        f"{result['ratio_of_fastest']:.3f}, of processor time {result['ratio_of_cpu_time']:.3f}), "
        f"data wait {result['data_wait']:.1%}"
    )
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
