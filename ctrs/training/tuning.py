"""``--auto``: batch size and loader processes found by trying, before a run begins and without a trace in it.

A batch is also a setting of the optimization, and small ones make BatchNorm noisy: nothing smaller than the default is
taken unless the default does not fit, and nothing that leaves an epoch fewer than ``FEWEST_STEPS`` steps. Among the
sizes that fit, the smallest wins from which no doubling is clearly faster.
"""

from __future__ import annotations

import dataclasses
import gc
import logging
import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import default_collate

from ctrs.config import TrainConfig
from ctrs.data.dataset import Batch, make_loader
from ctrs.data.sampling import TrainingBatches
from ctrs.data.tile_store import CACHE_SHARE, available_memory, read_tile
from ctrs.errors import CtrsWarning, TrainingError
from ctrs.inference.device import cpu_threads
from ctrs.progress import Progress, counted, format_bytes, no_progress
from ctrs.tiles.manifest import Manifest
from ctrs.training.distributed import open_fabric, threads_of_each
from ctrs.training.footprint import MemoryMeter, unmade_optimizer_bytes
from ctrs.training.random_state import own_random_state
from ctrs.training.settings import default_workers, effective_config, usable_cores
from ctrs.training.training_tiles import training_tiles
from ctrs.training.workbench import Workbench, known, set_up

logger = logging.getLogger(__name__)

MEMORY_SHARE = 0.9
"""Largest share of the device's memory that a batch may take."""

FEWEST_STEPS = 50
"""Steps that an epoch keeps where a larger batch than the default is taken."""

_CLEARLY_FASTER = 1.03
_LOADER_MARGIN = 1.5
"""Loader processes are to be this much faster than the network, since tiles differ."""
_NOTICEABLE_LOADING = 0.05
"""Share of a step below which loading is left in the training process on the CPU."""
_ENOUGH_SECONDS, _MOST_STEPS = 1.0, 10
_LONG_SECONDS = 30.0
"""Steps that take longer than this are not tried twice; of shorter ones the faster of two counts."""
_MOST_SECONDS = 120.0
_PROBE = 2
_LOADED_TILES = 8


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A batch size that was tried on one device.

    Args:
        images: Images that the device computed at once.
        images_per_second: Of forward and backward pass and optimizer step; 0 where it did not fit.
        memory_bytes: What it took beside the network itself; 0 where that is not known.
        fits: It does, with some memory to spare.
    """

    images: int
    images_per_second: float = 0.0
    memory_bytes: int = 0
    fits: bool = True

    def describe(self) -> str:
        """Say it in one line."""
        if not self.fits:
            return f"{counted(self.images, 'image')} at once: more memory than there is to take"
        return (
            f"{counted(self.images, 'image')} at once: {self.images_per_second:.1f} images/s, "
            f"{format_bytes(self.memory_bytes)}"
        )


def auto_settings(
    config: TrainConfig,
    manifest: Manifest,
    device: torch.device,
    *,
    earlier: TrainConfig | None = None,
    memory_limit: int | None = None,
    progress: Progress = no_progress,
) -> TrainConfig:
    """Fill in ``batch_size`` and ``workers``, where they are open, with what trying shows to be fast.

    Generators stay as they are, and nothing that was tried is kept. What is given wins.

    Args:
        config: As given.
        manifest: The prepared data.
        device: From ``resolve_device``; with several devices this one stands for all.
        earlier: Configuration of the run that stands there already, if one does: what it has holds.
        memory_limit: Bytes that a batch may take beside the network; None asks the device.
        progress: Told of each try.

    Returns:
        The configuration with both set.

    Raises:
        TrainingError: Not even one image fits.
        UsageError: The network cannot be built.
    """
    if earlier is not None:
        config = dataclasses.replace(
            config,
            batch_size=config.batch_size or earlier.batch_size,
            workers=earlier.workers if config.workers is None else config.workers,
        )
    if config.batch_size is not None and config.workers is not None:
        return config
    with own_random_state(), cpu_threads(threads_of_each(config)), warnings.catch_warnings():
        warnings.simplefilter("ignore", CtrsWarning)  # said when the run itself is set up
        trial = _Trial(config, manifest, device, memory_limit=memory_limit)
        try:
            return _chosen(trial, config, manifest, device, progress)
        finally:
            del trial
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()


def _chosen(
    trial: _Trial, config: TrainConfig, manifest: Manifest, device: torch.device, progress: Progress
) -> TrainConfig:
    parts = config.devices * config.num_nodes * config.accumulate
    default = known(effective_config(config, manifest.tile_px, device).batch_size)
    start = -(-default // parts)
    reasons: list[str] = []
    if config.batch_size is None:
        most = max(start, len(training_tiles(manifest, config)) // (FEWEST_STEPS * parts))
        patience = 1 if device.type == "cpu" else 2  # a GPU's speed rises in steps
        attempts = search_batch(trial.attempt, start=start, most=most, patience=patience, progress=progress)
        best = best_attempt(attempts)
        if best is None:
            raise TrainingError(
                f"--auto: not even one image of {trial.crop_px} px fits into {format_bytes(trial.limit)}; "
                "lower --crop, or choose a smaller --backbone"
            )
        for attempt in attempts:
            logger.debug("auto: %s", attempt.describe())
        batch_size = best.images * parts
        reasons.append(f"batch {batch_size} ({best.describe()}; {_why(best, attempts, most)})")
    else:
        batch_size = config.batch_size
        best = trial.attempt(max(1, batch_size // parts))
    workers = config.workers
    if workers is None:
        workers, why = trial.workers(best)
        reasons.append(f"{counted(workers, 'loader process')} ({why})")
    logger.info("auto: %s", "; ".join(reasons))
    return dataclasses.replace(config, batch_size=batch_size, workers=workers)


def search_batch(
    attempt: Callable[[int], Attempt],
    *,
    start: int,
    most: int,
    patience: int = 2,
    progress: Progress = no_progress,
) -> list[Attempt]:
    """Try batch sizes: ``start`` and its doublings while they get faster, halves where ``start`` does not fit.

    Args:
        attempt: Tries one.
        start: The default.
        most: Largest size to try.
        patience: Doublings that may gain nothing before the search ends.
        progress: Told of each try.
    """
    attempts: list[Attempt] = []
    began = time.monotonic()
    images, no_faster = start, 0

    def tried(images: int) -> Attempt:
        attempts.append(attempt(images))
        progress(len(attempts), len(attempts) + 1, "trying batch sizes")
        return attempts[-1]

    while images <= most and no_faster < patience and time.monotonic() - began < _MOST_SECONDS:
        fastest = max((other.images_per_second for other in attempts), default=0.0)
        found = tried(images)
        if not found.fits:
            break
        no_faster = 0 if found.images_per_second > _CLEARLY_FASTER * fastest else no_faster + 1
        images *= 2
    images = start // 2
    while images and not any(other.fits for other in attempts):
        tried(images)
        images //= 2
    progress(len(attempts), len(attempts), "trying batch sizes")
    return attempts


def best_attempt(attempts: Sequence[Attempt]) -> Attempt | None:
    """Return the smallest size from which none is clearly faster, None where none fits."""
    best: Attempt | None = None
    for attempt in sorted((other for other in attempts if other.fits), key=lambda other: other.images):
        if best is None or attempt.images_per_second > _CLEARLY_FASTER * best.images_per_second:
            best = attempt
    return best


def _why(best: Attempt, attempts: Sequence[Attempt], most: int) -> str:
    larger = [other for other in attempts if other.images > best.images]
    if any(other.fits for other in larger):
        return "larger ones are no faster"
    if larger:
        return "larger ones do not fit"
    if 2 * best.images > most:
        return f"larger ones would leave fewer than {FEWEST_STEPS} steps for an epoch"
    return "trying larger ones would take too long"


class _Trial:
    """A network, optimizer and tiles to try with.

    Args:
        config: As given.
        manifest: The prepared data.
        device: Where to try.
        memory_limit: Bytes that a batch may take; None asks the device.
    """

    def __init__(
        self, config: TrainConfig, manifest: Manifest, device: torch.device, *, memory_limit: int | None
    ) -> None:
        alone = dataclasses.replace(
            effective_config(config, manifest.tile_px, device),
            devices=1, num_nodes=1, accumulate=1, weights="none", init=None, ema=None,
        )  # fmt: skip
        self._config, self._device = config, device
        self.crop_px = known(alone.crop)
        with open_fabric(alone, device) as fabric:
            self._work: Workbench = set_up(alone, manifest, fabric, pretrained=False)
        self._work.step.train()
        self._meter = MemoryMeter(device)
        self._held = self._meter.held_bytes() + unmade_optimizer_bytes(self._work.optimizer)
        self._held_tiles = self._tiles_to_hold()
        self.limit = self._limit() if memory_limit is None else memory_limit
        self._samples, self._load_seconds = self._load()
        self._of_one = 0.0

    def attempt(self, images: int) -> Attempt:
        """Train some steps on so many images at once.

        What cannot fit, judged by what fewer images took, is not tried: on the CPU it would end the process.
        """
        if self._device.type == "cpu" and not self._of_one and images > _PROBE:
            self.attempt(_PROBE)
        if self._of_one * images > self.limit:
            return Attempt(images=images, fits=False)
        self._meter.begin()
        try:
            rate = self._rate(images)
        except torch.OutOfMemoryError:
            self._work.optimizer.zero_grad(set_to_none=True)
            gc.collect()
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            return Attempt(images=images, fits=False)
        taken = max(0, self._meter.peak_bytes() - self._held) if self._meter.peak_bytes() else 0
        self._of_one = taken / images
        return Attempt(images=images, images_per_second=rate, memory_bytes=taken, fits=taken <= self.limit)

    def workers(self, best: Attempt) -> tuple[int, str]:
        """Choose the number of loader processes for a batch size, and say why."""
        default = default_workers(self._device)
        cores = max(1, usable_cores() // self._config.devices)
        busy = self._load_seconds * best.images_per_second  # loader processes that the network keeps busy
        if self._device.type != "cpu":
            needed = min(cores, max(default, math.ceil(_LOADER_MARGIN * busy)))
            return needed, f"the network needs {busy:.1f} of them busy, {cores} cores"
        if busy < _NOTICEABLE_LOADING:
            return default, f"loading takes {busy:.0%} of the network's time"
        if self._held_tiles:
            self._work.train_set.store.preload()
        rates = {number: self._loop_rate(number, best.images) for number in range(min(2, cores) + 1)}
        for number, rate in rates.items():
            logger.debug("auto: %s: %.2f images/s", counted(number, "loader process"), rate)
        fastest = max(rates, key=lambda number: rates[number])
        chosen = fastest if rates[fastest] > _CLEARLY_FASTER * rates[default] else default
        told = ", ".join(f"{number}: {rate:.1f} images/s" for number, rate in rates.items())
        return chosen, f"with {told}"

    def _limit(self) -> int:
        available = self._meter.available_bytes()
        tiles = self._held_tiles if self._device.type == "cpu" else 0
        return int(MEMORY_SHARE * (available - tiles))

    def _tiles_to_hold(self) -> int:
        """Return the bytes of decoded tiles that training will hold in memory."""
        sets = (self._work.train_set, self._work.val_set)
        needed = self._config.devices * sum(found.store.expected_bytes() for found in sets if found is not None)
        fits = self._config.cache == "memory" or needed <= CACHE_SHARE * available_memory()
        return needed if fits and self._config.cache != "none" else 0

    def _load(self) -> tuple[list[Batch], float]:
        """Return some samples, and the seconds that one takes once tiles are where training will have them."""
        data = self._work.train_set
        keys = [key for batch in self._work.train_batches for key in batch][:_LOADED_TILES]
        began = time.perf_counter()
        samples = [data[key] for key in keys]
        seconds = time.perf_counter() - began
        if self._held_tiles:
            began = time.perf_counter()
            for key in keys:
                read_tile(data.store.tiles[key.tile])
            seconds -= time.perf_counter() - began
        return samples, max(1e-6, seconds) / len(keys)

    def _rate(self, images: int) -> float:
        """Return images each second of the steps alone, the first one apart where it does not stand for the rest."""
        rows = [self._samples[number % len(self._samples)] for number in range(images)]
        batch: Batch = default_collate(rows)
        first = self._seconds(batch)
        if first > _LONG_SECONDS:
            return images / first
        if first > _ENOUGH_SECONDS:
            return images / min(first, self._seconds(batch))
        spent: list[float] = []
        while sum(spent) < _ENOUGH_SECONDS and len(spent) < _MOST_STEPS:
            spent.append(self._seconds(batch))
        return images / sorted(spent)[len(spent) // 2]

    def _seconds(self, batch: Batch) -> float:
        began = time.perf_counter()
        self._step(batch)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter() - began

    def _step(self, batch: Batch) -> None:
        work = self._work
        images, labels = work.images(batch)
        keys = work.step.draw_keys(images, seed=0, epoch=0, step=0)
        with work.fabric.autocast():
            total, _ = work.step(images, labels, keys)
        total.backward()
        work.optimizer.step()
        work.optimizer.zero_grad(set_to_none=True)

    def _loop_rate(self, workers: int, images: int) -> float:
        """Return images each second of loading and steps together, with so many loader processes."""
        order = self._work.train_batches.order
        batches = TrainingBatches(order, min(images, len(order)))
        data_loader = make_loader(self._work.train_set, batches, workers=workers, pin_memory=False)
        seen, began = 0, 0.0
        for number, batch in enumerate(data_loader):
            if number == 0:  # loader processes have started by now
                began = time.perf_counter()
            else:
                seen += len(batch["image"])
            self._step(batch)
            if seen and time.perf_counter() - began > 2 * _ENOUGH_SECONDS:
                break
        return (seen or len(batch["image"])) / (time.perf_counter() - began)
