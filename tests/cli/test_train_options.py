"""Each option of ``ctrs train`` reaches the configuration that is trained with, under its key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.main import get_command

from ctrs import model_files, training
from ctrs.cli.app import app, main
from ctrs.config import TrainConfig
from ctrs.training import run_config
from ctrs.training.records import TrainResult

SETTINGS: dict[str, tuple[list[str], str, object]] = {
    "--backbone": (["swin"], "backbone", "swin"),
    "--decoder": (["fpn"], "decoder", "fpn"),
    "--loss": (["cl:0.5+pne"], "loss", "cl:0.5+pne"),
    "--segmentation": (["focal"], "segmentation.terms", "focal"),
    "--recipe": (["ct-paper"], "recipe", "ct-paper"),
    "--weights": (["imagenet"], "weights", "imagenet"),
    "--init": (["old/run"], "init", "old/run"),
    "--epochs": (["7"], "epochs", 7),
    "--batch-size": (["12"], "batch_size", 12),
    "--accumulate": (["3"], "accumulate", 3),
    "--auto": ([], "auto", True),
    "--optimizer": (["sgd"], "optimizer", "sgd"),
    "--learning-rate": (["0.002"], "learning_rate", 0.002),
    "--weight-decay": (["0.03"], "weight_decay", 0.03),
    "--schedule": (["cosine"], "schedule", "cosine"),
    "--warmup-epochs": (["2"], "warmup_epochs", 2),
    "--encoder-rate": (["0.1"], "encoder_rate", 0.1),
    "--layer-decay": (["0.8"], "layer_decay", 0.8),
    "--frozen-stages": (["2"], "frozen_stages", 2),
    "--ema": (["0.99"], "ema", 0.99),
    "--patience": (["4"], "patience", 4),
    "--train-share": (["0.25"], "train_share", 0.25),
    "--tile-draws": (["3"], "tile_draws", 3),
    "--sampling": (["class-balanced"], "sampling", "class-balanced"),
    "--crop": (["96"], "crop", 96),
    "--workers": (["3"], "workers", 3),
    "--seed": (["5"], "seed", 5),
    "--fold": (["1"], "fold", 1),
    "--device": (["cuda:1"], "device", "cuda:1"),
    "--precision": (["bf16"], "precision", "bf16"),
    "--devices": (["2"], "devices", 2),
    "--nodes": (["2"], "num_nodes", 2),
    "--compile": ([], "compile", True),
    "--deterministic": ([], "deterministic", True),
    "--threads": (["1"], "threads", 1),
    "--log": (["wandb", "--log", "mlflow"], "log", ("wandb", "mlflow")),
    "--set": (["augment.cutmix=0.5"], "augment.cutmix", 0.5),
}
"""Values other than the default, the key, and what stands there."""

NO_SETTINGS = {"--name", "--config", "--resume", "--overwrite", "--json", "--verbose", "--quiet"}


class Call(SimpleNamespace):
    """A call of the training: ``data``, ``run_dir``, ``config`` and the options beside."""


@pytest.fixture
def called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Call]:
    """Call ``ctrs train`` and return what it would train."""
    monkeypatch.chdir(tmp_path)
    calls: list[Call] = []

    def trained(data: Path, run_dir: Path, config: TrainConfig, **options: Any) -> TrainResult:
        calls.append(Call(data=data, run_dir=run_dir, config=config, **options))
        return TrainResult(run_dir=run_dir, epochs=1, best_epoch=1, metrics={"mean_iou": 0.5}, seconds=1.0)

    monkeypatch.setattr(training, "train", trained)
    architecture = SimpleNamespace(backbone="convnext", decoder="upernet")
    monkeypatch.setattr(model_files, "read_metadata", lambda _: SimpleNamespace(architecture=architecture))

    def call(*arguments: str) -> Call:
        assert main(["train", "somewhere", *arguments, "-q"]) == 0
        return calls.pop()

    return call


def value_at(config: object, key: str) -> object:
    for part in key.split("."):
        config = getattr(config, part)
    return config


def test_without_options_all_is_as_usual(called: Callable[..., Call]) -> None:
    assert called().config == TrainConfig()


def test_no_option_is_left_out() -> None:
    command: Any = get_command(app)
    options = [entry.opts for entry in command.commands["train"].params if entry.param_type_name == "option"]
    assert {opts[0] for opts in options} == set(SETTINGS) | NO_SETTINGS


@pytest.mark.parametrize("option", SETTINGS)
def test_an_option_arrives_under_its_key(option: str, called: Callable[..., Call]) -> None:
    words, key, value = SETTINGS[option]
    assert value_at(TrainConfig(), key) != value
    config = called(option, *words).config
    assert value_at(config, key) == value
    assert type(value_at(config, key)) is type(value)


@pytest.mark.parametrize("option", ["--loss", "--epochs", "--seed", "--log", "--set"])
def test_an_option_wins_over_the_file(option: str, called: Callable[..., Call], tmp_path: Path) -> None:
    words, key, value = SETTINGS[option]
    path = tmp_path / "other.toml"
    path.write_text('epochs = 3\nloss = "none"\nseed = 99\nlog = []\n[augment]\ncutmix = 0.1\nmosaic = 0.2\n')
    config = called("--config", str(path), option, *words).config
    assert value_at(config, key) == value
    assert config.augment.mosaic == 0.2  # what no option names stands as in the file


def test_what_training_begins_from_names_the_network_unless_told(called: Callable[..., Call]) -> None:
    config = called("--init", "old/run").config
    assert (config.backbone, config.decoder) == ("convnext", "upernet")
    assert called("--init", "old/run", "--decoder", "fpn").config.decoder == "fpn"


def test_places_and_leave_to_overwrite_arrive(called: Callable[..., Call]) -> None:
    call = called("--name", "mine", "--overwrite")
    assert (call.data, call.run_dir, call.overwrite, call.resume) == (Path("somewhere"), Path("runs/mine"), True, False)
    assert not called().overwrite


def test_a_resumed_run_is_gone_on_with_as_it_was_set_up(
    called: Callable[..., Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("runs/mine").mkdir(parents=True)
    monkeypatch.setattr(run_config, "read_run_config", lambda _: (TrainConfig(seed=4), Path("its/data")))
    call = called("--resume", "--name", "mine", "--epochs", "9")
    assert (call.resume, call.overwrite, call.run_dir) == (True, False, Path("runs/mine"))
    assert call.config == TrainConfig(seed=4, epochs=9)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--nodes", "0"), "--nodes = 0 found, expected 1 or more"),
        (("--learning-rate", "0"), "--learning-rate = 0.0 found, expected above 0 and below 10"),
        (("--set", "gradient_clip=0"), "options: gradient_clip = 0.0 found, expected above 0"),
    ],
)
def test_what_is_refused_is_named_as_it_was_typed(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "somewhere", *words]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "contrast.num_pairs=9"], "contrast.num_pairs changes nothing: loss none has no cl and no infonce"),
        (["--loss", "cl", "--set", "multiscale.pairs=[[0, 1]]", "--set", "multiscale.pair_weights=[1]"], "no cms"),
        (["--set", "contrast_warmup_steps=9"], "contrast_warmup_steps changes nothing: loss none has no cl and no"),
        (["--loss", "infonce", "--set", "contrast.num_pairs=9"], ""),
        (["--set", "contrast.clip_mode=rescale"], ""),  # as it is anyway
        (["--recipe", "ct-paper", "--loss", "none"], ""),  # nobody typed what the recipe sets
    ],
)
@pytest.mark.usefixtures("called")
def test_settings_of_terms_that_the_loss_has_not_are_named(
    capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert main(["train", "somewhere", *words]) == 0
    err = capsys.readouterr().err
    assert said in err
    assert ("changes nothing" in err) == bool(said)
