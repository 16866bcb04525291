"""What only a CUDA device has: its layout, its copies, its generator, its compiler, its memory."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ctrs.config import TrainConfig
from ctrs.tiles.manifest import Manifest
from ctrs.training import EpochRecord, batch_step, train
from ctrs.training.random_state import random_state, restore_random_state
from ctrs.training.tuning import auto_settings

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory, write_prepared: Any) -> Path:
    """Prepared data that no test changes."""
    return write_prepared(tmp_path_factory.mktemp("data") / "town")


@pytest.fixture(scope="module")
def config(tiny_config: TrainConfig) -> TrainConfig:
    """One epoch of three steps on the GPU, in fp32."""
    return dataclasses.replace(
        tiny_config, device="cuda", precision="fp32", loss="none", epochs=1, drop_path=0.0, workers=0, log=()
    )


def test_images_are_channels_last_and_come_from_pinned_memory(
    town: Path, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, bool, bool]] = []
    original = batch_step.accumulate

    def watched(work: Any, config: TrainConfig, parts: Any, **place: int) -> Any:
        for batch in parts:
            images, _ = work.images(batch)
            layout = images.is_contiguous(memory_format=torch.channels_last)
            seen.append((layout, batch["image"].is_pinned(), images.is_cuda))
        return original(work, config, parts, **place)

    monkeypatch.setattr(batch_step, "accumulate", watched)
    train(town, tmp_path / "default", config)
    assert seen == [(True, True, True)] * 3
    seen.clear()
    train(town, tmp_path / "plain", dataclasses.replace(config, channels_last=False))
    assert seen == [(False, True, True)] * 3


def test_the_generator_of_the_gpu_is_put_back() -> None:
    torch.cuda.init()
    torch.rand(3, device="cuda")
    saved = json.loads(json.dumps(random_state()))
    assert len(saved["cuda"]) == torch.cuda.device_count()
    first = torch.rand(5, device="cuda")
    assert not torch.equal(torch.rand(5, device="cuda"), first)
    restore_random_state(saved)
    assert torch.equal(torch.rand(5, device="cuda"), first)


def test_a_run_that_goes_on_draws_the_numbers_that_it_would_have_drawn(
    town: Path, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[torch.Tensor] = []
    original = batch_step.accumulate

    def watched(*arguments: Any, **options: Any) -> Any:
        drawn.append(torch.rand(4, device="cuda").cpu())
        return original(*arguments, **options)

    monkeypatch.setattr(batch_step, "accumulate", watched)
    train(town, tmp_path / "whole", dataclasses.replace(config, epochs=2))
    whole = torch.stack(drawn)
    drawn.clear()
    train(town, tmp_path / "parts", config)
    train(town, tmp_path / "parts", dataclasses.replace(config, epochs=2), resume=True)
    assert torch.equal(torch.stack(drawn), whole)


# torch.compile warns about the device or its own internals (TensorFloat32, few multiprocessors), by machine.
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_network_takes_the_steps_of_a_plain_one(town: Path, config: TrainConfig, tmp_path: Path) -> None:
    told: dict[bool, list[EpochRecord]] = {False: [], True: []}
    for is_compiled, records in told.items():
        train(
            town, tmp_path / str(is_compiled), dataclasses.replace(config, compile=is_compiled),
            on_epoch=records.append,
        )  # fmt: skip
    plain, compiled = (records[0].losses for records in (told[False], told[True]))
    assert compiled["total"] == pytest.approx(plain["total"], rel=1e-2)
    assert compiled["grad_norm"] == pytest.approx(plain["grad_norm"], rel=5e-2)


def test_auto_fills_what_is_open_and_frees_the_memory(town: Path, config: TrainConfig) -> None:
    open_config = dataclasses.replace(config, auto=True, batch_size=None, workers=None)
    before = torch.cuda.memory_allocated()
    found = auto_settings(open_config, Manifest.open(town), torch.device("cuda"))
    assert found.batch_size is not None
    assert found.batch_size >= 1
    assert found.workers is not None
    assert dataclasses.replace(found, batch_size=None, workers=None) == open_config
    assert torch.cuda.memory_allocated() <= before + 2**20
