"""Each option of ``ctrs predict`` reaches the configuration that scenes are mapped with, under its key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.main import get_command

from ctrs import inference, memory
from ctrs.cli.app import app, main
from ctrs.config import PredictConfig

SETTINGS: dict[str, tuple[list[str], str, object]] = {
    "--window": (["256"], "window_px", 256),
    "--overlap": (["0.5"], "overlap", 0.5),
    "--blend": (["gaussian"], "blend", "gaussian"),
    "--tta": (["multiscale:0.75,1,1.25"], "tta", "multiscale:0.75,1,1.25"),
    "--batch-size": (["3"], "batch_size", 3),
    "--bidx": (["4,1,2"], "bidx", (4, 1, 2)),
    "--gsd": (["0.15m"], "gsd", 0.15),
    "--bounds": (["1,2,3.5,4"], "bounds", (1.0, 2.0, 3.5, 4.0)),
    "--aoi": (["district.gpkg"], "aoi", Path("district.gpkg")),
    "--classes": (["building, road"], "classes", ("building", "road")),
    "--threshold": (["building=0.6", "--threshold", "road=0.7"], "thresholds", (("building", 0.6), ("road", 0.7))),
    "--confidence": (["entropy"], "confidence", "entropy"),
    "--probabilities": (["float16"], "probabilities", "float16"),
    "--device": (["cuda:1"], "device", "cuda:1"),
    "--precision": (["bf16"], "precision", "bf16"),
    "--compile": ([], "compile", True),
    "--threads": (["1"], "threads", 1),
    "--max-memory": (["1.5GB"], "max_memory", 1_500_000_000),
    "--skip-unreadable": ([], "skip_unreadable", True),
    "--strict": ([], "strict", True),
    "--co": (["compress=zstd", "--co", "LEVEL=3"], "creation_options", (("COMPRESS", "zstd"), ("LEVEL", "3"))),
    "--qml": ([], "style", True),
    "--stac": ([], "stac", True),
    "--resume": (["--no-resume"], "resume", False),
    "--overwrite": ([], "overwrite", True),
}
"""Values other than the default, the key, and what stands there."""

ELSEWHERE = {"--model", "--out", "--mosaic", "--json", "--verbose", "--quiet"}


@pytest.fixture
def called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., SimpleNamespace]:
    """Call ``ctrs predict`` and return what it would map: ``scenes``, ``out``, ``config`` and the rest."""
    calls: list[SimpleNamespace] = []

    class Listener:
        def predict_raster(self, scene: Path, mask: Path, config: PredictConfig, **rest: Any) -> Path:
            calls.append(SimpleNamespace(scenes=[str(scene)], out=mask, config=config, **rest))
            return mask

    def load(model: Path, **options: Any) -> Listener:
        loaded.update(options, model=model)
        return Listener()

    def as_one(_: object, scenes: list[str], out: Path, config: PredictConfig, **rest: Any) -> list[Path]:
        calls.append(SimpleNamespace(scenes=scenes, out=out, config=config, **rest))
        return [out]

    loaded: dict[str, Any] = {}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(inference.Predictor, "from_checkpoint", load)
    monkeypatch.setattr(inference, "predict_mosaic", as_one)
    monkeypatch.setattr(memory, "share_one_arena", lambda: None)

    def call(*arguments: str) -> SimpleNamespace:
        assert main(["predict", "scene.tif", "-m", "runs/one", *arguments]) == 0
        (found,) = calls
        return SimpleNamespace(**vars(found), loaded=loaded)

    return call


def test_without_options_all_is_as_usual(called: Callable[..., SimpleNamespace]) -> None:
    found = called()
    assert found.config == PredictConfig()
    assert (found.scenes, found.out) == (["scene.tif"], Path("scene_mask.tif"))
    assert found.loaded["model"] == Path("runs/one")


def test_no_option_and_no_setting_is_left_out() -> None:
    command = get_command(app).commands["predict"]  # type: ignore[attr-defined]
    found = {name for entry in command.params for name in entry.opts if name.startswith("--")}
    assert found - ELSEWHERE == set(SETTINGS)
    assert {key for _, key, _ in SETTINGS.values()} == {entry.name for entry in fields(PredictConfig)}


@pytest.mark.parametrize("option", SETTINGS)
def test_an_option_arrives_under_its_key(option: str, called: Callable[..., SimpleNamespace]) -> None:
    values, key, expected = SETTINGS[option]
    assert getattr(PredictConfig(), key) != expected
    found = called(*([] if values[:1] == ["--no-resume"] else [option]), *values)
    assert getattr(found.config, key) == expected
    assert found.loaded["config"] == found.config
    assert (found.loaded["device"], found.loaded["precision"]) == (found.config.device, found.config.precision)


def test_the_ground_pixel_may_be_the_models(called: Callable[..., SimpleNamespace]) -> None:
    assert called("--gsd", "model").config.gsd == "model"


@pytest.mark.parametrize("each", [False, True])
def test_scenes_as_one_raster(each: bool, called: Callable[..., SimpleNamespace]) -> None:
    found = called("b.tif", "--mosaic", "each" if each else "one", "-o", "masks", "--overlap", "0.5")
    assert (found.scenes, found.out, found.each) == (["scene.tif", "b.tif"], Path("masks"), each)
    assert found.config == PredictConfig(overlap=0.5)


def test_two_thresholds_of_a_class_are_told_as_typed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "scene.tif", "--threshold", "building=0.50", "--threshold", "building=0.6"]) == 2
    found = " ".join(capsys.readouterr().err.split())
    assert "--threshold building=0.50 and building=0.6 found, expected one probability for each class" in found
