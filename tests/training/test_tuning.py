from __future__ import annotations

import dataclasses
import logging
import random
from typing import Any

import numpy as np
import pytest
import torch

from ctrs.config import TrainConfig
from ctrs.errors import TrainingError
from ctrs.inference.device import cpu_threads
from ctrs.tiles.manifest import Manifest
from ctrs.training import tuning
from ctrs.training.distributed import threads_of_each
from ctrs.training.tuning import Attempt, auto_settings, best_attempt, search_batch

CPU = torch.device("cpu")
GIBI = 1 << 30


class FakeDevice:
    """A device on which an image takes a gibibyte, with so much memory; steps cost a fixed time and more by image."""

    def __init__(self, gibibytes: int, *, fixed: float = 0.0) -> None:
        self.memory, self.fixed = gibibytes * GIBI, fixed
        self.tried: list[int] = []

    def attempt(self, images: int) -> Attempt:
        self.tried.append(images)
        if images * GIBI > self.memory:
            return Attempt(images=images, fits=False)
        rate = images / (self.fixed + 0.1 * images)
        return Attempt(images=images, images_per_second=rate, memory_bytes=images * GIBI)


def test_doubles_while_it_gets_faster_and_fits() -> None:
    device = FakeDevice(70, fixed=4.0)
    attempts = search_batch(device.attempt, start=8, most=1000)
    assert device.tried == [8, 16, 32, 64, 128]
    assert best_attempt(attempts) == attempts[3]


def test_no_larger_than_gets_faster() -> None:
    device = FakeDevice(10_000)
    attempts = search_batch(device.attempt, start=8, most=1000)
    assert device.tried == [8, 16, 32]  # two doublings that gained nothing
    assert best_attempt(attempts) == attempts[0]
    hasty = FakeDevice(10_000)
    search_batch(hasty.attempt, start=8, most=1000, patience=1)
    assert hasty.tried == [8, 16]


def test_no_larger_than_an_epoch_bears() -> None:
    device = FakeDevice(10_000, fixed=50.0)
    attempts = search_batch(device.attempt, start=8, most=20)
    assert device.tried == [8, 16]
    assert best_attempt(attempts) == attempts[1]


def test_smaller_than_the_default_only_where_that_does_not_fit() -> None:
    device = FakeDevice(5)
    attempts = search_batch(device.attempt, start=32, most=1000)
    assert device.tried == [32, 16, 8, 4]
    assert best_attempt(attempts) == attempts[-1]
    assert best_attempt(search_batch(FakeDevice(0).attempt, start=4, most=8)) is None


@pytest.fixture(autouse=True)
def _short_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "_ENOUGH_SECONDS", 0.02)


@pytest.fixture(scope="module")
def manifest(write_prepared: Any, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return Manifest.open(write_prepared(tmp_path_factory.mktemp("data") / "town", train=70))


@pytest.fixture
def auto(tiny_config: TrainConfig) -> TrainConfig:
    return dataclasses.replace(tiny_config, auto=True, batch_size=None, workers=None)


def test_open_settings_are_filled_without_a_trace(
    manifest: Manifest, auto: TrainConfig, caplog: pytest.LogCaptureFixture
) -> None:
    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    threads = torch.get_num_threads()
    with caplog.at_level(logging.DEBUG, "ctrs"):
        found = auto_settings(auto, manifest, CPU)
    assert found.batch_size == 8  # the default; 70 tiles are too few for more
    assert found.workers is not None
    assert dataclasses.replace(found, batch_size=None, workers=None) == auto
    drawn = random.random(), np.random.random(), torch.rand(1)  # noqa: NPY002
    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    assert drawn == (random.random(), np.random.random(), torch.rand(1))  # noqa: NPY002
    assert torch.get_num_threads() == threads
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert len(said) == 1
    assert said[0].startswith("auto: batch 8 (8 images at once: ")
    assert "would leave fewer than 50 steps for an epoch" in said[0]
    assert any(record.levelno == logging.DEBUG and "at once" in record.getMessage() for record in caplog.records)


def test_a_small_memory_gives_a_small_batch(manifest: Manifest, auto: TrainConfig) -> None:
    auto = dataclasses.replace(auto, workers=0)
    meter = FakeMeter()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "MemoryMeter", lambda _: meter)
        patch.setattr(tuning._Trial, "_step", meter.step)
        assert auto_settings(auto, manifest, CPU, memory_limit=5 * GIBI).batch_size == 4
        assert max(meter.steps) == 4  # what cannot fit is not tried
        assert auto_settings(auto, manifest, CPU, memory_limit=8 * GIBI).batch_size == 8
        with pytest.raises(TrainingError, match=r"not even one image of 32 px fits into 537 MB; lower --crop"):
            auto_settings(auto, manifest, CPU, memory_limit=GIBI // 2)


class FakeMeter:
    """Memory of a device on which an image takes a gibibyte."""

    def __init__(self) -> None:
        self.peak = 0
        self.steps: list[int] = []

    def begin(self) -> None:
        self.peak = 0

    def peak_bytes(self) -> int:
        return self.peak

    def held_bytes(self) -> int:
        return 0

    def step(self, batch: Any) -> None:
        self.steps.append(len(batch["image"]))
        self.peak = max(self.peak, len(batch["image"]) * GIBI)


def test_running_out_of_memory_is_an_answer(manifest: Manifest, auto: TrainConfig) -> None:
    def step(self: Any, batch: Any) -> None:
        if len(batch["image"]) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning._Trial, "_step", step)
        found = auto_settings(dataclasses.replace(auto, workers=0), manifest, CPU, memory_limit=1000 * GIBI)
    assert found.batch_size == 2


def test_what_is_given_wins_and_what_was_found_before_holds(manifest: Manifest, auto: TrainConfig) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "_Trial", lambda *_, **__: pytest.fail("tried"))
        both = dataclasses.replace(auto, batch_size=4, workers=1)
        assert auto_settings(both, manifest, CPU) == both
        assert auto_settings(auto, manifest, CPU, earlier=both) == both
        given = dataclasses.replace(auto, batch_size=2)
        assert auto_settings(given, manifest, CPU, earlier=both).batch_size == 2
    found = auto_settings(given, manifest, CPU)
    assert found.batch_size == 2
    assert found.workers in (0, 1, 2)


def test_batches_can_be_shared_by_devices_and_parts(manifest: Manifest, auto: TrainConfig) -> None:
    found = auto_settings(dataclasses.replace(auto, accumulate=3, workers=0), manifest, CPU)
    assert found.batch_size == 9  # the default of 8, as three parts need it


def test_with_several_devices_one_tries_with_its_share_of_the_threads(
    manifest: Manifest, auto: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    had: list[int] = []
    monkeypatch.setattr(tuning._Trial, "_rate", lambda *_: (had.append(torch.get_num_threads()), 1.0)[1])
    with cpu_threads(4):
        for options in ({}, {"devices": 2}, {"devices": 2, "threads": 3}):
            auto_settings(dataclasses.replace(auto, workers=0, **options), manifest, CPU)  # type: ignore[arg-type]
            assert {*had} == {{(): 4, ("devices",): 2}.get(tuple(options), 3)}
            had.clear()
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        for key, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "TORCHELASTIC_RUN_ID": "a"}.items():
            monkeypatch.setenv(key, value)  # torchrun has chosen already
        assert threads_of_each(dataclasses.replace(auto, devices=2)) is None


def test_loaders_keep_a_gpu_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "usable_cores", lambda: 16)
    monkeypatch.setattr(tuning, "default_workers", lambda _: 4)
    trial = object.__new__(tuning._Trial)
    trial._device, trial._config, trial._load_seconds = torch.device("cuda"), TrainConfig(), 0.05
    assert trial.workers(Attempt(images=32, images_per_second=100.0))[0] == 8  # 5 busy, and half as many again
    assert trial.workers(Attempt(images=32, images_per_second=10.0))[0] == 4  # never fewer than the default
    assert trial.workers(Attempt(images=32, images_per_second=1000.0))[0] == 16
    trial._config = TrainConfig(devices=4)
    assert trial.workers(Attempt(images=32, images_per_second=1000.0))[0] == 4


def test_a_loader_process_is_taken_where_it_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "usable_cores", lambda: 2)
    trial = object.__new__(tuning._Trial)
    trial._device, trial._config, trial._load_seconds = CPU, TrainConfig(), 0.1
    trial._held_tiles = 0
    rates = {0: 4.0, 1: 5.0, 2: 4.5}
    monkeypatch.setattr(trial, "_loop_rate", lambda number, _: rates[number])
    chosen, why = trial.workers(Attempt(images=8, images_per_second=5.0))
    assert chosen == 1
    assert why == "with 0: 4.0 images/s, 1: 5.0 images/s, 2: 4.5 images/s"
    rates[1] = 4.1
    assert trial.workers(Attempt(images=8, images_per_second=5.0))[0] == 2
    rates[2] = 4.1
    assert trial.workers(Attempt(images=8, images_per_second=5.0))[0] == 0  # no clear gain
    assert trial.workers(Attempt(images=8, images_per_second=0.1))[0] == 0  # loading does not count
    assert "loading takes 1%" in trial.workers(Attempt(images=8, images_per_second=0.1))[1]


def test_loading_and_steps_are_timed_together(manifest: Manifest, auto: TrainConfig) -> None:
    trial = tuning._Trial(auto, manifest, CPU, memory_limit=None)
    for workers in (0, 1):
        assert trial._loop_rate(workers, 8) > 0
